//! Rules A: busy polling.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::Iteration;
use aio_context::{
    Clock, ClockId, Context, Interest, ManualClock, Moment, PollParams, PollPolicy, Polled, Remote, Wait,
};

use crate::common::{Bench, Count, Kick, Twin, watch, watch_polled};

/// A policy that polls for as long as it may.
#[derive(Debug, Default)]
pub(crate) struct Always;

impl PollPolicy for Always {
    fn name(&self) -> &'static str {
        "always"
    }
    fn budget(&self) -> Duration {
        Duration::MAX
    }
    fn observe(&mut self, _: Iteration) {}
    fn reset(&mut self, _: PollParams) {}
}

/// A policy that polls for a fixed time, and records the reports.
#[derive(Debug, Clone)]
struct Spy(Duration, Rc<RefCell<Vec<Iteration>>>);

impl PollPolicy for Spy {
    fn name(&self) -> &'static str {
        "spy"
    }
    fn budget(&self) -> Duration {
        self.0
    }
    fn observe(&mut self, seen: Iteration) {
        self.1.borrow_mut().push(seen);
    }
    fn reset(&mut self, _: PollParams) {}
}

const BENCH: Bench = Bench::LADDER_AT_64;

/// Returns a context with a policy, which may poll for up to `max`, and its clock.
fn polling(policy: impl PollPolicy + 'static, max: Duration) -> (Context, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let builder = BENCH.builder().monotonic(clock.clone()).policy(Box::new(policy));
    (
        builder.poll_params(PollParams::up_to(max)).build().unwrap(),
        clock,
    )
}

pub(crate) fn always(max: Duration) -> (Context, Arc<ManualClock>) {
    polling(Always, max)
}

/// A handler that has work as soon as polling has ended, and logs its calls.
pub(crate) struct Late(pub(crate) Rc<Kick>);

impl std::os::fd::AsFd for Late {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl aio_context::Handler for Late {}

impl aio_context::Pollable for Late {
    fn poll(&self) -> bool {
        self.0.log.borrow().last() == Some(&"end")
    }
    fn poll_ready(&self, _: &Context) {
        self.0.log.borrow_mut().push("poll_ready");
    }
    fn poll_begin(&self) {
        self.0.log.borrow_mut().push("begin");
    }
    fn poll_end(&self) {
        self.0.log.borrow_mut().push("end");
    }
}

#[test]
fn a1_a_maximum_of_zero_means_that_no_poll_callback_is_called() {
    let clock = Arc::new(ManualClock::new());
    let cx = BENCH
        .builder()
        .monotonic(clock)
        .policy(Box::new(Always))
        .build()
        .unwrap();
    let kick = Kick::new();
    let _registration = watch_polled(&cx, &kick);
    for _ in 0..10 {
        kick.kick();
        assert!(cx.poll(Wait::Block).unwrap());
        assert!(!cx.poll(Wait::NoBlock).unwrap());
    }
    assert_eq!((kick.polls.get(), kick.count.get()), (0, 10));
    assert!(kick.log.borrow().iter().all(|entry| *entry == "readable"));
}

#[test]
fn a2_polling_is_cut_by_a_deadline() {
    let (cx, clock) = always(Duration::from_secs(3600));
    let fired = Count::default();
    let counted = fired.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            counted.up();
        })
        .disarmed();
    timer.arm_after(Duration::from_millis(5));
    assert!(cx.poll(Wait::Block).unwrap());
    let now = aio_context::Clock::now(&*clock);
    assert!(now <= aio_context::Moment::from_nanos(5_000_001), "{now:?}");
    assert_eq!(fired.get(), 1);
}

#[test]
fn a3_a_hit_ends_polling_and_is_served_by_poll_ready() {
    let (cx, _) = always(Duration::from_secs(1));
    let (busy, idle) = (Kick::new(), Kick::new());
    let _registrations = (watch_polled(&cx, &busy), watch_polled(&cx, &idle));
    busy.kick();
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!(*busy.log.borrow(), ["begin", "poll_ready"]);
    assert_eq!(*idle.log.borrow(), ["begin"]);
    assert!(idle.polls.get() >= 1, "a round polls every handler");
}

