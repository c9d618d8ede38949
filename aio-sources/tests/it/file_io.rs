//! File operations, on the ring of a context and on threads: the same results, the same rules.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aio_backend_uring::Uring;
use aio_context::{Allocation, Buffers, Completed, Context, Operation, Submit, TransferFlags, Wait};
use aio_sources::{FileIo, FileOperation};
use aio_testing::{Bench, Count, Spoil, spoiled, thoroughly};

thoroughly! {
    s2_each_operation_does_what_its_system_call_does
    s2_errors_come_with_the_buffers
    s2_no_offset_means_another_place
    s2_a_file_without_positions_ignores_the_offset
    s2_more_buffers_than_the_system_takes_are_a_short_transfer
    s2_ten_thousand_operations_end_once_each
    s2_completions_are_delivered_in_nested_polls
    s2_a_completion_may_submit_and_drop_anything
    s2_a_dropped_handle_cancels
    s2_a_cancelled_operation_is_delivered
    s2_a_detached_operation_goes_on
    s2_an_operation_that_hangs_delays_no_other
    s2_a_file_behaves_as_its_model
    s1_a_context_that_is_dropped_lets_go_of_its_operations
    d4_a_completion_is_progress
    d9_a_panic_in_a_completion_loses_no_other
}

/// Runs a test in the way that `FileIo` chooses, and on threads.
fn both_ways(bench: Bench, test: impl Fn(&Context, FileIo)) {
    let cx = context(bench);
    test(&cx, FileIo::new(&cx, "files", 4));
    bench.settle(&cx);
    let cx = context(bench);
    test(&cx, FileIo::on_threads(&cx, "files", 4));
    bench.settle(&cx);
}

/// Makes a context that keeps its backend for good.
fn context(bench: Bench) -> Context {
    let cx = bench.context();
    if bench.foreign {
        cx.embed().unwrap();
    }
    cx
}

fn file(contents: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(contents).unwrap();
    Arc::new(file)
}

/// Submits an operation, and returns the place of its completion.
fn submit(io: &FileIo, operation: Operation) -> (FileOperation, Rc<Cell<Option<Completed>>>) {
    let place = Rc::new(Cell::new(None));
    let completed = place.clone();
    let handle = io.submit(operation, move |_, ended| completed.set(Some(ended)));
    (handle.unwrap(), place)
}

/// Executes an operation.
fn execute(bench: &Bench, cx: &Context, io: &FileIo, operation: Operation) -> Completed {
    let (handle, place) = submit(io, operation);
    while !handle.is_done() {
        bench.poll(cx, Wait::Block);
    }
    place.take().unwrap()
}

fn number(completed: &Completed) -> Option<i32> {
    completed.result.as_ref().unwrap_err().raw_os_error()
}

fn s2_each_operation_does_what_its_system_call_does(bench: Bench) {
    both_ways(bench, |cx, io| {
        let file = file(b"0123456789");
        let run = |operation| execute(&bench, cx, &io, operation);
        let read = |at: u64, len| {
            run(Operation::read(file.clone(), at, vec![0; len]))
                .into_bytes()
                .unwrap()
        };
        assert_eq!(read(2, 4), b"2345");
        // A read ends at the end of the file.
        assert_eq!(read(8, 4), b"89");
        assert_eq!(read(10, 4), b"");
        assert_eq!(read(1 << 40, 4), b"");
        assert_eq!(read(3, 0), b"");
        let buffers = vec![b"ab".to_vec(), Vec::new(), b"cde".to_vec()];
        let mut written = run(Operation::write(file.clone(), 1, buffers));
        assert_eq!(written.result.as_ref().unwrap(), &5);
        assert!(matches!(written.operation.take_buffers(), Buffers::Many(all) if all[2] == b"cde"));
        let synced = Operation::write(file.clone(), 12, b"x".to_vec()).with_flags(TransferFlags::DSYNC);
        assert_eq!(run(synced).result.unwrap(), 1);
        let mut all = run(Operation::read(file.clone(), 0, vec![vec![9; 3], vec![9; 20]]));
        assert_eq!(all.result.as_ref().unwrap(), &13);
        let Buffers::Many(all) = all.operation.take_buffers() else {
            panic!("other buffers")
        };
        assert_eq!(
            (&all[0][..], &all[1][..11]),
            (&b"0ab"[..], &b"cde6789\0\0x\x09"[..])
        );
        assert_eq!(run(Operation::sync_all(file.clone())).result.unwrap(), 0);
        assert_eq!(run(Operation::sync_data(file.clone())).result.unwrap(), 0);
        for (how, len) in [(Allocation::ReserveKeepSize, 13), (Allocation::Reserve, 100)] {
            assert_eq!(
                run(Operation::allocate(file.clone(), how, 0, 100))
                    .result
                    .unwrap(),
                0
            );
            assert_eq!(file.metadata().unwrap().len(), len);
        }
        assert_eq!(run(Operation::size(file.clone())).result.unwrap(), 100);
        let punched = run(Operation::allocate(file.clone(), Allocation::PunchHole, 0, 4096));
        assert_eq!(punched.result.unwrap(), 0);
        assert_eq!(read(0, 200), [0; 100]);
        // The current position, also of a pipe.
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"piped").unwrap();
        let piped = run(Operation::read(Arc::new(reader), None, vec![0; 16]));
        assert_eq!(piped.into_bytes().unwrap(), b"piped");
        drop(punched.operation);
    });
}

