//! Readiness that the backend does not report again: edges, and readiness that an interrupted iteration did not deliver.
//!
//! A level-triggered backend reports readiness again while it lasts, so an iteration may drop recorded
//! readiness. An edge or a one-shot event is reported once. The registry keeps it until it is taken, also
//! across a nested iteration, a panic, or a list that is too short.

use aio_backend::{Interest, Readiness, ReadyList, Token};

use crate::mask::Mask;
use crate::{Recorded, Registry};

impl<T> Registry<T> {
    /// Returns whether recorded edges or one-shot events may be left. If so, an iteration must not wait.
    #[inline]
    #[must_use]
    pub fn has_edges(&self) -> bool {
        !self.edges.is_empty()
    }

    /// Returns whether [`recall`](Self::recall) has something to do.
    #[inline]
    #[must_use]
    pub fn needs_recall(&self) -> bool {
        self.direct.is_some() || self.has_edges()
    }

    /// Appends the registrations with recorded edges to `ready`, and removes those from the record whose
    /// edges have been taken.
    ///
    /// An iteration calls this first, also a nested one, because this [records](crate::Recorded::Live) the
    /// events of an outer delivery. Registrations without room in the list stay for the next iteration.
    #[inline]
    pub fn recall(&mut self, ready: &mut ReadyList) {
        self.settle();
        if self.has_edges() {
            self.recall_edges(ready);
        }
    }

    #[cold]
    fn recall_edges(&mut self, ready: &mut ReadyList) {
        let slots = &self.slots;
        self.edges.retain(|token| {
            let waits = slots
                .get(*token)
                .is_some_and(|slot| !slot.state.pending().is_empty());
            if waits {
                ready.push(*token, Readiness::IN);
            }
            waits
        });
    }

    /// Returns whether the registration is edge-triggered.
    #[must_use]
    pub fn is_edge(&self, token: Token) -> bool {
        self.interest(token)
            .is_some_and(|interest| interest.contains(Interest::EDGE))
    }

    /// Rejects an event that was not delivered because [`take_ready`](Self::take_ready) found its handler paused or excluded.
    ///
    /// Returns `true` if the caller must set [`Interest::NONE`] in the backend, as for [`Recorded::Masked`].
    /// The backend does not report an edge or a one-shot event again by itself, but does so after its
    /// interest is restored.
    pub fn reject(&mut self, token: Token) -> bool {
        let Some(slot) = self.slots.get(token) else {
            return false;
        };
        let is_blocked = slot.state.exclusions() != 0 || self.groups.is_paused(slot.group);
        let masks = is_blocked && slot.state.interest().reports_once() && slot.mask.get() != Mask::Asleep;
        if masks {
            self.mask(token);
        }
        masks
    }

    /// Records readiness again after the handler that took it has panicked.
    pub fn restore(&mut self, token: Token, readiness: Readiness) -> Recorded {
        let recorded = self.record(token, readiness);
        // The entry of the taken edge may still be listed.
        self.edges.drop_repeated(token);
        recorded
    }

