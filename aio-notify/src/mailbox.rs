//! [`Mailbox`]: an inbox, the notifier that wakes its loop, and the state of the home thread's waits.
//!
//! A post and its notification are one call here, in the right order. A post by the home thread notifies only
//! if the thread will not read the inbox before it waits.
//!
//! # State
//! | field | legend |
//! |---|---|
//! | `planning` | the home thread has decided how long to wait, and has not waited yet |
//! | `foreign` | a foreign loop waits on behalf of the loop |
//! | `waiters` | the number of [`WaitGuard`]s |
//! | `interrupts` | the number of requests to end a wait, with or without work |
//!
//! | a post by | planning or foreign | notifies |
//! |---|---|---|
//! | another thread | any | yes |
//! | the home thread | neither | no: the loop reads the inbox before it decides how long to wait |
//! | the home thread | one of them | yes |
//!
//! # Why kicks have full fences
//! A kick follows a change and reads `waiters`; a waiter raises `waiters` and reads the changed value.
//! Without both fences, both may read the old value, as in [`Notifier`].

use std::cell::Cell;
use std::fmt;
use std::hint::spin_loop;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::guards::{PlanGuard, SleepGuard, WaitGuard};
use crate::home::HomeThread;
use crate::inbox::{Inbox, Posted};
use crate::node::{Message, Node};
use crate::process::HomeProcess;
use crate::protocol::Notifier;
use crate::reply::Lost;
use crate::state::Urgency;
use crate::sync::{AtomicU32, AtomicU64, Ordering, faulty, fence};

/// A write takes a few microseconds. If one takes longer, its thread does not run.
const LONGEST_WRITE: Duration = Duration::from_micros(20);
/// The time within which the next post of a burst arrives: usually tens of nanoseconds.
const NEXT_POST: Duration = Duration::from_micros(1);

/// The one entrance for other threads into a loop.
///
/// Any thread may call [`post`](Self::post), [`retire`](Self::retire), [`send`](Self::send),
/// [`notify`](Self::notify), [`interrupt`](Self::interrupt) and [`kick`](Self::kick). All other functions are
/// for the home thread, which is the one that made the mailbox.
///
/// ```
/// use std::sync::Arc;
/// use aio_notify::{Mailbox, Message, RunQueue};
///
/// # fn main() -> std::io::Result<()> {
/// let mailbox = Arc::new(Mailbox::<(), u32>::new()?);
/// let other = mailbox.clone();
/// std::thread::spawn(move || other.send(Box::new(Message::new(7))).is_ok());
///
/// let mut queue = RunQueue::new();
/// while queue.is_empty() {
///     if mailbox.prepare_to_wait() {
///         let _sleep = mailbox.sleep_guard();
///         // ... wait until the mailbox, which is a descriptor, is readable.
///     }
///     mailbox.accept();
///     queue.take(mailbox.inbox());
/// }
/// # Ok(()) }
/// ```
pub struct Mailbox<T, M: ?Sized = T> {
    notifier: Notifier,
    inbox: Inbox<T, M>,
    home: HomeThread,
    process: HomeProcess,
    waiters: AtomicU32,
    interrupts: AtomicU64,
    /// 1 if the loop was asked to stop.
    stop: AtomicU32,
    /// Set if the loop ended while its thread panicked.
    has_panicked: AtomicBool,
    plans: Plans,
}

/// Whether a wait of the home thread was interrupted; see [`Mailbox::interrupted_since`].
///
/// # Examples
/// ```
/// use aio_notify::{Interrupted, Mailbox};
/// use std::cell::Cell;
///
/// let (mailbox, seen) = (Mailbox::<()>::new()?, Cell::new(0));
/// let before = seen.get();
/// assert_eq!(mailbox.interrupted_since(before, &seen), Interrupted::No);
/// mailbox.interrupt(); // by any thread, maybe after a post
/// assert_eq!(mailbox.interrupted_since(before, &seen), Interrupted::Unserved);
/// mailbox.accept();
/// // ... take the posts, and run them
/// assert_eq!(mailbox.interrupted_since(before, &seen), Interrupted::Served);
/// assert_eq!(mailbox.interrupted_since(seen.get(), &seen), Interrupted::No);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// No thread has interrupted it.
    No,
    /// A thread has, and a notification has not been accepted. It may be that of a post before the interrupt:
    /// serve it before the wait returns.
    Unserved,
    /// A thread has, and the loop has taken all posts that came before the interrupt.
    Served,
}

/// Written by the home thread in every iteration, and read only there. Apart from the fields that other
/// threads read when they post: cache lines of 64 bytes, fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Plans {
    foreign: AtomicBool,
    planning: AtomicBool,
}

