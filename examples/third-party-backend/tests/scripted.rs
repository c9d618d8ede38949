//! A handler of one's own, tested on a simulated system: no waiting, and the same every time.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::Readiness;
use aio_context::{ClockId, Context, Moment, Wait};
use rustix::event::{EventfdFlags, eventfd};
use third_party_backend::Script;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Collects changes, and writes them back 10 ms after the last one.
fn write_back(
    cx: &Context,
    fd: OwnedFd,
    script: Script,
) -> std::io::Result<(Rc<RefCell<Vec<Moment>>>, impl Sized + use<>)> {
    let written = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&written);
    let timer = cx
        .timer(ClockId::Monotonic, move |cx, _| log.borrow_mut().push(cx.now(ClockId::Monotonic)))
        .disarmed();
    let read = move |fd: &OwnedFd, _: &Context| {
        script.clear(fd, Readiness::IN);
        timer.arm_after(ms(10));
    };
    Ok((written, cx.on(fd).readable(read).watch()?))
}

#[test]
fn changes_in_a_row_are_written_once() -> std::io::Result<()> {
    let script = Script::default();
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    for millis in [1, 4, 9, 3_600_000] {
        script.at(ms(millis), &fd, Readiness::IN);
    }
    let cx =
        Context::builder().backend(Box::new(script.backend())).monotonic(Arc::new(script.clone())).build()?;
    let (written, _registration) = write_back(&cx, fd, script)?;
    let over = loop {
        if let Err(over) = cx.poll(Wait::Block) {
            break over;
        }
    };
    // The second one an hour later, which takes no time.
    let at = |millis| Moment::ZERO.saturating_add(ms(millis));
    assert_eq!(*written.borrow(), [at(19), at(3_600_010)]);
    assert_eq!(over.kind(), ErrorKind::TimedOut, "nothing is left to wait for");
    Ok(())
}
