//! Registrations: tokens, ownership, removal.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use super::super::fixtures::{A, B, IN, Kind, OUT, Source, add, check, expect, feed, need, wait_at_most};
use crate::{Backend, Interest, Token};

pub(super) fn remove_and_use_the_number_again(backend: &mut dyn Backend) {
    for round in 0..5 {
        let mut source = Source::new(Kind::PipeReader);
        source.feed();
        let former = Token::new(round, 0);
        add(backend, &source, former, Interest::READ);
        expect(backend, &[(former, IN)], "it is ready");
        need(backend.remove(former), "a remove");
        // The file stays open under another number, and is still ready.
        let ghost = need(source.fd.try_clone(), "one more descriptor");
        expect(backend, &[], "it was removed, though it is ready still");

        // Now the number means another file, without having been free for a moment.
        let next = Source::new(Kind::Eventfd);
        let Some(number) = Rc::get_mut(&mut source.fd) else {
            panic!("a reference was kept after a remove");
        };
        need(
            rustix::io::dup2(&*next.fd, number),
            "giving a number another file",
        );
        let latter = Token::new(round, 1);
        add(backend, &source, latter, Interest::READ);
        let found = wait_at_most(backend, Some(std::time::Duration::from_millis(1)), 64);
        assert_eq!(
            found,
            [],
            "the number's new file is not ready; its former file is, and was removed"
        );
        feed(&*next.fd);
        expect(backend, &[(latter, IN)], "the number's new file is ready");
        need(backend.remove(latter), "a remove");
        drop(ghost);
    }
}

pub(super) fn remove_and_use_the_slot_again(backend: &mut dyn Backend) {
    for generation in 0..20 {
        let counter = Source::new(Kind::Eventfd);
        let token = Token::new(3, generation);
        counter.feed();
        add(backend, &counter, token, Interest::READ);
        expect(
            backend,
            &[(token, IN)],
            "an event carries the token of the latest add",
        );
        need(backend.remove(token), "a remove");
        expect(backend, &[], "it was removed, though it is ready still");
        let gone = backend
            .modify(token, Interest::READ)
            .map_err(|error| error.kind());
        assert_eq!(gone, Err(io::ErrorKind::NotFound), "modify after a remove");
    }
}

pub(super) fn another_descriptor_of_the_same_file_is_another_registration(backend: &mut dyn Backend) {
    let counter = Source::new(Kind::Eventfd);
    let twin = Source {
        kind: Kind::Eventfd,
        fd: Rc::new(need(counter.fd.try_clone(), "one more descriptor")),
        peer: None,
    };
    add(backend, &counter, A, Interest::READ);
    add(backend, &twin, B, Interest::BOTH);
    expect(backend, &[(B, OUT)], "one of them waits for room");
    counter.feed();
    expect(
        backend,
        &[(A, IN), (B, IN | OUT)],
        "the file is ready, for both of them",
    );
    need(backend.remove(A), "a remove");
    drop(counter);
    for _ in 0..3 {
        expect(backend, &[(B, IN | OUT)], "the other one goes on alone");
    }
    need(backend.remove(B), "a remove");
    expect(backend, &[], "both are gone");
}

pub(super) fn a_known_token_is_refused(backend: &mut dyn Backend) {
    let (first, second) = (Source::new(Kind::Eventfd), Source::new(Kind::Eventfd));
    add(backend, &first, A, Interest::READ);
    second.feed();
    let refused = backend.add(second.watched(), A, Interest::READ);
    let refused = refused.map_err(|error| error.kind());
    assert_eq!(
        refused,
        Err(io::ErrorKind::AlreadyExists),
        "a token was added twice"
    );
    assert_eq!(second.references(), 0, "the reference of a refused add was kept");
    assert!(
        first.references() > 0,
        "a refused add dropped the reference of the existing registration"
    );
    expect(
        backend,
        &[],
        "the one that was refused is ready, and is not watched",
    );
    first.feed();
    expect(backend, &[(A, IN)], "the one that was there goes on");
    need(backend.remove(A), "a remove");
    add(backend, &second, A, Interest::READ);
    expect(backend, &[(A, IN)], "after a remove there is no reason to refuse");
}