impl<T, M: ?Sized> Mailbox<T, M> {
    /// Makes an empty mailbox, at home on this thread.
    ///
    /// # Errors
    /// The error of `eventfd2`: `EMFILE` means that `ulimit -n` is too low.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            notifier: Notifier::new()?,
            inbox: Inbox::new(),
            home: HomeThread::here(),
            process: HomeProcess::here(),
            waiters: AtomicU32::new(0),
            interrupts: AtomicU64::new(0),
            stop: AtomicU32::new(0),
            has_panicked: AtomicBool::new(false),
            plans: Plans::default(),
        })
    }

    /// Queues `node` and notifies. See [`Inbox::post`].
    #[inline]
    pub fn post(&self, node: &Node<T, M>, urgency: Urgency) -> Posted {
        let posted = self.inbox.post(node, urgency);
        if posted != Posted::Closed {
            self.notify_unless_read();
        }
        posted
    }

    /// Gives up a handle. After the last one the loop gets the payload. See [`Inbox::retire`].
    pub fn retire(&self, node: Node<T, M>) {
        if self.inbox.retire(node) {
            self.notify_unless_read();
        }
    }

    /// Sends a message and notifies. See [`Inbox::send`].
    ///
    /// # Errors
    /// The message, if the inbox is closed.
    #[inline]
    pub fn send(&self, message: Box<Message<T, M>>) -> Result<(), Box<Message<T, M>>> {
        faulty!(NotifiedBeforeSent, self.inbox.send(message)?; self.notify_unless_read());
        Ok(())
    }

    /// Notifies, unless this is the home thread and it will read the inbox before it waits.
    #[inline]
    fn notify_unless_read(&self) {
        if !self.home.is_here() || self.is_about_to_wait() {
            self.notifier.notify();
        }
    }

    /// Wakes the loop without giving it work. See [`Notifier::notify`]; async-signal safe.
    pub fn notify(&self) {
        self.notifier.notify();
    }

    /// Wakes the loop and counts that. A loop that would continue its wait after an iteration without work
    /// sees by the count that the wait must return. Async-signal safe.
    ///
    /// Ordering: the count releases this thread's earlier writes to [`interrupts`](Self::interrupts).
    pub fn interrupt(&self) {
        faulty!(InterruptCountedLate, self.interrupts.fetch_add(1, Ordering::Release); self.notifier.notify());
    }

    /// Asks the loop to stop, and [interrupts](Self::interrupt) it. Async-signal safe.
    ///
    /// Ordering: the flag releases this thread's earlier writes to [`take_stop`](Self::take_stop).
    pub fn stop(&self) {
        self.stop.store(1, Ordering::Release);
        self.interrupt();
    }

    /// Returns whether the loop was asked to [stop](Self::stop) since the last call.
    pub fn take_stop(&self) -> bool {
        // A plain load first, because it is `false` every time but once.
        self.stop.load(Ordering::Relaxed) != 0 && self.stop.swap(0, Ordering::Acquire) != 0
    }

    /// Records that the loop ends, before its inbox is [closed](crate::Deferred::close), and whether its
    /// thread is panicking.
    ///
    /// Ordering: as the close, this happens before a [`send`](Self::send) that finds the inbox closed.
    pub fn end(&self) {
        self.has_panicked
            .store(std::thread::panicking(), Ordering::Release);
    }

    /// Returns the reason why the loop has ended: see [`end`](Self::end).
    ///
    /// ```
    /// use aio_notify::{Lost, Mailbox};
    /// use std::sync::Arc;
    ///
    /// struct Loop(Arc<Mailbox<()>>);
    /// impl Drop for Loop {
    ///     fn drop(&mut self) {
    ///         self.0.end();
    ///     }
    /// }
    /// let mailbox = Arc::new(Mailbox::new()?);
    /// let it = Loop(mailbox.clone());
    /// let panics = std::thread::spawn(move || {
    ///     let _it = it;
    ///     panic!("on purpose");
    /// });
    /// assert!(panics.join().is_err());
    /// assert_eq!(mailbox.lost(), Lost::Panicked);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn lost(&self) -> Lost {
        if self.has_panicked.load(Ordering::Acquire) {
            Lost::Panicked
        } else {
            Lost::Dropped
        }
    }

    /// Returns the number of interrupts. While [`is_notified`](Self::is_notified) returns `true`, posts
    /// before the latest interrupt may not have been accepted.
    #[inline]
    #[must_use]
    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Acquire)
    }

    /// [Interrupts](Self::interrupt) if there is a [`WaitGuard`]; otherwise nearly free. Call it after
    /// changing a value that a waiter reads.
    ///
    /// Ordering: the fence pairs with the one in `wait_guard`. Either the waiter reads the change or this reads the waiter.
    pub fn kick(&self) {
        faulty!(KickWithoutFence, fence(Ordering::SeqCst));
        if self.waiters.load(Ordering::Relaxed) != 0 {
            self.interrupt();
        }
    }

    /// Counts a waiter until the guard is dropped, so that a [`kick`](Self::kick) interrupts the loop. Take
    /// the guard before reading the condition to wait for (rule W1). Guards nest.
    ///
    /// Ordering: the fence pairs with the one in `kick`.
    pub fn wait_guard(&self) -> WaitGuard<'_> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        faulty!(CountedWithoutFence, fence(Ordering::SeqCst));
        WaitGuard(&self.waiters)
    }

    /// Returns the inbox, for the loop to take from.
    #[inline]
    #[must_use]
    pub fn inbox(&self) -> &Inbox<T, M> {
        &self.inbox
    }

    /// Returns the process that made the mailbox.
    #[inline]
    #[must_use]
    pub fn process(&self) -> HomeProcess {
        self.process
    }

    /// Returns the home thread of the mailbox.
    #[inline]
    #[must_use]
    pub fn home(&self) -> HomeThread {
        self.home
    }

    /// Marks, until the guard is dropped, that the timeout of a wait is being computed. A post and
    /// [`notify_if_about_to_wait`](Self::notify_if_about_to_wait) on the home thread, from a callback in
    /// between, then notify. Guards nest.
    #[inline]
    pub fn plan_guard(&self) -> PlanGuard<'_> {
        let planning = &self.plans.planning;
        let before = planning.load(Ordering::Relaxed);
        planning.store(true, Ordering::Relaxed);
        PlanGuard { planning, before }
    }

    /// Returns whether the timeout of a wait is computed already. For the home thread.
    #[inline]
    #[must_use]
    pub fn is_about_to_wait(&self) -> bool {
        self.plans.planning.load(Ordering::Relaxed) || self.plans.foreign.load(Ordering::Relaxed)
    }

    /// Notifies if the timeout of a wait is computed already. For the home thread, after a change that
    /// shortens the wait.
    pub fn notify_if_about_to_wait(&self) {
        if self.is_about_to_wait() {
            self.notifier.notify();
        }
    }

    /// Announces a wait. If this returns `true`, the loop may block, and holds a
    /// [`sleep_guard`](Self::sleep_guard) during that. If it returns `false`, there is a notification
    /// already. See [`Notifier::prepare_to_wait`].
    #[inline]
    #[must_use]
    pub fn prepare_to_wait(&self) -> bool {
        self.notifier.prepare_to_wait()
    }

    /// Ends the announced wait when the guard is dropped, also if the backend panics. See
    /// [`Notifier::finish_wait`].
    #[inline]
    pub fn sleep_guard(&self) -> SleepGuard<'_> {
        SleepGuard(&self.notifier)
    }

    /// Returns whether a thread on another core is writing the eventfd at this moment: a hint. See
    /// [`Notifier::is_being_written`].
    #[inline]
    #[must_use]
    pub fn is_being_written(&self) -> bool {
        self.notifier.is_being_written()
    }

    /// Spins until the write that woke the loop returns, for at most 20 us, and 1 us longer. Returns `true`
    /// as soon as there is a notification. For a loop that would sleep otherwise: it is still awake for the
    /// rest of a burst, which then costs no write. `elapsed` returns the time since a fixed moment.
    pub fn outlast_write(&self, elapsed: impl Fn() -> Duration) -> bool {
        while self.is_being_written() && elapsed() < LONGEST_WRITE {
            spin_loop();
        }
        let returned = elapsed();
        while !self.is_notified() && elapsed() - returned < NEXT_POST {
            spin_loop();
        }
        self.is_notified()
    }

    /// Announces that a foreign loop waits on behalf of this one, or no longer does. After setting it, read
    /// [`is_notified`](Self::is_notified) before letting the foreign loop block. See
    /// [`Notifier::set_foreign`].
    pub fn set_foreign(&self, waits: bool) {
        self.plans.foreign.store(waits, Ordering::Relaxed);
        self.notifier.set_foreign(waits);
    }

    /// Returns whether there is a notification that has not been accepted: a plain load.
    #[inline]
    #[must_use]
    pub fn is_notified(&self) -> bool {
        self.notifier.is_notified()
    }

    /// Returns whether a thread has [interrupted](Self::interrupt) the home thread since there were `before` interrupts.
    ///
    /// `seen` is the number of interrupts for which a wait has returned, which may be a wait inside another
    /// one. Call this when a wait has found nothing, and use `seen` as the `before` of the next wait.
    #[inline]
    pub fn interrupted_since(&self, before: u64, seen: &Cell<u64>) -> Interrupted {
        let now = self.interrupts();
        let interrupted = if self.is_notified() {
            Interrupted::Unserved
        } else {
            seen.set(now);
            Interrupted::Served
        };
        if now == before {
            Interrupted::No
        } else {
            interrupted
        }
    }

    /// Accepts all notifications. Returns `true` if there was one. Accept first, then take from the inbox.
    /// See [`Notifier::accept`].
    #[inline]
    pub fn accept(&self) -> bool {
        self.notifier.accept()
    }

    /// Returns the number of notifications that wrote the eventfd, and of those that wrote nothing. See
    /// [`Notifier::writes`] and [`Notifier::elided`].
    #[must_use]
    pub fn wakeups(&self) -> (u64, u64) {
        (self.notifier.writes(), self.notifier.elided())
    }

    /// Returns the number of accepted notifications that wrote the eventfd. See [`Notifier::accepted`].
    #[must_use]
    pub fn wakeups_accepted(&self) -> u64 {
        self.notifier.accepted()
    }
}

/// Lends the descriptor to wait for while a wait is announced: readable once a notification has written it.
impl<T, M: ?Sized> AsFd for Mailbox<T, M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifier.as_fd()
    }
}

impl<T, M: ?Sized> fmt::Debug for Mailbox<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("notifier", &self.notifier)
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
