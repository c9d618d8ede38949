//! [`Address`]: where NBD clients connect, and how `--nbd` describes it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where NBD clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// An IP address and a port.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    /// Parses a path or an IP address with a port. A path contains a slash or ends with `.sock`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') || text.ends_with(".sock") {
            return Ok(Self::Unix(text.into()));
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
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl Address {
    /// A warning if other machines may connect: NBD without TLS has no authentication.
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
        let unix = |path: &str| Ok(Address::Unix(path.into()));
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