fn s2_errors_come_with_the_buffers(bench: Bench) {
    const EBADF: i32 = 9;
    const EAGAIN: i32 = 11;
    const EINVAL: i32 = 22;
    const ENOSPC: i32 = 28;
    both_ways(bench, |cx, io| {
        let run = |operation| execute(&bench, cx, &io, operation);
        let full = Arc::new(File::options().write(true).open("/dev/full").unwrap());
        let written = run(Operation::write(full.clone(), 0, vec![1; 512]));
        assert_eq!(number(&written), Some(ENOSPC));
        assert_eq!(written.operation.buffers().and_then(Buffers::len), Some(512));
        let read = run(Operation::read(full, 0, vec![1; 512]));
        assert_eq!(number(&read), Some(EBADF), "it is open for writing only");
        let (pipe, _writer) = io::pipe().unwrap();
        let pipe = Arc::new(pipe);
        assert_eq!(number(&run(Operation::sync_all(pipe.clone()))), Some(EINVAL));
        let allocated = run(Operation::allocate(pipe.clone(), Allocation::Reserve, 0, 1));
        assert!(allocated.result.is_err());
        let nowait = Operation::read(pipe, None, vec![0; 1]).with_flags(TransferFlags::NOWAIT);
        assert_eq!(number(&run(nowait)), Some(EAGAIN));
        // A buffer that only other executors can read.
        let foreign = Operation::read(file(b""), 0, Buffers::Foreign(Box::new("memory")));
        let refused = io
            .submit(foreign, |_, _| unreachable!("it was refused"))
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        assert!(matches!(
            refused.into_operation().buffers(),
            Some(Buffers::Foreign(_))
        ));
    });
}

/// The largest offsets are invalid in every file, and none of them means the current position.
fn s2_no_offset_means_another_place(bench: Bench) {
    const EINVAL: i32 = 22;
    both_ways(bench, |cx, io| {
        let run = |operation| execute(&bench, cx, &io, operation);
        let mut positioned = tempfile::tempfile().unwrap();
        positioned.write_all(b"0123456789").unwrap();
        positioned.seek(SeekFrom::Start(4)).unwrap();
        let file = Arc::new(positioned);
        for at in [i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX] {
            for several in [false, true] {
                let buffers = |byte| match several {
                    false => Buffers::from(vec![byte; 2]),
                    true => Buffers::from(vec![vec![byte; 1], vec![byte; 1]]),
                };
                let read = run(Operation::read(file.clone(), at, buffers(0)));
                assert_eq!(number(&read), Some(EINVAL), "read at {at}");
                let written = run(Operation::write(file.clone(), at, buffers(b'x')));
                assert_eq!(number(&written), Some(EINVAL), "write at {at}");
            }
        }
        let read = run(Operation::read(file.clone(), i64::MAX as u64, vec![0; 2]));
        assert!(read.result.is_err() || read.result.unwrap() == 0);
        let all = run(Operation::read(file.clone(), 0, vec![0; 16]));
        assert_eq!(all.into_bytes().unwrap(), b"0123456789");
        let here = run(Operation::read(file, None, vec![0; 16]));
        assert_eq!(here.into_bytes().unwrap(), b"456789");
    });
}

