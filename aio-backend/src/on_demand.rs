//! [`OnDemand`]: a descriptor that a loop opens and watches when it first needs it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use crate::{Backend, Interest, LoopBackend, Readiness, Token, Watched, errno};

/// A descriptor of the loop itself that is needed at times, such as one that reports changes of the wall
/// clock while a timer of that clock is armed.
///
/// It is opened and watched when it is first needed, and stays watched until an event finds it not needed,
/// which closes it. A loop that needs it for a moment in each request therefore makes no system call for it.
/// A failure is stored until [`forget_failure`](Self::forget_failure), so that a loop does not try again
/// before each wait.
///
/// # Examples
/// ```
/// use aio_backend::{AnyBackend, LoopBackend, OnDemand, Readiness, Token};
/// use std::io;
/// # use aio_backend::{Backend, Interest, ReadyList, Watched};
/// # #[derive(Debug, Default)]
/// # struct Mine(usize);
/// # impl Backend for Mine {
/// #     fn name(&self) -> &'static str { "mine" }
/// #     fn add(&mut self, _: Watched, _: Token, _: Interest) -> io::Result<()> { Ok(self.0 += 1) }
/// #     fn modify(&mut self, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn remove(&mut self, _: Token) -> io::Result<()> { Ok(self.0 -= 1) }
/// #     fn wait(&mut self, _: Option<std::time::Duration>, _: &mut ReadyList) -> io::Result<()> { Ok(()) }
/// #     fn watched(&self) -> usize { self.0 }
/// #     fn visit(&self, _: &mut dyn FnMut(&Watched, Token, Interest)) {}
/// #     fn drain(&mut self, _: &mut dyn FnMut(Watched, Token, Interest)) {}
/// # }
///
/// let backend = LoopBackend::new(AnyBackend::Usual(Box::new(Mine::default())));
/// let changes = OnDemand::new(Token::new(1, 0), || io::pipe().map(|(reader, _writer)| reader));
/// // Before a wait that needs it:
/// assert!(changes.watch(&backend)?);
/// // It was reported, and is still needed, and then it is not:
/// for is_needed in [true, false] {
///     changes.accept(&backend, Readiness::IN, is_needed, |_fd| Ok(()))?;
///     assert_eq!(backend.borrow().watched() == 1, is_needed);
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

    /// Opens the descriptor and adds it to the backend for reading, unless it is watched already. Returns
    /// `false` if that has failed before. The backend is not borrowed while the descriptor is opened.
    ///
    /// # Errors
    /// The reason why it could not be opened or watched in this call.
    pub fn watch<B: Backend + 'static>(&self, backend: &LoopBackend<B>) -> io::Result<bool> {
        if self.fd.borrow().is_some() {
            return Ok(true);
        }
        if self.has_failed.get() {
            return Ok(false);
        }
        let opened = (self.open)().and_then(|fd| {
            let fd = Rc::new(fd);
            backend.add(self.token, Watched::from(fd.clone()), Interest::READ)?;
            Ok(fd)
        });
        self.has_failed.set(opened.is_err());
        self.fd.replace(Some(opened?));
        Ok(true)
    }

    /// Handles an event of the descriptor. `read` reads it, so that it is not reported again. If it is not
    /// needed (`is_needed`), reading fails, or its number was closed, it is removed from the backend and closed.
    /// No effect if it is not open.
    ///
    /// # Errors
    /// The reason why it is of no use any more.
    pub fn accept<B: Backend + 'static>(
        &self,
        backend: &LoopBackend<B>,
        readiness: Readiness,
        is_needed: bool,
        read: impl FnOnce(&F) -> io::Result<()>,
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
        // Even if this fails, as for a number that was closed, the backend does not have the descriptor any more.
        let _removed = backend.remove(self.token);
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
    use crate::AnyBackend;
    use crate::stub::stub;

    const TOKEN: Token = Token::new(1, 0);

    /// Keeps the descriptor that is added, and refuses the first `refuses` calls.
    #[derive(Debug, Default)]
    struct Mine {
        kept: Option<Watched>,
        refuses: u32,
    }

    impl Backend for Mine {
        fn name(&self) -> &'static str {
            "mine"
        }
        fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
            assert!(token == TOKEN && interest == Interest::READ);
            if self.refuses > 0 {
                self.refuses -= 1;
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            assert!(self.kept.replace(fd).is_none());
            Ok(())
        }
        fn remove(&mut self, token: Token) -> io::Result<()> {
            assert!(token == TOKEN && self.kept.take().is_some());
            Ok(())
        }
        fn watched(&self) -> usize {
            self.kept.iter().count()
        }
        stub!(modify wait visit drain);
    }

    fn backend(refuses: u32) -> LoopBackend<Mine> {
        let mine = Mine { kept: None, refuses };
        LoopBackend::new(AnyBackend::Usual(Box::new(mine)))
    }

    fn watched(backend: &LoopBackend<Mine>) -> usize {
        backend.borrow().watched()
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
        let (backend, (changes, opened)) = (backend(0), counted());
        for _ in 0..3 {
            assert!(changes.watch(&backend).unwrap());
            opened.1.borrow_mut().as_mut().unwrap().write_all(b"x").unwrap();
            changes.accept(&backend, Readiness::IN, true, read).unwrap();
        }
        assert_eq!((opened.0.get(), watched(&backend)), (1, 1));
        opened.1.borrow_mut().as_mut().unwrap().write_all(b"x").unwrap();
        changes.accept(&backend, Readiness::IN, false, read).unwrap();
        assert_eq!(watched(&backend), 0, "nothing needs it");
        let writer = opened.1.take();
        assert!(writer.unwrap().write_all(b"x").is_err(), "it is closed");
        // An event that was under way has no effect any more.
        let none = |_: &PipeReader| unreachable!("it is not open");
        changes.accept(&backend, Readiness::IN, true, none).unwrap();
        assert!(changes.watch(&backend).unwrap());
        assert_eq!((opened.0.get(), watched(&backend)), (2, 1));
    }

    #[test]
    fn t6_a_refusal_is_reported_once_and_tried_again_when_it_is_forgotten() {
        let (backend, (changes, opened)) = (backend(1), counted());
        let refused = changes.watch(&backend).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let writer = opened.1.take();
        assert!(writer.unwrap().write_all(b"x").is_err(), "it is not kept open");
        for _ in 0..3 {
            assert!(!changes.watch(&backend).unwrap());
        }
        assert_eq!((opened.0.get(), watched(&backend)), (1, 0));
        changes.forget_failure();
        assert!(changes.watch(&backend).unwrap());
        assert_eq!((opened.0.get(), watched(&backend)), (2, 1));
    }

    #[test]
    fn t6_one_that_was_closed_or_cannot_be_read_is_dropped_and_has_failed() {
        let (backend, (changes, _opened)) = (backend(0), counted());
        for readiness in [Readiness::NVAL, Readiness::IN] {
            assert!(changes.watch(&backend).unwrap());
            let fails = |_: &PipeReader| Err(io::ErrorKind::Interrupted.into());
            let failure = changes.accept(&backend, readiness, true, fails).unwrap_err();
            assert_eq!(
                failure.raw_os_error().is_some(),
                readiness == Readiness::NVAL,
                "EBADF"
            );
            assert_eq!(watched(&backend), 0);
            assert!(!changes.watch(&backend).unwrap(), "it has failed");
            changes.forget_failure();
        }
    }
}
