//! The states of a home thread that last until a guard is dropped: it waits for a condition, plans a wait, or
//! sleeps.

use std::sync::atomic::AtomicBool;

use crate::protocol::Notifier;
use crate::sync::{AtomicU32, Ordering};

/// Counts as a waiter until it is dropped: see [`Mailbox::wait_guard`](crate::Mailbox::wait_guard).
///
/// # Examples
/// ```
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
/// use aio_notify::Mailbox;
///
/// let (mailbox, done) = (Arc::new(Mailbox::<()>::new()?), Arc::new(AtomicBool::new(false)));
/// let waits = mailbox.wait_guard();
/// let (other, flag) = (mailbox.clone(), done.clone());
/// let worker = std::thread::spawn(move || {
///     flag.store(true, Ordering::Relaxed);
///     other.kick();
/// });
/// while !done.load(Ordering::Relaxed) {
///     // ... run an iteration, which the kick ends
/// }
/// worker.join().unwrap();
/// assert_eq!(mailbox.interrupts(), 1);
/// drop(waits);
/// mailbox.kick();
/// assert_eq!(mailbox.interrupts(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, the waiter is not kicked"]
pub struct WaitGuard<'a>(pub(crate) &'a AtomicU32);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Marks, until it is dropped, that the timeout of a wait is being computed: see
/// [`Mailbox::plan_guard`](crate::Mailbox::plan_guard).
///
/// # Examples
/// ```
/// use aio_notify::{Mailbox, Node, Urgency};
///
/// let (mailbox, node) = (Mailbox::<()>::new()?, Node::new(()));
/// let planning = mailbox.plan_guard();
/// // ... compute the timeout; a callback in between posts:
/// mailbox.post(&node, Urgency::Normal);
/// assert!(mailbox.is_notified());
/// drop(planning);
/// assert!(!mailbox.is_about_to_wait());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, posts of the home thread do not notify"]
pub struct PlanGuard<'a> {
    pub(crate) planning: &'a AtomicBool,
    /// Set if an outer iteration is planning, too.
    pub(crate) before: bool,
}

impl Drop for PlanGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.planning.store(self.before, Ordering::Relaxed);
    }
}

/// Keeps a wait announced until it is dropped: see [`Mailbox::sleep_guard`](crate::Mailbox::sleep_guard).
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use aio_notify::Mailbox;
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// let mailbox = Arc::new(Mailbox::<()>::new()?);
/// let other = mailbox.clone();
/// let waker = std::thread::spawn(move || other.notify());
/// if mailbox.prepare_to_wait() {
///     let _sleep = mailbox.sleep_guard();
///     poll(&mut [PollFd::new(&*mailbox, PollFlags::IN)], None)?;
///     // Dropped, it accepts the notification.
/// } else {
///     assert!(mailbox.accept()); // it came before
/// }
/// assert!(!mailbox.is_notified());
/// # waker.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, the wait is over before it begins"]
pub struct SleepGuard<'a>(pub(crate) &'a Notifier);

impl Drop for SleepGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.finish_wait();
    }
}
