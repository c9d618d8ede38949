//! Rule G3: contexts that stay attached to a main loop, as in programs.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aio_context::{ClockId, Context, PollParams, Wait};
use aio_glib::attach;
use glib::{ControlFlow, MainContext, MainLoop, Priority};

use crate::common::{Bench, Count, Kick, watch, watch_polled};
use crate::main_loop::counter;

const MS: Duration = Duration::from_millis(1);

/// Runs the test with each backend, with polling off and on.
fn everywhere(test: impl Fn(&MainContext, &dyn Fn() -> Context)) {
    for bench in Bench::DIRECT {
        for bench in [bench, bench.polling()] {
            println!("{bench:?}");
            test(&MainContext::new(), &|| bench.context());
        }
    }
}

fn iterate_until(main: &MainContext, count: impl Fn() -> u32, expected: u32) {
    while count() < expected {
        main.iteration(true);
    }
    assert_eq!(count(), expected);
}

/// Returns whether the main loop has nothing to do.
fn is_asleep(main: &MainContext) -> bool {
    while main.iteration(false) {}
    !main.pending()
}

#[test]
fn g3_two_contexts_in_one_main_loop_and_a_source_of_glib() {
    everywhere(|main, new| {
        let contexts = [new(), new()];
        let attached = contexts.each_ref().map(|cx| attach(cx, Some(main)).unwrap());
        let (kicks, runs) = ([Kick::new(), Kick::new()], Count::default());
        let _registrations = [watch(&contexts[0], &kicks[0]), watch(&contexts[1], &kicks[1])];
        let ticks = counter(&runs, MS, ControlFlow::Continue);
        ticks.attach(Some(main));
        for round in 1..=5 {
            for (kick, attached) in kicks.iter().zip(&attached) {
                let served = attached.served();
                kick.kick();
                iterate_until(main, || kick.count.get(), round);
                assert_eq!(attached.served(), served + 1);
            }
            let before = runs.get();
            while runs.get() == before {
                main.iteration(true);
            }
        }
        ticks.destroy();
        assert!(is_asleep(main));
    });
}

#[test]
fn g3_n5_other_threads_wake_a_main_loop_that_sleeps() {
    everywhere(|main, new| {
        let cx = new();
        let main_loop = MainLoop::new(Some(main), false);
        let _attached = attach(&cx, Some(main)).unwrap();
        let (remote, runs) = (cx.remote(), Count::default());
        let (sender, receiver) = mpsc::channel();
        let counted = runs.clone();
        let bh = cx.bottom_half("g3", move |_| {
            counted.up();
            sender.send(()).unwrap();
        });
        let scheduler = bh.clone();
        let quits = Rc::new(RefCell::new(Some(main_loop.clone())));
        let quit = cx.bottom_half("quit", move |_| quits.take().unwrap().quit());
        let thread = std::thread::spawn(move || {
            for _ in 0..200 {
                scheduler.schedule();
                receiver.recv().unwrap();
            }
            for round in 0..100 {
                assert_eq!(remote.run_and_wait(move |_| round), Ok(round));
            }
            quit.schedule();
            // Deleting it would end it before it runs.
            quit
        });
        main_loop.run();
        drop(thread.join().unwrap());
        assert_eq!(runs.get(), 200);
    });
}

#[test]
fn g3_timers_are_never_early() {
    everywhere(|main, new| {
        let cx = new();
        let _attached = attach(&cx, Some(main)).unwrap();
        let fired = Rc::new(Cell::new(None));
        let at = fired.clone();
        let timer = cx
            .timer(ClockId::Monotonic, move |_, _| at.set(Some(Instant::now())))
            .disarmed();
        for delay in [0, 1, 300_000, 1_000_001, 2_500_000] {
            let delay = Duration::from_nanos(delay);
            let due = Instant::now() + delay;
            timer.arm_after(delay);
            while fired.get().is_none() {
                main.iteration(true);
            }
            assert!(fired.take().unwrap() >= due);
        }
        assert!(is_asleep(main));
    });
}

