//! The readiness that waits report for descriptors of every kind.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use super::super::disturb::Number;
use super::super::fixtures::{
    A, B, ERR, HUP, IN, Kind, OUT, RDHUP, Source, TIMEOUT, add, check, expect, expect_soon, feed, need,
    wait_at_most,
};
use crate::{Backend, Interest, Readiness, Token};

pub(super) fn readiness_of_a_pipe(backend: &mut dyn Backend) {
    let reader = Source::new(Kind::PipeReader);
    add(backend, &reader, A, Interest::READ);
    expect(backend, &[], "an empty pipe has nothing to read");
    reader.feed();
    expect(backend, &[(A, IN)], "a pipe with something in it is readable");
    reader.consume();
    expect(backend, &[], "everything was read");

    let writer = Source::new(Kind::PipeWriter);
    add(backend, &writer, B, Interest::WRITE);
    expect(backend, &[(B, OUT)], "an empty pipe has room");
    writer.fill();
    expect(backend, &[], "a full pipe has no room");
    reader.feed();
    writer.make_room();
    expect(backend, &[(A, IN), (B, OUT)], "both have something to do");
}

pub(super) fn readiness_of_a_socket(backend: &mut dyn Backend) {
    let socket = Source::new(Kind::Socket);
    add(backend, &socket, A, Interest::BOTH);
    expect(backend, &[(A, OUT)], "a new socket is only writable");
    socket.feed();
    expect(
        backend,
        &[(A, IN | OUT)],
        "it is readable and writable: both are reported",
    );
    socket.fill();
    expect(backend, &[(A, IN)], "there is no room left");
    socket.consume();
    expect(backend, &[], "there is nothing to read and no room");
    socket.make_room();
    expect(backend, &[(A, OUT)], "there is room again");
}

pub(super) fn readiness_of_an_eventfd(backend: &mut dyn Backend) {
    let counter = Source::new(Kind::Eventfd);
    add(backend, &counter, A, Interest::READ);
    expect(backend, &[], "a count of zero is nothing to read");
    counter.feed();
    counter.feed();
    expect(backend, &[(A, IN)], "a count of two is readable");
    counter.read(8);
    expect(backend, &[], "the whole count was read");
    need(backend.modify(A, Interest::BOTH), "a modify");
    expect(backend, &[(A, OUT)], "there is room to count");
    counter.fill();
    expect(backend, &[(A, IN)], "the count is at its end");
}

pub(super) fn readiness_of_a_terminal(backend: &mut dyn Backend) {
    let mut terminal = Source::new(Kind::Terminal);
    add(backend, &terminal, A, Interest::READ);
    expect(backend, &[], "nothing was typed");
    terminal.feed();
    expect_soon(backend, &[(A, IN)], "something was typed");
    terminal.consume();
    expect_soon(backend, &[], "all that was typed was read");
    terminal.hang_up();
    let start = Instant::now();
    while !check(backend)
        .iter()
        .any(|&(token, what)| token == A && what.contains(HUP))
    {
        assert!(
            start.elapsed() < TIMEOUT,
            "the other end was closed: expected a hang-up, but a check found {:?}",
            check(backend)
        );
    }
}

pub(super) fn readiness_of_a_set(backend: &mut dyn Backend) {
    let inner = Source::new(Kind::Eventfd);
    let set = Rc::new(need(epoll::create(CreateFlags::CLOEXEC), "making an epoll set"));
    need(
        epoll::add(&set, &*inner.fd, EventData::new_u64(0), EventFlags::IN),
        "filling an epoll set",
    );
    let result = backend.add(Rc::clone(&set).into(), A, Interest::READ);
    need(result, "adding an epoll set");
    expect(backend, &[], "nothing in the set is ready");
    inner.feed();
    expect(backend, &[(A, IN)], "something in the set is ready");
    expect(backend, &[(A, IN)], "it still is");
    inner.consume();
    expect(backend, &[], "nothing in the set is ready any more");
}

pub(super) fn a_regular_file_is_always_ready(backend: &mut dyn Backend) {
    let (file, other) = (Source::new(Kind::File), Source::new(Kind::Eventfd));
    add(backend, &file, A, Interest::READ);
    add(backend, &other, B, Interest::READ);
    for _ in 0..3 {
        expect(backend, &[(A, IN)], "a file can be read at any time");
    }
    let found = wait_at_most(backend, Some(TIMEOUT), 64);
    assert_eq!(found, [(A, IN)], "a wait ends at once where a file is watched");
    other.feed();
    expect(backend, &[(A, IN), (B, IN)], "a file does not displace others");
    need(backend.modify(A, Interest::WRITE), "a modify of a file");
    expect(backend, &[(A, OUT), (B, IN)], "a file can be written at any time");
    need(backend.modify(A, Interest::NONE), "silencing a file");
    expect(backend, &[(B, IN)], "a silent file is not reported");
    need(backend.modify(A, Interest::BOTH), "a modify of a file");
    expect(backend, &[(A, IN | OUT), (B, IN)], "the file is reported again");
    need(backend.remove(A), "removing a file");
    expect(backend, &[(B, IN)], "the file is gone");
    assert_eq!(file.references(), 0, "a reference to a file was kept");
}

