//! [`Submissions`]: the operations of a loop, with their callbacks.

use std::cell::Cell;
use std::fmt;
use std::io;

use crate::{Backend, CallbackId, Callbacks, Completed, LoopBackend, NotSubmitted, Operation, Token};

/// The [`Callbacks`] of the operations of one loop, and the token under which its backend reports that operations have ended.
///
/// The loop reserves that token with the first operation, for instance by a handler in its registry, so a
/// loop without operations has none. If the backend refuses the first operation, the token is released again.
///
/// It calls no callback, and drops none while it is borrowed, so callbacks may use it.
///
/// # Examples
/// ```
/// use aio_backend::{AnyBackend, LoopBackend, Operation, Submissions, Token};
/// # use aio_backend::{Backend, Completed, Interest, NotSubmitted, ReadyList, Watched};
/// # use std::{collections::VecDeque, fs::File, io, sync::Arc, time::Duration};
/// # #[derive(Debug, Default)]
/// # struct Ring(VecDeque<Operation>);
/// # impl Backend for Ring {
/// #     fn name(&self) -> &'static str { "ring" }
/// #     fn add(&mut self, _: Watched, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn modify(&mut self, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn remove(&mut self, _: Token) -> io::Result<()> { Ok(()) }
/// #     fn wait(&mut self, _: Option<Duration>, _: &mut ReadyList) -> io::Result<()> { Ok(()) }
/// #     fn watched(&self) -> usize { 0 }
/// #     fn visit(&self, _: &mut dyn FnMut(&Watched, Token, Interest)) {}
/// #     fn drain(&mut self, _: &mut dyn FnMut(Watched, Token, Interest)) {}
/// #     fn submit(&mut self, _: Token, operation: Operation) -> Result<Token, NotSubmitted> {
/// #         self.0.push_back(operation);
/// #         Ok(Token::new(0, 0))
/// #     }
/// #     fn next_completed(&mut self) -> Option<(Token, Completed)> {
/// #         let operation = self.0.pop_front()?;
/// #         Some((Token::new(0, 0), Completed { result: Ok(0), operation }))
/// #     }
/// # }
///
/// # fn main() -> io::Result<()> {
/// # let ring = Ring::default();
/// let backend = LoopBackend::new(AnyBackend::Usual(Box::new(ring)));
/// let submissions = Submissions::new();
/// let file = Arc::new(File::open("/proc/self/stat")?);
/// let read = Operation::read(file, 0, vec![0; 64]);
/// let reserve = || Some(Token::new(2, 0)); // a handler in the registry
/// let submitted = submissions.submit(&backend, read, "it has ended", reserve, |_token| ());
/// let id = submitted.expect("the backend takes operations");
/// // A wait reports the token, and all that have ended are taken:
/// while let Some((callback, _completed)) = submissions.next_ended(&backend) {
///     assert_eq!(callback, Some("it has ended"));
/// }
/// assert!(!submissions.callbacks().is_waiting(id));
/// # Ok(()) }
/// ```
pub struct Submissions<C> {
    report: Cell<Option<Token>>,
    callbacks: Callbacks<C>,
}

impl<C> Submissions<C> {
    /// Makes an empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            report: Cell::new(None),
            callbacks: Callbacks::new(),
        }
    }

    /// Returns the callbacks.
    #[must_use]
    pub fn callbacks(&self) -> &Callbacks<C> {
        &self.callbacks
    }

    /// Returns the token under which the backend reports that operations have ended, if one is reserved.
    #[must_use]
    pub fn report(&self) -> Option<Token> {
        self.report.get()
    }

    /// Submits an operation. If it is the first, `reserve` reserves the token of the reports, or returns
    /// `None` if the loop has no free one. If the backend refuses the operation and has accepted none before,
    /// `release` releases the token. Nothing is borrowed during these calls.
    ///
    /// # Errors
    /// As [`Backend::submit`]; `OutOfMemory` if no token could be reserved. The callback is dropped.
    pub fn submit<B: Backend + 'static>(
        &self,
        backend: &LoopBackend<B>,
        operation: Operation,
        callback: C,
        reserve: impl FnOnce() -> Option<Token>,
        release: impl FnOnce(Token),
    ) -> Result<CallbackId, NotSubmitted> {
        let Some(report) = self.report.get().or_else(reserve) else {
            return Err(NotSubmitted::new(operation, io::ErrorKind::OutOfMemory.into()));
        };
        self.report.set(Some(report));
        match backend.submit(report, operation) {
            Ok(id) => Ok(self.callbacks.insert(id, callback)),
            Err(refused) => {
                if self.callbacks.submitted() == 0 {
                    self.report.set(None);
                    release(report);
                }
                Err(refused)
            }
        }
    }

    /// Returns the next operation that has ended, and its callback unless it was abandoned.
    pub fn next_ended<B: Backend + 'static>(
        &self,
        backend: &LoopBackend<B>,
    ) -> Option<(Option<C>, Completed)> {
        let (id, completed) = backend.next_completed()?;
        Some((self.callbacks.end(id), completed))
    }

    /// Asks the system to cancel an operation, unless it has ended. Its callback is called.
    pub fn cancel<B: Backend + 'static>(&self, backend: &LoopBackend<B>, id: CallbackId) {
        if self.callbacks.is_waiting(id) {
            backend.cancel(id.operation());
        }
    }

    /// Cancels an operation, and returns its callback. Returns `None` if the operation has ended, or was
    /// abandoned.
    pub fn abandon<B: Backend + 'static>(&self, backend: &LoopBackend<B>, id: CallbackId) -> Option<C> {
        let callback = self.callbacks.abandon(id)?;
        backend.cancel(id.operation());
        Some(callback)
    }
}

