//! [`Split`]: descriptors in one backend, operations in another.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Completed, Interest, NotSubmitted, Operation, Peek, ReadyList, Token, Watched};

/// Waits for descriptors with one backend, and executes operations with another.
///
/// The second one has no registrations. The first one watches the descriptor that shows its completions
/// ([`Backend::make_operations_pollable`]). So a foreign loop can wait for the first one on behalf of both, although the second one could not
/// watch descriptors in a foreign loop.
///
/// `shown` may not show each completion: the end of an operation that reads from an eventfd does not make that of `aio-backend-uring` readable. A
/// wait that blocks may not return for it, and the next wait reports it.
///
/// While operations are in flight, a wait makes two system calls besides those of the first backend.
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
    /// Where completions are reported, and `shown` is registered; `None` until the first operation is submitted.
    report: Option<Token>,
    /// The events of `operations`.
    found: ReadyList,
    /// `shown` may be readable from earlier completions.
    is_stale: bool,
}

impl<D: Backend> Split<D> {
    /// Takes a backend for descriptors, and one for operations, whose registrations are dropped.
    ///
    /// `shown` is a share in the descriptor of [`Backend::make_operations_pollable`] of `operations`. If operations were submitted to it
    /// already, `report` is their token, under which `descriptors` watches `shown`, with [`Interest::READ`].
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
            found: ReadyList::with_limit(1),
            is_stale: true,
        }
    }

    /// Submits operations, and has `shown` show what ends from now on.
    fn arm(&mut self) -> io::Result<()> {
        if self.is_stale || self.operations.in_flight() > 0 {
            self.operations.make_operations_pollable()?;
            self.is_stale = false;
        }
        Ok(())
    }

    /// Returns whether operations have ended that were not taken. `shown` was readable.
    fn has_completed(&mut self) -> io::Result<bool> {
        self.is_stale = true;
        self.found.clear();
        self.operations.wait(Some(Duration::ZERO), &mut self.found)?;
        Ok(!self.found.is_empty())
    }
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
        let before = ready.len();
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
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
                // An error is found again by the next wait.
                return Ok(());
            }
            completed?;
            timeout = timeout
                .map(|_| end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now())));
            if timeout == Some(Duration::ZERO) {
                return Ok(());
            }
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

    /// The descriptor of the operations is removed too, so this ends them. Their completions can be taken.
    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
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
