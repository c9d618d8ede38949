//! The state of a registration in the kernel, as the mark of its entry.

use aio_backend::{Entry, Interest, Registrations, Token};

/// The state of a registration in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is not in the set and cannot have an event: it has no interest, or only one in the priority of a file that is always ready.
    Silent,
    /// It is in the set.
    Armed,
    /// It is in the set until its first event.
    ArmedOnce,
    /// The kernel has disarmed it after its event. It has no interest, and is still in the set.
    Disarmed,
    /// epoll refused its file. Holds its position among the [unpollable
    /// files](crate::unpollable::Unpollable).
    Unpollable(u32),
}

const SILENT: u32 = 0;
const ARMED: u32 = 1;
const ARMED_ONCE: u32 = 2;
const DISARMED: u32 = 3;
const UNPOLLABLE: u32 = 4;

impl State {
    /// Returns the state of an entry.
    #[inline]
    pub(crate) fn of(entry: &Entry) -> Self {
        match entry.mark() {
            SILENT => Self::Silent,
            ARMED => Self::Armed,
            ARMED_ONCE => Self::ArmedOnce,
            DISARMED => Self::Disarmed,
            place => Self::Unpollable(place - UNPOLLABLE),
        }
    }

    /// Returns the state of an entry in the set with this interest.
    #[inline]
    pub(crate) fn armed(interest: Interest) -> Self {
        if interest.contains(Interest::ONESHOT) {
            Self::ArmedOnce
        } else {
            Self::Armed
        }
    }

    /// Returns whether the entry is in the set.
    #[inline]
    pub(crate) fn is_in_set(self) -> bool {
        matches!(self, Self::Armed | Self::ArmedOnce | Self::Disarmed)
    }

    /// Returns the mark of this state.
    #[inline]
    pub(crate) fn mark(self) -> u32 {
        if let Self::Unpollable(place) = self {
            return UNPOLLABLE + place;
        }
        // The compiler turns a match of constants into a cast, and one with the position in it into a table
        // of jumps.
        match self {
            Self::Silent => SILENT,
            Self::Armed => ARMED,
            Self::ArmedOnce => ARMED_ONCE,
            Self::Disarmed | Self::Unpollable(_) => DISARMED,
        }
    }
}

/// Returns whether an entry is in the set without the limit of one event.
#[inline]
pub(crate) fn is_armed(entry: &Entry) -> bool {
    entry.mark() == ARMED
}

/// Disarms an entry whose only event has arrived, as the kernel has done. Returns `false` if the token has no
/// such entry.
#[cold]
pub(crate) fn disarm_once(entries: &mut Registrations, token: Token) -> bool {
    let entry = entries.get_mut(token).filter(|entry| entry.mark() == ARMED_ONCE);
    entry.map(|entry| entry.set(Interest::NONE, DISARMED)).is_some()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_state_survives_conversion_to_a_mark_and_back() {
        let token = Token::new(0, 0);
        let mut registrations = Registrations::new();
        registrations.insert(
            token,
            Rc::new(std::io::stdin()).into(),
            Interest::READ,
            State::Silent.mark(),
        );
        let entry = registrations.get_mut(token).unwrap();
        for state in [
            State::Silent,
            State::Armed,
            State::ArmedOnce,
            State::Disarmed,
            State::Unpollable(0),
            State::Unpollable(40_000_000),
        ] {
            entry.set_mark(state.mark());
            assert_eq!(
                (State::of(entry), is_armed(entry)),
                (state, state == State::Armed)
            );
            assert_eq!(entry.interest(), Interest::READ);
        }
    }
    #[test]
    fn r14_only_an_entry_for_one_event_is_disarmed_by_it() {
        let token = Token::new(0, 0);
        let mut registrations = Registrations::new();
        let once = Interest::READ | Interest::ONESHOT;
        registrations.insert(token, Rc::new(std::io::stdin()).into(), Interest::READ, 0);
        for (interest, disarms) in [(Interest::READ, false), (once, true)] {
            let entry = registrations.get_mut(token).unwrap();
            entry.set(interest, State::armed(interest).mark());
            assert_eq!(disarm_once(&mut registrations, token), disarms);
        }
        assert!(!disarm_once(&mut registrations, token), "it is disarmed");
        assert!(!disarm_once(&mut registrations, Token::new(0, 1)));
        let entry = registrations.get(token).unwrap();
        assert_eq!(
            (State::of(entry), entry.interest()),
            (State::Disarmed, Interest::NONE)
        );
    }
}
