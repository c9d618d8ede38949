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

/// A loop that has not stopped its queues by then is reported.
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
    /// Whether a queue was passed to them since the last [`end`](Self::end).
    is_used: Cell<bool>,
    ending: Rc<Ending>,
}

/// The end of a former client.
#[derive(Default)]
struct Ending {
    /// The number of loops that still have requests of it.
    missing: Cell<usize>,
    /// Called when there is none any more.
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

    /// Has `on_end` called once no loop has requests of a former client any more.
    pub(crate) fn on_end(&self, on_end: impl Fn() + 'static) {
        self.ending.on_end.replace(Some(Box::new(on_end)));
    }

    /// The number of loops.
    pub(crate) fn count(&self) -> usize {
        self.peers.len()
    }

    /// The index of the loop that serves the queue of this number; `None` if the export's own loop does. The loops take turns. The export's
    /// own loop is the last one, because it has the clients of NBD as well.
    pub(crate) fn host_of(&self, queue: usize) -> Option<usize> {
        ((queue + 1) % (1 + self.peers.len())).checked_sub(1)
    }

    /// Has a loop serve a queue from now on. `socket` is that of the client.
    pub(crate) fn serve(&self, host: usize, socket: Arc<UnixStream>, setup: VringSetup) {
        self.is_used.set(true);
        let id = self.id;
        let serve = move |cx: &Context| {
            if let Some(hosted) = HostedExports::of(cx).find(id) {
                hosted.serve(cx, socket, setup);
            }
        };
        // If the loop has ended, so will the daemon.
        self.peers[host].remote.run(serve).unwrap_or_default();
    }

    /// Has a loop stop some of its queues once their requests are complete. `done` gets what has become of them. It is not called if the loop
    /// has ended: then the daemon ends, too. A loop that is late is reported, and waited for: until then it may write to the client's memory.
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

    /// Has a line logged if a loop has not stopped its queues in time: unless the result is dropped before.
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

    /// Has all loops stop all queues at once: the client has gone. Their requests are not completed.
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

    /// Whether a loop still has requests of a former client.
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
            // The export has been removed, and its queues with it.
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
