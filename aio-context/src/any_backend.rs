//! The backends of contexts: [`BackendKind`] names them, [`usual`] makes that of most contexts, and
//! [`pollable`] gives a foreign loop a descriptor of one.

use std::env;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use aio_backend::{Completed, Token};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::{Ladder, make_pollable};
use aio_backend_ppoll::Ppoll;
#[cfg(feature = "uring")]
use aio_backend_uring::Uring;

/// The number of watched descriptors from which epoll is cheaper than ppoll from the first wait on.
const CLIMB_AT: usize = 64;
/// The number of waits after which epoll has paid for itself, however few descriptors there are: a wait for
/// one descriptor takes 120 ns instead of 330, and setting epoll up takes some microseconds.
const CLIMB_AFTER: u32 = 256;

/// The backend of a context. The code around its system calls is compiled into the iteration.
pub(crate) type AnyBackend = aio_backend::AnyBackend<Ladder<Ppoll, Epoll>>;

/// The same backend, as the loop stores it.
pub(crate) type LoopBackend = aio_backend::LoopBackend<Ladder<Ppoll, Epoll>>;

/// Makes ppoll, which climbs to epoll when that pays.
fn climbing() -> Ladder<Ppoll, Epoll> {
    Ladder::new(Ppoll::new(), Epoll::new, CLIMB_AT).climbing_after(CLIMB_AFTER)
}

pub(crate) fn usual() -> AnyBackend {
    AnyBackend::Usual(Box::new(climbing()))
}

/// Makes io_uring, with the usual backend in its place where it is not available, or fails.
#[cfg(feature = "uring")]
pub(crate) fn uring() -> AnyBackend {
    match aio_backend_ladder::preferred("io_uring", Uring::new, climbing()) {
        Ok(ladder) => AnyBackend::Other(Box::new(ladder)),
        Err(usual) => AnyBackend::Usual(Box::new(usual)),
    }
}

/// Returns a duplicate of the descriptor that stands for a backend. A backend without one is replaced by
/// epoll, with all registrations. The replaced backend goes on executing operations if it can, and reports
/// them under `report`; see [`make_pollable`].
pub(crate) fn pollable(
    backend: &mut AnyBackend,
    report: Option<Token>,
    ended: &mut Vec<(Token, Completed)>,
) -> io::Result<OwnedFd> {
    let (fd, successor) = make_pollable(&mut **backend, Epoll::new, report)?;
    if let Some(successor) = successor {
        let replaced = mem::replace(backend, usual()).into_box();
        *backend = AnyBackend::Other(successor.replace(replaced, ended));
    }
    Ok(fd)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The environment variable that names the backend of contexts whose builder names none.
const VARIABLE: &str = "AIO_BACKEND";

const NEEDS_FEATURE: &str = "; build aio-context with its feature `uring` for this one";

/// The kind of a backend that comes with this crate; see
/// [`Builder::backend_kind`](crate::Builder::backend_kind).
///
/// ```
/// use aio_context::{BackendKind, Context};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kind: BackendKind = "epoll".parse()?;
/// let cx = Context::builder().backend_kind(kind).build()?;
/// assert_eq!(cx.backend_name(), "epoll");
/// let unknown = "kqueue".parse::<BackendKind>().unwrap_err();
/// assert!(unknown.to_string().contains("no backend \"kqueue\""));
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
    /// io_uring: one descriptor of its own, a cost in proportion to the ready descriptors, and checks without
    /// a system call, which a polling loop makes in each round. If the system has no io_uring or forbids it,
    /// one warning reports that, and contexts use the backend of [`Auto`](Self::Auto). In a foreign loop
    /// epoll takes its place.
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

    /// Returns the name that parses to this kind.
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

    /// Checks that the system provides the facilities that this kind needs.
    ///
    /// A context of the kind [`Uring`](Self::Uring) can be built in any case, and then has another backend.
    /// This reports it beforehand.
    ///
    /// # Errors
    /// The error of the system: for io_uring `ENOSYS` if the kernel has none that is recent enough, `EPERM`
    /// if it is forbidden, `ENOMEM` if the process may lock no more memory; `EMFILE`.
    ///
    /// ```
    /// use aio_context::BackendKind;
    ///
    /// assert!(BackendKind::Ppoll.check().is_ok());
    /// ```
    pub fn check(self) -> io::Result<()> {
        match self {
            #[cfg(feature = "uring")]
            Self::Uring => Uring::new().map(drop),
            _ => self.open().map(drop),
        }
    }

    /// Returns the kind that `AIO_BACKEND` names, or the default if it is not set.
    pub(crate) fn from_environment() -> io::Result<Self> {
        let Some(name) = env::var_os(VARIABLE) else {
            return Ok(Self::default());
        };
        let parsed = name.to_string_lossy().parse();
        parsed.map_err(|why: io::Error| invalid(format!("{VARIABLE} in the environment: {why}")))
    }

    pub(crate) fn open(self) -> io::Result<AnyBackend> {
        Ok(match self {
            Self::Auto => usual(),
            Self::Ppoll => AnyBackend::Other(Box::new(Ppoll::new())),
            Self::Epoll => AnyBackend::Other(Box::new(Epoll::new()?)),
            #[cfg(feature = "uring")]
            Self::Uring => uring(),
        })
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for BackendKind {
    /// `InvalidInput`, with the names of the existing kinds.
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Self> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            let needs_feature = cfg!(not(feature = "uring")) && name == "uring";
            let hint = if needs_feature { NEEDS_FEATURE } else { "" };
            invalid(format!("there is no backend {name:?}; there are {known}{hint}"))
        })
    }
}
