//! One export: a disk, its socket and their properties, and how `--export` describes them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

use crate::disk::{Access, SECTOR, Source};

/// The protocol identifies a queue by eight bits.
pub const MOST_QUEUES: u16 = 256;

/// The longest serial number, in bytes.
pub(crate) const SERIAL_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;

/// Each key that `--export` takes.
pub(crate) const SYNTAX: &str = "path=FILE|ram=SIZE|null=SIZE,socket=PATH[,queues=N][,readonly][,serial=TEXT][,name=TEXT]\
                                 [,lock=on|off][,format=raw][,discard=on|off][,mode=OCTAL][,group=NAME]\
                                 [,block-size=512|4096][,cache=writeback|none]";

/// One disk and its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Where the bytes are.
    pub source: Source,
    /// Where clients connect: a path, or `fd:NAME` for a socket that a service manager passes.
    pub socket: PathBuf,
    /// The permission bits of the socket. Without them the umask decides.
    pub mode: Option<u32>,
    /// The group of the socket, by name or number. Without one, it is that of the process.
    pub group: Option<String>,
    /// How many virtqueues a client may use: 1 to [`MOST_QUEUES`].
    pub queues: u16,
    /// Whether writes are refused.
    pub readonly: bool,
    /// Whether an image is locked against other programs that would write to it.
    pub lock: bool,
    /// Whether an image is served as it is even if it looks like one of another format than raw.
    pub raw: bool,
    /// Whether discards release storage.
    pub discard: bool,
    /// Bytes of a block, the unit in which the guest addresses the disk: 512 or 4096.
    pub block_size: u32,
    /// Whether an image is read and written past the page cache of this machine.
    pub direct: bool,
    /// The disk's serial number. Without one, it is derived from the path of the image or the socket.
    pub serial: Option<String>,
    /// The name of the export in log lines. Without one, it is the path of the socket.
    pub name: Option<String>,
}

impl Export {
    /// A writable disk with [`MOST_QUEUES`] queues.
    #[must_use]
    pub fn new(source: Source, socket: impl Into<PathBuf>) -> Self {
        Self {
            source,
            socket: socket.into(),
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
        }
    }

    /// How its disk is opened.
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

/// The keys that were given so far.
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
}

impl Draft {
    /// Takes one part of an export: `key` or `key=value`.
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

    fn finish(self) -> Result<Export, String> {
        let source = self
            .source
            .ok_or("the disk is missing: add path=FILE, ram=SIZE or null=SIZE")?;
        let socket = self.socket.ok_or("the socket is missing: add socket=PATH")?;
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
        let is_passed = passed_name(&socket).is_some();
        if is_passed && (self.mode.is_some() || self.group.is_some()) {
            return Err(
                "mode= and group= apply to socket=PATH only; SocketMode= and SocketGroup= of the unit set those of a \
                 socket that is passed"
                    .into(),
            );
        }
        let unless_given = Export::new(source, socket);
        Ok(Export {
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
            ..unless_given
        })
    }
}

/// The name of a socket that a service manager passes.
pub(crate) fn passed_name(socket: &Path) -> Option<&str> {
    socket.to_str()?.strip_prefix("fd:")
}

/// Parses permission bits: octal digits.
fn parse_mode(text: &str) -> Result<u32, String> {
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

/// Whether the page cache is avoided.
fn parse_cache(text: &str) -> Result<bool, String> {
    match text {
        "writeback" => Ok(false),
        "none" => Ok(true),
        _ => Err(format!("cache={text}: cache=writeback or cache=none")),
    }
}

/// True if the format is raw: there is no other.
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
    Ok(text.to_owned())
}

fn parse_queues(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|queues| (1..=MOST_QUEUES).contains(queues))
        .ok_or(format!("queues={text}: a number from 1 to {MOST_QUEUES}"))
}

/// Parses a number of bytes: a whole number, and K, M, G or T for powers of 1024. A disk has at least one sector.
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
mod tests {
    use super::*;
    use clap::CommandFactory as _;

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
    fn errors_name_a_remedy() {
        let error = |text: &str| text.parse::<Export>().unwrap_err();
        assert!(error("socket=s").contains("path=FILE"));
        assert!(error("ram=1M").contains("socket=PATH"));
        assert!(error("ram=1M,null=1M,socket=s").contains("one disk"));
        assert!(error("ram=1X,socket=s").contains("64M"));
        assert!(error("ram=511,socket=s").contains("512"));
        assert!(error("ram=99999999T,socket=s").contains("not a size"));
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
    fn c28_block_sizes_and_caches_are_named() {
        let export: Export = "path=a,socket=s,block-size=4096,cache=none".parse().unwrap();
        assert_eq!((export.block_size, export.direct), (4096, true));
        let export: Export = "path=a,socket=s,block-size=512,cache=writeback".parse().unwrap();
        assert_eq!(export, Export::new(Source::File("a".into()), "s"));
        for (wrong, remedy) in [
            ("path=a,socket=s,block-size=1024", "block-size=4096"),
            ("path=a,socket=s,cache=writethrough", "cache=none"),
            ("ram=1M,socket=s,cache=none", "need path=FILE"),
            ("ram=2K,socket=s,block-size=4096", "a larger size"),
        ] {
            let error = wrong.parse::<Export>().unwrap_err();
            assert!(error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn c34_sockets_have_a_mode_and_a_group_or_are_passed() {
        let export: Export = "ram=1M,socket=a,mode=0660,group=kvm".parse().unwrap();
        assert_eq!((export.mode, export.group.as_deref()), (Some(0o660), Some("kvm")));
        let export: Export = "ram=1M,socket=fd:disk".parse().unwrap();
        assert_eq!(passed_name(&export.socket), Some("disk"));
        for (wrong, remedy) in [
            ("mode=888", "such as 660"),
            ("mode=1777", "at most 777"),
            ("mode=+77", "such as 660"),
            ("mode=", "needs a value"),
            ("group", "needs a value"),
        ] {
            let error = format!("ram=1M,socket=a,{wrong}").parse::<Export>().unwrap_err();
            assert!(error.contains(remedy), "{error}");
        }
        for key in ["mode=660", "group=kvm"] {
            let error = format!("ram=1M,socket=fd:disk,{key}")
                .parse::<Export>()
                .unwrap_err();
            assert!(error.contains("SocketMode="), "{error}");
        }
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
    fn each_key_is_documented() {
        let help = crate::Args::command().render_long_help().to_string();
        let manual = include_str!("../../../docs/blockd.md");
        let parts: Vec<&str> = SYNTAX
            .split(['[', ']', ',', '|'])
            .filter(|part| !["", "off", "4096", "none"].contains(part))
            .collect();
        assert_eq!(parts.len(), 15);
        for part in parts {
            let unknown = Draft::default()
                .set(part)
                .is_err_and(|error| error.contains("not known"));
            assert!(!unknown, "{part}");
            // The line with SYNTAX, and the explanation.
            assert!(help.matches(part).count() >= 2, "{part} is missing in:\n{help}");
            assert!(
                manual.contains(&format!("`{part}")),
                "{part} is missing in docs/blockd.md"
            );
        }
    }
}
