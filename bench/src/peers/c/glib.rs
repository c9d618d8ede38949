//! GLib's main context.

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::RawFd;

use libloading::Symbol;

use super::library::{Loop, Watch, load, served};

const IN: c_uint = 1;

type Callback = extern "C" fn(c_int, c_uint, *mut c_void) -> c_int;

struct Glib {
    context: *mut c_void,
    source: Symbol<'static, unsafe extern "C" fn(c_int, c_uint) -> Watch>,
    set_callback: Symbol<'static, unsafe extern "C" fn(Watch, Callback, *mut c_void, *const c_void)>,
    attach: Symbol<'static, unsafe extern "C" fn(Watch, *mut c_void) -> c_uint>,
    destroy: Symbol<'static, unsafe extern "C" fn(Watch)>,
    unref: Symbol<'static, unsafe extern "C" fn(Watch)>,
    iterate: Symbol<'static, unsafe extern "C" fn(*mut c_void, c_int) -> c_int>,
}

extern "C" fn on_readable(_: c_int, _: c_uint, bell: *mut c_void) -> c_int {
    served(bell);
    1
}

pub(super) fn make() -> anyhow::Result<Box<dyn Loop>> {
    let library = load(&["libglib-2.0.so.0"])?;
    // SAFETY: the signatures are those of `glib.h` and `glib-unix.h`.
    unsafe {
        let new: Symbol<'_, unsafe extern "C" fn() -> *mut c_void> = library.get(b"g_main_context_new")?;
        Ok(Box::new(Glib {
            context: new(),
            source: library.get(b"g_unix_fd_source_new")?,
            set_callback: library.get(b"g_source_set_callback")?,
            attach: library.get(b"g_source_attach")?,
            destroy: library.get(b"g_source_destroy")?,
            unref: library.get(b"g_source_unref")?,
            iterate: library.get(b"g_main_context_iteration")?,
        }))
    }
}

impl Loop for Glib {
    fn watch(&mut self, fd: RawFd, bell: *mut c_void) -> Watch {
        // SAFETY: the context exists, and `bell` outlives the source.
        unsafe {
            let source = (self.source)(fd, IN);
            (self.set_callback)(source, on_readable, bell, std::ptr::null());
            (self.attach)(source, self.context);
            source
        }
    }

    fn unwatch(&mut self, watch: Watch) {
        // SAFETY: the source was made by `watch`, and is not used again.
        unsafe {
            (self.destroy)(watch);
            (self.unref)(watch);
        }
    }

    fn iterate(&mut self, block: bool) {
        // SAFETY: the context exists.
        unsafe {
            (self.iterate)(self.context, c_int::from(block));
        }
    }
}
