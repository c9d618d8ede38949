//! Cases 13 to 21: the events of descriptors, and the callbacks that get them.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use aio_backend::conformance::disturb::once_asleep;
use aio_context::{Interest, Registration};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use crate::check::check;
use crate::common::{Bench, Kick, everywhere, watch};
use crate::fixtures::{MOMENT, Tap, assert_sleeps, counted, feed, pipe};

everywhere! {
    case_13_another_interest_from_another_thread_in_mid_wait
    case_14_replaced_while_its_readiness_is_collected
    case_15_a_hang_up_without_interest_does_not_spin
    case_16_a_hang_up_with_unread_data_loses_no_byte
    case_17_an_error_with_only_a_write_interest
    case_18_half_a_stream_goes_on
    case_19_urgent_data_resets_and_refusals
    case_21_more_than_a_batch_is_served_in_turn
}

thread_local! {
    /// The registration that a job from another thread changes on the home thread.
    static AT_HOME: RefCell<Option<Registration>> = const { RefCell::new(None) };
}

/// Rules R3 and R11.
fn case_13_another_interest_from_another_thread_in_mid_wait(bench: Bench) {
    let cx = bench.context();
    let (near, _far) = UnixStream::pair().unwrap();
    let tap = Tap::new(near);
    AT_HOME.set(Some(cx.watch(tap.clone(), Interest::READ).unwrap()));
    let remote = cx.remote();
    let change = move || {
        remote
            .run(|_| {
                AT_HOME.with_borrow(|home| home.as_ref().unwrap().set_interest(Interest::WRITE).unwrap())
            })
            .unwrap();
    };
    assert!(once_asleep(change, || bench.block(&cx)), "the job was run");
    assert!(bench.block(&cx));
    assert_eq!(tap.met(), ["writable"], "the next wait waits for it");
    let remote = cx.remote();
    let replacement = move || {
        remote
            .run(|_| AT_HOME.with_borrow(|home| home.as_ref().unwrap().set_interest(Interest::READ).unwrap()))
            .unwrap();
    };
    thread::spawn(replacement).join().unwrap();
    assert!(bench.block(&cx), "the job");
    tap.met();
    assert!(!bench.check(&cx) && tap.met().is_empty());
    AT_HOME.take();
}

/// Rules R3 and R9: neither handler is called with events that were collected for the former one.
fn case_14_replaced_while_its_readiness_is_collected(bench: Bench) {
    for trace in [
        "on x { replace a n }; bh x; watch a r; kick a; schedule x; poll -> x; poll -> n.readable; poll ->",
        "on x { replace a n }; bh x; watch a rw; schedule x; poll -> x; poll -> n.writable; poll -> n.writable",
        "on x { replace a n, interest a w }; bh x; watch a r; kick a; schedule x; poll -> x; poll -> n.writable",
        "on x { watch a w, replace a a w }; bh x; watch a r; kick a; schedule x; poll -> x refused; poll -> a.writable",
        "on b.readable { drain b, replace a n }; on a.readable { drain a, replace b m }; watch a r; watch b r; kick a; kick b; poll; poll; poll ->",
    ] {
        check(bench, trace);
    }
}

/// Rule R4: the kernel reports a hang-up without an interest, too, so a handler without an interest is in no set.
fn case_15_a_hang_up_without_interest_does_not_spin(bench: Bench) {
    for trace in [
        "watch a -; close a; wait 5 ->; wait 5 ->",
        "watch a r; close a; poll -> a.readable; interest a -; wait 5 ->",
        "watch a rw; close a; interest a -; wait 5 ->; interest a r; poll -> a.readable",
        "watch a r in g; pause g; close a; wait 5 ->; wait 5 ->; resume g; poll -> a.readable",
    ] {
        check(bench, trace);
    }
    let (builder, calls) = counted(bench);
    let cx = builder.build().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let tap = Tap::new(near);
    let _registration = cx.watch(tap.clone(), Interest::NONE).unwrap();
    drop(far);
    (0..3).for_each(|_| assert_sleeps(bench, &cx, &calls));
    assert!(tap.met().is_empty());
}

/// Rules D1 and R4: events are level-triggered, so a handler that reads a few bytes at a time is called until the end of the stream.
fn case_16_a_hang_up_with_unread_data_loses_no_byte(bench: Bench) {
    const BYTES: usize = 1_000;
    let cx = bench.context();
    let (near, mut far) = UnixStream::pair().unwrap();
    let tap = Tap::sipping(near, 7);
    let _registration = cx.watch(tap.clone(), Interest::READ).unwrap();
    far.write_all(&[7; BYTES]).unwrap();
    drop(far);
    let mut calls = 0;
    while !tap.met().contains(&"end".to_owned()) {
        assert!(bench.block(&cx));
        calls += 1;
    }
    assert_eq!((tap.bytes.get(), calls), (BYTES, BYTES.div_ceil(7) + 1));
}

