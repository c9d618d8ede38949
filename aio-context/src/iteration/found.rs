//! [`Found`]: what one iteration found, and [`Delivering`]: delivering it.
//!
//! Both call no handler. The next iteration finds what they give back, because backends are level-triggered and the registry stores
//! edges.

use std::mem;

use aio_backend::ReadyList;

use crate::context::Inner;

/// What one iteration found. Whatever is not delivered when it is dropped, also by a panic, is found again by the next iteration.
pub(crate) struct Found<'a> {
    inner: &'a Inner,
    /// Always there, until the list is moved on.
    list: Option<Box<ReadyList>>,
    /// The events are in the handlers' slots, too.
    pub(crate) is_recorded: bool,
}

impl<'a> Found<'a> {
    /// Nothing yet.
    #[inline]
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self::recorded(inner, inner.descriptors.lists.take())
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
        self.list.get_or_insert_default()
    }

    /// The list alone.
    #[inline(always)]
    pub(crate) fn into_list(mut self) -> Box<ReadyList> {
        let list = self.list.take().unwrap_or_default();
        mem::forget(self);
        list
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

/// A delivery under way. If a callback panics, the events that are left are given back.
pub(crate) struct Delivering<'a> {
    inner: &'a Inner,
    outer: Option<Box<ReadyList>>,
    /// How many handlers were called.
    pub(crate) events: u64,
}

impl<'a> Delivering<'a> {
    /// One that has started. `outer` is the list of the outer iteration.
    #[inline(always)]
    pub(crate) fn new(inner: &'a Inner, outer: Option<Box<ReadyList>>) -> Self {
        Self {
            inner,
            outer,
            events: 0,
        }
    }

    /// Returns the outer list, because all events are delivered.
    #[inline(always)]
    pub(crate) fn finish(mut self) -> Option<Box<ReadyList>> {
        let outer = self.outer.take();
        mem::forget(self);
        outer
    }
}

impl Drop for Delivering<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.inner.abandon_delivery(self.outer.take(), self.events);
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
        self.abandon_delivery(outer, 0);
    }

    /// Gives back the events that were not delivered, after `events` that were.
    #[cold]
    fn abandon_delivery(&self, outer: Option<Box<ReadyList>>, events: u64) {
        self.shared.counters.events.add(events);
        let list = self.descriptors.registry.borrow_mut().end_delivery(outer);
        for (token, _) in list.rest() {
            self.polling.set.forget_hit(token);
        }
        self.descriptors.lists.give_back(list);
    }
}
