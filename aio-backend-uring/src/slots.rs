//! [`Slots`]: the state of each registration in the ring, and the lists of those that have something to do.
//!
//! A slot is in one list at most. The lists are doubly linked through the slots, so that nothing is searched or allocated when a
//! registration enters or leaves one.

use aio_backend::Readiness;

/// The state of a registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// No request, in no list: there is no registration, it has no interest, or its file cannot have an event of its interest.
    #[default]
    Silent,
    /// No request; in a list, to be armed by the next enter.
    Due,
    /// A one-shot request is in the kernel; in no list.
    Armed,
    /// A multishot request is in the kernel; in no list.
    Streaming,
    /// A completion has come and left no request; in the list of completions.
    Found,
    /// A completion of a multishot request has come, and the request goes on; in the list of completions.
    FoundStreaming,
    /// Was ready, and a multishot request goes on; in a list, to be verified by the next wait.
    Recheck,
}

impl State {
    /// Returns whether the kernel has a request.
    pub(crate) fn is_armed(self) -> bool {
        matches!(
            self,
            Self::Armed | Self::Streaming | Self::FoundStreaming | Self::Recheck
        )
    }

    fn is_due(self) -> bool {
        matches!(self, Self::Due | Self::Recheck)
    }

    fn is_listed(self) -> bool {
        matches!(
            self,
            Self::Due | Self::Found | Self::FoundStreaming | Self::Recheck
        )
    }
}

/// One registration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    previous: u32,
    next: u32,
    /// The sequence of its latest request.
    pub(crate) sequence: u32,
    /// The wait of which its completion tells the state: the one that submitted that request, or in which its activity came.
    pub(crate) known_in: u32,
    /// The wait that reported an event of its multishot request.
    pub(crate) reported_in: u32,
    /// What its completions reported that are in the list.
    pub(crate) readiness: Readiness,
    pub(crate) state: State,
    /// A level-triggered interest needs a multishot request: see [`crate::wait`].
    pub(crate) needs_multishot: bool,
}

/// A list of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// To be armed, or verified, by this wait.
    Due,
    /// Reported by this wait: due in the next one.
    Served,
    /// Completions, in the order in which they came.
    Found,
}

/// The nodes before the first slot are the ends of the lists.
const LISTS: u32 = 3;

/// All slots, by the index of their tokens.
#[derive(Debug)]
pub(crate) struct Slots {
    nodes: Vec<Slot>,
    /// The number of slots that are to be armed or verified.
    due: usize,
}

impl Default for Slots {
    fn default() -> Self {
        let end = |node| Slot {
            previous: node,
            next: node,
            ..Slot::default()
        };
        Self {
            nodes: (0..LISTS).map(end).collect(),
            due: 0,
        }
    }
}

impl Slots {
    /// Makes sure that there is a slot `index`, and resets it.
    pub(crate) fn reset(&mut self, index: u32) {
        let node = (index + LISTS) as usize;
        if node >= self.nodes.len() {
            self.nodes.resize(node + 1, Slot::default());
        }
        debug_assert!(!self.nodes[node].state.is_listed() && !self.nodes[node].state.is_armed());
        self.nodes[node] = Slot::default();
    }

    pub(crate) fn get(&self, index: u32) -> &Slot {
        &self.nodes[(index + LISTS) as usize]
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.nodes[(index + LISTS) as usize]
    }

    /// Returns the slot whose latest request has this sequence.
    pub(crate) fn find(&mut self, index: u32, sequence: u32) -> Option<&mut Slot> {
        let slot = self.nodes.get_mut(index as usize + LISTS as usize)?;
        (slot.sequence == sequence && slot.state.is_armed()).then_some(slot)
    }

    /// Changes the state of a slot, and moves it to the end of `list`, or out of any.
    pub(crate) fn set(&mut self, index: u32, state: State, list: Option<List>) {
        debug_assert_eq!(state.is_listed(), list.is_some());
        let former = self.get(index).state;
        if former.is_listed() {
            self.unlink(index + LISTS);
        }
        self.due += usize::from(state.is_due());
        self.due -= usize::from(former.is_due());
        self.get_mut(index).state = state;
        if let Some(list) = list {
            self.append(index + LISTS, list as u32);
        }
    }

    /// A slot whose request was put into the submission queue leaves [`List::Due`].
    #[inline]
    pub(crate) fn arm(&mut self, index: u32, state: State) {
        debug_assert!(state.is_armed() && !state.is_listed());
        debug_assert_eq!(self.get(index).state, State::Due);
        self.unlink(index + LISTS);
        self.due -= 1;
        self.get_mut(index).state = state;
    }

    /// A slot that was in no list, whose request has completed, enters [`List::Found`].
    #[inline]
    pub(crate) fn found(&mut self, index: u32, state: State) {
        debug_assert!(state.is_listed() && !state.is_due());
        debug_assert!(!self.get(index).state.is_listed());
        self.append(index + LISTS, List::Found as u32);
        self.get_mut(index).state = state;
    }

