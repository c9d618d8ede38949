//! A duration as the kernel takes it.

use std::time::Duration;

use rustix::event::Timespec;

/// Not rounded; a duration beyond what the kernel takes is cut to it, which is longer than anybody waits.
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
    fn b1_nanoseconds_are_kept_and_the_absurd_is_cut() {
        let exact = timespec(Duration::new(3, 999_999_999));
        assert_eq!((exact.tv_sec, exact.tv_nsec), (3, 999_999_999));
        let most = timespec(Duration::MAX);
        assert_eq!((most.tv_sec, most.tv_nsec), (i64::MAX, 999_999_999));
    }
}
