//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aio_context::{BackendKind, Policy};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::control::CtlArgs;
use crate::duration::parse_poll_max;
use crate::engine::Engine;
use crate::export::{self, Export, MOST_IOTHREADS};
use crate::log::LogFormat;
use crate::metrics::parse_address;
use crate::nbd::Address;

/// Serves disks over vhost-user-blk and NBD, to virtual machines and other clients, from one event loop or several.
///
/// Each export is a disk and a Unix socket. A client connects to the socket, shares its memory, and sends requests
/// through virtqueues in it. With --nbd, clients of NBD use the same disks. When all sockets accept clients, the line `ready`
/// appears on standard output. The log goes to standard error; the variable BLOCKD_LOG (error, warn, info, debug, trace) sets its level.
/// SIGTERM, SIGINT, SIGQUIT and SIGHUP end the daemon and remove the sockets; SIGUSR1 and SIGUSR2 are ignored.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "blockd",
    version,
    after_help = end_of_help(),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Args {
    /// A disk and its socket, with the keys that are listed below; may be given many times
    ///
    /// path=FILE is an image file or block device, ram=SIZE a disk in memory, null=SIZE a disk that ignores writes and
    /// leaves read buffers unchanged, for measurements. SIZE is in bytes, or with K, M, G, T (powers of 1024). A path cannot contain a
    /// comma.
    ///
    /// socket=PATH is where the client connects, with mode=OCTAL (such as 660) and group=NAME; socket=fd:NAME is a socket that
    /// the service manager passes under that name. With --nbd it can be omitted. queues=N limits the number of queues that a client may use: 1 to 256, 256
    /// unless given. readonly refuses writes.
    ///
    /// An image is locked: QEMU and other instances of blockd then refuse to write to it. lock=off takes no lock, lock=on
    /// is the default. An image that looks like a container (qcow2, vmdk, ...) is refused; format=raw serves its bytes as
    /// they are. discard=off ignores discards and does not offer them, discard=on is the default.
    ///
    /// block-size=512 (the default) or block-size=4096 is the unit in which the guest addresses the disk. cache=none reads and
    /// writes an image past the page cache of this machine, cache=writeback is the default.
    ///
    /// serial=TEXT, at most 20 characters, is the disk's serial number in the guest; without it, the serial number is
    /// derived from the path of the image, or of the socket if there is no image. name=TEXT names the export for NBD
    /// clients and in log lines.
    ///
    /// iothread=N names the thread that serves the export: from 0 to one less than --iothreads. iothread=1+2 has several threads serve the
    /// queues of a vhost-user client, in turn, and iothread=all has all of them; so one busy disk uses several cores.
    #[arg(
        long = "export",
        required_unless_present = "control",
        value_name = "DISK[,KEY=VALUE].."
    )]
    pub exports: Vec<Export>,

    /// Serves all exports over NBD as well, at a Unix socket or an IP address and port; may be given many times
    ///
    /// A value with a slash, or that ends with .sock, is the path of a Unix socket: /run/nbd.sock. Others are addresses: `127.0.0.1:10809`,
    /// `[::1]:10809`. mode=OCTAL and group=NAME can follow a path, as those of --export. fd:NAME is a Unix socket that the service manager
    /// passes under that name. NBD is served without authentication and encryption. Clients choose an export by its name: name=TEXT of --export, or the
    /// last part of the path of the image or the socket. The only export also has the empty name.
    #[arg(long, value_name = "ADDR|PATH[,mode=OCTAL][,group=NAME]|fd:NAME")]
    pub nbd: Vec<Address>,

    /// The longest busy polling before a sleep: 32us, 1ms, 500ns, at most 1s; 0 turns polling off
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = parse_poll_max, allow_hyphen_values = true)]
    pub poll_max: Duration,

    /// The policy that decides how long to poll, up to --poll-max
    #[arg(long, value_name = "NAME", default_value = "learned", value_parser = PossibleValuesParser::new(Policy::NAMES))]
    pub policy: String,

    /// The cost of a wake-up in nanoseconds; measured at the start unless given
    #[arg(long, value_name = "N")]
    pub poll_wake_ns: Option<u64>,

    /// The time in nanoseconds that a client spends on a kick while the daemon sleeps, worth as much as the daemon's own latency; measured
    /// at the start unless given. The exit of a virtual machine adds 1000 to 3000
    #[arg(long, value_name = "N")]
    pub poll_kick_ns: Option<u64>,

    /// The price of CPU time in percent of latency: 25 polls four times as long as 100, 400 a quarter as long
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub poll_cpu_price: u32,

    /// The largest share of a core to spend on polling, in percent; 100 is no limit
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub poll_cpu_max: u32,

    /// The daemon has its core for itself: polling is never suspended, and no quota limits it. Without it, polling is suspended for a
    /// while when other threads run on the core, or a quota is used up, and takes at most a quarter of the control group's quota
    #[arg(long)]
    pub poll_exclusive: bool,

    /// The factor by which the policies of QEMU and KVM lengthen the polling time; 0 is the policy's default
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub poll_grow: u32,

    /// The divisor by which the policies of QEMU and KVM shorten the polling time; 0 is the policy's default
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub poll_shrink: u32,

    /// The weight of the past in qemu-weighted: a new event counts for 1 part in 2^N; 0 is the policy's default
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=31))]
    pub poll_weight: u32,

    /// Records the duration of each wait in a file, one per line in nanoseconds, to compare polling policies on your own load
    /// with cargo xtask policies --trace; needs --poll-max
    #[arg(long, value_name = "FILE", requires = "poll_max")]
    pub record_waits: Option<PathBuf>,

    /// The system facility that waits for descriptors
    #[arg(long, value_name = "NAME", env = "AIO_BACKEND", value_parser = backend_parser(), default_value_t)]
    pub backend: BackendKind,

    /// The engine that executes requests for images
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    pub engine: Engine,

    /// The number of threads that serve exports, each with an event loop of its own
    ///
    /// The thread 0 is the first thread of the daemon, which also has the control socket, the metrics and the handshakes of NBD. An export
    /// is served by one thread: iothread=N of --export names it; exports without it are spread evenly. The queues of one export are served by
    /// several threads with iothread=1+2 or iothread=all.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = iothreads_parser())]
    pub iothreads: usize,

    /// A Unix socket at which `blockd ctl` controls this daemon: lists, adds, removes and resizes exports, shows statistics,
    /// and sets polling and the log level. Only the user of the daemon may connect to it
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// Serves metrics for Prometheus at http://ADDR/metrics; a port alone is on the loopback interface. Every process that can
    /// connect there can read the names and figures of all exports
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub metrics: Option<SocketAddr>,

    /// Writes the number of the process to a file, and removes the file at the end
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// The format of log lines
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,

    /// The command, if this process is to control a daemon rather than be one.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A command other than serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Controls a running daemon that was started with --control
    Ctl(CtlArgs),
}

