//! Pipes that a ladder watches, and the events that it should report.

use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};

/// A watched pipe, and the number of bytes in it.
struct Pipe {
    reader: Rc<PipeReader>,
    writer: PipeWriter,
    interest: Interest,
    unread: u32,
}

/// A model of a backend's registrations.
#[derive(Default)]
pub(crate) struct World {
    pipes: BTreeMap<Token, Pipe>,
    next: u32,
}

impl World {
    pub(crate) fn len(&self) -> usize {
        self.pipes.len()
    }

    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.pipes.keys().copied().collect()
    }

    /// Adds a pipe. It reuses the slots of removed ones, as a registry does.
    pub(crate) fn add(&mut self, backend: &mut dyn Backend, interest: Interest) -> Token {
        let (reader, writer) = std::io::pipe().unwrap();
        let taken: Vec<u32> = self.pipes.keys().map(|token| token.index()).collect();
        let free = (0..).find(|index| !taken.contains(index)).unwrap();
        let token = Token::new(free, self.next);
        self.next += 1;
        let reader = Rc::new(reader);
        backend.add(reader.clone().into(), token, interest).unwrap();
        self.pipes.insert(
            token,
            Pipe {
                reader,
                writer,
                interest,
                unread: 0,
            },
        );
        token
    }

    pub(crate) fn modify(&mut self, backend: &mut dyn Backend, token: Token, interest: Interest) {
        backend.modify(token, interest).unwrap();
        self.pipes.get_mut(&token).unwrap().interest = interest;
    }

    /// Removes a pipe; the backend must drop its reference.
    pub(crate) fn remove(&mut self, backend: &mut dyn Backend, token: Token) {
        backend.remove(token).unwrap();
        let pipe = self.pipes.remove(&token).unwrap();
        assert_eq!(Rc::strong_count(&pipe.reader), 1, "a share was kept");
    }

    /// Puts one byte into a pipe.
    pub(crate) fn kick(&mut self, token: Token) {
        let pipe = self.pipes.get_mut(&token).unwrap();
        pipe.writer.write_all(b"x").unwrap();
        pipe.unread += 1;
    }

    /// Takes one byte out of a pipe.
    pub(crate) fn consume(&mut self, token: Token) {
        let pipe = self.pipes.get_mut(&token).unwrap();
        (&*pipe.reader).read_exact(&mut [0]).unwrap();
        pipe.unread -= 1;
    }

    /// Checks without waiting, and compares the events with the data in the pipes: none is lost, none is
    /// doubled, and no silent registration is reported.
    pub(crate) fn expect(&mut self, backend: &mut dyn Backend) -> Vec<Token> {
        let mut ready = ReadyList::with_limit(self.len() + 1);
        backend.wait(Some(Duration::ZERO), &mut ready).unwrap();
        let mut found: Vec<_> = ready.iter().collect();
        found.sort_by_key(|&(token, _)| token);
        let waiting = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.unread > 0 && pipe.interest.contains(Interest::READ));
        let expected: Vec<_> = waiting.map(|(&token, _)| (token, Readiness::IN)).collect();
        assert_eq!(found, expected);
        expected.into_iter().map(|(token, _)| token).collect()
    }

    /// Removes all remaining pipes.
    pub(crate) fn end(mut self, backend: &mut dyn Backend) {
        for token in self.tokens() {
            self.remove(backend, token);
        }
        self.expect(backend);
    }
}
