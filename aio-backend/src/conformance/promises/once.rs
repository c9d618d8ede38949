//! Interests in one event, and in priority.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::net::SendFlags;

use super::super::disturb::skip;
use super::super::fixtures::{
    A, B, HUP, IN, Kind, OUT, PRI, RDHUP, Source, add, check, expect, expect_soon, need, wait_at_most,
};
use crate::{Backend, Interest, Readiness, ReadyList, Token};

const ONCE: Interest = Interest::READ.union(Interest::ONESHOT);
const BOTH_ONCE: Interest = Interest::BOTH.union(Interest::ONESHOT);

pub(super) fn oneshot_reports_one_event(backend: &mut dyn Backend) {
    let other = Source::new(Kind::Eventfd);
    other.feed();
    add(backend, &other, B, Interest::READ);
    for (round, kind) in (7..).zip([Kind::PipeReader, Kind::Socket, Kind::Eventfd, Kind::File]) {
        let token = Token::new(7, round);
        let mut source = Source::new(kind);
        add(backend, &source, token, ONCE);
        if kind != Kind::File {
            expect(backend, &[(B, IN)], "there is no event yet");
            source.feed();
        }
        expect(backend, &[(B, IN), (token, IN)], "the first event");
        if kind != Kind::File {
            source.feed();
        }
        source.hang_up();
        for _ in 0..3 {
            expect(
                backend,
                &[(B, IN)],
                "the only event was reported, and others are reported still",
            );
        }
        need(backend.remove(token), "a remove after the event");
        assert_eq!(source.references(), 0, "a reference was kept after a remove");
    }
    let socket = Source::new(Kind::Socket);
    socket.feed();
    socket.half_close();
    add(backend, &socket, A, BOTH_ONCE);
    let mut ready = ReadyList::new();
    need(backend.wait(Some(Duration::ZERO), &mut ready), "a wait");
    let found: Vec<Readiness> = ready
        .iter()
        .filter(|(token, _)| *token == A)
        .map(|(_, what)| what)
        .collect();
    assert_eq!(found, [IN | OUT | RDHUP], "one event carries all readiness");
    expect(backend, &[(B, IN)], "both directions are silent");
}

pub(super) fn oneshot_does_not_spin(backend: &mut dyn Backend) {
    let mut socket = Source::new(Kind::Socket);
    let file = Source::new(Kind::File);
    add(backend, &socket, A, ONCE);
    add(backend, &file, B, ONCE);
    socket.feed();
    expect(backend, &[(A, IN), (B, IN)], "the first events");
    socket.hang_up();
    for _ in 0..5 {
        let (start, timeout) = (Instant::now(), Duration::from_millis(2));
        let found = wait_at_most(backend, Some(timeout), 64);
        let took = start.elapsed();
        assert_eq!(found, [], "both had their only event");
        assert!(
            took >= timeout,
            "a wait of {timeout:?} ended after {took:?}, because of a registration that had its only event"
        );
    }
    assert!(!backend.always_ready(), "no event is left to report");
}

pub(super) fn oneshot_is_armed_again_by_modify(backend: &mut dyn Backend) {
    let (mut socket, file) = (Source::new(Kind::Socket), Source::new(Kind::File));
    socket.feed();
    add(backend, &socket, A, ONCE);
    add(backend, &file, B, ONCE);
    for _ in 0..3 {
        expect(backend, &[(A, IN), (B, IN)], "both are armed");
        expect(backend, &[], "both had their only event");
        for token in [A, B] {
            need(backend.modify(token, ONCE), "a modify to the same interest");
        }
    }
    expect(backend, &[(A, IN), (B, IN)], "both are armed");
    need(backend.modify(A, Interest::WRITE | Interest::ONESHOT), "a modify");
    expect(backend, &[(A, OUT)], "the interest is writing now");
    expect(backend, &[], "it had its only event");
    socket.hang_up();
    need(backend.modify(A, ONCE), "a modify");
    expect(backend, &[(A, IN | HUP | RDHUP)], "it has hung up meanwhile");
    // Before its event.
    need(backend.modify(A, BOTH_ONCE), "a modify");
    need(backend.modify(A, Interest::NONE), "silencing one");
    expect(backend, &[], "it was silenced before its event");
    need(backend.modify(A, Interest::READ), "a modify to levels");
    need(backend.modify(B, Interest::WRITE), "a modify to levels");
    for _ in 0..3 {
        expect(
            backend,
            &[(A, IN | HUP | RDHUP), (B, OUT)],
            "with levels they are reported again and again",
        );
    }
}

