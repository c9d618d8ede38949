//! [`BackendKind`]: the backends that a context is built with, by name.

use std::env;
use std::error::Error;
use std::fmt;
use std::io;
use std::str::FromStr;

use aio_backend_epoll::Epoll;
use aio_backend_ppoll::Ppoll;

use crate::any_backend::{self, AnyBackend};

/// The variable of the environment that names the backend of contexts whose builder names none.
const VARIABLE: &str = "AIO_BACKEND";

/// A backend that comes with this crate; see [`Builder::backend_kind`](crate::Builder::backend_kind).
///
/// ```
/// use aio_context::{BackendKind, Context};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kind: BackendKind = "epoll".parse()?;
/// let cx = Context::builder().backend_kind(kind).build()?;
/// assert_eq!(cx.backend_name(), "epoll");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// ppoll, which moves to epoll at 64 watched descriptors or after 256 waits.
    #[default]
    Auto,
    /// ppoll: no descriptor of its own, and a cost in proportion to the watched descriptors.
    Ppoll,
    /// epoll: one descriptor of its own, and a cost in proportion to the ready descriptors.
    Epoll,
    /// io_uring: one descriptor of its own, a cost in proportion to the ready descriptors, and checks without a system call, which a
    /// loop that polls makes in each round. Where the system has no io_uring or forbids it, a warning says so once, and contexts use
    /// what [`Auto`](Self::Auto) does. In a foreign loop epoll takes its place.
    #[cfg(feature = "uring")]
    Uring,
}

impl BackendKind {
    /// All kinds.
    #[cfg(not(feature = "uring"))]
    pub const ALL: [Self; 3] = [Self::Auto, Self::Ppoll, Self::Epoll];
    /// All kinds.
    #[cfg(feature = "uring")]
    pub const ALL: [Self; 4] = [Self::Auto, Self::Ppoll, Self::Epoll, Self::Uring];

    /// The name, as it is parsed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ppoll => "ppoll",
            Self::Epoll => "epoll",
            #[cfg(feature = "uring")]
            Self::Uring => "uring",
        }
    }

    /// Checks that the system has what this kind needs.
    ///
    /// A context of the kind [`Uring`](Self::Uring) can be built in any case, and then has another backend; this tells before.
    ///
    /// # Errors
    /// The error of the system: for io_uring `ENOSYS` if the kernel has none that is recent enough, `EPERM` if it is forbidden, `ENOMEM` if
    /// the process may lock no more memory; `EMFILE`.
    ///
    /// ```
    /// use aio_context::BackendKind;
    ///
    /// assert!(BackendKind::Ppoll.check().is_ok());
    /// ```
    pub fn check(self) -> io::Result<()> {
        match self {
            Self::Auto | Self::Ppoll => Ok(()),
            Self::Epoll => Epoll::new().map(drop),
            #[cfg(feature = "uring")]
            Self::Uring => aio_backend_uring::Uring::new().map(drop),
        }
    }

    /// The kind that `AIO_BACKEND` names, or the default if it is not set.
    pub(crate) fn from_environment() -> io::Result<Self> {
        let Some(name) = env::var_os(VARIABLE) else {
            return Ok(Self::default());
        };
        let name = name.to_string_lossy();
        name.parse().map_err(|why: UnknownBackend| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{VARIABLE} in the environment: {why}"),
            )
        })
    }

    pub(crate) fn open(self) -> io::Result<AnyBackend> {
        Ok(match self {
            Self::Auto => any_backend::usual(),
            Self::Ppoll => AnyBackend::Other(Box::new(Ppoll::new())),
            Self::Epoll => AnyBackend::Other(Box::new(Epoll::new()?)),
            #[cfg(feature = "uring")]
            Self::Uring => any_backend::uring(),
        })
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for BackendKind {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| UnknownBackend {
            name: name.to_owned(),
        })
    }
}

/// No backend has this name.
///
/// # Examples
/// ```
/// use aio_context::BackendKind;
///
/// let unknown = "kqueue".parse::<BackendKind>().unwrap_err();
/// assert!(unknown.to_string().contains("no backend \"kqueue\""));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBackend {
    name: String,
}

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = BackendKind::ALL.map(BackendKind::name).join(", ");
        write!(f, "there is no backend {:?}; there are {known}", self.name)?;
        if cfg!(not(feature = "uring")) && self.name == "uring" {
            f.write_str("; build aio-context with its feature `uring` for this one")?;
        }
        Ok(())
    }
}

impl Error for UnknownBackend {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b1_names_are_parsed_as_they_are_shown() {
        for kind in BackendKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        if cfg!(not(feature = "uring")) {
            let why = "uring".parse::<BackendKind>().unwrap_err().to_string();
            assert!(why.contains("feature `uring`"), "{why}");
        }
        let why = "kqueue".parse::<BackendKind>().unwrap_err().to_string();
        let uring = if cfg!(feature = "uring") { ", uring" } else { "" };
        let known = format!(r#"there is no backend "kqueue"; there are auto, ppoll, epoll{uring}"#);
        assert_eq!(why, known);
    }
}
