//! E2: readiness as futures, and the traits of `futures-io`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::Pin;
use std::rc::Rc;

use aio_context::{Context, Interest, Registration};
use aio_executor::{AsyncFd, ContextExt, spawn, yield_now};
use futures_io::{AsyncRead, AsyncWrite};

use crate::common::{Bench, Count, Tasks, everywhere, result};

everywhere! {
    e2_readable_waits_for_data
    e2_a_full_socket_is_writable_again_when_the_peer_has_read
    e2_both_directions_are_waited_for_at_a_time
    e2_several_tasks_wait_for_one_descriptor
    e2_a_descriptor_that_is_ready_and_unwanted_lets_the_loop_sleep
    e2_a_reader_that_waits_again_and_again_changes_no_interest
    e2_an_end_of_the_peer_is_readable
    e2_a_listener_accepts
    e2_read_and_write_of_futures_io
    e2_a_number_is_added_once
}

fn pair(cx: &Context) -> (AsyncFd<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (AsyncFd::new(cx, ours).unwrap(), theirs)
}

async fn read(socket: &AsyncFd<UnixStream>, buffer: &mut [u8]) -> io::Result<usize> {
    socket.read_with(|mut socket| socket.read(buffer)).await
}

fn e2_readable_waits_for_data(bench: Bench) {
    let cx = bench.context();
    let (ours, mut theirs) = pair(&cx);
    let task = cx.spawn(async move {
        let mut all = Vec::new();
        for _ in 0..3 {
            ours.readable().await.unwrap();
            let mut buffer = [0; 100];
            let read = read(&ours, &mut buffer).await.unwrap();
            all.extend_from_slice(&buffer[..read]);
        }
        all
    });
    for word in ["one", "two", "three"] {
        bench.settle(&cx);
        assert!(!task.is_finished());
        theirs.write_all(word.as_bytes()).unwrap();
    }
    assert_eq!(bench.join(&cx, task).unwrap(), b"onetwothree");
}

/// Fills a socket.
fn fill(mut socket: &UnixStream) -> usize {
    let mut written = 0;
    loop {
        match socket.write(&[7; 4096]) {
            Ok(more) => written += more,
            Err(why) if why.kind() == ErrorKind::WouldBlock => return written,
            Err(why) => panic!("{why}"),
        }
    }
}

fn e2_a_full_socket_is_writable_again_when_the_peer_has_read(bench: Bench) {
    let cx = bench.context();
    let (ours, mut theirs) = pair(&cx);
    let filled = fill(ours.get_ref());
    let task = cx.spawn(async move {
        ours.writable().await.unwrap();
        ours.write_with(|mut socket| socket.write(b"more")).await.unwrap()
    });
    bench.settle(&cx);
    assert!(!task.is_finished());
    let mut got = vec![0; filled];
    theirs.read_exact(&mut got).unwrap();
    assert_eq!(bench.join(&cx, task).unwrap(), 4);
}

fn e2_both_directions_are_waited_for_at_a_time(bench: Bench) {
    let cx = bench.context();
    let (ours, mut theirs) = pair(&cx);
    let filled = fill(ours.get_ref());
    let ours = Rc::new(ours);
    let (reads, writes) = (ours.clone(), ours.clone());
    let reader = cx.spawn(async move { reads.readable().await });
    let writer = cx.spawn(async move { writes.writable().await });
    bench.settle(&cx);
    assert!(!reader.is_finished() && !writer.is_finished());
    theirs.write_all(b"x").unwrap();
    bench.join(&cx, reader).unwrap().unwrap();
    assert!(!writer.is_finished());
    theirs.read_exact(&mut vec![0; filled]).unwrap();
    bench.join(&cx, writer).unwrap().unwrap();
}

fn e2_several_tasks_wait_for_one_descriptor(bench: Bench) {
    let cx = bench.context();
    let (ours, mut theirs) = pair(&cx);
    let (ours, order) = (Rc::new(ours), Rc::new(RefCell::new(Vec::new())));
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let (ours, order) = (ours.clone(), order.clone());
            cx.spawn(async move {
                let mut byte = [0];
                read(&ours, &mut byte).await.unwrap();
                order.borrow_mut().push(byte[0]);
            })
        })
        .collect();
    bench.settle(&cx);
    for byte in 0..5 {
        theirs.write_all(&[byte]).unwrap();
        while order.borrow().len() <= byte.into() {
            bench.block(&cx);
        }
    }
    assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
    tasks.into_iter().for_each(|task| result(task).unwrap());
}

