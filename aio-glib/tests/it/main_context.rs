//! A main context of GLib inside a context.

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use aio_context::{Context, GroupId, Wait};
use aio_glib::{attach, watch_main_context};
use glib::{ControlFlow, MainContext, MainContextFlags};

use crate::common::{Bench, Count, Kick, watch};
use crate::main_loop::counter;

const MS: Duration = Duration::from_millis(1);

fn everywhere(test: impl Fn(&Context, &MainContext)) {
    for bench in Bench::DIRECT {
        for bench in [bench, bench.polling()] {
            println!("{bench:?}");
            test(&bench.context(), &ownerless());
        }
    }
}

fn ownerless() -> MainContext {
    MainContext::with_flags(MainContextFlags::OWNERLESS_POLLING)
}

fn poll_until(cx: &Context, count: impl Fn() -> u32, expected: u32) {
    while count() < expected {
        cx.poll(Wait::Block).unwrap();
    }
    assert_eq!(count(), expected);
}

fn is_asleep(cx: &Context) -> bool {
    while cx.poll(Wait::NoBlock).unwrap() {}
    !cx.poll(Wait::AtMost(MS)).unwrap()
}

#[test]
fn g3_a_main_loop_inside_a_context() {
    everywhere(|cx, main| {
        let inside = watch_main_context(cx, main).unwrap();
        let (runs, own) = (Count::default(), Kick::new());
        let _own = watch(cx, &own);
        for round in 1..=5 {
            // Attached on this thread, outside of GLib.
            counter(&runs, Duration::ZERO, ControlFlow::Break).attach(Some(main));
            counter(&runs, MS, ControlFlow::Break).attach(Some(main));
            own.kick();
            poll_until(cx, || runs.get() + own.count.get(), 3 * round);
        }
        // From another thread.
        let (sender, receiver) = std::sync::mpsc::channel();
        let elsewhere = main.clone();
        let thread = std::thread::spawn(move || elsewhere.invoke(move || sender.send(()).unwrap()));
        while receiver.try_recv().is_err() {
            cx.poll(Wait::Block).unwrap();
        }
        thread.join().unwrap();
        assert!(is_asleep(cx), "nothing is left that makes it spin");
        drop(inside);
        counter(&runs, Duration::ZERO, ControlFlow::Break).attach(Some(main));
        assert!(is_asleep(cx) && runs.get() == 10, "it is served no longer");
        while runs.get() == 10 {
            main.iteration(true);
        }
    });
}

/// Each context has a descriptor that GLib waits for. The next one has the same number.
#[test]
fn g3_descriptors_of_glib_come_and_go_and_come_again_under_one_number() {
    everywhere(|cx, main| {
        let _inside = watch_main_context(cx, main).unwrap();
        let mut numbers = std::collections::BTreeSet::new();
        for round in 0..20 {
            let (inner, kick) = (Context::new().unwrap(), Kick::new());
            let _kick = watch(&inner, &kick);
            numbers.insert(inner.embed().unwrap().as_raw_fd());
            let attached = attach(&inner, Some(main)).unwrap();
            if round % 2 == 0 {
                // Waiting already.
                assert!(is_asleep(cx));
            }
            kick.kick();
            poll_until(cx, || kick.count.get(), 1);
            if round % 3 == 0 {
                // Closed by GLib's own callback.
                inner.defer(move |_| drop(attached));
                cx.poll(Wait::Block).unwrap();
            }
        }
        assert!(numbers.len() < 20, "{numbers:?}");
        assert!(is_asleep(cx));
    });
}

#[test]
fn g3_timeouts_of_glib_are_not_early() {
    everywhere(|cx, main| {
        let _inside = watch_main_context(cx, main).unwrap();
        for ms in [0, 1, 3] {
            let (runs, began) = (Count::default(), Instant::now());
            counter(&runs, MS * ms, ControlFlow::Break).attach(Some(main));
            poll_until(cx, || runs.get(), 1);
            assert!(began.elapsed() >= MS * ms);
        }
    });
}

