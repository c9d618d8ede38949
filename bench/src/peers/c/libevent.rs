//! libevent 2.1.

use std::ffi::{c_int, c_long, c_short, c_void};
use std::os::fd::RawFd;

use libloading::Symbol;

use super::library::{Loop, Timers, Watch, expired, load, served};

const READ: c_short = 0x02;
const PERSIST: c_short = 0x10;
const ONCE: c_int = 1;
const NONBLOCK: c_int = 2;

#[repr(C)]
struct Timeval {
    seconds: c_long,
    micros: c_long,
}

type Callback = extern "C" fn(c_int, c_short, *mut c_void);

pub(super) struct Libevent {
    base: *mut c_void,
    new: Symbol<'static, unsafe extern "C" fn(*mut c_void, c_int, c_short, Callback, *mut c_void) -> Watch>,
    add: Symbol<'static, unsafe extern "C" fn(Watch, *const Timeval) -> c_int>,
    del: Symbol<'static, unsafe extern "C" fn(Watch) -> c_int>,
    free: Symbol<'static, unsafe extern "C" fn(Watch)>,
    run: Symbol<'static, unsafe extern "C" fn(*mut c_void, c_int) -> c_int>,
}

extern "C" fn on_readable(_: c_int, _: c_short, bell: *mut c_void) {
    served(bell);
}

extern "C" fn on_timer(_: c_int, _: c_short, _: *mut c_void) {
    expired();
}

pub(super) fn open() -> anyhow::Result<Libevent> {
    let library = load(&["libevent-2.1.so.7", "libevent_core-2.1.so.7"])?;
    // SAFETY: the signatures are those of `event2/event.h`.
    unsafe {
        let new_base: Symbol<'_, unsafe extern "C" fn() -> *mut c_void> = library.get(b"event_base_new")?;
        Ok(Libevent {
            base: new_base(),
            new: library.get(b"event_new")?,
            add: library.get(b"event_add")?,
            del: library.get(b"event_del")?,
            free: library.get(b"event_free")?,
            run: library.get(b"event_base_loop")?,
        })
    }
}

pub(super) fn make() -> anyhow::Result<Box<dyn Loop>> {
    Ok(Box::new(open()?))
}

impl Loop for Libevent {
    fn watch(&mut self, fd: RawFd, bell: *mut c_void) -> Watch {
        // SAFETY: the base exists, and `bell` outlives the event.
        unsafe {
            let event = (self.new)(self.base, fd, READ | PERSIST, on_readable, bell);
            (self.add)(event, std::ptr::null());
            event
        }
    }

    fn unwatch(&mut self, watch: Watch) {
        // SAFETY: the event was made by `watch`, and is not used again.
        unsafe {
            (self.del)(watch);
            (self.free)(watch);
        }
    }

    fn iterate(&mut self, block: bool) {
        // SAFETY: the base exists.
        unsafe {
            (self.run)(self.base, if block { ONCE } else { NONBLOCK });
        }
    }
}

impl Timers for Libevent {
    fn make(&mut self) -> Watch {
        // SAFETY: the base exists; a timer is an event without a descriptor.
        unsafe { (self.new)(self.base, -1, 0, on_timer, std::ptr::null_mut()) }
    }

    fn arm(&mut self, timer: Watch, micros_from_now: u64) {
        let after = Timeval {
            seconds: (micros_from_now / 1_000_000) as c_long,
            micros: (micros_from_now % 1_000_000) as c_long,
        };
        // SAFETY: the timer was made by `make`.
        unsafe {
            (self.add)(timer, &raw const after);
        }
    }

    fn cancel(&mut self, timer: Watch) {
        // SAFETY: as above.
        unsafe {
            (self.del)(timer);
        }
    }

    fn free(&mut self, timer: Watch) {
        // SAFETY: as above, and it is not used again.
        unsafe {
            (self.free)(timer);
        }
    }
}