#[test]
fn a3_n3_a_notification_ends_polling_and_is_no_progress() {
    let (cx, _) = always(Duration::from_secs(1));
    let kick = Kick::new();
    let _registration = watch_polled(&cx, &kick);
    cx.remote().notify();
    assert!(!cx.poll(Wait::Block).unwrap());
    assert_eq!(
        cx.remote().wakeups().0,
        0,
        "nothing was written to wake a loop that polls"
    );
}

#[test]
fn a4_the_time_spent_polling_is_taken_from_the_timeout() {
    let (cx, clock) = always(Duration::from_millis(2));
    let kick = Kick::new();
    let _registration = watch_polled(&cx, &kick);
    assert!(!cx.poll(Wait::AtMost(Duration::from_millis(10))).unwrap());
    assert_eq!(
        aio_context::Clock::now(&*clock).as_nanos(),
        10_000_000,
        "2 ms of polling and 8 ms of waiting"
    );
}

#[test]
fn a6_a10_the_policy_sees_waiting_but_not_the_handlers_time() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let spy = Spy(Duration::from_millis(1), seen.clone());
    let (cx, clock) = polling(spy, Duration::from_millis(1));
    let kick = Kick::with(move |_, _| clock.advance(Duration::from_secs(5)));
    let _registration = watch_polled(&cx, &kick);
    kick.kick();
    assert!(cx.poll(Wait::Block).unwrap());
    assert!(!cx.poll(Wait::AtMost(Duration::from_millis(3))).unwrap());
    assert!(!cx.poll(Wait::NoBlock).unwrap());
    let seen = seen.borrow();
    assert_eq!(seen.len(), 2, "an iteration that may not wait is not observed");
    assert!(seen[0].hit && !seen[0].blocked && seen[0].elapsed < Duration::from_secs(1));
    assert_eq!(
        (seen[1].elapsed, seen[1].spun),
        (Duration::from_millis(3), Duration::from_millis(1))
    );
    assert!(seen[1].blocked && !seen[1].hit);
}

#[test]
fn a6_setting_parameters_from_another_thread_wakes_the_loop() {
    let cx = Context::new().unwrap();
    let remote = cx.remote();
    let thread =
        std::thread::spawn(move || remote.set_poll_params(PollParams::up_to(Duration::from_micros(32))));
    assert!(!cx.poll(Wait::Block).unwrap(), "woken, without progress");
    thread.join().unwrap();
}

#[test]
fn a9_while_poll_ready_runs_the_same_handler_is_not_polled() {
    let (cx, _) = always(Duration::from_millis(1));
    let kick = Kick::with(|kick, cx| {
        let polls = kick.polls.get();
        cx.poll(Wait::AtMost(Duration::from_millis(1))).unwrap();
        assert!(
            kick.polls.get() <= polls + 1,
            "only the last poll when poll mode is left"
        );
    });
    let _registration = watch_polled(&cx, &kick);
    kick.kick();
    assert!(cx.poll(Wait::Block).unwrap());
    kick.kick();
    assert!(cx.poll(Wait::Block).unwrap(), "it is served again after");
    assert_eq!(kick.count.get(), 2);
}

#[test]
fn d8_r10_a_descriptor_without_poll_is_served_while_another_always_has_work() {
    let (cx, _) = always(Duration::from_secs(1));
    let (greedy, plain) = (Kick::new(), Kick::new());
    greedy.has_work.set(Some(true));
    let _registrations = (watch_polled(&cx, &greedy), watch(&cx, &plain));
    plain.kick();
    for _ in 0..64 {
        assert!(cx.poll(Wait::Block).unwrap());
    }
    assert_eq!(plain.count.get(), 1, "within a bounded number of iterations");
}

