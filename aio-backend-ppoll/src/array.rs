//! The array that `ppoll` reads, changed in place as registrations change.
//!
//! Registrations live in slots, found by their token's index. The ones that wait for something also have an entry in
//! the array. A silent one has none, because the kernel reports hang-ups and errors even where nothing is asked for.
//!
//! It never makes a system call.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aio_backend::{Interest, Readiness, ReadyList, Token, Watched};
use rustix::event::{PollFd, PollFlags};

/// The place of a slot that has no entry in the array.
const SILENT: u32 = u32::MAX >> INTEREST_BITS;
/// So many low bits of [`Slot::packed`] are the interest, the others the place.
const INTEREST_BITS: u32 = 3;

/// All registrations, and what `ppoll` is given of them.
#[derive(Debug, Default)]
pub(crate) struct Array {
    /// What the kernel reads and writes: dense, in no order. Each entry belongs to a slot, which holds its descriptor
    /// open; `pollfd` relies on that.
    polled: Vec<PollFd<'static>>,
    /// To which slot the entry of the same place in `polled` belongs.
    owners: Vec<u32>,
    /// Where the next search for ready entries starts.
    start: usize,
    /// By token index.
    slots: Vec<Option<Slot>>,
    /// How many slots are in use.
    used: usize,
    /// What a simulated kernel has answered, by place; empty if the kernel is real.
    answers: Vec<PollFlags>,
}

/// What is given to the kernel: all that are waited for.
#[derive(Debug)]
pub struct Polled<'a>(&'a mut Array);

/// There can be many, so it is as small as it can be: 24 bytes, of which the share takes 16.
#[derive(Debug)]
struct Slot {
    fd: Watched,
    generation: u32,
    packed: u32,
}

impl Slot {
    fn interest(&self) -> Interest {
        Interest::from_bits_truncate((self.packed & !(u32::MAX << INTEREST_BITS)) as u8)
    }

    /// Where in `polled`, or `SILENT`.
    fn place(&self) -> u32 {
        self.packed >> INTEREST_BITS
    }

    fn set(&mut self, interest: Interest, place: u32) {
        self.packed = place << INTEREST_BITS | u32::from(interest.bits());
    }
}

impl Array {
    /// Takes a registration in; `false` if its slot is taken.
    pub(crate) fn insert(&mut self, fd: Watched, token: Token, interest: Interest) -> bool {
        let index = token.index() as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        if self.slots[index].is_some() {
            return false;
        }
        self.used += 1;
        let (generation, packed) = (token.generation(), SILENT << INTEREST_BITS);
        self.slots[index] = Some(Slot {
            fd,
            generation,
            packed,
        });
        self.set_interest(token, interest)
    }

    /// The descriptor of a registration.
    pub(crate) fn get(&self, token: Token) -> Option<&Watched> {
        let slot = self.slots.get(token.index() as usize)?.as_ref()?;
        (slot.generation == token.generation()).then_some(&slot.fd)
    }

    /// Changes what a registration waits for; `false` if there is none of this token.
    pub(crate) fn set_interest(&mut self, token: Token, interest: Interest) -> bool {
        let Some(slot) = slot(&mut self.slots, token) else {
            return false;
        };
        match (slot.place(), interest) {
            (SILENT, Interest::NONE) => {}
            (place, Interest::NONE) => {
                slot.set(interest, SILENT);
                self.leave(place as usize);
            }
            (SILENT, _) => {
                slot.set(interest, self.polled.len() as u32);
                self.polled.push(pollfd(&slot.fd, interest));
                self.owners.push(token.index());
            }
            (place, _) => {
                slot.set(interest, place);
                self.polled[place as usize] = pollfd(&slot.fd, interest);
            }
        }
        true
    }

