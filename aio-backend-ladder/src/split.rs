//! [`Split`]: descriptors in one backend, operations in another.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Completed, Interest, NotSubmitted, Operation, Peek, ReadyList, Token, Watched};

/// Waits for descriptors with one backend, and executes operations with another.
///
/// The second one has no registrations. The first one watches the descriptor that shows the second one's
/// completions ([`Backend::make_operations_pollable`]). A foreign loop can therefore wait for the first one
/// on behalf of both, even if the second one could not watch descriptors in a foreign loop.
///
/// `shown` may not show each completion: the end of an operation that reads from an eventfd does not make the
/// descriptor of `aio-backend-uring` readable. Therefore, while operations are in flight, a wait that blocks
/// does so in the second backend, which watches the descriptor of the first one. A foreign loop notices such
/// an end only at its next check.
///
/// While operations are in flight, a check makes two system calls besides that of the first backend. A wait
/// that blocks makes such a check before it blocks, and another one afterwards.
///
/// # Examples
/// ```
/// use aio_backend::{Backend, Operation, ReadyList, Token};
/// use aio_backend_epoll::Epoll;
/// use aio_backend_ladder::Split;
/// use aio_backend_uring::Uring;
/// use std::{fs::File, rc::Rc, sync::Arc};
///
/// let Ok(mut ring) = Uring::new() else {
///     return Ok(println!("skipped: no io_uring"));
/// };
/// let Some(shown) = ring.make_operations_pollable()? else {
///     return Ok(println!("skipped: the kernel registers no eventfd"));
/// };
/// let shown = Rc::new(shown.try_clone_to_owned()?);
/// let mut backend = Split::new(Epoll::new()?, Box::new(ring), shown.into(), None);
/// let report = Token::new(7, 0);
/// let zero = Arc::new(File::open("/dev/zero")?);
/// let id = backend.submit(report, Operation::read(zero, 0, vec![1; 8]))?;
/// let mut ready = ReadyList::new();
/// backend.wait(None, &mut ready)?;
/// assert_eq!(ready.take_next().map(|(token, _)| token), Some(report));
/// let (ended, completed) = backend.next_completed().expect("one has ended");
/// assert_eq!((ended, completed.into_bytes()?), (id, vec![0; 8]));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Split<D> {
    descriptors: D,
    operations: Box<dyn Backend>,
    /// Readable if a wait of `operations` would report completions.
    shown: Watched,
    /// The token under which completions are reported and `shown` is registered; `None` until the first
    /// operation is submitted.
    report: Option<Token>,
    /// The events of `operations`.
    found: ReadyList,
    /// Set if `shown` may still be readable from earlier completions.
    is_stale: bool,
    /// The token under which `operations` watches the descriptor of `descriptors`, if it does. It has no other registration.
    watching: Option<Token>,
}

impl<D: Backend> Split<D> {
    /// Combines a backend for descriptors with one for operations, whose registrations are dropped.
    ///
    /// `shown` is a reference to the descriptor of [`Backend::make_operations_pollable`] of `operations`. If
    /// operations were submitted to it already, `report` is their token, under which `descriptors` watches
    /// `shown`, with [`Interest::READ`].
    pub fn new(
        descriptors: D,
        mut operations: Box<dyn Backend>,
        shown: Watched,
        report: Option<Token>,
    ) -> Self {
        operations.drain(&mut |_, _, _| {});
        Self {
            descriptors,
            operations,
            shown,
            report,
            found: ReadyList::with_limit(2),
            is_stale: true,
            watching: None,
        }
    }

    /// Passes submitted operations to the system, and makes `shown` readable for completions from now on.
    fn arm(&mut self) -> io::Result<()> {
        if self.is_stale || self.operations.in_flight() > 0 {
            self.operations.make_operations_pollable()?;
            self.is_stale = false;
        }
        Ok(())
    }

    /// Returns whether completed operations are still to be taken. Called after `shown` was readable.
    fn has_completed(&mut self) -> io::Result<bool> {
        self.is_stale = true;
        self.found.clear();
        self.operations.wait(Some(Duration::ZERO), &mut self.found)?;
        Ok(self.found.iter().any(|(token, _)| Some(token) == self.report))
    }

    /// Makes `operations` watch the descriptor of `descriptors`, so that it can block for both. Returns
    /// `false` if it cannot.
    fn watch_descriptors(&mut self, report: Token) -> bool {
        if self.watching.is_none() {
            let token = Token::new(u32::from(report.index() == 0), 0);
            let watched = self.descriptors.make_pollable().and_then(|fd| {
                let fd = fd.ok_or(io::ErrorKind::Unsupported)?.try_clone_to_owned()?;
                self.operations.add(Rc::new(fd).into(), token, Interest::READ)
            });
            self.watching = watched.is_ok().then_some(token);
        }
        self.watching.is_some()
    }

