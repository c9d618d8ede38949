//! Panics in callbacks that C calls: caught there, and resumed where Rust called C.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use glib::MainContext;

thread_local! {
    /// Set while [`resuming`] is on the stack.
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    /// The first panic that was caught since.
    static CAUGHT: RefCell<Option<Box<dyn Any + Send>>> = const { RefCell::new(None) };
}

/// As [`MainContext::iteration`], but a panic in a callback of a context unwinds out of it. (A panic in a
/// callback of GLib aborts, as always.)
///
/// The other sources that are ready are dispatched before. A main loop that the callback itself runs ends first.
///
/// # Panics
/// If a callback of a context panics.
pub fn iteration(main: &MainContext, may_block: bool) -> bool {
    resuming(|| main.iteration(may_block))
}

/// Runs code that calls C, and resumes the panic that [`guard`] has caught meanwhile.
pub(crate) fn resuming<R>(code: impl FnOnce() -> R) -> R {
    let catching = Catching::begin();
    let result = code();
    drop(catching);
    if let Some(panic) = CAUGHT.take() {
        resume_unwind(panic);
    }
    result
}

/// Runs code that C called. Returns `None` if it panicked and [`resuming`] will resume the panic. Without
/// `resuming` the panic goes on, and aborts the process at the boundary to C.
pub(crate) fn guard<R>(code: impl FnOnce() -> R) -> Option<R> {
    if !CATCHES.get() {
        return Some(code());
    }
    // A context can go on after a panic (rule D9). Nothing else is used here.
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => Some(result),
        Err(panic) => {
            let earlier = CAUGHT.take();
            CAUGHT.set(Some(earlier.unwrap_or(panic)));
            None
        }
    }
}

/// Lasts while [`resuming`] is on the stack.
struct Catching {
    before: bool,
}

impl Catching {
    fn begin() -> Self {
        Self {
            before: CATCHES.replace(true),
        }
    }
}

impl Drop for Catching {
    fn drop(&mut self) {
        CATCHES.set(self.before);
    }
}
