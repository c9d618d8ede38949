//! The array that `ppoll` reads, changed in place as registrations change.
//!
//! Registrations live in slots, indexed by token. A registration with an interest also has an entry in the array. A silent one
//! has none, because the kernel reports hang-ups and errors even without an interest.
//!
//! It never makes a system call.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aio_backend::{Entry, Interest, Readiness, ReadyList, Registrations, Token, Watched};
use rustix::event::{PollFd, PollFlags};

/// The mark of a registration without an entry in the array.
const SILENT: u32 = Entry::MARK_MAX;

/// The bit of an owner whose interest is one-shot. No slot has a number with this bit, so other events need
/// no test for it.
const ONCE: u32 = 1 << 31;

/// All registrations, and the array that `ppoll` reads.
#[derive(Debug, Default)]
pub(crate) struct Array {
    /// The array that the kernel reads and writes: dense, in no order. Each entry belongs to a slot, which keeps its descriptor
    /// open; `pollfd` relies on that.
    polled: Vec<PollFd<'static>>,
    /// The slot of the entry at the same position in `polled`, with [`ONCE`] if its interest is one-shot.
    owners: Vec<u32>,
    /// The position at which the next search for ready entries starts.
    start: usize,
    /// The registrations. The mark of each is its position in `polled`, or `SILENT`.
    registrations: Registrations,
    /// The registrations whose only event was reported, until the search that reported them ends.
    reported_once: Vec<Token>,
    /// The results of a simulated kernel, by position; empty if the kernel is real.
    answers: Vec<PollFlags>,
}

/// The entries for the kernel: one for each registration with an interest.
///
/// # Examples
/// ```
/// use std::{io, os::fd::BorrowedFd, rc::Rc, time::Duration};
/// use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
/// use aio_backend_ppoll::{Ppoll, sys::{Polled, Sys}};
///
/// /// A simulated kernel: there is always room to write, and never data to read.
/// #[derive(Debug)]
/// struct Sink;
///
/// impl Sys for Sink {
///     const SIMULATED: bool = true;
///     fn find(&self, _: BorrowedFd<'_>) -> io::Result<()> {
///         Ok(())
///     }
///     fn ppoll(&self, polled: &mut Polled<'_>, _: Option<Duration>) -> io::Result<usize> {
///         let writable = |place: &usize| polled.iter().nth(*place).is_some_and(|(_, interest)| interest.contains(Interest::WRITE));
///         let places: Vec<usize> = (0..polled.len()).filter(writable).collect();
///         places.iter().for_each(|place| polled.answer(*place, Readiness::OUT));
///         Ok(places.len())
///     }
/// }
///
/// let (reader, writer) = io::pipe()?;
/// let (mut backend, mut ready) = (Ppoll::with_sys(Sink), ReadyList::new());
/// backend.add(Rc::new(reader).into(), Token::new(0, 0), Interest::READ)?;
/// backend.add(Rc::new(writer).into(), Token::new(1, 0), Interest::WRITE)?;
/// backend.wait(None, &mut ready)?;
/// assert_eq!(ready.iter().collect::<Vec<_>>(), [(Token::new(1, 0), Readiness::OUT)]);
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Debug)]
pub struct Polled<'a>(&'a mut Array);

impl Array {
    /// Adds a registration. Returns `false` if its slot is taken.
    pub(crate) fn insert(&mut self, fd: Watched, token: Token, interest: Interest) -> bool {
        if self.registrations.is_taken(token) {
            return false;
        }
        self.registrations.insert(token, fd, Interest::NONE, SILENT);
        self.set_interest(token, interest)
    }

    /// Returns the descriptor of a registration.
    pub(crate) fn get(&self, token: Token) -> Option<&Watched> {
        self.registrations.get(token).map(Entry::fd)
    }

    /// Changes the interest of a registration. Returns `false` if the token is unknown.
    pub(crate) fn set_interest(&mut self, token: Token, interest: Interest) -> bool {
        let Some(entry) = self.registrations.get_mut(token) else {
            return false;
        };
        match (entry.mark(), interest) {
            (SILENT, Interest::NONE) => {}
            (place, Interest::NONE) => {
                entry.set(interest, SILENT);
                self.leave(place as usize);
            }
            (SILENT, _) => {
                entry.set(interest, self.polled.len() as u32);
                self.polled.push(pollfd(entry.fd(), interest));
                self.owners.push(owner(token, interest));
            }
            (place, _) => {
                entry.set(interest, place);
                self.polled[place as usize] = pollfd(entry.fd(), interest);
                self.owners[place as usize] = owner(token, interest);
            }
        }
        true
    }

