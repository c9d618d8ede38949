//! A context in a foreign loop, one iteration at a time.

use std::os::fd::AsFd;
use std::time::Duration;

use aio_context::{ClockId, Context, ManualClock, Wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Runs one iteration of a foreign loop: prepare, wait for the one descriptor, check, dispatch. Simulated
/// time passes only if there is nothing else to wait for.
pub(crate) fn turn(cx: &Context, wait: Wait, clock: &ManualClock) -> bool {
    let embedded = cx.embed().expect("this backend can be embedded");
    let prepared = embedded.prepare_ms();
    let at_most = |most: Duration| {
        let most = i32::try_from(most.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        if prepared < 0 { most } else { prepared.min(most) }
    };
    let limit = match wait {
        Wait::NoBlock => 0,
        Wait::Block => prepared,
        Wait::AtMost(most) => at_most(most),
        Wait::Until(at) => at_most(at.since(cx.now(ClockId::Monotonic))),
    };
    if limit > 0 && !is_readable(&embedded) {
        clock.advance(Duration::from_millis(limit.unsigned_abs().into()));
    }
    embedded.check().expect("the backend works") && embedded.dispatch()
}

fn is_readable(fd: impl AsFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&now)).expect("poll works") == 1
}
