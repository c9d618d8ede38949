//! [`call_each`]: calls that belong together, of which one may panic.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Calls `call` for each member of a group, even after one of the calls has panicked, because nothing else
/// would call the remaining members.
///
/// # Panics
/// If a call panics, with the first panic, after all calls. Later panics are dropped.
///
/// ```
/// use std::panic::{AssertUnwindSafe, catch_unwind};
/// use aio_handlers::call_each;
///
/// let mut called = Vec::new();
/// let mut call = |member| {
///     called.push(member);
///     assert_ne!(member, 2, "on purpose");
/// };
/// let outcome = catch_unwind(AssertUnwindSafe(|| call_each([1, 2, 3], &mut call)));
/// assert!(outcome.is_err() && called == [1, 2, 3]);
/// ```
pub fn call_each<T>(members: impl IntoIterator<Item = T>, mut call: impl FnMut(T)) {
    let mut first_panic = None;
    for member in members {
        let called = catch_unwind(AssertUnwindSafe(|| call(member)));
        first_panic = first_panic.or(called.err());
    }
    if let Some(panic) = first_panic {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d9_the_first_of_several_panics_goes_on_and_all_members_are_called() {
        let mut called = 0;
        let call = |member: u32| {
            called += 1;
            assert!(member.is_multiple_of(2), "{member}");
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| call_each(0..6, call)));
        let panic = outcome.expect_err("some of them panic");
        assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some("1"));
        assert_eq!(called, 6);
        call_each([0, 2], |_| called += 1);
        assert_eq!(called, 8);
    }
}
