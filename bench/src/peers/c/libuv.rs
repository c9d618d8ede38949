//! libuv 1.

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;

use libloading::Symbol;

use super::library::{Loop, Watch, load, served};

const READABLE: c_int = 1;
const ONCE: c_int = 1;
const NOWAIT: c_int = 2;
/// `UV_POLL` in `uv_handle_type`.
const POLL: c_int = 8;

type Callback = extern "C" fn(Watch, c_int, c_int);

struct Libuv {
    it: *mut c_void,
    handle_size: usize,
    init: Symbol<'static, unsafe extern "C" fn(*mut c_void, Watch, c_int) -> c_int>,
    set_data: Symbol<'static, unsafe extern "C" fn(Watch, *mut c_void)>,
    start: Symbol<'static, unsafe extern "C" fn(Watch, c_int, Callback) -> c_int>,
    stop: Symbol<'static, unsafe extern "C" fn(Watch) -> c_int>,
    run: Symbol<'static, unsafe extern "C" fn(*mut c_void, c_int) -> c_int>,
}

extern "C" fn on_readable(handle: Watch, _: c_int, _: c_int) {
    // SAFETY: `data` is the first field of every handle, and was set by `watch`.
    served(unsafe { *handle.cast::<*mut c_void>() });
}

/// Allocates memory for an object whose size only the library can compute. It is never freed, because the
/// loop keeps pointers to it.
fn room(size: usize) -> *mut c_void {
    vec![0u128; size.div_ceil(16)].leak().as_mut_ptr().cast()
}

pub(super) fn make() -> anyhow::Result<Box<dyn Loop>> {
    let library = load(&["libuv.so.1"])?;
    // SAFETY: the signatures are those of `uv.h`.
    unsafe {
        let loop_size: Symbol<'_, unsafe extern "C" fn() -> usize> = library.get(b"uv_loop_size")?;
        let loop_init: Symbol<'_, unsafe extern "C" fn(*mut c_void) -> c_int> =
            library.get(b"uv_loop_init")?;
        let handle_size: Symbol<'_, unsafe extern "C" fn(c_int) -> usize> = library.get(b"uv_handle_size")?;
        let it = room(loop_size());
        anyhow::ensure!(loop_init(it) == 0, "uv_loop_init failed");
        Ok(Box::new(Libuv {
            it,
            handle_size: handle_size(POLL),
            init: library.get(b"uv_poll_init")?,
            set_data: library.get(b"uv_handle_set_data")?,
            start: library.get(b"uv_poll_start")?,
            stop: library.get(b"uv_poll_stop")?,
            run: library.get(b"uv_run")?,
        }))
    }
}

impl Loop for Libuv {
    fn watch(&mut self, fd: RawFd, bell: *mut c_void) -> Watch {
        let handle = room(self.handle_size);
        // SAFETY: the handle has the size that the library returned, and is never freed.
        unsafe {
            (self.init)(self.it, handle, fd);
            (self.set_data)(handle, bell);
            (self.start)(handle, READABLE, on_readable);
        }
        handle
    }

    fn unwatch(&mut self, watch: Watch) {
        // SAFETY: the handle was made by `watch`.
        unsafe {
            (self.stop)(watch);
        }
    }

    fn iterate(&mut self, block: bool) {
        // SAFETY: the loop exists.
        unsafe {
            (self.run)(self.it, if block { ONCE } else { NOWAIT });
        }
    }
}
