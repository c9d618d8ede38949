//! The inputs of a daemon from its process: the sockets and the notification socket of a service manager, and
//! the log.
//!
//! The protocols are those of systemd (`sd_listen_fds`, `sd_notify`). Other service managers use them as
//! well.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use listenfd::ListenFd;

use crate::log::LogLevel;

/// The most sockets that can be passed.
const MOST_PASSED: u64 = 4096;
/// The longest wait until the service manager accepts a notification.
const MOST_WAIT: Duration = Duration::from_secs(1);

/// The inputs of a daemon from its process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The level of its log.
    pub log_level: Option<LogLevel>,
    /// The sockets that were passed to it.
    pub sockets: PassedSockets,
}

/// Listening sockets that a service manager has passed to the process. Clones share them. They stay open
/// while a clone exists.
#[derive(Clone, Debug, Default)]
pub struct PassedSockets(Arc<BTreeMap<String, Passed>>);

#[derive(Debug)]
struct Passed {
    socket: UnixListener,
    is_used: Mutex<bool>,
}

impl PassedSockets {
    /// Takes the sockets of the variables LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES, and removes the first
    /// two. Must be called once, before the process opens any file and starts any thread.
    ///
    /// # Errors
    /// If one of them is not a listening Unix socket, or two have the same name; with the remedy.
    pub fn from_environment() -> anyhow::Result<Self> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let count = env::var("LISTEN_FDS").unwrap_or_default();
        if count.parse().is_ok_and(|count: u64| count > MOST_PASSED) {
            bail!("LISTEN_FDS={count}: at most {MOST_PASSED} sockets can be passed");
        }
        let mut passed = ListenFd::from_env();
        let mut sockets = BTreeMap::new();
        for index in 0..passed.len() {
            let name = name_of(&names, index).to_owned();
            let what = || {
                format!(
                    "the socket {name:?} that was passed is of no use; blockd takes Unix sockets of ListenStream="
                )
            };
            let Some(socket) = passed.take_unix_listener(index).with_context(what)? else {
                continue;
            };
            if !rustix::net::sockopt::socket_acceptconn(&socket).with_context(what)? {
                return Err(anyhow::anyhow!("it does not listen").context(what()));
            }
            socket.set_nonblocking(true).with_context(what)?;
            let passed = Passed {
                socket,
                is_used: Mutex::default(),
            };
            if sockets.insert(name.clone(), passed).is_some() {
                bail!(
                    "two sockets named {name:?} were passed; FileDescriptorName= gives each a name of its own"
                );
            }
        }
        Ok(Self(Arc::new(sockets)))
    }

    /// Returns a duplicate of the socket with this name.
    ///
    /// # Errors
    /// If there is no such socket; with the existing names.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<UnixListener> {
        let Some(passed) = self.0.get(name) else {
            let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
            match names.as_slice() {
                [] => bail!(
                    "no socket was passed to this process; start it from a service manager with a unit of sockets, or name \
                     a path"
                ),
                names => bail!("no socket {name:?} was passed; there are {}", names.join(", ")),
            }
        };
        *passed.is_used.lock().unwrap_or_else(PoisonError::into_inner) = true;
        passed.socket.try_clone().context("cannot duplicate a socket")
    }

    /// Returns the names of the sockets that were never [got](Self::get).
    pub(crate) fn unused(&self) -> Vec<&str> {
        let is_unused = |passed: &Passed| !*passed.is_used.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = self.0.iter().filter(|(_, passed)| is_unused(passed));
        unused.map(|(name, _)| name.as_str()).collect()
    }
}

/// Returns the name of a socket in the value of LISTEN_FDNAMES. A socket without a name has an empty field there.
fn name_of(names: &str, index: usize) -> &str {
    let name = names.split(':').nth(index).unwrap_or_default();
    if name.is_empty() { "unknown" } else { name }
}

/// Sends lines such as `READY=1` to the service manager, if the variable NOTIFY_SOCKET names its socket. An
/// error is logged.
pub fn notify(state: &str) {
    let Some(target) = env::var_os("NOTIFY_SOCKET").filter(|target| !target.is_empty()) else {
        return;
    };
    if let Err(error) = send(target.as_bytes(), state.as_bytes()) {
        tracing::warn!(%error, socket = %target.display(), "the service manager cannot be notified");
    }
}

fn send(target: &[u8], state: &[u8]) -> io::Result<()> {
    let address = match target {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(MOST_WAIT))?;
    socket.send_to_addr(state, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c34_notifications_go_to_paths_and_abstract_names_and_never_wait_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut room = [0; 64];
        send(path.as_os_str().as_bytes(), b"READY=1").unwrap();
        let count = receiver.recv(&mut room).unwrap();
        assert_eq!(&room[..count], b"READY=1");

        let name = format!("blockd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstracted = UnixDatagram::bind_addr(&address).unwrap();
        send(format!("@{name}").as_bytes(), b"STOPPING=1").unwrap();
        let count = abstracted.recv(&mut room).unwrap();
        assert_eq!(&room[..count], b"STOPPING=1");

        // The manager does not read.
        let full = (0..10_000).find_map(|_| send(path.as_os_str().as_bytes(), b"READY=1").err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(receiver);
        let gone = send(path.as_os_str().as_bytes(), b"READY=1").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// If names were shifted, clients of one socket would get the disk of another.
    #[test]
    fn c34_sockets_behind_one_without_a_name_keep_theirs() {
        let names = |text: &'static str| [0, 1, 2].map(|index| name_of(text, index));
        assert_eq!(names("a:b:c"), ["a", "b", "c"]);
        assert_eq!(names(":b:c"), ["unknown", "b", "c"]);
        assert_eq!(names("a::c"), ["a", "unknown", "c"]);
        assert_eq!(names("a"), ["a", "unknown", "unknown"]);
        assert_eq!(names(""), ["unknown"; 3]);
    }

    #[test]
    fn c34_a_socket_that_was_not_passed_is_explained() {
        let none = PassedSockets::default().get("disk").unwrap_err().to_string();
        assert!(none.contains("no socket was passed"), "{none}");
        let directory = tempfile::tempdir().unwrap();
        let passed = Passed {
            socket: UnixListener::bind(directory.path().join("a")).unwrap(),
            is_used: Mutex::default(),
        };
        let sockets = PassedSockets(Arc::new([("disk".to_owned(), passed)].into()));
        let other = sockets.get("dsk").unwrap_err().to_string();
        assert!(other.contains("there are disk"), "{other}");
        assert_eq!(sockets.unused(), ["disk"]);
        sockets.get("disk").unwrap();
        assert!(sockets.unused().is_empty());
    }
}
