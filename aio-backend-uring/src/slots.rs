//! [`Slots`]: the state of each registration in the ring, and the lists of those with pending work.
//!
//! A slot is in one list at most. The lists are doubly linked through the slots, so that no search and no allocation is needed
//! when a registration enters or leaves one.

use std::os::fd::RawFd;

use aio_backend::{Interest, Readiness, Token};

use crate::calls::{Request, asked};
use crate::keys::Key;

/// The state of a registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// No request, in no list: there is no registration, it has no interest, or its file cannot have an event of its interest.
    #[default]
    Silent,
    /// No request; in a list, to be armed by the next enter.
    Due,
    /// A completion has come and left no request; in the list of completions.
    Found,
    /// A one-shot request is in the kernel; in no list.
    Armed,
    /// A multishot request is in the kernel; in no list.
    Streaming,
    /// A completion of a multishot request has come, and the request goes on; in the list of completions.
    FoundStreaming,
    /// Was ready, and a multishot request goes on; in a list, to be verified by the next wait.
    Recheck,
}

impl State {
    /// Returns `true` if the kernel has a request.
    #[inline]
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

/// One registration. All data for an event is stored here; [`Registrations`](aio_backend::Registrations) has the owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    previous: u32,
    next: u32,
    /// The sequence of its latest request.
    pub(crate) sequence: u32,
    /// The wait for which its completion is exact: the one that submitted that request, or in which its activity came.
    pub(crate) known_in: u32,
    /// The wait that reported an event of its multishot request.
    pub(crate) reported_in: u32,
    /// The generation of its token.
    pub(crate) generation: u32,
    /// The number of its descriptor.
    fd: RawFd,
    /// The readiness that its completions in the list reported.
    pub(crate) readiness: Readiness,
    /// The readiness that concerns its interest. Empty if it belongs to no registration.
    mask: Readiness,
    interest: Interest,
    pub(crate) state: State,
    /// Set if it reads or writes, is level-triggered, and one-shot requests serve it. So an exact completion only has to be
    /// reported.
    is_plain: bool,
    /// Set if a level-triggered interest needs a multishot request: see [`crate::wait`].
    needs_multishot: bool,
}

impl Slot {
    #[inline]
    pub(crate) fn interest(&self) -> Interest {
        self.interest
    }

    /// Returns the readiness that concerns its interest.
    #[inline]
    pub(crate) fn mask(&self) -> Readiness {
        self.mask
    }

    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    pub(crate) fn needs_multishot(&self) -> bool {
        self.needs_multishot
    }

    /// Sets its interest. It needs no multishot request then.
    #[inline]
    pub(crate) fn set_interest(&mut self, interest: Interest) {
        (self.interest, self.mask) = (interest, interest.mask() - Readiness::NVAL);
        (self.is_plain, self.needs_multishot) = (is_plain(interest), false);
    }

    pub(crate) fn set_needs_multishot(&mut self) {
        (self.is_plain, self.needs_multishot) = (false, true);
    }

    /// Returns its poll request, with this sequence.
    #[inline(always)]
    pub(crate) fn request(&self, index: u32, sequence: u32, is_multishot: bool) -> Request {
        let key = Key::Poll {
            slot: index,
            sequence,
        };
        Request::Poll {
            key: key.to_bits(),
            fd: self.fd,
            readiness: asked(self.mask),
            is_multishot,
        }
    }
}

/// Returns `true` if an interest has no modes and no priority. A completion may be wrong for those.
#[inline]
fn is_plain(interest: Interest) -> bool {
    interest.intersects(Interest::BOTH) && Interest::BOTH.contains(interest)
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            previous: NONE,
            next: NONE,
            sequence: 0,
            known_in: 0,
            reported_in: 0,
            generation: 0,
            fd: -1,
            readiness: Readiness::empty(),
            mask: Readiness::empty(),
            interest: Interest::NONE,
            state: State::Silent,
            is_plain: false,
            needs_multishot: false,
        }
    }
}

/// The number for no slot. It is beyond any index.
const NONE: u32 = u32::MAX;

/// The first and the last slot of a list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

const EMPTY: Ends = Ends {
    first: NONE,
    last: NONE,
};

