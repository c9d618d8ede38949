//! [`Local`]: the exports and clients of one loop.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aio_context::{Context, Remote};

use crate::acceptor::Acceptor;
use crate::calls::Reply;
use crate::descriptor_chain::DescriptorChain;
use crate::engine::Engine;
use crate::export::Export;
use crate::figures::{ExportFigures, LoopFigures, LoopState};
use crate::host::Host;
use crate::hosted::{ExportId, Hosted, HostedExports};
use crate::limit::LineLimit;
use crate::nbd::{Nbd, NbdExport, NbdStats, Writes};
use crate::opened::Opened;
use crate::polling::Polling;
use crate::remote_hosts::{Peer, RemoteHosts};
use crate::request::Device;

/// The time between two checks for outstanding requests.
const RECHECK_AFTER: Duration = Duration::from_millis(5);

/// The exports of one loop, their NBD clients, and the polling of the loop.
#[derive(Debug)]
pub(crate) struct Local {
    me: Weak<Self>,
    name: Arc<str>,
    engine: Engine,
    polling: Polling,
    /// The NBD clients, if the daemon serves NBD.
    nbd: Option<Rc<Nbd>>,
    /// Shared by all queues of the loop, because only one of them runs at a time.
    chain: Rc<RefCell<DescriptorChain>>,
    served: RefCell<Vec<Rc<Served>>>,
    /// Exports of other loops, some of whose queues this one serves.
    hosted: Rc<HostedExports>,
    remote: Remote,
}

/// An export that the loop serves.
#[derive(Debug)]
struct Served {
    id: ExportId,
    name: String,
    device: Arc<Device>,
    /// Accepts vhost-user clients, if the export has a socket.
    acceptor: Option<Rc<Acceptor>>,
    /// The statistics of its NBD clients.
    nbd: Rc<NbdStats>,
    /// The writes of its NBD clients that are not complete.
    writes: Rc<Writes>,
}

/// The present clients of an export.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Activity {
    pub(crate) id: ExportId,
    pub(crate) connected: bool,
    pub(crate) nbd_clients: usize,
    pub(crate) serving: u16,
    pub(crate) in_flight: usize,
}

/// The statistics of a loop when it has completed its last requests, or when its time is over.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    pub(crate) figures: Vec<(ExportId, ExportFigures)>,
    /// The exports with incomplete requests, and the number of these.
    pub(crate) incomplete: Vec<(String, usize)>,
    /// The number of incomplete requests of NBD clients.
    pub(crate) incomplete_nbd: usize,
}

/// The storage for the [`Local`] of a context.
#[derive(Default)]
struct Slot(RefCell<Weak<Local>>);

