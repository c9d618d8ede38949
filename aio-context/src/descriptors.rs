//! [`Descriptors`]: the registered handlers, and the backend that watches their descriptors.
//!
//! It calls no handler: the caller notifies handlers.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::rc::Rc;

use aio_backend::{Interest, Readiness, ReadyLists, Token, Watched};
use aio_handlers::{ChangeError, Recorded, Registry};
use aio_notify::Counter;

use crate::any_backend::LoopBackend;

/// The number of tokens that a context reserves for its own descriptors: those of the notifier and of changes
/// of the wall clock.
const OWN_TOKENS: u32 = 2;

/// Returns `true` if `token` is one of a context's own descriptors, which have no handler. They are the first
/// of its registry.
#[inline]
pub(crate) const fn is_own(token: Token) -> bool {
    token.index() < OWN_TOKENS
}

/// The registry and the backend, which always change together.
pub(crate) struct Descriptors<E> {
    pub(crate) backend: LoopBackend,
    pub(crate) registry: RefCell<Registry<E>>,
    pub(crate) lists: ReadyLists,
    /// The token of the mailbox's own descriptor.
    wakeup: Token,
    /// The number of handlers that were invalidated.
    pub(crate) invalidated: Counter,
    /// Set if the mailbox's own descriptor was closed: no thread can wake the loop any more.
    pub(crate) wakeup_lost: Cell<bool>,
}

impl<E> Descriptors<E> {
    pub(crate) fn new(backend: LoopBackend, registry: Registry<E>, wakeup: Token, batch: usize) -> Self {
        Self {
            backend,
            registry: RefCell::new(registry),
            lists: ReadyLists::new(batch),
            wakeup,
            invalidated: Counter::new(),
            wakeup_lost: Cell::new(false),
        }
    }

    /// Returns `true` if neither part is borrowed.
    pub(crate) fn is_free(&self) -> bool {
        self.backend.is_free() && self.registry.try_borrow_mut().is_ok()
    }

    /// Returns the number of handlers, without the loop's own; `None` while the registry is in use.
    pub(crate) fn handlers(&self) -> Option<usize> {
        let registry = self.registry.try_borrow().ok()?;
        Some(registry.len().saturating_sub(OWN_TOKENS as usize))
    }

    /// Changes an interest, or arms one again that is reported once. `owner` returns the owner of the
    /// descriptor. Returns `false` if no change was needed.
    #[inline]
    pub(crate) fn set_interest(
        &self,
        token: Token,
        interest: Interest,
        owner: impl FnOnce(&E) -> Rc<dyn AsFd>,
    ) -> io::Result<bool> {
        let mut registry = self.registry.borrow_mut();
        let change = registry.change(token, Some(interest.canonical()))?;
        if !change.is_needed() {
            return Ok(false);
        }
        if change.is_watched {
            let modified = self.backend.modify(token, change.to);
            modified.map_err(|why| self.explain_change(registry.fd(token), why))?;
        } else if let Some(entry) = registry.get(token) {
            self.backend.add(token, Watched::new(owner(entry)), change.to)?;
        }
        // Set only now: otherwise an edge of the former interest would be lost.
        registry.set_interest(token, change.interest);
        Ok(true)
    }

    #[cold]
    fn explain_change(&self, number: Option<RawFd>, why: io::Error) -> io::Error {
        match number {
            Some(number) => self.backend.explain("change an interest", number, why),
            None => why,
        }
    }

    /// Removes a handler from the registry and the backend. The caller finishes the removal before it calls
    /// any other code.
    #[inline(always)]
    pub(crate) fn unlink(&self, token: Token) -> Option<E> {
        let (entry, is_watched) = self.registry.borrow_mut().remove_watched(token)?;
        if is_watched && let Err(error) = self.backend.remove(token) {
            // The number was most likely closed by other code. It is out of the backend all the same.
            tracing::debug!(?token, %error, "the backend complained about a removal");
        }
        Some(entry)
    }

    /// Masks a handler in the backend, because of an event that must wait (rule B5).
    pub(crate) fn mask(&self, token: Token) {
        if let Err(error) = self.backend.modify(token, Interest::NONE) {
            tracing::warn!(?token, %error, "a paused descriptor could not be masked; it may keep the loop awake");
        }
    }

    /// Records an event in its handler's slot. It is delivered once, by this iteration or by a nested one (rule D1).
    pub(crate) fn record(&self, token: Token, readiness: Readiness) {
        let recorded = self.registry.borrow_mut().record(token, readiness);
        if recorded == Recorded::Masked {
            self.mask(token);
        }
    }

    /// Returns `true` if `token` is the mailbox's own descriptor. If that was closed, records that no thread
    /// can wake the loop any more.
    pub(crate) fn accept_wakeup(&self, token: Token, readiness: Readiness) -> bool {
        if token == self.wakeup && readiness.contains(Readiness::NVAL) {
            self.wakeup_lost.set(true);
        }
        token == self.wakeup
    }

    /// Rejects an event whose handler was paused or excluded since. An edge is masked until the pause ends.
    #[cold]
    pub(crate) fn reject(&self, token: Token) {
        let masks = self.registry.borrow_mut().reject(token);
        if masks {
            self.mask(token);
        }
    }
}

pub(crate) fn not_registered() -> io::Error {
    ChangeError::Stale.into()
}
