//! The daemon without its process: its loops, all exports, and a handle that stops it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_context::{Context, Wait};
use aio_metrics::ContextCollector;
use anyhow::Context as _;
use rustix::process::{Resource, Rlimit};

use crate::advice;
use crate::background::Background;
use crate::cli::Args;
use crate::control::{Control, Controlled};
use crate::exports::{Exports, MOST_WAIT, check_threads, check_unique};
use crate::figures::{ExportFigures, merge};
use crate::loops::{Ending, Finished, Local, Loops, MAIN, Setup};
use crate::metrics::Metrics;
use crate::nbd::Nbd;
use crate::opened::Opened;
use crate::polling::Settings;
use crate::process::Process;
use crate::stopper::Stopper;

/// The time limit for the reply of a loop that has completed its requests, or whose time for that is over.
const REPLY_TIME: Duration = Duration::from_secs(1);

/// All exports, served by the thread that made this value and by the I/O threads that it has started.
#[derive(Debug)]
pub struct Server {
    /// The control socket and the metrics. They end first.
    control: Option<Control>,
    metrics: Option<Metrics>,
    exports: Rc<Exports>,
    loops: Rc<Loops>,
    context: Context,
    stopper: Stopper,
}

impl Server {
    /// Opens all disks and listens at all sockets. Clients can connect from now on, and are served by [`run`](Self::run).
    ///
    /// # Errors
    /// If a disk cannot be opened, a socket cannot be bound, or the loop cannot be built; with the remedy.
    pub fn new(args: &Args) -> anyhow::Result<Self> {
        Self::in_process(args, &Process::default())
    }

    /// Like [`new`](Self::new), with the inputs from a service manager, and the log of the process.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new).
    pub fn in_process(args: &Args, process: &Process) -> anyhow::Result<Self> {
        for (at, export) in args.exports.iter().enumerate() {
            check_unique(&args.exports[..at], export, !args.nbd.is_empty())?;
            check_threads(export, args.iothreads)?;
        }
        raise_descriptor_limit(args);
        for warning in advice::warnings(args) {
            tracing::warn!("{warning}");
        }
        let has_images = args
            .exports
            .iter()
            .any(|export| matches!(export.source, crate::Source::File(_)));
        let setup = Setup {
            backend: args.engine.backend(args.backend, has_images),
            engine: args.engine,
            polling: Settings::of(args)?,
            record_waits: args.record_waits.clone(),
            nbd: !args.nbd.is_empty(),
        };
        let (context, polling) = setup.context(MAIN, true)?;
        let stopper = Stopper::new(&context);
        let nbd = setup.nbd.then(|| Nbd::new(&context));
        let own = Local::new(&context, MAIN.into(), args.engine, polling, nbd.clone());
        let loops = Rc::new(Loops::start(
            own,
            args.iothreads,
            &setup,
            Ending::new(stopper.clone()),
        )?);
        let background = Background::new(&context);
        let sockets = process.sockets.clone();
        let exports = Exports::new(&context, background.clone(), sockets, loops.clone());
        let mut server = Self {
            control: None,
            metrics: None,
            exports,
            loops,
            context,
            stopper,
        };
        if let Some(warning) = args.engine.warning(&server.context) {
            tracing::warn!("{warning}");
        }
        if has_images {
            let by = args.engine.description(&server.context);
            tracing::info!(engine = ?args.engine, "requests of images are executed by {by}");
        }
        for export in &args.exports {
            let opened = Opened::open(export.clone(), &process.sockets)?;
            server.exports.serve(&server.context, opened)?;
        }
        server.exports.watch_images(&server.context);
        for address in &args.nbd {
            if let Some(nbd) = &nbd {
                nbd.listen(&server.context, address, &process.sockets)?;
            }
        }
        for name in process.sockets.unused() {
            tracing::warn!(
                "the socket {name:?} was passed, and no export uses it; add socket=fd:{name} to one, or --nbd fd:{name}"
            );
        }
        if let Some(address) = args.metrics {
            let contexts = ContextCollector::new();
            contexts.add(MAIN, server.context.remote());
            for (name, remote) in server.loops.remotes() {
                contexts.add(name, remote);
            }
            let exports = server.exports.clone();
            let figures = move |cx: &Context, show| exports.snapshot(cx, show);
            let metrics = Metrics::listen(&server.context, address, background.clone(), contexts, figures)?;
            server.metrics = Some(metrics);
        }
        if let Some(path) = &args.control {
            let controlled = Controlled {
                metrics: server.metrics.as_ref().map(Metrics::address),
                exports: server.exports.clone(),
                log_level: process.log_level.clone(),
                background,
            };
            server.control = Some(Control::listen(&server.context, path, controlled)?);
        }
        Ok(server)
    }

    /// Returns the event loop of this thread.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Returns all exports.
    #[cfg(test)]
    pub(crate) fn exports(&self) -> &Rc<Exports> {
        &self.exports
    }

