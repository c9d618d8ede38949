//! [`Refused`]: an error of the system, with the call that failed and the remedy.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::RawFd;

use crate::{concerns_all, errno, remedy};

/// An error of the system, and its remedy.
///
/// The [`io::Error`]s of a loop hold it when the refusal concerns the whole loop, or a descriptor that is closed:
/// [`raw_os_error`](Self::raw_os_error) finds the system's number in any of them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refused {
    /// The call that failed.
    pub call: &'static str,
    /// The backend that made the call.
    pub backend: &'static str,
    /// The number of the descriptor, if the refusal concerns it alone.
    pub descriptor: Option<RawFd>,
    /// The remedy: the change to make in the system or the program.
    pub remedy: &'static str,
    /// The error of the system.
    pub source: io::Error,
}

impl Refused {
    /// Wraps an error of the system, with the usual [`remedy`](crate::remedy()). An error without a number of the system stays as it is.
    #[must_use]
    pub fn wrap(call: &'static str, backend: &'static str, source: io::Error) -> io::Error {
        Self::wrap_with(call, backend, remedy(&source), source)
    }

    /// As [`wrap`](Self::wrap), with another remedy.
    #[must_use]
    pub fn wrap_with(
        call: &'static str,
        backend: &'static str,
        remedy: &'static str,
        source: io::Error,
    ) -> io::Error {
        Self {
            call,
            backend,
            descriptor: None,
            remedy,
            source,
        }
        .into_error()
    }

    /// Wraps an error of a call about one descriptor.
    ///
    /// An error that [concerns all](concerns_all) descriptors is attributed to the backend, and `EBADF` to
    /// the descriptor, in the same words for every backend. Other errors stay as they are.
    #[must_use]
    pub fn wrap_for(
        call: &'static str,
        backend: &'static str,
        number: RawFd,
        source: io::Error,
    ) -> io::Error {
        let (descriptor, remedy) = if concerns_all(&source) {
            (None, remedy(&source))
        } else if errno::is_one_of(&source, &[errno::BADF]) {
            (Some(number), CLOSED)
        } else {
            return source;
        };
        Self {
            call,
            backend,
            descriptor,
            remedy,
            source,
        }
        .into_error()
    }

    /// Wraps an error of a backend that cannot show its registrations to a foreign loop: `EBADF` comes from a
    /// descriptor that was closed.
    ///
    /// ```
    /// use std::io;
    /// use aio_backend::Refused;
    ///
    /// let why = Refused::wrap_embedding("ppoll", io::Error::from_raw_os_error(9)); // EBADF
    /// assert!(why.to_string().contains("poll once without waiting"));
    /// ```
    #[must_use]
    pub fn wrap_embedding(backend: &'static str, source: io::Error) -> io::Error {
        let is_closed = errno::is_one_of(&source, &[errno::BADF]);
        let remedy = if is_closed {
            CLOSED_EARLIER
        } else {
            remedy(&source)
        };
        Self::wrap_with("embed", backend, remedy, source)
    }

    /// Returns the reason for a handler whose registration ends without a removal. For `EBADF` the text
    /// states what to do instead, for every call that can find the number closed. Other errors stay as they are.
    ///
    /// ```
    /// use std::io;
    /// use aio_backend::Refused;
    ///
    /// let why = Refused::while_registered(io::Error::from_raw_os_error(9)); // EBADF
    /// assert_eq!(why.kind(), io::ErrorKind::InvalidInput);
    /// assert!(why.to_string().contains("remove the registration before closing"));
    /// ```
    #[must_use]
    pub fn while_registered(source: io::Error) -> io::Error {
        if !errno::is_one_of(&source, &[errno::BADF]) {
            return source;
        }
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the descriptor was closed while it was registered; remove the registration before closing",
        )
    }

    fn into_error(self) -> io::Error {
        match self.source.raw_os_error() {
            Some(_) => self.into(),
            None => self.source,
        }
    }

    /// Returns the system's number of an error, wrapped or not.
    ///
    /// ```
    /// use std::io;
    /// use aio_backend::Refused;
    ///
    /// let closed = io::Error::from_raw_os_error(9); // EBADF
    /// let wrapped = Refused::wrap("wait", "ppoll", closed);
    /// assert_eq!((wrapped.raw_os_error(), Refused::raw_os_error(&wrapped)), (None, Some(9)));
    /// ```
    #[must_use]
    pub fn raw_os_error(error: &io::Error) -> Option<i32> {
        let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>());
        refused.map_or(error, |refused| &refused.source).raw_os_error()
    }
}

/// The remedy for a number that is not open.
const CLOSED: &str =
    "the number is not open: give the handler an owner that keeps it open, and look for a close() of it";

/// The remedy for a registered number that is not open, if all registrations are to move.
const CLOSED_EARLIER: &str = "a watched descriptor was closed behind the loop's back: poll once without waiting, so that its handler is \
                              notified and removed, and embed again";

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(refused.source.kind(), refused)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.call)?;
        match self.descriptor {
            Some(number) => write!(f, "number {number}")?,
            None => f.write_str(self.backend)?,
        }
        write!(f, "): {}; {}", self.source, self.remedy)
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    fn refused(error: &io::Error) -> &Refused {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        inner.expect("it is wrapped")
    }

    #[test]
    fn b4_an_error_names_the_call_what_it_concerns_and_the_remedy() {
        let of = |errno: Errno| Refused::wrap_for("add", "some", 7, errno.into());
        let closed = of(Errno::BADF);
        assert_eq!(refused(&closed).descriptor, Some(7));
        assert!(closed.to_string().starts_with("add (number 7): "), "{closed}");
        let full = of(Errno::MFILE);
        assert_eq!(refused(&full).descriptor, None);
        let text = full.to_string();
        assert!(
            text.starts_with("add (some): ") && text.contains("ulimit -n"),
            "{text}"
        );
        assert!(full.get_ref().and_then(Error::source).is_some());
        assert_eq!(of(Errno::PERM).raw_os_error(), Some(Errno::PERM.raw_os_error()));
        let made_up = Refused::wrap("add", "some", io::Error::other("made up"));
        assert_eq!(made_up.to_string(), "made up");
    }

    #[test]
    fn r4_a_number_that_was_closed_is_explained_and_other_errors_stay() {
        let full = Refused::while_registered(Errno::NOSPC.into());
        assert_eq!(full.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
        let closed = Refused::while_registered(Errno::BADF.into());
        assert_eq!(
            (closed.kind(), closed.raw_os_error()),
            (io::ErrorKind::InvalidInput, None)
        );
        // Wrapping twice has the effect of wrapping once.
        assert_eq!(
            Refused::while_registered(closed).kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
