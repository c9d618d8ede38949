//! Signals as callbacks. Each is raised for the test's own thread alone.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use aio_context::Context;
use aio_sources::{IoThread, Received, Signal, Signals};
use aio_testing::{Bench, everywhere};
use nix::libc;
use nix::sys::signal::{SigSet, Signal as Known, raise};

everywhere! {
    r1_each_signal_is_received
    r8_signals_that_are_dropped_are_not_received
    r9_signals_that_their_callback_drops_are_not_received
    b5_signals_during_a_pause_are_received_after_it
    r1_real_time_signals_are_queued_with_their_values
    r1_real_time_signals_and_others_have_one_source
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
        // The system merges signals that arrive before the callback.
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
    // The signal is still blocked, and waits for the next `Signals`.
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
    // 32 and 33 belong to the C library.
    for number in [0, -1, 9, 19, 32, 33, 65, 1000, i32::MAX] {
        for other in [Signal::HUP, Signal::realtime(0).unwrap()] {
            let signals = [other, Signal::from_raw(number)];
            let why = Signals::new(&cx, &signals, |_, _| {}).unwrap_err();
            assert_eq!(why.kind(), ErrorKind::InvalidInput);
            assert!(why.to_string().contains(&format!("{:?}", signals[1])), "{why}");
        }
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
        (Signal::from_raw(32), 32, "signal 32"),
        (Signal::from_raw(65), 65, "signal 65"),
        (Signal::realtime(0).unwrap(), libc::SIGRTMIN(), "SIGRTMIN+0"),
        (Signal::realtime(6).unwrap(), libc::SIGRTMIN() + 6, "SIGRTMIN+6"),
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

#[test]
fn real_time_signals_end_at_sigrtmax() {
    let last = (0..).map_while(Signal::realtime).last().unwrap();
    assert_eq!(last.as_raw(), libc::SIGRTMAX());
    assert_eq!(Signal::realtime(u32::MAX), None);
    assert!(last.is_realtime() && !Signal::USR1.is_realtime());
    assert!(!Signal::from_raw(libc::SIGRTMAX() + 1).is_realtime());
}

/// Sends a signal with a value to this thread alone.
fn queue(signal: Signal, value: i32) {
    let mut sent = libc::sigval {
        sival_ptr: std::ptr::null_mut(),
    };
    // The value is the beginning of the union.
    let low = u32::from_ne_bytes(value.to_ne_bytes());
    sent.sival_ptr = std::ptr::without_provenance_mut(if cfg!(target_endian = "little") {
        low as usize
    } else {
        (low as usize) << (usize::BITS - u32::BITS)
    });
    // SAFETY: the thread is this one, which is alive; the value is not a pointer that is read.
    let error = unsafe { libc::pthread_sigqueue(libc::pthread_self(), signal.as_raw(), sent) };
    assert_eq!(error, 0);
}

fn r1_real_time_signals_are_queued_with_their_values(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let [first, second] = [1, 2].map(|index| Signal::realtime(index).unwrap());
    let signals = watch(&cx, &[second, first], &log);
    bench.settle(&cx);
    assert!(log.borrow().is_empty());
    for value in 0..100 {
        queue(second, value);
        queue(first, -value);
    }
    bench.settle(&cx);
    let received = log.take();
    let values = |signal| {
        let of_it = received.iter().filter(move |one| one.signal == signal);
        of_it.map(|one| one.value.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(values(first), (0..100).map(|value| -value).collect::<Vec<_>>());
    assert_eq!(values(second), (0..100).collect::<Vec<_>>());
    assert!(received.iter().all(|one| one.process == std::process::id()));
    assert!(
        received.is_sorted_by_key(|one| one.signal.as_raw()),
        "lower numbers first"
    );
    // Signals that were not received stay queued.
    queue(first, 1);
    queue(first, 2);
    drop(signals);
    bench.settle(&cx);
    assert!(log.borrow().is_empty());
    let _signals = watch(&cx, &[first], &log);
    bench.settle(&cx);
    let values: Vec<_> = log.take().iter().map(|received| received.value).collect();
    assert_eq!(values, [Some(1), Some(2)]);
}

fn r1_real_time_signals_and_others_have_one_source(bench: Bench) {
    let (cx, log) = (bench.context(), Log::default());
    let realtime = Signal::realtime(3).unwrap();
    let _signals = watch(&cx, &[realtime, Signal::USR1], &log);
    queue(realtime, 7);
    queue(Signal::USR1, i32::MIN);
    bench.settle(&cx);
    raise(Known::SIGUSR1).unwrap();
    bench.settle(&cx);
    let received: Vec<_> = log.take().iter().map(|one| (one.signal, one.value)).collect();
    let expected = [
        (Signal::USR1, Some(i32::MIN)),
        (realtime, Some(7)),
        (Signal::USR1, None),
    ];
    assert_eq!(received, expected);
}
