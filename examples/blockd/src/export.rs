//! One export: a disk, its socket and their properties, and the syntax of `--export`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

use crate::disk::{Access, SECTOR, Source};

/// The most queues of an export. The protocol identifies a queue by eight bits.
pub const MOST_QUEUES: u16 = 256;

/// The most I/O threads.
pub(crate) const MOST_IOTHREADS: usize = 64;

/// The longest serial number, in bytes.
pub(crate) const SERIAL_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;

/// The longest name, in bytes. NBD recommends at most 256.
const MOST_NAME: usize = 255;

/// All keys of `--export`.
pub(crate) const SYNTAX: &str = "path=FILE|ram=SIZE|null=SIZE[,socket=PATH][,queues=N][,readonly][,serial=TEXT][,name=TEXT]\
                                 [,lock=on|off][,format=raw][,discard=on|off][,mode=OCTAL][,group=NAME]\
                                 [,block-size=512|4096][,cache=writeback|none][,iothread=N|N+N|all]";

/// One disk and its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The storage of the disk.
    pub source: Source,
    /// The socket to which vhost-user clients connect: a path, or `fd:NAME` for a socket that a service
    /// manager passes. Without it, the export is served over NBD only.
    pub socket: Option<PathBuf>,
    /// The permission bits of the socket. Without them the umask decides.
    pub mode: Option<u32>,
    /// The group of the socket, by name or number. Without it, the group of the process.
    pub group: Option<String>,
    /// The number of virtqueues that a client may use: 1 to [`MOST_QUEUES`].
    pub queues: u16,
    /// Whether writes are refused.
    pub readonly: bool,
    /// Whether an image is locked against other programs that would write to it.
    pub lock: bool,
    /// Whether an image is served as raw even if it looks like another format.
    pub raw: bool,
    /// Whether discards release storage.
    pub discard: bool,
    /// The bytes of a block, the unit in which the guest addresses the disk: 512 or 4096.
    pub block_size: u32,
    /// Whether an image is read and written past the page cache of this machine.
    pub direct: bool,
    /// The disk's serial number. Without one, it is derived from the path of the image or the socket, or from the name.
    pub serial: Option<String>,
    /// The name of the export for NBD clients and in log lines. Without one, NBD clients use the last part of
    /// the path of the image or the socket, and log lines contain the path of the socket.
    pub name: Option<String>,
    /// The I/O threads that serve the export.
    pub iothreads: IoThreads,
}

/// The I/O threads of an export. Queues of a client are assigned to them in turn. All other work of the
/// export belongs to the first thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IoThreads {
    /// The thread with the fewest exports.
    #[default]
    Any,
    /// The threads with these numbers, from 0, in this order.
    These(Vec<usize>),
    /// All threads of the daemon.
    All,
}

impl Export {
    /// Returns a writable disk with [`MOST_QUEUES`] queues.
    #[must_use]
    pub fn new(source: Source, socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: Some(socket.into()),
            ..Self::without_socket(source)
        }
    }

    /// Returns a writable disk that is served over NBD only.
    #[must_use]
    pub fn without_socket(source: Source) -> Self {
        Self {
            source,
            socket: None,
            mode: None,
            group: None,
            queues: MOST_QUEUES,
            readonly: false,
            lock: true,
            raw: false,
            discard: true,
            block_size: 512,
            direct: false,
            serial: None,
            name: None,
            iothreads: IoThreads::Any,
        }
    }

    /// Returns the name for NBD clients: the given name, or the last part of the path of the image or the
    /// socket, or the kind of the disk.
    pub(crate) fn nbd_name(&self) -> String {
        let path = match &self.source {
            Source::File(path) => Some(path),
            Source::Ram(_) | Source::Null(_) => self.socket.as_ref(),
        };
        let last = path.and_then(|path| path.file_name());
        match (&self.name, last, &self.source) {
            (Some(name), ..) => name.clone(),
            (None, Some(last), _) => last.to_string_lossy().into_owned(),
            (None, None, Source::Null(_)) => "null".to_owned(),
            (None, None, _) => "ram".to_owned(),
        }
    }

    /// Returns the name for log lines and commands.
    pub(crate) fn log_name(&self) -> String {
        match (&self.name, &self.socket) {
            (None, Some(socket)) => socket.to_string_lossy().into_owned(),
            _ => self.nbd_name(),
        }
    }

    /// Returns the options for opening its disk.
    pub(crate) fn access(&self) -> Access {
        Access {
            read_only: self.readonly,
            lock: self.lock,
            raw: self.raw,
            discard: self.discard,
            direct: self.direct,
            block: self.block_size.into(),
        }
    }
}

