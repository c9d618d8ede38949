//! The daemon without its process: one context, all exports, and a handle that stops it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aio_context::{Context, Policy, PollParams, PollPolicy, Remote, Wait, WakeCost, measure_wake_cost};
use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit};

use crate::acceptor::Acceptor;
use crate::advice;
use crate::cli::Args;
use crate::descriptor_chain::DescriptorChain;
use crate::disk::{Disk, Source};
use crate::export::Export;
use crate::limit::LineLimit;
use crate::nbd::{Catalog, Nbd, NbdExport};
use crate::recorder::Recorder;
use crate::request::Device;
use crate::serial;

/// The time that outstanding requests get when the server ends.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// All exports, served by the thread that made this value.
#[derive(Debug)]
pub struct Server {
    context: Context,
    acceptors: Vec<Rc<Acceptor>>,
    nbd: Rc<Nbd>,
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
        check_unique(args)?;
        raise_descriptor_limit(args);
        for warning in advice::warnings(args) {
            tracing::warn!("{warning}");
        }
        let chain = Rc::new(RefCell::new(DescriptorChain::default()));
        let context = context(args)?;
        let catalog = Rc::new(Catalog::default());
        let mut server = Self {
            nbd: Nbd::new(&context, catalog.clone()),
            context,
            acceptors: Vec::new(),
            stop: Arc::default(),
        };
        let cx = &server.context;
        if let Some(warning) = args.engine.warning(cx) {
            tracing::warn!("{warning}");
        }
        for export in &args.exports {
            let device = Arc::new(Device::new(open(export)?, &serial::of(export)));
            let name = export.log_name();
            if !args.nbd.is_empty() {
                catalog.add(NbdExport {
                    name: export.nbd_name(),
                    device: device.clone(),
                    workers: args.engine.workers(cx, &export.source),
                    limit: LineLimit::new(name.as_str().into(), Some(cx)),
                });
            }
            if let Some(socket) = &export.socket {
                let served = (device, args.engine.workers(cx, &export.source));
                let acceptor = Acceptor::listen(cx, (&name, socket), served, export.queues, chain.clone())?;
                server.acceptors.push(acceptor);
            }
        }
        for address in &args.nbd {
            server.nbd.listen(cx, address)?;
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
        for acceptor in &self.acceptors {
            acceptor.finish();
        }
        self.nbd.finish();
        let deadline = Instant::now() + MOST_WAIT;
        let in_flight = || {
            self.acceptors
                .iter()
                .map(|acceptor| acceptor.in_flight())
                .sum::<usize>()
                + self.nbd.in_flight()
        };
        while in_flight() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.context.poll(Wait::AtMost(left))?;
        }
        for acceptor in self.acceptors.iter().filter(|acceptor| acceptor.in_flight() > 0) {
            tracing::warn!(
                export = acceptor.export(),
                "ends with {} requests that the image has not completed within {MOST_WAIT:?}; the driver regards them as outstanding",
                acceptor.in_flight()
            );
        }
        self.nbd.report_unfinished(MOST_WAIT);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for acceptor in &self.acceptors {
            acceptor.close();
        }
        self.nbd.close();
    }
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

/// An event loop with the backend and the polling policy of the command line.
fn context(args: &Args) -> anyhow::Result<Context> {
    let params = poll_params(args)?;
    let mut builder = Context::builder().poll_params(params);
    if !args.poll_max.is_zero() {
        builder = builder.policy(policy(args, params)?);
    }
    let backend = args.engine.backend(args.backend);
    let built = builder.backend_kind(backend).build();
    built.with_context(|| format!("cannot make an event loop with --backend {backend}"))
}

