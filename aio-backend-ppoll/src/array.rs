//! The pollfd array, kept up to date with every change instead of being built for every wait.
//!
//! Entries without an interest are in the table but not in the array: the kernel would report a hang-up even to who asked
//! for nothing.

use std::fmt;

use aio_backend::{Interest, Readiness, ReadyList, Token, Watched};
use rustix::event::{PollFd, PollFlags};

const SILENT: u32 = u32::MAX;

/// What is watched, by the token's index.
struct Entry {
    token: Token,
    interest: Interest,
    /// Where it is in the array.
    place: u32,
    share: Watched,
}

/// The array and the table beside it.
#[derive(Default)]
pub(crate) struct Array {
    polled: Vec<PollFd<'static>>,
    /// Whose the entries of `polled` are, at the same places.
    tokens: Vec<Token>,
    entries: Vec<Option<Entry>>,
    /// Where the next report starts, so that a full list starves nobody.
    start: usize,
}

impl Array {
    pub(crate) fn insert(&mut self, share: Watched, token: Token, interest: Interest) {
        let index = token.index() as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] = Some(Entry {
            token,
            interest: Interest::NONE,
            place: SILENT,
            share,
        });
        self.set_interest(token, interest);
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Watched> {
        self.set_interest(token, Interest::NONE);
        let slot = self.entries.get_mut(token.index() as usize)?;
        slot.take_if(|entry| entry.token == token)
            .map(|entry| entry.share)
    }

    /// False if the token is unknown.
    pub(crate) fn set_interest(&mut self, token: Token, interest: Interest) -> bool {
        let slot = self
            .entries
            .get_mut(token.index() as usize)
            .and_then(Option::as_mut);
        let Some(entry) = slot.filter(|entry| entry.token == token) else {
            return false;
        };
        entry.interest = interest;
        let place = entry.place;
        match (interest == Interest::NONE, place == SILENT) {
            (true, true) => {}
            (true, false) => self.silence(place as usize),
            (false, _) => self.listen(token, interest),
        }
        true
    }

    fn listen(&mut self, token: Token, interest: Interest) {
        let Some(entry) = self.entries[token.index() as usize].as_mut() else {
            return;
        };
        let polled = borrow(&entry.share, flags(interest));
        if entry.place == SILENT {
            entry.place = u32::try_from(self.polled.len()).unwrap_or(SILENT);
            self.polled.push(polled);
            self.tokens.push(token);
        } else {
            self.polled[entry.place as usize] = polled;
        }
    }

    /// Takes an entry out of the array; the last one moves into the gap.
    fn silence(&mut self, place: usize) {
        self.polled.swap_remove(place);
        let token = self.tokens.swap_remove(place);
        if let Some(entry) = &mut self.entries[token.index() as usize] {
            entry.place = SILENT;
        }
        if let Some(moved) = self.tokens.get(place)
            && let Some(entry) = &mut self.entries[moved.index() as usize]
        {
            entry.place = u32::try_from(place).unwrap_or(SILENT);
        }
    }

    pub(crate) fn polled(&mut self) -> &mut [PollFd<'static>] {
        &mut self.polled
    }

    /// Reports the `count` entries that the kernel has marked, as far as there is room, beginning where the last report
    /// ended.
    pub(crate) fn report(&mut self, count: usize, ready: &mut ReadyList) {
        let len = self.polled.len();
        let (mut left, mut place) = (count.min(len), if self.start < len { self.start } else { 0 });
        for _ in 0..len {
            if left == 0 {
                break;
            }
            if ready.is_full() {
                self.start = place;
                return;
            }
            let readiness = readiness(self.polled[place].revents());
            if !readiness.is_empty() {
                left -= 1;
                ready.push(self.tokens[place], readiness);
            }
            place = if place + 1 == len { 0 } else { place + 1 };
        }
        self.start = place;
    }

    pub(crate) fn into_each(self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        drop(self.polled);
        for entry in self.entries.into_iter().flatten() {
            each(entry.share, entry.token, entry.interest);
        }
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self
            .entries
            .iter()
            .flatten()
            .map(|entry| (entry.token, &entry.share, entry.interest));
        f.debug_list().entries(known).finish()
    }
}

#[allow(
    unsafe_code,
    reason = "the array lies beside the shares that keep its descriptors open; one lifetime cannot say so"
)]
fn borrow(share: &Watched, flags: PollFlags) -> PollFd<'static> {
    use std::os::fd::{AsRawFd, BorrowedFd};
    // SAFETY: the share that keeps this descriptor open lies in the same `Array` and goes only after the entry made of it
    // has been taken out of `polled` (`remove` silences first, `into_each` drops `polled` first).
    let fd = unsafe { BorrowedFd::borrow_raw(share.as_raw_fd()) };
    PollFd::from_borrowed_fd(fd, flags)
}

fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.contains(Interest::READ));
    flags.set(PollFlags::OUT, interest.contains(Interest::WRITE));
    flags
}

fn readiness(flags: PollFlags) -> Readiness {
    let mut readiness = Readiness::empty();
    readiness.set(Readiness::IN, flags.contains(PollFlags::IN));
    readiness.set(Readiness::OUT, flags.contains(PollFlags::OUT));
    readiness.set(Readiness::HUP, flags.contains(PollFlags::HUP));
    readiness.set(Readiness::ERR, flags.contains(PollFlags::ERR));
    readiness.set(Readiness::NVAL, flags.contains(PollFlags::NVAL));
    readiness
}
