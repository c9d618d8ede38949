//! [`watch_main_context`]: a main context of GLib inside a context. All of the crate's `unsafe` code for main contexts is here.
//!
//! A turn follows GLib's documentation: prepare, query, wait, check, dispatch. The descriptors that a query
//! returns are the members of an epoll set, for which the context waits.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Handler, Interest, Registration, Timer};
use glib::translate::{FromGlib, ToGlibPtr};
use glib::{MainContext, ffi};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::panics::resuming;

/// Makes a context serve a GLib main context: its sources run while `cx` is polled on this thread.
///
/// Make the main context with `MainContextFlags::OWNERLESS_POLLING`. The default main context lacks that flag. Without it, GLib does not
/// wake the context for a timeout or an idle source that is attached on this thread outside of GLib's callbacks; call
/// [`MainContext::wakeup`] after that.
///
/// This thread owns the main context while its sources run, but not in between. No other thread should run
/// it.
///
/// The registration keeps the main context. Its removal ends the service.
///
/// ```
/// use aio_context::{Context, Wait};
/// use glib::{MainContext, MainContextFlags};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let main = MainContext::with_flags(MainContextFlags::OWNERLESS_POLLING);
/// let _inside = aio_glib::watch_main_context(&cx, &main)?;
/// let done = std::rc::Rc::new(std::cell::Cell::new(false));
/// let sets = done.clone();
/// main.spawn_local(async move {
///     glib::timeout_future(std::time::Duration::from_millis(1)).await;
///     sets.set(true);
/// });
/// while !done.get() {
///     cx.poll(Wait::Block)?;
/// }
/// # Ok(()) }
/// ```
///
/// If a descriptor of a source cannot be watched, for example because the main context serves `cx` itself,
/// the main context is served again and again without sleep. One `tracing` event reports this.
///
/// # Errors
/// The error of the system for one more epoll set; `WouldBlock` if another thread owns the main context; as
/// [`Context::watch`].
pub fn watch_main_context(cx: &Context, main: &MainContext) -> io::Result<Registration> {
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    let wakes = main.clone();
    let inside = Rc::new(Inside {
        main: main.clone(),
        set,
        asked: RefCell::new(None),
        members: RefCell::default(),
        // The descriptor becomes readable, so that a paused registration is served when it is resumed.
        deadline: cx
            .timer(ClockId::Monotonic, move |_, _| wakes.wakeup())
            .disarmed(),
        has_complained: Cell::new(false),
        has_unwatched: Cell::new(false),
    });
    let owner = main.acquire().map_err(|why| {
        let why = format!("{why}: run it on one thread only");
        io::Error::new(io::ErrorKind::WouldBlock, why)
    })?;
    let registration = cx.watch(inside.clone(), Interest::READ)?;
    inside.ask();
    drop(owner);
    Ok(registration)
}

/// The handler of a main context.
struct Inside {
    main: MainContext,
    /// The descriptors that GLib waits for, as one set.
    set: OwnedFd,
    /// The result of the last query, until it is checked.
    asked: RefCell<Option<Asked>>,
    /// The numbers in the set.
    members: RefCell<Vec<RawFd>>,
    /// Ends the wait of the context when GLib's timeout has passed.
    deadline: Timer,
    has_complained: Cell<bool>,
    /// Set once a descriptor that could not be watched was logged.
    has_unwatched: Cell<bool>,
}

/// The result of a query: the descriptors that GLib waits for, and a priority.
struct Asked {
    max_priority: c_int,
    fds: Vec<ffi::GPollFD>,
}

impl Inside {
    fn serve(&self) {
        let Ok(_owner) = self.main.acquire() else {
            if !self.has_complained.replace(true) {
                tracing::error!(
                    "another thread runs a GLib main context that a context serves; its sources wait meanwhile"
                );
            }
            return;
        };
        resuming(|| {
            // There is none inside a callback of GLib.
            let asked = self.asked.take();
            let mut asked = asked.unwrap_or_else(|| Asked::query(&self.main).0);
            if asked.check(&self.main) {
                self.main.dispatch();
            }
            self.ask();
        });
    }

