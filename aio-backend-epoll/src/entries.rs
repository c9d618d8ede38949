//! The state of a registration in the kernel, as the mark of its entry.

use aio_backend::Entry;

/// The state of a registration in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has no interest and is not in the set.
    Silent,
    /// It is in the set.
    Armed,
    /// epoll refused its file; its position among the [unpollable files](crate::unpollable::Unpollable).
    Unpollable(u32),
}

const SILENT: u32 = 0;
const ARMED: u32 = 1;
const UNPOLLABLE: u32 = 2;

impl State {
    /// Returns the state of an entry.
    #[inline]
    pub(crate) fn of(entry: &Entry) -> Self {
        match entry.mark() {
            SILENT => Self::Silent,
            ARMED => Self::Armed,
            place => Self::Unpollable(place - UNPOLLABLE),
        }
    }

    /// Returns the mark of this state.
    #[inline]
    pub(crate) fn mark(self) -> u32 {
        match self {
            Self::Silent => SILENT,
            Self::Armed => ARMED,
            Self::Unpollable(place) => UNPOLLABLE + place,
        }
    }
}

/// Returns whether an entry is in the set.
#[inline]
pub(crate) fn is_armed(entry: &Entry) -> bool {
    entry.mark() == ARMED
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use aio_backend::{Interest, Registrations, Token};

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
}
