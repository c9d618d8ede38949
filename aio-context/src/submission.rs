//! [`Context::submit`]: operations on the ring of the context (rule S1).
//!
//! The backend owns the operations and their buffers, and [`Callbacks`] are `aio-backend`'s. Here is the handler that calls them: the backend reports its
//! completions under a token of the registry, as the readiness of a descriptor. So they end a wait, are found while the loop polls, and are
//! delivered by nested polls, without a step of their own in an iteration.

use std::any::type_name;
use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use aio_backend::{CallbackId, Callbacks, Completed, Interest, NotSubmitted, Operation, Token};

use crate::Context;
use crate::context::{Inner, Mailbox};
use crate::handler::{Handler, New};
use crate::macros::{impl_as_fd, impl_debug};

/// Executes operations on files and brings their completions home: a [`Context`] on io_uring, or a pool of threads (`FileIo` in the crate
/// `aio-sources`).
///
/// ```
/// use std::{fs::File, io, sync::Arc};
/// use aio_context::{Context, Operation, Submit};
///
/// /// Prints the first bytes of a file, unless the handle is dropped before.
/// fn print_head<S: Submit>(to: &S, file: Arc<File>) -> io::Result<S::Handle> {
///     let head = Operation::read(file, 0, vec![0; 16]);
///     Ok(to.submit(head, |_cx, completed| println!("{:?}", completed.into_bytes()))?)
/// }
/// # let cx = Context::new()?;
/// # let _ = print_head(&cx, Arc::new(File::open("/proc/self/stat")?));
/// # Ok::<(), io::Error>(())
/// ```
pub trait Submit {
    /// What [`submit`](Self::submit) returns. Dropping it cancels the operation: its callback is dropped at once, its buffers when
    /// the system does not use them any more.
    type Handle: 'static;

    /// Submits an operation. `done` is called with it once it has ended, on the home thread of the context, inside a poll.
    ///
    /// # Errors
    /// The operation and the reason; `Unsupported` if this executes no operations of its kind. `done` is dropped.
    fn submit(
        &self,
        operation: Operation,
        done: impl FnOnce(&Context, Completed) + 'static,
    ) -> Result<Self::Handle, NotSubmitted>;
}

impl Submit for Context {
    type Handle = Submitted;

    fn submit(
        &self,
        operation: Operation,
        done: impl FnOnce(&Self, Completed) + 'static,
    ) -> Result<Submitted, NotSubmitted> {
        // The inherent function comes first.
        self.submit(operation, done)
    }
}

impl Context {
    /// Submits an operation on a file. `done` is called with it once it has ended, inside a poll of this context, also in a nested one.
    ///
    /// The next wait or check of the descriptors passes the operation to the system, with all others that were submitted before it, so
    /// this makes no system call. Operations run concurrently, and end in any order. The buffers belong to the operation until it has
    /// ended, and come back with it: see [`Completed`]. `done` may do anything, also poll and submit.
    ///
    /// An operation never blocks the loop. What has to wait is done by the kernel: for pipes and sockets until they are ready, for files
    /// on threads of the kernel.
    ///
    /// The handle cancels the operation when it is dropped. Its end makes [`poll`](Self::poll) return `true` all the same. When the
    /// context is dropped, it cancels its operations and drops their callbacks, and waits for a second at the most until the kernel has let
    /// go of their buffers; those that it still uses then are leaked.
    ///
    /// # Errors
    /// The operation and the reason. `Unsupported` unless the context is on io_uring: see [`BackendKind::Uring`](crate::BackendKind), and
    /// `FileIo` in the crate `aio-sources`, which then takes a pool of threads.
    ///
    /// ```
    /// use std::{cell::Cell, fs::File, rc::Rc, sync::Arc};
    /// use aio_context::{Context, Operation, Wait};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # #[cfg(feature = "uring")] {
    /// let cx = Context::builder().backend_kind(aio_context::BackendKind::Uring).build()?;
    /// let file = Arc::new(File::open("/proc/self/stat")?);
    /// let bytes = Rc::new(Cell::new(None));
    /// let seen = bytes.clone();
    /// let read = cx.submit(Operation::read(file, 0, vec![0; 4096]), move |_cx, completed| {
    ///     seen.set(completed.into_bytes().ok());
    /// });
    /// match read {
    ///     Ok(submitted) => submitted.detach(),
    ///     Err(refused) => return Ok(println!("skipped: {refused}")),
    /// }
    /// cx.poll(Wait::Block)?;
    /// assert!(bytes.take().is_some_and(|bytes| !bytes.is_empty()));
    /// # }
    /// # Ok(()) }
    /// ```
    pub fn submit<F>(&self, operation: Operation, done: F) -> Result<Submitted, NotSubmitted>
    where
        F: FnOnce(&Self, Completed) + 'static,
    {
        let submissions = self.extension(|cx| Submissions::new(cx.0.mailbox.clone()));
        let Some(report) = self.report_token(&submissions) else {
            let why = std::io::ErrorKind::OutOfMemory;
            return Err(NotSubmitted::new(operation, why.into()));
        };
        let submitted = self.0.descriptors.backend.borrow_mut().submit(report, operation);
        match submitted {
            Ok(id) => {
                let reasons = &self.0.skips_spin;
                reasons.set(reasons.get() | SUBMITTED);
                let done: Done = (Box::new(done), type_name::<F>());
                Ok(Submitted {
                    context: Rc::downgrade(&self.0),
                    submissions: Rc::downgrade(&submissions),
                    callback: submissions.callbacks.insert(id, done),
                })
            }
            Err(refused) => {
                self.forget_report(&submissions);
                Err(refused)
            }
        }
    }