#[test]
fn d8_bottom_halves_that_are_always_scheduled_starve_no_descriptor() {
    for wait in [Wait::Block, Wait::AtMost(Duration::from_secs(60)), Wait::NoBlock] {
        let cx = BENCH.context();
        let again: Rc<std::cell::OnceCell<aio_context::BottomHalf>> = Rc::default();
        let this = again.clone();
        let busy = cx.bottom_half("busy", move |_| this.get().unwrap().schedule());
        again.set(busy.clone()).unwrap();
        busy.schedule();
        let kick = Kick::new();
        let _registration = watch(&cx, &kick);
        for served in 0..20 {
            kick.kick();
            // At most 64 iterations pass without a check, whatever the clock shows.
            for _ in 0..65 {
                assert!(cx.poll(wait).unwrap());
            }
            assert_eq!(kick.count.get(), served + 1, "{wait:?}");
        }
        busy.cancel();
    }
}

#[test]
fn d8_r10_more_busy_polled_handlers_than_a_batch_starve_no_handler() {
    let builder = BENCH.builder().batch(4).policy(Box::new(Always));
    let params = PollParams::up_to(Duration::from_micros(10));
    let cx = builder.poll_params(params).build().unwrap();
    let busy: Vec<_> = (0..6).map(|_| Kick::new()).collect();
    let mut registrations: Vec<_> = busy.iter().map(|busy| watch_polled(&cx, busy)).collect();
    busy.iter().for_each(|busy| busy.has_work.set(Some(true)));
    let plain = Kick::new();
    registrations.push(watch(&cx, &plain));
    for served in 0..3 {
        plain.kick();
        for _ in 0..200 {
            assert!(cx.poll(Wait::Block).unwrap());
        }
        assert_eq!(plain.count.get(), served + 1);
    }
}

/// The handlers are of two types, which are in different arrays.
#[test]
fn a3_more_hits_than_a_batch_come_round_robin() {
    for batch in [1, 4, 7] {
        let clock = Arc::new(ManualClock::new());
        let builder = BENCH.builder().batch(batch).monotonic(clock);
        let builder = builder.policy(Box::new(Always));
        let cx = builder
            .poll_params(PollParams::up_to(Duration::from_secs(1)))
            .build()
            .unwrap();
        let kicks: Vec<_> = (0..13).map(|_| Kick::new()).collect();
        kicks.iter().for_each(|kick| kick.has_work.set(Some(true)));
        let watch = |(number, kick)| match number % 2 {
            0 => watch_polled(&cx, kick),
            _ => {
                let twin = Rc::new(Twin(Kick::new(), Rc::clone(kick)));
                cx.watch(Polled(twin), Interest::READ).unwrap()
            }
        };
        let _registrations: Vec<_> = kicks.iter().enumerate().map(watch).collect();
        for _ in 0..50 {
            assert!(cx.poll(Wait::Block).unwrap());
            let counts = || kicks.iter().map(|kick| kick.count.get());
            let (most, least) = (counts().max().unwrap(), counts().min().unwrap());
            assert!(most <= least + 1, "{batch}: {:?}", counts().collect::<Vec<_>>());
        }
    }
}

