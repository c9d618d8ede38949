//! [`Signal`]: the number of a signal, and its name.

use std::fmt;

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
    /// The user asks for a core dump.
    pub const QUIT: Self = Self(Known::SIGQUIT as i32);
    /// Terminate.
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

    pub(crate) fn that_can_be_blocked(self) -> Option<Known> {
        let known = Known::try_from(self.0).ok()?;
        (!matches!(known, Known::SIGKILL | Known::SIGSTOP)).then_some(known)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Known::try_from(self.0) {
            Ok(known) => f.write_str(known.as_str()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}
