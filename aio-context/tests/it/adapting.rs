//! The reports to polling policies: waits, the handlers' own time, and, for policies that need it, each promoted handler.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend_ppoll::Ppoll;
use aio_context::{
    Builder, ClockId, Context, Iteration, ManualClock, Policy, PollParams, PollPolicy, ReadyList,
    Registration, Wait, WakeCost,
};
use aio_pollctl::HandlerMemory;

use crate::common::{Kick, watch, watch_polled};
use aio_testing::{Spoil, spoiled};

const US: Duration = Duration::from_micros(1);

/// The length of the next wait, and the handlers that are kicked at its end.
type Next = Rc<Cell<(Duration, Vec<Rc<Kick>>)>>;

/// A backend whose waits take a given time on a simulated clock, and end with events.
struct Slow {
    clock: Arc<ManualClock>,
    next: Next,
}

impl std::fmt::Debug for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.clock.fmt(f)
    }
}

impl Spoil for Slow {
    const NAME: &'static str = "slow";

    fn wait(&mut self, timeout: &mut Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
        if timeout.is_none() {
            let (takes, kicks) = self.next.take();
            self.clock.advance(takes);
            kicks.iter().for_each(|kick| kick.kick());
        }
        Ok(())
    }
}

/// A context with a policy, whose waits have a given length.
struct Scene {
    cx: Context,
    clock: Arc<ManualClock>,
    next: Next,
}

impl Scene {
    fn new(policy: Box<dyn PollPolicy>) -> Self {
        Self::of(Context::builder().policy(policy))
    }

    fn of(builder: Builder) -> Self {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(1));
        let next = Next::default();
        let slow = Slow {
            clock: clock.clone(),
            next: next.clone(),
        };
        let cx = builder
            .backend(Box::new(spoiled(Ppoll::new(), slow)))
            .monotonic(clock.clone())
            .poll_params(PollParams::up_to(Duration::from_nanos(32_768)))
            .build()
            .unwrap();
        Self { cx, clock, next }
    }

    /// Waits once, for `takes`; at the end `events` have an event. Returns the budget after it, in nanoseconds.
    fn wait(&self, takes: Duration, events: &[&Rc<Kick>]) -> u128 {
        let kicks = events.iter().copied().cloned().collect();
        self.next.set((takes, kicks));
        assert!(self.cx.poll(Wait::Block).unwrap());
        self.cx.remote().stats().budget.as_nanos()
    }

    /// Registers a polled handler whose `poll` always returns `false`: its events come from its descriptor.
    fn polled(&self) -> (Rc<Kick>, Registration) {
        let kick = Kick::new();
        kick.has_work.set(Some(false));
        let registration = watch_polled(&self.cx, &kick);
        (kick, registration)
    }
}

#[test]
fn a_context_without_a_policy_of_its_own_learns() {
    let budgets = |scene: &Scene| {
        let (kick, _registration) = scene.polled();
        let waits = [1, 90, 5, 5, 5, 200, 3, 90, 90].into_iter().cycle().take(100);
        waits.map(|us| scene.wait(us * US, &[&kick])).collect::<Vec<_>>()
    };
    let named = |name| {
        let policy = Policy::by_name(name, PollParams::OFF).unwrap();
        budgets(&Scene::new(Box::new(policy)))
    };
    let usual = budgets(&Scene::of(Context::builder()));
    assert_eq!(usual, named("learned"));
    assert_ne!(usual, named("qemu-2020"), "the waits tell policies apart");
}

#[test]
fn a7_each_handler_has_its_own_time_and_the_longest_counts() {
    let params = PollParams::up_to(Duration::from_nanos(32_768));
    let scene = Scene::new(Box::new(Policy::by_name("qemu-10", params).unwrap()));
    let ((a, _a), (b, _b)) = (scene.polled(), scene.polled());
    assert_eq!(scene.wait(US, &[&a]), 4000);
    // Polling in vain counts, too: 4 us of polling, then 5 of waiting.
    assert_eq!(scene.wait(5 * US, &[&a]), 8000);
    assert_eq!(scene.wait(US, &[&b]), 8000, "b begins at 4000");
    assert_eq!(scene.wait(90 * US, &[&b]), 8000, "b gives up, a does not");
    assert_eq!(scene.wait(90 * US, &[&a]), 0, "a gives up");
    assert_eq!(scene.wait(US, &[&a, &b]), 4000);
}