    /// A slot that was reported moves from [`List::Found`] to [`List::Served`].
    #[inline]
    pub(crate) fn serve(&mut self, index: u32, state: State) {
        debug_assert!(state.is_due());
        debug_assert!(matches!(
            self.get(index).state,
            State::Found | State::FoundStreaming
        ));
        let node = index + LISTS;
        self.unlink(node);
        self.append(node, List::Served as u32);
        self.due += 1;
        self.get_mut(index).state = state;
    }

    /// Returns the first slot of a list.
    #[inline]
    pub(crate) fn first(&self, list: List) -> Option<u32> {
        self.nodes[list as usize].next.checked_sub(LISTS)
    }

    /// Returns the slot after this one in its list.
    pub(crate) fn after(&self, index: u32) -> Option<u32> {
        self.get(index).next.checked_sub(LISTS)
    }

    /// Returns the number of slots that are to be armed or verified, by this wait or the next one.
    pub(crate) fn count_due(&self) -> usize {
        self.due
    }

    /// Returns whether any slot is in a list.
    #[inline]
    pub(crate) fn has_listed(&self) -> bool {
        [List::Due, List::Served, List::Found]
            .into_iter()
            .any(|list| self.first(list).is_some())
    }

    /// Moves all slots of [`List::Served`] to the end of [`List::Due`], whatever their number.
    pub(crate) fn begin_wait(&mut self) {
        let (served, due) = (List::Served as u32, List::Due as u32);
        let Slot {
            previous: last,
            next: first,
            ..
        } = self.nodes[served as usize];
        if first == served {
            return;
        }
        let before = self.nodes[due as usize].previous;
        self.nodes[before as usize].next = first;
        self.nodes[first as usize].previous = before;
        self.nodes[last as usize].next = due;
        self.nodes[due as usize].previous = last;
        let end = &mut self.nodes[served as usize];
        (end.previous, end.next) = (served, served);
    }

    #[inline]
    fn unlink(&mut self, node: u32) {
        let Slot { previous, next, .. } = self.nodes[node as usize];
        self.nodes[previous as usize].next = next;
        self.nodes[next as usize].previous = previous;
    }

    #[inline]
    fn append(&mut self, node: u32, end: u32) {
        let last = self.nodes[end as usize].previous;
        self.nodes[last as usize].next = node;
        let slot = &mut self.nodes[node as usize];
        (slot.previous, slot.next) = (last, end);
        self.nodes[end as usize].previous = node;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(slots: &Slots, list: List) -> Vec<u32> {
        std::iter::successors(slots.first(list), |&index| slots.after(index)).collect()
    }

    fn slots(count: u32) -> Slots {
        let mut slots = Slots::default();
        (0..count).for_each(|index| slots.reset(index));
        slots
    }

    #[test]
    fn d2_lists_keep_the_order_and_slots_leave_from_any_place() {
        let mut slots = slots(5);
        assert!(!slots.has_listed());
        for index in [3, 0, 4, 1] {
            slots.set(index, State::Due, Some(List::Due));
        }
        assert_eq!(listed(&slots, List::Due), [3, 0, 4, 1]);
        slots.set(4, State::Armed, None);
        slots.set(3, State::Found, Some(List::Found));
        slots.set(1, State::Silent, None);
        assert_eq!(listed(&slots, List::Due), [0]);
        assert_eq!(listed(&slots, List::Found), [3]);
        assert_eq!(slots.count_due(), 1);
        slots.set(0, State::Due, Some(List::Due));
        slots.set(1, State::Due, Some(List::Due));
        assert_eq!(listed(&slots, List::Due), [0, 1]);
        assert!(slots.has_listed());
    }

    #[test]
    fn d2_what_a_wait_has_served_is_due_after_the_others() {
        let mut slots = slots(4);
        slots.begin_wait();
        slots.set(2, State::Due, Some(List::Served));
        slots.set(1, State::Due, Some(List::Served));
        slots.set(3, State::Due, Some(List::Due));
        slots.begin_wait();
        assert_eq!(listed(&slots, List::Due), [3, 2, 1]);
        assert_eq!(listed(&slots, List::Served), []);
        slots.set(0, State::Due, Some(List::Served));
        for index in [3, 1, 2] {
            slots.set(index, State::Armed, None);
        }
        slots.begin_wait();
        assert_eq!(listed(&slots, List::Due), [0]);
    }

    #[test]
    fn r2_a_request_is_found_by_its_own_sequence_while_it_is_armed() {
        let mut slots = slots(1);
        slots.get_mut(0).sequence = 7;
        assert!(slots.find(0, 7).is_none(), "it is not armed");
        slots.set(0, State::Armed, None);
        assert!(slots.find(0, 7).is_some());
        assert!(slots.find(0, 6).is_none() && slots.find(1, 7).is_none());
        assert!(slots.find(u32::MAX, 7).is_none());
    }
}
