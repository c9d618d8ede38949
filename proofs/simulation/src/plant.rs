//! Faults planted on purpose, to check that the checks find them.

use std::io;
use std::time::Duration;

use aio_backend::Peek;
use aio_context::{Backend, Interest, Readiness, ReadyList, Token, Watched};
use aio_testing::Layer;

/// A fault of the loop, the backend, or the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Plant {
    /// A backend ignores every eighth change of an interest.
    ModifyForgotten,
    /// A backend accepts a call that the kernel has refused.
    RefusalIgnored,
    /// A backend drops the last event of each full list, and of every eighth other one, for good.
    EventLost,
    /// A backend waits a millisecond with a timeout of zero.
    CheckSleeps,
    /// A backend waits for twice the timeout.
    WaitTooLong,
    /// A backend ends every wait at once.
    WaitTooShort,
    /// A backend keeps a reference to a removed descriptor.
    ReferenceKept,
    /// Some wake-ups of the loop's eventfd are lost.
    RingLost,
    /// The loop's clock runs ahead of the time.
    ClockAhead,
    /// The removal of a registration has no effect.
    RemovalForgotten,
    /// The end of a pause has no effect.
    ResumeForgotten,
    /// A bottom half runs twice for one schedule.
    RunTwice,
    /// A handler ignores its `poll_end`.
    EndForgotten,
    /// An event for one registration goes to another one.
    WrongToken,
    /// A ring loses completions for which its queue has no room.
    OverflowLost,
    /// A ring accepts the cancellation of a poll request, but keeps the request.
    RequestKept,
    /// A ring loses the end of every eighth operation.
    OperationLost,
    /// A ring does not cancel operations.
    OperationKept,
    /// A ring frees the buffers of an operation when it is cancelled.
    BuffersFreed,
}

impl Plant {
    /// All faults.
    pub const ALL: [Self; 19] = [
        Self::ModifyForgotten,
        Self::RefusalIgnored,
        Self::EventLost,
        Self::CheckSleeps,
        Self::WaitTooLong,
        Self::WaitTooShort,
        Self::ReferenceKept,
        Self::RingLost,
        Self::ClockAhead,
        Self::RemovalForgotten,
        Self::ResumeForgotten,
        Self::RunTwice,
        Self::EndForgotten,
        Self::WrongToken,
        Self::OverflowLost,
        Self::RequestKept,
        Self::OperationLost,
        Self::OperationKept,
        Self::BuffersFreed,
    ];
}

/// A backend with a fault.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) inner: Box<dyn Backend>,
    pub(crate) plant: Plant,
    pub(crate) calls: u32,
    pub(crate) kept: Vec<Watched>,
    pub(crate) lost: Vec<Token>,
}

impl Faulty {
    fn is_turn(&mut self, plant: Plant) -> bool {
        self.calls += u32::from(self.plant == plant);
        self.plant == plant && self.calls.is_multiple_of(8)
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

    fn peek(&mut self, ready: &mut ReadyList) -> io::Result<Peek> {
        self.inner.peek(ready)
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.plant == Plant::ReferenceKept && self.kept.len() < 2 {
            self.kept.push(fd.clone());
        }
        let added = self.inner.add(fd, token, interest);
        if self.plant == Plant::RefusalIgnored {
            Ok(())
        } else {
            added
        }
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        if self.is_turn(Plant::ModifyForgotten) {
            return Ok(());
        }
        self.inner.modify(token, interest)
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let timeout = match (self.plant, timeout) {
            (Plant::CheckSleeps, Some(Duration::ZERO)) => Some(Duration::from_millis(1)),
            (Plant::WaitTooLong, Some(timeout)) => Some(timeout.saturating_mul(2)),
            (Plant::WaitTooShort, _) => Some(Duration::ZERO),
            (_, timeout) => timeout,
        };
        if !matches!(self.plant, Plant::EventLost | Plant::WrongToken) {
            return self.inner.wait(timeout, ready);
        }
        let mut found = ReadyList::with_limit(ready.room());
        self.inner.wait(timeout, &mut found)?;
        let mut all: Vec<(Token, Readiness)> = found.iter().collect();
        if self.is_turn(Plant::EventLost)
            && let Some((token, _)) = all.last()
        {
            self.lost.push(*token);
        }
        if self.is_turn(Plant::WrongToken) && all.len() > 1 {
            all[0].0 = all[1].0;
        }
        for (token, readiness) in all {
            if !self.lost.contains(&token) {
                ready.push(token, readiness);
            }
        }
        Ok(())
    }
}
