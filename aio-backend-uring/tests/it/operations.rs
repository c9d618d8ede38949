//! Operations: their execution by the kernel, and the ownership of their buffers.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aio_backend::{
    Allocation, Backend, Buffers, Completed, Operation, Peek, Readiness, ReadyList, Token, TransferFlags,
};
use aio_backend_uring::{Config, ForeignMemory, Uring};
use rustix::io::Errno;

use crate::kit::{A, B, IN, backends, check, doorbell, read, ring, seeing, wait, watch};

const REPORT: Token = Token::new(7, 3);

/// A file without a name.
fn file(contents: &[u8]) -> Arc<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("operations", flags).unwrap());
    file.write_all(contents).unwrap();
    Arc::new(file)
}

/// Waits until an operation has ended. No descriptor becomes ready in this time.
fn next(backend: &mut Uring) -> (Token, Completed) {
    loop {
        if let Some(next) = backend.next_completed() {
            return next;
        }
        let mut ready = ReadyList::new();
        backend.wait(Some(Duration::from_secs(60)), &mut ready).unwrap();
        assert_eq!(ready.iter().collect::<Vec<_>>(), [(REPORT, IN)]);
    }
}

fn submit(backend: &mut Uring, operation: Operation) -> Token {
    backend.submit(REPORT, operation).unwrap()
}

fn errno(completed: &Completed) -> Option<Errno> {
    completed.result.as_ref().err().and_then(Errno::from_io_error)
}

/// The owner of a descriptor, or of memory. It counts the remaining owners.
struct Counted<T>(T, Arc<AtomicUsize>);

