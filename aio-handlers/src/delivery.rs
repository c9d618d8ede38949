//! [`Delivery`]: the events of one wait, delivered one by one.
//!
//! An event is usually delivered straight from the list. It is recorded in its slot first only if something comes in between that could
//! change its meaning: a nested iteration, a pause, or a change of another registration by a callback.

use aio_backend::{Interest, Readiness, ReadyList, Token};

use crate::mask::PackedMask;
use crate::registry::Slot;
use crate::{Recorded, Registry};

/// The events of one wait, and how many of them have been delivered.
///
/// The registry holds the delivery of the innermost iteration; see [`Registry::start_delivery`].
#[derive(Debug)]
pub struct Delivery {
    list: Option<Box<ReadyList>>,
    next: usize,
    /// The rest of the events is recorded in the slots.
    is_recorded: bool,
}

impl Delivery {
    /// No events.
    pub(crate) const NONE: Self = Self {
        list: None,
        next: 0,
        is_recorded: true,
    };

    fn rest(&self) -> impl Iterator<Item = (Token, Readiness)> + '_ {
        self.list.iter().flat_map(|list| list.iter_from(self.next))
    }
}

/// One event of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a, T> {
    /// A descriptor is ready: the value, the readiness, and the current interest.
    Ready(Token, &'a T, Readiness, Interest),
    /// An entry of the list without readiness.
    Bare(Token),
    /// The handler is paused or excluded, and the event is dropped. Set [`Interest::NONE`] in the backend, as for
    /// [`Recorded::Masked`].
    Masked(Token),
}

impl Default for Delivery {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T> Slot<T> {
    /// Whether an event can be delivered without a look at pauses, recorded readiness and edges.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        const ONCE: u32 = (Interest::EDGE.union(Interest::ONESHOT).bits() as u32) << 16;
        // The compiler makes one load of the three.
        let state = u32::from(self.exclusions)
            | u32::from(self.interest.bits()) << 16
            | u32::from(self.pending.bits()) << 24;
        state & (0xff00_ffff | ONCE) == 0
    }
}

impl<T> Registry<T> {
    /// Starts to deliver the events of `list`. Returns the delivery of the outer iteration, for [`end_delivery`](Self::end_delivery).
    ///
    /// `is_recorded` tells whether the events have been [recorded](Self::record). If they have not, nothing but
    /// [`next_event`](Self::next_event) may come between the wait and this call.
    ///
    /// ```
    /// use aio_backend::{Interest, Readiness, ReadyList};
    /// use aio_handlers::{Event, GroupId, Registry};
    ///
    /// let mut registry = Registry::new();
    /// let token = registry.insert(Some(7), "a socket", Interest::READ, GroupId::DEFAULT)?;
    /// let mut list = Box::new(ReadyList::new());
    /// list.push(token, Readiness::IN);
    ///
    /// let outer = registry.start_delivery(list, false);
    /// let event = registry.next_event();
    /// assert_eq!(event, Some(Event::Ready(token, &"a socket", Readiness::IN, Interest::READ)));
    /// assert_eq!(registry.next_event(), None);
    /// let (list, delivered) = registry.end_delivery(outer);
    /// assert_eq!((list.len(), delivered), (1, 1));
    /// # Ok::<(), aio_handlers::Occupied<&str>>(())
    /// ```
    #[inline]
    pub fn start_delivery(&mut self, list: Box<ReadyList>, is_recorded: bool) -> Delivery {
        self.settle();
        let delivery = Delivery {
            list: Some(list),
            next: 0,
            is_recorded,
        };
        std::mem::replace(&mut self.delivery, delivery)
    }

