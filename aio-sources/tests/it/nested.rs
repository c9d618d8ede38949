//! Rule G4: a context is a source of another context.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::{Builder, ClockId, Context, GroupId, ManualClock, Policy, PollParams, Wait};
use aio_sources::Nested;

use crate::common::{Bench, Count, Kick, watch, watch_polled};

const MS: Duration = Duration::from_millis(1);

/// Runs the test with each backend outside and inside.
fn everywhere(test: impl Fn(&dyn Fn() -> Builder, &dyn Fn() -> Builder)) {
    for outer in Bench::DIRECT {
        for inner in Bench::DIRECT {
            println!("{} in {}", inner.name, outer.name);
            test(&|| outer.builder(), &|| inner.builder());
        }
    }
}

fn pair(outer: &dyn Fn() -> Builder, inner: &dyn Fn() -> Builder) -> (Context, Context) {
    (outer().build().unwrap(), inner().build().unwrap())
}

/// Makes both with the same clock.
fn pair_with_clock(
    outer: &dyn Fn() -> Builder,
    inner: &dyn Fn() -> Builder,
) -> (Context, Context, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let with_clock = |builder: Builder| builder.monotonic(clock.clone());
    let (outer, inner) = pair(&|| with_clock(outer()), &|| with_clock(inner()));
    (outer, inner, clock)
}

/// Polls until the count is reached. (A poll that only accepts a notification is progress, too.)
fn poll_until(outer: &Context, count: impl Fn() -> u32, expected: u32) {
    while count() < expected {
        assert!(outer.poll(Wait::Block).unwrap());
    }
    assert_eq!(count(), expected);
}

fn is_asleep(outer: &Context) -> bool {
    while outer.poll(Wait::NoBlock).unwrap() {}
    !outer.poll(Wait::AtMost(MS)).unwrap()
}

#[test]
fn g4_an_inner_context_is_served_by_the_outer_one() {
    everywhere(|outer, inner| {
        let (outer, inner) = pair(outer, inner);
        let _inside = Nested::new(&outer, &inner).unwrap();
        let kicks: Vec<_> = (0..100).map(|_| Kick::new()).collect();
        let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&inner, kick)).collect();
        let (own, bh_runs) = (Kick::new(), Count::default());
        let _own = watch(&outer, &own);
        let counted = bh_runs.clone();
        let bh = inner.bottom_half("g4", move |_| {
            counted.up();
        });
        for round in 1..=3 {
            for kick in kicks.iter().step_by(17) {
                kick.kick();
                poll_until(&outer, || kick.count.get(), round);
            }
            own.kick();
            poll_until(&outer, || own.count.get(), round);
            bh.schedule();
            poll_until(&outer, || bh_runs.get(), 2 * round - 1);
            let other = bh.clone();
            let thread = std::thread::spawn(move || other.schedule());
            poll_until(&outer, || bh_runs.get(), 2 * round);
            thread.join().unwrap();
        }
        assert!(is_asleep(&outer), "nothing is left that makes it spin");
    });
}

#[test]
fn g4_work_from_before_is_served() {
    everywhere(|outer, inner| {
        let (outer, inner) = pair(outer, inner);
        let (runs, kick) = (Count::default(), Kick::new());
        let counted = runs.clone();
        inner.defer(move |_| {
            counted.up();
        });
        let _kick = watch(&inner, &kick);
        kick.kick();
        let _inside = Nested::new(&outer, &inner).unwrap();
        poll_until(&outer, || runs.get() + kick.count.get(), 2);
    });
}