impl<T> Counted<T> {
    fn new(inner: T, left: &Arc<AtomicUsize>) -> Self {
        left.fetch_add(1, Ordering::Relaxed);
        Self(inner, left.clone())
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: AsFd> AsFd for Counted<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[test]
fn s1_each_kind_of_operation_does_what_its_system_call_does() {
    for mut backend in backends() {
        let file = file(b"0123456789");
        submit(&mut backend, Operation::read(file.clone(), 2, vec![0; 4]));
        assert_eq!(next(&mut backend).1.into_bytes().unwrap(), b"2345");
        // At the end of the file.
        submit(&mut backend, Operation::read(file.clone(), 8, vec![0; 4]));
        assert_eq!(next(&mut backend).1.into_bytes().unwrap(), b"89");
        submit(&mut backend, Operation::read(file.clone(), 10, vec![0; 4]));
        assert_eq!(next(&mut backend).1.result.unwrap(), 0);
        let buffers = vec![b"ab".to_vec(), Vec::new(), b"cde".to_vec()];
        submit(&mut backend, Operation::write(file.clone(), 1, buffers));
        let (_, mut written) = next(&mut backend);
        assert_eq!(written.result.unwrap(), 5);
        assert!(matches!(written.operation.take_buffers(), Buffers::Many(all) if all[2] == b"cde"));
        drop(written.operation);
        let flags = TransferFlags::DSYNC;
        submit(
            &mut backend,
            Operation::write(file.clone(), 12, b"x".to_vec()).with_flags(flags),
        );
        assert_eq!(next(&mut backend).1.result.unwrap(), 1);
        submit(
            &mut backend,
            Operation::read(file.clone(), 0, vec![vec![9; 3], vec![9; 20]]),
        );
        let (_, mut all) = next(&mut backend);
        assert_eq!(all.result.unwrap(), 13);
        let buffers = all.operation.take_buffers();
        drop(all.operation);
        let Buffers::Many(all) = buffers else {
            panic!("other buffers")
        };
        assert_eq!(
            (&all[0][..], &all[1][..11]),
            (&b"0ab"[..], &b"cde6789\0\0x\x09"[..])
        );
        for sync in [
            Operation::sync_all(file.clone()),
            Operation::sync_data(file.clone()),
        ] {
            submit(&mut backend, sync);
            assert_eq!(next(&mut backend).1.result.unwrap(), 0);
        }
        submit(
            &mut backend,
            Operation::allocate(file.clone(), Allocation::Reserve, 0, 100),
        );
        assert_eq!(next(&mut backend).1.result.unwrap(), 0);
        assert_eq!(file.metadata().unwrap().len(), 100);
        submit(&mut backend, Operation::size(file.clone()));
        assert_eq!(next(&mut backend).1.result.unwrap(), 100);
        submit(
            &mut backend,
            Operation::allocate(file.clone(), Allocation::PunchHole, 0, 4096),
        );
        assert_eq!(next(&mut backend).1.result.unwrap(), 0);
        submit(&mut backend, Operation::read(file.clone(), 0, vec![1; 200]));
        assert_eq!(next(&mut backend).1.into_bytes().unwrap(), [0; 100]);
        assert_eq!((backend.in_flight(), Arc::strong_count(&file)), (0, 1));
    }
}

#[test]
fn s1_errors_are_those_of_the_system_calls() {
    for mut backend in backends() {
        let full = Arc::new(File::options().write(true).open("/dev/full").unwrap());
        submit(&mut backend, Operation::write(full.clone(), 0, vec![1; 512]));
        let (_, completed) = next(&mut backend);
        assert_eq!(errno(&completed), Some(Errno::NOSPC));
        assert_eq!(completed.operation.buffers().and_then(Buffers::len), Some(512));
        submit(&mut backend, Operation::read(full, 0, vec![1; 512]));
        assert_eq!(
            errno(&next(&mut backend).1),
            Some(Errno::BADF),
            "it is open for writing only"
        );
        let (pipe, _writer) = io::pipe().unwrap();
        let pipe = Arc::new(pipe);
        submit(&mut backend, Operation::sync_all(pipe.clone()));
        assert_eq!(errno(&next(&mut backend).1), Some(Errno::INVAL));
        submit(
            &mut backend,
            Operation::allocate(pipe.clone(), Allocation::Reserve, 0, 1),
        );
        assert!(errno(&next(&mut backend).1).is_some());
        let nowait = Operation::read(pipe, None, vec![0; 1]).with_flags(TransferFlags::NOWAIT);
        submit(&mut backend, nowait);
        assert_eq!(errno(&next(&mut backend).1), Some(Errno::AGAIN));
    }
}

/// Completions are level-triggered like descriptors, and as cheap to check.
#[test]
fn s1_completions_are_reported_until_they_are_taken() {
    let Some(mut backend) = seeing() else { return };
    let bell = doorbell();
    watch(&mut backend, &bell, A);
    assert_eq!(check(&mut backend), []);
    let enters = backend.enters();
    let file = file(b"x");
    let tokens = [0, 1].map(|at| submit(&mut backend, Operation::read(file.clone(), at, vec![0; 1])));
    assert_eq!(backend.enters(), enters, "they are submitted with the next enter");
    assert_eq!(backend.peek(&mut ReadyList::new()).unwrap(), Peek::Pending);
    while check(&mut backend) != [(REPORT, IN)] {}
    for _ in 0..5 {
        assert_eq!(backend.peek(&mut ReadyList::new()).unwrap(), Peek::Pending);
        assert_eq!(check(&mut backend), [(REPORT, IN)]);
        assert_eq!(wait(&mut backend, Duration::from_secs(60), 64), [(REPORT, IN)]);
    }
    ring(&bell);
    for _ in 0..3 {
        let mut seen = check(&mut backend);
        seen.sort_by_key(|(token, _)| *token);
        assert_eq!(seen, [(A, IN), (REPORT, IN)]);
        assert_eq!(backend.peek(&mut ReadyList::new()).unwrap(), Peek::Pending);
    }
    read(&bell);
    // With a full list, neither is left out for ever.
    ring(&bell);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.extend(wait(&mut backend, Duration::ZERO, 1));
    }
    assert!(
        seen.contains(&(A, IN)) || seen.contains(&(REPORT, IN)),
        "{seen:?}"
    );
    read(&bell);
    let mut taken = vec![next(&mut backend).0, next(&mut backend).0];
    taken.sort();
    assert_eq!(taken, tokens);
    assert_eq!(check(&mut backend), []);
    let enters = backend.enters();
    assert_eq!(backend.peek(&mut ReadyList::new()).unwrap(), Peek::Checked);
    assert_eq!(check(&mut backend), []);
    assert_eq!(backend.enters(), enters);
}

#[test]
fn s1_a_short_list_starves_neither_descriptors_nor_completions() {
    for mut backend in backends() {
        let bells = [A, B].map(|token| {
            let bell = doorbell();
            watch(&mut backend, &bell, token);
            ring(&bell);
            bell
        });
        let file = file(b"x");
        for _ in 0..5 {
            submit(&mut backend, Operation::read(file.clone(), 0, vec![0; 1]));
        }
        let mut seen = Vec::new();
        let mut waits = 0;
        while ![A, B, REPORT].iter().all(|one| seen.contains(&(*one, IN))) {
            seen.extend(wait(&mut backend, Duration::from_secs(10), 1));
            waits += 1;
            if seen.last() == Some(&(REPORT, IN)) {
                while backend.next_completed().is_some() {}
                submit(&mut backend, Operation::read(file.clone(), 0, vec![0; 1]));
            }
            assert!(waits < 10_000_000, "{backend:?}");
        }
        drop(bells);
    }
}

#[test]
fn s1_a_cancelled_operation_ends_and_gives_its_buffer_back() {
    for mut backend in backends() {
        let (reader, mut writer) = io::pipe().unwrap();
        let reader = Arc::new(reader);
        let token = submit(&mut backend, Operation::read(reader.clone(), None, vec![0; 16]));
        // The operation is in the kernel and waits for data.
        assert_eq!(check(&mut backend), []);
        assert_eq!(backend.in_flight(), 1);
        backend.cancel(token);
        let (ended, completed) = next(&mut backend);
        assert_eq!((ended, errno(&completed)), (token, Some(Errno::CANCELED)));
        assert_eq!(completed.operation.buffers().and_then(Buffers::len), Some(16));
        // The cancellation affects no ended operation, no unknown one, and no later one in the same slot.
        let token = submit(&mut backend, Operation::read(reader.clone(), None, vec![0; 16]));
        assert_eq!(token.index(), ended.index());
        backend.cancel(ended);
        backend.cancel(Token::new(99, 0));
        assert_eq!(check(&mut backend), []);
        writer.write_all(b"data").unwrap();
        assert_eq!(next(&mut backend).1.into_bytes().unwrap(), b"data");
        // The operation is cancelled before it is submitted.
        let token = submit(&mut backend, Operation::read(reader, None, vec![0; 16]));
        backend.cancel(token);
        let (ended, completed) = next(&mut backend);
        assert_eq!((ended, errno(&completed)), (token, Some(Errno::CANCELED)));
    }
}

/// More operations than entries of both queues. Most of them end only when they are cancelled.
#[test]
fn s1_more_operations_than_the_queues_have_entries() {
    const COUNT: usize = 10_000;
    let config = Config::new().submissions(8).completions(8);
    let Some(mut backend) = crate::kit::available(Uring::with_config(config)) else {
        return;
    };
    let (reader, _writer) = io::pipe().unwrap();
    let reader = Arc::new(reader);
    let hanging = [(); 100].map(|()| submit(&mut backend, Operation::read(reader.clone(), None, vec![0; 1])));
    let contents: Vec<u8> = (0..COUNT * 4).map(|at| (at / 4 % 251) as u8).collect();
    let file = file(&contents);
    let mut waiting: std::collections::HashMap<Token, usize> = (0..COUNT)
        .map(|at| {
            (
                submit(
                    &mut backend,
                    Operation::read(file.clone(), 4 * at as u64, vec![0; 4]),
                ),
                at,
            )
        })
        .collect();
    assert_eq!(waiting.len(), COUNT);
    while !waiting.is_empty() {
        let (token, completed) = next(&mut backend);
        let at = waiting.remove(&token).expect("each ends once");
        assert_eq!(completed.into_bytes().unwrap(), [(at % 251) as u8; 4]);
    }
    assert_eq!(backend.in_flight(), hanging.len());
    hanging.iter().for_each(|token| backend.cancel(*token));
    for _ in hanging {
        assert_eq!(errno(&next(&mut backend).1), Some(Errno::CANCELED));
    }
    assert_eq!((backend.in_flight(), Arc::strong_count(&reader)), (0, 1));
}

/// The kernel must not write to freed memory, so a dropped ring waits for the kernel.
#[test]
fn s1_a_dropped_backend_lets_go_of_everything_after_the_kernel_has() {
    for mut backend in backends() {
        let left = Arc::new(AtomicUsize::new(0));
        let (reader, mut writer) = io::pipe().unwrap();
        let reader = Arc::new(Counted::new(reader, &left));
        let mut page = vec![5_u8; 64];
        for chunk in page.chunks_mut(16) {
            // SAFETY: the page lives, and is not accessed, until the backend is dropped, which cancels the operation.
            let memory =
                unsafe { ForeignMemory::new(Counted::new((), &left), [(chunk.as_mut_ptr(), chunk.len())]) };
            submit(
                &mut backend,
                Operation::read(reader.clone(), None, Buffers::from(memory)),
            );
        }
        assert_eq!(check(&mut backend), []);
        drop(reader);
        assert_eq!(left.load(Ordering::Relaxed), 5);
        drop(backend);
        assert_eq!(left.load(Ordering::Relaxed), 0);
        assert_eq!(page, [5; 64]);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn s1_all_operations_can_be_ended_and_descriptors_stay() {
    for mut backend in backends() {
        let bell = doorbell();
        watch(&mut backend, &bell, A);
        let (reader, _writer) = io::pipe().unwrap();
        let reader = Arc::new(reader);
        let file = file(b"x");
        submit(&mut backend, Operation::read(file, 0, vec![0; 1]));
        for _ in 0..20 {
            submit(&mut backend, Operation::read(reader.clone(), None, vec![0; 1]));
        }
        assert!(check(&mut backend).iter().all(|event| *event == (REPORT, IN)));
        ring(&bell);
        backend.end_operations();
        let ended: Vec<_> = std::iter::from_fn(|| backend.next_completed()).collect();
        assert_eq!((ended.len(), backend.in_flight()), (21, 0));
        drop(ended);
        assert_eq!(Arc::strong_count(&reader), 1);
        assert_eq!(check(&mut backend), [(A, IN)]);
        read(&bell);
        assert_eq!(check(&mut backend), []);
        submit(&mut backend, Operation::read(reader, None, vec![0; 1]));
        assert_eq!(check(&mut backend), []);
    }
}

/// The pieces of memory of another owner, in any number, for reads and writes.
#[test]
fn s1_foreign_memory_is_read_and_written_in_place() {
    for mut backend in backends() {
        let file = file(b"0123456789");
        let cells: Vec<Cell<u8>> = vec![Cell::new(b'-'); 12];
        let first = cells.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: both pieces are cells with only shared references, and outlive the backend.
        let memory =
            |at: usize| unsafe { ForeignMemory::new((), [(first.add(at), 3), (first.add(at + 4), 2)]) };
        submit(
            &mut backend,
            Operation::read(file.clone(), 0, Buffers::from(memory(1))),
        );
        assert_eq!(next(&mut backend).1.result.unwrap(), 5);
        let seen: Vec<u8> = cells.iter().map(Cell::get).collect();
        assert_eq!(seen, b"-012-34-----");
        submit(
            &mut backend,
            Operation::write(file.clone(), 5, Buffers::from(memory(0))),
        );
        assert_eq!(next(&mut backend).1.result.unwrap(), 5);
        let mut contents = String::new();
        (&*file).seek_to_start().read_to_string(&mut contents).unwrap();
        assert_eq!(contents, "01234-01-3");
        drop(backend);
    }
}

trait Rewound {
    fn seek_to_start(self) -> Self;
}

impl Rewound for &File {
    fn seek_to_start(mut self) -> Self {
        io::Seek::rewind(&mut self).unwrap();
        self
    }
}

/// Removals of registrations and of operations are never confused.
#[test]
fn s1_operations_and_descriptors_share_the_ring() {
    let mut random = fastrand::Rng::with_seed(seed());
    for mut backend in backends() {
        let contents: Vec<u8> = (0..4096).map(|at| (at % 251) as u8).collect();
        let file = file(&contents);
        let bells: Vec<_> = (0..5).map(|_| doorbell()).collect();
        let mut watched = [false; 5];
        let mut rung = [false; 5];
        let mut waiting = std::collections::HashMap::new();
        for step in 0..2_000 {
            let one = random.usize(..5);
            let token = Token::new(one as u32, 0);
            match random.u32(..6) {
                0 if watched[one] => {
                    backend.remove(token).unwrap();
                    watched[one] = false;
                }
                0 => {
                    watch(&mut backend, &bells[one], token);
                    watched[one] = true;
                }
                1 if rung[one] => {
                    read(&bells[one]);
                    rung[one] = false;
                }
                1 => {
                    ring(&bells[one]);
                    rung[one] = true;
                }
                2 | 3 => {
                    let (at, len) = (random.usize(..4096), random.usize(1..100));
                    let token = submit(
                        &mut backend,
                        Operation::read(file.clone(), at as u64, vec![0; len]),
                    );
                    assert!(waiting.insert(token, (at, len)).is_none());
                }
                _ => {
                    let seen: Vec<(Token, Readiness)> = check(&mut backend);
                    for index in 0..5 {
                        let is_reported = seen.contains(&(Token::new(index as u32, 0), IN));
                        assert_eq!(
                            is_reported,
                            watched[index] && rung[index],
                            "{index} in step {step}: {seen:?}, {backend:?}"
                        );
                    }
                    while let Some((token, completed)) = backend.next_completed() {
                        let (at, len) = waiting.remove(&token).expect("each ends once");
                        let end = contents.len().min(at + len);
                        assert_eq!(completed.into_bytes().unwrap(), contents[at..end]);
                    }
                }
            }
        }
        while backend.in_flight() > 0 {
            backend
                .wait(Some(Duration::from_secs(10)), &mut ReadyList::new())
                .unwrap();
            while let Some((token, _)) = backend.next_completed() {
                assert!(waiting.remove(&token).is_some());
            }
        }
        assert!(waiting.is_empty());
    }
}

fn seed() -> u64 {
    let seed = std::env::var("AIO_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}");
    seed
}

#[test]
fn s1_an_operation_is_no_registration() {
    for mut backend in backends() {
        let (reader, _writer) = io::pipe().unwrap();
        let reader = Arc::new(reader);
        submit(&mut backend, Operation::read(reader.clone(), None, vec![0; 4]));
        assert_eq!((Arc::strong_count(&reader), backend.watched()), (2, 0));
        backend.visit(&mut |_, _, _| unreachable!("no descriptor is registered"));
        backend.drain(&mut |_, _, _| unreachable!("no descriptor is registered"));
        assert_eq!((Arc::strong_count(&reader), backend.in_flight()), (2, 1));
    }
}