#[test]
fn a7_the_time_of_each_handler_can_be_read_from_another_thread() {
    let params = PollParams::up_to(Duration::from_nanos(32_768));
    let scene = Scene::new(Box::new(Policy::by_name("qemu-10", params).unwrap()));
    let ((a, a_registration), (b, b_registration)) = (scene.polled(), scene.polled());
    let times = [
        a_registration.poll_time().unwrap(),
        b_registration.poll_time().unwrap(),
    ];
    let read = || {
        let times = times.clone();
        std::thread::spawn(move || times.map(|time| time.get().as_nanos()))
            .join()
            .unwrap()
    };
    assert_eq!(read(), [0, 0]);
    scene.wait(US, &[&a]);
    scene.wait(5 * US, &[&a]);
    scene.wait(US, &[&b]);
    assert_eq!(read(), [8000, 4000]);
    assert_eq!(a_registration.poll_time().unwrap().get().as_nanos(), 8000);
}

#[test]
fn a7_handlers_without_poll_have_no_time() {
    let params = PollParams::up_to(Duration::from_nanos(32_768));
    let scene = Scene::new(Box::new(Policy::by_name("qemu-10", params).unwrap()));
    let ((a, _a), plain) = (scene.polled(), Kick::new());
    let _plain = watch(&scene.cx, &plain);
    assert_eq!(scene.wait(US, &[&plain]), 0);
    assert_eq!(scene.wait(US, &[&a]), 4000);
    assert_eq!(
        scene.wait(90 * US, &[&plain]),
        4000,
        "no polled handler had an event"
    );
}

#[test]
fn a7_a_handler_that_is_removed_or_replaced_is_forgotten() {
    let params = PollParams::up_to(Duration::from_nanos(32_768));
    let scene = Scene::new(Box::new(Policy::by_name("qemu-10", params).unwrap()));
    let ((a, a_registration), (b, _b)) = (scene.polled(), scene.polled());
    assert_eq!(scene.wait(US, &[&a]), 4000);
    drop(a_registration);
    let again = watch_polled(&scene.cx, &a);
    assert_eq!(scene.wait(90 * US, &[&b]), 0);
    drop(again);
}

/// Which handlers had an event, and the iteration.
type Shown = (Vec<bool>, Iteration);

/// Whether a handler had an event, and how many kicks.
type Kicked = (bool, Option<u32>);

/// Records the reports.
#[derive(Debug, Clone, Default)]
struct Witness {
    handlers: Rc<RefCell<Vec<bool>>>,
    kicks: Rc<RefCell<Vec<Kicked>>>,
    seen: Rc<RefCell<Vec<Shown>>>,
}

impl PollPolicy for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }
    fn budget(&self) -> Duration {
        US
    }
    fn observe(&mut self, seen: Iteration) {
        let mut handlers = self.handlers.take();
        handlers.sort_unstable();
        self.seen.borrow_mut().push((handlers, seen));
    }
    fn is_per_handler(&self) -> bool {
        true
    }
    fn observe_handler(&mut self, _: &mut HandlerMemory, had_event: bool, seen: Iteration) {
        self.handlers.borrow_mut().push(had_event);
        self.kicks.borrow_mut().push((had_event, seen.kicks));
    }
    fn reset(&mut self, _: PollParams) {}
}

