//! A [`Backend`] on `io_uring(7)`: it checks descriptors without a system call.
//!
//! The kernel reports in shared memory that a descriptor may have become ready. So [`Backend::peek`], and a wait with a timeout of
//! zero, read a few words while none is ready, whatever the number of descriptors. This way a busy-polling loop serves any descriptor
//! at once. One system call arms and waits: the next wait arms registrations, and those that were reported before, together.
//!
//! ```
//! use std::io::Write;
//! use std::rc::Rc;
//! use std::time::Duration;
//! use aio_backend::{Backend, Interest, ReadyList, Readiness, Token};
//! use aio_backend_uring::Uring;
//!
//! # fn main() -> std::io::Result<()> {
//! let mut backend = match Uring::new() {
//!     Ok(backend) => backend,
//!     Err(error) => {
//!         eprintln!("no io_uring: {error}; {}", aio_backend::remedy(&error));
//!         return Ok(());
//!     }
//! };
//! let (reader, mut writer) = std::io::pipe()?;
//! backend.add(Rc::new(reader).into(), Token::new(0, 0), Interest::READ)?;
//!
//! let mut ready = ReadyList::new();
//! backend.wait(Some(Duration::ZERO), &mut ready)?; // It arms the registration,
//! backend.wait(Some(Duration::ZERO), &mut ready)?; // and this one makes no system call.
//! assert!(ready.is_empty());
//! writer.write_all(b"x")?;
//! backend.wait(None, &mut ready)?;
//! assert_eq!(ready.iter().next(), Some((Token::new(0, 0), Readiness::IN)));
//! # Ok(()) }
//! ```
//!
//! # How it keeps the contract
//! - *Edges* are multishot requests, which report edges only. *Levels* are one-shot poll requests, which the next wait after their
//!   event arms again. With [`Config::multishot_from`], those that are due beside many others become multishot requests: then one
//!   `poll(2)` for up to 64 of them shows the next wait which are still ready.
//! - *A completion is a hint.* The kernel stores the cause of a wake-up, not the state of the descriptor: the data may have been read
//!   since. A completion is reported as it is if the same wait armed its request, or if it came while the wait blocked. Others are
//!   verified by one `poll(2)` for up to 64.
//! - *Removal* cancels the request before it returns, unless it was not submitted yet. The kernel then keeps no reference to the file.
//!   Each request has its own number, so a late completion is recognised and dropped.
//! - *A regular file* is always ready, as in the other backends.
//! - *A descriptor that was closed without `remove`* is reported as [`Readiness::NVAL`] when its request completes, or is armed again.
//!   Until then the request keeps the file open, which the other backends do not.
//! - *More completions than their queue has room for* are kept by the kernel, and fetched by the same wait.
//!
//! # Operations
//! It reads, writes, syncs and allocates files on the same ring: see [`Backend::submit`]. The next enter submits operations, with the
//! requests of descriptors, so that an operation makes no system call of its own. If the data of a file is in memory, that enter
//! itself reads it; operations that have to wait run on threads of the kernel. Any number can be in flight: operations wait while the
//! submission queue has no room.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use aio_backend::{Backend, Operation, Readiness, ReadyList, Token};
//! use aio_backend_uring::Uring;
//!
//! # fn main() -> std::io::Result<()> {
//! # let Ok(mut backend) = Uring::new() else {
//! #     println!("skipped: no io_uring");
//! #     return Ok(());
//! # };
//! # /*
//! let mut backend = Uring::new()?;
//! # */
//! let zeroes = Arc::new(std::fs::File::open("/dev/zero")?);
//! let report = Token::new(0, 0); // of no registration
//! let submitted = backend.submit(report, Operation::read(zeroes, 0, vec![1; 512]))?;
//! let mut ready = ReadyList::new();
//! backend.wait(Some(Duration::from_secs(10)), &mut ready)?;
//! assert_eq!(ready.iter().next(), Some((report, Readiness::IN)));
//! let (operation, completed) = backend.next_completed().expect("it was reported");
//! assert_eq!(operation, submitted);
//! assert_eq!(completed.into_bytes()?, [0; 512]);
//! # Ok(()) }
//! ```
//!
//! # In a foreign loop
//! An eventfd that is registered with the ring shows completions ([`Backend::make_operations_pollable`]), so that a context in a
//! foreign loop keeps its operations while an epoll set watches its descriptors. For descriptors there is none
//! ([`Backend::make_pollable`] returns `None`), for two reasons. With deferred task work (Linux 6.1) the kernel completes nothing
//! until this thread enters: the descriptor of the ring wakes no poller, and a wake-up by another eventfd, such as that of a
//! notification, does not write to the registered one. The kernel puts that write off, to avoid recursion, and does it once in the
//! life of the registration (seen with Linux 6.18). The same is true of an operation that reads from an eventfd. Without deferred task
//! work, a completion interrupts the wait of the foreign loop with `EINTR`.
//!
//! # What it does not do
//! It needs Linux 5.13. Only the thread that made it can use it. On kernels before 5.19 a check makes a system call.
//!
//! A child after `fork` without `exec` shares the queues with its parent. It may only drop the backend, which then makes no request to
//! the kernel. A child that was made by a raw `clone` system call is recognised, too.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod arming;
mod attempts;
mod calls;
mod completions;
mod config;
mod foreign;
mod kernel;
mod keys;
mod limit;
mod operations;
mod pollable;
mod report;
mod ring;
mod slots;
mod status;
mod submission;
mod wait;