pub(super) fn level_triggered_until_consumed(backend: &mut dyn Backend) {
    let (reader, socket) = (Source::new(Kind::PipeReader), Source::new(Kind::Socket));
    add(backend, &reader, A, Interest::READ);
    reader.feed();
    reader.feed();
    for _ in 0..5 {
        expect(backend, &[(A, IN)], "it was reported before, and is ready still");
    }
    reader.read(1);
    expect(backend, &[(A, IN)], "a part was read, the rest is there still");
    reader.consume();
    expect(backend, &[], "all of it was read");
    reader.feed();
    expect(backend, &[(A, IN)], "something new has come");

    add(backend, &socket, B, Interest::WRITE);
    for _ in 0..5 {
        expect(
            backend,
            &[(A, IN), (B, OUT)],
            "there is room still, and something to read",
        );
    }
}

/// The interest in an eventfd that is never read.
const DOORBELL: Interest = Interest::READ.union(Interest::EDGE);

pub(super) fn edges_report_every_new_activity(backend: &mut dyn Backend) {
    let bell = Source::new(Kind::Eventfd);
    add(backend, &bell, A, DOORBELL);
    expect(backend, &[], "the doorbell was not rung");
    for ring in 1..=5 {
        bell.feed();
        expect(backend, &[(A, IN)], &format!("ring {ring} is something new"));
    }
    need(backend.modify(A, Interest::NONE), "silencing a doorbell");
    bell.feed();
    expect(backend, &[], "a silent doorbell is not reported");
    need(backend.modify(A, DOORBELL), "a modify");
    expect(backend, &[(A, IN)], "it was rung while it was silent");
    bell.feed();
    backend.rebalance();
    expect(
        backend,
        &[(A, IN)],
        "a ring is not lost when the backend restructures itself",
    );
    for _ in 0..3 {
        need(backend.modify(A, DOORBELL), "a modify that changes nothing");
        expect(
            backend,
            &[(A, IN)],
            "a modify to the same interest arms an edge again",
        );
    }
    need(backend.modify(A, Interest::READ), "a modify to levels");
    for _ in 0..2 {
        expect(backend, &[(A, IN)], "with levels it is reported until it is read");
    }
    bell.consume();
    let late = Source::new(Kind::Eventfd);
    late.feed();
    add(backend, &late, B, DOORBELL);
    expect(backend, &[(B, IN)], "activity before the add is reported, too");
}

pub(super) fn edges_are_reported_once_where_claimed(backend: &mut dyn Backend) {
    let bell = Source::new(Kind::Eventfd);
    add(backend, &bell, A, DOORBELL);
    backend.rebalance();
    let claims = backend.reports_edges();
    for _ in 0..3 {
        bell.feed();
        expect(backend, &[(A, IN)], "it was rung");
        let again: &[(Token, Readiness)] = if claims { &[] } else { &[(A, IN)] };
        expect(backend, again, "it was neither rung again nor read");
    }
}

pub(super) fn hang_ups_are_reported(backend: &mut dyn Backend) {
    let mut pipe = Source::new(Kind::PipeReader);
    add(backend, &pipe, A, Interest::READ);
    pipe.feed();
    pipe.hang_up();
    expect(
        backend,
        &[(A, IN | HUP)],
        "there is something to read, and then the end",
    );
    pipe.consume();
    for _ in 0..3 {
        expect(backend, &[(A, HUP)], "only the end is left");
    }
    let mut socket = Source::new(Kind::Socket);
    add(backend, &socket, B, Interest::WRITE);
    socket.hang_up();
    expect(
        backend,
        &[(A, HUP), (B, OUT | HUP)],
        "a hang-up is reported to a writer, too",
    );
    need(backend.modify(B, Interest::READ), "a modify");
    expect(
        backend,
        &[(A, HUP), (B, IN | HUP | RDHUP)],
        "a hang-up of a socket is reported to a reader as the end of the data, too",
    );
}