/// Rule R4: an error goes to the callback of the interest.
fn case_17_an_error_with_only_a_write_interest(bench: Bench) {
    for (interest, expected) in [
        (Interest::WRITE, vec!["writable"]),
        (
            Interest::READ,
            vec!["readable", "Bad file descriptor (os error 9)"],
        ),
    ] {
        let cx = bench.context();
        let (reader, writer) = pipe();
        let tap = Tap::new(writer);
        let _registration = cx.watch(tap.clone(), interest).unwrap();
        drop(reader);
        assert!(bench.block(&cx));
        // A writing end cannot be read and returns an error. The log shows which callback ran.
        assert_eq!(tap.met(), expected);
        assert_eq!(
            rustix::io::write(&tap.fd, b"x").unwrap_err(),
            rustix::io::Errno::PIPE
        );
    }
}

/// Rule D3: the end of one direction makes the descriptor readable, and the other direction still works.
fn case_18_half_a_stream_goes_on(bench: Bench) {
    let cx = bench.context();
    let (near, mut far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let tap = Tap::new(near);
    let registration = cx.watch(tap.clone(), Interest::BOTH).unwrap();
    assert!(bench.block(&cx));
    assert_eq!(tap.met(), ["writable"]);
    far.shutdown(std::net::Shutdown::Write).unwrap();
    for _ in 0..3 {
        assert!(bench.block(&cx));
        assert_eq!(tap.met(), ["readable", "end", "writable"]);
        assert_eq!(rustix::io::write(&tap.fd, b"still here"), Ok(10));
        assert_eq!(far.read(&mut [0; 64]).unwrap(), 10);
    }
    registration.set_interest(Interest::WRITE).unwrap();
    assert!(bench.block(&cx));
    assert_eq!(tap.met(), ["writable"]);
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nonblocking(true).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Rules D3 and R4: the same calls on every backend.
fn case_19_urgent_data_resets_and_refusals(bench: Bench) {
    let cx = bench.context();
    // Urgent data are not in the stream, and the handler has no interest in them.
    let (near, far) = connected();
    let tap = Tap::new(near);
    let registration = cx.watch(tap.clone(), Interest::READ).unwrap();
    assert_eq!(rustix::net::send(&far, b"!", SendFlags::OOB), Ok(1));
    assert!(!bench.poll(&cx, MOMENT) && tap.met().is_empty());
    assert_eq!(
        rustix::net::send(&far, b"in the stream", SendFlags::empty()),
        Ok(13)
    );
    assert!(bench.block(&cx));
    while bench.check(&cx) {}
    assert_eq!(tap.bytes.get(), 13);
    registration.remove();

    let (near, far) = connected();
    let tap = Tap::new(near);
    let registration = cx.watch(tap.clone(), Interest::BOTH).unwrap();
    rustix::net::sockopt::set_socket_linger(&far, Some(std::time::Duration::ZERO)).unwrap();
    drop(far);
    while tap.met().first().map(String::as_str) != Some("readable") {
        assert!(bench.block(&cx), "until the reset has come");
    }
    // The error was read. The end of the stream and writability without a reader remain.
    assert!(bench.block(&cx));
    assert_eq!(tap.met(), ["readable", "end", "writable"]);
    registration.remove();

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let refused = rustix::net::connect(&socket, &free).unwrap_err();
    let tap = Tap::new(socket);
    let registration = cx.watch(tap.clone(), Interest::WRITE).unwrap();
    assert!(bench.block(&cx));
    assert_eq!(tap.met(), ["writable"]);
    let said = rustix::net::sockopt::socket_error(tap.as_fd()).unwrap();
    let refusals = [refused, said.err().unwrap_or(refused)];
    assert!(
        refusals.contains(&rustix::io::Errno::CONNREFUSED),
        "now or later: {refusals:?}"
    );
    registration.remove();
    assert!(!bench.check(&cx));
}

/// Rule D2, with descriptors that are ready all the time.
fn case_21_more_than_a_batch_is_served_in_turn(bench: Bench) {
    const MANY: usize = 200;
    const BATCH: usize = 64;
    let cx = bench.builder().batch(BATCH).build().unwrap();
    let kicks: Vec<_> = (0..MANY).map(|_| Kick::with(|kick, _| kick.kick())).collect();
    let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
    kicks.iter().for_each(|kick| kick.kick());
    let counts = || kicks.iter().map(|kick| kick.count.get());
    for polls in 1..=40 {
        assert!(bench.block(&cx));
        assert!(counts().sum::<u32>() as usize <= polls * BATCH);
        let rounds = (polls * BATCH / MANY) as u32;
        // The loop's own descriptor and the move to another backend may take a turn.
        assert!(
            counts().min() >= Some(rounds.saturating_sub(2)),
            "{polls}: {:?}",
            counts().min()
        );
    }
    let (reader, writer) = pipe();
    let late = Tap::new(reader);
    let _late = cx.watch(late.clone(), Interest::READ).unwrap();
    feed(&writer);
    for _ in 0..=MANY / BATCH + 1 {
        assert!(bench.block(&cx));
    }
    assert_eq!(late.bytes.get(), 1, "a new handler is not last for ever");
}
