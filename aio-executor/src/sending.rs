//! Futures that are sent to a context.

use std::future::Future;
use std::sync::Arc;

use aio_context::{Context, Gone, Remote};

use crate::current::current;
use crate::join::{Join, JoinError, JoinHandle};
use crate::tasks::{Task, arrive};
use crate::work::{Body, give_up};

/// Spawns a future on another context.
pub(crate) fn send<F>(to: &Remote, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let join = Join::sent(to);
    let work = Box::pin(Body::new(future, join.clone()));
    let sent = to.run(move |cx| arrive(cx, Task::Movable(work)));
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
    let maker = Maker {
        make: Some(make),
        join: join.clone(),
    };
    let sent = to.run(move |cx| {
        if let Some((make, join)) = maker.open() {
            let future = async move { make(&current()).await };
            arrive(cx, Task::Here(Box::pin(Body::new(future, join))));
        }
    });
    give_handle(join, sent)
}

fn give_handle<T>(join: Arc<Join<T>>, sent: Result<(), Gone>) -> JoinHandle<T> {
    if let Err(why) = sent {
        // The task was dropped and has reported that already, without the reason.
        drop(join.finish(Err(JoinError::Gone(why))));
    }
    join.handle()
}

/// Makes the future of a task. If it is dropped before that, the joiner gets an error.
struct Maker<M, T> {
    make: Option<M>,
    join: Arc<Join<T>>,
}

impl<M, T> Maker<M, T> {
    fn open(mut self) -> Option<(M, Arc<Join<T>>)> {
        let make = self.make.take()?;
        Some((make, self.join.clone()))
    }
}

impl<M, T> Drop for Maker<M, T> {
    fn drop(&mut self) {
        if let Some(make) = self.make.take() {
            give_up(&self.join, || drop(make));
        }
    }
}