pub(super) fn half_closes_are_reported(backend: &mut dyn Backend) {
    let socket = Source::new(Kind::Socket);
    add(backend, &socket, A, Interest::READ);
    socket.feed();
    socket.half_close();
    expect(
        backend,
        &[(A, IN | RDHUP)],
        "there is something to read, and then the end of the data",
    );
    socket.consume();
    for _ in 0..3 {
        expect(backend, &[(A, IN | RDHUP)], "only the end is left");
    }
    need(backend.modify(A, Interest::BOTH), "a modify");
    expect(backend, &[(A, IN | OUT | RDHUP)], "there is room to write still");
    need(backend.modify(A, Interest::WRITE), "a modify");
    expect(
        backend,
        &[(A, OUT)],
        "a half close does not concern a registration that only writes",
    );
    socket.fill();
    expect(backend, &[], "there is no room left");
}

pub(super) fn errors_are_reported(backend: &mut dyn Backend) {
    let mut pipe = Source::new(Kind::PipeWriter);
    add(backend, &pipe, A, Interest::WRITE);
    expect(backend, &[(A, OUT)], "there is room");
    pipe.hang_up();
    expect(backend, &[(A, OUT | ERR)], "the reader is closed");
    need(backend.modify(A, Interest::READ), "a modify");
    expect(backend, &[(A, ERR)], "an error is reported to a reader, too");
}

pub(super) fn a_closed_number_is_reported_or_silent(backend: &mut dyn Backend) {
    let other = Source::new(Kind::PipeReader);
    add(backend, &other, B, Interest::READ);
    for (round, is_shared) in [(0, false), (1, true)] {
        let token = Token::new(7, round);
        let pipe = Source::new(Kind::PipeReader);
        pipe.feed();
        let number = Number::of(&pipe.fd);
        need(
            backend.add(Rc::clone(&number).into(), token, Interest::READ),
            "an add",
        );
        expect(backend, &[(token, IN)], "it is open");
        // The file is closed with its number, unless another number shares it.
        let file = is_shared.then_some(pipe);
        number.close();
        other.feed();
        for _ in 0..3 {
            let found = check(backend);
            assert!(found.contains(&(B, IN)), "another one is not served: {found:?}");
            let fair = |what: Readiness| what == Readiness::NVAL || (file.is_some() && what == IN);
            for (token_seen, what) in found {
                let is_fair = token_seen == B || (token_seen == token && fair(what));
                assert!(is_fair, "a closed number was reported as {what:?}");
            }
        }
        other.consume();
        // It may return `NotFound`.
        let _ = backend.remove(token);
        assert_eq!(
            Rc::strong_count(&number),
            1,
            "the reference to a closed number was kept"
        );
        for _ in 0..3 {
            let start = Instant::now();
            let found = wait_at_most(backend, Some(Duration::from_millis(2)), 64);
            assert_eq!(found, [], "a closed number was reported after its removal");
            assert!(
                start.elapsed() >= Duration::from_millis(2),
                "a wait ended early after the removal of a closed number"
            );
        }
    }
    feed(other.mouth());
    expect(backend, &[(B, IN)], "the other one goes on");
}

pub(super) fn a_closed_number_is_refused(backend: &mut dyn Backend) {
    let other = Source::new(Kind::PipeReader);
    add(backend, &other, B, Interest::READ);
    other.feed();
    let number = Number::of(&other.fd);
    // Silent from the start, and closed afterwards.
    need(
        backend.add(Rc::clone(&number).into(), A, Interest::NONE),
        "an add without an interest",
    );
    let references = Rc::strong_count(&number);
    number.close();
    for interest in [Interest::READ, Interest::WRITE, Interest::READ | Interest::EDGE] {
        let late = Token::new(9, 0);
        let refusals = [
            backend.add(Rc::clone(&number).into(), late, interest),
            backend.modify(A, interest),
        ];
        for refusal in refusals {
            let errno = refusal.err().and_then(|why| Errno::from_io_error(&why));
            assert_eq!(errno, Some(Errno::BADF), "a closed number was to be refused");
        }
        assert!(
            backend.modify(late, interest).is_err(),
            "a closed number was refused, and is there"
        );
        assert_eq!(
            Rc::strong_count(&number),
            references,
            "a reference to a refused number was kept"
        );
        expect(
            backend,
            &[(B, IN)],
            "the other one goes on, and the closed one is silent",
        );
    }
    need(
        backend.modify(A, Interest::NONE),
        "a modify of a closed number to no interest",
    );
    need(backend.remove(A), "a remove");
    assert_eq!(
        Rc::strong_count(&number),
        1,
        "the reference to a closed number was kept"
    );
    add(
        backend,
        &Source::new(Kind::Eventfd),
        Token::new(9, 0),
        Interest::READ,
    );
}
