//! Converts the events that the kernel reports.

use aio_backend::{Readiness, Token};
use rustix::event::epoll::{Event, EventData, EventFlags};

/// An event that the kernel has not written yet.
pub(crate) const NOTHING: Event = Event {
    flags: EventFlags::empty(),
    data: EventData::new_u64(0),
};

const _: () = {
    let all = EventFlags::IN
        .union(EventFlags::PRI)
        .union(EventFlags::OUT)
        .union(EventFlags::ERR)
        .union(EventFlags::HUP)
        .union(EventFlags::RDHUP);
    assert!(Readiness::all().difference(Readiness::NVAL).to_system() == all.bits());
};

/// Converts an event of the kernel: its registration's interest, errors, and hang-ups. The bits are the same.
#[inline]
pub(crate) fn reported(event: &Event) -> (Token, Readiness) {
    let (flags, data) = (event.flags, event.data);
    let readiness = Readiness::from_bits_retain(flags.bits() as u16);
    (Token::from_bits(data.u64()), readiness)
}