impl Local {
    pub(crate) fn new(
        cx: &Context,
        name: Arc<str>,
        engine: Engine,
        polling: Polling,
        nbd: Option<Rc<Nbd>>,
    ) -> Rc<Self> {
        let local = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            name,
            engine,
            polling,
            nbd,
            chain: Rc::default(),
            served: RefCell::default(),
            hosted: HostedExports::of(cx),
            remote: cx.remote(),
        });
        cx.extension(|_| Slot::default()).0.replace(Rc::downgrade(&local));
        local
    }

    /// Returns the value of this context. `None` while the loop ends.
    pub(super) fn of(cx: &Context) -> Option<Rc<Self>> {
        cx.extension(|_| Slot::default()).0.borrow().upgrade()
    }

    /// Returns the NBD clients of the loop.
    pub(crate) fn nbd(&self) -> Option<&Rc<Nbd>> {
        self.nbd.as_ref()
    }

    /// Returns the polling of the loop.
    pub(crate) fn polling(&self) -> &Polling {
        &self.polling
    }

    /// Returns a handle to the loop, for other loops.
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            name: self.name.clone(),
            remote: self.remote.clone(),
        }
    }

    /// Returns the objects with which this loop serves the queues of an export.
    fn host(&self, cx: &Context, export: &Export, device: Arc<Device>) -> Host {
        Host {
            device,
            workers: self.engine.workers(cx, &export.source),
            chain: self.chain.clone(),
            stats: Rc::default(),
            limit: LineLimit::new(export.log_name().into(), Some(cx)),
        }
    }

    /// Starts to serve the queues of an export that the loop of its sessions passes on.
    pub(crate) fn serve_queues(&self, cx: &Context, id: ExportId, export: &Export, device: Arc<Device>) {
        let host = self.host(cx, export, device);
        self.hosted.add(Hosted::new(id, export.log_name(), host));
    }

    /// Starts to serve an export. The loops `others` serve some of its queues, and have added it already.
    ///
    /// # Errors
    /// If the loop cannot wait for its clients.
    pub(crate) fn serve(
        &self,
        cx: &Context,
        id: ExportId,
        opened: Opened,
        others: Vec<Peer>,
    ) -> anyhow::Result<()> {
        let Opened {
            export,
            device,
            listener,
        } = opened;
        let name = export.log_name();
        let acceptor = match listener {
            None => None,
            Some(listener) => {
                let host = self.host(cx, &export, device.clone());
                let others = RemoteHosts::new(id, others);
                Some(Acceptor::listen(cx, listener, host, others, export.queues)?)
            }
        };
        let stats: Rc<NbdStats> = Rc::default();
        let writes: Rc<Writes> = Rc::default();
        if let Some(nbd) = &self.nbd {
            nbd.catalog().add(NbdExport {
                name: export.nbd_name(),
                device: device.clone(),
                // NBD has threads of its own, because a vhost-user client waits until the threads have ended
                // the requests of the former client.
                workers: self.engine.workers(cx, &export.source),
                limit: LineLimit::new(name.as_str().into(), Some(cx)),
                stats: stats.clone(),
                writes: writes.clone(),
            });
        }
        self.served.borrow_mut().push(Rc::new(Served {
            id,
            name,
            device,
            acceptor,
            nbd: stats,
            writes,
        }));
        Ok(())
    }

    /// Stops taking messages from the clients of an export, and requests from the queues that this loop
    /// serves.
    pub(crate) fn finish_export(&self, id: ExportId) {
        if let Some(served) = self.find(id) {
            self.finish_served(&served);
        }
    }

    fn finish_served(&self, served: &Served) {
        if let Some(acceptor) = &served.acceptor {
            acceptor.finish();
        }
        if let Some(nbd) = &self.nbd {
            nbd.remove(&served.device);
        }
    }

    /// Stops taking requests for an export, completes the requests taken before until the deadline, and ends
    /// its clients' connections. The result is the number of incomplete requests.
    pub(crate) fn remove(&self, cx: &Context, id: ExportId, deadline: Instant, reply: Reply<usize>) {
        if let Some(served) = self.find(id) {
            self.finish_served(&served);
            self.remove_when_drained(cx, served, deadline, reply);
        } else if let Some(hosted) = self.hosted.find(id) {
            hosted.finish();
            self.remove_hosted_when_drained(cx, hosted, deadline, reply);
        } else {
            reply.send(cx, Ok(0));
        }
    }

    fn remove_hosted_when_drained(
        &self,
        cx: &Context,
        hosted: Rc<Hosted>,
        deadline: Instant,
        reply: Reply<usize>,
    ) {
        let incomplete = hosted.host.in_flight();
        if incomplete > 0 && Instant::now() < deadline {
            let me = self.me.clone();
            cx.after(RECHECK_AFTER, move |cx| {
                if let Some(local) = me.upgrade() {
                    local.remove_hosted_when_drained(cx, hosted, deadline, reply);
                }
            });
            return;
        }
        self.hosted.remove(hosted.id);
        reply.send(cx, Ok(incomplete));
    }

    fn remove_when_drained(&self, cx: &Context, served: Rc<Served>, deadline: Instant, reply: Reply<usize>) {
        let incomplete = self.in_flight(&served);
        if incomplete > 0 && Instant::now() < deadline {
            let me = self.me.clone();
            cx.after(RECHECK_AFTER, move |cx| {
                if let Some(local) = me.upgrade() {
                    local.remove_when_drained(cx, served, deadline, reply);
                }
            });
            return;
        }
        self.served
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, &served));
        if let Some(nbd) = &self.nbd {
            nbd.close_clients_of(&served.device);
        }
        if let Some(acceptor) = &served.acceptor {
            acceptor.close();
        }
        drop(served);
        reply.send(cx, Ok(incomplete));
    }

    /// Notifies the client of an export that the size of its disk may have changed.
    pub(crate) fn size_may_have_changed(&self, id: ExportId) {
        let served = self.find(id);
        if let Some(acceptor) = served.as_ref().and_then(|served| served.acceptor.as_ref()) {
            acceptor.size_may_have_changed();
        }
    }

    fn find(&self, id: ExportId) -> Option<Rc<Served>> {
        let served = self.served.borrow();
        served.iter().find(|served| served.id == id).cloned()
    }

    /// Returns the number of requests that an export has begun, of all clients.
    fn in_flight(&self, served: &Served) -> usize {
        let of_vhost_user = served
            .acceptor
            .as_ref()
            .map_or(0, |acceptor| acceptor.in_flight());
        let of_nbd = self
            .nbd
            .as_ref()
            .map_or(0, |nbd| nbd.in_flight_of(&served.device));
        // Writes of disconnected clients get no replies, so only `writes` counts them.
        of_vhost_user + of_nbd.max(served.writes.count())
    }

    /// Returns the clients of all exports.
    pub(crate) fn activities(&self) -> Vec<Activity> {
        let activity = |served: &Rc<Served>| {
            let acceptor = served.acceptor.as_ref();
            Activity {
                id: served.id,
                connected: acceptor.is_some_and(|acceptor| acceptor.is_connected()),
                nbd_clients: self.nbd.as_ref().map_or(0, |nbd| nbd.clients(&served.device)),
                serving: acceptor.map(|acceptor| acceptor.serving()).unwrap_or_default(),
                in_flight: self.in_flight(served),
            }
        };
        let of_hosted = |hosted: Rc<Hosted>| Activity {
            id: hosted.id,
            serving: hosted.serving(),
            in_flight: hosted.host.in_flight(),
            ..Activity::default()
        };
        let served = self.served.borrow();
        let hosted = self.hosted.all().into_iter().map(of_hosted);
        served.iter().map(activity).chain(hosted).collect()
    }

    /// Returns the figures of the exports.
    pub(crate) fn export_figures(&self) -> Vec<(ExportId, ExportFigures)> {
        let figures = |served: &Rc<Served>| {
            let acceptor = served.acceptor.as_ref();
            let stats = acceptor.map(|acceptor| acceptor.stats());
            let figures = ExportFigures {
                name: served.name.clone(),
                thread: self.name.to_string(),
                size: served.device.disk.size(),
                connected: acceptor.is_some_and(|acceptor| acceptor.is_connected()),
                clients: stats.map_or(0, |stats| stats.clients()) + served.nbd.clients(),
                in_flight: self.in_flight(served),
                queues: stats.map(|stats| stats.figures()).unwrap_or_default(),
                nbd: served.nbd.requests().map(|requests| requests.figures(0)),
            };
            (served.id, figures)
        };
        let of_hosted = |hosted: Rc<Hosted>| {
            let figures = ExportFigures {
                name: hosted.name.clone(),
                thread: self.name.to_string(),
                size: hosted.host.device.disk.size(),
                connected: false,
                clients: 0,
                in_flight: hosted.host.in_flight(),
                queues: hosted.host.stats.figures(),
                nbd: None,
            };
            (hosted.id, figures)
        };
        let served = self.served.borrow();
        let hosted = self.hosted.all().into_iter().map(of_hosted);
        served.iter().map(figures).chain(hosted).collect()
    }

    /// Returns the figures of the loop.
    pub(crate) fn figures(&self, cx: &Context) -> LoopFigures {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let stats = cx.remote().stats();
        LoopFigures {
            name: self.name.to_string(),
            iterations: stats.iterations,
            events: stats.events,
            sleeps: stats.blocked,
            slept_ns: ns(stats.slept),
            poll_hits: stats.poll_hits,
            poll_misses: stats.poll_misses,
            polled_ns: ns(stats.spun),
            kicks: stats.kicks,
        }
    }

    /// Returns the state of the loop and its polling.
    pub(crate) fn state(&self, cx: &Context) -> LoopState {
        LoopState {
            name: self.name.to_string(),
            backend: cx.backend_name().to_owned(),
            polling: self.polling.describe(),
            poll_max_ns: self.polling.max_ns(),
            responds: true,
        }
    }

    /// Stops accepting clients and taking requests. The requests taken before are completed while the loop is
    /// polled.
    pub(crate) fn finish(&self) {
        for acceptor in self.acceptors() {
            acceptor.finish();
        }
        for hosted in self.hosted.all() {
            hosted.finish();
        }
        if let Some(nbd) = &self.nbd {
            nbd.finish();
        }
    }

    /// Returns `true` if a request is not complete.
    pub(crate) fn is_busy(&self) -> bool {
        let of_vhost_user = self.acceptors().iter().any(|acceptor| acceptor.in_flight() > 0);
        let of_others = self.hosted.all().iter().any(|hosted| hosted.host.in_flight() > 0);
        of_vhost_user || of_others || self.nbd.as_ref().is_some_and(|nbd| nbd.in_flight() > 0)
    }

    /// Calls [`finish`](Self::finish), and replies once all requests are complete, or at the deadline.
    pub(crate) fn finish_until(&self, cx: &Context, deadline: Instant, reply: Reply<Finished>) {
        self.finish();
        self.reply_when_finished(cx, deadline, reply);
    }

    fn reply_when_finished(&self, cx: &Context, deadline: Instant, reply: Reply<Finished>) {
        if self.is_busy() && Instant::now() < deadline {
            let me = self.me.clone();
            cx.after(RECHECK_AFTER, move |cx| {
                if let Some(local) = me.upgrade() {
                    local.reply_when_finished(cx, deadline, reply);
                }
            });
            return;
        }
        reply.send(cx, Ok(self.finished()));
    }

    /// Returns the statistics of the loop, and its incomplete requests.
    pub(crate) fn finished(&self) -> Finished {
        let acceptors = self.acceptors();
        let incomplete = acceptors
            .iter()
            .map(|acceptor| (acceptor.export().to_owned(), acceptor.in_flight()));
        let hosted = self.hosted.all();
        let of_others = hosted
            .iter()
            .map(|hosted| (hosted.name.clone(), hosted.host.in_flight()));
        Finished {
            figures: self.export_figures(),
            incomplete: incomplete
                .chain(of_others)
                .filter(|(_, count)| *count > 0)
                .collect(),
            incomplete_nbd: self.nbd.as_ref().map_or(0, |nbd| nbd.in_flight()),
        }
    }

    /// Ends all connections, and accepts no more clients.
    pub(crate) fn close(&self) {
        for acceptor in self.acceptors() {
            acceptor.close();
        }
        for hosted in self.hosted.all() {
            self.hosted.remove(hosted.id);
        }
        if let Some(nbd) = &self.nbd {
            nbd.close();
        }
    }

    fn acceptors(&self) -> Vec<Rc<Acceptor>> {
        let served = self.served.borrow();
        served
            .iter()
            .filter_map(|served| served.acceptor.clone())
            .collect()
    }
}
