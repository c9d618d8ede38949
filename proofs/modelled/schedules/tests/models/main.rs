//! A whole context and one thread, in every order that loom supports, including weak memory.
#![allow(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool as Recorded, Ordering::Relaxed as Unchecked};
use std::time::Duration;

use aio_checker::AtomicU32;
use aio_checker::planting::{is_planted, must_be_found};
use aio_context::{ClockId, Context, Handler, Interest, Moment, Remote, Timer, Wait};
use aio_notify::EventNotifier;
use aio_schedules::Fake;
use loom::cell::UnsafeCell;
use loom::sync::atomic::Ordering;
use loom::thread;

macro_rules! models {
    ($check:ident: $($name:ident => $model:ident;)*) => { $(#[test] fn $name() { $check($model); })* };
}

macro_rules! faults {
    ($($name:ident: $fault:ident in $($model:ident)*;)*) => {
        $(#[test] fn $name() {
            must_be_found(concat!(module_path!(), "::", stringify!($name)), stringify!($fault), &[$(|| check($model)),*]);
        })*
    };
}

// After the macros that it uses.
mod tasks;

/// The most steps of one run. An iteration of a context has about twenty.
const LONGEST: usize = 5_000;

/// The number of preemptions from which on there is no time limit.
const LONG: usize = 3;

fn check(model: fn()) {
    check_to(model, Some);
}

/// Runs a model of one other thread with one preemption more than the bound; in the long run with three more.
fn check_further(model: fn()) {
    check_to(model, |bound| Some(bound + if bound < LONG { 1 } else { 3 }));
}

/// Like `check_further`, for a small model; in the long run to its end.
fn check_to_the_end(model: fn()) {
    check_to(model, |bound| (bound < LONG).then_some(bound + 1));
}

fn check_to(model: fn(), preemptions: impl FnOnce(usize) -> Option<usize>) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = LONGEST;
    builder.preemption_bound = builder.preemption_bound.and_then(preemptions);
    builder.check(model);
}

/// A wait for a context that is dropped returns the answer if its job ran, and an error otherwise.
fn waits_for_a_context_that_goes(waiters: usize) {
    let cx = Fake::context();
    let waiters: Vec<_> = (0..waiters)
        .map(|_| {
            let remote = cx.remote();
            thread::spawn(move || {
                let ran = Arc::new(Recorded::new(false));
                let by_job = ran.clone();
                let answer = remote.run_and_wait(move |_| by_job.store(true, Unchecked));
                assert_eq!(answer.is_ok(), ran.load(Unchecked));
                assert_eq!(Arc::strong_count(&ran), 1, "the job is left");
            })
        })
        .collect();
    cx.poll(Wait::NoBlock).unwrap();
    drop(cx);
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
}

fn one_waits_for_a_context_that_goes() {
    waits_for_a_context_that_goes(1);
}

fn two_wait_for_a_context_that_goes() {
    waits_for_a_context_that_goes(2);
}

/// Two contexts call each other.
fn two_contexts_that_wait_for_each_other() {
    let cx = Fake::context();
    let (first, left) = (cx.remote(), Arc::new(AtomicU32::new(2)));
    let second = Arc::new(loom::sync::Mutex::new(None));
    let (tell, by_other) = (second.clone(), left.clone());
    let other = thread::Builder::new().stack_size(1 << 16).spawn(move || {
        let cx = Fake::context();
        *tell.lock().unwrap() = Some(cx.remote());
        first.kick();
        calls(&cx, &first, &by_other);
    });
    cx.wait_while(|| second.lock().unwrap().is_none()).unwrap();
    let second = second.lock().unwrap().take().unwrap();
    calls(&cx, &second, &left);
    other.unwrap().join().unwrap();
}

/// Calls the other context once, and serves this one until no thread needs it any more.
fn calls(cx: &Context, other: &Remote, left: &AtomicU32) {
    assert_eq!(cx.run_on(other, |_| 7), Ok(7));
    left.fetch_sub(1, Ordering::Relaxed);
    other.kick();
    cx.wait_while(|| left.load(Ordering::Relaxed) > 0).unwrap();
}