fn s2_a_file_without_positions_ignores_the_offset(bench: Bench) {
    both_ways(bench, |cx, io| {
        let run = |operation| execute(&bench, cx, &io, operation);
        let (reader, writer) = io::pipe().unwrap();
        assert_eq!(
            run(Operation::write(Arc::new(writer), 7, b"piped".to_vec()))
                .result
                .unwrap(),
            5
        );
        let read = run(Operation::read(Arc::new(reader), 3, vec![0; 16]));
        assert_eq!(read.into_bytes().unwrap(), b"piped");
    });
}

fn s2_more_buffers_than_the_system_takes_are_a_short_transfer(bench: Bench) {
    both_ways(bench, |cx, io| {
        let run = |operation| execute(&bench, cx, &io, operation);
        let file = file(b"");
        for (number, transferred) in [(1024, 1024), (1025, 1024), (3000, 1024)] {
            let written = run(Operation::write(file.clone(), 0, vec![vec![b'x']; number]));
            assert_eq!(written.result.unwrap(), transferred);
            let read = run(Operation::read(file.clone(), 0, vec![vec![0]; number]));
            assert_eq!(read.result.unwrap(), transferred);
        }
    });
}

fn s2_ten_thousand_operations_end_once_each(bench: Bench) {
    const COUNT: usize = 10_000;
    both_ways(bench, |cx, io| {
        let contents: Vec<u8> = (0..COUNT).map(|at| (at % 251) as u8).collect();
        let file = file(&contents);
        let ends = Rc::new(RefCell::new(vec![0; COUNT]));
        let left = Rc::new(Cell::new(COUNT));
        for at in 0..COUNT {
            let (ends, left) = (ends.clone(), left.clone());
            let read = Operation::read(file.clone(), at as u64, vec![0; 1]);
            let done = move |_: &Context, completed: Completed| {
                assert_eq!(completed.into_bytes().unwrap(), [(at % 251) as u8]);
                ends.borrow_mut()[at] += 1;
                left.set(left.get() - 1);
            };
            io.submit(read, done).unwrap().detach();
        }
        while left.get() > 0 {
            bench.poll(cx, Wait::Block);
        }
        assert!(ends.borrow().iter().all(|count| *count == 1));
        assert_eq!((cx.operations_in_flight(), io.on_threads_in_flight()), (0, 0));
        assert_eq!(Arc::strong_count(&file), 1);
    });
}

fn s2_completions_are_delivered_in_nested_polls(bench: Bench) {
    both_ways(bench, |cx, io| {
        let io = Rc::new(io);
        let zeroes = Arc::new(File::open("/dev/zero").unwrap());
        let inner = Rc::new(Cell::new(false));
        let (seen, nested, file) = (inner.clone(), io.clone(), zeroes.clone());
        let done = move |cx: &Context, _: Completed| {
            let (handle, place) = submit(&nested, Operation::read(file, 0, vec![1; 4]));
            while !handle.is_done() {
                bench.poll(cx, Wait::Block);
            }
            seen.set(place.take().unwrap().into_bytes().unwrap() == [0; 4]);
        };
        let outer = io
            .submit(Operation::read(zeroes.clone(), 0, vec![1; 4]), done)
            .unwrap();
        let (other, place) = submit(&io, Operation::read(zeroes, 0, vec![1; 4]));
        while !outer.is_done() || !other.is_done() || !inner.get() {
            bench.poll(cx, Wait::Block);
        }
        assert_eq!(place.take().unwrap().result.unwrap(), 4);
    });
}

fn s2_a_completion_may_submit_and_drop_anything(bench: Bench) {
    both_ways(bench, |cx, io| {
        let io = Rc::new(io);
        let file = file(b"x");
        let count = Count::default();
        // Each submits the next one, and keeps its own handle where the next one drops it.
        let kept: Rc<RefCell<Option<FileOperation>>> = Rc::default();
        fn step(io: &Rc<FileIo>, file: Arc<File>, kept: Rc<RefCell<Option<FileOperation>>>, count: Count) {
            let (again, next, place) = (io.clone(), file.clone(), kept.clone());
            let read = Operation::read(file, 0, vec![0; 1]);
            let done = move |_: &Context, completed: Completed| {
                assert_eq!(completed.into_bytes().unwrap(), b"x");
                if count.up() < 50 {
                    step(&again, next, place, count);
                }
            };
            let handle = io.submit(read, done).unwrap();
            let former = kept.replace(Some(handle));
            drop(former);
        }
        step(&io, file.clone(), kept.clone(), count.clone());
        while count.get() < 50 {
            bench.poll(cx, Wait::Block);
        }
        kept.take();
        assert_eq!(Arc::strong_count(&file), 1);
    });
}

