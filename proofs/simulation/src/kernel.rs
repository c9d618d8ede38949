//! The state of a kernel: files, descriptor numbers, epoll sets. It makes no decision and draws no random
//! number.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use aio_context::{Interest, Readiness};

use crate::poll_requests::PollRequests;
use crate::target::{FileId, Target};

/// The number of descriptor numbers.
pub(crate) const NUMBERS: usize = 20;
/// The number of writes for which an idle stream has room.
const ROOM: u32 = 4;

/// The file of a port whose number is not open.
pub(crate) const NOWHERE: FileId = 0;

/// The state of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    pub(crate) bytes: u32,
    pub(crate) room: u32,
    pub(crate) hung_up: bool,
    pub(crate) failed: bool,
    /// The file is always ready, and epoll refuses it.
    pub(crate) regular: bool,
    /// The number of descriptor numbers and other references that keep it open.
    shares: u32,
}

impl File {
    fn new(regular: bool, shares: u32) -> Self {
        Self {
            bytes: 0,
            room: ROOM,
            hung_up: false,
            failed: false,
            regular,
            shares,
        }
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::empty();
        readiness.set(Readiness::IN, self.regular || self.bytes > 0);
        readiness.set(Readiness::OUT, self.regular || self.room > 0);
        readiness.set(Readiness::HUP | Readiness::RDHUP, self.hung_up);
        readiness.set(Readiness::ERR, self.failed);
        readiness
    }
}

#[derive(Debug)]
struct Member {
    raw: RawFd,
    target: Target,
    key: u64,
    interest: Interest,
    /// For edge-triggered interests: there was activity since the last report.
    active: bool,
    /// For an interest in one event: the event was reported.
    is_disarmed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Set {
    raw: RawFd,
    members: Vec<Member>,
    /// The position of the next member to check.
    next: usize,
}

/// The reasons for errors of `epoll_ctl` that no fault causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum No {
    BadDescriptor,
    Exists,
    Missing,
    NotForEpoll,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) files: Vec<File>,
    pub(crate) numbers: [Option<FileId>; NUMBERS],
    /// The real descriptors behind the numbers. They are open for the whole run.
    pub(crate) backing: Vec<Rc<OwnedFd>>,
    sets: Vec<Set>,
    /// The poll requests of all rings.
    pub(crate) requests: PollRequests,
}

impl Kernel {
    pub(crate) fn new(backing: Vec<Rc<OwnedFd>>) -> Self {
        Self {
            files: vec![File::new(false, 0)],
            numbers: [None; NUMBERS],
            backing,
            sets: Vec::new(),
            requests: PollRequests::default(),
        }
    }

    pub(crate) fn number_of(&self, raw: RawFd) -> Option<usize> {
        self.backing.iter().position(|fd| fd.as_raw_fd() == raw)
    }

    /// Returns the present target of a descriptor.
    pub(crate) fn target(&self, fd: BorrowedFd<'_>) -> Option<Target> {
        self.target_of(fd.as_raw_fd())
    }

    pub(crate) fn target_of(&self, raw: RawFd) -> Option<Target> {
        match self.number_of(raw) {
            Some(number) => self.numbers[number].map(Target::File),
            None => Some(Target::Doorbell(raw)),
        }
    }

    /// Opens a file at a free number.
    pub(crate) fn open(&mut self, number: usize, regular: bool) -> FileId {
        self.files.push(File::new(regular, 1));
        let file = self.files.len() - 1;
        self.numbers[number] = Some(file);
        file
    }

    /// Opens a free number for an open file.
    pub(crate) fn reopen(&mut self, number: usize, file: FileId) {
        self.files[file].shares += 1;
        self.numbers[number] = Some(file);
    }

    /// Adds a reference that keeps the file open.
    pub(crate) fn dup(&mut self, file: FileId) {
        self.files[file].shares += 1;
    }

    pub(crate) fn is_open(&self, file: FileId) -> bool {
        self.files[file].shares > 0
    }

    /// Closes a number.
    pub(crate) fn close(&mut self, number: usize) {
        if let Some(file) = self.numbers[number].take() {
            self.release(file);
        }
    }

    /// Removes a reference. The kernel drops a file without references.
    pub(crate) fn release(&mut self, file: FileId) {
        self.files[file].shares -= 1;
        if self.files[file].shares == 0 {
            for set in &mut self.sets {
                set.members.retain(|member| member.target != Target::File(file));
            }
        }
    }

