//! Churn: contexts that are made and dropped with unfinished work.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{Backend, ClockId, Context, Interest, Wait};

use crate::handlers::Bell;

fn backend() -> io::Result<Box<dyn Backend>> {
    Ok(match fastrand::u8(..3) {
        0 => Box::new(Ppoll::new()),
        1 => Box::new(Epoll::new()?),
        _ => Box::new(Ladder::new(Ppoll::new(), Epoll::new, 2)),
    })
}

/// Makes a context with some of each kind of work, runs a part of it, and drops the context. Everything must
/// be freed.
pub(crate) fn come_and_go(served: &Rc<Cell<u64>>) -> io::Result<()> {
    let cx = Context::builder().backend(backend()?).build()?;
    let bells: Vec<_> = (0..4).map(|_| Bell::new(served)).collect::<io::Result<_>>()?;
    let mut registrations = Vec::new();
    for bell in &bells {
        registrations.push(cx.watch(bell.clone(), Interest::READ)?);
    }
    let count = served.clone();
    let half = cx.bottom_half("churn", move |_| count.set(count.get() + 1));
    let count = served.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| count.set(count.get() + 1))
        .disarmed();
    timer.arm_after(Duration::from_micros(fastrand::u64(..20)));
    bells[0].ring();
    bells[1].ring();
    half.schedule();
    for _ in 0..fastrand::u8(..4) {
        cx.poll(Wait::NoBlock)?;
    }
    // Work that is unfinished when the context is dropped.
    bells[2].ring();
    half.schedule();
    if let Some(registration) = registrations.pop() {
        registration.detach();
    }
    let remote = cx.remote();
    let probe = std::sync::Arc::new(());
    let kept = probe.clone();
    let sent = remote.run(move |_| drop(kept));
    assert!(sent.is_ok(), "the context is alive");
    let (first, second) = (fastrand::bool(), fastrand::bool());
    if first {
        registrations.clear();
    }
    if second {
        drop(timer);
    }
    drop(cx);
    assert_eq!(
        std::sync::Arc::strong_count(&probe),
        1,
        "a job outlived its context"
    );
    assert!(remote.run(|_| {}).is_err(), "it is gone");
    half.schedule();
    drop(registrations);
    assert!(
        bells.iter().all(|bell| Rc::strong_count(bell) == 1),
        "a handler outlived its context"
    );
    Ok(())
}
