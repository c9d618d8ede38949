//! The usual backend of a context, and the one that stands for a context in a foreign loop.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use aio_backend::{Backend, Completed, Interest, Token, Watched};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::{Ladder, Split};
use aio_backend_ppoll::Ppoll;

/// From so many watched descriptors on, epoll is cheaper than ppoll from the first wait on.
const CLIMB_AT: usize = 64;
/// After so many waits epoll has paid for itself, however few descriptors there are: a wait for one takes 120 ns instead of
/// 330, and to set it up costs some microseconds.
const CLIMB_AFTER: u32 = 256;

/// The backend of a context. What it makes a system call in is compiled into the iteration.
pub(crate) type AnyBackend = aio_backend::AnyBackend<Ladder<Ppoll, Epoll>>;

/// ppoll, which climbs to epoll when that pays.
pub(crate) fn usual() -> AnyBackend {
    let ladder = Ladder::new(Ppoll::new(), Epoll::new, CLIMB_AT).climbing_after(CLIMB_AFTER);
    AnyBackend::Usual(Box::new(ladder))
}

/// io_uring, and the usual backend where that is not available, or fails.
#[cfg(feature = "uring")]
pub(crate) fn uring<U: aio_backend::Backend + 'static>(make: fn() -> io::Result<U>) -> AnyBackend {
    use std::sync::atomic::{AtomicBool, Ordering};
    static WARNED: AtomicBool = AtomicBool::new(false);

    match make() {
        Ok(uring) => {
            let mut made = Some(uring);
            let make = move || made.take().map_or_else(make, Ok);
            let lower = Ladder::new(Ppoll::new(), Epoll::new, CLIMB_AT).climbing_after(CLIMB_AFTER);
            AnyBackend::Other(Box::new(Ladder::new(lower, make, 0)))
        }
        Err(error) => {
            let usual = usual();
            if !WARNED.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    %error,
                    remedy = aio_backend::remedy(&error),
                    "io_uring is not available; {} takes its place",
                    usual.name(),
                );
            }
            usual
        }
    }
}

/// A share of the descriptor that stands for a backend. A backend without one is replaced by epoll, with all registrations; if epoll
/// refuses one of them, nothing has changed.
///
/// The replaced backend goes on executing operations, which it reports under `report`, if it can show their completions. If not,
/// they are cancelled, and put into `ended`.
pub(crate) fn pollable(
    backend: &mut AnyBackend,
    report: Option<Token>,
    ended: &mut Vec<(Token, Completed)>,
) -> io::Result<OwnedFd> {
    if let Some(fd) = backend.make_pollable()? {
        return fd.try_clone_to_owned();
    }
    let mut epoll = Epoll::new()?;
    let mut filled = Ok(());
    backend.visit(&mut |fd, token, interest| {
        if filled.is_ok() {
            filled = epoll.add(fd.clone(), token, interest);
        }
    });
    filled?;
    let shown = match backend.make_operations_pollable()? {
        Some(shown) => Some(Watched::from(Rc::new(shown.try_clone_to_owned()?))),
        None => None,
    };
    if let (Some(shown), Some(report)) = (&shown, report) {
        epoll.add(shown.clone(), report, Interest::READ)?;
    }
    let no_descriptor = || io::Error::from(io::ErrorKind::Unsupported);
    let fd = epoll
        .make_pollable()?
        .ok_or_else(no_descriptor)?
        .try_clone_to_owned()?;
    tracing::debug!(
        from = backend.name(),
        to = epoll.name(),
        "the backend was replaced for a foreign loop"
    );
    let Some(shown) = shown else {
        backend.end_operations();
        ended.extend(std::iter::from_fn(|| backend.next_completed()));
        *backend = AnyBackend::Other(Box::new(epoll));
        return Ok(fd);
    };
    let operations: Box<dyn Backend> = match mem::replace(backend, usual()) {
        AnyBackend::Usual(usual) => usual,
        AnyBackend::Other(other) => other,
    };
    *backend = AnyBackend::Other(Box::new(Split::new(epoll, operations, shown, report)));
    Ok(fd)
}

#[cfg(all(test, feature = "uring"))]
mod tests {
    use std::fmt::{self, Write as _};
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Collects warnings, one a line.
    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<String>>);

    impl Subscriber for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            if let Ok(mut text) = self.0.lock() {
                event.record(&mut Fields(&mut text));
                text.push('\n');
            }
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    struct Fields<'a>(&'a mut String);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            // A string takes all.
            let _ = write!(self.0, "{field}={value:?} ");
        }
    }

    #[test]
    fn b4_where_io_uring_is_forbidden_the_usual_backend_takes_its_place_and_one_warning_says_so() {
        let refused = || io::Result::<Epoll>::Err(io::Error::from_raw_os_error(1)); // EPERM
        let (warnings, mut made) = (Warnings::default(), Vec::new());
        tracing::subscriber::with_default(warnings.clone(), || {
            made.extend([uring(refused), uring(refused)]);
        });
        assert!(made.iter().all(|backend| backend.name() == "ppoll"));
        let logged = warnings.0.lock().unwrap();
        assert_eq!(logged.lines().count(), 1, "{logged}");
        for part in ["io_uring is not available; ppoll", "error=", "io_uring_disabled"] {
            assert!(logged.contains(part), "{part} in {logged}");
        }
    }

    #[test]
    fn b4_it_is_made_once_and_stays() {
        let mut backend = uring(Epoll::new);
        backend.rebalance();
        assert_eq!(backend.name(), "epoll", "in its place");
    }
}
