//! Waiting for other threads while the loop goes on: [`Context::wait_while`] and [`Context::run_on`] (rules W1, W2).

use std::io;
use std::sync::{Arc, PoisonError};

use crate::remote::{Remote, Shared};
use crate::sync::{Fault, Mutex, Ordering, fence, planted};
use crate::{Context, Gone, Wait};

impl Context {
    /// Polls until `condition` is false; true if it had to wait. Who changes what the condition reads calls
    /// [`Remote::kick`] afterwards, from any thread.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    #[doc(alias = "AIO_WAIT_WHILE")]
    pub fn wait_while(&self, mut condition: impl FnMut() -> bool) -> io::Result<bool> {
        let enter = || Waiter::enter(&self.0.shared);
        let mut waiter = (!planted(Fault::CountedLate)).then(enter);
        let mut waited = false;
        while condition() {
            waited = true;
            waiter.get_or_insert_with(enter);
            self.poll(Wait::Block)?;
        }
        Ok(waited)
    }

    /// Has `job` run once on another context and waits for its result, while this context goes on polling: two contexts
    /// can wait for each other. On this very context the job runs at once.
    ///
    /// # Errors
    /// [`Gone`] if the other context is gone, goes away before the job is done, or the job panics; or if this context
    /// cannot be polled any longer.
    #[doc(alias = "aio_wait_bh_oneshot")]
    pub fn run_on<R: Send + 'static>(
        &self,
        other: &Remote,
        job: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        if other.is_same(&self.remote()) {
            return Ok(job(self));
        }
        let slot = Arc::new(Mutex::new(Answer::Pending));
        let reply = Reply {
            slot: slot.clone(),
            waiter: self.remote(),
        };
        other.run(move |cx| reply.give(job(cx)))?;
        let state = || slot.lock().unwrap_or_else(PoisonError::into_inner);
        self.wait_while(|| matches!(*state(), Answer::Pending))
            .map_err(|_| Gone)?;
        let answer = std::mem::replace(&mut *state(), Answer::Lost);
        match answer {
            Answer::Given(result) => Ok(result),
            Answer::Pending | Answer::Lost => Err(Gone),
        }
    }
}

enum Answer<R> {
    Pending,
    Given(R),
    Lost,
}

/// The far end of [`Context::run_on`]: answers, or tells by being dropped that there will be no answer.
struct Reply<R> {
    slot: Arc<Mutex<Answer<R>>>,
    waiter: Remote,
}

impl<R> Reply<R> {
    fn give(&self, result: R) {
        if planted(Fault::KickedBeforeAnswer) {
            self.waiter.kick();
        }
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Answer::Given(result);
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        let mut answer = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*answer, Answer::Pending) {
            *answer = Answer::Lost;
        }
        drop(answer);
        if !planted(Fault::KickedBeforeAnswer) {
            self.waiter.kick();
        }
    }
}

/// Counts a `wait_while`, before its condition is read (rule W1).
struct Waiter<'a>(&'a Shared);

impl<'a> Waiter<'a> {
    fn enter(shared: &'a Shared) -> Self {
        shared.waiters.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `Remote::kick`: either it sees us, or we see the change.
        if !planted(Fault::CountedWithoutFence) {
            fence(Ordering::SeqCst);
        }
        Self(shared)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}
