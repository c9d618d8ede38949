//! Cases 29 to 32, 36 to 40, 46 and 47: callbacks that use the context in every way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aio_backend::conformance::disturb::{Number, raise_limit};
use aio_context::{
    BottomHalf, ClockId, Context, Embedded, Interest, PollParams, Registration, Timer, WeakContext,
};

use crate::check::check;
use crate::common::{Bench, Count, Kick, everywhere, watch};
use crate::fixtures::{MOMENT, Tap, feed, keeps, pipe, scaled};
use crate::process::each_in_a_process;

everywhere! {
    case_29_removes_itself_with_writable_to_come
    case_30_removes_another_that_is_ready
    case_31_removes_itself_and_comes_back
    case_36_nested_a_thousand_deep
    case_37_nested_is_not_served_twice
    case_38_removes_itself_inside_a_nested_poll
    case_39_a_closure_that_keeps_its_context
    case_40_drops_that_use_the_context
    case_46_a_callback_that_takes_a_second
    case_47_a_callback_that_never_returns
}

/// Rule R9.
fn case_29_removes_itself_with_writable_to_come(bench: Bench) {
    for trace in [
        "on a.readable { remove a }; watch a rw; kick a; poll -> a.readable; poll ->",
        "on a.readable { remove a, poll }; watch a rw; kick a; poll -> a.readable [ ]; poll ->",
        "on a.readable { poll, remove a }; watch a rw; kick a; poll -> a.readable [ a.readable [ a.readable ] ]",
        "on a.readable { interest a r }; watch a rw; kick a; poll -> a.readable; poll -> a.readable",
        "on a.readable { pause g, drain a }; watch a rw in g; kick a; poll -> a.readable; poll ->; resume g; poll -> a.writable",
    ] {
        check(bench, trace);
    }
}

/// Rule R9: exactly one of several handlers that remove each other is called.
fn case_30_removes_another_that_is_ready(bench: Bench) {
    check(
        bench,
        "on a.readable { remove b, drain a }; on b.readable { remove a, drain b }; \
         watch a r; watch b r; kick a; kick b; poll; poll ->",
    );
    let (cx, registrations) = (bench.context(), Rc::new(RefCell::new(Vec::new())));
    let kicks: Vec<_> = (0..40)
        .map(|_| {
            let all = registrations.clone();
            Kick::with(move |_, _| {
                let others: Vec<Registration> = all.take();
                drop(others);
            })
        })
        .collect();
    registrations
        .borrow_mut()
        .extend(kicks.iter().map(|kick| watch(&cx, kick)));
    kicks.iter().for_each(|kick| kick.kick());
    assert!(bench.block(&cx));
    assert!(!bench.check(&cx));
    assert_eq!(kicks.iter().map(|kick| kick.count.get()).sum::<u32>(), 1);
}

/// Rules R2 and R5.
fn case_31_removes_itself_and_comes_back(bench: Bench) {
    for trace in [
        "on a.readable { remove a, watch a r }; watch a r; kick a; poll -> a.readable; poll -> a.readable; drain a; poll ->",
        "on a.readable { remove a, watch a rw }; watch a rw; kick a; poll -> a.readable; poll -> a.readable; drain a; poll -> a.writable",
        "on a.readable { drain a, remove a, watch a w }; watch a r; kick a; poll -> a.readable; poll -> a.writable",
        "on a.readable { remove a, watch a r, poll, drain a }; watch a r; kick a; poll -> a.readable [ a.readable [ a.readable ] ]; poll ->",
    ] {
        check(bench, trace);
    }
}

/// Rule R5: new handlers are called after the next wait.
#[test]
fn case_32_adds_many_in_a_callback() {
    each_in_a_process(
        concat!(module_path!(), "::case_32_adds_many_in_a_callback"),
        |bench| {
            let many = scaled(1_000, 10_000).min(raise_limit() - 100) as usize;
            let cx = bench.context();
            let late: Rc<Vec<_>> = Rc::new((0..many).map(|_| Kick::new()).collect());
            late.iter().for_each(|kick| kick.kick());
            let registrations = Rc::new(RefCell::new(Vec::new()));
            let (added, kept) = (late.clone(), registrations.clone());
            let first = Kick::with(move |_, cx| {
                kept.borrow_mut().extend(added.iter().map(|kick| watch(cx, kick)));
            });
            let _first = watch(&cx, &first);
            first.kick();
            assert!(bench.block(&cx));
            assert!(late.iter().all(|kick| kick.count.get() == 0));
            for _ in 0..many.div_ceil(64) + 1 {
                bench.poll(&cx, MOMENT);
            }
            assert!(late.iter().all(|kick| kick.count.get() == 1));
            let removed = registrations.take();
            drop(removed);
        },
    );
}

