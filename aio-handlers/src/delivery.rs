//! Delivering the events of one wait, one by one.
//!
//! An event is usually delivered straight from the list. It is recorded in its slot first only if its meaning
//! could change before its delivery: by a nested iteration, by a pause, or by a callback that changes another
//! registration.

use aio_backend::{Interest, Readiness, ReadyList, Token};

use crate::mask::PackedMask;
use crate::registry::Slot;
use crate::{Recorded, Registry};

/// An event that is delivered now.
///
/// # Examples
/// ```
/// use aio_backend::{Interest, Readiness, ReadyList};
/// use aio_handlers::{Due, GroupId, Registry};
///
/// let mut registry = Registry::new();
/// let token = registry.insert(Some(7), "a socket", Interest::READ, GroupId::DEFAULT)?;
/// let mut list = Box::new(ReadyList::new());
/// list.push(token, Readiness::IN);
/// let outer = registry.start_delivery(list, false);
/// let (_token, _readiness, due) = registry.next_event().expect("the list has one");
/// let Due { value, interest, version, .. } = due.expect("it is plain");
/// assert_eq!((*value, interest), ("a socket", Interest::READ));
/// // ... call it; it may be replaced meanwhile.
/// assert_eq!(registry.version(token), Some(version));
/// registry.end_delivery(outer);
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Due<'a, T> {
    /// The value.
    pub value: &'a T,
    /// The readiness of its descriptor.
    pub readiness: Readiness,
    /// The current interest.
    pub interest: Interest,
    /// The number of times that the value was [replaced](Registry::version) before.
    pub version: u32,
    /// Whether the value is [special](Registry::set_special).
    pub is_special: bool,
}

/// The meaning of an event that [`Registry::next_event`] has returned without a due value.
///
/// # Examples
/// ```
/// use aio_backend::{Interest, Readiness, ReadyList};
/// use aio_handlers::{Event, GroupId, Registry};
///
/// let mut registry = Registry::new();
/// let token = registry.insert(Some(7), "a socket", Interest::READ, GroupId::DEFAULT)?;
/// let mut list = Box::new(ReadyList::new());
/// list.push(token, Readiness::IN);
/// let outer = registry.start_delivery(list, false);
/// // The callback of an earlier event pauses the group.
/// registry.pause(GroupId::DEFAULT);
/// while let Some((token, readiness, _)) = registry.next_event() {
///     match registry.resolve(token, readiness) {
///         Event::Ready(..) => unreachable!("its handler is paused"),
///         Event::Masked => assert_eq!(registry.effective_interest(token), Some(Interest::NONE)),
///         Event::Dropped => {}
///     }
/// }
/// registry.end_delivery(outer);
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a, T> {
    /// A descriptor is ready.
    Ready(Due<'a, T>),
    /// The handler is paused or excluded, and the event is dropped. Set [`Interest::NONE`] in the backend, as for
    /// [`Recorded::Masked`].
    Masked,
    /// The event is dropped: since the wait, a nested iteration has taken it, its registration was removed or
    /// replaced, or its handler was paused.
    Dropped,
}

impl<T> Slot<T> {
    #[inline]
    fn due(&self, readiness: Readiness) -> Due<'_, T> {
        Due {
            value: &self.value,
            readiness,
            interest: self.state.interest(),
            version: self.state.version(),
            is_special: self.state.is_special(),
        }
    }
}

