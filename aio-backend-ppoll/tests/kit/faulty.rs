//! A correct backend with one fault.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::{
    Backend, Completed, Interest, NotSubmitted, Operation, Peek, Readiness, ReadyList, Token, Watched,
};
use aio_backend_ppoll::Ppoll;
use rustix::io::Errno;

use crate::operations::{Mistake, Operations};

/// The fault of a [`Faulty`] backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    Operations(Mistake),
    // Unusual, and within the contract
    WaitsThroughInterruptions,
    SplitsEvents,
    // Events
    OmitsIn,
    OmitsOut,
    OmitsHangUps,
    OmitsErrors,
    OmitsHalfCloses,
    OmitsPriority,
    ReportsPriorityToAll,
    OmitsSets,
    ReportsOneOfTwo,
    ReportsOnce,
    ReportsOnceUntilModified,
    ExceedsTheInterest,
    ReportsRemovedTokens,
    ReportsTheFirstToken,
    ReportsClosedNumbersAsReadable,
    AcceptsClosedNumbers,
    RefusesToSilenceClosedNumbers,
    ClaimsEdges,
    RefusesFiles,
    // One event
    ReportsOneshotsAgain,
    SplitsOneshots,
    SpinsAfterOneshots,
    ArmsOneshotsOnlyWithAnotherInterest,
    ShowsInterestsOfReportedOneshots,
    ArmsOneshotsWhenRestructured,
    // Registrations
    IgnoresModify,
    ReportsTheSilent,
    CannotLeaveSilence,
    SpinsWhenTheSilentHangUp,
    AcceptsTokensTwice,
    KeepsRefusedDescriptors,
    SwallowsUnknownTokens,
    RemovesTwins,
    KeepsDescriptors,
    DropsDescriptorsAtOnce,
    KeepsFiles,
    ShowsHalf,
    ShowsFirstInterests,
    CountsOnlyActiveOnes,
    DrainsHalf,
    DrainsFirstInterests,
    DrainKeepsAll,
    // Time
    SleepsWithTimeoutZero,
    RoundsUpToMilliseconds,
    RoundsDownToMilliseconds,
    IsAFewMillisecondsLate,
    EndsHalfWay,
    ReturnsAtOnceWithoutTimeout,
    GivesUpWithoutTimeout,
    SleepsItsWholeTime,
    RefusesLongTimeouts,
    WrapsLongTimeouts,
    CallsInterruptionsErrors,
    BeginsAgainAfterInterruptions,
    // Many descriptors and short lists
    ReportsOnlyAThousand,
    BeginsAtTheFront,
    PutsFilesFirst,
    ClearsTheList,
    LosesOneWhenRestructured,
    PeeksTooMuch,
    ShowsTooLittle,
    ForgetsOneAtEveryFiftiethRemove,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    good: Ppoll,
    fault: Fault,
    /// The interest of each registration: the one at the add, and the present one.
    interests: BTreeMap<Token, (Interest, Interest)>,
    fds: BTreeMap<Token, Watched>,
    once: BTreeSet<Token>,
    first: BTreeMap<u32, Token>,
    kept: Vec<Watched>,
    gone: Option<Token>,
    removes: u32,
    shown: std::io::PipeReader,
    operations: Operations,
}

