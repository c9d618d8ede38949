//! [`Notifier`]: wakes a sleeping loop, and elides the wake-up if the loop is awake or was woken already.
//!
//! # State
//! | field | legend |
//! |---|---|
//! | `notified` | a notification that the loop has not accepted |
//! | `notify_me`, bit 0 | a foreign loop waits on behalf of this one |
//! | `notify_me`, the rest | the number of waits, nested ones included, that are about to block or blocked |
//! | eventfd | readable from a write until it is drained |
//! | `writes` | the number of announced writes; each is announced before it begins |
//! | `drained`, bit 0 | FINISHED: a write has finished since the latest drain |
//! | `drained`, the rest | the number of writes that the loop has drained |
//!
//! | notified | notify_me | the loop is | a notification |
//! |---|---|---|---|
//! | no | 0 | running: it reads `notified` before it blocks | sets `notified`, writes nothing |
//! | yes | 0 | running, will not block | changes nothing |
//! | no | > 0 | about to block, or blocked | sets `notified`, goes on to the next table |
//! | yes | > 0 | woken, or about to find out that it must not block, or blocked | goes on to the next table: `notified` alone is no reason to write nothing |
//!
//! | FINISHED | writes | the eventfd is | a notification of a loop that waits |
//! |---|---|---|---|
//! | off | all drained | empty | writes |
//! | off | one more announced | written soon: a thread has announced a write and not finished it | writes as well: that thread may have stopped |
//! | on | more than drained | readable until the loop drains it | writes nothing |
//!
//! A burst therefore costs one write, plus one for each thread that posts while the first one is writing
//! (rule N6).
//!
//! # Why there are full fences
//! Two parties each write one flag and then read the other's: `notify` writes `notified` and reads
//! `notify_me`; `prepare_to_wait` writes `notify_me` and reads `notified`. Without a full fence between write
//! and read on *both* sides, both may read the old value: the loop sleeps and no write wakes it.
//!
//! # Why a finished write is enough
//! A notification that writes nothing has read FINISHED after its fence. If the loop's fence comes first, the
//! value read is not older than the loop's latest drain: the finished write has not been drained, the eventfd
//! is readable, and the wait ends. If the loop's fence comes second, there may have been a drain since, but
//! the loop reads `notified` after its fence and does not block. The loop's fence is the one of
//! `prepare_to_wait`, of `set_foreign`, or, if a wait stays announced while the loop accepts, the one of
//! `accept`.
//!
//! An announced write is not enough: the eventfd stays empty for as long as the writing thread is stopped.
//!
//! The loop stores `drained` *after* the drain. If it did so before, a write between store and drain would be
//! drained and still count as finished. A thread sets FINISHED only if `drained` still has the value that it
//! read *before* its write: if the thread is stopped between write and exchange while the loop drains, the
//! exchange fails.

use std::os::fd::{AsFd, BorrowedFd};

use crate::event_notifier::WakeUp;
use crate::sync::{
    AtomicBool, AtomicU32, AtomicU64, Count, Ordering, core_here, faulty, fence, overwrite, raise,
};

const FOREIGN: u32 = 1;
const ONE_WAIT: u32 = 2;

const FINISHED: u64 = 1;
const ONE_WRITE: u64 = 2;

/// Wakes one loop. The loop shares it with all threads that have work for it.
///
/// Any thread may call [`notify`](Self::notify). All other functions are for the loop's home thread.
///
/// ```
/// use std::io;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use aio_notify::Notifier;
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// # fn main() -> io::Result<()> {
/// let (notifier, has_work) = (Arc::new(Notifier::new()?), Arc::new(AtomicBool::new(false)));
/// let (other, work) = (notifier.clone(), has_work.clone());
/// let thread = std::thread::spawn(move || {
///     work.store(true, Ordering::Relaxed); // first publish
///     other.notify();
/// });
/// loop {
///     // The waiting side: announce the wait, then wait unless a notification has come before.
///     if notifier.prepare_to_wait() {
///         poll(&mut [PollFd::new(&*notifier, PollFlags::IN)], None)?;
///         notifier.finish_wait();
///     }
///     // Accept before looking for work, so that work published in between notifies again.
///     notifier.accept();
///     if has_work.load(Ordering::Relaxed) {
///         break;
///     }
/// }
/// # thread.join().expect("it does not panic"); Ok(()) }
/// ```
#[derive(Debug)]
pub struct Notifier {
    notified: AtomicBool,
    notify_me: AtomicU32,
    writes: Count,
    /// Only a figure: no decision depends on it, so no checker need try its orders.
    elided: std::sync::atomic::AtomicU64,
    /// Only the home thread changes more than bit 0.
    drained: AtomicU64,
    /// The value of `drained` without bit 0, for the home thread alone.
    drained_at_home: std::sync::atomic::AtomicU64,
    /// The number of threads that are writing. A hint: only how long the loop stays awake depends on it.
    writing: std::sync::atomic::AtomicU32,
    /// The core of the latest of these threads, also a hint.
    writing_core: std::sync::atomic::AtomicUsize,
    wake_up: WakeUp,
}