impl<T> Registry<T> {
    /// Starts to deliver the events of `list`. Returns the list of the outer iteration, for [`end_delivery`](Self::end_delivery).
    ///
    /// `is_recorded` states that the events have been [recorded](Self::record), or that the list has only
    /// entries without readiness. If they have not been recorded, nothing may have changed since the wait
    /// that reported them, and no group may be [paused](Self::has_paused).
    ///
    /// ```
    /// use aio_backend::{Interest, Readiness, ReadyList};
    /// use aio_handlers::{GroupId, Registry};
    ///
    /// let mut registry = Registry::new();
    /// let token = registry.insert(Some(7), "a socket", Interest::READ, GroupId::DEFAULT)?;
    /// let mut list = Box::new(ReadyList::new());
    /// list.push(token, Readiness::IN);
    ///
    /// let outer = registry.start_delivery(list, false);
    /// while let Some((token, readiness, due)) = registry.next_event() {
    ///     match due {
    ///         Some(due) => assert_eq!((*due.value, due.interest), ("a socket", Interest::READ)),
    ///         None => drop(registry.resolve(token, readiness)),
    ///     }
    /// }
    /// let list = registry.end_delivery(outer);
    /// assert_eq!(list.len(), 1);
    /// # Ok::<(), aio_handlers::Occupied<&str>>(())
    /// ```
    #[inline]
    pub fn start_delivery(&mut self, list: Box<ReadyList>, is_recorded: bool) -> Option<Box<ReadyList>> {
        self.settle();
        debug_assert!(
            is_recorded || !self.has_paused(),
            "events of paused handlers have to be recorded"
        );
        let outer = self.recorded.take();
        let delivery = if is_recorded {
            &mut self.recorded
        } else {
            &mut self.direct
        };
        *delivery = Some(list);
        outer
    }

    /// Returns the next event of the list, with the due value if the event can be delivered directly. If it
    /// cannot, pass it to [`resolve`](Self::resolve).
    #[inline]
    pub fn next_event(&mut self) -> Option<(Token, Readiness, Option<Due<'_, T>>)> {
        let Some(list) = &mut self.direct else {
            return self.next_recorded();
        };
        let (token, readiness) = list.take_next()?;
        let plain = self.slots.get(token).filter(|slot| slot.state.is_plain());
        Some((token, readiness, plain.map(|slot| slot.due(readiness))))
    }

