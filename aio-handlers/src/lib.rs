//! A registry of handlers: which value belongs to which descriptor, what it is ready for, and which ones are polled.
//!
//! [`Registry`] keeps values of any type under [`Token`](aio_backend::Token)s: lookup by descriptor number in O(1),
//! generations that tell a late event from a current one, groups that can be paused, and readiness that lies in the slot
//! until somebody takes it, once. [`HotSet`] is the dense array of those that are polled.
//!
//! # What it does not do
//! It never calls a handler, does not know what one is, makes no system call, owns no descriptor and reads no clock.
//! That a backend is told what changes here is its user's business: operations say what has to be told.
#![forbid(unsafe_code)]

mod groups;
mod hot;
mod registry;
mod slots;

pub use groups::GroupId;
pub use hot::HotSet;
pub use registry::{Noted, Occupied, Registry};
