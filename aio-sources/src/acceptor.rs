//! [`Acceptor`]: the handler of a [`Listener`](crate::Listener)'s socket.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use aio_context::{Context, GroupId, Handler, Interest, Registration};

use crate::Accept;
use crate::accept::is_the_clients;

/// The number of clients that are accepted in a row, before other handlers run.
const BATCH: usize = 16;
/// The time for which no client is accepted after the system has refused one.
const PAUSE: Duration = Duration::from_millis(100);

/// The handler of a socket.
pub(crate) struct Acceptor<S, F> {
    socket: S,
    group: GroupId,
    serve: F,
    registration: Shared,
    /// Set if the system has refused since the last client was accepted.
    is_refused: Cell<bool>,
}

/// `None` after the listener is dropped.
pub(crate) type Shared = Rc<RefCell<Option<Registration>>>;

impl<S, F> Acceptor<S, F> {
    pub(crate) fn new(socket: S, group: GroupId, serve: F, registration: Shared) -> Self {
        Self {
            socket,
            group,
            serve,
            registration,
            is_refused: Cell::new(false),
        }
    }

    pub(crate) fn into_socket(self) -> S {
        self.socket
    }
}

impl<S: Accept, F: Fn(&Context, S::Client, S::Address) + 'static> Handler for Acceptor<S, F> {
    fn readable(&self, cx: &Context) {
        for _ in 0..BATCH {
            if self.registration.borrow().is_none() || cx.is_paused(self.group) {
                return;
            }
            match self.socket.accept() {
                Ok((client, address)) => {
                    self.is_refused.set(false);
                    (self.serve)(cx, client, address);
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Err(why) if is_the_clients(&why) => {}
                Err(why) => return self.pause(cx, &why),
            }
        }
    }
}

impl<S, F> Acceptor<S, F> {
    fn pause(&self, cx: &Context, why: &io::Error) {
        if !self.is_refused.replace(true) {
            tracing::warn!(error = %why, "cannot accept clients; trying again every {PAUSE:?}");
        }
        if set_interest(&self.registration, Interest::NONE) {
            resume_later(cx, Rc::downgrade(&self.registration));
        }
    }
}

fn resume_later(cx: &Context, registration: Weak<RefCell<Option<Registration>>>) {
    cx.after(PAUSE, move |cx| {
        if let Some(shared) = registration.upgrade()
            && !set_interest(&shared, Interest::READ)
        {
            resume_later(cx, registration);
        }
    });
}

/// Sets the interest. Returns `false` if that failed and must be tried again; `true` also if the registration
/// is gone.
fn set_interest(registration: &Shared, interest: Interest) -> bool {
    match registration
        .borrow()
        .as_ref()
        .map(|watched| watched.set_interest(interest))
    {
        Some(Err(why)) => why.kind() == ErrorKind::NotFound,
        Some(Ok(())) | None => true,
    }
}

impl<S: Accept, F> AsFd for Acceptor<S, F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
