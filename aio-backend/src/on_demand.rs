//! [`OnDemand`]: a descriptor that a loop opens and watches when it first needs it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use crate::{Readiness, Token, Watched, errno};

/// A descriptor of the loop itself that is needed at times, such as one that reports changes of the wall
/// clock while a timer of that clock is armed.
///
/// It is opened and watched when it is first needed, and stays watched until an event finds it not needed,
/// which closes it. A loop that needs it for a moment in each request therefore makes no system call for it.
/// A failure is stored until [`forget_failure`](Self::forget_failure), so that a loop does not try again
/// before each wait.
///
/// The caller adds it to its backend and removes it, so nothing has to be borrowed while it is opened and
/// read.
///
/// # Examples
/// ```
/// use aio_backend::{OnDemand, Readiness, Token};
/// use std::{cell::Cell, io};
///
/// let watched = Cell::new(0);
/// let changes = OnDemand::new(Token::new(1, 0), || io::pipe().map(|(reader, _writer)| reader));
/// // Before a wait that needs it:
/// assert!(changes.watch(|_fd, _token| Ok(watched.set(1)))?);
/// // It was reported, and is still needed, and then it is not:
/// for is_needed in [true, false] {
///     changes.accept(Readiness::IN, is_needed, |_fd| Ok(()), |_token| watched.set(0))?;
///     assert_eq!(watched.get() == 1, is_needed);
/// }
/// # Ok::<(), io::Error>(())
/// ```
pub struct OnDemand<F> {
    open: Box<dyn Fn() -> io::Result<F>>,
    token: Token,
    /// The descriptor, while the backend watches it.
    fd: RefCell<Option<Rc<F>>>,
    has_failed: Cell<bool>,
}

impl<F: AsFd + 'static> OnDemand<F> {
    /// Makes one that is not open. `token` is reserved for it, also while it is not open.
    pub fn new(token: Token, open: impl Fn() -> io::Result<F> + 'static) -> Self {
        Self {
            open: Box::new(open),
            token,
            fd: RefCell::default(),
            has_failed: Cell::new(false),
        }
    }

    /// Opens the descriptor, and calls `add` so that the backend watches it for reading, unless it is watched
    /// already. Returns `false` if that has failed before.
    ///
    /// # Errors
    /// The reason why it could not be opened or watched in this call.
    pub fn watch(&self, add: impl FnOnce(Watched, Token) -> io::Result<()>) -> io::Result<bool> {
        if self.fd.borrow().is_some() {
            return Ok(true);
        }
        if self.has_failed.get() {
            return Ok(false);
        }
        let opened = (self.open)().and_then(|fd| {
            let fd = Rc::new(fd);
            add(Watched::from(fd.clone()), self.token)?;
            Ok(fd)
        });
        self.has_failed.set(opened.is_err());
        self.fd.replace(Some(opened?));
        Ok(true)
    }

    /// Handles an event of the descriptor. `read` reads it, so that it is not reported again. If it is not
    /// needed (`is_needed`), reading fails, or its number was closed, it is closed after `remove` has removed
    /// it from the backend. No effect if it is not open.
    ///
    /// # Errors
    /// The reason why it is of no use any more.
    pub fn accept(
        &self,
        readiness: Readiness,
        is_needed: bool,
        read: impl FnOnce(&F) -> io::Result<()>,
        remove: impl FnOnce(Token),
    ) -> io::Result<()> {
        let Some(fd) = self.fd.take() else {
            return Ok(());
        };
        let accepted = if readiness.contains(Readiness::NVAL) {
            Err(io::Error::from_raw_os_error(errno::BADF))
        } else {
            read(&fd)
        };
        if is_needed && accepted.is_ok() {
            self.fd.replace(Some(fd));
            return accepted;
        }
        remove(self.token);
        self.has_failed.set(accepted.is_err());
        accepted
    }

    /// Lets the next [`watch`](Self::watch) try again.
    pub fn forget_failure(&self) {
        self.has_failed.set(false);
    }
}

