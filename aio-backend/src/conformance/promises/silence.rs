//! Interests, and silence.

use std::time::{Duration, Instant};

use super::super::fixtures::{
    A, B, ERR, HUP, IN, Kind, OUT, RDHUP, Source, add, check, expect, need, wait_at_most,
};
use crate::{Backend, Interest, Token};

pub(super) fn modify_changes_what_is_reported(backend: &mut dyn Backend) {
    let socket = Source::new(Kind::Socket);
    socket.feed();
    add(backend, &socket, A, Interest::READ);
    expect(backend, &[(A, IN)], "the interest is reading");
    for _ in 0..3 {
        need(backend.modify(A, Interest::WRITE), "a modify");
        expect(backend, &[(A, OUT)], "the interest is writing now");
        need(
            backend.modify(A, Interest::WRITE),
            "a modify that changes nothing",
        );
        expect(backend, &[(A, OUT)], "nothing was changed");
        need(backend.modify(A, Interest::BOTH), "a modify");
        expect(backend, &[(A, IN | OUT)], "the interest is both now");
        need(backend.modify(A, Interest::READ), "a modify");
        expect(backend, &[(A, IN)], "the interest is only reading now");
    }
    // No wait in between.
    for interest in [Interest::WRITE, Interest::NONE, Interest::READ, Interest::WRITE] {
        need(backend.modify(A, interest), "a modify");
    }
    expect(backend, &[(A, OUT)], "the last modify holds");
}

pub(super) fn only_the_interest_is_reported(backend: &mut dyn Backend) {
    let socket = Source::new(Kind::Socket);
    socket.feed();
    add(backend, &socket, A, Interest::WRITE);
    expect(
        backend,
        &[(A, OUT)],
        "the interest is only writing, and it is readable, too",
    );
    need(backend.modify(A, Interest::READ), "a modify");
    expect(
        backend,
        &[(A, IN)],
        "the interest is only reading, and it is writable, too",
    );
    socket.consume();
    expect(backend, &[], "the interest is only reading, and there is no data");
    need(backend.modify(A, Interest::WRITE), "a modify");
    socket.fill();
    socket.feed();
    let found = wait_at_most(backend, Some(Duration::from_millis(1)), 64);
    assert_eq!(found, [], "the interest is only writing, and there is no room");
}

pub(super) fn silence_covers_everything_and_can_be_left(backend: &mut dyn Backend) {
    let mut sources = [Kind::PipeReader, Kind::Socket, Kind::PipeWriter].map(Source::new);
    sources[0].feed();
    for (index, source) in (0..).zip(&mut sources) {
        // Some are silent from the start.
        let interest = if index == 0 {
            Interest::NONE
        } else {
            Interest::READ
        };
        add(backend, source, Token::new(index, 5), interest);
        need(
            backend.modify(Token::new(index, 5), Interest::NONE),
            "silencing one",
        );
        source.hang_up();
    }
    for _ in 0..3 {
        expect(backend, &[], "all are silent, though ready, hung up and broken");
    }
    let [pipe, socket, writer] = [0, 1, 2].map(|index| Token::new(index, 5));
    for token in [pipe, socket, writer] {
        need(backend.modify(token, Interest::READ), "leaving silence");
    }
    expect(
        backend,
        &[(pipe, IN | HUP), (socket, IN | HUP | RDHUP), (writer, ERR)],
        "all are reported again",
    );
    need(backend.modify(socket, Interest::NONE), "silencing one");
    need(backend.modify(writer, Interest::NONE), "silencing one");
    expect(backend, &[(pipe, IN | HUP)], "one is left");
    need(backend.remove(pipe), "a remove");
    need(backend.remove(socket), "a remove of a silent one");
    expect(backend, &[], "none is left that speaks");
}

pub(super) fn silence_does_not_spin(backend: &mut dyn Backend) {
    let (mut silent, mut silenced) = (Source::new(Kind::Socket), Source::new(Kind::PipeReader));
    add(backend, &silent, A, Interest::NONE);
    add(backend, &silenced, B, Interest::READ);
    silenced.hang_up();
    expect(backend, &[(B, HUP)], "it hung up");
    need(backend.modify(B, Interest::NONE), "silencing it");
    silent.feed();
    silent.hang_up();
    for _ in 0..5 {
        let (start, timeout) = (Instant::now(), Duration::from_millis(2));
        let found = wait_at_most(backend, Some(timeout), 64);
        let took = start.elapsed();
        assert_eq!(found, [], "both are silent");
        assert!(
            took >= timeout,
            "a wait of {timeout:?} ended after {took:?}, because a silent descriptor has hung up"
        );
    }
    need(backend.modify(A, Interest::READ), "leaving silence");
    assert_eq!(check(backend), [(A, IN | HUP | RDHUP)], "it is reported again");
}