/// All slots, by the index of their tokens.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    ends: [Ends; 3],
    /// The number of slots that are to be armed or verified: those of [`List::Due`] and [`List::Served`].
    due: usize,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            ends: [EMPTY; 3],
            due: 0,
        }
    }
}

impl Slots {
    /// Makes a slot for `token` if there is none, and resets it.
    #[inline]
    pub(crate) fn reset(&mut self, token: Token, fd: RawFd, interest: Interest) {
        let index = token.index() as usize;
        if index >= self.slots.len() {
            self.grow(index);
        }
        let slot = &mut self.slots[index];
        debug_assert!(!slot.state.is_listed() && !slot.state.is_armed());
        *slot = Slot {
            generation: token.generation(),
            fd,
            ..Slot::default()
        };
        slot.set_interest(interest);
    }

    #[cold]
    fn grow(&mut self, index: usize) {
        debug_assert!(index < NONE as usize);
        self.slots.resize(index + 1, Slot::default());
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// Returns the slot whose latest request has this sequence.
    #[inline]
    pub(crate) fn find(&mut self, index: u32, sequence: u32) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(index as usize)?;
        (slot.sequence == sequence && slot.state.is_armed()).then_some(slot)
    }

    /// As [`find`](Self::find), if that request is one-shot.
    #[inline]
    pub(crate) fn armed_once(&self, index: u32, sequence: u32) -> Option<&Slot> {
        let slot = self.slots.get(index as usize)?;
        (slot.sequence == sequence && slot.state == State::Armed).then_some(slot)
    }

    /// Changes the state of a slot, and moves it to the end of `list`, or out of all lists.
    #[inline]
    pub(crate) fn set(&mut self, index: u32, state: State, list: Option<List>) {
        debug_assert_eq!(state.is_listed(), list.is_some());
        let slot = self.get_mut(index);
        let former = std::mem::replace(&mut slot.state, State::Silent);
        if former.is_listed() {
            self.unlink(index, former);
        }
        match list {
            Some(List::Due) => self.append(index, state, List::Due),
            Some(List::Served) => self.append(index, state, List::Served),
            Some(List::Found) => self.append(index, state, List::Found),
            None => self.get_mut(index).state = state,
        }
    }

    /// Arms the plain slots at the front of [`List::Due`], up to the first for which `push` has no room. It puts a request into the submission queue
    /// and returns its sequence. `wait` is the number of this wait.
    #[inline(always)]
    pub(crate) fn arm_plain(&mut self, wait: u32, mut push: impl FnMut(u32, &Slot) -> Option<u32>) {
        let mut front = self.ends[List::Due as usize].first;
        let mut armed = 0;
        while let Some(slot) = self.slots.get_mut(front as usize)
            && slot.is_plain
            && slot.state == State::Due
            && let Some(sequence) = push(front, slot)
        {
            (slot.state, slot.sequence, slot.known_in) = (State::Armed, sequence, wait);
            front = slot.next;
            armed += 1;
        }
        self.cut(front, armed);
    }

    /// Arms the first slot of [`List::Due`], whose request with this sequence was put into the submission queue in this wait.
    pub(crate) fn arm_first(&mut self, state: State, sequence: u32, wait: u32) {
        debug_assert!(state.is_armed() && !state.is_listed());
        let first = self.ends[List::Due as usize].first;
        let slot = self.get_mut(first);
        debug_assert_eq!(slot.state, State::Due);
        (slot.state, slot.sequence, slot.known_in) = (state, sequence, wait);
        let next = slot.next;
        self.cut(next, 1);
    }

    /// Removes the first `count` slots from [`List::Due`]. `first` is the first one of the remaining list.
    #[inline]
    fn cut(&mut self, first: u32, count: usize) {
        let ends = &mut self.ends[List::Due as usize];
        ends.first = first;
        match self.slots.get_mut(first as usize) {
            Some(first) => first.previous = NONE,
            None => ends.last = NONE,
        }
        self.due -= count;
    }

