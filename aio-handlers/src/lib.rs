//! A registry of handlers: their descriptors and their recorded readiness.
//!
//! [`Registry`] stores values of any type under [`Token`](aio_backend::Token)s. It finds them by descriptor number in O(1), recognises
//! stale events by generations, pauses groups of handlers, and stores recorded readiness until it is taken, once.
//!
//! ```
//! use aio_backend::{Interest, Readiness};
//! use aio_handlers::{GroupId, Recorded, Registry};
//!
//! let mut registry = Registry::new();
//! let token = registry.insert(Some(7), "a socket", Interest::READ, GroupId::DEFAULT)?;
//!
//! // A wait reported an event. If a nested iteration takes it first, the outer one finds nothing.
//! assert_eq!(registry.record(token, Readiness::IN), Recorded::Live);
//! assert_eq!(registry.take_ready(token), Some((&"a socket", Readiness::IN, Interest::READ)));
//! assert_eq!(registry.take_ready(token), None);
//!
//! // Paused: the first event masks the handler, the last resume returns the interest to restore.
//! registry.pause(GroupId::DEFAULT);
//! assert_eq!(registry.record(token, Readiness::IN), Recorded::Masked);
//! assert_eq!(registry.effective_interest(token), Some(Interest::NONE));
//! let mut rearmed = Vec::new();
//! registry.resume(GroupId::DEFAULT, &mut |token, interest| rearmed.push((token, interest)));
//! assert_eq!(rearmed, [(token, Interest::READ)]);
//!
//! // Removed: every further event of the token is stale, even if the number is reused.
//! assert_eq!(registry.remove(token), Some("a socket"));
//! assert_eq!(registry.record(token, Readiness::IN), Recorded::Stale);
//! # Ok::<(), aio_handlers::Occupied<&str>>(())
//! ```
//!
//! # Masking
//! Pausing a group changes nothing in the backend, so it costs the same for one handler and for ten thousand. The first event
//! of a paused handler *masks* it: the event is not kept, and the caller gives the backend
//! [`Interest::NONE`](aio_backend::Interest::NONE). The last resume returns the masked registrations with the interests to
//! restore. A level-triggered backend then reports every readiness that still holds. A pause therefore costs O(events while paused).
//! [Exclusion](Registry::exclude) is the same mechanism for a single handler that must not be entered while
//! it runs; [`Running`] records the handlers that run.
//!
//! # Cost
//! Every operation except [`Registry::tokens`] and [`Registry::check`] takes the same time with one registration and with a million;
//! [`Registry::resume`] takes O(masked). A handler takes 40 bytes beside its value, 8 more while
//! it is masked. Memory is reused and not released: it depends on the largest number of
//! simultaneous registrations, and on the largest descriptor number (4 bytes for each number, up to 2^20). Linux assigns larger numbers
//! only after its limit is raised; the registry stores them in a map, in O(log n).
//!
//! # What it does not do
//! The registry never calls a handler ([`call_each()`] calls only the closure that it gets). It makes no
//! system calls, owns no descriptors and reads no clock. It does not call a backend: operations return the
//! interest that the caller must pass to the backend. Groups are never released: make one for each purpose,
//! not for each request.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod call_each;
mod change;
mod delivery;
mod edge_guard;
mod edges;
mod found;
mod groups;
mod index;
mod mask;
mod masking;
mod recall;
mod registry;
mod running;
mod slots;
mod state;
mod steps;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod test_loop;

pub use call_each::call_each;
pub use change::{ChangeError, InterestChange, Replaced};
pub use delivery::{Due, Event};
pub use edge_guard::EdgeGuard;
pub use found::{Delivering, Dispatcher, Found};
pub use groups::GroupId;
pub use masking::Recorded;
pub use registry::{Occupied, Registry};
pub use running::Running;