/// The system calls, and the traits with which a test can replace them.
///
/// A backend is generic in its [`Sys`], which is [`Kernel`] by default, at no cost. Tests use a kernel that fails on purpose.
pub mod sys {
    pub use crate::calls::{Completion, POLL_MAX, Request, Ring, Sys};
    pub use crate::kernel::Kernel;
    pub use crate::ring::KernelRing;
}

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

#[cfg(doc)]
use aio_backend::Readiness;
use aio_backend::{
    Backend, Completed, Interest, NotSubmitted, Operation, Peek, ReadyList, Registrations, Token, Watched,
    concerns_all,
};

use crate::calls::{Ring, Sys};
pub use crate::config::Config;
pub use crate::foreign::ForeignMemory;
use crate::kernel::Kernel;
use crate::keys::Key;
use crate::pollable::Pollable;
use crate::report::Report;
use crate::slots::{List, Slots, State};

/// Waits with `io_uring_enter(2)`.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use std::time::Duration;
/// use aio_backend::{Backend, Interest, ReadyList, Token};
/// use aio_backend_uring::Uring;
///
/// # fn main() -> std::io::Result<()> {
/// # let Ok(mut backend) = Uring::new() else {
/// #     println!("skipped: no io_uring");
/// #     return Ok(());
/// # };
/// # /*
/// let mut backend = Uring::new()?;
/// # */
/// let (reader, _writer) = std::io::pipe()?;
/// backend.add(Rc::new(reader).into(), Token::new(0, 0), Interest::READ)?;
/// let mut ready = ReadyList::new();
/// backend.wait(Some(Duration::ZERO), &mut ready)?; // it arms the request
/// let enters = backend.enters();
/// backend.wait(Some(Duration::ZERO), &mut ready)?;
/// assert!(ready.is_empty() && backend.enters() == enters);
/// # Ok(()) }
/// ```
#[doc(alias = "io_uring_setup")]
pub struct Uring<S: Sys = Kernel> {
    sys: S,
    ring: S::Ring,
    entries: Registrations,
    /// The state of the registrations in the ring, by the index of their token.
    slots: Slots,
    /// The user data of the requests that are to be cancelled.
    to_cancel: Vec<u64>,
    /// The sequence of the latest request.
    sequence: u32,
    /// The number of waits. It wraps. A completion is compared with it, and verified if it belongs to another wait.
    waits: u32,
    /// The number of due slots in a wait from which levels get multishot requests.
    multishot_from: usize,
    /// Set if this wait has that many due slots.
    has_many: bool,
    /// Set if there was no pending work when the current enter began, so that its completions are about activities since then.
    is_watching: bool,
    /// Set if a multishot request was armed since the last enter.
    arms_multishot: bool,
    /// The error of a request that could not be armed, until a wait returns it.
    failure: Option<i32>,
    /// The token under which waits report completions of operations, and the state of these reports.
    report: Report,
    /// The eventfd; `None` until another backend waits for its operations.
    pollable: Option<Pollable>,
    /// The process that may use the ring.
    process: u32,
    enters: u64,
    verified: u64,
    stale: u64,
    /// Makes the type neither `Send` nor `Sync`: only the thread that made it may use it.
    home: PhantomData<*const ()>,
}

impl Uring {
    /// Makes a backend without registrations.
    ///
    /// # Errors
    /// The error of the system: `ENOSYS` if the kernel has no `io_uring`, or one before Linux 5.13; `EPERM` if a policy or the sysctl
    /// `kernel.io_uring_disabled` forbids it; `ENOMEM` if the process may lock no more memory; `EMFILE`. [`aio_backend::remedy`] has the
    /// remedy of each.
    pub fn new() -> io::Result<Self> {
        Self::with_config(Config::new())
    }

    /// As [`new`](Self::new), with queues of another size, or without optional features of the kernel.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_config(config: Config) -> io::Result<Self> {
        Self::with_sys(Kernel, config)
    }
}

impl<S: Sys> Uring<S> {
    /// As [`with_config`](Uring::with_config), on another kernel.
    ///
    /// # Errors
    /// The error of `sys`, if it cannot set up a ring.
    pub fn with_sys(sys: S, config: Config) -> io::Result<Self> {
        let ring = sys.setup(&config)?;
        tracing::debug!(?ring, "a ring was set up");
        Ok(Self {
            ring,
            sys,
            entries: Registrations::new(),
            slots: Slots::default(),
            to_cancel: Vec::new(),
            sequence: 0,
            waits: 0,
            multishot_from: config.multishot_from as usize,
            has_many: false,
            is_watching: false,
            arms_multishot: false,
            failure: None,
            report: Report::default(),
            pollable: None,
            process: std::process::id(),
            enters: 0,
            verified: 0,
            stale: 0,
            home: PhantomData,
        })
    }