/// The owner of a descriptor that counts the remaining owners, and uses the context when it is dropped.
struct Counted(io::PipeReader, Arc<AtomicUsize>);

impl AsFd for Counted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns a read from a pipe, which ends when something is written.
fn hanging(left: &Arc<AtomicUsize>) -> (Operation, io::PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    left.fetch_add(1, Ordering::Relaxed);
    let reader = Arc::new(Counted(reader, left.clone()));
    (Operation::read(reader, None, vec![0; 16]), writer)
}

/// Polls until no owner is left. If a thread has begun an operation, it ends only when the pipe is closed.
fn until_none_is_left(bench: &Bench, cx: &Context, left: &AtomicUsize) {
    while left.load(Ordering::Relaxed) > 0 {
        bench.poll(cx, Wait::AtMost(std::time::Duration::from_millis(1)));
    }
}

fn s2_a_dropped_handle_cancels(bench: Bench) {
    both_ways(bench, |cx, io| {
        let left = Arc::new(AtomicUsize::new(0));
        let token = Rc::new(());
        let mut writers = Vec::new();
        // More operations than threads.
        for round in 0..10 {
            let (operation, writer) = hanging(&left);
            let kept = token.clone();
            let handle = io
                .submit(operation, move |_, _| unreachable!("cancelled: {kept:?}"))
                .unwrap();
            if round % 2 == 0 {
                bench.check(cx);
            }
            drop(handle);
            assert_eq!(Rc::strong_count(&token), 1, "its callback is dropped at once");
            writers.push(writer);
        }
        assert_eq!(cx.operations_in_flight(), 0);
        if io.on_threads_in_flight() > 0 {
            drop(writers);
        }
        until_none_is_left(&bench, cx, &left);
    });
}

fn s2_a_cancelled_operation_is_delivered(bench: Bench) {
    const ECANCELED: i32 = 125;
    both_ways(bench, |cx, io| {
        let left = Arc::new(AtomicUsize::new(0));
        let (first, writer) = hanging(&left);
        let (first, place) = submit(&io, first);
        bench.check(cx);
        first.cancel();
        first.cancel();
        let (second, _kept) = hanging(&left);
        let (second, other) = submit(&io, second);
        second.cancel();
        if io.on_threads_in_flight() > 0 {
            // A thread has begun it.
            drop(writer);
            drop(_kept);
        }
        while !first.is_done() || !second.is_done() {
            bench.poll(cx, Wait::Block);
        }
        for completed in [place.take().unwrap(), other.take().unwrap()] {
            if completed.result.is_err() {
                assert_eq!(number(&completed), Some(ECANCELED));
            }
            assert_eq!(completed.operation.buffers().and_then(Buffers::len), Some(16));
        }
        first.cancel();
        assert_eq!(left.load(Ordering::Relaxed), 0);
    });
}

fn s2_a_detached_operation_goes_on(bench: Bench) {
    both_ways(bench, |cx, io| {
        let left = Arc::new(AtomicUsize::new(0));
        let (operation, mut writer) = hanging(&left);
        let (handle, place) = submit(&io, operation);
        handle.detach();
        bench.check(cx);
        writer.write_all(b"late").unwrap();
        let completed = loop {
            if let Some(completed) = place.take() {
                break completed;
            }
            bench.poll(cx, Wait::Block);
        };
        assert_eq!(completed.into_bytes().unwrap(), b"late");
    });
}

fn s2_an_operation_that_hangs_delays_no_other(bench: Bench) {
    both_ways(bench, |cx, io| {
        let left = Arc::new(AtomicUsize::new(0));
        // One operation less than threads.
        let hanging: Vec<_> = (0..3)
            .map(|_| {
                let (operation, writer) = hanging(&left);
                (submit(&io, operation), writer)
            })
            .collect();
        let file = file(b"0123456789");
        for at in 0..10 {
            let read = execute(&bench, cx, &io, Operation::read(file.clone(), at, vec![0; 1]));
            assert_eq!(read.into_bytes().unwrap(), [b'0' + at as u8]);
        }
        let synced = execute(&bench, cx, &io, Operation::sync_all(file));
        assert_eq!(synced.result.unwrap(), 0);
        for ((handle, place), mut writer) in hanging {
            assert!(!handle.is_done() && place.take().is_none());
            writer.write_all(b"x").unwrap();
            while !handle.is_done() {
                bench.poll(cx, Wait::Block);
            }
            assert_eq!(place.take().unwrap().into_bytes().unwrap(), b"x");
        }
    });
}

