//! A registry of handlers: which value belongs to which descriptor, what it is ready for, and which ones are polled.
//!
//! [`Registry`] keeps values of any type under [`Token`](aio_backend::Token)s: lookup by descriptor number in O(1),
//! generations that tell a late event from a current one, groups that can be paused, and readiness that lies in the slot
//! until somebody takes it, once. [`HotSet`] is the dense array of those that are polled.
//!
//! ```
//! use aio_backend::{Interest, Readiness};
//! use aio_handlers::{GroupId, Recorded, Registry};
//!
//! let mut registry = Registry::new();
//! let token = registry.insert(Some(7), "a socket", Interest::READ, GroupId::DEFAULT)?;
//!
//! // A wait found something. A nested loop may take it first; then the outer one finds nothing and goes on.
//! assert_eq!(registry.record(token, Readiness::IN), Recorded::Live);
//! assert_eq!(registry.take_ready(token), Some((&"a socket", Readiness::IN, Interest::READ)));
//! assert_eq!(registry.take_ready(token), None);
//!
//! // Paused: the first event says "silence it", the last resume says "listen again".
//! registry.pause(GroupId::DEFAULT);
//! assert_eq!(registry.record(token, Readiness::IN), Recorded::Masked);
//! assert_eq!(registry.effective_interest(token), Some(Interest::NONE));
//! let mut rearmed = Vec::new();
//! registry.resume(GroupId::DEFAULT, &mut |token, interest| rearmed.push((token, interest)));
//! assert_eq!(rearmed, [(token, Interest::READ)]);
//!
//! // Removed: whatever still comes for the token is stale, also when the number is used again.
//! assert_eq!(registry.remove(token), Some("a socket"));
//! assert_eq!(registry.record(token, Readiness::IN), Recorded::Stale);
//! # Ok::<(), aio_handlers::Occupied<&str>>(())
//! ```
//!
//! # Masking
//! Pausing a group changes nothing in the backend, so it costs the same for one handler and for ten thousand. The first event
//! of a paused handler *masks* it: the event is not kept, and the caller gives the backend
//! [`Interest::NONE`](aio_backend::Interest::NONE). The last resume returns the masked registrations with the interests to
//! restore; a level-triggered backend reports anew whatever is still true. So a pause costs O(events while paused). A
//! handler that must not be entered while it runs is [excluded](Registry::exclude): the same mechanism for one handler.
//!
//! # Cost
//! Every operation but [`Registry::tokens`] and [`Registry::check`] costs the same with one registration and with a
//! million; [`Registry::resume`] costs O(masked). A handler costs 32 bytes beside its value (up to 40 with the value's
//! alignment), 8 more while it is masked, and 12 beside what is stored for it in the polled set. Memory is reused, not
//! given back: it follows the largest number of registrations there were at a time, and the largest descriptor number
//! (4 bytes each, up to 2^20; larger numbers, which Linux gives out only after its limit is raised, are kept in a map and
//! cost O(log n)).
//!
//! # What it does not do
//! It never calls a handler, does not know what one is, makes no system call, owns no descriptor and reads no clock.
//! That a backend is told what changes here is its user's business: operations say what has to be told. Groups are never
//! given back: make one per purpose, not one per request.
#![forbid(unsafe_code)]

mod groups;
mod hot;
mod index;
mod masking;
mod recall;
mod registry;
mod slots;
mod steps;

#[cfg(test)]
mod model_tests;

pub use groups::GroupId;
pub use hot::HotSet;
pub use masking::Recorded;
pub use registry::{Occupied, Registry};
