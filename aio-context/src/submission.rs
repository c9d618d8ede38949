//! [`Submit`] for a [`Context`]: operations on the ring of the context (rule S1).
//!
//! The backend owns the operations and their buffers, and [`Submissions`] of `aio-backend` has the callbacks.
//! This module has the handler that calls them. The backend reports completions under a token of the
//! registry, as the readiness of a descriptor. So they end a wait, are found while the loop polls, and are
//! delivered by nested polls, without a step of their own in an iteration.

use std::any::type_name;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use aio_backend::{CallbackId, Completed, Interest, NotSubmitted, Operation, Submissions, Token};
use aio_handlers::GroupId;
use aio_pollctl::SkipSpin;

use crate::Context;
use crate::context::{Mailbox, WeakContext};
use crate::handler::{Entry, Handler};
use crate::macros::{impl_as_fd, impl_debug};

/// An executor of operations on files, which calls back with their completions: a [`Context`] on io_uring, or
/// a pool of threads (`FileIo` in the crate `aio-sources`).
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
    /// The handle of a submitted operation. Dropping it cancels the operation: its callback is dropped at
    /// once, its buffers when the system does not use them any more.
    type Handle: 'static;

    /// Submits an operation. `done` is called with the completion once the operation has ended, on the home
    /// thread of the context, inside a poll.
    ///
    /// # Errors
    /// The operation and the reason; `Unsupported` for operations of a kind that this executor does not
    /// support. `done` is dropped.
    fn submit<F>(&self, operation: Operation, done: F) -> Result<Self::Handle, NotSubmitted>
    where
        F: FnOnce(&Context, Completed) + 'static;
}

impl Submit for Context {
    type Handle = Submitted;

    /// Submits an operation on a file. `done` is called with the completion once the operation has ended,
    /// inside a poll of this context, possibly a nested one.
    ///
    /// The next wait or check of the descriptors passes the operation to the system, with all others that
    /// were submitted before it, so this makes no system call. Operations run concurrently, and end in any
    /// order. The buffers belong to the operation until it has ended, and come back with it: see
    /// [`Completed`]. `done` may do anything, including poll and submit.
    ///
    /// An operation never blocks the loop. The kernel does the waiting: for pipes and sockets until they are
    /// ready, for files on threads of the kernel.
    ///
    /// Dropping the handle cancels the operation. Its end makes [`poll`](Self::poll) return `true` all the
    /// same. When the context is dropped, it cancels its operations and drops their callbacks, and waits for
    /// up to a second until the kernel has released their buffers. Buffers that the kernel still uses then
    /// are leaked.
    ///
    /// # Errors
    /// The operation and the reason. `Unsupported` unless the context is on io_uring: see
    /// [`BackendKind::Uring`](crate::BackendKind), and `FileIo` in the crate `aio-sources`, which then uses a
    /// pool of threads.
    ///
    /// ```
    /// use std::{cell::Cell, fs::File, rc::Rc, sync::Arc};
    /// use aio_context::{Context, Operation, Submit, Wait};
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
    fn submit<F>(&self, operation: Operation, done: F) -> Result<Submitted, NotSubmitted>
    where
        F: FnOnce(&Self, Completed) + 'static,
    {
        let completions = self.extension(|cx| Completions {
            mailbox: cx.0.mailbox.clone(),
            group: cx.new_group(),
            submissions: Submissions::new(),
        });
        let inner = &self.0;
        let reserve = || {
            let entry = Entry::from(completions.clone());
            let reserved = inner.enroll(None, entry, Interest::READ, completions.group);
            reserved.ok()
        };
        let release = |token| {
            let entry = inner.descriptors.registry.borrow_mut().remove(token);
            drop(entry);
        };
        let done: Done = (Box::new(done), type_name::<F>());
        let (submissions, backend) = (&completions.submissions, &inner.descriptors.backend);
        let callback = submissions.submit(backend, operation, done, reserve, release)?;
        inner.pacing.skip_spin(SkipSpin::Operations, true);
        Ok(Submitted {
            context: self.downgrade(),
            callback,
        })
    }
}