impl Args {
    /// Returns the default arguments for these exports.
    #[must_use]
    pub fn for_exports(exports: Vec<Export>) -> Self {
        Self {
            exports,
            poll_max: Duration::ZERO,
            policy: "learned".to_owned(),
            poll_wake_ns: None,
            poll_kick_ns: None,
            poll_cpu_price: 100,
            poll_cpu_max: 100,
            poll_exclusive: false,
            poll_grow: 0,
            poll_shrink: 0,
            poll_weight: 0,
            record_waits: None,
            backend: BackendKind::default(),
            engine: Engine::default(),
            iothreads: 1,
            control: None,
            metrics: None,
            nbd: Vec::new(),
            pidfile: None,
            log_format: LogFormat::default(),
            command: None,
        }
    }
}

/// Returns the keys of an export, in lines that fit a terminal, and examples.
fn end_of_help() -> String {
    let mut keys = String::new();
    let mut len = 0;
    for key in export::SYNTAX.split_inclusive(']') {
        if len + key.len() > LINE {
            keys.push_str("\n      ");
            len = 0;
        }
        keys.push_str(key);
        len += key.len();
    }
    format!("Exports:\n  --export {keys}\n\n{EXAMPLES}")
}

/// The longest line of keys.
const LINE: usize = 100;

const EXAMPLES: &str = "\
Examples:
  blockd --export path=disk.raw,socket=/tmp/disk.sock
  blockd --poll-max 32us --export ram=1G,socket=a.sock,queues=4 --export path=cd.iso,socket=b.sock,readonly
  blockd --nbd /tmp/nbd.sock --export path=disk.raw,name=disk
  blockd --iothreads 2 --export path=disk.raw,socket=/tmp/disk.sock,iothread=all

A guest of QEMU uses an export like this:
  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -numa node,memdev=mem \\
    -chardev socket,id=disk,path=a.sock -device vhost-user-blk-pci,chardev=disk,num-queues=4";

/// Parses a number of loops.
fn iothreads_parser() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64)
        .range(1..=MOST_IOTHREADS as u64)
        .map(|count| count as usize)
}

/// Parses the name of a backend; the help lists the names.
fn backend_parser() -> impl TypedValueParser<Value = BackendKind> {
    PossibleValuesParser::new(BackendKind::ALL.map(BackendKind::name))
        .try_map(|name| name.parse::<BackendKind>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_whole_command_line() {
        let args = [
            "blockd",
            "--poll-max",
            "32us",
            "--export",
            "ram=1G,socket=a",
            "--export",
            "null=1G,socket=b",
        ];
        let args = Args::try_parse_from(args).unwrap();
        assert_eq!(
            (args.exports.len(), args.poll_max),
            (2, Duration::from_micros(32))
        );
        assert_eq!(
            (args.policy.as_str(), args.backend),
            ("learned", BackendKind::Auto)
        );
        assert!(Args::try_parse_from(["blockd"]).is_err());
    }

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        let args = Args::try_parse_from(["blockd", "--export", "ram=1M,socket=a"]).unwrap();
        let defaults = Args::for_exports(args.exports.clone());
        assert_eq!(format!("{args:?}"), format!("{defaults:?}"));
    }

    #[test]
    fn a_daemon_with_a_control_socket_may_begin_without_exports() {
        let args = Args::try_parse_from(["blockd", "--control", "c"]).unwrap();
        assert!(args.exports.is_empty() && args.command.is_none());
        let args = Args::try_parse_from(["blockd", "ctl", "--control", "c", "list"]).unwrap();
        assert!(matches!(args.command, Some(Command::Ctl(_))));
    }
}
