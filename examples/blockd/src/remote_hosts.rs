//! [`RemoteHosts`]: an export on the loops that serve some of its queues for the session on another loop.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aio_context::{ClockId, Context, Remote, Timer};

use crate::calls::{Done, Reply, call};
use crate::connection::Connection;
use crate::host::VringSetup;
use crate::hosted::{ExportId, Hosted, HostedExports, Parked};
use crate::limit::Kind;

/// The time after which a loop that has not stopped its queues is reported.
const LATE: Duration = Duration::from_secs(2);

/// A loop that another one can call.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: Arc<str>,
    pub(crate) remote: Remote,
}

/// The loops, other than its own, that serve queues of an export. The value belongs to the export's own loop.
#[derive(Debug)]
pub(crate) struct RemoteHosts {
    id: ExportId,
    peers: Vec<Peer>,
    /// Whether a queue was passed to these loops since the last [`end`](Self::end).
    is_used: Cell<bool>,
    ending: Rc<Ending>,
}

/// The end of a former client.
#[derive(Default)]
struct Ending {
    /// The number of loops that still have requests of the client.
    missing: Cell<usize>,
    /// Called when no loop has any more.
    on_end: RefCell<Option<Box<dyn Fn()>>>,
}

impl RemoteHosts {
    pub(crate) fn new(id: ExportId, peers: Vec<Peer>) -> Rc<Self> {
        Rc::new(Self {
            id,
            peers,
            is_used: Cell::default(),
            ending: Rc::default(),
        })
    }

    /// Registers `on_end`, which is called once no loop has requests of a former client any more.
    pub(crate) fn on_end(&self, on_end: impl Fn() + 'static) {
        self.ending.on_end.replace(Some(Box::new(on_end)));
    }

    /// Returns the number of loops.
    pub(crate) fn count(&self) -> usize {
        self.peers.len()
    }

    /// Returns the index of the loop that serves the queue of this number, or `None` if the export's own loop
    /// does. The loops take turns. The export's own loop is the last one, because it also serves the NBD
    /// clients.
    pub(crate) fn host_of(&self, queue: usize) -> Option<usize> {
        ((queue + 1) % (1 + self.peers.len())).checked_sub(1)
    }

    /// Makes a loop serve a queue from now on. `socket` is that of the client.
    pub(crate) fn serve(&self, host: usize, socket: Arc<UnixStream>, setup: VringSetup) {
        self.is_used.set(true);
        let id = self.id;
        let serve = move |cx: &Context| {
            if let Some(hosted) = HostedExports::of(cx).find(id) {
                hosted.serve(cx, socket, setup);
            }
        };
        // If the loop has ended, the daemon ends too.
        self.peers[host].remote.run(serve).unwrap_or_default();
    }

    /// Makes a loop stop some of its queues once their requests are complete, and passes the stopped queues
    /// to `done`. If the loop has ended, `done` is not called, because the daemon ends, too. A late loop is
    /// reported, but the caller still waits for it, because until then the loop may write to the client's
    /// memory.
    pub(crate) fn park(
        &self,
        cx: &Context,
        host: usize,
        queues: Vec<usize>,
        connection: Rc<Connection>,
        done: impl FnOnce(&Context, Vec<Parked>) + 'static,
    ) {
        let late = self.report_late(cx, host, &queues, connection);
        let stop = move |cx: &Context, hosted: &Rc<Hosted>, reply| hosted.park(cx, queues, reply);
        self.call(
            cx,
            host,
            stop,
            Box::new(move |cx, parked| {
                drop(late);
                if let Ok(parked) = parked {
                    done(cx, parked);
                }
            }),
        );
    }

    /// Arms a timer that logs a line if a loop has not stopped its queues in time. Dropping the timer cancels
    /// that.
    fn report_late(&self, cx: &Context, host: usize, queues: &[usize], connection: Rc<Connection>) -> Timer {
        let name = self.peers[host].name.clone();
        let queues: Vec<String> = queues.iter().map(usize::to_string).collect();
        let queues = queues.join(", ");
        cx.timer(ClockId::Monotonic, move |_, _| {
            let line = format_args!(
                "the I/O thread {name} has not stopped these queues within {LATE:?}: {queues}. The client waits: either the image has not \
                 completed their requests, or the thread does not respond, which `blockd ctl list` shows"
            );
            connection.log(Kind::Waiting, line);
        })
        .armed_after(LATE)
    }

    /// Makes all loops stop all queues at once, because the client has disconnected. Their requests are not
    /// completed.
    pub(crate) fn end(&self, cx: &Context) {
        if !self.is_used.take() {
            return;
        }
        for host in 0..self.peers.len() {
            let missing = &self.ending.missing;
            missing.set(missing.get() + 1);
            let ending = self.ending.clone();
            let end = |cx: &Context, hosted: &Rc<Hosted>, reply| hosted.end(cx, reply);
            self.call(
                cx,
                host,
                end,
                Box::new(move |_, _: anyhow::Result<()>| {
                    ending.missing.set(ending.missing.get() - 1);
                    if ending.missing.get() == 0
                        && let Some(on_end) = &*ending.on_end.borrow()
                    {
                        on_end();
                    }
                }),
            );
        }
    }

    /// Returns `true` if a loop still has requests of a former client.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.missing.get() > 0
    }

    fn call<T: Default + Send + 'static>(
        &self,
        cx: &Context,
        host: usize,
        work: impl FnOnce(&Context, &Rc<Hosted>, Reply<T>) + Send + 'static,
        done: Done<T>,
    ) {
        let id = self.id;
        let work = move |cx: &Context, reply: Reply<T>| match HostedExports::of(cx).find(id) {
            Some(hosted) => work(cx, &hosted, reply),
            // The export has been removed, together with its queues.
            None => reply.send(cx, Ok(T::default())),
        };
        let peer = &self.peers[host];
        call((&peer.name, &peer.remote), cx, work, done);
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending")
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}