/// Data that no task waits for is no reason to wake up again and again.
fn e2_a_descriptor_that_is_ready_and_unwanted_lets_the_loop_sleep(bench: Bench) {
    let cx = bench.context();
    let (ours, mut theirs) = pair(&cx);
    let ours = Rc::new(ours);
    let reader = ours.clone();
    let mut task = Some(cx.spawn(async move { reader.readable().await }));
    bench.settle(&cx);
    theirs.write_all(b"data").unwrap();
    while !task.as_ref().unwrap().is_finished() {
        bench.block(&cx);
    }
    result(task.take().unwrap()).unwrap().unwrap();
    bench.settle(&cx);
    assert!(!bench.check(&cx), "it is ready, and is not reported");
    // The next task that waits finds the readiness.
    bench.run(&cx, async move { ours.readable().await }).unwrap();
}

fn e2_a_reader_that_waits_again_and_again_changes_no_interest(bench: Bench) {
    let cx = bench.context();
    let (ours, mut theirs) = pair(&cx);
    let polls = Count::default();
    let counted = polls.clone();
    let task = cx.spawn(async move {
        let mut byte = [0];
        while read(&ours, &mut byte).await.unwrap() > 0 {
            counted.up();
        }
    });
    bench.settle(&cx);
    for expected in 1..100 {
        theirs.write_all(b"x").unwrap();
        while polls.get() < expected {
            bench.block(&cx);
        }
    }
    drop(theirs);
    bench.join(&cx, task).unwrap();
}

fn e2_an_end_of_the_peer_is_readable(bench: Bench) {
    let cx = bench.context();
    let (ours, theirs) = pair(&cx);
    let task = cx.spawn(async move { read(&ours, &mut [0]).await });
    bench.settle(&cx);
    drop(theirs);
    assert_eq!(bench.join(&cx, task).unwrap().unwrap(), 0);
}

fn e2_a_listener_accepts(bench: Bench) {
    let cx = bench.context();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = AsyncFd::new(&cx, UnixListener::bind(&path).unwrap()).unwrap();
    let task = cx.spawn(async move {
        for _ in 0..3 {
            listener.read_with(UnixListener::accept).await.unwrap();
        }
    });
    bench.settle(&cx);
    let _clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    bench.join(&cx, task).unwrap();
}

fn e2_read_and_write_of_futures_io(bench: Bench) {
    const BYTES: usize = 1 << 20;
    let cx = bench.context();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut ours, mut theirs) = (
        AsyncFd::new(&cx, ours).unwrap(),
        AsyncFd::new(&cx, theirs).unwrap(),
    );
    let sent: Vec<u8> = (0..BYTES).map(|place| (place % 251) as u8).collect();
    let expected = sent.clone();
    let received = bench.run(&cx, async move {
        let writer = spawn(async move {
            let mut left = &sent[..];
            while !left.is_empty() {
                let (first, second) = left.split_at(left.len() / 2);
                let slices = [IoSlice::new(first), IoSlice::new(second)];
                let written = poll_fn(|polling| Pin::new(&mut ours).poll_write_vectored(polling, &slices));
                left = &left[written.await.unwrap()..];
                yield_now().await;
            }
            poll_fn(|polling| Pin::new(&mut ours).poll_flush(polling))
                .await
                .unwrap();
            poll_fn(|polling| Pin::new(&mut ours).poll_close(polling))
                .await
                .unwrap();
            let refused = poll_fn(|polling| Pin::new(&mut ours).poll_write(polling, b"x")).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::BrokenPipe);
        });
        let (mut received, mut buffers) = (Vec::new(), [[0; 1000], [0; 1000]]);
        loop {
            let [first, second] = &mut buffers;
            let mut slices = [IoSliceMut::new(first), IoSliceMut::new(second)];
            let read = poll_fn(|polling| Pin::new(&mut theirs).poll_read_vectored(polling, &mut slices));
            let read = read.await.unwrap();
            if read == 0 {
                break;
            }
            received.extend_from_slice(&buffers.concat()[..read]);
        }
        let end = poll_fn(|polling| Pin::new(&mut theirs).poll_read(polling, &mut [0])).await;
        assert_eq!(end.unwrap(), 0);
        writer.await.unwrap();
        received
    });
    assert!(received == expected, "the bytes arrive as they were sent");
}

fn e2_a_number_is_added_once(bench: Bench) {
    let cx = bench.context();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let ours = Rc::new(ours);
    let first = AsyncFd::new(&cx, ours.clone()).unwrap();
    let why = AsyncFd::new(&cx, ours.clone()).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::AlreadyExists);
    drop(first);
    let again = AsyncFd::new(&cx, ours.clone()).unwrap();
    assert_eq!(Rc::strong_count(&ours), 2);
    drop(again);
    assert_eq!(
        Rc::strong_count(&ours),
        1,
        "a wrapper that is dropped lets go of the owner"
    );
    let handler = cx.on(ours).readable(|_, _| {}).watch();
    let registration: Registration = handler.unwrap();
    registration.set_interest(Interest::NONE).unwrap();
}