    /// Records activity of a file: marks edges as due, and wakes poll requests. `cause` is empty if the file
    /// reports no cause.
    pub(crate) fn touch(&mut self, target: Target, cause: Readiness) {
        for member in self.sets.iter_mut().flat_map(|set| &mut set.members) {
            member.active |= member.target == target;
        }
        self.requests.wake(target, cause);
    }

    /// Makes a set, identified by its descriptor.
    pub(crate) fn create(&mut self, raw: RawFd) {
        self.sets.retain(|set| set.raw != raw);
        self.sets.push(Set {
            raw,
            ..Set::default()
        });
    }

    fn set(&mut self, set: BorrowedFd<'_>) -> Option<&mut Set> {
        let raw = set.as_raw_fd();
        self.sets.iter_mut().find(|set| set.raw == raw)
    }

    pub(crate) fn add(
        &mut self,
        set: BorrowedFd<'_>,
        fd: BorrowedFd<'_>,
        key: u64,
        interest: Interest,
    ) -> Result<(), No> {
        let target = self.target(fd).ok_or(No::BadDescriptor)?;
        if let Target::File(file) = target
            && self.files[file].regular
        {
            return Err(No::NotForEpoll);
        }
        let raw = fd.as_raw_fd();
        let set = self.set(set).ok_or(No::BadDescriptor)?;
        if set
            .members
            .iter()
            .any(|member| (member.raw, member.target) == (raw, target))
        {
            return Err(No::Exists);
        }
        set.members.push(Member {
            raw,
            target,
            key,
            interest,
            active: true,
            is_disarmed: false,
        });
        Ok(())
    }

    fn member(&mut self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<(&mut Set, usize), No> {
        let target = self.target(fd).ok_or(No::BadDescriptor)?;
        let raw = fd.as_raw_fd();
        let set = self.set(set).ok_or(No::BadDescriptor)?;
        let place = set
            .members
            .iter()
            .position(|member| (member.raw, member.target) == (raw, target));
        place.map(|place| (set, place)).ok_or(No::Missing)
    }

    pub(crate) fn modify(
        &mut self,
        set: BorrowedFd<'_>,
        fd: BorrowedFd<'_>,
        key: u64,
        interest: Interest,
    ) -> Result<(), No> {
        let (set, place) = self.member(set, fd)?;
        let member = &mut set.members[place];
        (member.key, member.interest, member.active) = (key, interest, true);
        member.is_disarmed = false;
        Ok(())
    }

    pub(crate) fn delete(&mut self, set: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<(), No> {
        let (set, place) = self.member(set, fd)?;
        set.members.remove(place);
        Ok(())
    }

    /// Returns the ready members of a set in turn, at most `room`. If `consume` is set, edges are reported
    /// once.
    pub(crate) fn ready(
        &mut self,
        set: BorrowedFd<'_>,
        room: usize,
        consume: bool,
        rings: bool,
    ) -> Vec<(u64, Readiness)> {
        let raw = set.as_raw_fd();
        let (sets, files) = (&mut self.sets, &self.files);
        let Some(set) = sets.iter_mut().find(|set| set.raw == raw) else {
            return Vec::new();
        };
        let count = set.members.len();
        let mut found = Vec::new();
        let first = set.next;
        for place in (0..count).map(|step| (first + step) % count) {
            let member = &mut set.members[place];
            let now = match member.target {
                Target::File(file) => files[file].readiness(),
                Target::Doorbell(_) if rings => Readiness::IN,
                Target::Doorbell(_) => Readiness::empty(),
            };
            let ready = now & reported(member.interest);
            let is_edge = member.interest.contains(Interest::EDGE);
            if ready.is_empty() || member.is_disarmed || (is_edge && !member.active) {
                continue;
            }
            if found.len() == room {
                break;
            }
            if consume {
                member.active = false;
                member.is_disarmed = member.interest.contains(Interest::ONESHOT);
                set.next = (place + 1) % count;
            }
            found.push((member.key, ready));
        }
        found
    }

    /// Returns the loop's eventfd in a set, if the set contains it.
    pub(crate) fn doorbell_in(&mut self, set: BorrowedFd<'_>) -> Option<RawFd> {
        let set = self.set(set)?;
        set.members.iter().find_map(|member| match member.target {
            Target::Doorbell(raw) => Some(raw),
            Target::File(_) => None,
        })
    }
}

/// Returns the readiness that the kernel reports for an interest: errors and hang-ups always.
pub(crate) fn reported(interest: Interest) -> Readiness {
    (interest.mask() | Readiness::HUP | Readiness::ERR) - Readiness::NVAL
}