impl<F> fmt::Debug for OnDemand<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemand")
            .field("token", &self.token)
            .field("has_failed", &self.has_failed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, Write};

    use super::*;

    const TOKEN: Token = Token::new(1, 0);

    /// Keeps the descriptor that is added, and refuses the first `refuses` calls.
    #[derive(Debug, Default)]
    struct Mine {
        kept: RefCell<Option<Watched>>,
        refuses: Cell<u32>,
    }

    impl Mine {
        fn add(&self, fd: Watched, token: Token) -> io::Result<()> {
            assert_eq!(token, TOKEN);
            if self.refuses.get() > 0 {
                self.refuses.set(self.refuses.get() - 1);
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            assert!(self.kept.replace(Some(fd)).is_none());
            Ok(())
        }
        fn remove(&self, token: Token) {
            assert!(token == TOKEN && self.kept.take().is_some());
        }
        fn watched(&self) -> usize {
            self.kept.borrow().iter().count()
        }
    }

    /// The number of times it was opened, and the other end of the last pipe.
    type Opened = Rc<(Cell<u32>, RefCell<Option<PipeWriter>>)>;

    fn counted() -> (OnDemand<PipeReader>, Opened) {
        let opened = Opened::default();
        let seen = opened.clone();
        let open = move || {
            let (reader, writer) = io::pipe()?;
            seen.0.set(seen.0.get() + 1);
            seen.1.replace(Some(writer));
            Ok(reader)
        };
        (OnDemand::new(TOKEN, open), opened)
    }

    fn read(mut fd: &PipeReader) -> io::Result<()> {
        fd.read_exact(&mut [0])
    }

    #[test]
    fn t6_it_is_opened_once_and_stays_watched_while_its_events_are_of_use() {
        let (backend, (changes, opened)) = (Mine::default(), counted());
        for _ in 0..3 {
            assert!(changes.watch(|fd, token| backend.add(fd, token)).unwrap());
            opened.1.borrow_mut().as_mut().unwrap().write_all(b"x").unwrap();
            changes
                .accept(Readiness::IN, true, read, |token| backend.remove(token))
                .unwrap();
        }
        assert_eq!((opened.0.get(), backend.watched()), (1, 1));
        opened.1.borrow_mut().as_mut().unwrap().write_all(b"x").unwrap();
        changes
            .accept(Readiness::IN, false, read, |token| backend.remove(token))
            .unwrap();
        assert_eq!(backend.watched(), 0, "nothing needs it");
        let writer = opened.1.take();
        assert!(writer.unwrap().write_all(b"x").is_err(), "it is closed");
        // An event that was under way has no effect any more.
        let none = |_: &PipeReader| unreachable!("it is not open");
        changes
            .accept(Readiness::IN, true, none, |_| unreachable!())
            .unwrap();
        assert!(changes.watch(|fd, token| backend.add(fd, token)).unwrap());
        assert_eq!((opened.0.get(), backend.watched()), (2, 1));
    }

    #[test]
    fn t6_a_refusal_is_reported_once_and_tried_again_when_it_is_forgotten() {
        let (backend, (changes, opened)) = (Mine::default(), counted());
        backend.refuses.set(1);
        let refused = changes.watch(|fd, token| backend.add(fd, token)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let writer = opened.1.take();
        assert!(writer.unwrap().write_all(b"x").is_err(), "it is not kept open");
        for _ in 0..3 {
            assert!(!changes.watch(|fd, token| backend.add(fd, token)).unwrap());
        }
        assert_eq!((opened.0.get(), backend.watched()), (1, 0));
        changes.forget_failure();
        assert!(changes.watch(|fd, token| backend.add(fd, token)).unwrap());
        assert_eq!((opened.0.get(), backend.watched()), (2, 1));
    }

    #[test]
    fn t6_one_that_was_closed_or_cannot_be_read_is_dropped_and_has_failed() {
        let (backend, (changes, _opened)) = (Mine::default(), counted());
        for readiness in [Readiness::NVAL, Readiness::IN] {
            assert!(changes.watch(|fd, token| backend.add(fd, token)).unwrap());
            let fails = |_: &PipeReader| Err(io::ErrorKind::Interrupted.into());
            let failure = changes
                .accept(readiness, true, fails, |token| backend.remove(token))
                .unwrap_err();
            assert_eq!(
                failure.raw_os_error().is_some(),
                readiness == Readiness::NVAL,
                "EBADF"
            );
            assert_eq!(backend.watched(), 0);
            assert!(
                !changes.watch(|fd, token| backend.add(fd, token)).unwrap(),
                "it has failed"
            );
            changes.forget_failure();
        }
    }
}