impl Notifier {
    /// Makes a notifier without a notification.
    ///
    /// # Errors
    /// The error of `eventfd2`: `EMFILE` means that `ulimit -n` is too low.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            notified: AtomicBool::new(false),
            notify_me: AtomicU32::new(0),
            writes: Count::new(0),
            elided: std::sync::atomic::AtomicU64::new(0),
            drained: AtomicU64::new(0),
            drained_at_home: std::sync::atomic::AtomicU64::new(0),
            writing: std::sync::atomic::AtomicU32::new(0),
            writing_core: std::sync::atomic::AtomicUsize::new(0),
            wake_up: WakeUp::new()?,
        })
    }

    /// Notifies the loop that there is work for it. Call it after publishing the work, from any thread;
    /// async-signal safe. It makes a system call only if the loop sleeps, or is about to, and no finished
    /// write wakes it already.
    ///
    /// `notified: any -> yes; notify_me: read`
    ///
    /// Ordering: the store releases the published work to `accept`; the fence pairs with the one in
    /// `prepare_to_wait`.
    pub fn notify(&self) {
        faulty!(SkipWhenNotified: if self.is_notified() { return });
        faulty!(NotifySwapped: if !self.is_awaited() { return raise(&self.notified, Ordering::SeqCst) });
        raise(
            &self.notified,
            faulty!(NotifyRelaxed, Ordering::Release, Ordering::Relaxed),
        );
        faulty!(NotifyWithoutFence, fence(Ordering::SeqCst));
        if self.is_awaited() {
            self.write();
        } else {
            self.count_elided();
        }
    }

    /// Writes the eventfd, unless a write has finished since the latest drain.
    ///
    /// `writes: n -> n + 1; drained: FINISHED on, unless there was a drain meanwhile`
    ///
    /// Ordering: reading `drained` acquires the drain that it counts, so that the write comes after it, or the write that has
    /// finished. Setting FINISHED releases the write to a notification that writes nothing.
    #[cold]
    fn write(&self) {
        let drained = self
            .drained
            .load(faulty!(DrainedUnacquired, Ordering::Acquire, Ordering::Relaxed));
        if drained & FINISHED != 0 {
            return self.count_elided();
        }
        faulty!(SkipWhenAnnounced: if self.writes() > drained / ONE_WRITE { return });
        faulty!(FinishedBeforeWrite: self.finish(drained));
        faulty!(CountedAfterRing, self.announce(); self.ring());
        self.finish(faulty!(
            DrainedReadLate,
            drained,
            self.drained.load(Ordering::Acquire)
        ));
    }

    /// Counts a write that is about to begin.
    fn announce(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    fn ring(&self) {
        self.writing_core.store(core_here(), Ordering::Relaxed);
        self.writing.fetch_add(1, Ordering::Relaxed);
        self.wake_up.write();
        self.writing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets FINISHED, unless the loop has drained since `drained` was read, or another write has finished.
    fn finish(&self, drained: u64) {
        let order = faulty!(FinishedRelaxed, Ordering::Release, Ordering::Relaxed);
        faulty!(FinishedAnyDrain: _ = self.drained.fetch_or(FINISHED, order));
        let finished = drained | FINISHED;
        let _ = self
            .drained
            .compare_exchange(drained, finished, order, Ordering::Relaxed);
    }

    /// Counts a notification that wrote nothing. No read-modify-write: of two threads that count at the same
    /// moment, one may be missed.
    fn count_elided(&self) {
        let elided = self.elided.load(Ordering::Relaxed);
        self.elided.store(elided.wrapping_add(1), Ordering::Relaxed);
    }

    /// Returns whether a wait is announced, or a foreign loop waits.
    #[inline]
    fn is_awaited(&self) -> bool {
        self.notify_me.load(Ordering::Relaxed) != 0
    }

    /// Returns whether there is a notification that has not been accepted: a plain load, for a loop that is
    /// polling (rule N3).
    #[inline]
    #[must_use]
    pub fn is_notified(&self) -> bool {
        self.notified.load(Ordering::Relaxed)
    }

    /// Returns whether a thread on another core is writing the eventfd at this moment: a hint, by a plain
    /// load. During a write it costs more: a second load, and the number of the caller's core.
    ///
    /// A loop may finish its work before the write that woke it returns. If it then sleeps, the next
    /// notification of that thread must write again; if it stays awake until the write returns, the rest of a
    /// burst costs no write. A thread on the core of the caller does not run meanwhile: its write returns
    /// after the loop has gone to sleep.
    #[inline]
    #[must_use]
    pub fn is_being_written(&self) -> bool {
        self.writing.load(Ordering::Relaxed) != 0 && self.is_written_elsewhere()
    }

    #[cold]
    fn is_written_elsewhere(&self) -> bool {
        self.writing_core.load(Ordering::Relaxed) != core_here()
    }

    /// Announces a wait. If this returns `true`, the loop may block, and calls
    /// [`finish_wait`](Self::finish_wait) afterwards. If it returns `false`, there is a notification already;
    /// the loop must not block, and the announcement is taken back.
    ///
    /// `notify_me: n -> n + 1 wait, or back; notified: read`
    ///
    /// Ordering: the fence pairs with the one in `notify`. `notified` is read again after the fence, so an
    /// earlier decision to wait is safe.
    #[must_use]
    pub fn prepare_to_wait(&self) -> bool {
        self.notify_me.fetch_add(ONE_WAIT, Ordering::Relaxed);
        faulty!(PrepareWithoutFence, fence(Ordering::SeqCst));
        if faulty!(PrepareWithoutRecheck, self.is_notified(), false) {
            self.notify_me.fetch_sub(ONE_WAIT, Ordering::Release);
            return false;
        }
        true
    }

    /// Ends the wait that was announced: takes the announcement back and accepts.
    ///
    /// `notify_me: n -> n - 1 wait; the rest: as accept`
    ///
    /// Ordering: release, so that a thread that reads the lower count also sees that this wait is over; then as `accept`.
    pub fn finish_wait(&self) {
        let waits = self.notify_me.fetch_sub(ONE_WAIT, Ordering::Release);
        self.accept_while(|| waits != ONE_WAIT);
    }

    /// Accepts all notifications. Returns `true` if there was one. A later notification is a new one, so
    /// accept first, then take the work.
    ///
    /// `notified: any -> no; eventfd: drained; drained: n -> n + the writes that were drained, FINISHED off, unless these are none`
    ///
    /// Ordering: one read-modify-write. Either it comes after a `notify` and acquires its writes, or
    /// it comes before, and then `notified` stays set. Reading and clearing in two steps would need a full
    /// fence, and could clear a notification that was not read. The drain comes first: see `drain`.
    pub fn accept(&self) -> bool {
        self.accept_while(|| self.is_awaited())
    }

    /// As `accept`; `is_announced` returns whether a wait stays announced.
    #[inline]
    fn accept_while(&self, is_announced: impl FnOnce() -> bool) -> bool {
        self.drain(is_announced);
        let order = faulty!(AcceptRelaxed, Ordering::Acquire, Ordering::Relaxed);
        faulty!(AcceptInTwoSteps: return (self.notified.load(order), self.notified.store(false, Ordering::Release)).0);
        self.notified.swap(false, order)
    }

    /// Drains the eventfd if it has been written. A write that is announced and has not arrived is left for
    /// the next drain. In that case `drained` is not stored, because the write may have finished since.
    ///
    /// Ordering: release, so that a write under the new `drained` comes after the drain. If a wait stays
    /// announced, no `prepare_to_wait` need come before the loop blocks: this fence replaces that one, and
    /// the reads of `accept` and of the loop after it replace the second read of `notified`.
    #[inline]
    fn drain(&self, is_announced: impl FnOnce() -> bool) {
        let drained = self.drained_at_home.load(Ordering::Relaxed);
        let writes = self.writes.load(Ordering::Relaxed);
        if writes == drained {
            return;
        }
        let count = faulty!(DrainedStoredEarly, self.wake_up.drain(), writes - drained);
        if faulty!(EmptyDrainStored, count == 0, false) {
            return;
        }
        let drained = drained.wrapping_add(count);
        self.drained_at_home.store(drained, Ordering::Relaxed);
        let order = faulty!(DrainedRelaxed, Ordering::Release, Ordering::Relaxed);
        overwrite(&self.drained, drained.wrapping_mul(ONE_WRITE), order);
        faulty!(DrainedStoredEarly: _ = self.wake_up.drain());
        if is_announced() {
            faulty!(AcceptWithoutFence, fence(Ordering::SeqCst));
        }
    }

    /// Announces that a foreign loop waits on behalf of this one, or no longer does (rule N5). After setting
    /// it, read [`is_notified`](Self::is_notified) before letting the foreign loop block.
    ///
    /// `notify_me: bit 0`
    ///
    /// Ordering: as `prepare_to_wait` when set, as `finish_wait` when cleared.
    pub fn set_foreign(&self, waits: bool) {
        if waits {
            self.notify_me.fetch_or(FOREIGN, Ordering::Relaxed);
            faulty!(ForeignWithoutFence, fence(Ordering::SeqCst));
        } else {
            self.notify_me.fetch_and(!FOREIGN, Ordering::Release);
        }
    }

    /// Returns the number of notifications that wrote the eventfd: one system call each.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Returns the number of [writes](Self::writes) that the loop has accepted; the others are under way.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.drained_at_home.load(Ordering::Relaxed)
    }

    /// Returns the number of notifications that wrote nothing, because the loop was awake or a finished write
    /// was waking it. Approximate if several threads notify.
    #[must_use]
    pub fn elided(&self) -> u64 {
        self.elided.load(Ordering::Relaxed)
    }
}