    /// Sets whether the next wait begins at once. Otherwise a loop that has just served an event checks its descriptors for a moment before
    /// it sleeps. Pass `true` after giving work to a thread, which may need the loop's core, and `false` when its result is there.
    ///
    /// Polling of handlers goes on as before.
    ///
    /// ```
    /// use aio_context::{Context, Wait};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let cx = Context::new()?;
    /// let (send, receive) = std::sync::mpsc::channel();
    /// let remote = cx.remote();
    /// let worker = std::thread::spawn(move || {
    ///     let sum = receive.iter().sum::<u32>();
    ///     remote.run(move |_cx| assert_eq!(sum, 3))
    /// });
    /// send.send(3).unwrap();
    /// drop(send);
    /// cx.skip_spin(true);
    /// cx.poll(Wait::Block)?;
    /// # worker.join().unwrap().unwrap(); Ok(()) }
    /// ```
    #[inline]
    pub fn skip_spin(&self, skips: bool) {
        let reasons = &self.0.skips_spin;
        reasons.set(if skips {
            reasons.get() | ASKED
        } else {
            reasons.get() & !ASKED
        });
    }

    /// Returns the number of operations whose callback was neither called nor dropped.
    #[must_use]
    pub fn operations_in_flight(&self) -> usize {
        let submissions = self.0.extensions.get::<Submissions>();
        submissions.map_or(0, |submissions| submissions.callbacks.waiting())
    }

    /// Returns the token under which the backend reports completions.
    fn report_token(&self, submissions: &Rc<Submissions>) -> Option<Token> {
        if let Some(token) = submissions.report.get() {
            return Some(token);
        }
        let group = self.new_group();
        let entry = New::plain(submissions.clone()).entry;
        let mut registry = self.0.descriptors.registry.borrow_mut();
        let token = registry.insert(None, entry, Interest::READ, group).ok();
        submissions.report.set(token);
        token
    }

    /// Returns the token under which the backend reports completions, if operations were submitted.
    pub(crate) fn report_of_operations(&self) -> Option<Token> {
        self.0.extensions.get::<Submissions>()?.report.get()
    }

    /// The backend has refused an operation. If it never accepted one, no handler is needed.
    #[cold]
    fn forget_report(&self, submissions: &Submissions) {
        if submissions.callbacks.submitted() > 0 {
            return;
        }
        let Some(token) = submissions.report.take() else {
            return;
        };
        let entry = self.0.descriptors.registry.borrow_mut().remove(token);
        drop(entry);
    }

    /// Delivers what a backend has given back that is replaced by another one.
    #[cold]
    pub(crate) fn deliver_ended(&self, ended: Vec<(Token, Completed)>) {
        let Some(submissions) = self.0.extensions.get::<Submissions>() else {
            return;
        };
        for (id, completed) in ended {
            let submissions = Rc::downgrade(&submissions);
            self.defer(move |cx| {
                if let Some(submissions) = submissions.upgrade() {
                    submissions.deliver(cx, id, completed);
                }
            });
        }
    }
}

