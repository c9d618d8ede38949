//! [`Signal`]: the number of a signal, and its name.

use std::fmt;

use nix::libc;
use nix::sys::signal::Signal as Known;

/// A signal, by its number.
///
/// ```
/// use aio_sources::Signal;
///
/// assert_eq!(Signal::TERM.as_raw(), 15);
/// assert_eq!(Signal::from_raw(15), Signal::TERM);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// The terminal was closed; by custom: read the configuration again.
    pub const HUP: Self = Self(Known::SIGHUP as i32);
    /// Ctrl-C.
    pub const INT: Self = Self(Known::SIGINT as i32);
    /// A request for a core dump.
    pub const QUIT: Self = Self(Known::SIGQUIT as i32);
    /// A request to terminate.
    pub const TERM: Self = Self(Known::SIGTERM as i32);
    /// For the program's own use.
    pub const USR1: Self = Self(Known::SIGUSR1 as i32);
    /// For the program's own use.
    pub const USR2: Self = Self(Known::SIGUSR2 as i32);
    /// A child process has stopped or ended; see [`ChildExit`](crate::ChildExit) for a single one.
    pub const CHLD: Self = Self(Known::SIGCHLD as i32);
    /// The terminal has another size.
    pub const WINCH: Self = Self(Known::SIGWINCH as i32);

    /// Returns the signal with this number.
    #[must_use]
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// Returns its number.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// Returns the real-time signal `SIGRTMIN + index`; `None` beyond `SIGRTMAX`, which is 30 above on Linux with glibc.
    ///
    /// Real-time signals are for the program's own use, like `USR1`. The system queues them: it merges none,
    /// and each has the [value](crate::Received::value) with which it was sent. [`Signals`](crate::Signals)
    /// receives them if the feature `realtime-signals` is on.
    ///
    /// ```
    /// use aio_sources::Signal;
    ///
    /// let reload = Signal::realtime(1).unwrap();
    /// assert_eq!(format!("{reload:?}"), "SIGRTMIN+1");
    /// ```
    #[must_use]
    pub fn realtime(index: u32) -> Option<Self> {
        let number = libc::SIGRTMIN().checked_add(i32::try_from(index).ok()?)?;
        Some(Self(number)).filter(|signal| signal.is_realtime())
    }

    /// Returns whether it is a real-time signal, which the system queues.
    #[must_use]
    pub fn is_realtime(self) -> bool {
        (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&self.0)
    }

    pub(crate) fn can_be_blocked(self) -> bool {
        self.0 != Known::SIGKILL as i32 && self.0 != Known::SIGSTOP as i32
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Known::try_from(self.0) {
            Ok(known) => f.write_str(known.as_str()),
            Err(_) if self.is_realtime() => write!(f, "SIGRTMIN+{}", self.0 - libc::SIGRTMIN()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}
