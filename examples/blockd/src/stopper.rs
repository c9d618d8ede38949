//! [`Stopper`]: stops a daemon from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aio_context::{Context, Remote};

/// Stops a [`Server`](crate::Server), from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    remote: Remote,
}

impl Stopper {
    pub(crate) fn new(cx: &Context) -> Self {
        Self {
            stop: Arc::default(),
            remote: cx.remote(),
        }
    }

    /// Returns `true` if the server is to stop, or has stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Makes [`Server::run`](crate::Server::run) return after the present iteration.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.remote.notify();
    }
}
