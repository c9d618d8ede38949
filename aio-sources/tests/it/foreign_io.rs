//! Completions of file operations in a foreign loop (rule G2).

use std::cell::Cell;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::{Embedded, Operation, Submit};
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

    /// Whether the descriptor becomes readable within the time.
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

/// A pipe, and the read of its first bytes, which waits for them.
fn waiting(io: &FileIo) -> (FileOperation, Rc<Cell<Option<Vec<u8>>>>, io::PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    let place = Rc::new(Cell::new(None));
    let read = place.clone();
    let operation = Operation::read(Arc::new(reader), None, vec![0; 16]);
    let handle = io.submit(operation, move |_, ended| read.set(ended.into_bytes().ok()));
    (handle.unwrap(), place, writer)
}

/// The descriptor of an embedded context stands for completions: of operations that threads execute since before the outer loop began, and
/// of others. A context on a ring passes its operations to threads from then on.
#[test]
fn g2_a_completion_wakes_an_outer_loop_that_sleeps() {
    for (bench, on_threads) in [(Bench::URING, false), (Bench::URING, true), (Bench::EPOLL, false)] {
        let cx = bench.context();
        let io = if on_threads {
            FileIo::on_threads(&cx, "files", 4)
        } else {
            FileIo::new(&cx, "files", 4)
        };
        let is_cancelled = cx.backend_name() == "uring" && !on_threads;
        let mut operations = Vec::new();
        if !is_cancelled {
            operations.push(waiting(&io));
        }
        let embedded = cx.embed().unwrap();
        let outer = Outer::new(&embedded);
        outer.settle(&embedded);
        operations.extend([(); 2].map(|()| waiting(&io)));
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

/// Nothing takes so long.
const LONG: Duration = Duration::from_secs(60);