    fn unwatch_descriptors(&mut self) {
        if let Some(token) = self.watching.take()
            && let Err(error) = self.operations.remove(token)
        {
            tracing::debug!(%error, "the backend complained about a removal");
        }
    }

    /// Waits for the first backend, which watches `shown`.
    fn wait_for_shown(&mut self, mut timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let before = ready.len();
        let end = end_of(timeout);
        loop {
            self.arm()?;
            self.descriptors.wait(timeout, ready)?;
            let is_report = |(token, _)| Some(token) == self.report;
            let Some(place) = ready.iter_from(before).position(is_report) else {
                return Ok(());
            };
            let completed = self.has_completed();
            if matches!(completed, Ok(true)) {
                return Ok(());
            }
            ready.remove(before + place);
            if ready.len() > before {
                // The next wait finds an error again.
                return Ok(());
            }
            completed?;
            timeout = rest_of(timeout, end);
            if timeout == Some(Duration::ZERO) {
                return Ok(());
            }
        }
    }
}

fn end_of(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

fn rest_of(timeout: Option<Duration>, end: Option<Instant>) -> Option<Duration> {
    timeout.map(|_| end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now())))
}

impl<D: Backend> Backend for Split<D> {
    /// Returns the name of the backend for descriptors.
    fn name(&self) -> &'static str {
        self.descriptors.name()
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.descriptors.add(fd, token, interest)
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.descriptors.modify(token, interest)
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.descriptors.remove(token)
    }

    fn wait(&mut self, mut timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let is_check = timeout == Some(Duration::ZERO);
        let report = self
            .report
            .filter(|_| !is_check && self.operations.in_flight() > 0);
        if !report.is_some_and(|report| self.watch_descriptors(report)) {
            return self.wait_for_shown(timeout, ready);
        }
        let (before, end) = (ready.len(), end_of(timeout));
        loop {
            self.wait_for_shown(Some(Duration::ZERO), ready)?;
            if ready.len() > before || timeout == Some(Duration::ZERO) {
                return Ok(());
            }
            // `shown` does not show all completions, so the backend that executes the operations waits for
            // both.
            self.found.clear();
            self.operations.wait(timeout, &mut self.found)?;
            if self.found.is_empty() {
                return Ok(());
            }
            self.is_stale = true;
            timeout = rest_of(timeout, end);
        }
    }

    fn peek(&mut self, ready: &mut ReadyList) -> io::Result<Peek> {
        self.descriptors.peek(ready)
    }

    fn rebalance(&mut self) {
        self.descriptors.rebalance();
    }

    fn reports_edges(&self) -> bool {
        self.descriptors.reports_edges()
    }

    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        self.unwatch_descriptors();
        self.is_stale = true;
        self.arm()?;
        self.descriptors.make_pollable()
    }

    fn always_ready(&self) -> bool {
        self.descriptors.always_ready() || self.operations.always_ready()
    }

    fn submit(&mut self, report: Token, operation: Operation) -> Result<Token, NotSubmitted> {
        if self.report.is_none() {
            if let Err(error) = self.descriptors.add(self.shown.clone(), report, Interest::READ) {
                return Err(NotSubmitted::new(operation, error));
            }
            self.report = Some(report);
        }
        self.operations.submit(report, operation)
    }

    fn cancel(&mut self, operation: Token) {
        self.operations.cancel(operation);
    }

    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        self.operations.next_completed()
    }

    fn in_flight(&self) -> usize {
        self.operations.in_flight()
    }

    fn end_operations(&mut self) {
        self.operations.end_operations();
    }

    fn watched(&self) -> usize {
        self.descriptors.watched() - usize::from(self.report.is_some())
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.descriptors.visit(&mut |fd, token, interest| {
            if Some(token) != self.report {
                each(fd, token, interest);
            }
        });
    }

    /// Also removes the descriptor of the operations, so this ends them. Their completions can still be
    /// taken.
    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.unwatch_descriptors();
        let report = self.report.take();
        if report.is_some() {
            self.operations.end_operations();
        }
        self.descriptors.drain(&mut |fd, token, interest| {
            if Some(token) != report {
                each(fd, token, interest);
            }
        });
    }
}

impl<D: Backend> fmt::Debug for Split<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Split")
            .field("descriptors", &self.descriptors)
            .field("operations", &self.operations)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}