pub(super) fn oneshot_is_no_interest_after_its_event(backend: &mut dyn Backend) {
    let sources: Vec<_> = (0..150).map(|_| Source::new(Kind::Eventfd)).collect();
    for (index, source) in (0..).zip(&sources) {
        source.feed();
        add(backend, source, Token::new(index, 1), ONCE);
        backend.rebalance();
    }
    let shown = |backend: &dyn Backend| {
        let mut asleep = 0;
        backend.visit(&mut |_, _, interest| asleep += usize::from(interest == Interest::NONE));
        asleep
    };
    let (mut reported, start) = (0, Instant::now());
    while reported < sources.len() {
        assert!(
            start.elapsed() < super::super::fixtures::TIMEOUT,
            "an event is missing"
        );
        let found = wait_at_most(backend, Some(Duration::ZERO), 64);
        reported += found.len();
        assert_eq!(shown(backend), reported, "an event is the end of an interest");
    }
    // Below the number at which a backend may restructure itself.
    for index in 10..150 {
        need(backend.remove(Token::new(index, 1)), "a remove");
        backend.rebalance();
        expect(backend, &[], "restructuring arms no registration again");
    }
    let mut all = Vec::new();
    backend.drain(&mut |fd, token, interest| all.push((fd, token, interest)));
    assert_eq!(all.len(), 10, "a drain hands over those without an interest, too");
    for (fd, token, interest) in all {
        assert_eq!(interest, Interest::NONE, "an event is the end of an interest");
        need(backend.add(fd, token, interest), "an add");
    }
    expect(backend, &[], "none is armed");
    need(backend.modify(Token::new(3, 1), ONCE), "a modify");
    expect(backend, &[(Token::new(3, 1), IN)], "it is armed again");
}

/// Returns both ends of a TCP connection over the loopback device.
fn connection() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let far = TcpStream::connect(listener.local_addr()?)?;
    let (near, _) = listener.accept()?;
    near.set_nonblocking(true)?;
    Ok((near.into(), far.into()))
}

pub(super) fn priority_is_reported_to_those_that_wait_for_it(backend: &mut dyn Backend) {
    let (near, far) = match connection() {
        Ok(ends) => ends,
        Err(why) => return skip("priority_is_reported_to_those_that_wait_for_it", &why.to_string()),
    };
    let near = Rc::new(near);
    let added = backend.add(Rc::clone(&near).into(), A, Interest::PRIORITY);
    need(added, "an add with an interest in priority");
    expect(backend, &[], "there is no urgent data");
    let urge = || {
        need(
            rustix::net::send(&far, b"!", SendFlags::OOB),
            "sending urgent data",
        )
    };
    urge();
    expect_soon(backend, &[(A, PRI)], "urgent data has come");
    expect(backend, &[(A, PRI)], "it is there still");
    need(backend.modify(A, Interest::BOTH | Interest::PRIORITY), "a modify");
    let found = check(backend);
    assert!(
        matches!(*found, [(A, what)] if what.contains(PRI | OUT) && !what.intersects(HUP | RDHUP)),
        "there is urgent data, and room: a check found {found:?}"
    );
    for interest in [Interest::READ, Interest::WRITE, Interest::BOTH] {
        need(backend.modify(A, interest), "a modify");
        let found = check(backend);
        assert!(
            found.iter().all(|(_, what)| !what.contains(PRI)),
            "urgent data does not concern {interest:?}, and a check found {found:?}"
        );
    }
    need(
        backend.modify(A, Interest::PRIORITY | Interest::ONESHOT),
        "a modify",
    );
    expect(backend, &[(A, PRI)], "it is armed for one event");
    expect(backend, &[], "it had its only event");
    urge();
    expect(backend, &[], "it is not armed");

    let file = Source::new(Kind::File);
    add(backend, &file, B, Interest::PRIORITY);
    expect(backend, &[], "a file has no priority");
    need(backend.modify(B, Interest::READ | Interest::PRIORITY), "a modify");
    expect(backend, &[(B, IN)], "a file can be read at any time");
    need(backend.modify(B, Interest::PRIORITY), "a modify");
    expect(backend, &[], "a file has no priority");
    assert!(!backend.always_ready(), "no event is left to report");
    need(backend.remove(B), "a remove");
    assert_eq!(file.references(), 0, "a reference was kept after a remove");
}
