//! [`Exports`]: the exports of a daemon, which can be added, removed and resized while it runs.
//!
//! Each is assigned to one of the [`Loops`], which serves it. What can wait for a file server or another process is done in the
//! [background](Background), and the first loop continues with the result.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aio_context::{ClockId, Context, WeakContext};
use anyhow::{anyhow, bail};

use crate::background::Background;
use crate::disk::Source;
use crate::export::{Export, parse_size};
use crate::figures::{ExportState, List, LoopState, Snapshot};
use crate::loops::{Activity, Done, ExportId, Local, Loops};
use crate::opened::Opened;
use crate::process::PassedSockets;
use crate::request::Device;
use crate::socket::Listener;

/// The time that outstanding requests get when their export is removed, or the daemon ends.
pub(crate) const MOST_WAIT: Duration = Duration::from_secs(5);
/// The size that means the one that an image has by now.
const OWN_SIZE: &str = "auto";

/// All exports of a daemon. The value belongs to the first loop.
#[derive(Debug)]
pub(crate) struct Exports {
    me: Weak<Self>,
    context: WeakContext,
    background: Background,
    /// Those that were passed to the process.
    sockets: PassedSockets,
    loops: Rc<Loops>,
    entries: RefCell<Vec<Rc<Entry>>>,
    /// Exports that are being opened, and the indexes of their loops.
    opening: RefCell<Vec<(Export, usize)>>,
    next_id: Cell<ExportId>,
}

/// An export.
#[derive(Debug)]
struct Entry {
    id: ExportId,
    export: Export,
    device: Arc<Device>,
    listener: Option<Arc<Listener>>,
    /// The index of the loop that serves it.
    thread: usize,
    /// It takes no requests any more.
    is_leaving: Cell<bool>,
    is_resizing: Cell<bool>,
}