/// Rule B5.
#[test]
fn g3_b5_a_paused_main_loop_is_not_served_before_the_resume() {
    everywhere(|cx, main| {
        let _inside = watch_main_context(cx, main).unwrap();
        let runs = Count::default();
        while cx.poll(Wait::NoBlock).unwrap() {}
        let pause = cx.pause(GroupId::DEFAULT);
        counter(&runs, Duration::ZERO, ControlFlow::Break).attach(Some(main));
        assert!(is_asleep(cx) && runs.get() == 0);
        drop(pause);
        poll_until(cx, || runs.get(), 1);
    });
}

/// Rule D6.
#[test]
fn g3_d6_a_callback_of_glib_may_poll_the_context() {
    everywhere(|cx, main| {
        let _inside = watch_main_context(cx, main).unwrap();
        let _owner = main.acquire().unwrap();
        let (kick, runs) = (Kick::new(), Count::default());
        let _kick = watch(cx, &kick);
        let (outer, awaited, counted, around) = (cx.clone(), kick.clone(), runs.clone(), main.clone());
        main.spawn_local(async move {
            awaited.kick();
            poll_until(&outer, || awaited.count.get(), 1);
            counter(&counted, Duration::ZERO, ControlFlow::Break).attach(Some(&around));
            poll_until(&outer, || counted.get(), 1);
            counted.up();
        });
        poll_until(cx, || runs.get(), 2);
        assert!(is_asleep(cx));
    });
}

/// A context in a main loop in a context; and a panic goes through all of them.
#[test]
fn g3_d9_a_context_in_a_main_loop_in_a_context() {
    for bench in Bench::DIRECT {
        println!("{}", bench.name);
        let (outer, main) = (bench.context(), ownerless());
        let inner = Context::new().unwrap();
        let _attached = attach(&inner, Some(&main)).unwrap();
        let _inside = watch_main_context(&outer, &main).unwrap();
        let (kick, after) = (Kick::new(), Count::default());
        let _kick = watch(&inner, &kick);
        for round in 1..=3 {
            kick.kick();
            poll_until(&outer, || kick.count.get(), round);
            let counted = after.clone();
            inner.defer(|_| panic!("on purpose"));
            inner.after(MS, move |_| {
                counted.up();
            });
            let panics = Cell::new(0);
            while panics.get() == 0 {
                let polled = catch_unwind(AssertUnwindSafe(|| outer.poll(Wait::Block).unwrap()));
                panics.set(panics.get() + u32::from(polled.is_err()));
            }
            poll_until(&outer, || after.get(), round);
        }
        assert!(is_asleep(&outer));
    }
}

#[test]
fn g3_a_main_context_that_serves_its_own_context_is_reported_once() {
    everywhere(|cx, main| {
        let _inside = watch_main_context(cx, main).unwrap();
        let runs = Count::default();
        let logged = aio_testing::events(|| {
            let _attached = attach(cx, Some(main)).unwrap();
            let counted = runs.clone();
            cx.after(MS, move |_| {
                counted.up();
            });
            poll_until(cx, || runs.get(), 1);
            let counted = runs.clone();
            cx.after(MS, move |_| {
                counted.up();
            });
            poll_until(cx, || runs.get(), 2);
        });
        let reports = logged.iter().filter(|line| line.contains("GLib"));
        assert_eq!(reports.count(), 1, "{logged:?}");
        assert!(is_asleep(cx));
    });
}

#[test]
fn g3_a_main_context_of_another_thread_is_refused() {
    let (cx, main) = (Context::new().unwrap(), ownerless());
    let (owned, done) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _owner = main.acquire().unwrap();
            owned.wait();
            done.wait();
        });
        owned.wait();
        let refused = watch_main_context(&cx, &main).unwrap_err();
        done.wait();
        assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    });
    drop(watch_main_context(&cx, &main).unwrap());
}