/// Random operations, one after the other, on a file and on a vector of bytes.
fn s2_a_file_behaves_as_its_model(bench: Bench) {
    const MOST: usize = 20_000;
    let random = RefCell::new(fastrand::Rng::with_seed(aio_testing::seed()));
    both_ways(bench, |cx, io| {
        let next = |most: usize| random.borrow_mut().usize(..most);
        let (file, mut model) = (file(b""), Vec::<u8>::new());
        let run = |operation| execute(&bench, cx, &io, operation);
        for _ in 0..150 {
            let (at, len) = (next(MOST), next(3_000));
            match next(6) {
                0 | 1 => {
                    let split = next(len + 1);
                    let bytes: Vec<u8> = (0..len).map(|_| next(256) as u8).collect();
                    let (first, second) = bytes.split_at(split);
                    let buffers = vec![first.to_vec(), second.to_vec()];
                    let written = run(Operation::write(file.clone(), at as u64, buffers));
                    assert_eq!(written.result.unwrap(), len);
                    if len > 0 {
                        model.resize(model.len().max(at + len), 0);
                        model[at..at + len].copy_from_slice(&bytes);
                    }
                }
                2 | 3 => {
                    let read = run(Operation::read(file.clone(), at as u64, vec![7; len]));
                    let expected = model.get(at..).unwrap_or_default();
                    assert_eq!(read.into_bytes().unwrap(), expected[..len.min(expected.len())]);
                }
                4 => {
                    let sync = Operation::sync_data(file.clone());
                    assert_eq!(run(sync).result.unwrap(), 0);
                }
                _ => {
                    let punch =
                        Operation::allocate(file.clone(), Allocation::PunchHole, at as u64, 1 + len as u64);
                    assert_eq!(run(punch).result.unwrap(), 0);
                    let end = model.len().min(at + len + 1);
                    if at < end {
                        model[at..end].fill(0);
                    }
                }
            }
        }
        assert_eq!(file.metadata().unwrap().len(), model.len() as u64);
    });
}

