//! A forked child that only drops what it has inherited (rule R15): it waits for no thread of the parent.
//!
//! A test binary of its own, because a child has only the thread that forked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::Cell;
use std::net::TcpListener;
use std::process::Command;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use aio_context::{Context, Wait};
use aio_sources::{
    Channel, ChildExit, DoorbellBoard, Event, Interval, IoThread, Listener, WakeCalibration, WakeRefinement,
    WorkerPool,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Drops a value in a child, and waits for the child. The parent keeps the value.
fn drop_in_a_child<T>(value: T) -> T {
    // SAFETY: the child only drops a value, and ends. The threads of these tests wait, and hold no lock that the drop needs.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(value)));
            // SAFETY: `_exit` ends the process without running any of its code.
            unsafe { nix::libc::_exit(i32::from(dropped.is_err())) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            value
        }
    }
}

fn until(cx: &Context, mut is_done: impl FnMut() -> bool) {
    while !is_done() {
        cx.poll(Wait::Block).unwrap();
    }
}

#[test]
fn r15_a_child_waits_for_no_thread_of_the_parent() {
    let cx = Context::new().unwrap();
    let io = IoThread::spawn(|_cx| Ok(())).unwrap();
    let io = drop_in_a_child(io);
    assert_eq!(io.remote().run_and_wait(|_cx| 5), Ok(5));
    io.stop().unwrap();

    let refinement = WakeRefinement::start(WakeCalibration::start().unwrap(), &cx.remote()).unwrap();
    drop(drop_in_a_child(refinement));

    let pool = WorkerPool::new(&cx, "work", 2);
    let (began, has_begun) = mpsc::channel();
    let (open, opened) = mpsc::channel::<()>();
    let done = Rc::new(Cell::new(0));
    for _ in 0..2 {
        let (began, counted) = (began.clone(), done.clone());
        let count = move |_: &Context, _| counted.set(counted.get() + 1);
        pool.run(move || began.send(()), count).unwrap();
    }
    (0..2).for_each(|_| has_begun.recv().unwrap());
    let counted = done.clone();
    let count = move |_: &Context, _| counted.set(counted.get() + 1);
    pool.run(move || opened.recv(), count).unwrap();
    let pool = drop_in_a_child(pool);
    open.send(()).unwrap();
    until(&cx, || done.get() == 3);
    drop(pool);
}

#[test]
fn r15_a_child_that_drops_sources_takes_nothing_from_the_parent() {
    let cx = Context::new().unwrap();
    let done = Rc::new(Cell::new(0));
    let counter = || {
        let counted = done.clone();
        move || counted.set(counted.get() + 1)
    };
    let (rung, sent, ticked, accepted, ended) = (counter(), counter(), counter(), counter(), counter());
    let board = DoorbellBoard::new(&cx, 1, move |_, _| rung());
    let bell = board.bell(0);
    let (sender, channel) = Channel::new(&cx, move |_, event| {
        if event == Event::Value(7) {
            sent();
        }
    });
    let interval = Interval::new(&cx, Duration::from_secs(3600), move |_, _| ticked());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::new(&cx, socket, move |_, _, _| accepted()).unwrap();
    let process = Command::new("true").spawn().unwrap();
    let exit = ChildExit::new(&cx, process, move |_, status| {
        assert!(status.unwrap().success());
        ended();
    });
    let kept = drop_in_a_child((board, channel, interval, listener, exit.unwrap()));
    bell.ring();
    sender.send(7).unwrap();
    let _client = std::net::TcpStream::connect(address).unwrap();
    until(&cx, || done.get() == 4);
    drop(kept);
}
