//! [`AnyBackend`]: the backend of a loop, with a short way to wait on the usual one.
//!
//! The return after a system call is mispredicted on kernels that clear the return stack, and costs about as
//! much as fifty instructions. Therefore the functions that may make a system call are compiled into their
//! callers for the usual backend, and are virtual calls only for another one. All other functions go through
//! the trait.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::{Backend, Interest, ReadyList, Token, Watched};

/// The usual backend of a loop, or another one that was chosen at run time.
///
/// It has the functions of [`Backend`]. For the usual backend, those that may make a system call are compiled
/// into their callers.
///
/// ```
/// use aio_backend::AnyBackend;
/// # #[derive(Debug)] struct Usual;
/// # use aio_backend::{Backend, Interest, ReadyList, Token, Watched};
/// # impl Backend for Usual {
/// #     fn name(&self) -> &'static str { "usual" }
/// #     fn add(&mut self, _: Watched, _: Token, _: Interest) -> std::io::Result<()> { Ok(()) }
/// #     fn modify(&mut self, _: Token, _: Interest) -> std::io::Result<()> { Ok(()) }
/// #     fn remove(&mut self, _: Token) -> std::io::Result<()> { Ok(()) }
/// #     fn wait(&mut self, _: Option<std::time::Duration>, _: &mut ReadyList) -> std::io::Result<()> { Ok(()) }
/// #     fn watched(&self) -> usize { 0 }
/// #     fn visit(&self, _: &mut dyn FnMut(&Watched, Token, Interest)) {}
/// #     fn drain(&mut self, _: &mut dyn FnMut(Watched, Token, Interest)) {}
/// # }
/// let chosen: Option<Box<dyn Backend>> = None;
/// let backend = chosen.map_or_else(|| AnyBackend::Usual(Box::new(Usual)), AnyBackend::Other);
/// assert_eq!(backend.name(), "usual");
/// ```
pub enum AnyBackend<B> {
    /// The usual backend.
    Usual(Box<B>),
    /// Another backend.
    Other(Box<dyn Backend>),
}

impl<B: Backend + 'static> AnyBackend<B> {
    /// Returns the backend in a box.
    #[must_use]
    pub fn into_box(self) -> Box<dyn Backend> {
        match self {
            Self::Usual(backend) => backend,
            Self::Other(backend) => backend,
        }
    }

    /// As [`Backend::add`].
    ///
    /// # Errors
    /// As the backend.
    #[inline(always)]
    pub fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Usual(backend) => backend.add(fd, token, interest),
            Self::Other(backend) => backend.add(fd, token, interest),
        }
    }

    /// As [`Backend::modify`].
    ///
    /// # Errors
    /// As the backend.
    #[inline(always)]
    pub fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Usual(backend) => backend.modify(token, interest),
            Self::Other(backend) => backend.modify(token, interest),
        }
    }

    /// As [`Backend::remove`].
    ///
    /// # Errors
    /// As the backend.
    #[inline(always)]
    pub fn remove(&mut self, token: Token) -> io::Result<()> {
        match self {
            Self::Usual(backend) => backend.remove(token),
            Self::Other(backend) => backend.remove(token),
        }
    }

    /// As [`Backend::wait`].
    ///
    /// # Errors
    /// As the backend.
    #[inline(always)]
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        match self {
            Self::Usual(backend) => backend.wait(timeout, ready),
            Self::Other(backend) => backend.wait(timeout, ready),
        }
    }
}

impl<B: Backend + 'static> Deref for AnyBackend<B> {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Usual(backend) => &**backend,
            Self::Other(backend) => &**backend,
        }
    }
}

impl<B: Backend + 'static> DerefMut for AnyBackend<B> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::Usual(backend) => &mut **backend,
            Self::Other(backend) => &mut **backend,
        }
    }
}

impl<B: Backend + 'static> fmt::Debug for AnyBackend<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