/// The polling parameters of the command line, with the measured cost of a sleep.
fn poll_params(args: &Args) -> anyhow::Result<PollParams> {
    let params = PollParams::up_to(args.poll_max)
        .with_cpu_price(args.poll_cpu_price)
        .with_cpu_max(args.poll_cpu_max)
        .with_exclusive_core(args.poll_exclusive)
        .with_grow(args.poll_grow)
        .with_shrink(args.poll_shrink)
        .with_weight(args.poll_weight);
    // Without polling, too: the cost decides how long the loop checks its descriptors before it sleeps.
    let measured = match (args.poll_wake_ns, args.poll_kick_ns) {
        (Some(_), Some(_)) => WakeCost::default(),
        _ => measure_wake_cost()
            .context("cannot measure the cost of a sleep; --poll-wake-ns and --poll-kick-ns set it")?,
    };
    let kick = args.poll_kick_ns.map_or(measured.kick, Duration::from_nanos);
    Ok(match args.poll_wake_ns {
        Some(nanos) => params.with_wake(WakeCost::of_total(Duration::from_nanos(nanos)).with_kick(kick)),
        None => params.with_measured_wake(measured.with_kick(kick)),
    })
}

/// The polling policy of the command line.
fn policy(args: &Args, params: PollParams) -> anyhow::Result<Box<dyn PollPolicy>> {
    let policy = Policy::by_name(&args.policy, params).with_context(|| {
        format!(
            "there is no policy {:?}; there are {}",
            args.policy,
            Policy::NAMES.join(", ")
        )
    })?;
    tracing::info!("polling: {}", policy.effective());
    match &args.record_waits {
        None => Ok(Box::new(policy)),
        Some(path) => {
            let recorder = Recorder::new(policy, params.wake_or_assumed().latency, path);
            let recorder = recorder.with_context(|| format!("cannot write waits to {}", path.display()))?;
            Ok(Box::new(recorder))
        }
    }
}

/// Checks that each export can be reached, by a socket and names of its own.
fn check_unique(args: &Args) -> anyhow::Result<()> {
    let (mut sockets, mut names, mut nbd_names) = (HashSet::new(), HashSet::new(), HashSet::new());
    for export in &args.exports {
        let (name, nbd_name) = (export.log_name(), export.nbd_name());
        match &export.socket {
            None if args.nbd.is_empty() => bail!(
                "the export {name} has no socket; add socket=PATH, or serve it over NBD with --nbd /tmp/nbd.sock, for example"
            ),
            Some(socket) if !sockets.insert(socket) => bail!(
                "two exports name the socket {}; each needs a socket of its own",
                socket.display()
            ),
            _ => {}
        }
        if !args.nbd.is_empty() && !nbd_names.insert(nbd_name.clone()) {
            bail!("two exports have the name {nbd_name} for NBD clients; add name=TEXT to one of them");
        }
        if !names.insert(name.clone()) {
            bail!("two exports have the name {name}; each needs a name of its own");
        }
    }
    Ok(())
}

fn open(export: &Export) -> anyhow::Result<Disk> {
    Disk::open_for(&export.source, export.access()).map_err(|error| {
        let what = match &export.source {
            Source::File(path) => cannot_open(path, export.readonly, error.kind()),
            Source::Ram(bytes) | Source::Null(bytes) => {
                format!("cannot reserve {bytes} bytes of memory for a disk; name a smaller size")
            }
        };
        anyhow::Error::new(error).context(what)
    })
}

/// Describes why an image cannot be opened, and the remedy.
fn cannot_open(path: &Path, readonly: bool, why: io::ErrorKind) -> String {
    let path = path.display();
    let how = if readonly {
        "reading"
    } else {
        "reading and writing"
    };
    let remedy = match why {
        io::ErrorKind::NotFound => format!("; truncate -s 1G {path} makes an empty disk"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !readonly => {
            "; add ',readonly' to only read it".to_owned()
        }
        io::ErrorKind::PermissionDenied => "; check that you may read it".to_owned(),
        io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory => "; name another one".to_owned(),
        _ => String::new(),
    };
    format!("cannot open the image {path} for {how}{remedy}")
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