#[test]
fn g4_deadlines_of_the_inner_context_are_exact() {
    everywhere(|outer, inner| {
        let (outer, inner, _) = pair_with_clock(outer, inner);
        let _inside = Nested::new(&outer, &inner).unwrap();
        let fired = Rc::new(Cell::new(0));
        let at = fired.clone();
        let timer = inner
            .timer(ClockId::Monotonic, move |cx, _| {
                at.set(cx.now(ClockId::Monotonic).as_nanos());
            })
            .disarmed();
        for delay in [1, 999_999, 1_000_001, 5_000_000_007, 3] {
            // The second is armed while the outer context is prepared to wait for the first.
            timer.arm_after(Duration::from_secs(100));
            let due = inner.now(ClockId::Monotonic).as_nanos() + delay;
            timer.arm_after(Duration::from_nanos(delay));
            while fired.get() < due {
                assert!(outer.poll(Wait::Block).unwrap());
            }
            assert_eq!(fired.get(), due);
        }
        timer.arm_after(MS);
        timer.cancel();
        while outer.poll(Wait::NoBlock).unwrap() {}
        assert_eq!(fired.get(), clock_now(&inner));
    });
}

fn clock_now(cx: &Context) -> u64 {
    cx.now(ClockId::Monotonic).as_nanos()
}

/// Rule A5: if the inner context stayed in poll mode, its peers would not kick, and the outer one would sleep.
#[test]
fn g4_polled_directly_the_inner_context_does_not_stay_in_poll_mode() {
    everywhere(|outer, inner| {
        let params = PollParams::up_to(MS);
        let always = Box::new(Policy::by_name("always", params).unwrap());
        let (outer, inner) = pair(outer, &|| inner().policy(always.clone()).poll_params(params));
        let kick = Kick::new();
        let _kick = watch_polled(&inner, &kick);
        let inside = Nested::new(&outer, &inner).unwrap();
        for served in 1..=3 {
            kick.kick();
            while kick.count.get() < served {
                inner.poll(Wait::Block).unwrap();
            }
            let log = kick.log.take();
            let begun = log.iter().filter(|entry| **entry == "begin").count();
            let ended = log.iter().filter(|entry| **entry == "end").count();
            assert_eq!(begun, ended, "{log:?}");
        }
        drop(inside);
        kick.kick();
        assert!(inner.poll(Wait::Block).unwrap());
        assert!(kick.log.borrow().contains(&"begin"), "it polls again by itself");
    });
}

/// Rule D9. No descriptor becomes readable for the events that the panic left over.
#[test]
fn g4_a_panic_comes_out_and_the_inner_context_goes_on() {
    everywhere(|outer, inner| {
        let (outer, inner) = pair(outer, inner);
        let _inside = Nested::new(&outer, &inner).unwrap();
        let runs = Count::default();
        for round in 1..=3 {
            let (in_bh, in_timer, at_once) = (runs.clone(), runs.clone(), runs.get());
            inner.defer(|_| panic!("on purpose"));
            inner.defer(move |_| {
                in_bh.up();
            });
            inner.after(MS, move |_| {
                in_timer.up();
            });
            let mut panics = 0;
            while panics == 0 || runs.get() < at_once + 2 {
                let polled = catch_unwind(AssertUnwindSafe(|| outer.poll(Wait::Block).unwrap()));
                panics += u32::from(polled.is_err());
            }
            assert_eq!((panics, runs.get()), (1, 2 * round));
            let kick = Kick::new();
            let _kick = watch(&inner, &kick);
            kick.kick();
            poll_until(&outer, || kick.count.get(), 1);
        }
        assert!(is_asleep(&outer));
    });
}