impl Faulty {
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            good: Ppoll::new(),
            fault,
            interests: BTreeMap::new(),
            fds: BTreeMap::new(),
            once: BTreeSet::new(),
            first: BTreeMap::new(),
            kept: Vec::new(),
            gone: None,
            removes: 0,
            // A pipe whose writer is closed: its hang-up is no data to read.
            shown: std::io::pipe().unwrap().0,
            operations: Operations::default(),
        }
    }

    fn mistake(&self) -> Option<Mistake> {
        match self.fault {
            Fault::Operations(mistake) => Some(mistake),
            _ => None,
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn is_a(&self, token: Token, kind: &str) -> bool {
        self.fds.get(&token).is_some_and(|fd| link(fd).contains(kind))
    }

    /// Returns the timeout after the fault has changed it.
    fn timeout(&self, timeout: Option<Duration>) -> io::Result<Option<Duration>> {
        let millis = |millis: u128| Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        let Some(timeout) = timeout else {
            return Ok(match self.fault {
                Fault::ReturnsAtOnceWithoutTimeout => Some(Duration::ZERO),
                Fault::GivesUpWithoutTimeout => Some(Duration::from_millis(50)),
                _ => None,
            });
        };
        Ok(Some(match self.fault {
            Fault::SleepsWithTimeoutZero => timeout + Duration::from_micros(500),
            Fault::RoundsUpToMilliseconds => millis(timeout.as_nanos().div_ceil(1_000_000)),
            Fault::RoundsDownToMilliseconds => millis(timeout.as_millis()),
            Fault::IsAFewMillisecondsLate if timeout >= Duration::from_millis(5) => {
                timeout.saturating_add(Duration::from_millis(3))
            }
            Fault::EndsHalfWay => timeout / 2,
            Fault::RefusesLongTimeouts if timeout.as_millis() > i32::MAX as u128 => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Fault::WrapsLongTimeouts => millis(u128::from(timeout.as_millis() as u32)).min(timeout),
            _ => timeout,
        }))
    }

    /// Returns the entries of one event. The second one may be empty. The only event of a registration is not
    /// split.
    fn split(&self, token: Token, what: Readiness) -> (Readiness, Readiness) {
        let second = what & (Readiness::OUT | Readiness::PRI);
        if self.is(Fault::SplitsEvents) && !self.is_over(token) && second != what {
            (what - second, second)
        } else {
            (what, Readiness::empty())
        }
    }

    /// Returns the interest after the fault has changed it.
    fn actual(&self, interest: Interest) -> Interest {
        match self.fault {
            Fault::ReportsOneshotsAgain => interest - Interest::ONESHOT,
            Fault::ReportsPriorityToAll if interest != Interest::NONE => interest | Interest::PRIORITY,
            _ => interest,
        }
    }

    /// Returns `true` if the only event of a registration was reported.
    fn is_over(&self, token: Token) -> bool {
        let mut is_over = false;
        self.good
            .visit(&mut |_, other, now| is_over |= other == token && now == Interest::NONE);
        is_over && self.interests[&token].1.contains(Interest::ONESHOT)
    }

    /// Returns an event after the fault has changed it, or `None` if the fault removes it.
    fn distort(&mut self, token: Token, what: Readiness) -> Option<(Token, Readiness)> {
        let what = match self.fault {
            Fault::OmitsIn => what - Readiness::IN,
            Fault::OmitsOut => what - Readiness::OUT,
            Fault::OmitsHangUps => what - Readiness::HUP,
            Fault::OmitsErrors => what - Readiness::ERR,
            Fault::OmitsHalfCloses => what - Readiness::RDHUP,
            Fault::OmitsPriority => what - Readiness::PRI,
            Fault::OmitsSets if self.is_a(token, "eventpoll") => Readiness::empty(),
            Fault::ReportsOneOfTwo if what.contains(Readiness::IN) => Readiness::IN,
            Fault::ReportsOnce | Fault::ReportsOnceUntilModified if !self.once.insert(token) => {
                Readiness::empty()
            }
            Fault::ReportsClosedNumbersAsReadable if what == Readiness::NVAL => Readiness::IN,
            _ => what,
        };
        let token = match self.first.get(&token.index()) {
            Some(first) if self.is(Fault::ReportsTheFirstToken) => *first,
            _ => token,
        };
        (!what.is_empty()).then_some((token, what))
    }

    /// Returns the events of one wait, for any room of the list.
    fn events(&mut self, timeout: Option<Duration>, room: usize) -> io::Result<Vec<(Token, Readiness)>> {
        let orders = matches!(self.fault, Fault::BeginsAtTheFront | Fault::PutsFilesFirst);
        let mut found = ReadyList::with_limit(if orders { 10_000 } else { room });
        let start = Instant::now();
        self.good.wait(timeout, &mut found)?;
        let is_early = || timeout.is_none_or(|timeout| start.elapsed() < timeout);
        while self.is(Fault::WaitsThroughInterruptions) && found.is_empty() && is_early() {
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            self.good.wait(left, &mut found)?;
        }
        if let Some(whole) = timeout.filter(|_| self.is(Fault::BeginsAgainAfterInterruptions)) {
            let mut began = start;
            while found.is_empty() && began.elapsed() < whole {
                began = Instant::now();
                self.good.wait(timeout, &mut found)?;
            }
        }
        let is_early = is_early();
        if self.is(Fault::CallsInterruptionsErrors) && found.is_empty() && is_early {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut found: Vec<_> = found.iter().collect();
        match self.fault {
            Fault::BeginsAtTheFront => found.sort_by_key(|(token, _)| *token),
            Fault::PutsFilesFirst => found.sort_by_key(|(token, _)| !self.is_a(*token, "memfd")),
            Fault::ReportsOnlyAThousand => found.retain(|(token, _)| token.index() < 1_024),
            Fault::ReportsRemovedTokens => found.extend(self.gone.take().map(|gone| (gone, Readiness::IN))),
            _ => {}
        }
        // An event after a pause counts as a first one again.
        self.once
            .retain(|token| found.iter().any(|(other, _)| other == token));
        Ok(found)
    }
}

impl Backend for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.is(Fault::RefusesFiles) && link(&fd).contains("memfd") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if self.is(Fault::AcceptsTokensTwice) && self.interests.contains_key(&token) {
            self.good.remove(token)?;
        }
        let actual = self.actual(interest);
        let actual = match self.fault {
            Fault::ReportsTheSilent if interest == Interest::NONE => Interest::READ,
            Fault::ExceedsTheInterest if interest != Interest::NONE => Interest::BOTH,
            _ => actual,
        };
        let is_closed = || rustix::io::fcntl_getfd(&fd).is_err();
        let kept = match self.fault {
            // A pipe replaces the closed number.
            Fault::AcceptsClosedNumbers if is_closed() => Rc::new(std::io::pipe()?.1).into(),
            Fault::DropsDescriptorsAtOnce => Rc::new(fd.as_fd().try_clone_to_owned()?).into(),
            _ => fd.clone(),
        };
        let result = self.good.add(kept, token, actual);
        match result {
            Ok(()) => {
                self.interests.insert(token, (interest, interest));
                self.first.entry(token.index()).or_insert(token);
                match self.fault {
                    Fault::DropsDescriptorsAtOnce => return Ok(()),
                    Fault::KeepsDescriptors => self.kept.push(fd.clone()),
                    _ => {}
                }
                self.fds.insert(token, fd);
            }
            Err(_) if self.is(Fault::KeepsRefusedDescriptors) => self.kept.push(fd),
            Err(_) => {}
        }
        result
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let is_closed = |fd: &Watched| rustix::io::fcntl_getfd(fd).is_err();
        if self.is(Fault::RefusesToSilenceClosedNumbers) && self.fds.get(&token).is_some_and(is_closed) {
            return Err(Errno::BADF.into());
        }
        let known = self.interests.get(&token).copied();
        self.once.remove(&token);
        match (self.fault, known) {
            (Fault::IgnoresModify, Some(_)) => return Ok(()),
            (Fault::CannotLeaveSilence, Some((_, Interest::NONE))) => return Ok(()),
            (Fault::SwallowsUnknownTokens, None) => return Ok(()),
            (Fault::ArmsOneshotsOnlyWithAnotherInterest, Some((_, now))) if now == interest => return Ok(()),
            (Fault::ExceedsTheInterest, Some(_)) if interest != Interest::NONE => {
                return self.good.modify(token, Interest::BOTH);
            }
            (Fault::ReportsTheSilent, Some(_)) if interest == Interest::NONE => {
                return self.good.modify(token, Interest::READ);
            }
            _ => {}
        }
        if let Some((_, now)) = self.interests.get_mut(&token) {
            *now = interest;
        }
        self.good.modify(token, self.actual(interest))
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        let known = self.interests.remove(&token).is_some();
        let fd = self.fds.remove(&token);
        self.once.remove(&token);
        self.removes += 1;
        match self.fault {
            Fault::SwallowsUnknownTokens if !known => return Ok(()),
            Fault::ReportsRemovedTokens => self.gone = Some(token),
            Fault::KeepsFiles if known => self.kept.push(Rc::new(rustix::io::dup(fd.unwrap())?).into()),
            Fault::RemovesTwins => {
                let twins = fd.map_or(Vec::new(), |fd| {
                    let twin = |(token, other): (&Token, &Watched)| {
                        (link(other) == link(&fd) && other.as_raw_fd() == fd.as_raw_fd() + 1)
                            .then_some(*token)
                    };
                    self.fds.iter().filter_map(twin).collect()
                });
                for twin in twins {
                    self.good.modify(twin, Interest::NONE)?;
                }
            }
            Fault::ForgetsOneAtEveryFiftiethRemove if self.removes.is_multiple_of(50) => {
                if let Some((&other, _)) = self.interests.iter().next_back() {
                    self.good.modify(other, Interest::NONE)?;
                }
            }
            _ => {}
        }
        self.good.remove(token)
    }

    fn submit(&mut self, report: Token, operation: Operation) -> Result<Token, NotSubmitted> {
        match self.mistake() {
            Some(mistake) => Ok(self.operations.submit(mistake, report, operation)),
            None => Err(NotSubmitted::unsupported(operation, self.name())),
        }
    }

    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        self.operations.next()
    }

    fn in_flight(&self) -> usize {
        self.operations.len()
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let mut timeout = self.timeout(timeout)?;
        if self.operations.report(self.mistake(), ready) {
            timeout = Some(Duration::ZERO);
        }
        if self.is(Fault::SleepsItsWholeTime)
            && let Some(sleep) = timeout.replace(Duration::ZERO)
        {
            std::thread::sleep(sleep.min(Duration::from_secs(3)));
        }
        if self.is(Fault::SpinsWhenTheSilentHangUp)
            && self.interests.values().any(|(_, now)| *now == Interest::NONE)
        {
            timeout = Some(Duration::ZERO);
        }
        if self.is(Fault::SpinsAfterOneshots) && self.interests.keys().any(|token| self.is_over(*token)) {
            timeout = Some(Duration::ZERO);
        }
        if self.is(Fault::ClearsTheList) {
            ready.clear();
        }
        if ready.is_full() {
            return Ok(());
        }
        for (token, what) in self.events(timeout, ready.room())? {
            if let Some((token, what)) = self.distort(token, what) {
                if self.is(Fault::SplitsOneshots) && self.is_over(token) && what.contains(Readiness::IN) {
                    ready.push(token, Readiness::IN);
                }
                let (first, second) = self.split(token, what);
                if !ready.push(token, first) || (!second.is_empty() && !ready.push(token, second)) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn peek(&mut self, ready: &mut ReadyList) -> io::Result<Peek> {
        if self.is(Fault::PeeksTooMuch)
            && let Some(token) = self.interests.keys().next()
        {
            ready.push(*token, Readiness::IN);
            return Ok(Peek::Checked);
        }
        self.good.peek(ready)
    }

    fn rebalance(&mut self) {
        if self.is(Fault::LosesOneWhenRestructured)
            && self.interests.len() == 100
            && let Some((&first, _)) = self.interests.iter().next()
        {
            let _ = self.good.modify(first, Interest::NONE);
        }
        if self.is(Fault::ArmsOneshotsWhenRestructured) && self.interests.len() == 100 {
            let over: Vec<_> = self
                .interests
                .keys()
                .filter(|token| self.is_over(**token))
                .collect();
            for token in over {
                let _ = self.good.modify(*token, self.interests[token].1);
            }
        }
    }

    fn reports_edges(&self) -> bool {
        self.is(Fault::ClaimsEdges)
    }

    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(self.is(Fault::ShowsTooLittle).then(|| self.shown.as_fd()))
    }

    fn watched(&self) -> usize {
        let active = self.interests.values().filter(|(_, now)| *now != Interest::NONE);
        if self.is(Fault::CountsOnlyActiveOnes) {
            active.count()
        } else {
            self.good.watched()
        }
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        let mut number = 0;
        self.good.visit(&mut |fd, token, interest| {
            number += 1;
            match self.fault {
                Fault::ShowsHalf if number % 2 == 0 => {}
                Fault::ShowsFirstInterests => each(fd, token, self.interests[&token].0),
                Fault::ShowsInterestsOfReportedOneshots => each(fd, token, self.interests[&token].1),
                _ => each(fd, token, interest),
            }
        });
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        let interests = std::mem::take(&mut self.interests);
        self.fds.clear();
        self.once.clear();
        if self.is(Fault::DrainKeepsAll) {
            let mut all = Vec::new();
            self.good
                .drain(&mut |fd, token, interest| all.push((fd, token, interest)));
            for (fd, token, interest) in all {
                each(fd.clone(), token, interest);
                let _ = self.good.add(fd, token, interest);
            }
            return;
        }
        let (mut number, fault) = (0, self.fault);
        self.good.drain(&mut |fd, token, interest| {
            number += 1;
            match fault {
                Fault::DrainsHalf if number % 2 == 0 => {}
                Fault::DrainsFirstInterests => each(fd, token, interests[&token].0),
                _ => each(fd, token, interest),
            }
        });
    }
}

/// Returns the system's name of the file behind a descriptor.
fn link(fd: &Watched) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.unwrap_or_default().to_string_lossy().into_owned()
}
