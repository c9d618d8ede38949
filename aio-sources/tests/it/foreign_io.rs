//! Completions of file operations in a foreign loop (rule G2).

use std::cell::Cell;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::{Embedded, Operation, Submit, Wait};
use aio_sources::{FileIo, FileOperation};
use aio_testing::Bench;
use rustix::event::epoll;

/// An outer loop that waits on a set of its own.
struct Outer(OwnedFd);

impl Outer {
    fn new(embedded: &Embedded) -> Self {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(
            &set,
            embedded,
            epoll::EventData::new_u64(0),
            epoll::EventFlags::IN,
        )
        .unwrap();
        Self(set)
    }

    /// Returns whether the descriptor stays unreadable within the time.
    fn sleeps(&self, timeout: Duration) -> bool {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        let timeout = timeout.try_into().unwrap();
        let found = rustix::io::retry_on_intr(|| epoll::wait(&self.0, &mut events, Some(&timeout)));
        found.unwrap() == 0
    }

    /// Lets the inner loop run until it has nothing to do.
    fn settle(&self, embedded: &Embedded) {
        while embedded.prepare() == Some(Duration::ZERO) || !self.sleeps(Duration::ZERO) {
            embedded.check().unwrap();
            embedded.dispatch();
        }
    }
}

/// Submits a read of a pipe's first bytes, which waits for them. Returns it with the pipe.
fn waiting(io: &FileIo) -> (FileOperation, Rc<Cell<Option<Vec<u8>>>>, io::PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    let place = Rc::new(Cell::new(None));
    let read = place.clone();
    let operation = Operation::read(Arc::new(reader), None, vec![0; 16]);
    let handle = io.submit(operation, move |_, ended| read.set(ended.into_bytes().ok()));
    (handle.unwrap(), place, writer)
}

/// The descriptor of an embedded context shows completions: of operations from before the outer loop began,
/// and of others, executed by a ring or by threads.
#[test]
fn g2_a_completion_wakes_an_outer_loop_that_sleeps() {
    for (bench, on_threads) in [(Bench::URING, false), (Bench::URING, true), (Bench::EPOLL, false)] {
        let cx = bench.context();
        let io = if on_threads {
            FileIo::on_threads(&cx, "files", 4)
        } else {
            FileIo::new(&cx, "files", 4)
        };
        let has_ring = cx.backend_name() == "uring" && !on_threads;
        let mut operations = vec![waiting(&io)];
        let embedded = cx.embed().unwrap();
        let outer = Outer::new(&embedded);
        outer.settle(&embedded);
        operations.extend([(); 2].map(|()| waiting(&io)));
        let on_threads_now = io.on_threads_in_flight();
        assert_eq!(on_threads_now, if has_ring { 0 } else { 3 }, "{}", bench.name);
        for (handle, place, mut writer) in operations {
            outer.settle(&embedded);
            assert!(!handle.is_done());
            let written = std::thread::spawn(move || writer.write_all(b"four").map(|()| writer));
            while !handle.is_done() {
                let limit = embedded.prepare().unwrap_or(LONG).min(LONG);
                assert!(
                    !outer.sleeps(limit) || limit < LONG,
                    "{} {on_threads}",
                    bench.name
                );
                embedded.check().unwrap();
                embedded.dispatch();
            }
            assert_eq!(place.take().unwrap(), b"four");
            drop(written.join().unwrap().unwrap());
        }
    }
}

/// Rule G1: an operation that other code of the outer loop submits shortens its wait, also if that code runs after `prepare`.
#[test]
fn g1_s1_a_submission_after_prepare_wakes_the_outer_loop() {
    for bench in [Bench::URING, Bench::EPOLL] {
        let cx = bench.context();
        let io = FileIo::new(&cx, "files", 4);
        let embedded = cx.embed().unwrap();
        let outer = Outer::new(&embedded);
        for round in 0..20 {
            outer.settle(&embedded);
            let zeroes = Arc::new(std::fs::File::open("/dev/zero").unwrap());
            let read = Operation::read(zeroes, 0, vec![1; 8]);
            let place = Rc::new(Cell::new(None));
            let seen = place.clone();
            let handle = io.submit(read, move |_, ended| seen.set(ended.into_bytes().ok()));
            let handle = handle.unwrap();
            if round % 2 == 1 {
                // A poll of the inner context accepts the notification that woke the outer loop, and leaves nothing behind.
                while !handle.is_done() {
                    cx.poll(Wait::NoBlock).unwrap();
                }
            }
            let mut left = Some(LONG);
            while !handle.is_done() {
                // If an operation ends before `prepare`, the outer loop does not wait, instead of being
                // woken.
                assert!(
                    left == Some(Duration::ZERO) || !outer.sleeps(LONG),
                    "{}",
                    bench.name
                );
                embedded.check().unwrap();
                embedded.dispatch();
                left = embedded.prepare();
            }
            assert_eq!(place.take().unwrap(), [0; 8]);
        }
        outer.settle(&embedded);
        assert!(outer.sleeps(Duration::ZERO), "{}: nothing is left", bench.name);
    }
}

/// Rule G4: the operations of a context inside another one.
#[test]
fn g4_s1_operations_of_an_inner_context_end_in_the_outer_one() {
    for (outside, inside) in [(Bench::URING, Bench::URING), (Bench::EPOLL, Bench::URING)] {
        let (outer, inner) = (outside.context(), inside.context());
        let io = FileIo::new(&inner, "files", 4);
        let before = waiting(&io);
        let _inside = aio_sources::Nested::new(&outer, &inner).unwrap();
        let after = waiting(&io);
        for (handle, place, mut writer) in [before, after] {
            assert!(!handle.is_done());
            let written = std::thread::spawn(move || writer.write_all(b"four").map(|()| writer));
            while !handle.is_done() {
                outer.poll(Wait::Block).unwrap();
            }
            assert_eq!(place.take().unwrap(), b"four");
            drop(written.join().unwrap().unwrap());
        }
        assert_eq!((io.on_threads_in_flight(), inner.operations_in_flight()), (0, 0));
    }
}

/// Longer than anything in these tests.
const LONG: Duration = Duration::from_secs(60);
