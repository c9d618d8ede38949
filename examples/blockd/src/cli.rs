//! The command line, and nothing that acts on it.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use aio_context::Policy;
use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};

use crate::disk::{Access, Source};
use crate::log::LogFormat;
use crate::serial::SERIAL_LEN;

/// More queues than this cannot be told apart by the protocol.
pub const MOST_QUEUES: u16 = 256;

/// Looking for longer than this without sleeping once is a mistake in the number.
const MOST_POLL: Duration = Duration::from_secs(1);

/// Serves disks over vhost-user-blk, to virtual machines and other clients, from one thread.
///
/// Each export is a disk and a Unix socket. A client connects to the socket, shares its memory, and sends requests
/// through virtqueues in it. When all sockets accept clients, the line `ready` appears on standard output. The log goes
/// to standard error; the variable BLOCKD_LOG (error, warn, info, debug, trace) says how much of it.
/// SIGTERM, SIGINT, SIGQUIT and SIGHUP end the daemon and remove the sockets; SIGUSR1 and SIGUSR2 are ignored.
#[derive(Clone, Debug, Parser)]
#[command(name = "blockd", version, after_help = EXAMPLES)]
pub struct Args {
    /// A disk and its socket; may be given many times
    ///
    /// path=FILE is an image file or block device, ram=SIZE a disk in memory, null=SIZE one that keeps nothing (to
    /// measure everything else). SIZE is in bytes, or with K, M, G, T (powers of 1024). A path cannot contain a comma.
    ///
    /// An image is locked so that no other program writes to it (QEMU keeps to that); lock=off leaves that out. An image that
    /// looks like a container (qcow2, vmdk, ...) is refused; format=raw serves its bytes as they are. discard=off keeps what
    /// the client discards.
    ///
    /// queues=N is how many queues a client may use at most; it uses fewer if it likes. serial=TEXT, of at most 20
    /// characters, is what a guest sees as the disk's serial number; without it, the serial number follows from the path
    /// of the image, or of the socket if there is no image. name=TEXT is what log lines call the export.
    #[arg(
        long = "export",
        required = true,
        value_name = "path=FILE|ram=SIZE|null=SIZE,socket=PATH[,queues=N][,readonly][,serial=TEXT][,name=TEXT][,lock=on|off][,format=raw][,discard=on|off]"
    )]
    pub exports: Vec<Export>,

    /// How long at most to look for requests in memory before sleeping: 32us, 1ms, 500ns, 1s at most; 0 does not look at
    /// all
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = parse_poll_max, allow_hyphen_values = true)]
    pub poll_max: Duration,

    /// What decides how long to look, up to --poll-max
    #[arg(long, value_name = "NAME", default_value = "learned", value_parser = PossibleValuesParser::new(Policy::NAMES))]
    pub policy: String,

    /// What it costs to be woken, in nanoseconds; measured at the start unless given
    #[arg(long, value_name = "N")]
    pub poll_wake_ns: Option<u64>,

    /// What CPU time is worth, in percent of latency: 25 looks four times as long as 100, 400 a quarter as long
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub poll_cpu_price: u32,

    /// At most this share of a core is spent looking, in percent; 100 is no limit
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub poll_cpu_max: u32,

    /// What the time to look grows by, as a factor, with the policies of QEMU and KVM; 0 is their own choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub poll_grow: u32,

    /// What the time to look shrinks by, as a divisor, with the policies of QEMU and KVM; 0 is their own choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub poll_shrink: u32,

    /// How slowly qemu-weighted forgets: an event counts for one part in two to this power; 0 is its own choice
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=31))]
    pub poll_weight: u32,

    /// Where to write how long each wait took, one a line in nanoseconds, to compare polling policies on your own load with
    /// cargo xtask policies --trace; needs --poll-max
    #[arg(long, value_name = "FILE", requires = "poll_max")]
    pub record_waits: Option<PathBuf>,

    /// What waits for descriptors
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    pub backend: Waiter,

    /// How log lines look
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,
}

const EXAMPLES: &str = "\
Examples:
  blockd --export path=disk.raw,socket=/tmp/disk.sock
  blockd --poll-max 32us --export ram=1G,socket=a.sock,queues=4 --export path=cd.iso,socket=b.sock,readonly

A guest of QEMU uses an export like this:
  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -numa node,memdev=mem \\
    -chardev socket,id=disk,path=a.sock -device vhost-user-blk-pci,chardev=disk,num-queues=4";

/// One disk and its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Where the bytes are.
    pub source: Source,
    /// Where clients connect.
    pub socket: PathBuf,
    /// How many virtqueues a client may use.
    pub queues: u16,
    /// Whether writing is refused.
    pub readonly: bool,
    /// Whether an image is locked against other programs that would write to it.
    pub lock: bool,
    /// Whether an image is served as it is even if it looks like one of another format than raw.
    pub raw: bool,
    /// Whether what the client discards is given back.
    pub discard: bool,
    /// The disk's serial number. Without one, it follows from the path of the image or the socket.
    pub serial: Option<String>,
    /// What log lines call the export. Without one, it is the path of the socket.
    pub name: Option<String>,
}