    /// Returns the next event that has to be handled, in the order of the list.
    ///
    /// Events are skipped that a nested iteration has taken, whose registration was removed or replaced since the wait, or whose handler
    /// was paused since.
    #[inline(always)]
    pub fn next_event(&mut self) -> Option<Event<'_, T>> {
        let list = self.delivery.list.as_ref()?;
        let (token, readiness) = list.get(self.delivery.next)?;
        self.delivery.next += 1;
        if readiness.is_empty() || self.delivery.is_recorded {
            return self.next_recorded(token, readiness);
        }
        let is_plain = self.slots.get(token).is_some_and(Slot::is_plain);
        if !is_plain || self.groups.has_paused() {
            return self.next_unusual(token, readiness);
        }
        let slot = self.slots.get(token)?;
        Some(Event::Ready(token, &slot.value, readiness, slot.interest))
    }

    /// The next event, beginning with this one of a list that is recorded.
    #[inline(never)]
    fn next_recorded(&mut self, mut token: Token, mut readiness: Readiness) -> Option<Event<'_, T>> {
        while !readiness.is_empty() {
            let taken = self
                .take_ready(token)
                .map(|(_, readiness, interest)| (readiness, interest));
            if let Some((readiness, interest)) = taken {
                return self
                    .get(token)
                    .map(|value| Event::Ready(token, value, readiness, interest));
            }
            if self.reject(token) {
                return Some(Event::Masked(token));
            }
            (token, readiness) = self.delivery.rest().next()?;
            self.delivery.next += 1;
        }
        Some(Event::Bare(token))
    }

    /// An event that is not recorded, of a handler that waits for what is reported once, is or was paused, or is gone.
    #[inline(never)]
    fn next_unusual(&mut self, token: Token, readiness: Readiness) -> Option<Event<'_, T>> {
        match self.record_now(token, readiness) {
            Recorded::Masked => Some(Event::Masked(token)),
            Recorded::Live | Recorded::Stale => self.next_recorded(token, readiness),
        }
    }

    /// Ends a delivery and restores the `outer` one. Returns the list, and how many of its events were delivered.
    ///
    /// The rest is dropped, and a level-triggered backend reports it again; edges stay recorded.
    #[inline]
    pub fn end_delivery(&mut self, outer: Delivery) -> (Box<ReadyList>, usize) {
        let ended = std::mem::replace(&mut self.delivery, outer);
        let list = ended.list.unwrap_or_default();
        if ended.next < list.len() {
            self.abandon(&list, ended.next, ended.is_recorded);
        }
        (list, ended.next)
    }

    #[cold]
    fn abandon(&mut self, list: &ReadyList, next: usize, is_recorded: bool) {
        if !is_recorded {
            self.record_rest(list, next);
        }
        self.give_back(list.iter_from(next).map(|(token, _)| token));
    }

    /// Records the rest of the present delivery, unless it is recorded already.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if !self.delivery.is_recorded {
            self.record_delivery();
        }
    }

    /// As [`settle`](Self::settle), before a change of `token`. An event that is being delivered has lost nothing by a change of its own
    /// registration.
    #[inline]
    pub(crate) fn settle_others(&mut self, token: Token) {
        if !self.delivery.is_recorded && !self.is_being_delivered(token) {
            self.record_delivery();
        }
    }

    #[inline(never)]
    fn is_being_delivered(&self, token: Token) -> bool {
        let Delivery { list, next, .. } = &self.delivery;
        let last = next.checked_sub(1).and_then(|last| list.as_ref()?.get(last));
        last.is_some_and(|(last, _)| last == token)
    }

    #[inline(never)]
    fn record_delivery(&mut self) {
        self.delivery.is_recorded = true;
        if let Some(list) = self.delivery.list.take() {
            self.record_rest(&list, self.delivery.next);
            self.delivery.list = Some(list);
        }
    }

    /// Records events as if they had been recorded right after the wait. Those of handlers that are paused are rejected in their turn.
    fn record_rest(&mut self, list: &ReadyList, next: usize) {
        for (token, readiness) in list
            .iter_from(next)
            .filter(|(_, readiness)| !readiness.is_empty())
        {
            match self.slots.get_mut(token) {
                Some(slot) if slot.mask == PackedMask::NONE => {
                    if slot.interest.reports_once() && slot.pending.is_empty() {
                        self.edges.push(token);
                    }
                    slot.pending.add(readiness & slot.interest.mask());
                }
                Some(_) => {}
                None => self.stale += 1,
            }
        }
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