impl Exports {
    pub(crate) fn new(
        cx: &Context,
        background: Background,
        sockets: PassedSockets,
        loops: Rc<Loops>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            context: cx.downgrade(),
            background,
            sockets,
            loops,
            entries: RefCell::default(),
            opening: RefCell::default(),
            next_id: Cell::default(),
        })
    }

    /// Serves an export from now on. Waits for its loop.
    ///
    /// # Errors
    /// If the loop cannot wait for its clients.
    pub(crate) fn serve(&self, cx: &Context, opened: Opened) -> anyhow::Result<()> {
        let thread = self.thread_of(&opened.export)?;
        let entry = self.entry(&opened, thread);
        let id = entry.id;
        self.loops
            .run_and_wait(cx, thread, move |cx, local| local.serve(cx, id, opened))?;
        self.insert(entry);
        Ok(())
    }

    /// Opens an export and serves it.
    pub(crate) fn add(&self, export: Export, done: Done<()>) {
        let Some(cx) = self.context.upgrade() else { return };
        let thread = self.check_unique(&export).and_then(|()| self.thread_of(&export));
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => return done(&cx, Err(error)),
        };
        self.opening.borrow_mut().push((export.clone(), thread));
        let (me, opening) = (self.me.clone(), export.clone());
        let sockets = self.sockets.clone();
        let open = move || Opened::open(export, &sockets);
        self.background.run(&cx, open, move |cx, opened| {
            let Some(exports) = me.upgrade() else { return };
            let opened = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    exports.is_opened(&opening);
                    return done(cx, Err(error));
                }
            };
            let entry = exports.entry(&opened, thread);
            let id = entry.id;
            exports.loops.call(
                cx,
                thread,
                move |cx, local, reply| {
                    let served = local.serve(cx, id, opened);
                    reply.send(cx, served);
                },
                Box::new(move |cx, served| {
                    if let Some(exports) = me.upgrade() {
                        exports.is_opened(&opening);
                        if served.is_ok() {
                            exports.insert(entry);
                        }
                    }
                    done(cx, served);
                }),
            );
        });
    }

    fn entry(&self, opened: &Opened, thread: usize) -> Entry {
        Entry {
            id: self.next_id.replace(self.next_id.get() + 1),
            export: opened.export.clone(),
            device: opened.device.clone(),
            listener: opened.listener.clone(),
            thread,
            is_leaving: Cell::default(),
            is_resizing: Cell::default(),
        }
    }

    fn insert(&self, entry: Entry) {
        if entry.thread > 0
            && let Some(nbd) = self.loops.own().nbd()
            && let Some(move_client) = self.loops.move_clients_to(entry.thread)
        {
            // Clients choose it on this loop, and are served on its own.
            nbd.catalog()
                .add_elsewhere(entry.export.nbd_name(), entry.device.clone(), move_client);
        }
        self.entries.borrow_mut().push(Rc::new(entry));
    }

    fn is_opened(&self, export: &Export) {
        self.opening.borrow_mut().retain(|(other, _)| other != export);
    }

    /// The index of the loop for an export: the one that it names, or that of the fewest exports.
    fn thread_of(&self, export: &Export) -> anyhow::Result<usize> {
        let count = self.loops.count();
        if export.iothread.is_some() {
            return check_thread(export, count);
        }
        let mut loads = vec![0_usize; count];
        let (entries, opening) = (self.entries.borrow(), self.opening.borrow());
        let served = entries.iter().map(|entry| entry.thread);
        for thread in served.chain(opening.iter().map(|(_, thread)| *thread)) {
            loads[thread] += 1;
        }
        let least = (0..count).min_by_key(|thread| loads[*thread]);
        Ok(least.unwrap_or_default())
    }

    /// Takes no more requests for the export, completes those that were taken, ends its client's connection and removes its socket.
    /// The result is the number of requests that its image has not completed in time.
    pub(crate) fn remove(&self, name: &str, done: Done<usize>) {
        let Some(cx) = self.context.upgrade() else { return };
        let entry = match self.find(name) {
            Ok(entry) => entry,
            Err(error) => return done(&cx, Err(error)),
        };
        entry.is_leaving.set(true);
        if let Some(nbd) = self.loops.own().nbd() {
            nbd.catalog().remove(&entry.device);
        }
        let (me, id, deadline) = (self.me.clone(), entry.id, Instant::now() + MOST_WAIT);
        let thread = entry.thread;
        self.loops.call(
            &cx,
            thread,
            move |cx, local, reply| local.remove(cx, id, deadline, reply),
            Box::new(move |cx, incomplete: anyhow::Result<usize>| {
                let Some(exports) = me.upgrade() else { return };
                exports.entries.borrow_mut().retain(|entry| entry.id != id);
                let listener = entry.listener.clone();
                drop(entry);
                let remove_socket = move || {
                    if let Some(listener) = listener {
                        listener.remove();
                    }
                    Ok(())
                };
                exports.background.run(cx, remove_socket, |cx, removed| {
                    done(cx, removed.and(incomplete));
                });
            }),
        );
    }

    /// Removes the paths of all sockets that are still there.
    pub(crate) fn remove_sockets(&self) {
        let entries = self.entries.borrow();
        for listener in entries.iter().filter_map(|entry| entry.listener.as_ref()) {
            listener.remove();
        }
    }

    /// Changes the size of a disk, and notifies its client. `size` is spelled as in `ram=`, or `auto` for the size that the image has by
    /// now. The result is the new size in bytes.
    pub(crate) fn resize(&self, name: &str, size: &str, may_shrink: bool, done: Done<u64>) {
        let Some(cx) = self.context.upgrade() else { return };
        let wanted = match size {
            OWN_SIZE => Ok(None),
            size => parse_size(size).map(Some).map_err(|error| anyhow!(error)),
        };
        let (wanted, entry) = match wanted.and_then(|wanted| Ok((wanted, self.find(name)?))) {
            Ok(both) => both,
            Err(error) => return done(&cx, Err(error)),
        };
        if entry.is_resizing.replace(true) {
            let error = anyhow!("{name} is being resized already; wait until that is done");
            return done(&cx, Err(error));
        }
        let device = entry.device.clone();
        let resize = move || {
            let resized = match wanted {
                None => device.disk.adopt_size().map(drop),
                Some(bytes) => device.disk.resize(bytes, may_shrink),
            };
            Ok(resized?)
        };
        let me = self.me.clone();
        self.background
            .run(&cx, resize, move |cx, resized: anyhow::Result<()>| {
                entry.is_resizing.set(false);
                let size = resized.map(|()| entry.device.disk.size());
                let Some(exports) = me.upgrade() else { return };
                // The client compares the size itself, so it is notified even if a former change was the one that succeeded.
                let id = entry.id;
                exports.loops.call(
                    cx,
                    entry.thread,
                    move |cx, local, reply| {
                        local.size_may_have_changed(id);
                        reply.send(cx, Ok(()));
                    },
                    Box::new(move |cx, notified: anyhow::Result<()>| {
                        done(cx, notified.and(size));
                    }),
                );
            });
    }

    /// The export of that name, unless it is being removed.
    fn find(&self, name: &str) -> anyhow::Result<Rc<Entry>> {
        let entries = self.entries.borrow();
        match entries.iter().find(|entry| entry.export.log_name() == name) {
            Some(entry) if entry.is_leaving.get() => {
                bail!("{name} is being removed already; wait until that is done")
            }
            Some(entry) => Ok(entry.clone()),
            None => bail!("there is no export {name:?}; the command `list` shows their names"),
        }
    }

    /// The loops.
    pub(crate) fn loops(&self) -> &Rc<Loops> {
        &self.loops
    }

    /// The index of the loop that serves the export of that name.
    pub(crate) fn loop_of(&self, name: &str) -> Option<usize> {
        self.find(name).ok().map(|entry| entry.thread)
    }

    /// Fails if an export that is served, or is being opened, has the same name or socket.
    fn check_unique(&self, export: &Export) -> anyhow::Result<()> {
        let (entries, opening) = (self.entries.borrow(), self.opening.borrow());
        let others = entries.iter().map(|entry| &entry.export);
        let others = others.chain(opening.iter().map(|(export, _)| export));
        check_unique(others, export, self.loops.own().nbd().is_some())
    }

    /// The exports and loops as they are now. `metrics` is the address of the metrics.
    pub(crate) fn list(
        &self,
        cx: &Context,
        metrics: Option<String>,
        done: impl FnOnce(&Context, List) + 'static,
    ) {
        let me = self.me.clone();
        let now = |cx: &Context, local: &Local| (local.activities(), local.state(cx));
        self.loops.gather(cx, now, move |cx, gathered| {
            let Some(exports) = me.upgrade() else { return };
            let mut activities = Vec::new();
            let mut loops = Vec::new();
            for (index, result) in gathered.into_iter().enumerate() {
                let (of_loop, state) = result
                    .unwrap_or_else(|| (Vec::new(), LoopState::without_response(exports.loops.name(index))));
                activities.extend(of_loop);
                loops.push(state);
            }
            let entries = exports.entries.borrow();
            let list = List {
                exports: entries
                    .iter()
                    .map(|entry| exports.state(entry, &activities))
                    .collect(),
                loops,
                metrics,
            };
            drop(entries);
            done(cx, list);
        });
    }

    fn state(&self, entry: &Entry, activities: &[Activity]) -> ExportState {
        let export = &entry.export;
        let activity = activities.iter().find(|activity| activity.id == entry.id);
        let activity = activity.copied().unwrap_or_default();
        ExportState {
            name: export.log_name(),
            thread: self.loops.name(entry.thread).to_owned(),
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
            size: entry.device.disk.size(),
            readonly: export.readonly,
            queues: export.queues,
            connected: activity.connected,
            nbd_clients: activity.nbd_clients,
            serving: activity.serving,
            in_flight: activity.in_flight,
            is_leaving: entry.is_leaving.get(),
        }
    }

    /// What the loops and their exports have done. Those of a loop that does not respond are left out.
    pub(crate) fn snapshot(&self, cx: &Context, done: impl FnOnce(&Context, Snapshot) + 'static) {
        let now = |cx: &Context, local: &Local| (local.export_figures(), local.figures(cx));
        self.loops.gather(cx, now, move |cx, gathered| {
            let mut exports = Vec::new();
            let mut loops = Vec::new();
            for (of_loop, figures) in gathered.into_iter().flatten() {
                exports.extend(of_loop);
                loops.push(figures);
            }
            exports.sort_by_key(|(id, _)| *id);
            let snapshot = Snapshot {
                at_ns: cx.now(ClockId::Monotonic).as_nanos(),
                exports: exports.into_iter().map(|(_, figures)| figures).collect(),
                loops,
            };
            done(cx, snapshot);
        });
    }
}

/// The index of the loop that an export names, if it does.
///
/// # Errors
/// If there are not so many loops.
pub(crate) fn check_thread(export: &Export, count: usize) -> anyhow::Result<usize> {
    match export.iothread {
        Some(thread) if thread >= count => bail!(
            "the export {} has iothread={thread}, and the daemon has {}; start it with --iothreads {}, or name a lower number",
            export.log_name(),
            match count {
                1 => "only the I/O thread 0".to_owned(),
                count => format!("the I/O threads 0 to {}", count - 1),
            },
            thread + 1
        ),
        thread => Ok(thread.unwrap_or_default()),
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
