//! [`Notifier`]: wakes a sleeping loop, and elides the wake-up of one that is awake.
//!
//! # State
//! | field | legend |
//! |---|---|
//! | `notified` | somebody has something for the loop that it has not accepted |
//! | `notify_me`, bit 0 | a foreign loop waits on behalf of this one |
//! | `notify_me`, the rest | how many waits, nested ones counted, are about to block or blocked |
//! | doorbell | readable from a ring until it is drained |
//!
//! | notified | notify_me | the loop is | a notify |
//! |---|---|---|---|
//! | no | 0 | running: it will look at `notified` before it blocks | sets `notified`, no ring |
//! | yes | 0 | running, will not block | changes nothing |
//! | no | > 0 | about to block, or blocked | sets `notified`, rings |
//! | yes | > 0 | woken, or about to find out that it must not block | rings once more: eliding this one loses wake-ups |
//!
//! # Why there are full fences
//! Two parties each write one flag and then read the other's: `notify` writes `notified` and reads `notify_me`;
//! `prepare_to_wait` writes `notify_me` and reads `notified`. With anything less than a full fence between write and read
//! on *both* sides, both may read the old value: the loop sleeps and nobody rings. `accept` needs none: see there.

use std::os::fd::{AsFd, BorrowedFd};

use crate::doorbell::Doorbell;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Fault, Ordering, fence, planted, raise, weakened};

const FOREIGN: u32 = 1;
const ONE_WAIT: u32 = 2;

/// Wakes one loop; shared by it and by everybody who has something for it.
///
/// Any thread may call [`notify`](Self::notify). Everything else is the loop's: its home thread calls it.
#[derive(Debug)]
pub struct Notifier {
    notified: AtomicBool,
    notify_me: AtomicU32,
    /// Rings so far, counted before each.
    writes: AtomicU64,
    /// A figure that nothing follows from: no checker need try its orders.
    elided: std::sync::atomic::AtomicU64,
    /// Rings that have been drained; only the home thread uses it.
    drained: AtomicU64,
    doorbell: Doorbell,
}

