//! [`Listener`]: accepts clients a few at a time, and survives when there is no descriptor left for one.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use aio_context::{Context, Handler, Interest, Registration};

use crate::accept::is_the_clients;
use crate::{Accept, AddError};

/// How many clients are accepted in a row: other handlers have their turn in between.
const BATCH: usize = 16;
/// How long no client is accepted after the system has refused one.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket whose clients are callbacks; dropping it closes the socket.
///
/// One iteration accepts 16 clients at most. If the system refuses to accept, because there is no descriptor or memory left, the
/// listener pauses for 100 ms instead of trying in vain: clients wait in the socket's queue meanwhile. A `tracing` warning
/// tells of the first refusal since a client was accepted.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use aio_context::{Context, Wait};
/// use aio_sources::Listener;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let socket = TcpListener::bind("127.0.0.1:0")?;
/// let address = socket.local_addr()?;
/// let _listener = Listener::new(&cx, socket, |_cx, _client, from| println!("{from} is here"))?;
/// let client = TcpStream::connect(address)?;
/// cx.poll(Wait::Block)?;
/// # drop(client); Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it accepts no client"]
pub struct Listener {
    /// Shared with the handler. Taken when the listener is dropped.
    registration: Shared,
}

impl Listener {
    /// Calls `serve` with each client, which is non-blocking, and its address. Makes the socket non-blocking.
    ///
    /// # Errors
    /// As [`Context::watch`]; the socket comes back in the error.
    pub fn new<S: Accept>(
        cx: &Context,
        socket: S,
        serve: impl Fn(&Context, S::Client, S::Address) + 'static,
    ) -> Result<Self, AddError<S>> {
        if let Err(why) = socket.set_nonblocking() {
            return Err(AddError::new(socket, why));
        }
        let registration = Rc::new(RefCell::new(None));
        let acceptor = Rc::new(Acceptor {
            socket,
            serve,
            registration: registration.clone(),
            is_refused: Cell::new(false),
        });
        let watched = cx.watch(acceptor, Interest::READ);
        let watched = watched.map_err(|refused| AddError::of(refused, |acceptor| acceptor.socket))?;
        registration.replace(Some(watched));
        Ok(Self { registration })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let registration = self.registration.take();
        drop(registration); // outside the borrow: it drops the callback
    }
}

/// The handler of a socket.
struct Acceptor<S, F> {
    socket: S,
    serve: F,
    registration: Shared,
    /// The system has refused since a client was accepted.
    is_refused: Cell<bool>,
}

/// `None` once the listener is dropped.
type Shared = Rc<RefCell<Option<Registration>>>;

impl<S: Accept, F: Fn(&Context, S::Client, S::Address) + 'static> Handler for Acceptor<S, F> {
    fn readable(&self, cx: &Context) {
        for _ in 0..BATCH {
            if self.registration.borrow().is_none() {
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

/// Returns whether it is done, or there is nothing left to do.
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
