//! Rules A8 and R10: idle handlers are demoted, and handlers that cannot be polled wait no longer than a bound.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::{Clock, ClockId, Context, Interest, ManualClock, Polled, Registration, Wait};

use crate::common::{Count, Kick, watch, watch_polled};
use crate::polling::{Late, always};

/// More iterations than it takes to demote an idle handler.
pub(crate) const LONG: usize = 2000;
const IDLE: usize = 50;

/// Returns a context that always polls for a millisecond, and its clock.
pub(crate) fn always_polling() -> (Context, Arc<ManualClock>) {
    let (cx, clock) = always(Duration::from_millis(1));
    clock.advance(Duration::from_secs(1));
    (cx, clock)
}

/// Returns a handler that has work at each poll.
pub(crate) fn always_busy() -> Rc<Kick> {
    let busy = Kick::new();
    busy.has_work.set(Some(true));
    busy
}

/// A context that polls, a handler that is always busy, and idle ones.
struct Scene {
    cx: Context,
    clock: Arc<ManualClock>,
    busy: Rc<Kick>,
    idle: Vec<Rc<Kick>>,
    registrations: Vec<Registration>,
}

impl Scene {
    fn new(idle: usize) -> Self {
        let (cx, clock) = always_polling();
        let busy = always_busy();
        let idle: Vec<_> = (0..idle).map(|_| Kick::new()).collect();
        let mut registrations: Vec<_> = idle.iter().map(|idle| watch_polled(&cx, idle)).collect();
        registrations.push(watch_polled(&cx, &busy));
        Self {
            cx,
            clock,
            busy,
            idle,
            registrations,
        }
    }

    fn turn(&self, times: usize) {
        for _ in 0..times {
            assert!(self.cx.poll(Wait::Block).unwrap());
        }
    }

    /// Runs until the idle ones are demoted, and checks that most are.
    fn demoted(idle: usize) -> Self {
        let scene = Self::new(idle);
        scene.turn(LONG);
        let left = scene.idle.iter().filter(|idle| has_left(idle)).count();
        assert!(left * 10 >= idle * 8, "{left} of {idle} have left");
        scene
    }
}

fn has_left(kick: &Kick) -> bool {
    kick.log.borrow().last() == Some(&"end")
}

fn polls(kicks: &[Rc<Kick>]) -> u32 {
    kicks.iter().map(|kick| kick.polls.get()).sum()
}

#[test]
fn a8_idle_handlers_are_demoted_with_an_end_and_a_last_poll() {
    let scene = Scene::demoted(IDLE);
    for idle in scene.idle.iter().filter(|idle| has_left(idle)) {
        assert_eq!(*idle.log.borrow(), ["begin", "end"]);
    }
    let before = polls(&scene.idle);
    scene.turn(LONG);
    let per_turn = f64::from(polls(&scene.idle) - before) / LONG as f64;
    assert!(
        per_turn <= 5.0,
        "{per_turn} idle handlers are still polled in each iteration"
    );
    assert!(scene.busy.count.get() as usize >= 2 * LONG);
}

/// A poll of 51 handlers costs 193 ns, and a tenth of it may be spent on idle ones: on 6 of them. A check is due each 256 rounds. At
/// the third check, the polls of idle handlers have cost as much as a promotion (666 times 3 ns).
#[test]
fn a8_handlers_are_demoted_at_a_check_and_the_cheapest_ones_stay() {
    let scene = Scene::new(IDLE);
    let left = || scene.idle.iter().filter(|idle| has_left(idle));
    let mut turns = 0;
    while left().count() == 0 {
        assert!(turns < LONG);
        turns += 1;
        scene.turn(1);
    }
    assert_eq!(left().count(), IDLE - 6);
    for idle in left() {
        let polls = idle.polls.get();
        assert!((3 * 256 - 1..=3 * 256 + 2).contains(&polls), "{polls}");
    }
}

#[test]
fn a8_the_first_event_brings_a_handler_back() {
    let scene = Scene::demoted(IDLE);
    let idle = scene.idle.iter().find(|idle| has_left(idle)).unwrap();
    let polls = idle.polls.get();
    idle.kick();
    scene.turn(64);
    assert_eq!(idle.count.get(), 1, "it is found by its descriptor");
    assert_eq!(*idle.log.borrow(), ["begin", "end", "readable", "begin"]);
    assert!(idle.polls.get() > polls, "it is polled again");
    idle.kick();
    scene.turn(1);
    assert_eq!(
        idle.log.borrow().last(),
        Some(&"poll_ready"),
        "now a poll finds it"
    );
}

