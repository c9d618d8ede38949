//! What a library is to the measurements: a loop, and perhaps timers.

use std::cell::Cell;
use std::ffi::c_void;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use anyhow::Context as _;
use libloading::Library;

use crate::load::drain;

/// A loop of one of these libraries. A drop frees all that it allocated.
pub(super) trait Loop {
    /// Calls [`served`] with `bell` when `fd` is readable.
    fn watch(&mut self, fd: RawFd, bell: *mut c_void) -> Watch;
    fn unwatch(&mut self, watch: Watch);
    fn iterate(&mut self, block: bool);
}

/// What a library calls a watcher, an event, a handle, a source.
pub(super) type Watch = *mut c_void;

/// What a callback is given.
pub(super) struct Bell {
    pub(super) fd: Rc<OwnedFd>,
    pub(super) count: Rc<Cell<u64>>,
}

/// What every callback does.
pub(super) fn served(bell: *mut c_void) {
    // SAFETY: it is the `Bell` that was given to `watch`, which `Belfry` keeps until the loop is gone.
    let bell = unsafe { &*bell.cast::<Bell>() };
    drain(&bell.fd);
    bell.count.set(bell.count.get() + 1);
}

/// Loads the first of these libraries that is there.
pub(super) fn load(names: &[&str]) -> anyhow::Result<&'static Library> {
    let library = names.iter().find_map(|name| {
        // SAFETY: these libraries do nothing when they are loaded.
        unsafe { Library::new(name) }.ok()
    });
    let library = library.with_context(|| format!("{} is not installed", names[0]))?;
    // Never unloaded, because its allocations may outlive this value.
    Ok(Box::leak(Box::new(library)))
}

/// Timers as these libraries have them.
pub(super) trait Timers: Loop {
    /// One that calls [`expired`].
    fn make(&mut self) -> Watch;
    /// Arms one, or moves it. In zero microseconds it is due at once.
    fn arm(&mut self, timer: Watch, micros_from_now: u64);
    fn cancel(&mut self, timer: Watch);
    /// Frees one that is not armed, which is not used again.
    fn free(&mut self, timer: Watch);
}

thread_local! {
    pub(super) static EXPIRED: Cell<u64> = const { Cell::new(0) };
}

/// What the callback of a timer does.
pub(super) fn expired() {
    EXPIRED.set(EXPIRED.get() + 1);
}