impl FromStr for Export {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut draft = Draft::default();
        let mut seen = Vec::new();
        for part in text.split(',') {
            let name = part.split_once('=').map_or(part, |(name, _)| name);
            if seen.contains(&name) {
                return Err(format!("{name} is given twice; an export has one"));
            }
            seen.push(name);
            draft.set(part)?;
        }
        draft.finish()
    }
}

/// The keys that have been parsed so far.
#[derive(Default)]
struct Draft {
    source: Option<Source>,
    socket: Option<PathBuf>,
    mode: Option<u32>,
    group: Option<String>,
    queues: Option<u16>,
    readonly: bool,
    lock: Option<bool>,
    raw: bool,
    discard: Option<bool>,
    block_size: Option<u32>,
    direct: Option<bool>,
    serial: Option<String>,
    name: Option<String>,
    iothreads: IoThreads,
}

impl Draft {
    /// Adds one part of an export: `key` or `key=value`.
    fn set(&mut self, part: &str) -> Result<(), String> {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (part, None),
        };
        let needed = || {
            value
                .filter(|value| !value.is_empty())
                .ok_or(format!("{key} needs a value: {key}=..."))
        };
        match key {
            "path" => self.set_source(Source::File(needed()?.into()))?,
            "ram" => self.set_source(Source::Ram(parse_size(needed()?)?))?,
            "null" => self.set_source(Source::Null(parse_size(needed()?)?))?,
            "socket" => self.socket = Some(needed()?.into()),
            "mode" => self.mode = Some(parse_mode(needed()?)?),
            "group" => self.group = Some(needed()?.to_owned()),
            "queues" => self.queues = Some(parse_queues(needed()?)?),
            "readonly" if value.is_none() => self.readonly = true,
            "serial" => self.serial = Some(parse_serial(needed()?)?),
            "name" => self.name = Some(parse_name(needed()?)?),
            "iothread" => self.iothreads = parse_iothreads(needed()?)?,
            "lock" => self.lock = Some(parse_switch(key, needed()?)?),
            "block-size" => self.block_size = Some(parse_block_size(needed()?)?),
            "cache" => self.direct = Some(parse_cache(needed()?)?),
            "format" => self.raw = parse_format(needed()?)?,
            "discard" => self.discard = Some(parse_switch(key, needed()?)?),
            _ => return Err(format!("'{part}' is not known; an export is {SYNTAX}")),
        }
        Ok(())
    }

    fn set_source(&mut self, source: Source) -> Result<(), String> {
        match self.source.replace(source) {
            None => Ok(()),
            Some(_) => Err("an export has one disk: one of path=, ram= and null=".into()),
        }
    }

    /// Fails if a named I/O thread would serve nothing.
    fn check_iothreads(&self) -> Result<(), String> {
        let IoThreads::These(threads) = &self.iothreads else {
            return Ok(());
        };
        let count = threads.len();
        if count > 1 && self.socket.is_none() {
            return Err(
                "iothread=N+N: several I/O threads serve the queues of a vhost-user client; add socket=PATH, or name one thread"
                    .into(),
            );
        }
        match self.queues {
            Some(queues) if usize::from(queues) < count => Err(format!(
                "queues={queues} with {count} I/O threads: each thread needs a queue; raise queues=, or name fewer threads"
            )),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<Export, String> {
        self.check_iothreads()?;
        let source = self
            .source
            .ok_or("the disk is missing: add path=FILE, ram=SIZE or null=SIZE")?;
        let is_image = matches!(source, Source::File(_));
        if !is_image && (self.lock.is_some() || self.raw || self.direct.is_some()) {
            return Err("lock=, format= and cache= apply to images only; they need path=FILE".into());
        }
        let block_size = self.block_size.unwrap_or(512);
        if let Source::Ram(bytes) | Source::Null(bytes) = source
            && bytes < block_size.into()
        {
            return Err(format!(
                "a disk of {bytes} bytes has no block of {block_size}; name a larger size, or block-size=512"
            ));
        }
        if self.socket.is_none() && (self.queues.is_some() || self.mode.is_some() || self.group.is_some()) {
            return Err(
                "queues=, mode= and group= apply to a vhost-user socket only; they need socket=PATH".into(),
            );
        }
        let is_passed = self.socket.as_deref().and_then(passed_name).is_some();
        if is_passed && (self.mode.is_some() || self.group.is_some()) {
            return Err(
                "mode= and group= apply to socket=PATH only; SocketMode= and SocketGroup= of the unit set those of a \
                 socket that is passed"
                    .into(),
            );
        }
        let unless_given = Export::without_socket(source);
        Ok(Export {
            socket: self.socket,
            mode: self.mode,
            group: self.group,
            queues: self.queues.unwrap_or(unless_given.queues),
            readonly: self.readonly,
            lock: self.lock.unwrap_or(unless_given.lock),
            raw: self.raw,
            discard: self.discard.unwrap_or(unless_given.discard),
            block_size,
            direct: self.direct.unwrap_or(unless_given.direct),
            serial: self.serial,
            name: self.name,
            iothreads: self.iothreads,
            ..unless_given
        })
    }
}

/// Returns the name of a socket that a service manager passes.
pub(crate) fn passed_name(socket: &Path) -> Option<&str> {
    socket.to_str()?.strip_prefix("fd:")
}

/// Parses permission bits: octal digits.
pub(crate) fn parse_mode(text: &str) -> Result<u32, String> {
    let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| is_octal && *mode <= 0o777)
        .ok_or(format!(
            "mode={text}: octal permission bits such as 660, at most 777"
        ))
}