/// Rule B5. The timer of the inner context is due in the pause.
#[test]
fn g4_b5_a_paused_inner_context_is_not_served_before_the_last_resume() {
    everywhere(|outer, inner| {
        let (outer, inner, clock) = pair_with_clock(outer, inner);
        let _inside = Nested::new(&outer, &inner).unwrap();
        let (kick, shots) = (Kick::new(), Count::default());
        let _kick = watch(&inner, &kick);
        let counted = shots.clone();
        let timer = inner
            .timer(ClockId::Monotonic, move |_, _| {
                counted.up();
            })
            .armed_after(MS);
        while outer.poll(Wait::NoBlock).unwrap() {}
        for is_kicked in [false, true] {
            let pauses = [outer.pause(GroupId::DEFAULT), outer.pause(GroupId::DEFAULT)];
            if is_kicked {
                kick.kick();
            }
            clock.advance(MS * 2);
            let before = (kick.count.get(), shots.get());
            while outer.poll(Wait::NoBlock).unwrap() {}
            assert_eq!((kick.count.get(), shots.get()), before);
            drop(pauses);
            poll_until(&outer, || shots.get(), before.1 + 1);
            poll_until(&outer, || kick.count.get(), before.0 + u32::from(is_kicked));
            timer.arm_after(MS);
        }
    });
}

