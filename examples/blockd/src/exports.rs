//! [`Exports`]: the exports of a daemon, which can be added, removed and resized while it runs.
//!
//! What can wait for a file server or another process is done in the [background](Background), and the loop continues with the result.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aio_context::{ClockId, Context, WeakContext};
use anyhow::{anyhow, bail};

use crate::acceptor::Acceptor;
use crate::background::Background;
use crate::descriptor_chain::DescriptorChain;
use crate::disk::Source;
use crate::engine::Engine;
use crate::export::{Export, parse_size};
use crate::figures::{ExportFigures, ExportState, LoopFigures, Snapshot};
use crate::limit::LineLimit;
use crate::nbd::{Nbd, NbdExport, NbdStats};
use crate::opened::Opened;
use crate::process::PassedSockets;
use crate::request::Device;

/// The time that outstanding requests get when their export is removed, or the daemon ends.
pub(crate) const MOST_WAIT: Duration = Duration::from_secs(5);
/// The time between two checks whether they have ended.
const RECHECK_AFTER: Duration = Duration::from_millis(5);
/// The name of the only loop.
pub(crate) const LOOP: &str = "main";
/// The size that means the one that an image has by now.
const OWN_SIZE: &str = "auto";

/// All exports of a loop.
#[derive(Debug)]
pub(crate) struct Exports {
    me: Weak<Self>,
    context: WeakContext,
    engine: Engine,
    background: Background,
    /// Those that were passed to the process.
    sockets: PassedSockets,
    /// Serves the exports over NBD as well, if it listens.
    nbd: Option<Rc<Nbd>>,
    /// Shared by all queues, because only one of them runs at a time.
    chain: Rc<RefCell<DescriptorChain>>,
    served: RefCell<Vec<Rc<Served>>>,
    /// Names and sockets of exports that are being opened.
    opening: RefCell<Vec<Export>>,
}

/// An export that is served.
#[derive(Debug)]
struct Served {
    export: Export,
    device: Arc<Device>,
    /// Accepts vhost-user clients, if the export has a socket.
    acceptor: Option<Rc<Acceptor>>,
    /// What its NBD clients have done.
    nbd: Rc<NbdStats>,
    /// It takes no requests any more.
    is_leaving: Cell<bool>,
    is_resizing: Cell<bool>,
}

/// Receives the result of an operation, now or later.
pub(crate) type Done<T> = Box<dyn FnOnce(&Context, anyhow::Result<T>)>;