    /// Queries GLib's descriptors and timeout, and waits for them.
    fn ask(&self) {
        let (asked, timeout) = Asked::query(&self.main);
        let watched = self.watch(&asked.fds);
        self.asked.replace(Some(asked));
        match u64::try_from(timeout) {
            _ if watched.is_err() => self.deadline.arm_after(Duration::ZERO),
            Ok(ms) => self.deadline.arm_after(Duration::from_millis(ms)),
            Err(_) => self.deadline.cancel(),
        }
        // A file (`EPERM`) is always ready. Any other error keeps the context from sleeping.
        if let Err(error) = watched
            && error != Errno::PERM
            && !self.has_unwatched.replace(true)
        {
            let error = io::Error::from(error);
            tracing::error!(
                %error,
                "cannot wait for a descriptor of a GLib source, so its main context is served again and again"
            );
        }
    }

    /// Makes these descriptors the members of the set. Returns the first error of those that cannot be watched.
    fn watch(&self, fds: &[ffi::GPollFD]) -> Result<(), Errno> {
        let mut members = self.members.borrow_mut();
        for &number in members.iter() {
            if !fds.iter().any(|wanted| wanted.fd == number) {
                // A closed descriptor has left the set already.
                let _ = epoll::delete(&self.set, borrow(number));
            }
        }
        members.clear();
        let mut all_watched = Ok(());
        for wanted in fds {
            members.push(wanted.fd);
            let (data, flags) = (
                EventData::new_u64(0),
                EventFlags::from_bits_truncate(wanted.events.into()),
            );
            // A number may mean another file than in the last turn, which is then not in the set.
            let mut watched = epoll::modify(&self.set, borrow(wanted.fd), data, flags);
            if watched == Err(Errno::NOENT) {
                watched = epoll::add(&self.set, borrow(wanted.fd), data, flags);
            }
            all_watched = all_watched.and(watched);
        }
        all_watched
    }
}

/// Borrows a descriptor of a GLib source.
fn borrow<'a>(number: RawFd) -> BorrowedFd<'a> {
    // SAFETY: its source keeps it open while it is attached, because GLib's own poll needs that. It is only
    // passed to `epoll_ctl`, which reads, writes and closes nothing, and returns an error if the number is
    // closed all the same.
    unsafe { BorrowedFd::borrow_raw(number) }
}

impl Asked {
    /// Returns GLib's descriptors, and its timeout in milliseconds; less than 0 is for ever. The caller owns
    /// the main context.
    fn query(main: &MainContext) -> (Self, c_int) {
        let (mut max_priority, mut timeout) = (0, -1);
        let mut fds: Vec<ffi::GPollFD> = Vec::with_capacity(8);
        // SAFETY: the main context lives, and is owned by this thread. GLib writes the two integers, and at
        // most as many entries as there is room for; it returns their number.
        unsafe {
            let main = main.to_glib_none().0;
            ffi::g_main_context_prepare(main, &raw mut max_priority);
            loop {
                let room = c_int::try_from(fds.capacity()).unwrap_or(c_int::MAX);
                let found =
                    ffi::g_main_context_query(main, max_priority, &raw mut timeout, fds.as_mut_ptr(), room);
                let count = usize::try_from(found).unwrap_or(0);
                if count <= fds.capacity() {
                    fds.set_len(count);
                    break;
                }
                fds.reserve(count);
            }
        }
        (Self { max_priority, fds }, timeout)
    }

    /// Returns whether a source is to be dispatched. The caller owns the main context.
    fn check(&mut self, main: &MainContext) -> bool {
        let fds = self.fds.as_mut_ptr();
        // SAFETY: the main context lives, and is owned by this thread. Both functions get the number of the
        // entries. The first one fills in the readiness, without waiting, and the second one reads it.
        unsafe {
            let count = u32::try_from(self.fds.len()).unwrap_or(0);
            ffi::g_poll(fds, count, 0);
            let is_ready = ffi::g_main_context_check(
                main.to_glib_none().0,
                self.max_priority,
                fds,
                c_int::try_from(count).unwrap_or(0),
            );
            bool::from_glib(is_ready)
        }
    }
}

impl AsFd for Inside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

impl Handler for Inside {
    fn readable(&self, _: &Context) {
        self.serve();
    }
}