#[test]
fn g4_removed_the_inner_context_is_free() {
    everywhere(|outer, inner| {
        let (outer, inner) = pair(outer, inner);
        let inside = Nested::new(&outer, &inner).unwrap();
        let (kick, weak) = (Kick::new(), inner.downgrade());
        let _kick = watch(&inner, &kick);
        kick.kick();
        drop(inside);
        assert!(!outer.poll(Wait::NoBlock).unwrap());
        assert!(inner.poll(Wait::Block).unwrap() && kick.count.get() == 1);
        let inside = Nested::new(&outer, &inner).unwrap();
        kick.kick();
        poll_until(&outer, || kick.count.get(), 2);
        // Each goes away first.
        drop(inner);
        assert!(weak.upgrade().is_some(), "the registration keeps it");
        drop(outer);
        drop(inside);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn g4_an_inner_callback_may_remove_its_context() {
    everywhere(|outer, inner| {
        let (outer, inner) = pair(outer, inner);
        let weak = inner.downgrade();
        let slot = Rc::new(Cell::new(None));
        let own = slot.clone();
        inner.defer(move |_| drop(own.take()));
        slot.set(Some(Nested::new(&outer, &inner).unwrap()));
        drop(inner);
        while weak.upgrade().is_some() {
            assert!(outer.poll(Wait::Block).unwrap());
        }
        assert!(slot.take().is_none() && is_asleep(&outer));
    });
}

/// Rule D6: an inner callback waits by polling the outer context, which serves the inner one meanwhile.
#[test]
fn g4_d6_an_inner_callback_may_poll_the_outer_context() {
    everywhere(|outer, inner| {
        let (outer, inner) = pair(outer, inner);
        let _inside = Nested::new(&outer, &inner).unwrap();
        let other = Kick::new();
        let (awaited, around) = (other.clone(), outer.clone());
        let kick = Kick::with(move |_, _| {
            awaited.kick();
            poll_until(&around, || awaited.count.get(), 1);
        });
        let _registrations = [watch(&inner, &other), watch(&inner, &kick)];
        kick.kick();
        poll_until(&outer, || kick.count.get(), 1);
        assert_eq!(other.count.get(), 1);
        drop(kick.on_ready.take());
        assert!(is_asleep(&outer));
    });
}

/// Three levels. A fourth would nest more sets than Linux allows.
#[test]
fn g4_contexts_in_contexts_in_contexts() {
    everywhere(|outer, inner| {
        let (outer, inner) = pair(outer, inner);
        let all = [outer, inner, Context::new().unwrap()];
        let _inside = [
            Nested::new(&all[0], &all[1]).unwrap(),
            Nested::new(&all[1], &all[2]).unwrap(),
        ];
        let refused = Nested::new(&all[2], &Context::new().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("too deep"), "{refused}");
        for cx in &all {
            let (kick, runs) = (Kick::new(), Count::default());
            let _kick = watch(cx, &kick);
            kick.kick();
            poll_until(&all[0], || kick.count.get(), 1);
            let counted = runs.clone();
            cx.after(MS, move |_| {
                counted.up();
            });
            poll_until(&all[0], || runs.get(), 1);
        }
        assert!(is_asleep(&all[0]));
    });
}

#[test]
fn g4_no_context_serves_itself() {
    everywhere(|outer, inner| {
        let (outer, inner) = pair(outer, inner);
        let refused = Nested::new(&outer, &outer).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
        let _inside = Nested::new(&outer, &inner).unwrap();
        let refused = Nested::new(&inner, &outer).unwrap_err();
        assert!(refused.to_string().contains("circle"), "{refused}");
        let kick = Kick::new();
        let _kick = watch(&inner, &kick);
        kick.kick();
        poll_until(&outer, || kick.count.get(), 1);
        assert!(is_asleep(&outer));
    });
}

/// Its deadline in the pause makes nothing else wait, and is served at the end.
#[test]
fn g4_b5_a_nested_context_is_a_member_of_a_group() {
    everywhere(|outer, inner| {
        let (outer, inner, clock) = pair_with_clock(outer, inner);
        let group = outer.new_group();
        let _nested = Nested::new_in(&outer, group, &inner).unwrap();
        let shots = Count::default();
        let counted = shots.clone();
        let timer = inner.timer(ClockId::Monotonic, move |_, _| {
            counted.up();
        });
        let timer = timer.armed_after(MS);
        let others = outer.pause(GroupId::DEFAULT);
        poll_until(&outer, || shots.get(), 1);
        drop(others);
        let paused = outer.pause(group);
        timer.arm_after(MS);
        clock.advance(MS * 2);
        while outer.poll(Wait::NoBlock).unwrap() {}
        assert_eq!(shots.get(), 1);
        // Meanwhile it can be polled by itself, and nothing is served twice.
        assert!(inner.poll(Wait::Block).unwrap() && shots.get() == 2);
        timer.arm_after(MS);
        clock.advance(MS * 2);
        while outer.poll(Wait::NoBlock).unwrap() {}
        drop(paused);
        poll_until(&outer, || shots.get(), 3);
        assert!(is_asleep(&outer));
    });
}

/// The inner context itself serves the timer that was due in the pause, and then passes its next deadline to the outer
/// one.
#[test]
fn g4_b5_deadlines_after_one_that_was_served_in_a_pause_are_kept() {
    everywhere(|outer, inner| {
        let (outer, inner, clock) = pair_with_clock(outer, inner);
        let _nested = Nested::new(&outer, &inner).unwrap();
        let shots = Count::default();
        for at in [MS, MS * 10] {
            let counted = shots.clone();
            inner.after(at, move |_| {
                counted.up();
            });
        }
        while outer.poll(Wait::NoBlock).unwrap() {}
        let paused = outer.pause(GroupId::DEFAULT);
        clock.advance(MS * 2);
        while outer.poll(Wait::NoBlock).unwrap() {}
        assert_eq!(shots.get(), 0);
        while inner.poll(Wait::NoBlock).unwrap() {}
        assert_eq!(shots.get(), 1);
        while outer.poll(Wait::NoBlock).unwrap() {}
        drop(paused);
        while outer.poll(Wait::NoBlock).unwrap() {}
        clock.advance(MS * 20);
        while outer.poll(Wait::NoBlock).unwrap() {}
        assert_eq!(shots.get(), 2);
    });
}

#[test]
fn case_87_nested_contexts_that_come_and_go_leave_nothing() {
    let outer = Context::new().unwrap();
    let kick = Kick::new();
    let _kick = watch(&outer, &kick);
    for round in 1..=30 {
        let inner = Context::new().unwrap();
        let (first, second) = (Nested::new(&outer, &inner), Nested::new(&outer, &inner));
        let weak = inner.downgrade();
        inner.after(MS * (round % 3), |_| {});
        kick.kick();
        poll_until(&outer, || kick.count.get(), round);
        drop((inner, first.unwrap(), second.unwrap()));
        assert!(weak.upgrade().is_none());
    }
    assert!(is_asleep(&outer));
}
