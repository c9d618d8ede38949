//! [`Source`]: the trait of polled sources.

use std::rc::Rc;

/// A source of work that can be polled in user space, such as a ring that a device or another thread fills.
///
/// The set calls these methods on the thread that owns it. Each may use the set: join, leave, suspend or
/// replace any source, itself included. A round that is started inside one of them polls no source and
/// returns `false`.
///
/// ```
/// use std::cell::Cell;
/// use aio_pollset::Source;
///
/// /// A ring whose peer notifies unless `is_polled` is set.
/// #[derive(Default)]
/// struct Ring {
///     filled: Cell<usize>,
///     notifications_off: Cell<bool>,
/// }
///
/// impl Source for Ring {
///     fn poll(&self) -> bool {
///         self.filled.get() != 0
///     }
///     fn poll_begin(&self) {
///         self.notifications_off.set(true);
///     }
///     fn poll_end(&self) {
///         self.notifications_off.set(false);
///     }
/// }
/// # let ring = Ring::default();
/// # ring.poll_begin();
/// # assert!(ring.notifications_off.get() && !ring.poll());
/// # ring.poll_end();
/// ```
pub trait Source: 'static {
    /// Returns `true` if there is work. Called many times in a row: it must be cheap and have no side
    /// effects.
    fn poll(&self) -> bool;

    /// Called when polling begins: the source's peer need not notify from now on. Called before the first
    /// [`poll`](Self::poll) of a poll mode.
    fn poll_begin(&self) {}

    /// Called when polling ends: the peer has to notify from now on. [`poll`](Self::poll) is called once more
    /// afterwards, so that work published meanwhile is not missed.
    fn poll_end(&self) {}

    /// Returns `true` if the source may be polled while its own handler runs, so that
    /// [`exclude`](crate::PollSet::exclude) and [`serve`](crate::PollSet::serve) do not exclude it. For a
    /// source that stands for many, such as a bitmap of doorbells. Read once, when the source joins.
    fn nests(&self) -> bool {
        false
    }
}

impl<S: Source + ?Sized> Source for Rc<S> {
    #[inline]
    fn poll(&self) -> bool {
        (**self).poll()
    }
    #[inline]
    fn poll_begin(&self) {
        (**self).poll_begin();
    }
    #[inline]
    fn poll_end(&self) {
        (**self).poll_end();
    }
    fn nests(&self) -> bool {
        (**self).nests()
    }
}