    /// Removes a registration, and returns its descriptor.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Watched> {
        // The entry is removed before the reference that it relies on.
        self.set_interest(token, Interest::NONE).then_some(())?;
        self.registrations.remove(token).map(Entry::into_fd)
    }

    /// Removes the entry at `place`; the last entry moves there.
    fn leave(&mut self, place: usize) {
        self.polled.swap_remove(place);
        self.owners.swap_remove(place);
        if let Some(&moved) = self.owners.get(place)
            && let Some(entry) = self.registrations.at_mut(moved & !ONCE)
        {
            entry.set_mark(place as u32);
        }
    }

    /// Returns the array for the kernel, which writes its results there; for a simulated kernel, with separate room for results.
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
    /// When the room is used up, the next search starts where this one ended. No entry starves, even if
    /// others are removed in between: the start moves round and round, and `leave` moves an entry away from
    /// it only towards the front, which cannot repeat for ever.
    ///
    /// A one-shot entry is silent afterwards.
    pub(crate) fn collect(&mut self, found: usize, simulated: bool, ready: &mut ReadyList) {
        self.collect_all(found, simulated, ready);
        if !self.reported_once.is_empty() {
            self.silence_reported();
        }
    }

    #[cold]
    fn silence_reported(&mut self) {
        let mut tokens = std::mem::take(&mut self.reported_once);
        for token in tokens.drain(..) {
            self.set_interest(token, Interest::NONE);
        }
        self.reported_once = tokens;
    }

    /// Reports a one-shot entry. Its place in the array stays until the search ends.
    #[cold]
    fn report_once(&mut self, owner: u32, readiness: Readiness, ready: &mut ReadyList) {
        if let Some((token, _)) = self.registrations.at(owner & !ONCE) {
            ready.push(token, readiness);
            self.reported_once.push(token);
        }
    }

    fn collect_all(&mut self, mut found: usize, simulated: bool, ready: &mut ReadyList) {
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
            let owner = self.owners[place];
            match self.registrations.at(owner) {
                Some((token, _)) => _ = ready.push(token, readiness(answer)),
                None => self.report_once(owner, readiness(answer), ready),
            }
        }
    }

    /// Returns the number of registrations.
    pub(crate) fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Passes all registrations to `each`, in slot order.
    pub(crate) fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.registrations.visit(each);
    }

    /// Removes all registrations and passes them to `each`, in slot order.
    pub(crate) fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        let all = std::mem::take(self);
        // The entries are dropped before the references that they rely on.
        drop(all.polled);
        all.registrations.drain(each);
    }

    /// Asserts that slots and entries agree.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(self.polled.len(), self.owners.len());
        let mut entries = 0;
        for (token, entry) in self.registrations.iter() {
            let place = entry.mark();
            assert_eq!(place == SILENT, entry.interest() == Interest::NONE);
            if place != SILENT {
                entries += 1;
                assert_eq!(self.owners[place as usize], owner(token, entry.interest()));
                assert_eq!(
                    self.polled[place as usize].as_fd().as_raw_fd(),
                    entry.fd().as_raw_fd()
                );
            }
        }
        assert_eq!(entries, self.polled.len());
    }
}

impl Polled<'_> {
    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.polled.len()
    }

    /// Returns whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.polled.is_empty()
    }

    pub(crate) fn entries(&mut self) -> &mut [PollFd<'static>] {
        &mut self.0.polled
    }

    pub(crate) fn get(&self, place: usize) -> Option<(BorrowedFd<'_>, Interest)> {
        let owner = *self.0.owners.get(place)?;
        let (_, entry) = self.0.registrations.at(owner & !ONCE)?;
        Some((entry.fd().as_fd(), entry.interest()))
    }

    pub(crate) fn set_answer(&mut self, place: usize, readiness: Readiness) {
        self.0.answers[place] = PollFlags::from_bits_retain(readiness.to_system() as _);
    }
}

/// The entry of a registration.
#[allow(
    unsafe_code,
    reason = "the array and the references that keep it valid lie side by side, which no lifetime can express"
)]
fn pollfd(fd: &Watched, interest: Interest) -> PollFd<'static> {
    // The kernel always reports errors, hang-ups and closed numbers.
    let asked = interest.mask() - (Readiness::HUP | Readiness::ERR | Readiness::NVAL);
    let flags = PollFlags::from_bits_retain(asked.to_system() as _);
    // SAFETY: the descriptor must stay open as long as the entry exists. The registration that `fd` belongs
    // to holds a reference to its owner, and removes its entry from the array before it drops the reference.
    // While the reference exists, no code can have exclusive access to the owner. A shared owner must keep
    // the descriptor that its `as_fd` has lent, because the loan may last as long as the sharing.
    let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    PollFd::from_borrowed_fd(fd, flags)
}

/// Returns the entry of `owners` for a registration with an interest.
fn owner(token: Token, interest: Interest) -> u32 {
    if interest.contains(Interest::ONESHOT) {
        token.index() | ONCE
    } else {
        token.index()
    }
}

const _: () = {
    let all = PollFlags::IN
        .union(PollFlags::PRI)
        .union(PollFlags::OUT)
        .union(PollFlags::ERR)
        .union(PollFlags::HUP)
        .union(PollFlags::NVAL)
        .union(PollFlags::RDHUP);
    assert!(Readiness::all().to_system() == all.bits() as u32);
};

/// Converts the kernel's result. The bits are the same.
fn readiness(answer: PollFlags) -> Readiness {
    Readiness::from_system(answer.bits() as u32)
}

#[cfg(test)]
#[path = "array_tests.rs"]
mod tests;