impl Context {
    /// Sets whether the next wait begins at once. Otherwise a loop that has just served an event checks its
    /// descriptors for a moment before it sleeps. Pass `true` after giving work to a thread that may need the
    /// loop's core, and `false` once its result has arrived.
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
        self.0.pacing.skip_spin(SkipSpin::Workers, skips);
    }

    /// Returns the number of operations whose callback was neither called nor dropped.
    #[must_use]
    pub fn operations_in_flight(&self) -> usize {
        self.completions()
            .map_or(0, |all| all.submissions.callbacks().waiting())
    }

    /// Returns the token under which the backend reports completions, if operations were submitted.
    pub(crate) fn report_of_operations(&self) -> Option<Token> {
        self.completions()?.submissions.report()
    }

    /// Returns the operations, if any were submitted.
    fn completions(&self) -> Option<Rc<Completions>> {
        self.0.extensions.get()
    }

    /// Delivers the completions that a backend has returned because another one replaces it.
    #[cold]
    pub(crate) fn deliver_ended(&self, ended: Vec<(Token, Completed)>) {
        for (id, completed) in ended {
            self.defer(move |cx| {
                let completions = cx.completions();
                let done = completions.and_then(|all| all.submissions.callbacks().end(id));
                cx.deliver_completed(done, completed);
            });
        }
    }

    /// Calls the callback of an operation that has ended.
    fn deliver_completed(&self, done: Option<Done>, completed: Completed) {
        match done {
            // The owner of the buffers or of the file may use the context when it is dropped.
            None => self.call(|_| drop(completed)),
            Some((done, name)) => self.call_named("completion", || name, |cx| done(cx, completed)),
        }
    }
}

/// A callback, and its type for messages.
type Done = (Box<dyn FnOnce(&Context, Completed)>, &'static str);

/// The operations of a context. It is the handler of completions.
struct Completions {
    /// The descriptor that a handler must have. The backend does not watch it for this handler.
    mailbox: Arc<Mailbox>,
    /// The group that no pause affects.
    group: GroupId,
    submissions: Submissions<Done>,
}

impl_as_fd!(Completions, mailbox);

impl Handler for Completions {
    /// Delivers all operations that have ended by now. If a callback panics, the next wait reports the
    /// remaining ones.
    fn readable(&self, cx: &Context) {
        let next = || self.submissions.next_ended(&cx.0.descriptors.backend);
        while let Some((done, completed)) = next() {
            cx.deliver_completed(done, completed);
        }
    }
}

/// An operation that was submitted; dropping it cancels the operation.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use aio_context::{Context, Operation, Submit, Wait};
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
    context: WeakContext,
    callback: CallbackId,
}

impl Submitted {
    /// Lets the operation go on without this handle. Its callback is called.
    pub fn detach(mut self) {
        self.context = WeakContext(Weak::new());
    }

    /// Tells the system to cancel the operation. Its callback is called with the outcome: `ECANCELED`, or the
    /// operation's result if it has ended meanwhile or could not be cancelled. Has no effect once the
    /// callback was called.
    pub fn cancel(&self) {
        if let Some(cx) = self.context.upgrade()
            && let Some(completions) = cx.completions()
        {
            let backend = &cx.0.descriptors.backend;
            completions.submissions.cancel(backend, self.callback);
        }
    }

    /// Returns `true` if the callback was called, or dropped with its context.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let completions = self.context.upgrade().and_then(|cx| cx.completions());
        completions.is_none_or(|all| !all.submissions.callbacks().is_waiting(self.callback))
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        // A forked child must not cancel the operations of its parent.
        if let Some(cx) = self.context.upgrade_at_home()
            && let Some(completions) = cx.completions()
        {
            let backend = &cx.0.descriptors.backend;
            let done = completions.submissions.abandon(backend, self.callback);
            cx.call(|_| drop(done));
        }
    }
}

impl_debug!(Submitted, "Submitted": |it| id = it.callback.operation(), is_done = it.is_done());