/// Operations were submitted: the next wait passes to the system those that no check has passed.
const SUBMITTED: u8 = 1;
/// See [`Context::skip_spin`].
const ASKED: u8 = 2;

/// A callback, and its type for messages.
type Done = (Box<dyn FnOnce(&Context, Completed)>, &'static str);

/// The callbacks of all operations. It is the handler of completions.
pub(crate) struct Submissions {
    /// Has a descriptor, as handlers have. It is not watched for this one.
    mailbox: Arc<Mailbox>,
    report: Cell<Option<Token>>,
    callbacks: Callbacks<Done>,
}

impl Submissions {
    fn new(mailbox: Arc<Mailbox>) -> Self {
        Self {
            mailbox,
            report: Cell::new(None),
            callbacks: Callbacks::new(),
        }
    }

    /// Calls the callback of an operation that has ended.
    fn deliver(&self, cx: &Context, id: Token, completed: Completed) {
        let Some((done, name)) = self.callbacks.end(id) else {
            // Its owner may use the context.
            return cx.call(|_| drop(completed));
        };
        if cx.0.metrics.slow.is_set() {
            cx.call_timed("completion", name, |cx| done(cx, completed));
        } else {
            cx.call(|cx| done(cx, completed));
        }
    }
}

impl_as_fd!(Submissions, mailbox);

impl Handler for Submissions {
    /// Delivers all that have ended by now. If a callback panics, the next wait reports the rest.
    fn readable(&self, cx: &Context) {
        let next = || cx.0.descriptors.backend.borrow_mut().next_completed();
        while let Some((id, completed)) = next() {
            self.deliver(cx, id, completed);
        }
    }
}

/// An operation that was submitted; dropping it cancels the operation.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use aio_context::{Context, Operation, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// # #[cfg(feature = "uring")] {
/// let cx = Context::builder().backend_kind(aio_context::BackendKind::Uring).build()?;
/// let (reader, _writer) = std::io::pipe()?;
/// let never = Operation::read(Arc::new(reader), None, vec![0; 1]);
/// let Ok(submitted) = cx.submit(never, |_cx, _completed| unreachable!("it is cancelled")) else {
///     return Ok(println!("skipped: no io_uring"));
/// };
/// assert!(!submitted.is_done());
/// drop(submitted);
/// cx.poll(Wait::NoBlock)?;
/// # }
/// # Ok(()) }
/// ```
#[must_use = "dropped at once, it cancels the operation; keep it or `detach()` it"]
pub struct Submitted {
    /// Dangling if it was detached.
    context: Weak<Inner>,
    submissions: Weak<Submissions>,
    callback: CallbackId,
}

impl Submitted {
    /// Lets the operation go on without this handle. Its callback is called.
    pub fn detach(mut self) {
        self.context = Weak::new();
    }

    /// Asks the system to cancel the operation. Its callback is called with what has become of it: `ECANCELED`, or its result if it has
    /// ended meanwhile or could not be cancelled. Without effect once it was called.
    pub fn cancel(&self) {
        if let Some((cx, _)) = self.parts().filter(|_| !self.is_done()) {
            cx.0.descriptors
                .backend
                .borrow_mut()
                .cancel(self.callback.operation());
        }
    }

    /// Whether the callback was called, or dropped with its context.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let submissions = self.submissions.upgrade();
        submissions.is_none_or(|submissions| !submissions.callbacks.is_waiting(self.callback))
    }

    fn parts(&self) -> Option<(Context, Rc<Submissions>)> {
        Some((Context(self.context.upgrade()?), self.submissions.upgrade()?))
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        // The operations of a parent process are not this one's to cancel.
        let Some((cx, submissions)) = self.parts().filter(|(cx, _)| cx.0.mailbox.process().is_here()) else {
            return;
        };
        if let Some(done) = submissions.callbacks.abandon(self.callback) {
            cx.0.descriptors
                .backend
                .borrow_mut()
                .cancel(self.callback.operation());
            cx.call(|_| drop(done));
        }
    }
}

impl_debug!(Submitted, "Submitted": |it| id = it.callback.operation(), is_done = it.is_done());