/// Lends the descriptor to wait for while a wait is announced: readable once it has been written.
impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake_up.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::thread::{CpuSet, sched_setaffinity};

    use super::*;

    fn rings(notifier: &Notifier) -> bool {
        let mut fds = [PollFd::new(notifier, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .expect("poll works")
            == 1
    }

    #[test]
    fn n1_a_loop_that_is_awake_costs_no_write() {
        let notifier = Notifier::new().unwrap();
        for _ in 0..1000 {
            notifier.notify();
        }
        assert_eq!(
            (notifier.writes(), notifier.elided(), rings(&notifier)),
            (0, 1000, false)
        );
        assert!(notifier.is_notified() && notifier.accept() && !notifier.accept());
    }

    #[test]
    fn n2_a_wait_is_refused_when_something_came_before() {
        let notifier = Notifier::new().unwrap();
        notifier.notify();
        assert!(!notifier.prepare_to_wait());
        notifier.notify();
        assert_eq!(notifier.writes(), 0, "the announcement was taken back");
        notifier.accept();
        assert!(notifier.prepare_to_wait());
        notifier.notify();
        assert!(rings(&notifier));
        notifier.finish_wait();
        assert!(!rings(&notifier) && !notifier.is_notified());
    }

    #[test]
    fn n6_a_burst_to_a_loop_that_waits_is_one_write_for_each_wait() {
        let notifier = Notifier::new().unwrap();
        for wait in 1..=3 {
            assert!(notifier.prepare_to_wait());
            assert!(!rings(&notifier));
            for _ in 0..100 {
                notifier.notify();
                assert!(rings(&notifier));
            }
            assert_eq!((notifier.writes(), notifier.elided()), (wait, 99 * wait));
            notifier.finish_wait();
            assert!(!rings(&notifier) && !notifier.is_notified());
        }
    }

    /// With and without an announced wait, the next notification after an acceptance writes again.
    #[test]
    fn n4_n6_what_comes_after_accepting_writes_again() {
        let notifier = Notifier::new().unwrap();
        notifier.set_foreign(true);
        for accepted in 1..=3 {
            notifier.notify();
            notifier.notify();
            assert_eq!(notifier.writes(), accepted);
            assert!(notifier.accept() && !rings(&notifier));
        }
    }

    #[test]
    fn n2_nested_waits_count() {
        let notifier = Notifier::new().unwrap();
        assert!(notifier.prepare_to_wait() && notifier.prepare_to_wait());
        notifier.finish_wait();
        notifier.notify();
        assert_eq!(notifier.writes(), 1, "the outer one still waits");
        notifier.finish_wait();
        notifier.notify();
        assert_eq!(notifier.writes(), 1);
    }

    #[test]
    fn n5_a_foreign_loop_is_one_bit_beside_the_count() {
        let notifier = Notifier::new().unwrap();
        notifier.set_foreign(true);
        notifier.set_foreign(true);
        notifier.notify();
        assert!(rings(&notifier));
        assert!(notifier.accept());
        assert!(notifier.prepare_to_wait());
        notifier.set_foreign(false);
        notifier.notify();
        assert_eq!(notifier.writes(), 2, "the wait is still announced");
        notifier.finish_wait();
        notifier.notify();
        assert_eq!((notifier.writes(), notifier.elided()), (2, 1));
    }

    /// A thread that wakes a loop on its own core is preempted within its write. It runs again only after the
    /// loop sleeps.
    #[test]
    fn n6_no_loop_waits_for_a_write_of_its_own_core() {
        let home = thread::spawn(|| {
            let mut here = CpuSet::new();
            here.set(core_here());
            sched_setaffinity(None, &here).expect("a thread may stay where it is");
            let notifier = Notifier::new().unwrap();
            notifier.writing.store(1, Ordering::Relaxed);
            notifier.writing_core.store(core_here(), Ordering::Relaxed);
            assert!(!notifier.is_being_written());
            notifier.writing_core.store(core_here() + 1, Ordering::Relaxed);
            assert!(notifier.is_being_written());
        });
        home.join().unwrap();
    }
}