#[test]
fn a8_a_hit_of_the_last_poll_is_served_and_keeps_the_handler() {
    let scene = Scene::new(IDLE);
    // Some idle ones may stay, but fewer.
    let kicks: Vec<_> = (0..IDLE).map(|_| Kick::new()).collect();
    let watch = |kick: &Rc<Kick>| {
        let late = Rc::new(Late(kick.clone()));
        scene.cx.watch(Polled(late), Interest::READ).unwrap()
    };
    let _registrations: Vec<_> = kicks.iter().map(watch).collect();
    scene.turn(LONG);
    let left = kicks.iter().filter(|kick| kick.log.borrow().len() > 1);
    let left: Vec<_> = left.map(|kick| kick.log.borrow()).collect();
    assert!(!left.is_empty());
    for log in left {
        assert_eq!(
            log[..4],
            ["begin", "end", "poll_ready", "begin"],
            "no work is lost on the way out"
        );
    }
}

#[test]
fn a8_a_handler_without_interest_is_never_demoted() {
    let scene = Scene::new(IDLE);
    let kick = Kick::new();
    let _registration = scene.cx.watch(Polled(kick.clone()), Interest::NONE).unwrap();
    scene.turn(LONG);
    let polls = kick.polls.get();
    scene.turn(LONG);
    assert!(kick.polls.get() as usize >= polls as usize + LONG);
    assert_eq!(*kick.log.borrow(), ["begin"], "no event could bring it back");
}

#[test]
fn a8_without_events_no_handler_is_demoted() {
    let scene = Scene::new(IDLE);
    scene.busy.has_work.set(Some(false));
    for _ in 0..LONG {
        assert!(!scene.cx.poll(Wait::AtMost(Duration::from_micros(100))).unwrap());
    }
    let before = polls(&scene.idle);
    assert!(!scene.cx.poll(Wait::AtMost(Duration::from_micros(100))).unwrap());
    assert!(
        polls(&scene.idle) - before >= IDLE as u32,
        "the policy decides how long to poll without events"
    );
}

#[test]
fn a5_a8_begin_and_end_are_balanced_whatever_happens_to_demoted_handlers() {
    let mut scene = Scene::demoted(IDLE);
    let group = scene.cx.new_group();
    let paused = Kick::new();
    let registration = scene
        .cx
        .watch_in(group, Polled(paused.clone()), Interest::READ)
        .unwrap();
    scene.turn(LONG);
    drop(scene.cx.pause(group));
    scene.turn(LONG);
    drop(registration);
    let replaced = Kick::new();
    let left = scene.idle.iter().position(|idle| has_left(idle)).unwrap();
    drop(scene.registrations.remove(left));
    let again = watch_polled(&scene.cx, &scene.idle[left]);
    scene.turn(2);
    assert_eq!(*scene.idle[left].log.borrow(), ["begin", "end", "begin"]);
    drop(again);
    drop(watch_polled(&scene.cx, &replaced));
    let all: Vec<_> = scene
        .idle
        .iter()
        .chain([&scene.busy, &paused, &replaced])
        .cloned()
        .collect();
    drop(scene);
    for kick in all {
        let (mut begun, log) = (0, kick.log.borrow());
        for entry in log.iter() {
            match *entry {
                "begin" => begun += 1,
                "end" => begun -= 1,
                _ => {}
            }
            assert!((0..=1).contains(&begun), "{log:?}");
        }
    }
}

/// Each call of the busy handler takes 10 us, so that time passes.
#[test]
fn r10_d8_a_handler_that_cannot_be_polled_waits_no_longer_than_the_bound() {
    let scene = Scene::new(0);
    let clock = scene.clock.clone();
    *scene.busy.on_ready.borrow_mut() = Some(Rc::new(move |_: &Kick, _: &Context| {
        clock.advance(Duration::from_micros(10))
    }));
    let plain = Kick::new();
    let _registration = watch(&scene.cx, &plain);
    scene.turn(100);
    for served in 1..20 {
        plain.kick();
        let before = scene.clock.now();
        while plain.count.get() < served {
            scene.turn(1);
            let waited = scene.clock.now().since(before);
            // The bound, and four iterations of ten microseconds between two readings of the clock.
            assert!(waited <= Duration::from_micros(50 + 4 * 10), "{waited:?}");
        }
    }
}

#[test]
fn d8_timers_and_bottom_halves_are_not_delayed_by_a_handler_that_always_has_work() {
    let scene = Scene::new(0);
    let (fired, ran) = (Count::default(), Count::default());
    let counted = fired.clone();
    let timer = scene
        .cx
        .timer(ClockId::Monotonic, move |_, _| {
            counted.up();
        })
        .disarmed();
    let counted = ran.clone();
    let bh = scene.cx.bottom_half("often", move |_| {
        counted.up();
    });
    for times in 1..50 {
        timer.arm_after(Duration::from_micros(1));
        bh.schedule();
        scene.clock.advance(Duration::from_micros(1));
        scene.turn(1);
        assert_eq!((fired.get(), ran.get()), (times, times));
    }
}
