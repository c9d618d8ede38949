//! The interface of a library for the measurements: a loop, and perhaps timers.

use std::cell::Cell;
use std::ffi::c_void;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use anyhow::Context as _;
use libloading::Library;

use crate::load::drain;

/// A loop of one of these libraries. Dropping it frees all that it allocated.
pub(super) trait Loop {
    /// Calls [`served`] with `bell` when `fd` is readable.
    fn watch(&mut self, fd: RawFd, bell: *mut c_void) -> Watch;
    fn unwatch(&mut self, watch: Watch);
    fn iterate(&mut self, block: bool);
}

/// A pointer to the library's watcher, event, handle or source.
pub(super) type Watch = *mut c_void;

/// The argument of a callback.
pub(super) struct Bell {
    pub(super) fd: Rc<OwnedFd>,
    pub(super) count: Rc<Cell<u64>>,
}

/// The work of every callback.
pub(super) fn served(bell: *mut c_void) {
    // SAFETY: the pointer is the `Bell` that was passed to `watch`, which `Belfry` keeps until the loop is
    // dropped.
    let bell = unsafe { &*bell.cast::<Bell>() };
    drain(&bell.fd);
    bell.count.set(bell.count.get() + 1);
}

/// Loads the first of these libraries that is installed.
pub(super) fn load(names: &[&str]) -> anyhow::Result<&'static Library> {
    let library = names.iter().find_map(|name| {
        // SAFETY: these libraries do nothing when they are loaded.
        unsafe { Library::new(name) }.ok()
    });
    let library = library.with_context(|| format!("{} is not installed", names[0]))?;
    // Never unloaded, because its allocations may outlive this value.
    Ok(Box::leak(Box::new(library)))
}

/// Timers in the form of these libraries.
pub(super) trait Timers: Loop {
    /// Makes a timer that calls [`expired`].
    fn make(&mut self) -> Watch;
    /// Arms a timer, or moves it. With zero microseconds it is due at once.
    fn arm(&mut self, timer: Watch, micros_from_now: u64);
    fn cancel(&mut self, timer: Watch);
    /// Frees a timer that is not armed. It must not be used again.
    fn free(&mut self, timer: Watch);
}

thread_local! {
    pub(super) static EXPIRED: Cell<u64> = const { Cell::new(0) };
}

/// The work of a timer's callback.
pub(super) fn expired() {
    EXPIRED.set(EXPIRED.get() + 1);
}