#[test]
fn a7_every_promoted_handler_that_is_left_after_dispatch_is_reported() {
    let witness = Witness::default();
    let scene = Scene::new(Box::new(witness.clone()));
    let ((a, _a), (b, b_registration), (c, _c)) = (scene.polled(), scene.polled(), scene.polled());
    let slot = Rc::new(RefCell::new(Some(b_registration)));
    let removes = slot.clone();
    *a.on_ready.borrow_mut() = Some(Rc::new(move |_, _| drop(removes.take())));
    scene.wait(US, &[&c]);
    scene.wait(US, &[&a]);
    scene.wait(US, &[&a, &c]);
    let shown: Vec<_> = witness
        .seen
        .borrow()
        .iter()
        .map(|(handlers, _)| handlers.clone())
        .collect();
    assert_eq!(
        shown,
        [vec![false, false, true], vec![false, true], vec![true, true]]
    );
    assert_eq!(b.count.get(), 0);
}

#[test]
fn a10_the_time_of_handlers_is_reported_separately() {
    let witness = Witness::default();
    let scene = Scene::new(Box::new(witness.clone()));
    let (a, _a) = scene.polled();
    let clock = scene.clock.clone();
    *a.on_ready.borrow_mut() = Some(Rc::new(move |_, _| clock.advance(70 * US)));
    for _ in 0..3 {
        scene.wait(9 * US, &[&a]);
    }
    let seen = witness.seen.borrow();
    for (number, (_, seen)) in seen.iter().enumerate() {
        let busy = if number == 0 { Duration::ZERO } else { 70 * US };
        assert_eq!((seen.elapsed, seen.spun, seen.busy), (10 * US, US, busy));
    }
}

#[test]
fn a10_a_wait_before_a_panic_is_no_time_of_handlers() {
    let witness = Witness::default();
    let scene = Scene::new(Box::new(witness.clone()));
    let (a, _a) = scene.polled();
    let (clock, panics) = (scene.clock.clone(), Cell::new(false));
    *a.on_ready.borrow_mut() = Some(Rc::new(move |_, _| {
        clock.advance(70 * US);
        assert!(panics.replace(!panics.get()), "on purpose, each second time");
    }));
    let panics_after = |takes| catch_unwind(AssertUnwindSafe(|| scene.wait(takes, &[&a]))).is_err();
    for _ in 0..2 {
        assert!(panics_after(900 * US));
        scene.wait(9 * US, &[&a]);
    }
    let seen = witness.seen.take().into_iter().map(|(_, seen)| seen);
    let seen: Vec<_> = seen.map(|seen| (seen.elapsed, seen.spun, seen.busy)).collect();
    assert_eq!(seen, [(10 * US, US, 70 * US); 2]);
}

#[test]
fn a11_the_policy_sees_which_sleeps_have_cost_a_peer_its_kick() {
    let witness = Witness::default();
    let scene = Scene::new(Box::new(witness.clone()));
    let ((a, _a), (b, _b), plain) = (scene.polled(), scene.polled(), Kick::new());
    let _plain = watch(&scene.cx, &plain);
    scene.wait(9 * US, &[&plain]);
    scene.wait(9 * US, &[&a]);
    scene.wait(9 * US, &[&a, &plain, &b]);
    a.has_work.set(Some(true));
    *a.on_ready.borrow_mut() = Some(Rc::new(|kick, _| kick.has_work.set(Some(false))));
    assert!(scene.cx.poll(Wait::Block).unwrap());
    let kicks: Vec<_> = witness.seen.borrow().iter().map(|(_, seen)| seen.kicks).collect();
    assert_eq!(
        kicks,
        [Some(0), Some(1), Some(2), None],
        "the last wait was no sleep"
    );
}

