//! A future on its way to a context: it is spawned from another thread, or moves.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use aio_context::{Context, Gone, Remote};

use crate::current::current;
use crate::join::{Join, JoinError, JoinHandle};
use crate::sync::Mutex;
use crate::task::install;

/// Sends a future to another context; gives it back if that context is gone.
pub(crate) type Depart<F> =
    fn(Pin<Box<F>>, Arc<Join<<F as Future>::Output>>, &Remote) -> Result<(), Pin<Box<F>>>;

/// Spawns a future on another context.
pub(crate) fn send<F>(to: &Remote, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let join = Join::sent(to);
    let parcel = Parcel::new(Box::pin(future), join.clone());
    let sent = to.run(move |cx| parcel.unpack(|future, join| install(cx, future, join, Some(depart))));
    give_handle(join, sent)
}

/// Makes a future on another context, where it stays.
pub(crate) fn send_maker<M, F>(to: &Remote, make: M) -> JoinHandle<F::Output>
where
    M: FnOnce(&Context) -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send,
{
    let join = Join::sent(to);
    let parcel = Parcel::new(make, join.clone());
    let sent = to.run(move |cx| {
        parcel.unpack(|make, join| {
            let future = async move { make(&current()).await };
            install(cx, Box::pin(future), join, None);
        });
    });
    give_handle(join, sent)
}

fn give_handle<T>(join: Arc<Join<T>>, sent: Result<(), Gone>) -> JoinHandle<T> {
    if let Err(why) = sent {
        // The parcel has told the joiner already, but did not know why.
        drop(join.finish(Err(JoinError::Gone(why))));
    }
    join.handle()
}

/// A [`Depart`].
fn depart<F>(future: Pin<Box<F>>, join: Arc<Join<F::Output>>, to: &Remote) -> Result<(), Pin<Box<F>>>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let here = join.task();
    join.leave(to);
    // A context that is gone drops what it is sent: so what it is sent does not own the parcel alone.
    let parcel = Arc::new(Mutex::new(Some(Parcel::new(future, join.clone()))));
    let take =
        |shared: &Mutex<Option<Parcel<_, _>>>| shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    let arriving = parcel.clone();
    let sent = to.run(move |cx| {
        if let Some(parcel) = take(&arriving) {
            parcel.unpack(|future, join| install(cx, future, join, Some(depart)));
        }
    });
    if sent.is_ok() {
        return Ok(());
    }
    let refused = take(&parcel).and_then(Parcel::open);
    if let Some(here) = here {
        join.arrive(here);
    }
    refused.map_or(Ok(()), |(future, _)| Err(future))
}

/// What becomes a task where it is unpacked. Dropped before, it tells the joiner that there will be no result.
struct Parcel<C, T> {
    contents: Option<C>,
    join: Arc<Join<T>>,
}

impl<C, T> Parcel<C, T> {
    fn new(contents: C, join: Arc<Join<T>>) -> Self {
        Self {
            contents: Some(contents),
            join,
        }
    }

    fn open(mut self) -> Option<(C, Arc<Join<T>>)> {
        let contents = self.contents.take()?;
        Some((contents, self.join.clone()))
    }

    fn unpack(self, install: impl FnOnce(C, Arc<Join<T>>)) {
        if let Some((contents, join)) = self.open() {
            install(contents, join);
        }
    }
}

impl<C, T> Drop for Parcel<C, T> {
    fn drop(&mut self) {
        if let Some(contents) = self.contents.take() {
            drop(contents);
            drop(self.join.finish(Err(JoinError::Gone(Gone::Dropped))));
        }
    }
}
