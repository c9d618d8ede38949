//! Guards that end a part of an iteration, also by a panic.

use std::ops::ControlFlow;

use aio_backend::Token;

use super::World;
use crate::PollSet;

/// The hits of an iteration. When it is dropped, also by a panic, the remaining hits are forgotten.
pub(super) struct Found<'a> {
    set: &'a PollSet,
    pub(super) tokens: Vec<Token>,
    next: usize,
}

impl<'a> Found<'a> {
    pub(super) fn of(world: &'a World) -> Self {
        Self {
            set: &world.set,
            tokens: Vec::new(),
            next: 0,
        }
    }

    pub(super) fn take(&mut self, token: Token, room: usize) -> ControlFlow<()> {
        if self.tokens.len() >= room {
            return ControlFlow::Break(());
        }
        self.tokens.push(token);
        ControlFlow::Continue(())
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).copied();
        self.next += 1;
        token
    }
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        while let Some(token) = self.next() {
            self.set.forget_hit(token);
        }
    }
}

pub(super) struct Depth<'a>(&'a World);

impl<'a> Depth<'a> {
    pub(super) fn enter(world: &'a World) -> Self {
        world.depth.set(world.depth.get() + 1);
        Self(world)
    }
}

impl Drop for Depth<'_> {
    fn drop(&mut self) {
        self.0.depth.set(self.0.depth.get() - 1);
    }
}

/// A guard while a source is served; a replacement of it is excluded as well.
pub(super) struct Running<'a>(pub(super) &'a World, pub(super) usize, pub(super) Token);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.change(self.1, |known| {
            if known.agent.token == self.2 {
                known.excluded -= 1;
            }
        });
    }
}
