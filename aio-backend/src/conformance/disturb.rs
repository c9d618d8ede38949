//! Disturbances of a wait from outside: other threads, signals, closed numbers, limits.
//!
//! No function sleeps to synchronise with another thread.

use std::cell::Cell;
use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::SIGURG;

use super::fixtures::need;

/// Runs `body`, and `wake` on another thread as soon as this one sleeps.
pub fn once_asleep<R>(wake: impl FnOnce() + Send, body: impl FnOnce() -> R) -> R {
    let home = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let state = Path::new("/proc").join(home).join("stat");
    thread::scope(|threads| {
        threads.spawn(move || {
            // Without /proc it wakes at once, which is a weaker test, but a valid one.
            while std::fs::read_to_string(&state).is_ok_and(|line| !line.contains(") S ")) {
                thread::yield_now();
            }
            wake();
        });
        body()
    })
}

/// Runs `body` while this thread receives one signal after the other.
///
/// The default action of the signal is to ignore it, so a late one does no harm.
///
/// # Panics
/// If no signal arrives.
pub fn in_a_storm<R>(body: impl FnOnce() -> R) -> R {
    in_a_storm_of(u32::MAX, body).0
}

/// Runs `body` while this thread receives this number of signals, 50 us or more apart. Also returns whether
/// `body` ended before the last of them.
///
/// # Panics
/// If no signal arrives.
pub(super) fn in_a_storm_of<R>(signals: u32, body: impl FnOnce() -> R) -> (R, bool) {
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let hit = Arc::new(AtomicBool::new(false));
    let handled = need(
        signal_hook::flag::register(SIGURG, Arc::clone(&hit)),
        "handling a signal",
    );
    let (home, over) = (pthread_self(), AtomicBool::new(false));
    let result = thread::scope(|threads| {
        let storm = threads.spawn(|| {
            for _ in 0..signals {
                if over.load(Ordering::Relaxed) {
                    return true;
                }
                let _ = pthread_kill(home, Signal::SIGURG);
                thread::sleep(Duration::from_micros(50));
            }
            false
        });
        let ends = Ends(&over);
        let result = body();
        drop(ends);
        (result, storm.join().unwrap_or(true))
    });
    signal_hook::low_level::unregister(handled);
    assert!(hit.load(Ordering::Relaxed), "the signals did not arrive");
    result
}

/// An owner of a descriptor whose number can be closed while it is owned, as a raw `close` does.
///
/// The number is near the upper limit, where the system assigns none by itself, so it stays free while it is closed.
///
/// # Examples
/// ```
/// use std::os::fd::AsFd;
/// use aio_backend::Watched;
/// use aio_backend::conformance::disturb::Number;
///
/// let (reader, _writer) = std::io::pipe()?;
/// let number = Number::of(&reader);
/// let watched = Watched::from(number.clone());
/// // A backend keeps `watched`, and finds that its number is closed.
/// number.close();
/// assert!(rustix::io::fcntl_getfd(watched.as_fd()).is_err());
/// assert!(rustix::io::fcntl_getfd(&reader).is_ok());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Number {
    fd: ManuallyDrop<OwnedFd>,
    is_open: Cell<bool>,
}

impl Number {
    /// Makes another number for the file of `fd`.
    ///
    /// # Panics
    /// If there is no free number.
    pub fn of(fd: impl AsFd) -> Rc<Self> {
        static TAKEN: AtomicI32 = AtomicI32::new(0);
        let limit = i32::try_from(raise_limit()).unwrap_or(i32::MAX).min(100_000);
        let least = limit - 1 - TAKEN.fetch_add(1, Ordering::Relaxed) % 100;
        let fd = need(rustix::io::fcntl_dupfd_cloexec(fd, least), "one more descriptor");
        Rc::new(Self {
            fd: ManuallyDrop::new(fd),
            is_open: Cell::new(true),
        })
    }

    /// Closes the number as a raw `close(2)` does.
    ///
    /// # Panics
    /// If it is not open.
    pub fn close(&self) {
        if self.is_open.replace(false) {
            need(nix::unistd::close(self.fd.as_raw_fd()), "closing a number");
        }
    }

    /// Makes the number mean the file of `other`, as a raw `dup2(2)` does. A closed number is open afterwards.
    ///
    /// # Panics
    /// If another thread gets the number meanwhile.
    pub fn becomes(&self, other: impl AsFd) {
        self.close();
        let number = self.fd.as_raw_fd();
        let again = need(rustix::io::fcntl_dupfd_cloexec(other, number), "a number again");
        assert_eq!(again.into_raw_fd(), number, "another thread got the number");
        self.is_open.set(true);
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Raises the limit of descriptors as far as the process may, and returns it.
pub fn raise_limit() -> u64 {
    let mut limits = getrlimit(Resource::Nofile);
    if limits.current != limits.maximum {
        limits.current = limits.maximum;
        // If the system refuses, the former limit holds.
        let _ = setrlimit(Resource::Nofile, limits);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Prints that a promise was not tested, also if the output of tests is captured.
pub(super) fn skip(id: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {id}: {why}");
}
