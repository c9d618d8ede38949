//! [`Exports`]: the exports of a daemon, which can be added, removed and resized while it runs.
//!
//! Each export is assigned to one of the [`Loops`], which serves it. Work that may wait for a file server or
//! another process runs in the [background](Background), and the first loop continues with the result.

mod checks;
mod images;
mod listing;
mod memory;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aio_context::{Context, WeakContext};
use anyhow::{anyhow, bail};

pub(crate) use checks::{check_threads, check_unique};

use crate::background::Background;
use crate::calls::Done;
use crate::export::{Export, IoThreads, parse_size};
use crate::figures::ImageState;
use crate::hosted::ExportId;
use crate::loops::{Local, Loops};
use crate::opened::Opened;
use crate::process::PassedSockets;
use crate::remote_hosts::Peer;
use crate::request::Device;
use crate::socket::Listener;

/// The time limit for outstanding requests when their export is removed, or the daemon ends.
pub(crate) const MOST_WAIT: Duration = Duration::from_secs(5);
/// The size that stands for the present size of an image.
const OWN_SIZE: &str = "auto";

/// All exports of a daemon. The value belongs to the first loop.
#[derive(Debug)]
pub(crate) struct Exports {
    me: Weak<Self>,
    context: WeakContext,
    background: Background,
    /// The sockets that were passed to the process.
    sockets: PassedSockets,
    loops: Rc<Loops>,
    entries: RefCell<Vec<Rc<Entry>>>,
    /// Exports that are being opened, and the indexes of their loops.
    opening: RefCell<Vec<(Export, Vec<usize>)>>,
    next_id: Cell<ExportId>,
    /// Set while a thread checks the paths of images.
    is_checking: Cell<bool>,
}

/// An export.
#[derive(Debug)]
struct Entry {
    id: ExportId,
    export: Export,
    device: Arc<Device>,
    listener: Option<Arc<Listener>>,
    /// The indexes of the loops that serve the export. The first loop has its sessions.
    threads: Vec<usize>,
    /// Set when the export takes no more requests.
    is_leaving: Cell<bool>,
    is_resizing: Cell<bool>,
    /// The state of its image at the last check.
    image: Cell<ImageState>,
}

impl Entry {
    /// Returns the index of the loop that has its sessions.
    fn home(&self) -> usize {
        self.threads[0]
    }

