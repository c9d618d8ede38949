//! Waiting for other threads while the loop goes on: [`Context::wait_while`], [`Context::run_on`] and [`Remote::run_and_wait`]
//! (rules W1 to W3).

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::remote::Remote;
use crate::sync::{Mutex, Ordering, faulty, mpsc};
use crate::{Context, Gone, Wait};

impl Context {
    /// Polls until `condition` is false; true if it had to wait. Who changes what the condition reads calls
    /// [`Remote::kick`] afterwards, from any thread.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    #[doc(alias = "AIO_WAIT_WHILE")]
    pub fn wait_while(&self, mut condition: impl FnMut() -> bool) -> io::Result<bool> {
        let mut waited = false;
        faulty!(CountedLate: if condition() { let _late = self.0.mailbox.wait_guard(); self.poll(Wait::Block)?; });
        let _guard = self.0.mailbox.wait_guard();
        while condition() {
            waited = true;
            self.poll(Wait::Block)?;
        }
        Ok(waited)
    }

    /// Has `job` run once on another context and waits for its result, while this context goes on polling: two contexts
    /// can wait for each other. On this very context the job runs at once.
    ///
    /// # Errors
    /// [`Gone`], with the reason, if the other context is gone, goes away before the job is done, or the job panics; or if this
    /// context cannot be polled any longer.
    #[doc(alias = "aio_wait_bh_oneshot")]
    pub fn run_on<R: Send + 'static>(
        &self,
        other: &Remote,
        job: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        if other.is_same(&self.remote()) {
            return Ok(job(self));
        }
        self.wait_for(other, &[], job)
    }

    /// Has `job` run on another context, and polls this one and `others`, which live on this thread too, until it has.
    pub(crate) fn wait_for<R: Send + 'static>(
        &self,
        other: &Remote,
        others: &[Self],
        job: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        let slot = Arc::new(Mutex::new(Answer::Pending));
        let reply = Reply {
            slot: slot.clone(),
            waiter: self.remote(),
        };
        other.run(move |cx| reply.give(job(cx)))?;
        let state = || slot.lock().unwrap_or_else(PoisonError::into_inner);
        let is_pending = || matches!(*state(), Answer::Pending);
        let waited = if others.is_empty() {
            self.wait_while(is_pending).map(|_| ())
        } else {
            self.wait_in_turn(others, is_pending)
        };
        waited.map_err(|_| Gone::CannotWait)?;
        let answer = std::mem::replace(&mut *state(), Answer::Lost(Gone::Dropped));
        match answer {
            Answer::Given(result) => Ok(result),
            Answer::Lost(why) => Err(why),
            Answer::Pending => Err(Gone::CannotWait),
        }
    }

    /// As [`wait_while`](Self::wait_while), with several contexts: only this one is woken at once.
    fn wait_in_turn(&self, others: &[Self], condition: impl Fn() -> bool) -> io::Result<()> {
        let _waiter = self.0.mailbox.wait_guard();
        while condition() {
            for other in others {
                other.poll(Wait::NoBlock)?;
            }
            self.poll(Wait::AtMost(TURN))?;
        }
        Ok(())
    }
}

/// How long one of several contexts of a thread waits before the others have their turn.
const TURN: Duration = Duration::from_millis(1);

impl Remote {
    /// Has `job` run on the home thread, and sleeps until it has.
    pub(crate) fn run_and_sleep<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Context) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        let (reply, result) = mpsc::sync_channel(1);
        let panicked = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let teller = Teller {
            _witness: Witness(panicked.clone()),
            reply,
        };
        self.run(move |cx| teller.give(job(cx)))?;
        result.recv().map_err(|mpsc::RecvError| {
            if panicked.load(Ordering::Relaxed) {
                Gone::Panicked
            } else {
                Gone::Dropped
            }
        })
    }
}

/// The far end of [`Remote::run_and_sleep`].
struct Teller<R> {
    /// Dropped first: the waiting thread reads what it has seen when the channel is gone.
    _witness: Witness,
    reply: mpsc::SyncSender<R>,
}

impl<R> Teller<R> {
    fn give(&self, result: R) {
        // The receiver is gone only if the waiting thread was killed.
        let _ = self.reply.send(result);
    }
}

/// Records whether it was dropped by a panic.
struct Witness(Arc<std::sync::atomic::AtomicBool>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.store(std::thread::panicking(), Ordering::Relaxed);
    }
}

enum Answer<R> {
    Pending,
    Given(R),
    Lost(Gone),
}

/// The far end of [`Context::run_on`]: gives the answer, or records when it is dropped that there is none.
struct Reply<R> {
    slot: Arc<Mutex<Answer<R>>>,
    waiter: Remote,
}

impl<R> Reply<R> {
    fn give(&self, result: R) {
        faulty!(KickedBeforeAnswer: self.waiter.kick());
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Answer::Given(result);
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        let mut answer = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*answer, Answer::Pending) {
            *answer = Answer::Lost(if std::thread::panicking() {
                Gone::Panicked
            } else {
                Gone::Dropped
            });
        }
        drop(answer);
        faulty!(KickedBeforeAnswer, self.waiter.kick());
    }
}