    /// Returns the number of calls of `io_uring_enter`.
    #[must_use]
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Returns the number of descriptors whose readiness was verified by `poll`.
    #[must_use]
    pub fn verified(&self) -> u64 {
        self.verified
    }

    /// Returns the number of completions that arrived after their registration was removed or its interest changed, and were dropped.
    #[must_use]
    pub fn stale_completions(&self) -> u64 {
        self.stale
    }

    /// Cancels the request of a slot, if there is one, with the next enter, and removes the slot from its list.
    fn disarm(&mut self, index: u32) {
        let slot = self.slots.get(index);
        if slot.state.is_armed() {
            let key = Key::Poll {
                slot: index,
                sequence: slot.sequence,
            };
            self.to_cancel.push(key.to_bits());
        }
        self.slots.set(index, State::Silent, None);
    }

    /// Disarms a registration that has reported its only event, and clears its interest.
    fn silence(&mut self, index: u32) {
        self.disarm(index);
        self.slots.get_mut(index).set_interest(Interest::NONE);
        if let Some(entry) = self.entries.at_mut(index) {
            entry.set(Interest::NONE, 0);
        }
    }

    /// Disarms all registrations, and submits the cancellations.
    fn disarm_all(&mut self) -> io::Result<()> {
        let entries = std::mem::take(&mut self.entries);
        for (token, _) in entries.iter() {
            self.disarm(token.index());
        }
        self.entries = entries;
        self.submit_cancellations()
    }
}

impl<S: Sys> Backend for Uring<S> {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.entries.is_taken(token) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let is_silent = interest.canonical() == Interest::NONE;
        if !is_silent {
            self.sys.find(fd.as_fd())?;
        }
        self.slots.reset(token, fd.as_raw_fd(), interest);
        self.entries.insert(token, fd, interest, 0);
        if !is_silent {
            self.slots.append(token.index(), State::Due, List::Due);
        }
        Ok(())
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(token) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if entry.interest() == interest && !interest.reports_once() {
            return Ok(());
        }
        let is_silent = interest.canonical() == Interest::NONE;
        if !is_silent {
            self.sys.find(entry.fd().as_fd())?;
        }
        entry.set(interest, 0);
        self.disarm(token.index());
        self.slots.get_mut(token.index()).set_interest(interest);
        if !is_silent {
            self.slots.append(token.index(), State::Due, List::Due);
        }
        Ok(())
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        // It keeps the descriptor open until its request is cancelled.
        let Some(_entry) = self.entries.remove(token) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.disarm(token.index());
        self.submit_cancellations()
    }

    #[inline]
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        if timeout != Some(Duration::ZERO) {
            return self.wait_for::<true>(timeout, ready);
        }
        // A check that finds no event is compiled into its caller.
        if self.ring.sees_all() && self.is_quiet() {
            return Ok(());
        }
        self.wait_for::<false>(timeout, ready)
    }

    #[inline]
    fn peek(&mut self, _: &mut ReadyList) -> io::Result<Peek> {
        Ok(if !self.ring.sees_all() {
            Peek::Unsupported
        } else if self.is_quiet() {
            Peek::Checked
        } else {
            Peek::Pending
        })
    }

    fn reports_edges(&self) -> bool {
        true
    }

    /// Makes an eventfd and registers it with the ring. Returns `None` if the kernel refuses to register one.
    fn make_operations_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        if self.pollable.is_none() {
            match self.ring.make_eventfd() {
                Ok(eventfd) => self.pollable = Some(Pollable::new(eventfd)),
                Err(error) if concerns_all(&error) => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "a foreign loop cannot wait for the ring");
                    return Ok(None);
                }
            }
        }
        self.arm()?;
        Ok(self.pollable.as_ref().map(Pollable::as_fd))
    }

    fn submit(&mut self, report: Token, operation: Operation) -> Result<Token, NotSubmitted> {
        self.submit_operation(report, operation)
    }

    fn cancel(&mut self, operation: Token) {
        self.ring.cancel(operation);
        self.mark_completed();
        self.announce();
    }

    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        self.take_completed()
    }

    fn in_flight(&self) -> usize {
        self.report.in_flight
    }

    fn end_operations(&mut self) {
        self.end_all_operations();
    }

    fn watched(&self) -> usize {
        self.entries.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.entries.visit(each);
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        if let Err(error) = self.disarm_all() {
            tracing::debug!(%error, "requests could not be cancelled at once");
        }
        self.failure = None;
        std::mem::take(&mut self.entries).drain(each);
    }
}

impl<S: Sys> Drop for Uring<S> {
    /// Cancels all requests. The kernel would do so some time after the ring is closed.
    fn drop(&mut self) {
        if std::process::id() == self.process
            && let Err(error) = self.disarm_all()
        {
            tracing::debug!(%error, "requests could not be cancelled at once");
        }
    }
}

impl<S: Sys> fmt::Debug for Uring<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("ring", &self.ring)
            .field("entries", &self.entries)
            .field("enters", &self.enters)
            .field("verified", &self.verified)
            .field("stale", &self.stale)
            .finish_non_exhaustive()
    }
}