#[test]
fn a11_a_policy_of_handlers_sees_whose_peers_have_kicked() {
    let witness = Witness::default();
    let scene = Scene::new(Box::new(witness.clone()));
    let ((a, _a), (b, _b), plain) = (scene.polled(), scene.polled(), Kick::new());
    let _plain = watch(&scene.cx, &plain);
    let kicks = || {
        let mut kicks = witness.kicks.take();
        kicks.sort_unstable();
        kicks
    };
    let (silent, kicked) = ((false, Some(0)), (true, Some(1)));
    scene.wait(9 * US, &[&a]);
    assert_eq!(kicks(), [silent, kicked]);
    scene.wait(9 * US, &[&plain]);
    assert_eq!(kicks(), [silent, silent]);
    scene.wait(9 * US, &[&a, &b]);
    assert_eq!(kicks(), [kicked, kicked]);
    a.has_work.set(Some(true));
    *a.on_ready.borrow_mut() = Some(Rc::new(|kick, _| kick.has_work.set(Some(false))));
    assert!(scene.cx.poll(Wait::Block).unwrap());
    assert_eq!(kicks(), [(false, None), (true, None)], "polling has found it");
}

#[test]
fn a12_a_refined_cost_of_a_sleep_reaches_the_policy_without_a_new_start() {
    /// Counts the starts, and the times that the cost has changed.
    #[derive(Debug, Clone, Default)]
    struct Counting(Rc<Cell<(u32, u32)>>);
    impl PollPolicy for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }
        fn budget(&self) -> Duration {
            let (starts, refined) = self.0.get();
            (starts + 10 * refined) * US
        }
        fn observe(&mut self, _: Iteration) {}
        fn reset(&mut self, _: PollParams) {
            self.0.set((self.0.get().0 + 1, self.0.get().1));
        }
        fn reprice(&mut self, params: PollParams) {
            assert!(params.wake_is_estimate && params.max == 50 * US);
            self.0.set((self.0.get().0, self.0.get().1 + 1));
        }
    }
    let (unlike, cost) = (WakeCost::of_total(100 * US), WakeCost::of_total(10 * US));
    let params = PollParams::up_to(50 * US).with_measured_wake(unlike);
    let policy = Counting::default();
    let cx = Context::builder()
        .policy(Box::new(policy.clone()))
        .poll_params(params)
        .build()
        .unwrap();
    let stats = || {
        cx.poll(Wait::NoBlock).unwrap();
        cx.remote().stats()
    };
    let wake_cost = || cx.remote().poll_params().wake_or_assumed();
    assert_eq!((wake_cost(), stats().budget), (unlike, US));
    assert!(cx.remote().refine_wake_cost(cost) && !cx.remote().refine_wake_cost(cost));
    cx.remote().wake_cost_measured(16, 5);
    let refined = stats();
    assert_eq!((wake_cost(), refined.budget), (cost, 11 * US));
    assert_eq!((refined.wake_batches, refined.wake_spread_percent), (16, 5));
    assert_eq!(policy.0.get(), (1, 1), "it has started once");
    cx.set_poll_params(params.with_wake(unlike));
    stats();
    assert_eq!((wake_cost(), policy.0.get().0), (unlike, 2));
    assert!(!cx.remote().refine_wake_cost(cost), "a given cost is kept");
}

#[test]
fn a6_the_deadline_and_whether_it_ended_the_wait_are_reported() {
    let witness = Witness::default();
    let scene = Scene::new(Box::new(witness.clone()));
    let (a, _a) = scene.polled();
    let timer = scene.cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
    let report = |wait: Wait| {
        scene.cx.poll(wait).unwrap();
        let (_, seen) = witness.seen.borrow_mut().pop().unwrap();
        (seen.deadline, seen.timed_out, seen.events, seen.elapsed)
    };
    timer.arm_after(9 * US);
    assert_eq!(report(Wait::Block), (Some(9 * US), true, 0, 9 * US));
    timer.arm_after(9 * US);
    a.kick();
    assert_eq!(
        report(Wait::Block),
        (Some(9 * US), false, 1, US),
        "an event was first"
    );
    timer.cancel();
    assert_eq!(report(Wait::AtMost(4 * US)), (Some(4 * US), true, 0, 4 * US));
    a.kick();
    assert_eq!(report(Wait::Block), (None, false, 1, US));
}
