//! libev 4.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::RawFd;

use libloading::Symbol;

use super::library::{Loop, Timers, Watch, expired, load, served};
use crate::case::{Run, timed};

const READ: c_int = 1;
/// The flag that `ev_io_init` sets for a descriptor that is new to the loop.
const IS_NEW: c_int = 0x80;
const NOWAIT: c_int = 1;
const ONCE: c_int = 2;

/// `ev_io`, with the common part of a watcher in the default form of `ev.h`.
#[repr(C)]
struct Io {
    active: c_int,
    pending: c_int,
    priority: c_int,
    data: *mut c_void,
    callback: extern "C" fn(*mut c_void, *mut Io, c_int),
    next: *mut c_void,
    fd: c_int,
    events: c_int,
}

/// `ev_timer`, in the same form.
#[repr(C)]
struct Timer {
    active: c_int,
    pending: c_int,
    priority: c_int,
    data: *mut c_void,
    callback: extern "C" fn(*mut c_void, *mut Timer, c_int),
    at: f64,
    repeat: f64,
}

pub(super) struct Libev {
    it: *mut c_void,
    start: Symbol<'static, unsafe extern "C" fn(*mut c_void, *mut Io)>,
    stop: Symbol<'static, unsafe extern "C" fn(*mut c_void, *mut Io)>,
    run: Symbol<'static, unsafe extern "C" fn(*mut c_void, c_int) -> c_int>,
    start_timer: Symbol<'static, unsafe extern "C" fn(*mut c_void, *mut Timer)>,
    again: Symbol<'static, unsafe extern "C" fn(*mut c_void, *mut Timer)>,
    stop_timer: Symbol<'static, unsafe extern "C" fn(*mut c_void, *mut Timer)>,
}

extern "C" fn on_timer(_: *mut c_void, _: *mut Timer, _: c_int) {
    expired();
}

extern "C" fn on_readable(_: *mut c_void, watcher: *mut Io, _: c_int) {
    // SAFETY: libev passes the watcher that was started.
    served(unsafe { (*watcher).data });
}

pub(super) fn open() -> anyhow::Result<Libev> {
    let library = load(&["libev.so.4"])?;
    // SAFETY: the signatures are those of `ev.h`.
    unsafe {
        let new: Symbol<'_, unsafe extern "C" fn(c_uint) -> *mut c_void> = library.get(b"ev_loop_new")?;
        Ok(Libev {
            it: new(0),
            start: library.get(b"ev_io_start")?,
            stop: library.get(b"ev_io_stop")?,
            run: library.get(b"ev_run")?,
            start_timer: library.get(b"ev_timer_start")?,
            again: library.get(b"ev_timer_again")?,
            stop_timer: library.get(b"ev_timer_stop")?,
        })
    }
}

pub(super) fn make() -> anyhow::Result<Box<dyn Loop>> {
    Ok(Box::new(open()?))
}

impl Loop for Libev {
    fn watch(&mut self, fd: RawFd, bell: *mut c_void) -> Watch {
        // Never freed: the loop keeps pointers to it.
        let watcher = Box::into_raw(Box::new(Io {
            active: 0,
            pending: 0,
            priority: 0,
            data: bell,
            callback: on_readable,
            next: std::ptr::null_mut(),
            fd,
            events: READ | IS_NEW,
        }));
        // SAFETY: the watcher is initialised, and never freed.
        unsafe {
            (self.start)(self.it, watcher);
        }
        watcher.cast()
    }

    fn unwatch(&mut self, watch: Watch) {
        // SAFETY: the watcher was made by `watch`.
        unsafe {
            (self.stop)(self.it, watch.cast());
        }
    }

    fn iterate(&mut self, block: bool) {
        // SAFETY: the loop exists.
        unsafe {
            (self.run)(self.it, if block { ONCE } else { NOWAIT });
        }
    }
}

impl Timers for Libev {
    fn make(&mut self) -> Watch {
        let timer = Timer {
            active: 0,
            pending: 0,
            priority: 0,
            data: std::ptr::null_mut(),
            callback: on_timer,
            at: 0.0,
            repeat: 0.0,
        };
        Box::into_raw(Box::new(timer)).cast()
    }

    fn arm(&mut self, timer: Watch, micros_from_now: u64) {
        let timer: *mut Timer = timer.cast();
        // SAFETY: the timer was made by `make`.
        unsafe {
            (*timer).repeat = micros_from_now as f64 / 1e6;
            if micros_from_now == 0 {
                (*timer).at = -1.0;
                (self.start_timer)(self.it, timer);
            } else {
                // Starts an inactive timer, and moves an active one.
                (self.again)(self.it, timer);
            }
        }
    }

    fn cancel(&mut self, timer: Watch) {
        // SAFETY: as above.
        unsafe {
            (self.stop_timer)(self.it, timer.cast());
        }
    }

    fn free(&mut self, timer: Watch) {
        // SAFETY: as above; the timer is not active, so the loop has no pointer to it, and it is not used
        // again.
        unsafe {
            drop(Box::from_raw(timer.cast::<Timer>()));
        }
    }
}

/// `ev_async`.
#[repr(C)]
struct Async {
    active: c_int,
    pending: c_int,
    priority: c_int,
    data: *mut c_void,
    callback: extern "C" fn(*mut c_void, *mut Async, c_int),
    sent: c_int,
}

extern "C" fn on_async(_: *mut c_void, watcher: *mut Async, _: c_int) {
    // SAFETY: libev passes the watcher that was started; its data is the counter below, which is never freed.
    let count = unsafe { &*(*watcher).data.cast::<Cell<u64>>() };
    count.set(count.get() + 1);
}

/// Watchers whose callbacks any thread can request, a batch at a time.
pub(super) fn deferred(batch: u64) -> anyhow::Result<Run> {
    type Call = Symbol<'static, unsafe extern "C" fn(*mut c_void, *mut Async)>;
    let library = load(&["libev.so.4"])?;
    // SAFETY: the signatures are those of `ev.h`.
    let (it, start, send, run): (
        _,
        Call,
        Call,
        Symbol<'_, unsafe extern "C" fn(*mut c_void, c_int) -> c_int>,
    ) = unsafe {
        let new: Symbol<'_, unsafe extern "C" fn(c_uint) -> *mut c_void> = library.get(b"ev_loop_new")?;
        (
            new(0),
            library.get(b"ev_async_start")?,
            library.get(b"ev_async_send")?,
            library.get(b"ev_run")?,
        )
    };
    let count: &'static Cell<u64> = Box::leak(Box::new(Cell::new(0)));
    let watcher = || {
        // Never freed: the loop keeps pointers to it.
        let watcher = Box::into_raw(Box::new(Async {
            active: 0,
            pending: 0,
            priority: 0,
            data: std::ptr::from_ref(count).cast_mut().cast(),
            callback: on_async,
            sent: 0,
        }));
        // SAFETY: the watcher is initialised, and never freed.
        unsafe {
            start(it, watcher);
        }
        watcher
    };
    let watchers: Vec<*mut Async> = (0..batch).map(|_| watcher()).collect();
    Ok(Box::new(move |times| {
        let before = count.get();
        let took = timed(times, || {
            // SAFETY: the loop and the watchers exist.
            unsafe {
                watchers.iter().for_each(|watcher| send(it, *watcher));
                run(it, NOWAIT);
            }
        });
        assert_eq!(count.get() - before, times * batch);
        took
    }))
}
