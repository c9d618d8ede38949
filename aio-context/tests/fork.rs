//! A forked child that only drops what it has inherited (rule R15). The kernel's side of a context is shared with the parent.
//!
//! A test binary of its own, because a child has only the thread that forked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_backend_uring::Uring;
use aio_context::{Backend, ClockId, Context, Interest, PollParams, Registration, Wait};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Runs `body` in a child, and waits for it.
fn in_a_child(body: impl FnOnce()) {
    // SAFETY: the child runs only `body`, which drops values, and ends. These tests hold no lock of another thread, and the allocator
    // of the C library can be used after `fork`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: `_exit` ends the process without running any of its code.
            unsafe { nix::libc::_exit(i32::from(ended.is_err())) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
}

fn backends() -> Vec<Box<dyn Backend>> {
    let mut backends: Vec<Box<dyn Backend>> = vec![
        Box::new(Epoll::new().unwrap()),
        Box::new(Ppoll::new()),
        Box::new(Ladder::new(Ppoll::new(), Epoll::new, 0)),
    ];
    match Uring::new() {
        Ok(uring) => backends.push(Box::new(uring)),
        Err(error) => eprintln!("skipped: no io_uring: {error}"),
    }
    backends
}

fn contexts() -> impl Iterator<Item = Context> {
    backends()
        .into_iter()
        .map(|backend| Context::builder().backend(backend).build().unwrap())
}

/// A pipe whose reader counts its calls and reads a byte in each.
fn counting(cx: &Context, interest: Interest) -> (Registration, Rc<Cell<u32>>, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let calls = Rc::new(Cell::new(0));
    let counts = calls.clone();
    let on = cx.on(reader).interest(interest).ready(move |reader, _, _| {
        rustix::io::read(reader, &mut [0]).unwrap();
        counts.set(counts.get() + 1);
    });
    (on.watch().unwrap(), calls, writer)
}

#[test]
fn r15_a_child_that_drops_registrations_takes_nothing_from_the_parent() {
    for cx in contexts() {
        let interests = [
            Interest::READ,
            Interest::READ | Interest::EDGE,
            Interest::READ | Interest::ONESHOT,
        ];
        let mut all: Vec<_> = interests.map(|interest| counting(&cx, interest)).into();
        in_a_child(|| drop(std::mem::take(&mut all)));
        for (registration, calls, writer) in &mut all {
            assert!(registration.is_live());
            writer.write_all(b"x").unwrap();
            assert!(cx.poll(Wait::AtMost(Duration::from_secs(10))).unwrap(), "{cx:?}");
            assert_eq!(calls.get(), 1);
        }
        assert!(!cx.poll(Wait::NoBlock).unwrap());
    }
}

#[test]
fn r15_a_child_that_drops_the_context_takes_nothing_from_the_parent() {
    for cx in contexts() {
        let (registration, calls, mut writer) = counting(&cx, Interest::READ);
        let bh = cx.bottom_half("bottom half", |_| {});
        let timer = cx
            .timer(ClockId::Wall, |_, _| {})
            .armed_after(Duration::from_secs(3_600));
        cx.poll(Wait::AtMost(Duration::from_micros(1))).unwrap();
        let kept = (cx.clone(), cx.remote(), bh.clone());
        let slot = Cell::new(Some((cx, registration, bh, timer)));
        in_a_child(|| {
            drop(slot.take());
            drop(kept.clone());
        });
        let (cx, registration, bh, _timer) = slot.take().unwrap();
        writer.write_all(b"x").unwrap();
        assert!(cx.poll(Wait::AtMost(Duration::from_secs(10))).unwrap(), "{cx:?}");
        assert_eq!(calls.get(), 1);
        bh.schedule();
        assert!(cx.poll(Wait::NoBlock).unwrap());
        assert!(!cx.poll(Wait::NoBlock).unwrap());
        assert!(registration.is_live());
    }
}

#[test]
fn r15_a_child_that_drops_a_pause_ends_no_pause_of_the_parent() {
    for cx in contexts() {
        let group = cx.new_group();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let calls = Rc::new(Cell::new(0));
        let counts = calls.clone();
        let on = cx.on(reader).group(group);
        let on = on.readable(move |_, _| counts.set(counts.get() + 1));
        let _registration = on.watch().unwrap();
        let mut paused = Some(cx.pause(group));
        writer.write_all(b"x").unwrap();
        // The event masks the handler, so the end of the pause has to arm it.
        assert!(!cx.poll(Wait::NoBlock).unwrap());
        in_a_child(|| drop(paused.take()));
        let stats = cx.remote().stats();
        assert!(!cx.poll(Wait::AtMost(Duration::from_millis(5))).unwrap());
        let waits = cx.remote().stats().iterations - stats.iterations;
        assert!(
            waits <= 3,
            "{waits} iterations: the backend reports a handler that is paused"
        );
        assert_eq!(calls.get(), 0);
        drop(paused.take());
        assert!(cx.poll(Wait::NoBlock).unwrap());
        assert_eq!(calls.get(), 1);
    }
}

/// `poll_end` may enable the kicks of a peer through shared memory.
#[test]
fn r15_a_child_ends_no_poll_mode_of_the_parent() {
    for cx in contexts() {
        cx.set_poll_params(PollParams::up_to(Duration::from_millis(1)));
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (begun, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (begins, ends) = (begun.clone(), ended.clone());
        let has_work = Rc::new(Cell::new(false));
        let work = has_work.clone();
        let on = cx
            .on(reader)
            .polled(move |_| work.get())
            .poll_begin(move |_| begins.set(begins.get() + 1))
            .poll_end(move |_| ends.set(ends.get() + 1))
            .readable(|reader, _| _ = rustix::io::read(reader, &mut [0]));
        let mut registration = Some(on.watch().unwrap());
        while begun.get() == ended.get() {
            writer.write_all(b"x").unwrap();
            has_work.set(begun.get() > 0);
            cx.poll(Wait::AtMost(Duration::from_millis(2))).unwrap();
        }
        let before = ended.get();
        in_a_child(|| {
            drop(registration.take());
            drop(cx.clone());
            assert_eq!(ended.get(), before);
        });
        drop(registration.take());
        assert_eq!(ended.get(), before + 1);
    }
}

/// The child has a copy of the memory of a loop that sleeps. A write of the child would wake the parent's loop again and again, because
/// no thread of the parent has announced it.
#[test]
fn r15_a_child_does_not_wake_the_loop_of_the_parent() {
    let cx = Context::new().unwrap();
    let (remote, bh) = (cx.remote(), cx.bottom_half("bottom half", |_| {}));
    let home = std::fs::read_link("/proc/thread-self").unwrap();
    let state = std::path::Path::new("/proc").join(home).join("stat");
    let forks = std::thread::spawn(move || {
        while !std::fs::read_to_string(&state).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
        in_a_child(|| {
            bh.schedule();
            drop(bh.clone());
            remote.notify();
            assert!(remote.is_inherited());
        });
        assert!(!remote.is_inherited());
        remote.run(Context::stop).unwrap();
    });
    let before = cx.remote().stats().iterations;
    cx.run().unwrap();
    forks.join().unwrap();
    let iterations = cx.remote().stats().iterations - before;
    assert!(iterations < 10, "{iterations} iterations: the loop spins");
}

/// A context that the child makes itself works there.
#[test]
fn r15_a_child_has_contexts_of_its_own() {
    let inherited = Context::new().unwrap();
    let (registration, _, _writer) = counting(&inherited, Interest::READ);
    let slot = Cell::new(Some((inherited, registration)));
    in_a_child(|| {
        drop(slot.take());
        for cx in contexts() {
            let (registration, calls, mut writer) = counting(&cx, Interest::READ);
            writer.write_all(b"x").unwrap();
            assert!(cx.poll(Wait::NoBlock).unwrap());
            drop(registration);
            writer.write_all(b"x").unwrap_err();
            assert!(!cx.poll(Wait::NoBlock).unwrap());
            assert_eq!(calls.get(), 1);
        }
    });
}