impl Notifier {
    /// A notifier with nothing to tell.
    ///
    /// # Errors
    /// What the system says to one more eventfd: `EMFILE` means that `ulimit -n` is too low.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            notified: AtomicBool::new(false),
            notify_me: AtomicU32::new(0),
            writes: AtomicU64::new(0),
            elided: std::sync::atomic::AtomicU64::new(0),
            drained: AtomicU64::new(0),
            doorbell: Doorbell::new()?,
        })
    }

    /// Tells the loop that there is something for it. Call it after publishing what there is, from any thread; async-signal
    /// safe. A loop that is awake costs no system call.
    ///
    /// `notified: any -> yes; notify_me: read`
    ///
    /// Ordering: the store releases what was published to `accept`; the fence pairs with the one in `prepare_to_wait`.
    pub fn notify(&self) {
        if planted(Fault::SkipWhenNotified) && self.notified.load(Ordering::Relaxed) {
            return;
        }
        let early = planted(Fault::NotifySwapped).then(|| self.notify_me.load(Ordering::Relaxed));
        raise(&self.notified);
        if !planted(Fault::NotifyWithoutFence) {
            fence(Ordering::SeqCst);
        }
        if early.unwrap_or_else(|| self.notify_me.load(Ordering::Relaxed)) == 0 {
            // No read-modify-write: of two threads that count at the same moment, one may be missed.
            let elided = self.elided.load(Ordering::Relaxed);
            self.elided.store(elided.wrapping_add(1), Ordering::Relaxed);
            return;
        }
        if planted(Fault::CountedAfterRing) {
            self.doorbell.ring();
            self.writes.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.doorbell.ring();
    }

    /// Whether there is something that has not been accepted: a plain load, for a loop that is polling (rule N3).
    #[inline]
    #[must_use]
    pub fn is_notified(&self) -> bool {
        self.notified.load(Ordering::Relaxed)
    }

    /// Announces a wait. True: the loop may block, and calls [`finish_wait`](Self::finish_wait) afterwards. False: there
    /// is something already; it must not block, and the announcement is taken back.
    ///
    /// `notify_me: n -> n + 1 wait, or back; notified: read`
    ///
    /// Ordering: the fence pairs with the one in `notify`. Reading `notified` again after the fence is what makes it safe
    /// to have decided to wait before.
    #[must_use]
    pub fn prepare_to_wait(&self) -> bool {
        self.notify_me.fetch_add(ONE_WAIT, Ordering::Relaxed);
        if !planted(Fault::PrepareWithoutFence) {
            fence(Ordering::SeqCst);
        }
        if self.notified.load(Ordering::Relaxed) && !planted(Fault::PrepareWithoutRecheck) {
            self.notify_me.fetch_sub(ONE_WAIT, Ordering::Release);
            return false;
        }
        true
    }

    /// The wait that was announced is over: takes the announcement back and accepts.
    ///
    /// `notify_me: n -> n - 1 wait; notified: any -> no; doorbell: drained`
    ///
    /// Ordering: release, so that who reads the lower count also sees that this wait is over; then as `accept`.
    pub fn finish_wait(&self) {
        self.notify_me.fetch_sub(ONE_WAIT, Ordering::Release);
        self.accept();
    }

    /// Takes note of what was notified; true if there was something. What comes after this notifies again, so: accept
    /// first, then look for work.
    ///
    /// `notified: any -> no; doorbell: drained`
    ///
    /// Ordering: one read-modify-write. Either it comes after a `notify` and acquires what that released, or it comes
    /// before, and then `notified` stays set. Reading and clearing in two steps would need a full fence, and could clear a
    /// notification that it has not read.
    pub fn accept(&self) -> bool {
        self.silence();
        if planted(Fault::AcceptInTwoSteps) {
            let was = self.notified.load(Ordering::Acquire);
            self.notified.store(false, Ordering::Release);
            return was;
        }
        self.notified
            .swap(false, weakened(Fault::AcceptRelaxed, Ordering::Acquire))
    }

    /// Drains the doorbell if it has been rung. A ring that is counted and has not arrived yet is left for the next time.
    fn silence(&self) {
        let drained = self.drained.load(Ordering::Relaxed);
        if self.writes.load(Ordering::Relaxed) != drained {
            self.drained
                .store(drained.wrapping_add(self.doorbell.drain()), Ordering::Relaxed);
        }
    }

    /// Says that a foreign loop waits on behalf of this one, or does no longer (rule N5). After setting it, look at
    /// [`is_notified`](Self::is_notified) before letting the foreign loop block.
    ///
    /// `notify_me: bit 0`
    ///
    /// Ordering: as `prepare_to_wait` when set, as `finish_wait` when cleared.
    pub fn set_foreign(&self, waits: bool) {
        if waits {
            self.notify_me.fetch_or(FOREIGN, Ordering::Relaxed);
            if !planted(Fault::ForeignWithoutFence) {
                fence(Ordering::SeqCst);
            }
        } else {
            self.notify_me.fetch_and(!FOREIGN, Ordering::Release);
        }
    }

    /// How many notifications had to ring: one system call each.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// How many notifications found the loop awake and rang nothing. Approximately, where several threads notify.
    #[must_use]
    pub fn elided(&self) -> u64 {
        self.elided.load(Ordering::Relaxed)
    }

    /// Sleeps until it rings, as the loop's backend would.
    #[cfg(all(test, loom))]
    pub(crate) fn block(&self) {
        self.doorbell.wait();
    }
}

/// The descriptor to wait for while a wait is announced: readable once somebody has rung.
impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
    fn n4_a_second_notify_of_a_sleeping_loop_rings_again() {
        let notifier = Notifier::new().unwrap();
        assert!(notifier.prepare_to_wait());
        notifier.notify();
        notifier.notify();
        assert_eq!(notifier.writes(), 2);
        notifier.finish_wait();
        assert!(!rings(&notifier), "one drain silences all rings");
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
}
