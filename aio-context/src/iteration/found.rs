//! [`Found`]: what one iteration found, and [`Delivering`]: delivering it.
//!
//! Both call no handler. The next iteration finds what they give back, because backends are level-triggered and the registry stores
//! edges.

use aio_backend::ReadyList;
use aio_handlers::Delivery;

use crate::context::Inner;

/// What one iteration found. Whatever is not delivered when it is dropped, also by a panic, is found again by the next iteration.
pub(crate) struct Found<'a> {
    inner: &'a Inner,
    list: Option<Box<ReadyList>>,
    /// The events are in the handlers' slots, too.
    pub(crate) is_recorded: bool,
}

impl<'a> Found<'a> {
    /// Nothing yet.
    #[inline]
    pub(crate) fn new(inner: &'a Inner) -> Self {
        let list = Some(inner.descriptors.lists.take());
        Self {
            inner,
            list,
            is_recorded: true,
        }
    }

    /// A list whose events were recorded.
    #[inline]
    pub(crate) fn recorded(inner: &'a Inner, list: Box<ReadyList>) -> Self {
        Self {
            inner,
            list: Some(list),
            is_recorded: true,
        }
    }

    /// The list to add to.
    #[inline(always)]
    pub(crate) fn list(&mut self) -> &mut ReadyList {
        self.list
            .get_or_insert_with(|| self.inner.descriptors.lists.take())
    }

    /// Starts to deliver the events.
    #[inline(always)]
    pub(crate) fn deliver(mut self) -> Delivering<'a> {
        let list = self
            .list
            .take()
            .unwrap_or_else(|| self.inner.descriptors.lists.take());
        let mut registry = self.inner.descriptors.registry.borrow_mut();
        let outer = registry.start_delivery(list, self.is_recorded);
        Delivering {
            inner: self.inner,
            outer: Some(outer),
        }
    }

    /// Returns the list, which is empty.
    #[inline(always)]
    pub(crate) fn into_list(mut self) -> Box<ReadyList> {
        self.list
            .take()
            .unwrap_or_else(|| self.inner.descriptors.lists.take())
    }
}

impl Drop for Found<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(list) = self.list.take() {
            self.inner.abandon(list, self.is_recorded);
        }
    }
}

/// Delivers the events of an iteration.
pub(crate) struct Delivering<'a> {
    inner: &'a Inner,
    outer: Option<Delivery>,
}

impl Delivering<'_> {
    /// Ends it when all events are delivered.
    #[inline(always)]
    pub(crate) fn finish(mut self) -> Box<ReadyList> {
        let outer = self.outer.take().unwrap_or_default();
        self.inner.descriptors.registry.borrow_mut().end_delivery(outer).0
    }
}

impl Drop for Delivering<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(outer) = self.outer.take() {
            self.inner.abandon_delivery(outer);
        }
    }
}

impl Inner {
    /// Gives back the events of a list.
    #[cold]
    fn abandon(&self, list: Box<ReadyList>, is_recorded: bool) {
        if list.is_empty() {
            return self.descriptors.lists.give_back(list);
        }
        let outer = self
            .descriptors
            .registry
            .borrow_mut()
            .start_delivery(list, is_recorded);
        self.abandon_delivery(outer);
    }

    /// Gives back the events that were not delivered.
    #[cold]
    fn abandon_delivery(&self, outer: Delivery) {
        let (list, delivered) = self.descriptors.registry.borrow_mut().end_delivery(outer);
        for (token, _) in list.iter_from(delivered) {
            self.polling.set.forget_hit(token);
        }
        self.descriptors.lists.give_back(list);
    }
}
