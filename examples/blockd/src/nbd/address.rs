//! [`Address`]: the address to which NBD clients connect, in the form of `--nbd`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::export::{parse_mode, passed_name};

/// The address to which NBD clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket.
    Unix {
        /// The path of the socket.
        path: PathBuf,
        /// The permission bits of the socket. Without them the umask decides.
        mode: Option<u32>,
        /// The group of the socket, by name or number. Without it, the group of the process.
        group: Option<String>,
    },
    /// A Unix socket that a service manager passes under this name.
    Passed(String),
    /// An IP address and a port.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    /// Parses a path, `fd:NAME`, or an IP address with a port. A path contains a slash or ends with `.sock`; `mode=` and `group=` can follow.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut address = Self::parse_place(parts.next().unwrap_or_default())?;
        let mut seen = Vec::new();
        for part in parts {
            let Self::Unix { mode, group, .. } = &mut address else {
                return Err(format!(
                    "'{part}': mode= and group= apply to the path of a Unix socket only; SocketMode= and SocketGroup= of the unit \
                     set those of a socket that is passed"
                ));
            };
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if seen.contains(&key) {
                return Err(format!("{key} is given twice; a socket has one"));
            }
            seen.push(key);
            match (key, value) {
                ("mode" | "group", "") => return Err(format!("{key} needs a value: {key}=...")),
                ("mode", value) => *mode = Some(parse_mode(value)?),
                ("group", value) => *group = Some(value.to_owned()),
                _ => {
                    return Err(format!(
                        "'{part}' is not known; --nbd takes PATH[,mode=OCTAL][,group=NAME]"
                    ));
                }
            }
        }
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { path, mode, group } => {
                path.display().fmt(f)?;
                if let Some(mode) = mode {
                    write!(f, ",mode={mode:o}")?;
                }
                if let Some(group) = group {
                    write!(f, ",group={group}")?;
                }
                Ok(())
            }
            Self::Passed(name) => write!(f, "fd:{name}"),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl Address {
    /// Returns a Unix socket with the default permissions.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix {
            path: path.into(),
            mode: None,
            group: None,
        }
    }

    fn parse_place(text: &str) -> Result<Self, String> {
        match passed_name(Path::new(text)) {
            Some("") => return Err("fd: needs the name of a socket that was passed: fd:NAME".to_owned()),
            Some(name) => return Ok(Self::Passed(name.to_owned())),
            None => {}
        }
        if text.contains('/') || text.ends_with(".sock") {
            return Ok(Self::unix(text));
        }
        if let Some(port) = text.strip_prefix("localhost:")
            && let Ok(port) = port.parse()
        {
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!(
                "'{text}' is neither a path nor an IP address with a port; give ./{text} or /run/nbd.sock for a Unix \
                 socket, or 127.0.0.1:10809 or [::1]:10809"
            )
        })
    }

    /// Returns a warning if other machines may connect: NBD without TLS has no authentication.
    pub(crate) fn warning(&self) -> Option<String> {
        match self {
            Self::Tcp(address) if !address.ip().is_loopback() => Some(format!(
                "--nbd {address}: every machine that reaches this address can read and write the disks, because NBD is served \
                 without authentication and encryption; use 127.0.0.1, [::1] or a Unix socket, and a tunnel such as ssh -L"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses_are_told_apart() {
        let unix = |path: &str| Ok(Address::unix(path));
        let tcp = |address: &str| Ok(Address::Tcp(address.parse().unwrap()));
        assert_eq!("/run/nbd.sock".parse(), unix("/run/nbd.sock"));
        assert_eq!("nbd.sock".parse(), unix("nbd.sock"));
        assert_eq!("./10809".parse(), unix("./10809"));
        assert_eq!("127.0.0.1:10809".parse(), tcp("127.0.0.1:10809"));
        assert_eq!("localhost:10809".parse(), tcp("127.0.0.1:10809"));
        assert_eq!("[::1]:10809".parse(), tcp("[::1]:10809"));
        for wrong in [
            "",
            "10809",
            "127.0.0.1",
            "::1:10809x",
            "localhost:x",
            "example.org:10809",
        ] {
            let error = wrong.parse::<Address>().unwrap_err();
            assert!(error.contains("127.0.0.1:10809"), "{wrong}: {error}");
        }
    }

    #[test]
    fn c34_sockets_have_permissions_or_are_passed() {
        let address: Address = "/run/nbd.sock,group=kvm,mode=660".parse().unwrap();
        let expected = Address::Unix {
            path: "/run/nbd.sock".into(),
            mode: Some(0o660),
            group: Some("kvm".to_owned()),
        };
        assert_eq!(address, expected);
        assert_eq!(address.to_string(), "/run/nbd.sock,mode=660,group=kvm");
        assert_eq!("fd:disks".parse(), Ok(Address::Passed("disks".to_owned())));
        for (wrong, remedy) in [
            ("/run/nbd.sock,mode=999", "octal"),
            ("/run/nbd.sock,mode=", "mode=..."),
            ("/run/nbd.sock,mode=600,mode=660", "given twice"),
            ("/run/nbd.sock,name=a", "mode=OCTAL"),
            ("127.0.0.1:10809,mode=660", "path of a Unix socket only"),
            ("fd:disks,mode=660", "SocketMode="),
            ("fd:", "fd:NAME"),
        ] {
            let error = wrong.parse::<Address>().unwrap_err();
            assert!(error.contains(remedy), "{wrong}: {error}");
        }
    }

    #[test]
    fn addresses_that_other_machines_reach_are_warned_of() {
        let warns = |text: &str| text.parse::<Address>().unwrap().warning().is_some();
        for quiet in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "/run/nbd.sock"] {
            assert!(!warns(quiet), "{quiet}");
        }
        for loud in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            assert!(warns(loud), "{loud}");
        }
    }
}