fn s1_a_context_that_is_dropped_lets_go_of_its_operations(bench: Bench) {
    for on_threads in [false, true] {
        let left = Arc::new(AtomicUsize::new(0));
        let (token, mut writers, mut handles) = (Rc::new(()), Vec::new(), Vec::new());
        let cx = context(bench);
        let io = if on_threads {
            FileIo::on_threads(&cx, "files", 4)
        } else {
            FileIo::new(&cx, "files", 4)
        };
        for _ in 0..6 {
            let (operation, writer) = hanging(&left);
            let kept = token.clone();
            let handle = io.submit(operation, move |_, _| drop(kept)).unwrap();
            handles.push(handle);
            writers.push(writer);
        }
        bench.check(&cx);
        let uses_threads = io.on_threads_in_flight() > 0;
        drop(io);
        drop(cx);
        assert_eq!(Rc::strong_count(&token), 1, "no callback is left");
        assert!(handles.iter().all(FileOperation::is_done));
        if uses_threads {
            drop(writers);
            while left.load(Ordering::Relaxed) > 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(left.load(Ordering::Relaxed), 0);
        drop(handles);
    }
}

fn d4_a_completion_is_progress(bench: Bench) {
    both_ways(bench, |cx, io| {
        let zeroes = Arc::new(File::open("/dev/zero").unwrap());
        for _ in 0..5 {
            bench.settle(cx);
            let (handle, _place) = submit(&io, Operation::read(zeroes.clone(), 0, vec![1; 4]));
            let mut progress = false;
            while !handle.is_done() {
                progress = bench.poll(cx, Wait::Block);
            }
            assert!(progress);
        }
    });
}

fn d9_a_panic_in_a_completion_loses_no_other(bench: Bench) {
    both_ways(bench, |cx, io| {
        let zeroes = Arc::new(File::open("/dev/zero").unwrap());
        let count = Count::default();
        for number in 0..20 {
            let ended = count.clone();
            let done = move |_: &Context, _: Completed| {
                ended.up();
                assert!(number % 3 != 0, "planned");
            };
            io.submit(Operation::read(zeroes.clone(), 0, vec![1; 4]), done)
                .unwrap()
                .detach();
        }
        let mut panics = 0;
        while count.get() < 20 {
            let polled = catch_unwind(AssertUnwindSafe(|| bench.poll(cx, Wait::Block)));
            panics += u32::from(polled.is_err());
        }
        assert_eq!((count.get(), panics), (20, 7));
        let (handle, _place) = submit(&io, Operation::read(zeroes, 0, vec![1; 4]));
        while !handle.is_done() {
            bench.poll(cx, Wait::Block);
        }
    });
}

/// On the ring, no thread of this process executes operations; without one, only threads do.
#[test]
fn s2_the_ring_is_taken_where_there_is_one() {
    let zeroes = Arc::new(File::open("/dev/zero").unwrap());
    for bench in Bench::DIRECT {
        let cx = bench.context();
        let io = FileIo::new(&cx, "files", 1);
        let (_handle, _place) = submit(&io, Operation::read(zeroes.clone(), 0, vec![1; 4]));
        let is_on_ring = io.on_threads_in_flight() == 0;
        assert_eq!(is_on_ring, cx.backend_name() == "uring", "{}", bench.name);
        assert_eq!(cx.operations_in_flight(), usize::from(is_on_ring));
    }
}

/// A wrapper of a ring, as on a system that registers no eventfd with it.
#[derive(Debug)]
struct Unshown;

impl Spoil for Unshown {
    const NAME: &'static str = "unshown";
}

/// If the ring of a context ends, its operations end, and threads execute the next ones.
#[test]
fn s2_operations_survive_the_end_of_the_ring() {
    const ECANCELED: i32 = 125;
    let bench = Bench::URING;
    let cx = match Uring::new() {
        Ok(ring) => bench
            .builder()
            .backend(Box::new(spoiled(ring, Unshown)))
            .build()
            .unwrap(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "skipped: no io_uring: {error}");
            return;
        }
    };
    let io = FileIo::new(&cx, "files", 1);
    let left = Arc::new(AtomicUsize::new(0));
    let (operation, _writer) = hanging(&left);
    let (handle, place) = submit(&io, operation);
    bench.check(&cx);
    let embedded = cx.embed().unwrap();
    while !handle.is_done() {
        bench.poll(&cx, Wait::Block);
    }
    assert_eq!(number(&place.take().unwrap()), Some(ECANCELED));
    assert_eq!(left.load(Ordering::Relaxed), 0);
    drop(embedded);
    let zeroes = Arc::new(File::open("/dev/zero").unwrap());
    let read = execute(&bench, &cx, &io, Operation::read(zeroes, 0, vec![1; 4]));
    assert_eq!(read.into_bytes().unwrap(), [0; 4]);
    assert_eq!(io.on_threads_in_flight(), 0);
}

/// A thread that finds its operation cancelled has no result. It must not take the callback from the
/// cancellation, which comes later.
#[test]
fn s2_a_cancelled_operation_is_delivered_after_a_thread_has_passed_over_it() {
    let cx = Context::new().unwrap();
    let io = FileIo::on_threads(&cx, "files", 1);
    let (mut output, input) = io::pipe().unwrap();
    let input = Arc::new(input);
    let writes = || submit(&io, Operation::write(input.clone(), None, vec![1]));
    let mut wait_for_thread = |bytes: usize| output.read_exact(&mut vec![0; bytes]).unwrap();
    let left = Arc::default();
    let before = [writes(), writes()];
    let (operation, release) = hanging(&left);
    let held = submit(&io, operation);
    let (cancelled, place) = writes();
    let last = writes();
    // The result of the first operation is sent before the cancellation, so that both are delivered together.
    wait_for_thread(2);
    cancelled.cancel();
    drop(release);
    wait_for_thread(1);
    for operation in before.into_iter().chain([held, last]) {
        while !operation.0.is_done() {
            cx.poll(Wait::Block).unwrap();
        }
    }
    cx.poll(Wait::NoBlock).unwrap();
    let completed = place.take().expect("its callback is called");
    assert_eq!(number(&completed), Some(125));
}
