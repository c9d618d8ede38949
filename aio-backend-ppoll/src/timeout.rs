//! Converts a [`Duration`] for the kernel.

use std::time::Duration;

use rustix::event::Timespec;

/// Converts a time to nanoseconds for the kernel.
///
/// A time beyond the range of `Timespec` (292 billion years) becomes the largest possible one. The kernel
/// saturates when it adds the timeout to its clock, so the largest value waits for ever, without an error or
/// a busy loop.
pub(crate) fn timespec(timeout: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b1_timeouts_keep_their_nanoseconds_and_are_cut_at_the_end() {
        let check = |timeout: Duration, sec: i64, nsec: u32| {
            let spec = timespec(timeout);
            assert_eq!((spec.tv_sec, spec.tv_nsec), (sec, nsec.into()), "{timeout:?}");
        };
        check(Duration::ZERO, 0, 0);
        check(Duration::from_nanos(1), 0, 1);
        check(Duration::new(3, 999_999_999), 3, 999_999_999);
        check(Duration::new(i64::MAX as u64, 5), i64::MAX, 5);
        check(Duration::new(i64::MAX as u64 + 1, 5), i64::MAX, 5);
        check(Duration::MAX, i64::MAX, 999_999_999);
    }
}
