//! Operations on the ring of a context: when they are submitted, and their independence of handlers and pauses (rule S1).

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_backend_uring::Uring;
use aio_context::{Completed, Context, Interest, Operation, Policy, PollParams, ReadyList, Submit, Wait};
use aio_testing::{Bench, Count, Spoil, spoiled};

/// Returns a context on a ring; prints a `skipped` line if there is none.
fn on_ring(params: PollParams) -> Option<Context> {
    match Uring::new() {
        Ok(ring) => {
            // The context polls for as long as it may.
            let policy = Policy::by_name("fixed", params).unwrap();
            let builder = Context::builder().backend(Box::new(ring)).poll_params(params);
            Some(builder.policy(Box::new(policy)).build().unwrap())
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "skipped: no io_uring: {error}");
            None
        }
    }
}

fn zeroes() -> Arc<File> {
    Arc::new(File::open("/dev/zero").unwrap())
}

fn read(file: &Arc<File>) -> Operation {
    Operation::read(file.clone(), 0, vec![1; 8])
}

#[test]
fn s1_other_backends_give_operations_back() {
    for bench in [
        Bench::PPOLL,
        Bench::EPOLL,
        Bench::LADDER_AT_0,
        Bench::LADDER_AT_64,
    ] {
        let cx = bench.context();
        let file = zeroes();
        let token = Rc::new(());
        for _ in 0..3 {
            let kept = token.clone();
            let refused = cx.submit(read(&file), move |_, _| drop(kept)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
            assert!(refused.to_string().contains(cx.backend_name()), "{refused}");
            drop(refused);
            assert_eq!((Rc::strong_count(&token), Arc::strong_count(&file)), (1, 1));
        }
        // The refused operation leaves no handler.
        assert_eq!(
            format!("{cx:?}").matches("handlers: Some(0)").count(),
            1,
            "{cx:?}"
        );
        assert_eq!(cx.operations_in_flight(), 0);
    }
}

/// A group exists as long as its context, so a refused operation must not make one.
#[test]
fn s1_operations_that_are_refused_leave_no_groups() {
    let (cx, file) = (Bench::PPOLL.context(), zeroes());
    let refused = || assert!(cx.submit(read(&file), |_, _| ()).is_err());
    refused();
    let before = cx.new_group();
    (0..3).for_each(|_| refused());
    let groups = [before, cx.new_group()].map(|group| format!("{group:?}"));
    assert_eq!(groups, ["GroupId(2)", "GroupId(3)"]);
}

/// The usual way to get a ring, with a fallback to another backend.
#[cfg(feature = "uring")]
#[test]
fn s1_a_context_of_the_kind_uring_executes_operations() {
    let cx = Context::builder()
        .backend_kind(aio_context::BackendKind::Uring)
        .build()
        .unwrap();
    let done = Count::default();
    let ended = done.clone();
    let Ok(handle) = cx.submit(read(&zeroes()), move |_, completed: Completed| {
        assert_eq!(completed.into_bytes().unwrap(), [0; 8]);
        ended.up();
    }) else {
        assert_ne!(cx.backend_name(), "uring");
        return;
    };
    assert!(cx.poll(Wait::Block).unwrap());
    assert!(handle.is_done() && done.get() == 1);
}

/// The next wait passes the operations of a bottom half to the system, and their completions end it.
#[test]
fn s1_operations_that_are_submitted_in_callbacks_end_a_wait() {
    let Some(cx) = on_ring(PollParams::OFF) else {
        return;
    };
    let file = zeroes();
    let done = Rc::new(Cell::new(false));
    let ended = done.clone();
    cx.defer(move |cx| {
        let set = move |_: &Context, _: Completed| ended.set(true);
        cx.submit(read(&file), set).unwrap().detach();
    });
    while !done.get() {
        cx.poll(Wait::Block).unwrap();
    }
}

/// A loop that polls detects a completion while it polls. It neither sleeps nor leaves poll mode for this.
#[test]
fn s1_completions_are_seen_while_the_loop_polls() {
    let hour = Duration::from_secs(3600);
    let Some(cx) = on_ring(PollParams::up_to(hour).with_exclusive_core(true)) else {
        return;
    };
    let (reader, _writer) = io::pipe().unwrap();
    let ends = Count::default();
    let left = ends.clone();
    let _polled = cx
        .on(reader)
        .polled(|_| false)
        .readable(|_, _| unreachable!("nothing is written"))
        .poll_end(move |_| {
            left.up();
        })
        .watch()
        .unwrap();
    // One operation has to wait, and the other one has not.
    let (pipe, mut writer) = io::pipe().unwrap();
    let done = Count::default();
    for operation in [Operation::read(Arc::new(pipe), None, vec![0; 1]), read(&zeroes())] {
        let ended = done.clone();
        cx.submit(operation, move |_, completed: Completed| {
            assert!(completed.result.is_ok());
            ended.up();
        })
        .unwrap()
        .detach();
    }
    let writing = std::thread::spawn(move || {
        std::thread::yield_now();
        writer.write_all(b"x").unwrap();
        writer
    });
    let slept = cx.remote().stats().slept;
    while done.get() < 2 {
        cx.poll(Wait::Block).unwrap();
    }
    drop(writing.join().unwrap());
    assert_eq!((cx.remote().stats().slept, ends.get()), (slept, 0));
    cx.set_poll_params(PollParams::OFF);
}

/// Pausing all groups of the program does not pause completions, which belong to no group.
#[test]
fn s1_a_pause_of_handlers_leaves_operations_alone() {
    let Some(cx) = on_ring(PollParams::OFF) else {
        return;
    };
    let group = cx.new_group();
    let paused = [cx.pause(group), cx.pause(aio_context::GroupId::DEFAULT)];
    let handle = cx.submit(read(&zeroes()), |_, _| ()).unwrap();
    while !handle.is_done() {
        cx.poll(Wait::Block).unwrap();
    }
    drop(paused);
}

/// A handler that is registered after an operation was submitted, and the reverse, have different tokens and events.
#[test]
fn s1_handlers_and_operations_do_not_mix() {
    let Some(cx) = on_ring(PollParams::OFF) else {
        return;
    };
    let file = zeroes();
    for _ in 0..20 {
        let (reader, mut writer) = io::pipe().unwrap();
        let calls = Count::default();
        let called = calls.clone();
        let registration = cx
            .on(reader)
            .readable(move |_, _| {
                called.up();
            })
            .watch()
            .unwrap();
        let handle = cx.submit(read(&file), |_, _| ()).unwrap();
        while !handle.is_done() {
            cx.poll(Wait::Block).unwrap();
        }
        assert_eq!(calls.get(), 0);
        registration.set_interest(Interest::NONE).unwrap();
        writer.write_all(b"x").unwrap();
        registration.set_interest(Interest::READ).unwrap();
        cx.poll(Wait::Block).unwrap();
        assert_eq!(calls.get(), 1);
    }
    assert_eq!(cx.anomalies(), (0, 0));
}

/// A callback of a completion that exceeds the limit is reported, as one of a handler is.
#[test]
fn m2_a_slow_completion_is_reported() {
    let Some(cx) = on_ring(PollParams::OFF) else {
        return;
    };
    cx.set_slow_callback_limit(Some(Duration::ZERO));
    let warnings = aio_testing::warnings(|| {
        let slow = |cx: &Context, _: Completed| {
            let before = cx.now(aio_context::ClockId::Monotonic);
            while cx.now(aio_context::ClockId::Monotonic) == before {}
        };
        let handle = cx.submit(read(&zeroes()), slow).unwrap();
        while !handle.is_done() {
            cx.poll(Wait::Block).unwrap();
        }
    });
    assert!(
        warnings.iter().any(|line| line.contains("completion")),
        "{warnings:?}"
    );
}

#[test]
fn s1_a_dropped_context_drops_callbacks_and_buffers() {
    let Some(cx) = on_ring(PollParams::OFF) else {
        return;
    };
    let (reader, _writer) = io::pipe().unwrap();
    let (reader, token) = (Arc::new(reader), Rc::new(()));
    let mut handles = Vec::new();
    for _ in 0..3 {
        let kept = token.clone();
        let operation = Operation::read(reader.clone(), None, vec![0; 4]);
        handles.push(cx.submit(operation, move |_, _| drop(kept)).unwrap());
    }
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!((cx.operations_in_flight(), Arc::strong_count(&reader)), (3, 4));
    drop(cx);
    assert_eq!((Rc::strong_count(&token), Arc::strong_count(&reader)), (1, 1));
    for handle in handles {
        assert!(handle.is_done());
        handle.cancel();
    }
}

/// Records the timeouts of waits.
#[derive(Clone, Debug, Default)]
struct Timeouts(Rc<RefCell<Vec<Option<Duration>>>>);

impl Spoil for Timeouts {
    const NAME: &'static str = "recorded";

    fn wait(&mut self, timeout: &mut Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
        self.0.borrow_mut().push(*timeout);
        Ok(())
    }
}

/// A loop that has just served an event checks its descriptors for a moment before it blocks. If operations were submitted, one call
/// passes them to the system and blocks. A check before it would be one more call, and would keep the core from a thread that executes
/// the operations.
#[test]
fn s1_a_wait_that_submits_is_one_call() {
    let Ok(ring) = Uring::new() else {
        return println!("skipped: no io_uring");
    };
    let timeouts = Timeouts::default();
    let backend = spoiled(ring, timeouts.clone());
    let cx = Context::builder().backend(Box::new(backend)).build().unwrap();
    let (reader, mut writer) = io::pipe().unwrap();
    let done = Rc::new(Cell::new(false));
    let ends = || {
        let ended = done.clone();
        move || ended.set(true)
    };
    let is_readable = ends();
    let _registration = cx.on(reader).readable(move |_, _| is_readable()).watch().unwrap();
    for submits in [true, true, false] {
        done.set(false);
        let ended = ends();
        cx.defer(move |cx| {
            if submits {
                let ends = move |_: &Context, _: Completed| ended();
                cx.submit(read(&zeroes()), ends).unwrap().detach();
            }
        });
        assert!(cx.poll(Wait::NoBlock).unwrap(), "the bottom half has run");
        if !submits {
            writer.write_all(b"x").unwrap();
        }
        timeouts.0.borrow_mut().clear();
        while !done.get() {
            cx.poll(Wait::Block).unwrap();
        }
        let first = timeouts.0.borrow()[0];
        assert_eq!(first == Some(Duration::ZERO), !submits, "{submits}: {first:?}");
    }
}