/// Armed, scheduled and registered between two iterations, and in callbacks of GLib.
#[test]
fn g3_changes_from_outside_are_seen_by_the_next_wait() {
    everywhere(|main, new| {
        let cx = new();
        let _attached = attach(&cx, Some(main)).unwrap();
        let (runs, kick) = (Count::default(), Kick::new());
        let registrations = Rc::new(RefCell::new(Vec::new()));
        let (inner, counted, kicked, kept) = (cx.clone(), runs.clone(), kick.clone(), registrations.clone());
        let change = move || {
            for delay in [Duration::ZERO, MS] {
                let counted = counted.clone();
                inner.after(delay, move |_| {
                    counted.up();
                });
            }
            kept.borrow_mut().push(watch(&inner, &kicked));
            kicked.kick();
            ControlFlow::Break
        };
        change.clone()();
        iterate_until(main, || runs.get() + kick.count.get(), 3);
        registrations.borrow_mut().clear();
        let _owner = main.acquire().unwrap();
        main.invoke_local(move || {
            change();
        });
        iterate_until(main, || runs.get() + kick.count.get(), 6);
        assert!(is_asleep(main));
    });
}

/// Rule D6: a callback runs a main loop, which serves the same context.
#[test]
fn g3_d6_a_main_loop_inside_a_callback() {
    everywhere(|main, new| {
        let cx = new();
        let _attached = attach(&cx, Some(main)).unwrap();
        let other = Kick::new();
        let (awaited, around) = (other.clone(), main.clone());
        let kick = Kick::with(move |_, cx| {
            awaited.kick();
            iterate_until(&around, || awaited.count.get(), 1);
            // And a nested poll.
            awaited.kick();
            assert!(cx.poll(Wait::Block).unwrap() && awaited.count.get() == 2);
        });
        let _registrations = [watch(&cx, &other), watch(&cx, &kick)];
        kick.kick();
        iterate_until(main, || kick.count.get(), 1);
        drop(kick.on_ready.take());
        assert!(is_asleep(main));
    });
}

/// Rule A5: a context that is polled directly leaves poll mode before GLib sleeps.
#[test]
fn g3_a5_poll_mode_is_left_before_the_main_loop_waits() {
    for bench in Bench::DIRECT {
        println!("{}", bench.name);
        let builder = bench.builder();
        let cx = builder.policy(Box::new(crate::polling::Always)).build().unwrap();
        cx.set_poll_params(PollParams::up_to(MS));
        let (main, kick) = (MainContext::new(), Kick::new());
        let _kick = watch_polled(&cx, &kick);
        kick.kick();
        assert!(cx.poll(Wait::Block).unwrap());
        assert_eq!(kick.log.borrow()[0], "begin");
        let _attached = attach(&cx, Some(&main)).unwrap();
        kick.log.borrow_mut().clear();
        while main.iteration(false) {}
        assert_eq!(*kick.log.borrow(), ["end"]);
        kick.kick();
        iterate_until(&main, || kick.count.get(), 2);
        assert!(!kick.log.borrow().contains(&"begin"));
    }
}

#[test]
fn g3_detached_the_context_is_as_before() {
    everywhere(|main, new| {
        let (cx, kick) = (new(), Kick::new());
        let _kick = watch(&cx, &kick);
        let attached = attach(&cx, Some(main)).unwrap();
        kick.kick();
        drop(attached);
        assert!(is_asleep(main) && kick.count.get() == 0);
        assert!(cx.poll(Wait::Block).unwrap() && kick.count.get() == 1);
        // The source is destroyed by its own callback, with the value that keeps the context.
        let slot = Rc::new(RefCell::new(Some(attach(&cx, Some(main)).unwrap())));
        let own = slot.clone();
        cx.defer(move |_| drop(own.take()));
        let weak = cx.downgrade();
        drop(cx);
        while weak.upgrade().is_some() {
            main.iteration(true);
        }
        assert!(slot.borrow().is_none() && is_asleep(main));
    });
}

