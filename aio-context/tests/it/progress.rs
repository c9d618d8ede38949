//! Rule D4: progress, and the end of a blocking poll.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aio_backend::conformance::disturb::once_asleep;
use aio_context::{BottomHalf, Clock, ClockId, Context, Interest, Wait};

use crate::common::{Bench, Count, Kick, Number, watch};

const MILLI: Duration = Duration::from_millis(1);

/// Returns a context whose waits advance a simulated clock.
fn simulated() -> (Context, std::sync::Arc<aio_context::ManualClock>) {
    let clock = std::sync::Arc::new(aio_context::ManualClock::new());
    let cx = Context::builder().monotonic(clock.clone()).build().unwrap();
    (cx, clock)
}

/// Returns an idle bottom half that schedules itself again, and the number of its runs.
fn restless(cx: &Context) -> (Rc<RefCell<Option<BottomHalf>>>, Count) {
    let (own, runs) = (Rc::new(RefCell::new(None::<BottomHalf>)), Count::default());
    let (handle, counted) = (own.clone(), runs.clone());
    let bh = cx.bottom_half("restless", move |_| {
        counted.up();
        if let Some(bh) = &*handle.borrow() {
            bh.schedule_idle();
        }
    });
    bh.schedule_idle();
    *own.borrow_mut() = Some(bh);
    (own, runs)
}

#[test]
fn d4_a_blocking_poll_goes_on_after_idle_bottom_halves() {
    let (cx, clock) = simulated();
    let (own, runs) = restless(&cx);
    let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
    timer.arm_after(25 * MILLI);
    let start = clock.now();
    assert!(cx.poll(Wait::Block).unwrap(), "the timer");
    assert_eq!((clock.now().since(start), runs.get()), (25 * MILLI, 3));
    own.take();
}

#[test]
fn d4_a_poll_with_a_limit_goes_on_until_then() {
    let (cx, clock) = simulated();
    let (own, runs) = restless(&cx);
    for round in 1..=3 {
        let start = clock.now();
        assert!(!cx.poll(Wait::AtMost(30 * MILLI)).unwrap(), "idle is no progress");
        assert_eq!((clock.now().since(start), runs.get()), (30 * MILLI, 3 * round));
    }
    assert!(
        !cx.poll(Wait::NoBlock).unwrap(),
        "one that may not wait does not go on"
    );
    own.take();
}

#[test]
fn d4_a_nested_blocking_poll_goes_on_too() {
    let (cx, clock) = simulated();
    let (own, runs) = restless(&cx);
    let nests = cx.bottom_half("nests", |cx| {
        let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
        timer.arm_after(25 * MILLI);
        assert!(cx.poll(Wait::Block).unwrap());
    });
    nests.schedule();
    let start = clock.now();
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(clock.now().since(start), 25 * MILLI);
    assert!(runs.get() >= 2);
    own.take();
}

/// Another thread schedules a bottom half, deletes it, or pauses a ready handler: none of these is progress.
#[test]
fn d4_events_without_progress_do_not_end_a_blocking_poll() {
    let cx = Context::new().unwrap();
    let (tell, hear) = mpsc::channel();
    let idle = cx.bottom_half("idle", move |_| tell.send(()).unwrap());
    let (deleted, work) = (cx.bottom_half("deleted", |_| {}), cx.bottom_half("work", |_| {}));
    let (paused, group) = (Kick::new(), cx.new_group());
    let _paused = cx.watch_in(group, paused.clone(), Interest::READ).unwrap();
    let pause = cx.pause(group);
    let writer = paused.writer();
    // The handles are kept here, because the drop of a handle cancels its schedule.
    let (idle, work) = (&idle, &work);
    let act = move || {
        idle.schedule_idle();
        hear.recv().unwrap();
        drop(deleted);
        rustix::io::write(&writer, &1u64.to_ne_bytes()).unwrap();
        idle.schedule_idle();
        hear.recv().unwrap();
        work.schedule();
    };
    once_asleep(act, || {
        assert!(cx.poll(Wait::Block).unwrap(), "the last one is progress")
    });
    assert_eq!(paused.count.get(), 0);
    drop(pause);
    assert!(cx.poll(Wait::Block).unwrap() && paused.count.get() == 1);
}

#[test]
fn d4_a_pure_notify_ends_a_blocking_poll_and_is_no_progress() {
    let cx = Context::new().unwrap();
    let (own, _) = restless(&cx);
    let remote = cx.remote();
    remote.notify();
    assert!(!cx.poll(Wait::Block).unwrap(), "notified before");
    once_asleep(|| remote.notify(), || assert!(!cx.poll(Wait::Block).unwrap()));
    // A notification together with work is progress, and has no effect afterwards.
    let work = cx.bottom_half("work", |_| {});
    remote.notify();
    work.schedule();
    assert!(cx.poll(Wait::Block).unwrap());
    assert!(!cx.poll(Wait::AtMost(11 * MILLI)).unwrap());
    own.take();
}

/// `wait_while` depends on this.
#[test]
fn d4_w1_a_kick_ends_the_wait_though_idle_ones_run() {
    let cx = Context::new().unwrap();
    let (own, _) = restless(&cx);
    for _ in 0..100 {
        let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (remote, cleared) = (cx.remote(), flag.clone());
        let other = thread::spawn(move || {
            cleared.store(false, std::sync::atomic::Ordering::Relaxed);
            remote.kick();
        });
        let condition = || flag.load(std::sync::atomic::Ordering::Relaxed);
        cx.wait_while(condition).unwrap();
        other.join().unwrap();
    }
    own.take();
}

#[test]
fn d4_an_invalidation_is_progress() {
    let cx = Bench::PPOLL.context();
    for wait in [Wait::Block, Wait::AtMost(1000 * MILLI), Wait::NoBlock] {
        let number = Number::new();
        let registration = cx.watch(number.clone(), Interest::READ).unwrap();
        number.close();
        assert!(cx.poll(wait).unwrap(), "{wait:?}");
        assert!(!registration.is_live() && number.errors.borrow().len() == 1);
        assert!(!cx.poll(Wait::NoBlock).unwrap(), "once");
    }
}

/// A poll must return after a handler ran, even if a nested poll called it.
#[test]
fn d4_progress_of_a_poll_inside_an_idle_bottom_half_ends_the_outer_one() {
    for wait in [Wait::Block, Wait::NoBlock] {
        let (cx, kick) = (Context::new().unwrap(), Kick::new());
        let _kick = watch(&cx, &kick);
        let inside = kick.clone();
        let idle = cx.bottom_half("idle", move |cx| {
            inside.kick();
            assert!(cx.poll(Wait::NoBlock).unwrap());
        });
        idle.schedule_idle();
        assert!(cx.poll(wait).unwrap());
        assert_eq!(kick.count.get(), 1);
        assert!(!cx.poll(Wait::NoBlock).unwrap(), "counted once");
    }
}
