//! [`source_new`]: the source for GLib's C interface. All of the crate's `unsafe` code for sources is here.
//!
//! GLib allocates a source with room for our part after its own, and calls four functions with a pointer to
//! it:
//!
//! | function | called | does |
//! |---|---|---|
//! | `prepare` | before each wait | returns GLib's timeout |
//! | `check` | after each wait | returns whether anything is due |
//! | `dispatch` | if `check` returned true | serves what is due |
//! | `finalize` | once, when the last reference is gone | drops our part |
//!
//! The first three are called by the thread that owns the main context, the last one by any thread.

use std::cell::Cell;
use std::ffi::{c_int, c_uint};
use std::io;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use aio_context::{Context, Embedded, Remote};
use glib::ffi;
use glib::thread_guard::ThreadGuard;
use glib::translate::{FromGlibPtrFull, IntoGlib, ToGlibPtr};

use crate::panics::guard;

/// The memory of a source, which GLib allocates.
#[repr(C)]
struct ContextSource {
    base: ffi::GSource,
    /// From `Box::into_raw`, until `finalize`.
    part: *mut Part,
}

/// Our part of a source.
struct Part {
    at_home: ManuallyDrop<ThreadGuard<AtHome>>,
    /// The way to the home thread.
    home: Remote,
    has_complained: AtomicBool,
}

/// The values that are used and dropped only on the home thread.
struct AtHome {
    embedded: Embedded,
    served: Rc<Cell<u64>>,
}

static FUNCTIONS: ffi::GSourceFuncs = ffi::GSourceFuncs {
    prepare: Some(prepare),
    check: Some(check),
    dispatch: Some(dispatch),
    finalize: Some(finalize),
    closure_callback: None,
    closure_marshal: None,
};

/// Makes a source that serves a context, to be [attached](glib::Source::attach) to a main context that runs on this thread. Most
/// programs use [`attach`](crate::attach).
///
/// The source keeps the context alive, and may be served in nested main loops. Its service ends when it is
/// [destroyed](glib::Source::destroy); the context is as before when the last reference to the source is
/// gone.
///
/// # Errors
/// As [`Context::embed`].
pub fn source_new(cx: &Context, name: Option<&str>, priority: glib::Priority) -> io::Result<glib::Source> {
    counting(cx, name, priority, &Rc::default())
}

/// As [`source_new`]. Also counts the dispatches with progress.
pub(crate) fn counting(
    cx: &Context,
    name: Option<&str>,
    priority: glib::Priority,
    served: &Rc<Cell<u64>>,
) -> io::Result<glib::Source> {
    let embedded = cx.embed()?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&embedded);
    let part = Box::new(Part {
        at_home: ManuallyDrop::new(ThreadGuard::new(AtHome {
            embedded,
            served: served.clone(),
        })),
        home: cx.remote(),
        has_complained: AtomicBool::new(false),
    });
    let size = c_uint::try_from(size_of::<ContextSource>()).unwrap_or(c_uint::MAX);
    // SAFETY: GLib reads the functions, which live for ever, and returns zeroed memory of this size that begins with a `GSource`; it is
    // aligned for pointers, as all of GLib's memory is. The pointer to our part is written before any function can be called:
    // nothing but this code has the source yet. The descriptor stays open until `finalize` drops its owner,
    // when GLib
    // polls it no longer. `from_glib_full` takes over the only reference.
    unsafe {
        let source = ffi::g_source_new((&raw const FUNCTIONS).cast_mut(), size);
        (&raw mut (*source.cast::<ContextSource>()).part).write(Box::into_raw(part));
        ffi::g_source_add_unix_fd(source, fd, ffi::G_IO_IN);
        ffi::g_source_set_can_recurse(source, ffi::GTRUE);
        ffi::g_source_set_priority(source, priority.into_glib());
        ffi::g_source_set_name(source, name.unwrap_or("aio-context").to_glib_none().0);
        Ok(glib::Source::from_glib_full(source))
    }
}

/// # Safety
/// The source must be one of [`source_new`], before its `finalize` returns. No other reference to its part may be exclusive.
unsafe fn part<'a>(source: *mut ffi::GSource) -> &'a Part {
    // SAFETY: the source begins a `ContextSource`, whose part was written by `source_new` and is freed by `finalize`.
    unsafe { &*(*source.cast::<ContextSource>()).part }
}

impl Part {
    /// Returns the context, on its home thread.
    fn at_home(&self) -> Option<&AtHome> {
        if self.at_home.is_owner() {
            return Some(self.at_home.get_ref());
        }
        if !self.has_complained.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "a GLib main context runs on another thread than the context that it is to serve, and serves it no longer: run \
                 it on the thread that made the context"
            );
        }
        None
    }
}

/// Never returns ready: GLib polls in any case, and `check` then has the readiness, so that there is a
/// dispatch only if something is due.
unsafe extern "C" fn prepare(source: *mut ffi::GSource, timeout: *mut c_int) -> ffi::gboolean {
    // SAFETY: GLib passes a live source of ours.
    let part = unsafe { part(source) };
    // Not at home, or after a panic: GLib must call `check` at once.
    let prepared = part
        .at_home()
        .and_then(|home| guard(|| home.embedded.prepare_ms()));
    // SAFETY: GLib passes a pointer to a local variable.
    unsafe { timeout.write(prepared.unwrap_or(0)) };
    ffi::GFALSE
}

unsafe extern "C" fn check(source: *mut ffi::GSource) -> ffi::gboolean {
    // SAFETY: GLib passes a live source of ours.
    let part = unsafe { part(source) };
    // Not at home, or after a panic: GLib must call `dispatch`. If the system refuses the check, `dispatch`
    // reports it.
    let checked = part.at_home().and_then(|home| guard(|| home.embedded.check()));
    checked.is_none_or(|checked| checked.unwrap_or(true)).into_glib()
}

unsafe extern "C" fn dispatch(
    source: *mut ffi::GSource,
    _: ffi::GSourceFunc,
    _: ffi::gpointer,
) -> ffi::gboolean {
    // SAFETY: GLib passes a live source of ours, and keeps it alive during the call, also if a callback destroys it.
    let part = unsafe { part(source) };
    let Some(home) = part.at_home() else {
        return ffi::G_SOURCE_REMOVE;
    };
    if guard(|| home.embedded.dispatch()) == Some(true) {
        home.served.set(home.served.get() + 1);
    }
    ffi::G_SOURCE_CONTINUE
}

unsafe extern "C" fn finalize(source: *mut ffi::GSource) {
    // SAFETY: GLib calls this once, when nothing refers to the source any more. Therefore the part, which is
    // from `Box::into_raw`, is not used elsewhere, and never again.
    let part = unsafe { Box::from_raw((*source.cast::<ContextSource>()).part) };
    let Part { at_home, home, .. } = *part;
    if at_home.is_owner() {
        guard(|| drop(ManuallyDrop::into_inner(at_home)));
    } else {
        // The home thread drops it. If that thread has ended, the memory is lost, because no other thread may
        // touch it.
        let _ = home.run(move |_| drop(ManuallyDrop::into_inner(at_home)));
    }
}