#[test]
fn a2_by_default_a_hit_is_served_by_readable() {
    struct Plain(Rc<Kick>);
    impl std::os::fd::AsFd for Plain {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl aio_context::Handler for Plain {
        fn readable(&self, cx: &Context) {
            self.0.readable(cx);
        }
    }
    impl aio_context::Pollable for Plain {
        fn poll(&self) -> bool {
            self.0.poll()
        }
    }
    let (cx, _) = always(Duration::from_millis(1));
    let kick = Kick::new();
    let plain = Rc::new(Plain(kick.clone()));
    let _registration = cx.watch(Polled(plain), Interest::NONE).unwrap();
    kick.has_work.set(Some(true));
    assert!(cx.poll(Wait::Block).unwrap());
    assert_eq!((kick.count.get(), kick.polls.get()), (1, 1));
}

/// The first poll precedes the reading of the clock; the second one is in a search that takes a while.
#[test]
fn a2_a_search_ends_with_its_first_hit_or_a_notification() {
    struct Second(Rc<Kick>, Option<Remote>);
    impl std::os::fd::AsFd for Second {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl aio_context::Handler for Second {}
    impl aio_context::Pollable for Second {
        fn poll(&self) -> bool {
            let is_second = !self.0.poll() && self.0.polls.get() == 2;
            if is_second && let Some(remote) = &self.1 {
                remote.notify();
            }
            is_second && self.1.is_none()
        }
        fn poll_ready(&self, cx: &Context) {
            self.0.poll_ready(cx);
        }
    }
    for notifies in [false, true] {
        let spy = Spy(Duration::from_millis(1), Rc::default());
        let (cx, clock) = polling(spy.clone(), Duration::from_millis(1));
        let second = Second(Kick::new(), notifies.then(|| cx.remote()));
        let _registration = cx.watch(Polled(Rc::new(second)), Interest::READ).unwrap();
        assert_eq!(cx.poll(Wait::Block).unwrap(), !notifies);
        let seen = spy.1.borrow()[0];
        assert_eq!(
            (seen.hit, seen.spun, clock.now()),
            (true, Duration::ZERO, Moment::ZERO)
        );
    }
}

#[test]
fn a10_the_state_of_the_loop_can_be_read_from_another_thread() {
    let (cx, _) = always(Duration::from_millis(2));
    let kick = Kick::new();
    let _registration = watch_polled(&cx, &kick);
    kick.kick();
    assert!(cx.poll(Wait::Block).unwrap());
    assert!(!cx.poll(Wait::AtMost(Duration::from_millis(10))).unwrap());
    let remote = cx.remote();
    let stats = std::thread::spawn(move || remote.stats()).join().unwrap();
    assert_eq!(
        (
            stats.iterations,
            stats.poll_hits,
            stats.poll_misses,
            stats.blocked
        ),
        (2, 1, 1, 1)
    );
    assert_eq!(
        (stats.spun, stats.slept),
        (Duration::from_millis(2), Duration::from_millis(8))
    );
}

#[test]
fn a13_the_largest_share_of_time_for_polling_is_shown() {
    let cx = BENCH.builder().build().unwrap();
    let remote = cx.remote();
    assert_eq!(remote.poll_params().cpu_max_or_default(), 100);
    for (given, expected) in [(5, 5), (0, 100), (100, 100), (1000, 100)] {
        remote.set_poll_params(PollParams::unlimited().with_cpu_max(given));
        assert_eq!(remote.poll_params().cpu_max_or_default(), expected, "{given}");
    }
}

#[test]
fn a13_searches_in_vain_become_rare_unless_the_core_is_exclusive() {
    let run = |is_exclusive| {
        let params = PollParams::up_to(Duration::from_micros(2)).with_exclusive_core(is_exclusive);
        let builder = BENCH.builder().policy(Box::new(Always)).poll_params(params);
        let cx = builder.build().unwrap();
        let kick = Kick::new();
        let _registration = watch_polled(&cx, &kick);
        for _ in 0..300 {
            cx.poll(Wait::AtMost(Duration::from_micros(10))).unwrap();
        }
        let begins = kick
            .log
            .borrow()
            .iter()
            .filter(|entry| **entry == "begin")
            .count();
        (cx.remote().stats(), begins)
    };
    let ((shared, begins), (exclusive, exclusive_begins)) = (run(false), run(true));
    assert!(begins < 80, "peers kick while nothing is polled: {begins} begins");
    assert!(exclusive_begins > 80, "{exclusive_begins} begins");
    assert!(
        shared.poll_misses < 80 && shared.poll_suspensions > 0,
        "{shared:?}"
    );
    assert!(
        exclusive.poll_misses >= 300 && exclusive.poll_suspensions == 0,
        "{exclusive:?}"
    );
}
