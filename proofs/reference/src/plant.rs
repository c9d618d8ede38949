//! Faults planted on purpose, to check that the comparison finds them.

use std::io;
use std::time::Duration;

use aio_context::{Backend, Interest, Readiness, ReadyList, Token, Watched};
use aio_testing::Layer;

/// A fault of the loop or of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Plant {
    /// A removal has no effect.
    RemovalLost,
    /// A replacement has no effect.
    ReplacementLost,
    /// A pause ends at once.
    PauseLost,
    /// A pause never ends.
    ResumeLost,
    /// A bottom half runs twice.
    HalfTwice,
    /// A bottom half that was cancelled runs.
    CancelLost,
    /// A bottom half that was deleted can run, and is kept.
    DeleteLost,
    /// A timer fires a millisecond early.
    TimerEarly,
    /// A timer fires a millisecond late.
    TimerLate,
    /// A timer that was disarmed fires.
    DisarmLost,
    /// A handler does not get its `poll_end`.
    EndMissing,
    /// The result of a handler's last poll, after `poll_end`, is ignored.
    LastPollIgnored,
    /// Work in memory is ignored.
    WorkIgnored,
    /// A poll reports the opposite of its progress.
    ProgressForNothing,
    /// A backend does not report hang-ups.
    HangUpDropped,
    /// A backend does not report errors.
    ErrorDropped,
    /// A backend does not report numbers that were closed.
    CloseUnreported,
    /// A backend drops every third event, and all later events of that registration.
    EventLost,
    /// A backend reports readiness once, and not again until it changes.
    ReportedOnce,
    /// A backend ignores every third change of an interest.
    ModifyForgotten,
    /// A backend reports events of silent registrations.
    SilenceViolated,
    /// A backend reports an event to a registration that belongs to an earlier one of the same slot.
    OldGeneration,
    /// A backend reports an event of one registration for another one.
    WrongToken,
    /// A backend loses a registration when it restructures itself.
    SwitchLoses,
    /// A backend keeps a reference to a removed descriptor.
    ReferenceKept,
    /// A backend reports events after the only one that was waited for.
    OnceRepeated,
    /// A rearm has no effect.
    RearmLost,
    /// A backend does not report priority.
    PriorityDropped,
    /// A registration of a number that has a handler replaces that handler.
    TakenReplaced,
    /// A replacement by number has no effect.
    NumberNotFound,
}

impl Plant {
    /// All faults.
    pub const ALL: [Self; 30] = [
        Self::RemovalLost,
        Self::ReplacementLost,
        Self::PauseLost,
        Self::ResumeLost,
        Self::HalfTwice,
        Self::CancelLost,
        Self::DeleteLost,
        Self::TimerEarly,
        Self::TimerLate,
        Self::DisarmLost,
        Self::EndMissing,
        Self::LastPollIgnored,
        Self::WorkIgnored,
        Self::ProgressForNothing,
        Self::HangUpDropped,
        Self::ErrorDropped,
        Self::CloseUnreported,
        Self::EventLost,
        Self::ReportedOnce,
        Self::ModifyForgotten,
        Self::SilenceViolated,
        Self::OldGeneration,
        Self::WrongToken,
        Self::SwitchLoses,
        Self::ReferenceKept,
        Self::OnceRepeated,
        Self::RearmLost,
        Self::PriorityDropped,
        Self::TakenReplaced,
        Self::NumberNotFound,
    ];
}

/// A backend with a fault.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Box<dyn Backend>,
    plant: Plant,
    chances: u32,
    /// The registrations, the latest last.
    tokens: Vec<Token>,
    /// The registrations whose events are dropped.
    muted: Vec<Token>,
    /// The last removed registration, and its successor with another generation.
    removed: Option<Token>,
    came_back: Option<Token>,
    kept: Vec<Watched>,
}

impl Faulty {
    pub(crate) fn new(inner: Box<dyn Backend>, plant: Plant) -> Self {
        Self {
            inner,
            plant,
            chances: 0,
            tokens: Vec::new(),
            muted: Vec::new(),
            removed: None,
            came_back: None,
            kept: Vec::new(),
        }
    }

    fn effective(&self, interest: Interest) -> Interest {
        if self.plant == Plant::OnceRepeated {
            interest.difference(Interest::ONESHOT)
        } else {
            interest
        }
    }

    fn strikes(&mut self, plant: Plant) -> bool {
        self.chances += u32::from(self.plant == plant);
        self.plant == plant && self.chances.is_multiple_of(3)
    }

    /// Returns the part of an event that the fault leaves.
    fn passed(&mut self, token: Token, readiness: Readiness) -> Option<(Token, Readiness)> {
        if self.muted.contains(&token) {
            return None;
        }
        let dropped = match self.plant {
            Plant::HangUpDropped => Readiness::HUP,
            Plant::ErrorDropped => Readiness::ERR,
            Plant::CloseUnreported => Readiness::NVAL,
            Plant::PriorityDropped => Readiness::PRI,
            _ => Readiness::empty(),
        };
        let left = readiness & !dropped;
        if left.is_empty() || self.strikes(Plant::EventLost) {
            if self.plant == Plant::EventLost {
                self.muted.push(token);
            }
            return None;
        }
        if self.plant == Plant::ReportedOnce {
            self.muted.push(token);
        }
        if self.strikes(Plant::WrongToken)
            && let Some(other) = self.tokens.iter().rfind(|other| **other != token)
        {
            return Some((*other, left));
        }
        Some((token, left))
    }
}

impl Layer for Faulty {
    type Inner = dyn Backend;

    fn inner(&self) -> &Self::Inner {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut Self::Inner {
        &mut *self.inner
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.plant == Plant::ReferenceKept && self.kept.is_empty() && token.index() > 0 {
            self.kept.push(fd.clone());
        }
        self.inner.add(fd, token, self.effective(interest))?;
        self.tokens.push(token);
        let former = self.removed.take();
        let is_back = former.is_some_and(|former| former.index() == token.index() && former != token);
        if is_back && self.plant == Plant::OldGeneration {
            self.came_back = Some(token);
        }
        Ok(())
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        if self.strikes(Plant::ModifyForgotten)
            || (self.plant == Plant::SilenceViolated && interest == Interest::NONE)
        {
            return Ok(());
        }
        self.muted
            .retain(|muted| *muted != token || self.plant != Plant::ReportedOnce);
        self.inner.modify(token, self.effective(interest))
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.tokens.retain(|known| *known != token);
        self.removed = Some(token);
        self.inner.remove(token)
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let mut found = ReadyList::with_limit(ready.room());
        self.inner.wait(timeout, &mut found)?;
        for (token, readiness) in found.iter() {
            if let Some((token, readiness)) = self.passed(token, readiness) {
                ready.push(token, readiness);
            }
        }
        if let Some(token) = self.came_back.take() {
            ready.push(token, Readiness::IN | Readiness::OUT | Readiness::HUP);
        }
        Ok(())
    }

    fn rebalance(&mut self) {
        let before = self.inner.name();
        self.inner.rebalance();
        if self.plant == Plant::SwitchLoses
            && self.inner.name() != before
            && let Some(token) = self.tokens.last()
        {
            self.muted.push(*token);
        }
    }
}