    /// Drops readiness that an iteration recorded and did not deliver. A level-triggered backend reports it
    /// again. Edges and one-shot events stay recorded.
    pub fn give_back(&mut self, left: impl IntoIterator<Item = Token>) {
        for token in left {
            if let Some(slot) = self.slots.get_mut(token)
                && !slot.state.interest().reports_once()
            {
                slot.state.set_pending(Readiness::empty());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GroupId;

    const EDGE: Interest = Interest::READ.union(Interest::EDGE);
    const ONCE: Interest = Interest::READ.union(Interest::ONESHOT);

    fn registry(interest: Interest) -> (Registry<()>, Token) {
        let mut registry = Registry::new();
        let token = registry.insert(Some(3), (), interest, GroupId::DEFAULT).unwrap();
        (registry, token)
    }

    fn recalled(registry: &mut Registry<()>) -> Vec<Token> {
        let mut ready = ReadyList::new();
        registry.recall(&mut ready);
        ready.iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn d1_an_edge_is_recalled_until_it_is_taken() {
        let (mut registry, token) = registry(EDGE);
        assert!(!registry.has_edges());
        registry.record(token, Readiness::IN);
        registry.give_back([token]);
        assert_eq!(recalled(&mut registry), [token]);
        let mut full = ReadyList::with_limit(1);
        full.push(Token::new(9, 9), Readiness::IN);
        registry.recall(&mut full);
        assert_eq!(full.len(), 1);
        assert!(registry.has_edges(), "it found no room");
        assert!(registry.take_ready(token).is_some());
        assert_eq!(recalled(&mut registry), []);
        assert!(!registry.has_edges());
    }

    #[test]
    fn d1_a_level_is_dropped_when_it_is_given_back() {
        let (mut registry, token) = registry(Interest::READ);
        registry.record(token, Readiness::IN);
        assert!(!registry.has_edges());
        registry.give_back([token]);
        assert_eq!(registry.take_ready(token), None);
    }

    #[test]
    fn r8_an_edge_of_a_removed_registration_is_forgotten() {
        let (mut registry, token) = registry(EDGE);
        registry.record(token, Readiness::IN);
        registry.remove(token);
        assert_eq!(recalled(&mut registry), []);
        assert!(!registry.has_edges());
    }

    #[test]
    fn edges_that_add_up_are_remembered_once() {
        let (mut registry, token) = registry(EDGE);
        registry.record(token, Readiness::IN);
        registry.record(token, Readiness::HUP);
        assert_eq!(recalled(&mut registry), [token]);
        assert_eq!(
            registry.take_ready(token),
            Some((&(), Readiness::IN | Readiness::HUP, EDGE))
        );
    }

    #[test]
    fn b5_a_rejected_edge_masks_its_handler_and_a_rejected_level_does_not() {
        for (interest, masks) in [(EDGE, true), (Interest::READ, false)] {
            let (mut registry, token) = registry(interest);
            registry.record(token, Readiness::IN);
            registry.pause(GroupId::DEFAULT);
            assert_eq!(registry.take_ready(token), None);
            assert_eq!(registry.reject(token), masks);
            let mut rearmed = Vec::new();
            registry.resume(GroupId::DEFAULT, &mut |token, _| rearmed.push(token));
            assert_eq!(rearmed.len(), usize::from(masks));
        }
    }

    #[test]
    fn d9_readiness_taken_before_a_panic_is_restored() {
        let (mut registry, token) = registry(EDGE);
        registry.record(token, Readiness::IN);
        assert!(registry.take_ready(token).is_some());
        assert_eq!(registry.restore(token, Readiness::IN), Recorded::Live);
        assert_eq!(recalled(&mut registry), [token]);
    }
    #[test]
    fn r14_an_event_that_was_not_delivered_is_recalled_until_it_is() {
        let (mut registry, token) = registry(ONCE);
        registry.record(token, Readiness::IN);
        registry.give_back([token]);
        assert_eq!(recalled(&mut registry), [token]);
        assert!(registry.take_ready(token).is_some());
        registry.delivered(token);
        assert_eq!(recalled(&mut registry), []);
        registry.check();
    }

    #[test]
    fn r14_after_its_event_an_interest_sleeps_until_it_is_set_or_the_value_is_replaced() {
        let (mut registry, token) = registry(ONCE);
        for wakes in 0..3 {
            assert_eq!(registry.effective_interest(token), Some(ONCE));
            registry.record(token, Readiness::IN);
            assert!(registry.take_ready(token).is_some());
            registry.delivered(token);
            assert_eq!(registry.interest(token), Some(ONCE));
            assert_eq!(registry.effective_interest(token), Some(Interest::NONE));
            assert_eq!(registry.effective(token, EDGE), Some(EDGE));
            match wakes {
                0 => _ = registry.set_interest(token, ONCE),
                _ => _ = registry.replace(token, ()),
            }
        }
        assert_eq!(registry.set_interest(token, Interest::READ), Some(ONCE));
        registry.delivered(token);
        assert_eq!(
            registry.effective_interest(token),
            Some(Interest::READ),
            "a level does not sleep"
        );
        registry.check();
    }

    #[test]
    fn r14_a_pause_does_not_wake_an_interest_that_had_its_event() {
        let (mut registry, token) = registry(ONCE);
        registry.record(token, Readiness::IN);
        assert!(registry.take_ready(token).is_some());
        registry.delivered(token);
        registry.pause(GroupId::DEFAULT);
        assert!(!registry.reject(token));
        assert_eq!(registry.record(token, Readiness::IN), Recorded::Masked);
        let mut rearmed = Vec::new();
        registry.resume(GroupId::DEFAULT, &mut |token, interest| {
            rearmed.push((token, interest))
        });
        assert_eq!(rearmed, []);
        // Set again during a pause, it waits for its next event.
        registry.pause(GroupId::DEFAULT);
        registry.set_interest(token, ONCE);
        assert_eq!(registry.record(token, Readiness::IN), Recorded::Masked);
        registry.resume(GroupId::DEFAULT, &mut |token, interest| {
            rearmed.push((token, interest))
        });
        assert_eq!(rearmed, [(token, ONCE)]);
        registry.check();
    }

    #[test]
    fn r14_an_event_from_before_the_interest_was_set_is_not_delivered_beside_the_next() {
        let (mut registry, token) = registry(ONCE);
        registry.record(token, Readiness::IN);
        registry.set_interest(token, ONCE);
        assert_eq!(registry.take_ready(token), None, "the backend reports it again");
    }

    #[test]
    fn r14_an_event_that_a_pause_kept_back_is_armed_again_after_it() {
        let (mut registry, token) = registry(ONCE);
        registry.record(token, Readiness::IN);
        registry.pause(GroupId::DEFAULT);
        assert_eq!(registry.take_ready(token), None);
        assert!(registry.reject(token));
        let mut rearmed = Vec::new();
        registry.resume(GroupId::DEFAULT, &mut |token, interest| {
            rearmed.push((token, interest))
        });
        assert_eq!(rearmed, [(token, ONCE)]);
    }
}