fn parse_switch(key: &str, text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{key}={text}: {key}=on or {key}=off")),
    }
}

fn parse_block_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err(format!("block-size={text}: block-size=512 or block-size=4096")),
    }
}

/// Returns `true` if the cache mode bypasses the page cache.
fn parse_cache(text: &str) -> Result<bool, String> {
    match text {
        "writeback" => Ok(false),
        "none" => Ok(true),
        _ => Err(format!("cache={text}: cache=writeback or cache=none")),
    }
}

/// Returns `true` for the format raw. There is no other.
fn parse_format(text: &str) -> Result<bool, String> {
    match text {
        "raw" => Ok(true),
        _ => Err(format!(
            "format={text}: only raw images are served; qemu-img convert -O raw makes one of any other"
        )),
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
    if text.len() > MOST_NAME {
        return Err(format!("name={text}: at most {MOST_NAME} bytes"));
    }
    Ok(text.to_owned())
}

fn parse_iothreads(text: &str) -> Result<IoThreads, String> {
    if text == "all" {
        return Ok(IoThreads::All);
    }
    let number = |part: &str| part.parse().ok().filter(|thread| *thread < MOST_IOTHREADS);
    let threads: Option<Vec<usize>> = text.split('+').map(number).collect();
    let threads = threads.ok_or(format!(
        "iothread={text}: the number of an I/O thread, from 0 to one less than --iothreads, which is at most {MOST_IOTHREADS}; \
         several for the queues of one export, such as 1+2; or all"
    ))?;
    match (1..threads.len()).find(|at| threads[..*at].contains(&threads[*at])) {
        Some(twice) => Err(format!(
            "iothread={text} names the thread {} twice",
            threads[twice]
        )),
        None => Ok(IoThreads::These(threads)),
    }
}

fn parse_queues(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|queues| (1..=MOST_QUEUES).contains(queues))
        .ok_or(format!("queues={text}: a number from 1 to {MOST_QUEUES}"))
}

/// Parses a number of bytes: a whole number, optionally with K, M, G or T for powers of 1024. A disk has at
/// least one sector.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size; give bytes, or a number with K, M, G or T, such as 64M");
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
    if bytes < SECTOR {
        return Err(format!(
            "'{text}': a disk has at least one sector of {SECTOR} bytes"
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