    /// Appends a slot that is in no list to a list.
    #[inline]
    pub(crate) fn append(&mut self, index: u32, state: State, list: List) {
        debug_assert!(state.is_listed());
        debug_assert!(!self.get(index).state.is_listed());
        let last = std::mem::replace(&mut self.ends[list as usize].last, index);
        match self.slots.get_mut(last as usize) {
            Some(last) => last.next = index,
            None => self.ends[list as usize].first = index,
        }
        let slot = &mut self.slots[index as usize];
        (slot.previous, slot.next, slot.state) = (last, NONE, state);
        self.due += usize::from(state.is_due());
    }

    /// Removes a slot that was in this state from its list.
    #[inline]
    fn unlink(&mut self, index: u32, former: State) {
        let Slot { previous, next, .. } = self.slots[index as usize];
        match self.slots.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => self.move_end(|ends| &mut ends.first, index, next),
        }
        match self.slots.get_mut(next as usize) {
            Some(next) => next.previous = previous,
            None => self.move_end(|ends| &mut ends.last, index, previous),
        }
        self.due -= usize::from(former.is_due());
    }

    /// Moves the end of the list that has this slot at that end.
    fn move_end(&mut self, end: fn(&mut Ends) -> &mut u32, index: u32, to: u32) {
        if let Some(found) = self.ends.iter_mut().map(end).find(|end| **end == index) {
            *found = to;
        }
    }

    /// Returns the first slot of a list.
    #[inline]
    pub(crate) fn first(&self, list: List) -> Option<u32> {
        let first = self.ends[list as usize].first;
        (first != NONE).then_some(first)
    }

    /// Returns the slot after this one in its list.
    pub(crate) fn after(&self, index: u32) -> Option<u32> {
        let next = self.get(index).next;
        (next != NONE).then_some(next)
    }

    /// Returns the number of slots that this wait or the next one arms or verifies.
    #[inline]
    pub(crate) fn count_due(&self) -> usize {
        self.due
    }

    /// Returns `true` if [`List::Found`] has a slot.
    #[inline]
    pub(crate) fn has_found(&self) -> bool {
        self.ends[List::Found as usize].first != NONE
    }

    /// Returns `true` if any slot is in a list.
    #[inline]
    pub(crate) fn has_listed(&self) -> bool {
        self.due != 0 || self.has_found()
    }

    /// Appends all slots of [`List::Served`] to [`List::Due`], in constant time.
    #[inline]
    pub(crate) fn begin_wait(&mut self) {
        let [due, served, _] = &mut self.ends;
        let Ends { first, last } = std::mem::replace(served, EMPTY);
        let Some(slot) = self.slots.get_mut(first as usize) else {
            return;
        };
        let before = std::mem::replace(&mut due.last, last);
        slot.previous = before;
        match self.slots.get_mut(before as usize) {
            Some(before) => before.next = first,
            None => due.first = first,
        }
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
        (0..count).for_each(|index| slots.reset(Token::new(index, 1), 0, Interest::READ));
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
    fn d2_plain_slots_leave_the_front_together_up_to_the_first_that_is_not_or_has_no_room() {
        for (room, left) in [(0, [0, 1, 2, 3].as_slice()), (1, &[1, 2, 3]), (9, &[2, 3])] {
            let mut slots = slots(4);
            slots.get_mut(2).set_interest(Interest::READ | Interest::EDGE);
            for index in 0..4 {
                slots.append(index, State::Due, List::Due);
            }
            let mut pushed = 0;
            slots.arm_plain(7, |_, _| {
                pushed += 1;
                (pushed <= room).then_some(100 + pushed)
            });
            assert_eq!(listed(&slots, List::Due), left);
            assert_eq!(slots.count_due(), left.len());
            for index in 0..4 - left.len() as u32 {
                let slot = slots.find(index, 101 + index).copied().unwrap();
                assert_eq!((slot.state, slot.known_in), (State::Armed, 7));
                assert!(slots.armed_once(index, 101 + index).is_some());
            }
            // The remaining ones can leave from both ends, and others come.
            slots.set(3, State::Silent, None);
            slots.set(left[0], State::Found, Some(List::Found));
            slots.append(3, State::Due, List::Due);
            assert_eq!(listed(&slots, List::Due).last(), Some(&3));
            assert_eq!(slots.count_due(), left.len() - 1);
        }
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