    /// Serves the metrics to a client that is already connected.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn join_metrics(&self, client: std::os::fd::OwnedFd) {
        if let Some(metrics) = &self.metrics {
            metrics.join(&self.context, client);
        }
    }

    /// Returns a handle that stops the server.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Returns `true` if the server is to stop, or has stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopper.is_stopped()
    }

    /// Serves until the server is stopped.
    ///
    /// # Errors
    /// If the system refuses to wait, or an I/O thread has ended. [`finish`](Self::finish) then still
    /// completes the requests of the other threads.
    pub fn run(&self) -> io::Result<()> {
        while !self.is_stopped() {
            self.context.poll(Wait::Block)?;
        }
        self.loops.failure().map_or(Ok(()), Err)
    }

    /// Stops taking requests, and completes the requests taken before. Requests that are not complete after
    /// five seconds are logged.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn finish(&self) -> io::Result<()> {
        let deadline = Instant::now() + MOST_WAIT;
        let own = self.loops.own();
        own.finish();
        let finished = self.finish_others(deadline);
        loop {
            let left = |until: Instant| until.saturating_duration_since(Instant::now());
            let for_own = if own.is_busy() {
                left(deadline)
            } else {
                Duration::ZERO
            };
            let for_others = match finished.missing.get() {
                0 => Duration::ZERO,
                _ => left(deadline + REPLY_TIME),
            };
            let longest = for_own.max(for_others);
            if longest.is_zero() {
                break;
            }
            self.context.poll(Wait::AtMost(longest))?;
        }
        let mut all = vec![own.finished()];
        all.extend(finished.results.take());
        report(all);
        Ok(())
    }

    /// Finishes the loops of other threads. Their results arrive while this loop is polled.
    fn finish_others(&self, deadline: Instant) -> Rc<Finishing> {
        let finishing = Rc::new(Finishing::default());
        for index in 1..self.loops.count() {
            finishing.missing.set(finishing.missing.get() + 1);
            let finished = finishing.clone();
            self.loops.call(
                &self.context,
                index,
                move |cx, local, reply| local.finish_until(cx, deadline, reply),
                Box::new(move |_, result| {
                    finished.missing.set(finished.missing.get() - 1);
                    finished.results.borrow_mut().extend(result);
                }),
            );
        }
        finishing
    }
}

/// The results of loops that finish.
#[derive(Default)]
struct Finishing {
    missing: Cell<usize>,
    results: RefCell<Vec<Finished>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.loops.stop();
        self.loops.own().close();
        // A loop that does not respond has not removed its sockets.
        self.exports.remove_sockets();
    }
}

/// Logs the incomplete requests, and the figures of all exports.
fn report(all: Vec<Finished>) {
    let mut incomplete: BTreeMap<&str, usize> = BTreeMap::new();
    for (export, count) in all.iter().flat_map(|finished| &finished.incomplete) {
        *incomplete.entry(export).or_default() += count;
    }
    for (export, count) in incomplete {
        tracing::warn!(
            export,
            "ends with {count} requests that the image has not completed within {MOST_WAIT:?}; the driver regards them as outstanding"
        );
    }
    let of_nbd: usize = all.iter().map(|finished| finished.incomplete_nbd).sum();
    if of_nbd > 0 {
        tracing::warn!(
            "ends with {of_nbd} requests of NBD clients that were not completed, or whose replies were not read, within {MOST_WAIT:?}"
        );
    }
    for export in merge(all.into_iter().flat_map(|finished| finished.figures)) {
        summarize(&export);
    }
}

/// Logs the figures of an export.
fn summarize(export: &ExportFigures) {
    let sums = export.sums();
    tracing::info!(
        export = export.name,
        thread = export.thread,
        clients = export.clients,
        requests = sums.requests,
        bytes_read = sums.read,
        bytes_written = sums.written,
        errors = sums.errors,
        p50_us = sums.latency.quantile_us(0.5),
        p99_us = sums.latency.quantile_us(0.99),
        poll_hits = sums.poll_hits,
        kicks = sums.kicks,
        calls = sums.calls,
        "summary"
    );
}

/// Serves on this thread until it is stopped. Calls `ready` with a [`Stopper`] once every socket accepts clients.
///
/// # Errors
/// The errors of [`Server::new`] and [`Server::run`].
pub fn serve(args: &Args, ready: impl FnOnce(Stopper)) -> anyhow::Result<()> {
    let server = Server::new(args)?;
    ready(server.stopper());
    let ended = server.run();
    // If a loop has failed, the others still complete their requests.
    let finished = server.finish();
    ended.and(finished).context("an event loop has failed")
}

/// Raises the soft limit of open files to the hard limit, and warns if that limit may be too low.
fn raise_descriptor_limit(args: &Args) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    // Each export needs a socket, a disk and some memory, and each queue a kick and a call.
    let needed: u64 = args
        .exports
        .iter()
        .map(|export| 8 + 2 * u64::from(advice::likely_queues(export)))
        .sum::<u64>()
        + 16
        + 8 * args.iothreads as u64
        + if args.nbd.is_empty() { 0 } else { 64 };
    if let Some(most) = limit.maximum
        && most < needed
    {
        tracing::warn!(
            "if all queues are used, {needed} open files are needed and {most} allowed: raise the hard \
                        limit (ulimit -Hn, or LimitNOFILE of a service)"
        );
    }
}

#[cfg(test)]
mod tests;