impl Export {
    /// A disk that can be written, with as many queues as a client may want.
    #[must_use]
    pub fn new(source: Source, socket: impl Into<PathBuf>) -> Self {
        Self {
            source,
            socket: socket.into(),
            queues: MOST_QUEUES,
            readonly: false,
            lock: true,
            raw: false,
            discard: true,
            serial: None,
            name: None,
        }
    }

    /// How its disk is opened.
    pub(crate) fn access(&self) -> Access {
        Access {
            read_only: self.readonly,
            lock: self.lock,
            raw: self.raw,
            discard: self.discard,
        }
    }
}

/// A way to wait for descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Waiter {
    /// ppoll for few descriptors, epoll for many
    #[default]
    Auto,
    /// ppoll, however many
    Ppoll,
    /// epoll, however few
    Epoll,
    /// io_uring: not built yet
    Uring,
}

impl FromStr for Export {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut source, mut socket, mut queues, mut readonly) = (None, None, MOST_QUEUES, false);
        let (mut serial, mut name) = (None, None);
        let (mut lock, mut raw, mut discard) = (None, false, true);
        let mut seen = Vec::new();
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .map_or((part, None), |(key, value)| (key, Some(value)));
            let needed = || {
                value
                    .filter(|value| !value.is_empty())
                    .ok_or(format!("{key} needs a value: {key}=..."))
            };
            if seen.contains(&key) {
                return Err(format!("{key} is given twice; an export has one"));
            }
            seen.push(key);
            let new = match key {
                "path" => Source::File(needed()?.into()),
                "ram" => Source::Ram(parse_size(needed()?)?),
                "null" => Source::Null(parse_size(needed()?)?),
                "socket" => {
                    socket = Some(PathBuf::from(needed()?));
                    continue;
                }
                "queues" => {
                    queues = parse_queues(needed()?)?;
                    continue;
                }
                "serial" => {
                    serial = Some(parse_serial(needed()?)?);
                    continue;
                }
                "name" => {
                    name = Some(parse_name(needed()?)?);
                    continue;
                }
                "readonly" if value.is_none() => {
                    readonly = true;
                    continue;
                }
                "lock" => {
                    lock = Some(parse_switch(key, needed()?)?);
                    continue;
                }
                "discard" => {
                    discard = parse_switch(key, needed()?)?;
                    continue;
                }
                "format" if needed()? == "raw" => {
                    raw = true;
                    continue;
                }
                "format" => {
                    return Err(format!(
                        "{part}: only raw images are served; qemu-img convert -O raw makes one of any other"
                    ));
                }
                _ => {
                    return Err(format!(
                        "'{part}' is not known; an export is path=FILE, ram=SIZE or null=SIZE, then socket=PATH, \
                         queues=N, readonly, serial=TEXT, name=TEXT, lock=on|off, format=raw, discard=on|off"
                    ));
                }
            };
            if source.replace(new).is_some() {
                return Err("an export has one disk: one of path=, ram= and null=".into());
            }
        }
        let source = source.ok_or("the disk is missing: add path=FILE, ram=SIZE or null=SIZE")?;
        let socket = socket.ok_or("the socket is missing: add socket=PATH")?;
        if !matches!(source, Source::File(_)) && (lock.is_some() || raw) {
            return Err("lock= and format= are about an image; they need path=FILE".into());
        }
        Ok(Self {
            source,
            socket,
            queues,
            readonly,
            lock: lock.unwrap_or(true),
            raw,
            discard,
            serial,
            name,
        })
    }
}

fn parse_switch(key: &str, text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{key}={text}: {key}=on or {key}=off")),
    }
}

fn parse_serial(text: &str) -> Result<String, String> {
    if text.len() > SERIAL_LEN || !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err(format!(
            "serial={}: at most {SERIAL_LEN} printable ASCII characters",
            text.escape_debug()
        ));
    }
    Ok(text.to_owned())
}

fn parse_name(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("name={}: printable characters only", text.escape_debug()));
    }
    Ok(text.to_owned())
}

fn parse_queues(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|queues| (1..=MOST_QUEUES).contains(queues))
        .ok_or(format!("queues={text}: a number from 1 to {MOST_QUEUES}"))
}

/// A number of bytes: a whole number, and K, M, G or T for powers of 1024.
///
/// # Errors
/// What would have been understood.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size; say bytes, or a number with K, M, G or T, such as 64M");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if bytes < crate::disk::SECTOR {
        return Err(format!(
            "'{text}': a disk has at least one sector of {} bytes",
            crate::disk::SECTOR
        ));
    }
    Ok(bytes)
}