/// A handler that reads `data` while it is registered.
struct Port {
    bell: EventNotifier,
    data: Arc<UnsafeCell<u32>>,
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Handler for Port {
    fn readable(&self, _: &Context) {
        self.bell.test_and_clear().unwrap();
        // SAFETY: the model checks that no write happens at the same time.
        self.data.with(|data| assert_eq!(unsafe { *data }, 1));
    }
}

/// After the removal of a handler, the caller may free the data that it used.
fn removal_by_another_thread() {
    let cx = Fake::context();
    let data = Arc::new(UnsafeCell::new(1));
    let port = Rc::new(Port {
        bell: EventNotifier::new().unwrap(),
        data: data.clone(),
    });
    port.bell.set().unwrap();
    let token = cx.watch(port, Interest::READ).unwrap().detach();
    let remote = cx.remote();
    let removed = Arc::new(Recorded::new(false));
    let remover = {
        let removed = removed.clone();
        thread::spawn(move || {
            let remove = move |cx: &Context| {
                removed.store(true, Unchecked);
                cx.unwatch(token)
            };
            if is_planted("RemovalNotAwaited") {
                remote.run(move |cx| assert!(remove(cx))).unwrap();
            } else {
                assert!(remote.run_and_wait(remove).unwrap());
            }
            // SAFETY: the model checks that no thread reads at the same time.
            data.with_mut(|data| unsafe { *data = 2 });
        })
    };
    while !removed.load(Unchecked) {
        cx.poll(Wait::Block).unwrap();
    }
    remover.join().unwrap();
}

loom::thread_local! {
    /// The timers of a model. They belong to the home thread.
    static TIMERS: RefCell<Vec<Timer>> = RefCell::new(Vec::new());
}

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

/// Arms a timer on the virtual clock, which stands still at first. Returns the record of its firing.
fn armed(cx: &Context, deadline: Moment) -> Arc<Recorded> {
    cx.virtual_clock().stop();
    let fired = Arc::new(Recorded::new(false));
    let by_timer = fired.clone();
    let timer = cx
        .timer(ClockId::Virtual, move |cx, _| {
            assert!(cx.now(ClockId::Virtual) >= at(100), "early");
            by_timer.store(true, Unchecked);
        })
        .disarmed();
    timer.arm_at(deadline);
    TIMERS.with(|timers| timers.borrow_mut().push(timer));
    fired
}

fn serve_until(cx: &Context, fired: &Recorded) {
    while !fired.load(Unchecked) {
        cx.poll(Wait::Block).unwrap();
    }
    TIMERS.with(|timers| timers.borrow_mut().clear());
}

/// If another thread warps and starts the clock, a loop that sleeps wakes.
fn clock_started_by_another_thread() {
    let cx = Fake::context();
    let fired = armed(&cx, at(100));
    let clock = cx.virtual_clock();
    let other = thread::spawn(move || {
        clock.warp(Duration::from_nanos(200));
        clock.start();
    });
    serve_until(&cx, &fired);
    other.join().unwrap();
}

/// A timer that a job of another thread arms.
fn timer_armed_by_a_job() {
    let cx = Fake::context();
    let fired = armed(&cx, Moment::NEVER);
    cx.virtual_clock().start();
    let remote = cx.remote();
    let other = thread::spawn(move || {
        let arm = |_: &Context| TIMERS.with(|timers| timers.borrow()[0].arm_at(at(100)));
        remote.run(arm).unwrap();
    });
    serve_until(&cx, &fired);
    other.join().unwrap();
}

/// A wait for a change by another thread detects the change.
fn kicks() {
    let cx = Fake::context();
    let changed = Arc::new(AtomicU32::new(0));
    let (remote, by_other) = (cx.remote(), changed.clone());
    let other = thread::spawn(move || {
        by_other.store(1, Ordering::Relaxed);
        remote.kick();
    });
    cx.wait_while(|| changed.load(Ordering::Relaxed) == 0).unwrap();
    other.join().unwrap();
}

models! { check:
    w2_both_waits_for_a_context_that_goes_return_an_error => two_wait_for_a_context_that_goes;
    w2_two_contexts_that_wait_for_each_other_are_answered => two_contexts_that_wait_for_each_other;
}

models! { check_to_the_end:
    w1_no_kick_is_missed => kicks;
    w2_a_wait_for_a_context_that_goes_returns_an_error => one_waits_for_a_context_that_goes;
}

models! { check_further:
    r11_nothing_is_called_after_its_removal_from_another_thread => removal_by_another_thread;
    t2_a_clock_that_another_thread_starts_wakes => clock_started_by_another_thread;
    t3_a_timer_that_another_thread_has_armed_fires => timer_armed_by_a_job;
}

faults! {
    w2_planted_left_open: LeftOpen in one_waits_for_a_context_that_goes;
    w2_planted_kicked_before_answer: KickedBeforeAnswer in two_contexts_that_wait_for_each_other;
    r11_planted_removal_not_awaited: RemovalNotAwaited in removal_by_another_thread;
    t2_planted_notified_before_change: NotifiedBeforeChange in clock_started_by_another_thread;
    h7_planted_notified_before_sent: NotifiedBeforeSent in timer_armed_by_a_job;
    w1_planted_kick_without_fence: KickWithoutFence in kicks;
    w1_planted_counted_without_fence: CountedWithoutFence in kicks;
    w1_planted_counted_late: CountedLate in kicks;
}