impl<C> Default for Submissions<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for Submissions<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submissions")
            .field("report", &self.report)
            .field("callbacks", &self.callbacks)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::*;
    use crate::AnyBackend;
    use crate::stub::stub;

    const REPORT: Token = Token::new(9, 0);

    /// Executes nothing: operations end only by cancellation.
    #[derive(Debug, Default)]
    struct Ring {
        refuses: bool,
        running: Vec<(Token, Operation)>,
        ended: Vec<(Token, Completed)>,
        names: u32,
    }

    impl Backend for Ring {
        fn name(&self) -> &'static str {
            "ring"
        }
        stub!(add modify remove wait watched visit drain);
        fn submit(&mut self, report: Token, operation: Operation) -> Result<Token, NotSubmitted> {
            assert_eq!(report, REPORT);
            if self.refuses {
                return Err(NotSubmitted::unsupported(operation, "ring"));
            }
            let name = Token::new(self.names, 0);
            self.names += 1;
            self.running.push((name, operation));
            Ok(name)
        }
        fn cancel(&mut self, operation: Token) {
            let is_it = |(name, _): &mut (Token, Operation)| *name == operation;
            let cancelled = self.running.extract_if(.., is_it);
            self.ended.extend(cancelled.map(|(name, operation)| {
                let result = Err(io::ErrorKind::Interrupted.into());
                (name, Completed { result, operation })
            }));
        }
        fn next_completed(&mut self) -> Option<(Token, Completed)> {
            self.ended.pop()
        }
    }

    fn backend() -> LoopBackend<Ring> {
        LoopBackend::new(AnyBackend::Usual(Box::default()))
    }

    fn with<R>(backend: &LoopBackend<Ring>, use_it: impl FnOnce(&mut Ring) -> R) -> R {
        match &mut *backend.borrow_mut() {
            AnyBackend::Usual(ring) => use_it(ring),
            AnyBackend::Other(_) => unreachable!(),
        }
    }

    fn operation() -> Operation {
        Operation::sync_data(Arc::new(File::open("/proc/self/stat").unwrap()))
    }

    #[test]
    fn s1_the_token_is_reserved_once_and_released_if_no_operation_was_accepted() {
        let (backend, submissions) = (backend(), Submissions::new());
        let (reserved, released) = (Cell::new(0), Cell::new(0));
        let submit = || {
            let reserve = || {
                reserved.set(reserved.get() + 1);
                Some(REPORT)
            };
            let release = |token| {
                assert_eq!(token, REPORT);
                released.set(released.get() + 1);
            };
            submissions.submit(&backend, operation(), (), reserve, release)
        };
        with(&backend, |ring| ring.refuses = true);
        for round in 1..3 {
            let refused = submit().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
            assert_eq!((reserved.get(), released.get()), (round, round));
            assert_eq!(submissions.report(), None);
        }
        with(&backend, |ring| ring.refuses = false);
        assert!(submit().is_ok() && submit().is_ok());
        with(&backend, |ring| ring.refuses = true);
        assert!(submit().is_err());
        assert_eq!((reserved.get(), released.get()), (3, 2));
        assert_eq!(submissions.report(), Some(REPORT), "operations are running");
    }

    #[test]
    fn s1_without_a_token_the_operation_comes_back() {
        let (backend, submissions) = (backend(), Submissions::new());
        let refused = submissions.submit(&backend, operation(), (), || None, |_| unreachable!());
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(
            (submissions.report(), submissions.callbacks().submitted()),
            (None, 0)
        );
    }

    #[test]
    fn s1_cancelled_operations_come_back_with_their_callbacks_and_abandoned_ones_without() {
        let (backend, submissions) = (backend(), Submissions::new());
        let submit = |callback| {
            let submitted = submissions.submit(&backend, operation(), callback, || Some(REPORT), |_| ());
            submitted.expect("it is taken")
        };
        let (kept, dropped, runs) = (submit("kept"), submit("dropped"), submit("runs"));
        assert!(submissions.next_ended(&backend).is_none());
        assert_eq!(submissions.abandon(&backend, dropped), Some("dropped"));
        assert_eq!(submissions.abandon(&backend, dropped), None);
        let callback = |ended: Option<(_, Completed)>| ended.expect("it has ended").0;
        assert_eq!(callback(submissions.next_ended(&backend)), None);
        submissions.cancel(&backend, kept);
        assert_eq!(callback(submissions.next_ended(&backend)), Some("kept"));
        // Its name may identify another operation by now.
        with(&backend, |ring| ring.names = 0);
        let other = submit("other");
        submissions.cancel(&backend, kept);
        assert_eq!(submissions.abandon(&backend, kept), None);
        assert!(submissions.next_ended(&backend).is_none());
        let waits = |id| submissions.callbacks().is_waiting(id);
        assert!(waits(other) && waits(runs) && !waits(kept) && !waits(dropped));
    }
}
