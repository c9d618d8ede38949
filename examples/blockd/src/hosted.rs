//! [`Hosted`]: the queues of an export that a loop serves for the session on another loop.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use aio_context::Context;

use crate::calls::Reply;
use crate::connection::Connection;
use crate::eventfd::signal;
use crate::host::{Host, Serving, VringSetup};
use crate::limit::Kind;

/// The shortest and the longest time between two checks for incomplete requests of a queue that stops.
const RECHECK_AFTER: Duration = Duration::from_millis(1);
const LONGEST_RECHECK: Duration = Duration::from_millis(64);

/// Identifies an export of the daemon.
pub(crate) type ExportId = u64;

/// A queue that its loop has stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parked {
    pub(crate) index: usize,
    /// The first request that is not complete. `None` if the queue could not start.
    pub(crate) position: Option<u16>,
    pub(crate) has_failed: bool,
}

/// The exports of other loops of which this loop serves queues.
#[derive(Debug, Default)]
pub(crate) struct HostedExports(RefCell<Vec<Rc<Hosted>>>);

impl HostedExports {
    /// Returns the exports of this context.
    pub(crate) fn of(cx: &Context) -> Rc<Self> {
        cx.extension(|_| Self::default())
    }

    pub(crate) fn find(&self, id: ExportId) -> Option<Rc<Hosted>> {
        let all = self.0.borrow();
        all.iter().find(|hosted| hosted.id == id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Rc<Hosted>> {
        self.0.borrow().clone()
    }

    pub(crate) fn add(&self, hosted: Rc<Hosted>) {
        self.0.borrow_mut().push(hosted);
    }

    /// Stops all queues of an export, and ends serving it.
    pub(crate) fn remove(&self, id: ExportId) {
        let removed = self.find(id);
        self.0.borrow_mut().retain(|hosted| hosted.id != id);
        if let Some(hosted) = removed {
            hosted.close();
        }
    }
}

/// An export on a loop that does not have its session.
#[derive(Debug)]
pub(crate) struct Hosted {
    me: Weak<Self>,
    pub(crate) id: ExportId,
    pub(crate) name: String,
    pub(crate) host: Host,
    serving: RefCell<BTreeMap<usize, Serving>>,
    /// Set when queues take no more requests.
    is_finished: Cell<bool>,
}

impl Hosted {
    pub(crate) fn new(id: ExportId, name: String, host: Host) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            id,
            name,
            host,
            serving: RefCell::default(),
            is_finished: Cell::default(),
        })
    }

    /// Starts to serve a queue.
    pub(crate) fn serve(&self, cx: &Context, socket: Arc<UnixStream>, setup: VringSetup) {
        let connection = Rc::new(Connection::new(self.host.limit.clone(), socket));
        let (index, on_error) = (setup.index, setup.error.clone());
        match self.host.serve(cx, connection.clone(), setup) {
            Ok(serving) => {
                if self.is_finished.get() {
                    serving.vring.hold();
                }
                let former = self.serving.borrow_mut().insert(index, serving);
                drop(former);
            }
            Err(error) => {
                let line = format_args!("queue {index} cannot start: cannot wait for kicks: {error}");
                connection.log(Kind::Queues, line);
                if let Some(on_error) = on_error {
                    signal(&on_error);
                }
            }
        }
    }

    /// Returns the number of queues that are served.
    pub(crate) fn serving(&self) -> u16 {
        let serving = self.serving.borrow();
        let serving = serving.values().filter(|serving| !serving.vring.is_stopped());
        // There are at most 256.
        serving.count() as u16
    }

    /// Takes no more requests. The requests taken before are completed while the loop is polled.
    pub(crate) fn finish(&self) {
        self.is_finished.set(true);
        for serving in self.serving.borrow().values() {
            serving.vring.hold();
        }
    }

    /// Stops some queues once their requests are complete, and then replies.
    pub(crate) fn park(&self, cx: &Context, queues: Vec<usize>, reply: Reply<Vec<Parked>>) {
        self.park_after(cx, RECHECK_AFTER, queues, reply);
    }

    fn park_after(&self, cx: &Context, time: Duration, queues: Vec<usize>, reply: Reply<Vec<Parked>>) {
        let is_busy = {
            let serving = self.serving.borrow();
            let of_these = queues.iter().filter_map(|index| serving.get(index));
            of_these.filter(|serving| !serving.vring.hold()).count() > 0
        };
        if is_busy {
            let me = self.me.clone();
            cx.after(time, move |cx| {
                if let Some(hosted) = me.upgrade() {
                    hosted.park_after(cx, (2 * time).min(LONGEST_RECHECK), queues, reply);
                }
            });
            return;
        }
        let parked = queues.into_iter().map(|index| self.stop(index)).collect();
        reply.send(cx, Ok(parked));
    }

    fn stop(&self, index: usize) -> Parked {
        let stopped = self.serving.borrow_mut().remove(&index);
        let vring = stopped.as_ref().map(|serving| &serving.vring);
        Parked {
            index,
            has_failed: vring.is_none_or(|vring| vring.is_stopped()),
            position: vring.map(|vring| vring.stop()),
        }
    }

    /// Stops all queues at once. Replies when their requests have ended.
    pub(crate) fn end(&self, cx: &Context, reply: Reply<()>) {
        self.close();
        self.reply_when_ended(cx, RECHECK_AFTER, reply);
    }

    fn reply_when_ended(&self, cx: &Context, time: Duration, reply: Reply<()>) {
        if self.host.in_flight() > 0 {
            let me = self.me.clone();
            cx.after(time, move |cx| {
                if let Some(hosted) = me.upgrade() {
                    hosted.reply_when_ended(cx, (2 * time).min(LONGEST_RECHECK), reply);
                }
            });
            return;
        }
        reply.send(cx, Ok(()));
    }

    /// Stops all queues.
    pub(crate) fn close(&self) {
        let all = self.serving.take();
        for serving in all.values() {
            serving.vring.stop();
        }
        drop(all);
    }
}
