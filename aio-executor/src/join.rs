//! [`JoinHandle`]: the result of a task, for any thread.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context as Polling, Poll, Wake, Waker};

use aio_context::{Gone, Remote};

use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, faulty};
use crate::waker::TaskWaker;

/// The reason why a task has no result. It converts into an [`io::Error`], so that `?` works.
///
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, RemoteExt};
///
/// # fn main() -> std::io::Result<()> {
/// let gone = Context::new()?.remote();
/// let why = gone.spawn(async {}).wait().unwrap_err();
/// assert_eq!(why.to_string(), "the context of the task was dropped before the task was done");
/// let why: std::io::Error = why.into();
/// assert_eq!(why.kind(), std::io::ErrorKind::Other);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub enum JoinError {
    /// The context was dropped before the task was done, and the task with it.
    Gone(Gone),
    /// The task was [cancelled](JoinHandle::cancel).
    Cancelled,
    /// The task panicked with this value.
    Panicked(PanicValue),
}

/// The value of a panic.
///
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, JoinError};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let outcome = cx.block_on(cx.spawn(async { panic!("out of luck") }))?;
/// let Err::<(), _>(JoinError::Panicked(value)) = outcome else { unreachable!() };
/// assert_eq!(value.to_string(), "out of luck");
/// // To go on panicking: `std::panic::resume_unwind(value.into_inner())`.
/// # Ok(()) }
/// ```
pub struct PanicValue(Box<std::sync::Mutex<Box<dyn Any + Send>>>);

impl PanicValue {
    pub(crate) fn new(value: Box<dyn Any + Send>) -> Self {
        // In a box, because every task has room for one.
        Self(Box::new(std::sync::Mutex::new(value)))
    }

    /// Returns the value that [`std::panic::catch_unwind`] would return.
    #[must_use]
    pub fn into_inner(self) -> Box<dyn Any + Send> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the text of the value, if it has one.
impl fmt::Display for PanicValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = value.downcast_ref::<&str>().copied();
        let text = text.or_else(|| value.downcast_ref::<String>().map(String::as_str));
        f.write_str(text.unwrap_or("a value that is no text"))
    }
}

impl fmt::Debug for PanicValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl From<JoinError> for io::Error {
    fn from(why: JoinError) -> Self {
        Self::other(why)
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(_) => f.write_str("the context of the task was dropped before the task was done"),
            Self::Cancelled => f.write_str("the task was cancelled"),
            Self::Panicked(value) => write!(f, "the task panicked: {value}"),
        }
    }
}

impl std::error::Error for JoinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Gone(why) => Some(why),
            Self::Cancelled | Self::Panicked(_) => None,
        }
    }
}