pub(super) fn unknown_tokens_are_errors(backend: &mut dyn Backend) {
    let counter = Source::new(Kind::Eventfd);
    let refuses = |backend: &mut dyn Backend, token: Token| {
        let modified = backend
            .modify(token, Interest::READ)
            .map_err(|error| error.kind());
        assert_eq!(modified, Err(io::ErrorKind::NotFound), "modify of {token:?}");
        let removed = backend.remove(token).map_err(|error| error.kind());
        assert_eq!(removed, Err(io::ErrorKind::NotFound), "remove of {token:?}");
    };
    for token in [A, Token::new(0, 0), Token::new(12_345, 0)] {
        refuses(backend, token);
    }
    add(backend, &counter, A, Interest::READ);
    counter.feed();
    for generation in [A.generation() - 1, A.generation() + 1] {
        refuses(backend, Token::new(A.index(), generation));
    }
    expect(
        backend,
        &[(A, IN)],
        "another generation of its slot means nothing to it",
    );
    need(backend.remove(A), "a remove");
    refuses(backend, A);
}

pub(super) fn descriptors_are_kept_until_removal(backend: &mut dyn Backend) {
    for (kind, interest) in [
        (Kind::Eventfd, Interest::READ),
        (Kind::PipeReader, Interest::NONE),
        (Kind::File, Interest::WRITE),
    ] {
        let (source, other) = (Source::new(kind), Source::new(Kind::Eventfd));
        add(backend, &source, A, interest);
        add(backend, &other, B, Interest::READ);
        for after in ["add", "a wait", "modify", "a wait"] {
            assert!(
                source.references() > 0,
                "the reference to a {kind:?} was dropped after {after}"
            );
            match after {
                "modify" => need(backend.modify(A, Interest::BOTH), "a modify"),
                _ => drop(check(backend)),
            }
        }
        need(backend.remove(A), "a remove");
        assert_eq!(
            source.references(),
            0,
            "the reference to a {kind:?} was kept after remove"
        );
        check(backend);
        let before = other.references();
        backend.drain(&mut |fd, _, _| drop(fd));
        assert!(before > 0, "the reference was dropped before drain");
        assert_eq!(other.references(), 0, "the reference was kept after drain");
    }
}

/// The peer of a socket reads the end of its data as soon as the socket is closed.
pub(super) fn files_are_closed_after_removal(backend: &mut dyn Backend) {
    for end in ["remove", "modify and remove", "drain"] {
        for activity in ["none", "data", "data that was read", "room"] {
            let source = Source::new(Kind::Socket);
            let interest = if activity == "room" {
                Interest::WRITE
            } else {
                Interest::READ
            };
            if activity == "room" {
                source.fill();
            }
            add(backend, &source, A, interest);
            expect(backend, &[], "it is not ready");
            match activity {
                "none" => {}
                "room" => source.make_room(),
                _ => source.feed(),
            }
            if activity == "data that was read" {
                source.consume();
            }
            if end == "drain" {
                backend.drain(&mut |fd, _, _| drop(fd));
            } else {
                if end == "modify and remove" {
                    need(backend.modify(A, Interest::NONE), "a modify");
                }
                need(backend.remove(A), "a remove");
                expect(backend, &[], "it was removed");
            }
            let Source { fd, peer, .. } = source;
            assert_eq!(Rc::strong_count(&fd), 1, "a reference was kept after {end}");
            drop(fd);
            let peer = peer.expect("a socket has a peer");
            let mut bytes = [0; 64];
            let read = loop {
                match rustix::io::read(&peer, &mut bytes) {
                    // The data that the socket had written.
                    Ok(read) if read > 0 => {}
                    read => break read,
                }
            };
            let is_closed = matches!(read, Ok(0) | Err(rustix::io::Errno::CONNRESET));
            assert!(
                is_closed,
                "the file is open after {end}; activity before it: {activity}"
            );
        }
    }
}