impl Exports {
    pub(crate) fn new(
        cx: &Context,
        engine: Engine,
        background: Background,
        sockets: PassedSockets,
        nbd: Option<Rc<Nbd>>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            context: cx.downgrade(),
            engine,
            background,
            sockets,
            nbd,
            chain: Rc::default(),
            served: RefCell::default(),
            opening: RefCell::default(),
        })
    }

    /// Serves an export from now on.
    ///
    /// # Errors
    /// If the loop cannot wait for its clients.
    pub(crate) fn serve(&self, cx: &Context, opened: Opened) -> anyhow::Result<()> {
        let Opened {
            export,
            device,
            listener,
        } = opened;
        let name = export.log_name();
        let acceptor = match listener {
            None => None,
            Some(listener) => {
                let workers = self.engine.workers(cx, &export.source);
                let (served, chain) = ((device.clone(), workers), self.chain.clone());
                Some(Acceptor::listen(
                    cx,
                    &name,
                    listener,
                    served,
                    export.queues,
                    chain,
                )?)
            }
        };
        let stats: Rc<NbdStats> = Rc::default();
        if let Some(nbd) = &self.nbd {
            nbd.catalog().add(NbdExport {
                name: export.nbd_name(),
                device: device.clone(),
                // Threads of its own: a vhost-user client waits until those of the former one have ended its requests.
                workers: self.engine.workers(cx, &export.source),
                limit: LineLimit::new(name.as_str().into(), Some(cx)),
                stats: stats.clone(),
            });
        }
        self.served.borrow_mut().push(Rc::new(Served {
            export,
            device,
            acceptor,
            nbd: stats,
            is_leaving: Cell::default(),
            is_resizing: Cell::default(),
        }));
        Ok(())
    }

    /// Opens an export and serves it.
    pub(crate) fn add(&self, export: Export, done: Done<()>) {
        let Some(cx) = self.context.upgrade() else { return };
        if let Err(error) = self.check_unique(&export) {
            done(&cx, Err(error));
            return;
        }
        self.opening.borrow_mut().push(export.clone());
        let (me, opening) = (self.me.clone(), export.clone());
        let sockets = self.sockets.clone();
        self.background.run(
            &cx,
            move || Opened::open(export, &sockets),
            move |cx, opened| {
                let Some(exports) = me.upgrade() else { return };
                exports.opening.borrow_mut().retain(|other| *other != opening);
                let served = opened.and_then(|opened| exports.serve(cx, opened));
                done(cx, served);
            },
        );
    }

    /// Takes no more requests for the export, completes those that were taken, ends its client's connection and removes its socket.
    /// The result is the number of requests that its image has not completed in time.
    pub(crate) fn remove(&self, name: &str, done: Done<usize>) {
        let Some(cx) = self.context.upgrade() else { return };
        let served = match self.find(name) {
            Ok(served) => served,
            Err(error) => return done(&cx, Err(error)),
        };
        served.is_leaving.set(true);
        if let Some(acceptor) = &served.acceptor {
            acceptor.finish();
        }
        if let Some(nbd) = &self.nbd {
            nbd.remove(&served.device);
        }
        self.remove_when_drained(&cx, served, Instant::now() + MOST_WAIT, done);
    }

    fn remove_when_drained(&self, cx: &Context, served: Rc<Served>, deadline: Instant, done: Done<usize>) {
        let left = self.in_flight(&served);
        if left > 0 && Instant::now() < deadline {
            let me = self.me.clone();
            cx.after(RECHECK_AFTER, move |cx| {
                if let Some(exports) = me.upgrade() {
                    exports.remove_when_drained(cx, served, deadline, done);
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
        let listener = served.acceptor.as_ref().map(|acceptor| {
            acceptor.close();
            acceptor.listener()
        });
        drop(served);
        self.background.run(
            cx,
            move || {
                if let Some(listener) = listener {
                    listener.remove();
                }
                Ok(())
            },
            move |cx, removed| done(cx, removed.map(|()| left)),
        );
    }

    /// Changes the size of a disk, and tells its client. `size` is spelled as in `ram=`, or `auto` for the size that the image has by now.
    /// The result is the new size in bytes.
    pub(crate) fn resize(&self, name: &str, size: &str, may_shrink: bool, done: Done<u64>) {
        let Some(cx) = self.context.upgrade() else { return };
        let wanted = match size {
            OWN_SIZE => Ok(None),
            size => parse_size(size).map(Some).map_err(|error| anyhow!(error)),
        };
        let (wanted, served) = match wanted.and_then(|wanted| Ok((wanted, self.find(name)?))) {
            Ok(both) => both,
            Err(error) => return done(&cx, Err(error)),
        };
        if served.is_resizing.replace(true) {
            let error = anyhow!("{name} is being resized already; wait until that is done");
            return done(&cx, Err(error));
        }
        let device = served.device.clone();
        let resize = {
            let device: Arc<_> = device.clone();
            move || {
                let resized = match wanted {
                    None => device.disk.adopt_size().map(drop),
                    Some(bytes) => device.disk.resize(bytes, may_shrink),
                };
                Ok(resized?)
            }
        };
        self.background
            .run(&cx, resize, move |cx, resized: anyhow::Result<()>| {
                served.is_resizing.set(false);
                // The client compares the size itself, so it is notified even if a former change was the one that succeeded.
                if let Some(acceptor) = &served.acceptor {
                    acceptor.size_may_have_changed();
                }
                done(cx, resized.map(|()| device.disk.size()));
            });
    }

    /// The export of that name, unless it is being removed.
    fn find(&self, name: &str) -> anyhow::Result<Rc<Served>> {
        let served = self.served.borrow();
        match served.iter().find(|served| served.export.log_name() == name) {
            Some(served) if served.is_leaving.get() => {
                bail!("{name} is being removed already; wait until that is done")
            }
            Some(served) => Ok(served.clone()),
            None => bail!("there is no export {name:?}; the command `list` shows their names"),
        }
    }

    /// Whether there is an export of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Fails if an export that is served, or is being opened, has the same name or socket.
    fn check_unique(&self, export: &Export) -> anyhow::Result<()> {
        let (served, opening) = (self.served.borrow(), self.opening.borrow());
        let others = served.iter().map(|served| &served.export).chain(&*opening);
        check_unique(others, export, self.nbd.is_some())
    }

    /// The number of requests that an export has begun, of all clients.
    fn in_flight(&self, served: &Served) -> usize {
        let of_vhost_user = served
            .acceptor
            .as_ref()
            .map_or(0, |acceptor| acceptor.in_flight());
        let of_nbd = self
            .nbd
            .as_ref()
            .map_or(0, |nbd| nbd.in_flight_of(&served.device));
        of_vhost_user + of_nbd
    }

    /// The exports as they are now.
    pub(crate) fn list(&self) -> Vec<ExportState> {
        let state = |served: &Rc<Served>| {
            let (export, acceptor) = (&served.export, &served.acceptor);
            ExportState {
                name: export.log_name(),
                socket: export
                    .socket
                    .as_ref()
                    .map(|socket| socket.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                disk: match &export.source {
                    Source::File(path) => format!("path={}", path.display()),
                    Source::Ram(_) => "ram".to_owned(),
                    Source::Null(_) => "null".to_owned(),
                },
                size: served.device.disk.size(),
                readonly: export.readonly,
                queues: export.queues,
                connected: acceptor.as_ref().is_some_and(|acceptor| acceptor.is_connected()),
                nbd_clients: self.nbd.as_ref().map_or(0, |nbd| nbd.clients(&served.device)),
                serving: acceptor
                    .as_ref()
                    .map(|acceptor| acceptor.serving())
                    .unwrap_or_default(),
                in_flight: self.in_flight(served),
                is_leaving: served.is_leaving.get(),
            }
        };
        self.served.borrow().iter().map(state).collect()
    }

    /// What the exports have done.
    pub(crate) fn figures(&self) -> Vec<ExportFigures> {
        let figures = |served: &Rc<Served>| {
            let acceptor = served.acceptor.as_ref();
            let stats = acceptor.map(|acceptor| acceptor.stats());
            ExportFigures {
                name: served.export.log_name(),
                size: served.device.disk.size(),
                connected: acceptor.is_some_and(|acceptor| acceptor.is_connected()),
                clients: stats.map_or(0, |stats| stats.clients()) + served.nbd.clients(),
                in_flight: self.in_flight(served),
                queues: stats.map(|stats| stats.figures()).unwrap_or_default(),
                nbd: served.nbd.requests().map(|requests| requests.figures(0)),
            }
        };
        self.served.borrow().iter().map(figures).collect()
    }

    /// All acceptors.
    pub(crate) fn acceptors(&self) -> Vec<Rc<Acceptor>> {
        let served = self.served.borrow();
        served
            .iter()
            .filter_map(|served| served.acceptor.clone())
            .collect()
    }
}

/// What the loop and its exports have done.
pub(crate) fn snapshot(cx: &Context, exports: &Exports) -> Snapshot {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let stats = cx.remote().stats();
    Snapshot {
        at_ns: cx.now(ClockId::Monotonic).as_nanos(),
        exports: exports.figures(),
        loops: vec![LoopFigures {
            name: LOOP.to_owned(),
            iterations: stats.iterations,
            events: stats.events,
            sleeps: stats.blocked,
            slept_ns: ns(stats.slept),
            poll_hits: stats.poll_hits,
            poll_misses: stats.poll_misses,
            polled_ns: ns(stats.spun),
            kicks: stats.kicks,
        }],
    }
}

/// Fails if an export cannot be reached, or one of the others has the same name or socket.
pub(crate) fn check_unique<'a>(
    others: impl IntoIterator<Item = &'a Export>,
    export: &Export,
    has_nbd: bool,
) -> anyhow::Result<()> {
    let (name, nbd_name) = (export.log_name(), export.nbd_name());
    if export.socket.is_none() && !has_nbd {
        bail!(
            "the export {name} has no socket; add socket=PATH, or serve it over NBD with --nbd /tmp/nbd.sock, for example"
        );
    }
    for other in others {
        if let Some(socket) = &export.socket
            && other.socket.as_ref() == Some(socket)
        {
            bail!(
                "two exports name the socket {}; each needs a socket of its own",
                socket.display()
            );
        }
        if has_nbd && other.nbd_name() == nbd_name {
            bail!("two exports have the name {nbd_name} for NBD clients; add name=TEXT to one of them");
        }
        if other.log_name() == name {
            bail!("two exports have the name {name}; each needs a name of its own");
        }
    }
    Ok(())
}
