//! Signals as callbacks. Each is raised for the test's own thread alone.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use aio_context::Context;
use aio_sources::{IoThread, Received, Signal, Signals};
use aio_testing::{Bench, everywhere};
use nix::sys::signal::{SigSet, Signal as Known, raise};

everywhere! {
    r1_each_signal_is_received
    r8_signals_that_are_dropped_are_not_received
    r9_signals_that_their_callback_drops_are_not_received
    b5_signals_during_a_pause_are_received_after_it
}

/// Rule D10: a signal is a source that stops a loop.
#[test]
fn d10_a_signal_stops_run() {
    let cx = Context::new().unwrap();
    let _signals = Signals::new(&cx, &[Signal::USR2], |cx, _| cx.stop()).unwrap();
    raise(Known::SIGUSR2).unwrap();
    cx.run().unwrap();
}

type Log = Rc<RefCell<Vec<Received>>>;

fn watch(cx: &Context, signals: &[Signal], log: &Log) -> Signals {
    let log = log.clone();
    Signals::new(cx, signals, move |_, received| log.borrow_mut().push(received)).unwrap()
}

fn r1_each_signal_is_received(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let _signals = watch(&cx, &[Signal::USR1, Signal::USR2, Signal::TERM], &log);
    bench.settle(&cx);
    assert!(log.borrow().is_empty());
    for (known, signal) in [
        (Known::SIGTERM, Signal::TERM),
        (Known::SIGUSR1, Signal::USR1),
        (Known::SIGUSR2, Signal::USR2),
        (Known::SIGUSR1, Signal::USR1),
    ] {
        // The system merges those that come before the callback.
        raise(known).unwrap();
        raise(known).unwrap();
        assert!(bench.block(&cx));
        bench.settle(&cx);
        let received = log.take();
        assert_eq!(received.len(), 1);
        assert_eq!(
            (received[0].signal, received[0].process),
            (signal, std::process::id())
        );
    }
    raise(Known::SIGUSR1).unwrap();
    raise(Known::SIGUSR2).unwrap();
    bench.settle(&cx);
    assert_eq!(log.take().len(), 2);
}

fn r8_signals_that_are_dropped_are_not_received(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let signals = watch(&cx, &[Signal::USR1], &log);
    raise(Known::SIGUSR1).unwrap();
    drop(signals);
    bench.settle(&cx);
    assert!(log.borrow().is_empty());
    assert_eq!(Rc::strong_count(&log), 1, "the callback was dropped");
    // It is still blocked, and waits for the next one.
    let _signals = watch(&cx, &[Signal::USR1], &log);
    assert!(bench.block(&cx));
    assert_eq!(log.take()[0].signal, Signal::USR1);
}

fn r9_signals_that_their_callback_drops_are_not_received(bench: Bench) {
    let cx = bench.context();
    let own = Rc::new(RefCell::new(None));
    let (dropped, count) = (own.clone(), aio_testing::Count::default());
    let counted = count.clone();
    let signals = Signals::new(&cx, &[Signal::USR1, Signal::USR2], move |_, _| {
        counted.up();
        drop(dropped.take());
    });
    own.replace(Some(signals.unwrap()));
    raise(Known::SIGUSR1).unwrap();
    raise(Known::SIGUSR2).unwrap();
    bench.settle(&cx);
    assert_eq!(count.get(), 1);
}

#[test]
fn a_signal_that_cannot_be_received_is_refused() {
    let cx = Context::new().unwrap();
    for number in [0, -1, 9, 19, 34, 64, 1000] {
        let signals = [Signal::HUP, Signal::from_raw(number)];
        let why = Signals::new(&cx, &signals, |_, _| {}).unwrap_err();
        assert_eq!(why.kind(), ErrorKind::InvalidInput);
        assert!(why.to_string().contains(&format!("{:?}", signals[1])), "{why}");
    }
    let blocked = SigSet::thread_get_mask().unwrap();
    assert!(!blocked.contains(Known::SIGHUP), "nothing is blocked for nothing");
}

#[test]
fn signals_that_were_blocked_first_are_received_on_another_thread() {
    Signals::block(&[Signal::USR2]).unwrap();
    let io = IoThread::spawn(|_| Ok(())).unwrap();
    let is_blocked = |_: &Context| SigSet::thread_get_mask().unwrap().contains(Known::SIGUSR2);
    assert!(
        io.remote().run_and_wait(is_blocked).unwrap(),
        "the thread inherits it"
    );
    assert!(Signals::block(&[Signal::from_raw(9)]).is_err());
}

#[test]
fn signals_have_names_and_numbers() {
    for (signal, number, name) in [
        (Signal::HUP, 1, "SIGHUP"),
        (Signal::INT, 2, "SIGINT"),
        (Signal::QUIT, 3, "SIGQUIT"),
        (Signal::USR1, 10, "SIGUSR1"),
        (Signal::USR2, 12, "SIGUSR2"),
        (Signal::TERM, 15, "SIGTERM"),
        (Signal::CHLD, 17, "SIGCHLD"),
        (Signal::WINCH, 28, "SIGWINCH"),
        (Signal::from_raw(40), 40, "signal 40"),
    ] {
        assert_eq!((signal.as_raw(), format!("{signal:?}").as_str()), (number, name));
    }
}

fn b5_signals_during_a_pause_are_received_after_it(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let (group, received) = (cx.new_group(), log.clone());
    let receive = move |_: &Context, one| received.borrow_mut().push(one);
    let _signals = Signals::new_in(&cx, group, &[Signal::USR1, Signal::USR2], receive).unwrap();
    for _ in 0..2 {
        let paused = [cx.pause(group), cx.pause(group)];
        raise(Known::SIGUSR1).unwrap();
        raise(Known::SIGUSR2).unwrap();
        for pause in paused {
            assert!(!bench.check(&cx));
            assert!(log.borrow().is_empty());
            drop(pause);
        }
        bench.settle(&cx);
        let signals: Vec<_> = log.take().iter().map(|received| received.signal).collect();
        assert_eq!(signals, [Signal::USR1, Signal::USR2]);
    }
}

/// A pause by the callback for the first signal keeps the second one pending.
#[test]
fn b5_a_pause_by_a_callback_ends_the_row() {
    let (cx, log) = (Context::new().unwrap(), Log::default());
    let (group, received) = (cx.new_group(), log.clone());
    let paused = Rc::new(RefCell::new(None));
    let pause = paused.clone();
    let receive = move |cx: &Context, one| {
        received.borrow_mut().push(one);
        pause.replace(Some(cx.pause(group)));
    };
    let _signals = Signals::new_in(&cx, group, &[Signal::USR1, Signal::USR2], receive).unwrap();
    raise(Known::SIGUSR1).unwrap();
    raise(Known::SIGUSR2).unwrap();
    for served in 1..=2 {
        Bench::EPOLL.settle(&cx);
        assert_eq!(log.borrow().len(), served);
        drop(paused.take());
    }
}
