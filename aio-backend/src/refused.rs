//! [`Refused`]: an error of the system, with what failed and what helps.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::RawFd;

use rustix::io::Errno;

use crate::{concerns_all, remedy};

/// What the system refused, and what can be done about it.
///
/// The [`io::Error`]s of a loop hold it when the refusal concerns the whole loop, or a descriptor that is closed:
///
/// ```
/// # use std::io;
/// # use aio_backend::Refused;
/// fn errno(error: &io::Error) -> Option<i32> {
///     let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
///     refused.map_or_else(|| error.raw_os_error(), |refused| refused.source.raw_os_error())
/// }
/// # assert_eq!(errno(&io::Error::from_raw_os_error(9)), Some(9));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Refused {
    /// What was to be done.
    pub call: &'static str,
    /// The backend that was in charge.
    pub backend: &'static str,
    /// The number of the descriptor, if the refusal concerns it alone.
    pub descriptor: Option<RawFd>,
    /// The remedy: what to change in the system or the program.
    pub remedy: &'static str,
    /// What the system said.
    pub source: io::Error,
}

impl Refused {
    /// Wraps an error of the system. An error without a number of the system stays as it is.
    #[must_use]
    pub fn wrap(
        call: &'static str,
        backend: &'static str,
        remedy: &'static str,
        source: io::Error,
    ) -> io::Error {
        if source.raw_os_error().is_none() {
            return source;
        }
        let descriptor = None;
        Self {
            call,
            backend,
            descriptor,
            remedy,
            source,
        }
        .into()
    }

    /// Wraps an error of a call about one descriptor.
    ///
    /// An error that [concerns all](concerns_all) descriptors is the backend's, and `EBADF` the descriptor's, with the same words for
    /// every backend. Other errors stay as they are.
    #[must_use]
    pub fn wrap_for(
        call: &'static str,
        backend: &'static str,
        number: RawFd,
        source: io::Error,
    ) -> io::Error {
        if concerns_all(&source) {
            return Self::wrap(call, backend, remedy(&source), source);
        }
        if Errno::from_io_error(&source) != Some(Errno::BADF) {
            return source;
        }
        let remedy = "the number is not open: give the handler an owner that keeps it open, and look for a close() of it";
        let descriptor = Some(number);
        Self {
            call,
            backend,
            descriptor,
            remedy,
            source,
        }
        .into()
    }
}

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
        let made_up = Refused::wrap("add", "some", "none", io::Error::other("made up"));
        assert_eq!(made_up.to_string(), "made up");
    }
}