/// A duration that is short enough to be spent looking.
fn parse_poll_max(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration > MOST_POLL {
        return Err(format!(
            "'{text}' is longer than {MOST_POLL:?}; a few times what a sleep costs is usual: 32us to 200us"
        ));
    }
    Ok(duration)
}

/// A duration: a whole number with ns, us, ms or s, or 0.
///
/// # Errors
/// What would have been understood.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no duration; say a number with ns, us, ms or s, such as 32us, or 0");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match &text[digits.len()..] {
        "" if number == 0 => Ok(Duration::ZERO),
        "ns" => Ok(Duration::from_nanos(number)),
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(wrong()),
    }
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
    fn understands_exports() {
        let disk: Export = "path=disk.raw,socket=a.sock,queues=4".parse().unwrap();
        let expected = Export {
            queues: 4,
            ..Export::new(Source::File("disk.raw".into()), "a.sock")
        };
        assert_eq!(disk, expected);
        let disk: Export = "readonly,socket=/x/b=c.sock,ram=64M".parse().unwrap();
        let expected = Export {
            readonly: true,
            ..Export::new(Source::Ram(64 << 20), "/x/b=c.sock")
        };
        assert_eq!(disk, expected);
        assert_eq!(
            "null=512,socket=s".parse::<Export>().unwrap().source,
            Source::Null(512)
        );
        let disk: Export = "path=a,socket=s,lock=off,format=raw,discard=off".parse().unwrap();
        let expected = Export {
            lock: false,
            raw: true,
            discard: false,
            ..Export::new(Source::File("a".into()), "s")
        };
        assert_eq!(disk, expected);
        assert!("path=a,socket=s,lock=on".parse::<Export>().unwrap().lock);
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = |text: &str| text.parse::<Export>().unwrap_err();
        assert!(error("socket=s").contains("path=FILE"));
        assert!(error("ram=1M").contains("socket=PATH"));
        assert!(error("ram=1M,null=1M,socket=s").contains("one disk"));
        assert!(error("ram=1X,socket=s").contains("64M"));
        assert!(error("ram=511,socket=s").contains("512"));
        assert!(error("ram=99999999T,socket=s").contains("no size"));
        assert!(error("ram=1M,socket=").contains("needs a value"));
        assert!(error("path,socket=s").contains("needs a value"));
        assert!(error("ram=1M,socket=s,queues=0").contains("1 to 256"));
        assert!(error("ram=1M,socket=s,queues=257").contains("1 to 256"));
        assert!(error("ram=1M,socket=s,readonly=yes").contains("not known"));
        assert!(error("ram=1M,socket=s,colour=red").contains("colour=red"));
        assert!(error("").contains("not known"));
        assert!(error("path=a,socket=s,lock=yes").contains("lock=on or lock=off"));
        assert!(error("path=a,socket=s,discard").contains("needs a value"));
        assert!(error("path=a,socket=s,format=qcow2").contains("convert -O raw"));
        assert!(error("ram=1M,socket=s,format=raw").contains("need path=FILE"));
        assert!(error("ram=1M,socket=s,lock=on").contains("need path=FILE"));
    }

    #[test]
    fn c33_a_key_that_is_given_twice_is_an_error() {
        for (text, key) in [
            ("ram=1M,socket=a,socket=b", "socket"),
            ("ram=1M,socket=a,socket=a", "socket"),
            ("ram=1M,socket=a,queues=2,queues=4", "queues"),
            ("ram=1M,ram=2M,socket=a", "ram"),
            ("ram=1M,socket=a,readonly,readonly", "readonly"),
            ("ram=1M,socket=a,serial=x,serial=x", "serial"),
            ("ram=1M,socket=a,name=x,name=y", "name"),
        ] {
            let error = text.parse::<Export>().unwrap_err();
            assert!(
                error.contains(&format!("{key} is given twice")),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn c25_serials_are_short_and_printable() {
        let serial = |text: &str| format!("ram=1M,socket=a,serial={text}").parse::<Export>();
        assert_eq!(
            serial("WD-WX 123456789-ABCD").unwrap().serial.as_deref(),
            Some("WD-WX 123456789-ABCD")
        );
        for wrong in ["WD-WX 123456789-ABCDE", "a\nb", "\u{e4}"] {
            assert!(
                serial(wrong).unwrap_err().contains("at most 20 printable"),
                "{wrong:?}"
            );
        }
        assert!(serial("").unwrap_err().contains("needs a value"));
        assert!("ram=1M,socket=a,name=a\tb".parse::<Export>().is_err());
    }

    #[test]
    fn understands_durations() {
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("32us"), Ok(Duration::from_micros(32)));
        assert_eq!(parse_duration("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(parse_duration("500ns"), Ok(Duration::from_nanos(500)));
        for wrong in ["", "32", "us", "1.5ms", "-1us", "1m", "99999999999999999999s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
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
        assert_eq!((args.policy.as_str(), args.backend), ("learned", Waiter::Auto));
        assert!(Args::try_parse_from(["blockd"]).is_err());
    }
}
