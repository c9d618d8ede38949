//! Operations on files as futures: on the ring of a context that has one, and on threads.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::task::{Context as Polling, Poll, Waker};
use std::{future::Future as _, pin::pin};

use aio_context::{Gone, Operation, Submit, Wait};
use aio_executor::{ContextExt, submit};
use aio_sources::FileIo;
use aio_testing::{Bench, everywhere};

everywhere! {
    s2_an_operation_is_awaited
    s2_many_operations_are_awaited_at_once
    s2_a_dropped_future_cancels
    s2_a_future_outlives_its_context
    s2_a_future_outlives_its_context_while_its_pool_is_there
    e2_a_task_that_is_cancelled_cancels_its_operation
}

/// Returns a context that keeps its backend for good, and both ways to execute operations.
fn ways(bench: Bench) -> (aio_context::Context, [FileIo; 2]) {
    let cx = bench.context();
    if bench.foreign {
        cx.embed().unwrap();
    }
    let both = [FileIo::new(&cx, "files", 4), FileIo::on_threads(&cx, "files", 4)];
    (cx, both)
}

fn file(contents: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(contents).unwrap();
    Arc::new(file)
}

fn s2_an_operation_is_awaited(bench: Bench) {
    let (cx, both) = ways(bench);
    for io in both {
        let file = file(b"0123456789");
        let read = cx.block_on(async {
            submit(&io, Operation::write(file.clone(), 2, b"ab".to_vec()))
                .unwrap()
                .await
                .unwrap();
            submit(&io, Operation::sync_data(file.clone()))
                .unwrap()
                .await
                .unwrap();
            let read = submit(&io, Operation::read(file.clone(), 0, vec![0; 5])).unwrap();
            read.await.unwrap().into_bytes()
        });
        assert_eq!(read.unwrap().unwrap(), b"01ab4");
    }
}

fn s2_many_operations_are_awaited_at_once(bench: Bench) {
    let (cx, both) = ways(bench);
    for io in both {
        let contents: Vec<u8> = (0..=255).collect();
        let file = file(&contents);
        let reads: Vec<_> = (0..256)
            .map(|at| submit(&io, Operation::read(file.clone(), at, vec![0; 1])).unwrap())
            .collect();
        let tasks: Vec<_> = reads.into_iter().map(|read| cx.spawn(read)).collect();
        let read = cx.block_on(async {
            let mut bytes = Vec::new();
            for task in tasks {
                bytes.extend(task.await.unwrap().unwrap().into_bytes().unwrap());
            }
            bytes
        });
        assert_eq!(read.unwrap(), contents);
        assert_eq!(Arc::strong_count(&file), 1);
    }
}

/// Returns a read from a pipe that ends only when something is written. The reader shows whether the read
/// still exists.
fn hanging() -> (Operation, Arc<io::PipeReader>, io::PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    let reader = Arc::new(reader);
    (Operation::read(reader.clone(), None, vec![0; 4]), reader, writer)
}

fn s2_a_dropped_future_cancels(bench: Bench) {
    let (cx, both) = ways(bench);
    for io in both {
        let (operation, reader, mut writer) = hanging();
        let mut future = Box::pin(submit(&io, operation).unwrap());
        let mut polling = Polling::from_waker(Waker::noop());
        assert!(matches!(future.as_mut().poll(&mut polling), Poll::Pending));
        bench.check(&cx);
        drop(future);
        if io.on_threads_in_flight() > 0 {
            // A thread has begun it, and goes on.
            writer.write_all(b"x").unwrap();
        }
        while Arc::strong_count(&reader) > 1 {
            bench.poll(&cx, Wait::AtMost(std::time::Duration::from_millis(1)));
        }
    }
}

fn s2_a_future_outlives_its_context(bench: Bench) {
    outlive_context(bench, false);
}

/// A task of another context may wait for the future.
fn s2_a_future_outlives_its_context_while_its_pool_is_there(bench: Bench) {
    outlive_context(bench, true);
}

/// Drops a context with operations in flight, after the pools that execute them or, with `keeps_pools`, before.
fn outlive_context(bench: Bench, keeps_pools: bool) {
    let (cx, both) = ways(bench);
    let hung = both.each_ref().map(|io| {
        let (operation, reader, writer) = hanging();
        (submit(io, operation).unwrap(), reader, writer)
    });
    bench.check(&cx);
    let _pools = keeps_pools.then_some(both);
    drop(cx);
    for (future, _reader, writer) in hung {
        drop(writer);
        let mut polling = Polling::from_waker(Waker::noop());
        let ended = pin!(future).poll(&mut polling);
        assert!(matches!(ended, Poll::Ready(Err(Gone::Dropped))), "{ended:?}");
    }
}

fn e2_a_task_that_is_cancelled_cancels_its_operation(bench: Bench) {
    let (cx, both) = ways(bench);
    for io in both {
        let (operation, reader, writer) = hanging();
        let reading = submit(&io, operation).unwrap();
        let task = cx.spawn(async move { reading.await.is_ok() });
        bench.settle(&cx);
        drop(task);
        if io.on_threads_in_flight() > 0 {
            drop(writer);
        }
        while Arc::strong_count(&reader) > 1 {
            bench.poll(&cx, Wait::AtMost(std::time::Duration::from_millis(1)));
        }
    }
}

/// A context on io_uring executes operations by itself; others give them back.
#[test]
fn s1_a_context_executes_operations_on_its_ring() {
    for bench in Bench::DIRECT {
        let cx = bench.context();
        let operation = Operation::read(file(b"data"), 0, vec![0; 4]);
        let read = cx.block_on(async {
            match submit(&cx, operation) {
                Ok(reading) => reading.await.unwrap().into_bytes().unwrap(),
                Err(refused) => {
                    assert_ne!(cx.backend_name(), "uring");
                    refused.to_string().into_bytes()
                }
            }
        });
        let read = String::from_utf8(read.unwrap()).unwrap();
        assert!(read == "data" || read.contains(cx.backend_name()), "{read}");
    }
    fn is_object_of<S: Submit>(_: &S) {}
    is_object_of(&Bench::PPOLL.context());
}