    /// Returns the indexes of the loops that serve queues for the first one.
    fn others(&self) -> &[usize] {
        &self.threads[1..]
    }
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
            is_checking: Cell::default(),
        })
    }

    /// Starts to serve an export. Waits for its loops.
    ///
    /// # Errors
    /// If the loop cannot wait for its clients.
    pub(crate) fn serve(&self, cx: &Context, opened: Opened) -> anyhow::Result<()> {
        let threads = self.threads_of(&opened.export)?;
        let entry = self.entry(&opened, threads);
        let id = entry.id;
        for thread in entry.others() {
            let (export, device) = (opened.export.clone(), opened.device.clone());
            let serve = move |cx: &Context, local: &Local| {
                local.serve_queues(cx, id, &export, device);
                Ok(())
            };
            self.loops.run_and_wait(cx, *thread, serve)?;
        }
        let others = self.peers(&entry);
        let serve = move |cx: &Context, local: &Local| local.serve(cx, id, opened, others);
        self.loops.run_and_wait(cx, entry.home(), serve)?;
        self.insert(entry);
        Ok(())
    }

    /// Returns the loops that serve queues for the first one.
    fn peers(&self, entry: &Entry) -> Vec<Peer> {
        entry
            .others()
            .iter()
            .map(|thread| self.loops.peer(*thread))
            .collect()
    }

    /// Opens an export and serves it.
    pub(crate) fn add(&self, export: Export, done: Done<()>) {
        let Some(cx) = self.context.upgrade() else { return };
        let threads = self.check_unique(&export).and_then(|()| self.threads_of(&export));
        let threads = match threads {
            Ok(threads) => threads,
            Err(error) => return done(&cx, Err(error)),
        };
        self.opening.borrow_mut().push((export.clone(), threads.clone()));
        let (me, opening) = (self.me.clone(), export.clone());
        let sockets = self.sockets.clone();
        let open = move || Opened::open(export, &sockets);
        self.background.run(&cx, open, move |cx, opened| {
            let Some(exports) = me.upgrade() else { return };
            match opened {
                Ok(opened) => exports.serve_opened(cx, opened, threads, done),
                Err(error) => {
                    exports.is_opened(&opening);
                    done(cx, Err(error));
                }
            }
        });
    }

    /// Serves an opened export: first on the loops that serve some of its queues, then on its own.
    fn serve_opened(&self, cx: &Context, opened: Opened, threads: Vec<usize>, done: Done<()>) {
        let entry = self.entry(&opened, threads);
        let (id, others, me) = (entry.id, self.peers(&entry), self.me.clone());
        for thread in entry.others() {
            let (export, device) = (opened.export.clone(), opened.device.clone());
            // A loop executes this before it gets a queue of the first client.
            self.loops.call(
                cx,
                *thread,
                move |cx, local, reply| {
                    local.serve_queues(cx, id, &export, device);
                    reply.send(cx, Ok(()));
                },
                Box::new(|_, _| ()),
            );
        }
        self.loops.call(
            cx,
            entry.home(),
            move |cx, local, reply| {
                let served = local.serve(cx, id, opened, others);
                reply.send(cx, served);
            },
            Box::new(move |cx, served| {
                if let Some(exports) = me.upgrade() {
                    exports.is_opened(&entry.export);
                    match served {
                        Ok(()) => exports.insert(entry),
                        Err(_) => exports.remove_queues(cx, &entry),
                    }
                }
                done(cx, served);
            }),
        );
    }

    /// Removes an export that its own loop cannot serve from the other loops.
    fn remove_queues(&self, cx: &Context, entry: &Entry) {
        let (id, now) = (entry.id, Instant::now());
        let remove = move |cx: &Context, local: &Rc<Local>, reply| local.remove(cx, id, now, reply);
        self.loops
            .call_all(cx, entry.others(), remove, Box::new(|_, _| ()));
    }

    fn entry(&self, opened: &Opened, threads: Vec<usize>) -> Entry {
        Entry {
            id: self.next_id.replace(self.next_id.get() + 1),
            export: opened.export.clone(),
            device: opened.device.clone(),
            listener: opened.listener.clone(),
            threads,
            is_leaving: Cell::default(),
            is_resizing: Cell::default(),
            image: Cell::default(),
        }
    }

    fn insert(&self, entry: Entry) {
        if entry.home() > 0
            && let Some(nbd) = self.loops.own().nbd()
            && let Some(move_client) = self.loops.move_clients_to(entry.home())
        {
            // Clients choose the export here, and are served on its own loop.
            nbd.catalog()
                .add_elsewhere(entry.export.nbd_name(), entry.device.clone(), move_client);
        }
        self.entries.borrow_mut().push(Rc::new(entry));
    }

    fn is_opened(&self, export: &Export) {
        self.opening.borrow_mut().retain(|(other, _)| other != export);
    }

    /// Returns the indexes of the loops for an export: those it names, or the one with the fewest exports.
    fn threads_of(&self, export: &Export) -> anyhow::Result<Vec<usize>> {
        let count = self.loops.count();
        check_threads(export, count)?;
        match &export.iothreads {
            IoThreads::Any => {}
            IoThreads::These(threads) => return Ok(threads.clone()),
            IoThreads::All if export.socket.is_none() => return Ok(vec![0]),
            IoThreads::All => return Ok((0..count.min(export.queues.into())).collect()),
        }
        let mut loads = vec![0_usize; count];
        let (entries, opening) = (self.entries.borrow(), self.opening.borrow());
        let served = entries.iter().flat_map(|entry| &entry.threads);
        for thread in served.chain(opening.iter().flat_map(|(_, threads)| threads)) {
            loads[*thread] += 1;
        }
        let least = (0..count).min_by_key(|thread| loads[*thread]);
        Ok(vec![least.unwrap_or_default()])
    }

    /// Takes no more requests for the export, completes the others, ends its client's connection and removes
    /// its socket. The result is the number of requests that are not complete in time.
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
        let (me, id) = (self.me.clone(), entry.id);
        // First the loop stops handling messages of clients, so that they pass no queue to another loop.
        self.loops.call(
            &cx,
            entry.home(),
            move |cx, local, reply| {
                local.finish_export(id);
                reply.send(cx, Ok(()));
            },
            Box::new(move |cx, finished: anyhow::Result<()>| {
                let Some(exports) = me.upgrade() else { return };
                if let Err(error) = finished {
                    return done(cx, Err(error));
                }
                exports.remove_from_loops(
                    cx,
                    &entry,
                    Box::new(move |cx, incomplete| {
                        if let Some(exports) = me.upgrade() {
                            exports.remove_entry(cx, id, incomplete, done);
                        }
                    }),
                );
            }),
        );
    }

    /// Removes an export from its loops, from that of its sessions last, because the end of a session stops
    /// all queues at once. The result is the number of incomplete requests.
    fn remove_from_loops(&self, cx: &Context, entry: &Entry, done: Done<usize>) {
        let (id, home, deadline) = (entry.id, entry.home(), Instant::now() + MOST_WAIT);
        let remove = move |cx: &Context, local: &Rc<Local>, reply| local.remove(cx, id, deadline, reply);
        let loops = self.loops.clone();
        self.loops.call_all(
            cx,
            entry.others(),
            remove,
            Box::new(move |cx, of_others: anyhow::Result<Vec<usize>>| {
                let add = move |cx: &Context, of_home: anyhow::Result<usize>| {
                    let of_others = of_others.map(|counts| counts.iter().sum::<usize>());
                    done(cx, of_others.and_then(|count| Ok(count + of_home?)));
                };
                loops.call(cx, home, remove, Box::new(add));
            }),
        );
    }

    /// Removes the entry of an export that the loops no longer serve.
    fn remove_entry(&self, cx: &Context, id: ExportId, incomplete: anyhow::Result<usize>, done: Done<usize>) {
        let removed = {
            let mut entries = self.entries.borrow_mut();
            let at = entries.iter().position(|entry| entry.id == id);
            at.map(|at| entries.remove(at))
        };
        let listener = removed.and_then(|entry| entry.listener.clone());
        let remove_socket = move || {
            if let Some(listener) = listener {
                listener.remove();
            }
            Ok(())
        };
        self.background.run(cx, remove_socket, |cx, removed| {
            done(cx, removed.and(incomplete));
        });
    }

    /// Removes the remaining paths of all sockets.
    pub(crate) fn remove_sockets(&self) {
        let entries = self.entries.borrow();
        for listener in entries.iter().filter_map(|entry| entry.listener.as_ref()) {
            listener.remove();
        }
    }

    /// Changes the size of a disk, and notifies its client. `size` has the form of `ram=`, or is `auto` for
    /// the size of the image. The result is the new size in bytes.
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
            match wanted {
                None => device.disk.adopt_size().map(drop)?,
                Some(bytes) => device.disk.resize(bytes, may_shrink)?,
            }
            Ok(device.disk.image_state())
        };
        let me = self.me.clone();
        self.background
            .run(&cx, resize, move |cx, resized: anyhow::Result<ImageState>| {
                entry.is_resizing.set(false);
                let size = resized.map(|image| {
                    entry.has_image(image);
                    entry.device.disk.size()
                });
                let Some(exports) = me.upgrade() else { return };
                // A client is notified also after a failure: an earlier change may have succeeded.
                let id = entry.id;
                exports.loops.call(
                    cx,
                    entry.home(),
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

    /// Returns the export `name`, unless it is being removed.
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

    /// Returns the loops.
    pub(crate) fn loops(&self) -> &Rc<Loops> {
        &self.loops
    }

    /// Returns the indexes of the loops that serve the export `name`.
    pub(crate) fn loops_of(&self, name: &str) -> Option<Vec<usize>> {
        self.find(name).ok().map(|entry| entry.threads.clone())
    }

    /// Fails if an export that is served, or is being opened, has the same name or socket.
    fn check_unique(&self, export: &Export) -> anyhow::Result<()> {
        let (entries, opening) = (self.entries.borrow(), self.opening.borrow());
        let others = entries.iter().map(|entry| &entry.export);
        let others = others.chain(opening.iter().map(|(export, _)| export));
        check_unique(others, export, self.loops.own().nbd().is_some())
    }
}

#[cfg(test)]
mod tests;