    /// Lets a registration go.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Watched> {
        // The entry goes before the share that it relies on.
        self.set_interest(token, Interest::NONE).then_some(())?;
        let slot = self.slots[token.index() as usize].take()?;
        self.used -= 1;
        Some(slot.fd)
    }

    /// Takes the entry at `place` out; the last entry moves there.
    fn leave(&mut self, place: usize) {
        self.polled.swap_remove(place);
        self.owners.swap_remove(place);
        if let Some(&moved) = self.owners.get(place)
            && let Some(slot) = &mut self.slots[moved as usize]
        {
            slot.set(slot.interest(), place as u32);
        }
    }

    /// For the kernel to look at and to write its answer into; for a simulated one, with room beside.
    #[inline]
    pub(crate) fn polled(&mut self, simulated: bool) -> Polled<'_> {
        if simulated {
            self.answers.clear();
            self.answers.resize(self.polled.len(), PollFlags::empty());
        }
        Polled(self)
    }

    /// Appends the `found` entries that the kernel has marked to `ready`, as far as there is room.
    ///
    /// When the room is used up, the next search starts where this one ended. Nobody starves, whatever is removed in
    /// between: the start goes round and round, and an entry that `leave` moves out of its way moves towards the front,
    /// which can happen only so often.
    pub(crate) fn collect(&mut self, mut found: usize, simulated: bool, ready: &mut ReadyList) {
        let count = self.polled.len();
        if self.start >= count {
            self.start = 0;
        }
        let places = (self.start..count).chain(0..self.start);
        for place in places {
            if found == 0 {
                return;
            }
            let answer = if simulated {
                self.answers[place]
            } else {
                self.polled[place].revents()
            };
            if answer.is_empty() {
                continue;
            }
            if ready.is_full() {
                self.start = place;
                return;
            }
            found -= 1;
            let index = self.owners[place];
            if let Some(slot) = &self.slots[index as usize] {
                ready.push(Token::new(index, slot.generation), readiness(answer));
            }
        }
    }

    /// How many registrations there are.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Shows all registrations, in slot order.
    pub(crate) fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        for (slot, index) in self.slots.iter().zip(0..) {
            if let Some(slot) = slot {
                each(&slot.fd, Token::new(index, slot.generation), slot.interest());
            }
        }
    }

    /// Hands all registrations over, in slot order.
    pub(crate) fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        let all = std::mem::take(self);
        // The entries go before the shares that they rely on.
        drop(all.polled);
        for (slot, index) in all.slots.into_iter().zip(0..) {
            if let Some(slot) = slot {
                let (token, interest) = (Token::new(index, slot.generation), slot.interest());
                each(slot.fd, token, interest);
            }
        }
    }

    /// Asserts that slots and entries agree.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(self.polled.len(), self.owners.len());
        let mut entries = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let place = slot.place();
            assert_eq!(place == SILENT, slot.interest() == Interest::NONE);
            if place != SILENT {
                entries += 1;
                assert_eq!(self.owners[place as usize] as usize, index);
                assert_eq!(
                    self.polled[place as usize].as_fd().as_raw_fd(),
                    slot.fd.as_raw_fd()
                );
            }
        }
        assert_eq!(entries, self.polled.len());
        assert_eq!(self.used, self.slots.iter().flatten().count());
    }
}

impl Polled<'_> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.polled.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.polled.is_empty()
    }

    pub(crate) fn entries(&mut self) -> &mut [PollFd<'static>] {
        &mut self.0.polled
    }

    pub(crate) fn get(&self, place: usize) -> Option<(BorrowedFd<'_>, Interest)> {
        let owner = *self.0.owners.get(place)?;
        let slot = self.0.slots[owner as usize].as_ref()?;
        Some((slot.fd.as_fd(), slot.interest()))
    }

    pub(crate) fn set_answer(&mut self, place: usize, readiness: Readiness) {
        let mut answer = PollFlags::empty();
        answer.set(PollFlags::IN, readiness.contains(Readiness::IN));
        answer.set(PollFlags::OUT, readiness.contains(Readiness::OUT));
        answer.set(PollFlags::HUP, readiness.contains(Readiness::HUP));
        answer.set(PollFlags::ERR, readiness.contains(Readiness::ERR));
        answer.set(PollFlags::NVAL, readiness.contains(Readiness::NVAL));
        self.0.answers[place] = answer;
    }
}

/// The slot of `token`, if it is still this registration's.
fn slot(slots: &mut [Option<Slot>], token: Token) -> Option<&mut Slot> {
    slots
        .get_mut(token.index() as usize)?
        .as_mut()
        .filter(|slot| slot.generation == token.generation())
}

/// The entry of a registration.
#[allow(
    unsafe_code,
    reason = "the array and the shares that keep it valid lie side by side, which no lifetime can say"
)]
fn pollfd(fd: &Watched, interest: Interest) -> PollFd<'static> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.contains(Interest::READ));
    flags.set(PollFlags::OUT, interest.contains(Interest::WRITE));
    // SAFETY: the descriptor must stay open as long as the entry exists. The slot that `fd` lies in holds a share in
    // its owner, and takes its entry out of the array before it lets the share go. While the share is there, nobody
    // can have exclusive access to the owner, and an owner who is only shared must keep what its `as_fd` has lent,
    // because the loan may last as long as the sharing.
    let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    PollFd::from_borrowed_fd(fd, flags)
}

/// What the kernel's answer means.
fn readiness(answer: PollFlags) -> Readiness {
    let mut readiness = Readiness::empty();
    readiness.set(Readiness::IN, answer.contains(PollFlags::IN));
    readiness.set(Readiness::OUT, answer.contains(PollFlags::OUT));
    readiness.set(Readiness::HUP, answer.contains(PollFlags::HUP));
    readiness.set(Readiness::ERR, answer.contains(PollFlags::ERR));
    readiness.set(Readiness::NVAL, answer.contains(PollFlags::NVAL));
    readiness
}

#[cfg(test)]
#[path = "array_tests.rs"]
mod tests;
