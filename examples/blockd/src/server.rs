//! The daemon without its process: one context, all exports, and a handle that stops it.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use aio_context::{Context, Remote, Wait};
use anyhow::Context as _;
use rustix::process::{Resource, Rlimit};

use crate::advice;
use crate::background::Background;
use crate::cli::Args;
use crate::control::{Control, Controlled};
use crate::exports::{Exports, MOST_WAIT, check_unique, snapshot};
use crate::figures::ExportFigures;
use crate::metrics::Metrics;
use crate::nbd::Nbd;
use crate::opened::Opened;
use crate::polling::Polling;
use crate::process::Process;

/// All exports, served by the thread that made this value.
#[derive(Debug)]
pub struct Server {
    /// These end first.
    control: Option<Control>,
    metrics: Option<Metrics>,
    exports: Rc<Exports>,
    nbd: Option<Rc<Nbd>>,
    context: Context,
    stop: Arc<AtomicBool>,
}

/// Stops a [`Server`], from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    remote: Remote,
}

impl Stopper {
    /// Makes [`Server::run`] return after the present iteration.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.remote.notify();
    }
}

impl Server {
    /// Opens all disks and listens at all sockets. Clients can connect from now on, and are served by [`run`](Self::run).
    ///
    /// # Errors
    /// If a disk cannot be opened, a socket cannot be bound, or the loop cannot be built; with the remedy.
    pub fn new(args: &Args) -> anyhow::Result<Self> {
        Self::in_process(args, &Process::default())
    }

    /// As [`new`](Self::new), with what the process has got from its service manager, and its log.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_process(args: &Args, process: &Process) -> anyhow::Result<Self> {
        for (at, export) in args.exports.iter().enumerate() {
            check_unique(&args.exports[..at], export, !args.nbd.is_empty())?;
        }
        raise_descriptor_limit(args);
        for warning in advice::warnings(args) {
            tracing::warn!("{warning}");
        }
        let (polling, params, policy) = Polling::new(args)?;
        let has_images = args
            .exports
            .iter()
            .any(|export| matches!(export.source, crate::Source::File(_)));
        let backend = args.engine.backend(args.backend, has_images);
        let context = Context::builder()
            .poll_params(params)
            .policy(policy)
            .backend_kind(backend)
            .build()
            .with_context(|| format!("cannot make an event loop with --backend {backend}"))?;
        let background = Background::new(&context);
        let nbd = (!args.nbd.is_empty()).then(|| Nbd::new(&context));
        let sockets = process.sockets.clone();
        let exports = Exports::new(&context, args.engine, background.clone(), sockets, nbd.clone());
        let mut server = Self {
            control: None,
            metrics: None,
            exports,
            nbd,
            context,
            stop: Arc::default(),
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
        for address in &args.nbd {
            if let Some(nbd) = &server.nbd {
                nbd.listen(&server.context, address, &process.sockets)?;
            }
        }
        for name in process.sockets.unused() {
            tracing::warn!(
                "the socket {name:?} was passed, and no export uses it; add socket=fd:{name} to one, or --nbd fd:{name}"
            );
        }
        if let Some(address) = args.metrics {
            let exports = server.exports.clone();
            let figures = move |cx: &Context| snapshot(cx, &exports);
            let metrics = Metrics::listen(&server.context, address, background.clone(), figures)?;
            server.metrics = Some(metrics);
        }
        if let Some(path) = &args.control {
            let controlled = Controlled {
                metrics: server.metrics.as_ref().map(Metrics::address),
                exports: server.exports.clone(),
                polling: Rc::new(polling),
                log_level: process.log_level.clone(),
                background,
            };
            server.control = Some(Control::listen(&server.context, path, controlled)?);
        }
        Ok(server)
    }

    /// The event loop.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// A handle that stops the server.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper {
            stop: self.stop.clone(),
            remote: self.context.remote(),
        }
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn run(&self) -> io::Result<()> {
        while !self.stop.load(Ordering::Acquire) {
            self.context.poll(Wait::Block)?;
        }
        Ok(())
    }

    /// Takes no more requests, and completes those that were taken. Requests that are not complete after five seconds are logged.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub fn finish(&self) -> io::Result<()> {
        let acceptors = self.exports.acceptors();
        for acceptor in &acceptors {
            acceptor.finish();
        }
        if let Some(nbd) = &self.nbd {
            nbd.finish();
        }
        let deadline = Instant::now() + MOST_WAIT;
        let in_flight = || {
            acceptors
                .iter()
                .map(|acceptor| acceptor.in_flight())
                .sum::<usize>()
                + self.nbd.as_ref().map_or(0, |nbd| nbd.in_flight())
        };
        while in_flight() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.context.poll(Wait::AtMost(left))?;
        }
        for acceptor in acceptors.iter().filter(|acceptor| acceptor.in_flight() > 0) {
            tracing::warn!(
                export = acceptor.export(),
                "ends with {} requests that the image has not completed within {MOST_WAIT:?}; the driver regards them as outstanding",
                acceptor.in_flight()
            );
        }
        if let Some(nbd) = &self.nbd {
            nbd.report_unfinished(MOST_WAIT);
        }
        for export in self.exports.figures() {
            summarize(&export);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for acceptor in self.exports.acceptors() {
            acceptor.close();
        }
        if let Some(nbd) = &self.nbd {
            nbd.close();
        }
    }
}

/// Logs what an export has done.
fn summarize(export: &ExportFigures) {
    let sums = export.sums();
    tracing::info!(
        export = export.name,
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
/// As [`Server::new`] and [`Server::run`].
pub fn serve(args: &Args, ready: impl FnOnce(Stopper)) -> anyhow::Result<()> {
    let server = Server::new(args)?;
    ready(server.stopper());
    let ended = server.run().and_then(|()| server.finish());
    ended.context("the event loop cannot wait any longer")
}

/// Raises the soft limit of open files to the hard limit, and warns if that may be too low.
fn raise_descriptor_limit(args: &Args) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    // A socket, a disk and some memory for each export, a kick and a call for each queue.
    let needed: u64 = args
        .exports
        .iter()
        .map(|export| 8 + 2 * u64::from(advice::likely_queues(export)))
        .sum::<u64>()
        + 16
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