    /// Returns the due item of the only event of a list, if it can be delivered unchanged. It needs no
    /// [delivery](Self::start_delivery), because the list has no other event that its callback could change.
    /// `is_recorded` is as for a delivery.
    ///
    /// ```
    /// use aio_backend::{Interest, Readiness, ReadyList};
    /// use aio_handlers::{GroupId, Registry};
    ///
    /// let mut registry = Registry::new();
    /// let token = registry.insert(Some(7), "a socket", Interest::READ, GroupId::DEFAULT)?;
    /// let mut list = ReadyList::new();
    /// list.push(token, Readiness::IN);
    /// let (token, due) = registry.only_event(&list, false).expect("it is plain");
    /// assert_eq!(*due.value, "a socket");
    /// // An edge has to be remembered: it needs a delivery.
    /// registry.set_interest(token, Interest::READ.union(Interest::EDGE));
    /// assert_eq!(registry.only_event(&list, false), None);
    /// # Ok::<(), aio_handlers::Occupied<&str>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn only_event(&self, list: &ReadyList, is_recorded: bool) -> Option<(Token, Due<'_, T>)> {
        let [(token, readiness)] = *list.as_slice() else {
            return None;
        };
        // Events that an outer iteration delivers straight from its list have to be recorded first.
        if is_recorded || self.direct.is_some() {
            return None;
        }
        let slot = self.slots.get(token)?;
        slot.state.is_plain().then(|| (token, slot.due(readiness)))
    }

    #[inline]
    fn next_recorded(&mut self) -> Option<(Token, Readiness, Option<Due<'_, T>>)> {
        let (token, readiness) = self.recorded.as_mut()?.take_next()?;
        Some((token, readiness, None))
    }

    /// Returns whether a handler may still be called for the rest of an event, after one of its callbacks has
    /// run. It must be registered and still have this [version](Self::version), its interest must be wanted
    /// (`is_wanted`), it must not have been armed for another one-shot event, and its group must not be
    /// paused.
    #[inline]
    #[must_use]
    pub fn is_current(&self, token: Token, version: u32, is_wanted: impl FnOnce(Interest) -> bool) -> bool {
        self.version(token) == Some(version)
            && self.interest(token).is_some_and(is_wanted)
            && !self.awaits_only_event(token)
            && !self.group(token).is_some_and(|group| self.is_paused(group))
    }

    /// Returns the present meaning of an event that cannot be delivered directly. Entries of the list without
    /// readiness are not events; do not pass them.
    #[inline]
    pub fn resolve(&mut self, token: Token, readiness: Readiness) -> Event<'_, T> {
        if self.direct.is_some() {
            let is_clear = |slot: &Slot<T>| slot.state.is_clear() && slot.mask == PackedMask::NONE;
            if self.slots.get(token).is_some_and(is_clear) {
                // An edge need not be recorded, because it is delivered now.
                return self.resolve_now(token, readiness);
            }
            if self.record_now(token, readiness) == Recorded::Masked {
                return Event::Masked;
            }
        }
        // In two steps: with the value borrowed, the event could not be rejected.
        let taken = self.take_ready(token).map(|(_, readiness, _)| readiness);
        match taken {
            Some(readiness) => match self.slots.get(token) {
                Some(slot) => Event::Ready(slot.due(readiness)),
                None => Event::Dropped,
            },
            None if self.reject(token) => Event::Masked,
            None => Event::Dropped,
        }
    }

    fn resolve_now(&self, token: Token, readiness: Readiness) -> Event<'_, T> {
        let slot = self.slots.get(token);
        let event = slot.map(|slot| (slot, readiness & slot.state.interest().mask()));
        match event.filter(|(_, readiness)| !readiness.is_empty()) {
            Some((slot, readiness)) => Event::Ready(slot.due(readiness)),
            None => Event::Dropped,
        }
    }

    /// Ends a delivery and restores the `outer` list. Returns the list of this delivery.
    ///
    /// The [rest](ReadyList::rest) of it is dropped: a level-triggered backend reports it again, and edges stay recorded.
    #[inline(always)]
    pub fn end_delivery(&mut self, outer: Option<Box<ReadyList>>) -> Box<ReadyList> {
        if self.direct.as_ref().is_some_and(|list| list.rest().len() > 0) {
            self.record_delivery();
        }
        let ended = match self.direct.take() {
            Some(ended) => ended,
            None => self.end_recorded(),
        };
        // The outer list was recorded when this delivery started.
        self.recorded = outer;
        ended
    }

    #[inline]
    fn end_recorded(&mut self) -> Box<ReadyList> {
        let list = self.recorded.take().unwrap_or_default();
        if list.rest().len() > 0 {
            self.abandon(&list);
        }
        list
    }

    #[cold]
    fn abandon(&mut self, list: &ReadyList) {
        self.give_back(list.rest().map(|(token, _)| token));
    }

    /// Records the rest of the present list, unless it is recorded already.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.direct.is_some() {
            self.record_delivery();
        }
    }

    /// As [`settle`](Self::settle), before a change of `token`. A change of its own registration does not
    /// affect the event that is being delivered.
    #[inline]
    pub(crate) fn settle_others(&mut self, token: Token) {
        if self.direct.is_some() && !self.is_being_delivered(token) {
            self.record_delivery();
        }
    }

    #[inline(never)]
    fn is_being_delivered(&self, token: Token) -> bool {
        let last = self.direct.as_ref().and_then(|list| list.last_taken());
        last.is_some_and(|(last, _)| last == token)
    }

    #[inline(never)]
    fn record_delivery(&mut self) {
        if let Some(list) = self.direct.take() {
            self.record_rest(&list);
            self.recorded = Some(list);
        }
    }

    /// Records events as if they had been recorded right after the wait. Those of paused handlers are
    /// rejected when they are taken.
    fn record_rest(&mut self, list: &ReadyList) {
        for (token, readiness) in list.rest().filter(|(_, readiness)| !readiness.is_empty()) {
            match self.slots.get_mut(token) {
                Some(slot) if slot.mask == PackedMask::NONE => slot.add(token, readiness, &mut self.edges),
                Some(_) => {}
                None => self.stale += 1,
            }
        }
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
