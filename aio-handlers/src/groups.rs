//! Pause groups: the depth of the pauses of each group, and its masked handlers.

use aio_backend::{Flag, Token};

use crate::steps::step;

/// A group of handlers that are paused and resumed together.
///
/// # Examples
/// ```
/// use aio_backend::{Interest, Readiness};
/// use aio_handlers::{GroupId, Recorded, Registry};
///
/// let mut registry = Registry::new();
/// let drive = registry.new_group();
/// let disk = registry.insert(Some(7), "a disk", Interest::READ, drive)?;
/// let socket = registry.insert(Some(8), "a socket", Interest::READ, GroupId::DEFAULT)?;
/// registry.pause(drive);
/// assert_eq!(registry.record(disk, Readiness::IN), Recorded::Masked);
/// assert_eq!(registry.record(socket, Readiness::IN), Recorded::Live);
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(u32);

impl GroupId {
    /// The default group. It can be paused like any other.
    pub const DEFAULT: Self = Self(0);
}

#[derive(Debug, Default)]
struct Group {
    depth: u32,
    masked: Vec<Token>,
}

/// All groups of a registry. The slot of a masked handler stores its position in the list of its group. A removal therefore needs no
/// search, and the list never has more entries than the group has live handlers.
#[derive(Debug)]
pub(crate) struct Groups {
    all: Vec<Group>,
    /// The number of paused groups. It is usually zero, which is faster to test than a group's depth.
    paused: u32,
    /// Set while any group is paused.
    flag: Flag,
}

impl Groups {
    /// Makes the default group. `flag` shows whether any group is paused.
    pub(crate) fn flagged(flag: Flag) -> Self {
        Self {
            all: vec![Group::default()],
            paused: 0,
            flag,
        }
    }

    pub(crate) fn add(&mut self) -> GroupId {
        let index = u32::try_from(self.all.len());
        self.all.push(Group::default());
        GroupId(index.expect("four thousand million groups do not fit into memory"))
    }

    pub(crate) fn contains(&self, group: GroupId) -> bool {
        (group.0 as usize) < self.all.len()
    }

    /// Returns whether any group is paused.
    #[inline]
    pub(crate) fn has_paused(&self) -> bool {
        self.paused != 0
    }

    #[inline]
    pub(crate) fn is_paused(&self, group: GroupId) -> bool {
        step();
        self.paused != 0
            && self
                .all
                .get(group.0 as usize)
                .is_some_and(|group| group.depth != 0)
    }

    pub(crate) fn pause(&mut self, group: GroupId) -> u32 {
        let group = self.entry(group);
        group.depth = group.depth.checked_add(1).expect("paused too often");
        let depth = group.depth;
        self.paused += u32::from(depth == 1);
        self.flag.set(true);
        depth
    }

    /// Ends one pause. Returns the masked handlers if it was the last one.
    pub(crate) fn resume(&mut self, group: GroupId) -> Option<Vec<Token>> {
        let group = self.entry(group);
        assert!(group.depth > 0, "resumed more often than paused");
        group.depth -= 1;
        let list = (group.depth == 0).then(|| std::mem::take(&mut group.masked));
        self.paused -= u32::from(list.is_some());
        self.flag.set(self.paused != 0);
        list
    }

    /// Reuses the memory of a list that [`resume`](Self::resume) returned.
    pub(crate) fn recycle(&mut self, group: GroupId, mut list: Vec<Token>) {
        list.clear();
        self.entry(group).masked = list;
    }

    /// Adds a handler to the list of its paused group. Returns its position.
    pub(crate) fn list(&mut self, group: GroupId, token: Token) -> u32 {
        let group = self.entry(group);
        debug_assert!(
            group.depth > 0,
            "the group is not paused, so no resume would clear its list"
        );
        let position = u32::try_from(group.masked.len());
        group.masked.push(token);
        position.expect("a group has no more handlers than there are slots")
    }

    /// Removes the handler at `position` from the list. Returns the handler that moved to this position, if there is one.
    pub(crate) fn unlist(&mut self, group: GroupId, position: u32) -> Option<Token> {
        let position = position as usize;
        let group = self.entry(group);
        group.masked.swap_remove(position);
        group.masked.get(position).copied()
    }

    /// Returns the masked handlers of a group.
    pub(crate) fn listed(&self, group: GroupId) -> &[Token] {
        self.all
            .get(group.0 as usize)
            .map_or(&[], |group| group.masked.as_slice())
    }

    /// Returns the capacity of a group's list.
    #[cfg(test)]
    pub(crate) fn room(&self, group: GroupId) -> usize {
        self.all[group.0 as usize].masked.capacity()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = GroupId> {
        (0u32..).take(self.all.len()).map(GroupId)
    }

    fn entry(&mut self, group: GroupId) -> &mut Group {
        step();
        assert!(self.contains(group), "{group:?} was not made by this registry");
        &mut self.all[group.0 as usize]
    }
}