#[test]
fn g3_left_attached_a_context_lives_as_long_as_its_main_context() {
    let (main, cx) = (MainContext::new(), Context::new().unwrap());
    let (weak, kick) = (cx.downgrade(), Kick::new());
    let kept = watch(&cx, &kick);
    let attached = attach(&cx, Some(&main)).unwrap();
    assert_eq!(attached.source().name().unwrap(), "aio-context");
    attached.detach();
    drop(cx);
    kick.kick();
    iterate_until(&main, || kick.count.get(), 1);
    drop(main);
    assert!(weak.upgrade().is_none());
    drop(kept);
}

#[test]
fn g3_the_priority_is_that_of_glib() {
    let (main, cx) = (MainContext::new(), Context::new().unwrap());
    let source = aio_glib::source_new(&cx, Some("late"), Priority::DEFAULT_IDLE).unwrap();
    source.attach(Some(&main));
    let order = Rc::new(RefCell::new(Vec::new()));
    let (of_cx, _owner) = (order.clone(), main.acquire().unwrap());
    cx.defer(move |_| of_cx.borrow_mut().push("context"));
    let of_glib = order.clone();
    main.spawn_local(async move { of_glib.borrow_mut().push("glib") });
    while order.borrow().len() < 2 {
        main.iteration(true);
    }
    assert_eq!(*order.borrow(), ["glib", "context"]);
    source.destroy();
}

/// The main context runs on another thread: nothing of the context is touched there.
#[test]
fn g3_d7_a_main_loop_on_another_thread_does_not_run_the_context() {
    everywhere(|main, new| {
        let (cx, kick) = (new(), Kick::new());
        let kept = watch(&cx, &kick);
        kick.kick();
        let source = aio_glib::source_new(&cx, None, Priority::DEFAULT).unwrap();
        source.attach(Some(main));
        let (weak, elsewhere) = (cx.downgrade(), main.clone());
        let thread = std::thread::spawn(move || {
            while !source.is_destroyed() {
                elsewhere.iteration(true);
            }
            // The last reference is dropped here.
            drop(source);
        });
        thread.join().unwrap();
        assert_eq!(kick.count.get(), 0);
        // Its part is dropped on the home thread.
        while cx.poll(Wait::NoBlock).unwrap() {}
        assert_eq!(kick.count.get(), 1);
        drop(kept);
        drop(cx);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn g3_d9_a_panic_unwinds_out_of_the_iteration() {
    everywhere(|main, new| {
        let (cx, runs) = (new(), Count::default());
        let _attached = attach(&cx, Some(main)).unwrap();
        for round in 1..=3 {
            let (counted, later) = (runs.clone(), runs.clone());
            cx.defer(|_| panic!("on purpose"));
            cx.defer(move |_| {
                counted.up();
            });
            cx.after(MS, move |_| {
                later.up();
            });
            let mut panics = 0;
            while panics == 0 {
                let iterated = catch_unwind(AssertUnwindSafe(|| aio_glib::iteration(main, true)));
                panics += u32::from(iterated.is_err());
            }
            iterate_until(main, || runs.get(), 2 * round);
        }
        assert!(is_asleep(main));
    });
}

const CHILD: &str = "AIO_GLIB_CHILD";

/// Without `iteration` it aborts, and reports the reason; it does not go on as if nothing had happened.
#[test]
fn g3_d9_a_panic_in_a_plain_main_loop_aborts() {
    if std::env::var_os(CHILD).is_some() {
        let (main, cx) = (MainContext::new(), Context::new().unwrap());
        let _attached = attach(&cx, Some(&main)).unwrap();
        cx.defer(|_| panic!("on purpose"));
        main.iteration(true);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "own::g3_d9_a_panic_in_a_plain_main_loop_aborts",
        "--nocapture",
    ]);
    let ended = child.env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let signal = std::os::unix::process::ExitStatusExt::signal(&ended.status);
    assert_eq!(signal, Some(signal_hook::consts::SIGABRT), "{said}");
    assert!(said.contains("on purpose"), "{said}");
}