pub(super) fn visit_shows_every_registration(backend: &mut dyn Backend) {
    let interests = [Interest::WRITE, Interest::NONE, Interest::READ, Interest::BOTH];
    let kinds = [Kind::Eventfd, Kind::Eventfd, Kind::Socket, Kind::File];
    let sources = kinds.map(Source::new);
    let tokens = [0, 1, 2, 3].map(|index| Token::new(index * 3, 2));
    let shown = |backend: &dyn Backend| {
        let mut shown = Vec::new();
        backend.visit(&mut |fd, token, interest| shown.push((token, fd.as_raw_fd(), interest)));
        shown.sort_by_key(|(token, _, _)| *token);
        let (watched, seen) = (backend.watched(), shown.len());
        assert!(
            watched == seen,
            "visit shows {seen} registrations, and watched returns {watched}"
        );
        shown
    };
    let mut expected = Vec::new();
    assert!(
        shown(backend) == expected,
        "visit shows a registration of an empty backend"
    );
    for (source, token) in sources.iter().zip(tokens) {
        add(backend, source, token, Interest::READ);
    }
    for ((source, token), interest) in sources.iter().zip(tokens).zip(interests) {
        need(backend.modify(token, interest), "a modify");
        expected.push((token, source.fd.as_raw_fd(), interest));
    }
    for _ in 0..2 {
        let shown = shown(backend);
        assert!(
            shown == expected,
            "{expected:?} were to be shown, and {shown:?} are shown"
        );
    }
    sources[2].feed();
    let first = [(tokens[0], OUT), (tokens[2], IN), (tokens[3], IN | OUT)];
    expect(backend, &first, "to be shown changes nothing");
    while let Some((token, _, _)) = expected.pop() {
        need(backend.remove(token), "a remove");
        assert!(
            shown(backend) == expected,
            "a removed registration is shown, or counted"
        );
    }
}

pub(super) fn drain_hands_everything_over(backend: &mut dyn Backend) {
    let interests = [
        Interest::READ,
        Interest::NONE,
        Interest::BOTH,
        Interest::NONE,
        Interest::WRITE,
    ];
    let kinds = [
        Kind::Eventfd,
        Kind::Eventfd,
        Kind::Socket,
        Kind::Socket,
        Kind::File,
    ];
    let sources = kinds.map(Source::new);
    let tokens = [0, 1, 2, 3, 4].map(|index| Token::new(index * 3, 2));
    for _ in 0..2 {
        for (source, token) in sources.iter().zip(tokens) {
            add(backend, source, token, Interest::READ);
        }
        for (token, interest) in tokens.into_iter().zip(interests) {
            need(backend.modify(token, interest), "a modify");
        }
        let mut drained = Vec::new();
        backend.drain(&mut |fd, token, interest| drained.push((token, fd.as_raw_fd(), interest)));
        drained.sort_by_key(|(token, _, _)| *token);
        let numbers = sources.iter().map(|source| source.fd.as_raw_fd());
        let expected: Vec<_> = tokens
            .into_iter()
            .zip(numbers)
            .zip(interests)
            .map(|((token, number), interest)| (token, number, interest))
            .collect();
        assert!(
            drained == expected,
            "a drain was to hand over {expected:?}, and handed over {drained:?}"
        );
        for (source, token) in sources.iter().zip(tokens) {
            assert_eq!(source.references(), 0, "a reference was kept after drain");
            assert!(
                backend.modify(token, Interest::READ).is_err(),
                "{token:?} is there after drain"
            );
        }
        sources[0].feed();
        sources[2].feed();
        expect(backend, &[], "it is empty");
        backend.drain(&mut |_, token, _| panic!("{token:?} was handed over by an empty backend"));
        add(backend, &sources[0], Token::new(0, 9), Interest::READ);
        expect(
            backend,
            &[(Token::new(0, 9), IN)],
            "it is as if newly made, and can be used again",
        );
        need(backend.remove(Token::new(0, 9)), "a remove");
    }
}
