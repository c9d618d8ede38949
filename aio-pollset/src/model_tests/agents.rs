//! The sources of the model. Each checks its own calls.

use std::cell::Cell;
use std::rc::{Rc, Weak};

use aio_backend::Token;

use super::World;
use crate::Source;

/// A source, and a record of its calls.
pub(super) struct Agent {
    pub(super) world: Weak<World>,
    pub(super) place: usize,
    pub(super) token: Token,
    pub(super) nests: bool,
    pub(super) begun: Cell<bool>,
    /// Set while it is the present one of its token.
    pub(super) live: Cell<bool>,
    /// Set once it, or a source that it replaced, has had a `poll_begin` or a mark by the caller: it may be
    /// polled before it begins.
    pub(super) knows: Cell<bool>,
    /// The number of its polls in this round.
    pub(super) polls: Cell<u32>,
}

/// The same as another type, for an array of its own.
pub(super) struct Other(pub(super) Rc<Agent>);

impl Source for Agent {
    fn poll(&self) -> bool {
        let world = self.world.upgrade().expect("it is being used");
        world.may_be_polled(self);
        self.polls.set(self.polls.get() + 1);
        let is_on = world.set.is_on() && world.in_round.get();
        assert!(self.begun.get() || self.knows.get() || !is_on, "R7: {self:?}");
        world.act();
        world.devices[self.place].work.get()
    }

    fn poll_begin(&self) {
        let world = self.world.upgrade().expect("it is being used");
        assert!(self.live.get() && !self.begun.replace(true), "R7: {self:?}");
        assert!(
            world.set.is_promoted(self.token),
            "{self:?} begins and is not polled"
        );
        world.act();
    }

    fn poll_end(&self) {
        assert!(self.begun.replace(false), "A5: {self:?} ends without a begin");
        self.knows.set(true);
        if let Some(world) = self.world.upgrade() {
            assert!(world.set.is_calling());
            world.act();
        }
    }

    fn nests(&self) -> bool {
        self.nests
    }
}

impl Source for Other {
    fn poll(&self) -> bool {
        self.0.poll()
    }
    fn poll_begin(&self) {
        self.0.poll_begin();
    }
    fn poll_end(&self) {
        self.0.poll_end();
    }
    fn nests(&self) -> bool {
        self.0.nests()
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} (begun: {}, live: {})",
            self.token,
            self.begun.get(),
            self.live.get()
        )
    }
}