/// Owns a spawned task. Dropping it cancels the task; [`detach`](Self::detach) lets the task go on alone.
///
/// Awaiting it returns the result of the task. Any executor can await it, and any thread except the home
/// thread of the task can [wait](Self::wait) for it. It is `Send` if the result is.
///
/// The home thread drops a cancelled task in its next iteration: the task is not polled again, but a poll
/// that is running goes on until it returns.
///
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, JoinError, spawn};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let answer = cx.block_on(async {
///     let task = spawn(async { 6 * 7 });
///     task.await
/// })?;
/// assert!(matches!(answer, Ok(42)));
///
/// let failure = cx.block_on(cx.spawn(async { panic!("out of luck") }))?;
/// assert!(matches!(failure, Err::<(), _>(JoinError::Panicked(_))));
/// # Ok(()) }
/// ```
#[must_use = "dropped at once, the task is cancelled; await it or `detach()` it"]
pub struct JoinHandle<T> {
    /// `Some` until it is detached.
    join: Option<Arc<Join<T>>>,
}

/// The shared state of a task and its handle.
pub(crate) struct Join<T> {
    is_cancelled: AtomicBool,
    state: Mutex<State<T>>,
}

struct State<T> {
    result: Outcome<T>,
    task: Place,
    /// Woken when the result is there.
    joiner: Option<Waker>,
    /// Set while the handle exists, which needs the result.
    has_handle: bool,
}

enum Outcome<T> {
    Pending,
    Is(Result<T, JoinError>),
    Returned,
}

/// The place of a task.
enum Place {
    /// On its way to a context.
    Sent(Box<Remote>),
    /// Polled by the context that this waker wakes.
    At(Arc<TaskWaker>),
    /// Finished.
    Nowhere,
}

impl<T> Join<T> {
    /// Makes the state of a task that is sent to a context.
    pub(crate) fn sent(to: &Remote) -> Arc<Self> {
        Self::new(Place::Sent(Box::new(to.clone())))
    }

    /// Makes the state of a task that a context polls, which `waker` wakes.
    pub(crate) fn at(waker: Arc<TaskWaker>) -> Arc<Self> {
        Self::new(Place::At(waker))
    }

    fn new(task: Place) -> Arc<Self> {
        Arc::new(Self {
            is_cancelled: AtomicBool::new(false),
            state: Mutex::new(State {
                result: Outcome::Pending,
                task,
                joiner: None,
                has_handle: true,
            }),
        })
    }

    pub(crate) fn handle(self: Arc<Self>) -> JoinHandle<T> {
        JoinHandle { join: Some(self) }
    }

    /// Returns `true` if the result is there or was returned already.
    pub(crate) fn is_finished(&self) -> bool {
        self.with(|state| !matches!(state.result, Outcome::Pending))
    }

    fn with<R>(&self, change: impl FnOnce(&mut State<T>) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns `true` if the task must not be polled again. The wake that follows a cancellation releases it
    /// to the poll that it causes.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// Records that a context polls the task from now on. `waker` wakes that context.
    pub(crate) fn arrive(&self, waker: Arc<TaskWaker>) {
        let was = self.with(|state| mem::replace(&mut state.task, Place::At(waker)));
        drop(was);
    }

    /// Returns the waker with which the task arrived.
    pub(crate) fn task(&self) -> Option<Arc<TaskWaker>> {
        self.with(|state| match &state.task {
            Place::At(waker) => Some(waker.clone()),
            Place::Sent(_) | Place::Nowhere => None,
        })
    }

    /// Records that the task leaves for another context.
    pub(crate) fn leave(&self, to: &Remote) {
        let was = self.with(|state| mem::replace(&mut state.task, Place::Sent(Box::new(to.clone()))));
        drop(was);
    }

    /// Publishes the result, and wakes the joiner. Returns the result if there is no handle.
    #[inline]
    pub(crate) fn finish(&self, result: Result<T, JoinError>) -> Option<Result<T, JoinError>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.has_handle {
            return Some(result);
        }
        state.result = Outcome::Is(result);
        let task = mem::replace(&mut state.task, Place::Nowhere);
        let joiner = state.joiner.take();
        drop(state);
        if let Some(joiner) = joiner {
            faulty!(JoinerNotWoken, joiner.wake());
        }
        drop(task);
        None
    }

    /// Records that there is no handle any more, and drops the result. Returns whether the task was not done.
    fn detach(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.has_handle = false;
        let joiner = state.joiner.take();
        let is_pending = matches!(state.result, Outcome::Pending);
        if is_pending {
            drop(state);
        } else {
            let result = mem::replace(&mut state.result, Outcome::Returned);
            drop(state);
            drop(result); // outside the lock
        }
        drop(joiner);
        is_pending
    }

    /// Asks the home thread to drop the task.
    fn cancel(&self) {
        // The poll that the wake causes reads this. If the task is on its way, its first poll does.
        faulty!(WokenBeforeCancelled, self.is_cancelled.store(true, Ordering::Release); self.wake_task());
    }

    fn wake_task(&self) {
        if let Some(task) = self.task() {
            task.wake();
        }
    }
}

impl<T> JoinHandle<T> {
    /// Lets the task go on without a handle. Its result is dropped where it ends. If it panics, the context's
    /// [`poll`](aio_context::Context::poll) panics, as with any callback.
    pub fn detach(mut self) {
        if let Some(join) = self.join.take() {
            join.detach();
        }
    }

    fn join(&self) -> &Join<T> {
        let Some(join) = &self.join else {
            unreachable!("a handle that is detached is gone");
        };
        join
    }

    /// Cancels the task. Awaiting the handle afterwards waits until the task has been dropped, or returns its
    /// result if it was faster.
    ///
    /// ```
    /// use aio_context::Context;
    /// use aio_executor::{ContextExt, JoinError};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let cx = Context::new()?;
    /// let task = cx.spawn(std::future::pending::<()>());
    /// task.cancel();
    /// assert!(matches!(cx.block_on(task)?, Err(JoinError::Cancelled)));
    /// # Ok(()) }
    /// ```
    pub fn cancel(&self) {
        self.join().cancel();
    }

    /// Returns whether the task is done: awaiting the handle would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.join().is_finished()
    }

    /// Blocks this thread until the task is done.
    ///
    /// On a home thread, use [`block_on`](crate::ContextExt::block_on) instead, which lets the context go on.
    ///
    /// # Errors
    /// [`JoinError`], if the task has no result.
    ///
    /// # Panics
    /// On the home thread of the task, because the task could never finish.
    pub fn wait(mut self) -> Result<T, JoinError> {
        let is_at_home = self.join().with(|state| match &state.task {
            Place::Sent(to) => to.is_at_home(),
            Place::At(waker) => waker.is_at_home(),
            Place::Nowhere => false,
        });
        assert!(
            !is_at_home,
            "the home thread of a task cannot block until the task is done: use `Context::block_on`"
        );
        let parked = Arc::new(Parked {
            is_woken: Mutex::new(false),
            changed: Condvar::new(),
        });
        let waker = Waker::from(parked.clone());
        loop {
            if let Poll::Ready(result) = Pin::new(&mut self).poll(&mut Polling::from_waker(&waker)) {
                return result;
            }
            parked.park();
        }
    }
}

/// A thread that sleeps until it is woken.
struct Parked {
    is_woken: Mutex<bool>,
    changed: Condvar,
}

impl Parked {
    fn park(&self) {
        let mut is_woken = self.is_woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !mem::take(&mut *is_woken) {
            is_woken = self
                .changed
                .wait(is_woken)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If it is polled after it has returned the result.
    fn poll(self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<Self::Output> {
        let former = self.join().with(|state| {
            match mem::replace(&mut state.result, Outcome::Returned) {
                Outcome::Is(result) => return Ok(result),
                Outcome::Pending => state.result = Outcome::Pending,
                Outcome::Returned => panic!("a JoinHandle was polled after it had returned the result"),
            }
            let is_known = state
                .joiner
                .as_ref()
                .is_some_and(|joiner| joiner.will_wake(polling.waker()));
            Err((!is_known).then(|| state.joiner.replace(polling.waker().clone())))
        });
        match former {
            Ok(result) => Poll::Ready(result),
            Err(former) => {
                drop(former); // outside the lock
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(join) = &self.join
            && join.detach()
        {
            join.cancel();
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
