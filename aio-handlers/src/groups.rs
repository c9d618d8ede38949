//! Pause groups: counted, and what was parked in each.

use aio_backend::Token;

/// A group of handlers that are paused and resumed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group of those that name no other. It can be paused like any other.
    pub const DEFAULT: Self = Self(0);
}

#[derive(Debug, Default)]
struct Group {
    depth: u32,
    parked: Vec<Token>,
}

/// All groups of a registry.
#[derive(Debug)]
pub(crate) struct Groups(Vec<Group>);

impl Groups {
    pub(crate) fn new() -> Self {
        Self(vec![Group::default()])
    }

    pub(crate) fn add(&mut self) -> GroupId {
        self.0.push(Group::default());
        GroupId(u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX))
    }

    pub(crate) fn contains(&self, group: GroupId) -> bool {
        (group.0 as usize) < self.0.len()
    }

    fn entry(&mut self, group: GroupId) -> &mut Group {
        let index = group.0 as usize;
        assert!(index < self.0.len(), "{group:?} was not made by this registry");
        &mut self.0[index]
    }

    pub(crate) fn is_paused(&self, group: GroupId) -> bool {
        self.0.get(group.0 as usize).is_some_and(|group| group.depth != 0)
    }

    pub(crate) fn pause(&mut self, group: GroupId) -> u32 {
        let group = self.entry(group);
        group.depth += 1;
        group.depth
    }

    /// Takes back one pause; what was parked, if it was the last.
    pub(crate) fn resume(&mut self, group: GroupId) -> Option<Vec<Token>> {
        let group = self.entry(group);
        assert!(group.depth > 0, "resumed more often than paused");
        group.depth -= 1;
        (group.depth == 0).then(|| std::mem::take(&mut group.parked))
    }

    pub(crate) fn park(&mut self, group: GroupId, token: Token) {
        self.entry(group).parked.push(token);
    }
}