/// Rule D6, from each kind of callback, on the stack of a main thread.
fn case_36_nested_a_thousand_deep(bench: Bench) {
    const DEEP: u32 = 1_000;
    let deep = thread::Builder::new().stack_size(8 << 20).spawn(move || {
        let (cx, clock) = bench.simulated();
        let depth = Rc::new(Cell::new(0));
        let nest: Rc<dyn Fn(&Context)> = Rc::new({
            let depth = depth.clone();
            move |cx| {
                depth.set(depth.get() + 1);
                if depth.get() < DEEP {
                    bench.block(cx);
                }
            }
        });
        let own: Rc<std::cell::OnceCell<BottomHalf>> = Rc::default();
        let (next, this) = (nest.clone(), own.clone());
        let bh = cx.bottom_half("nests", move |cx| {
            this.get().unwrap().schedule();
            next(cx);
        });
        own.set(bh.clone()).unwrap();
        bh.schedule();
        assert!(bench.block(&cx) && depth.get() == DEEP);
        bh.cancel();
        while bench.check(&cx) {}
        depth.set(0);
        let next = nest.clone();
        let timer = cx
            .timer(ClockId::Monotonic, move |cx, timer| {
                timer.arm_after(Duration::from_millis(1));
                next(cx);
            })
            .disarmed();
        timer.arm_after(Duration::ZERO);
        assert!(bench.block(&cx) && depth.get() == DEEP);
        timer.cancel();
        depth.set(0);
        let kick = Kick::with(move |kick, cx| {
            kick.kick();
            nest(cx);
        });
        let _registration = watch(&cx, &kick);
        kick.kick();
        assert!(bench.block(&cx) && depth.get() == DEEP);
        kick.clear();
        assert!(!bench.check(&cx));
        assert!(format!("{cx:?}").contains("depth: 0"));
        drop(clock);
    });
    deep.unwrap().join().unwrap();
}

/// Rules D1 and R8: a handler is called again only if it is ready again. A removed handler is dropped with its last user.
fn case_37_nested_is_not_served_twice(bench: Bench) {
    for trace in [
        "on a.readable { drain a, poll }; watch a r; kick a; poll -> a.readable [ ]; poll ->",
        "on a.readable { drain a, kick b, poll }; on b.readable { drain b, poll }; watch a r; watch b r; kick a; \
         poll -> a.readable [ b.readable [ ] ]; poll ->",
        "on x { poll }; on y { poll }; bh x; bh y; watch a r; schedule x; schedule y; kick a; poll -> x [ y [ a.readable ] ]; poll ->",
    ] {
        check(bench, trace);
    }
    let cx = bench.context();
    let slot = Rc::new(RefCell::new(None::<Registration>));
    let (own, alive) = (slot.clone(), Rc::new(()));
    let witness = Rc::downgrade(&alive);
    let seen = witness.clone();
    let kick = Kick::with(move |kick, cx| {
        if kick.count.get() < 3 {
            kick.kick();
            bench.block(cx);
        } else {
            drop(own.borrow_mut().take());
        }
        assert_eq!(seen.strong_count(), 1, "at {}", Rc::strong_count(&alive));
    });
    *slot.borrow_mut() = Some(watch(&cx, &kick));
    kick.kick();
    let count = Rc::downgrade(&kick);
    drop(kick);
    assert!(bench.block(&cx));
    assert!(witness.upgrade().is_none() && count.upgrade().is_none());
}

/// Runs a turn of a foreign loop, without a wait.
fn turn(embedded: &Embedded) -> bool {
    embedded.prepare();
    embedded.check().unwrap() && embedded.dispatch()
}

/// Rules D6 and G1: a foreign loop inside a foreign loop, by one embedding, in each kind of callback.
#[test]
fn case_37_nested_on_one_embedding() {
    // The context is never dropped, so that callbacks can use it. The static keeps it visible to a leak check.
    static KEPT: AtomicPtr<(Context, Embedded)> = AtomicPtr::new(std::ptr::null_mut());
    let cx = Context::new().unwrap();
    let embedded = cx.embed().unwrap();
    let kept = Box::leak(Box::new((cx, embedded)));
    std::hint::black_box(&KEPT).store(kept, Ordering::Relaxed);
    let (cx, embedded) = (&kept.0, &kept.1);
    let again = move |depth: &Count| depth.get() < 20 && depth.up() > 0 && turn(embedded);
    let depth = Count::default();
    let (of_bh, of_timer, of_kick, of_end) = (depth.clone(), depth.clone(), depth.clone(), depth.clone());
    let bh = cx.bottom_half("nests", move |_| {
        again(&of_bh);
    });
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            again(&of_timer);
        })
        .disarmed();
    let kick = Kick::with(move |_, _| {
        again(&of_kick);
    });
    let _registration = watch(cx, &kick);
    // A handler that a check invalidates.
    let (reader, writer) = pipe();
    let [ghost, closed] = [&reader, &reader].map(Number::of);
    let of_ghost = cx.watch(Tap::new(ghost.clone()), Interest::READ).unwrap();
    let invalidated = Count::default();
    let counted = invalidated.clone();
    let on = cx
        .on(closed.clone())
        .readable(|_, _| {})
        .invalidated(move |_, _, _| {
            counted.up();
            again(&of_end);
        });
    let of_closed = on.watch().unwrap();
    kick.kick();
    bh.schedule();
    timer.arm_after(Duration::ZERO);
    while turn(embedded) {}
    assert!(kick.count.get() == 1 && depth.get() >= 3);
    ghost.close();
    closed.close();
    drop(of_ghost);
    feed(&writer);
    while turn(embedded) {}
    assert!(invalidated.get() == 1 && !of_closed.is_live());
}

/// Rules R8, R9 and D1: the outer iteration is dispatching the handler.
fn case_38_removes_itself_inside_a_nested_poll(bench: Bench) {
    for trace in [
        "on a.readable { schedule x, poll }; on x { remove a }; bh x; watch a rw; kick a; poll -> a.readable [ x ]; poll ->",
        "on a.readable { drain a, schedule x, poll }; on x { replace a n }; bh x; watch a rw; kick a; poll -> a.readable [ x ]; poll -> n.writable",
        "on a.readable { arm t 0, poll }; on t { remove a }; timer t; watch a rw; kick a; poll; poll ->",
        "on a.readable { kick b, drain a, poll }; on b.readable { remove a, remove b }; watch a rw; watch b r; kick a; poll; poll ->",
    ] {
        check(bench, trace);
    }
}

/// A context in a closure that it keeps is a cycle, which ends when the closure is removed. A weak context is no cycle.
fn case_39_a_closure_that_keeps_its_context(bench: Bench) {
    for is_weak in [true, false] {
        let cx = bench.context();
        let (strong, weak) = ((!is_weak).then(|| cx.clone()), cx.downgrade());
        let kick = Kick::with(move |_, _| {
            keeps(&strong);
            assert!(weak.upgrade().is_some());
        });
        let (kept, weak) = (watch(&cx, &kick), cx.downgrade());
        kick.kick();
        assert!(bench.block(&cx));
        drop((cx, kick));
        assert_eq!(weak.upgrade().is_none(), is_weak);
        drop(kept);
        assert!(weak.upgrade().is_none(), "the cycle is broken by a removal");
    }
}

/// Uses a context in every way when it is dropped.
struct Busy {
    cx: WeakContext,
    heir: Rc<Kick>,
    drops: Count,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.drops.up();
        let Some(cx) = self.cx.upgrade() else { return };
        match cx.watch(self.heir.clone(), Interest::READ) {
            Ok(registration) => {
                registration.set_interest(Interest::NONE).unwrap();
                registration.set_interest(Interest::READ).unwrap();
                registration.detach();
            }
            // An earlier drop has registered it.
            Err(refused) => assert_eq!(refused.kind(), std::io::ErrorKind::AlreadyExists),
        }
        drop(cx.pause(cx.new_group()));
        cx.bottom_half("from a drop", |_| {}).schedule();
        let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
        timer.arm_after(Duration::ZERO);
        cx.remote().run(|_| ()).unwrap();
        cx.poll(aio_context::Wait::NoBlock).unwrap();
    }
}

/// Rule R8, for all values of its user that a context keeps.
fn case_40_drops_that_use_the_context(bench: Bench) {
    let (cx, drops, heir) = (bench.context(), Count::default(), Kick::new());
    let busy = || Busy {
        cx: cx.downgrade(),
        heir: heir.clone(),
        drops: drops.clone(),
    };
    let handler = |busy: Busy| {
        Kick::with(move |_, _| {
            keeps(&busy);
        })
    };
    // A removed handler, a refused one, a replaced one.
    let kick = handler(busy());
    let registration = watch(&cx, &kick);
    drop(kick);
    drop(registration);
    assert_eq!(drops.get(), 1);
    let owner = Kick::new();
    let watched = |busy: Busy| {
        let on = cx.on(owner.clone()).readable(move |_, _| {
            keeps(&busy);
        });
        on.watch()
    };
    let first = watched(busy()).unwrap();
    let refused = watched(busy()).unwrap_err();
    assert_eq!(drops.get(), 1, "it comes back");
    drop(refused);
    assert_eq!(drops.get(), 2);
    first.replace(owner.clone()).unwrap();
    assert_eq!(drops.get(), 3);
    drop(first);
    // A bottom half, a timer, a one-shot.
    let busy_one = busy();
    drop(cx.bottom_half("never run", move |_| keeps(&busy_one)));
    bench.check(&cx);
    assert_eq!(drops.get(), 4);
    let busy_one = busy();
    drop(
        cx.timer(ClockId::Monotonic, move |_, _| keeps(&busy_one))
            .disarmed(),
    );
    assert_eq!(drops.get(), 5);
    heir.kick();
    while bench.check(&cx) {}
    assert!(heir.count.get() >= 1, "registered by a drop");
    // Values that are dropped with the context cannot use it.
    let busy_one = busy();
    let last = cx.bottom_half("left", move |_| keeps(&busy_one));
    let busy_one = busy();
    let timer = cx
        .timer(ClockId::Virtual, move |_, _| keeps(&busy_one))
        .disarmed();
    let kick = handler(busy());
    watch(&cx, &kick).detach();
    drop(kick);
    drop(cx);
    drop((last, timer));
    assert_eq!(drops.get(), 8);
}

/// Rules A10, T4 and N1.
fn case_46_a_callback_that_takes_a_second(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let fired = Rc::new(RefCell::new(Vec::new()));
    let timers: Vec<Timer> = (1..=5)
        .map(|number| {
            let fired = fired.clone();
            let timer = cx
                .timer(ClockId::Monotonic, move |_, _| fired.borrow_mut().push(number))
                .disarmed();
            timer.arm_after(Duration::from_millis(number * 300));
            timer
        })
        .collect();
    let ran = Count::default();
    let counted = ran.clone();
    let bh = cx.bottom_half("from another thread", move |_| {
        counted.up();
    });
    let slow = Kick::with(move |_, _| {
        clock.advance(Duration::from_secs(1));
        let bh = bh.clone();
        thread::spawn(move || bh.schedule()).join().unwrap();
    });
    let _registration = watch(&cx, &slow);
    slow.kick();
    assert!(bench.block(&cx));
    assert_eq!(
        (fired.take(), ran.get()),
        (vec![1, 2, 3], 0),
        "late, and in their order"
    );
    assert!(bench.block(&cx) && ran.get() == 1, "work from meanwhile is done");
    assert!(bench.block(&cx) && bench.block(&cx));
    assert_eq!(fired.take(), [4, 5]);
    drop(timers);
}

/// Invariant 3: no call of another thread waits for the callback.
fn case_47_a_callback_that_never_returns(bench: Bench) {
    let cx = bench.context();
    let (tell, hear) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let ran = Count::default();
    let counted = ran.clone();
    let bh = cx.bottom_half("waits", move |_| {
        counted.up();
    });
    let (doomed, remote) = (cx.bottom_half("deleted meanwhile", |_| {}), cx.remote());
    let clock = cx.virtual_clock();
    let other = thread::spawn(move || {
        hear.recv().unwrap();
        // The callback waits until all of these calls have returned.
        for _ in 0..100 {
            bh.schedule();
            bh.schedule_idle();
            bh.cancel();
            remote.run(|_| ()).unwrap();
            remote.kick();
            remote.notify();
            remote.set_poll_params(PollParams::up_to(Duration::from_micros(1)));
            remote.set_poll_params(PollParams::OFF);
            let _stats = (remote.stats(), remote.wakeups(), remote.clone(), bh.clone());
            clock.warp(Duration::from_nanos(1));
        }
        drop(doomed);
        bh.schedule();
        release.send(()).unwrap();
        bh
    });
    let stuck = Kick::with(move |_, _| {
        tell.send(()).unwrap();
        released.recv().unwrap();
    });
    let _registration = watch(&cx, &stuck);
    stuck.kick();
    assert!(bench.block(&cx));
    let _bh = other.join().unwrap();
    assert!(bench.block(&cx) && ran.get() == 1);
}
