//! A listening socket and its path. One daemon at a time owns the path, and removes it at its end.
//!
//! A killed daemon leaves its socket behind, so a start replaces a stale socket, which has no listener.
//! Between the check and the replacement another daemon could do the same. Therefore each start, and each
//! removal, holds a lock (`flock`) on the socket's directory meanwhile. The lock leaves no file behind and
//! ends with the process.
//!
//! Mode and group are set before the socket listens: no client can connect earlier.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aio_sources::Accept;
use anyhow::{Context as _, bail};
use rustix::fs::{AtFlags, CWD, Gid, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;

use crate::peer_process::peer_process;

/// The time between two attempts to get a lock that another process holds.
const LOCK_AGAIN: Duration = Duration::from_millis(10);
/// The time between two checks whether the socket of an ended process is closed, and their number.
const CLOSE_AGAIN: Duration = Duration::from_millis(2);
const CLOSE_TRIES: u32 = 1000;
/// The most attempts to get the lock at a start: two seconds.
const TRIES_TO_BIND: u32 = 200;
/// The most attempts to get the lock at the end, for each socket.
const TRIES_TO_REMOVE: u32 = 5;

/// The most bytes of a path: clients append a zero byte to it.
const MOST_PATH: usize = 107;

/// The most clients that wait in a socket's queue; the system may have a lower limit.
const BACKLOG: i32 = 4096;

/// The permission to connect. Without a mode the umask decides. Without a group, the group of the process is
/// used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permissions {
    /// The permission bits, such as 0o660.
    pub(crate) mode: Option<u32>,
    /// The number of the group.
    pub(crate) group: Option<u32>,
}

impl Permissions {
    /// The permissions that only the user of this process has.
    pub(crate) const PRIVATE: Self = Self {
        mode: Some(0o600),
        group: None,
    };
}

/// A listening socket. Dropping it removes its path, if the path still is its own.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    /// `None` if another process has made the socket.
    own: Option<Own>,
}

/// The path of a socket of this process.
#[derive(Debug)]
struct Own {
    path: PathBuf,
    /// The device and inode of the path. The inode is not reused while the socket is open.
    id: (u64, u64),
    is_removed: AtomicBool,
}

impl Listener {
    /// Listens at `path`. Replaces a stale socket there.
    pub(crate) fn bind(path: &Path, permissions: Permissions) -> anyhow::Result<Self> {
        let _lock = lock_directory(path, TRIES_TO_BIND)?;
        remove_stale(path)?;
        let socket = bind(path, permissions)?;
        let about = path
            .symlink_metadata()
            .with_context(|| format!("the socket {} disappeared", path.display()))?;
        // From now on the path is removed after an error.
        let listener = Self {
            socket: UnixListener::from(socket),
            own: Some(Own {
                path: path.to_owned(),
                id: id(&about),
                is_removed: AtomicBool::default(),
            }),
        };
        permit(path, &about, permissions)?;
        rustix::net::listen(&listener.socket, BACKLOG)
            .with_context(|| format!("cannot listen at {}", path.display()))?;
        Ok(listener)
    }

    /// Returns a non-blocking socket that listens already. Its path is not removed.
    pub(crate) fn passed(socket: UnixListener) -> Self {
        Self { socket, own: None }
    }

    pub(crate) fn socket(&self) -> &UnixListener {
        &self.socket
    }

    /// Removes the path, if it still is this socket's. If other processes lock the directory, waits for some
    /// milliseconds.
    pub(crate) fn remove(&self) {
        let Some(own) = &self.own else { return };
        if own.is_removed.swap(true, Ordering::Relaxed) {
            return;
        }
        // Without the lock the path is still compared. Only a daemon that starts at the same moment could
        // lose its socket.
        let _lock = lock_directory(&own.path, TRIES_TO_REMOVE);
        let is_own = own
            .path
            .symlink_metadata()
            .is_ok_and(|about| id(&about) == own.id);
        if !is_own {
            tracing::info!(path = %own.path.display(), "the socket's path was gone already, or another process has it");
        } else if let Err(error) = std::fs::remove_file(&own.path) {
            tracing::warn!(path = %own.path.display(), %error, "cannot remove the socket");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove();
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Accept for Listener {
    type Client = UnixStream;
    type Address = SocketAddr;

    fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        Accept::accept(&self.socket)
    }
}

/// Returns a non-blocking socket with this path. It does not listen yet.
fn bind(path: &Path, permissions: Permissions) -> anyhow::Result<OwnedFd> {
    let bound = || -> Result<OwnedFd, Errno> {
        // The system accepts one byte more, but most clients do not.
        if path.as_os_str().len() > MOST_PATH {
            return Err(Errno::NAMETOOLONG);
        }
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        if let Some(mode) = permissions.mode {
            // The path gets these bits, without the bits of the umask.
            rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
        }
        rustix::net::bind(&socket, &address)?;
        Ok(socket)
    };
    bound().map_err(|error| {
        let remedy = match error {
            Errno::NOENT => "its directory does not exist; make it, or name another path",
            Errno::ACCESS | Errno::PERM => {
                "you may not write to its directory; change that, or name another path"
            }
            Errno::NAMETOOLONG | Errno::INVAL => {
                "a socket's path has at most 107 bytes; name a shorter one, or change to its directory and name the \
                 last part"
            }
            Errno::MFILE | Errno::NFILE => {
                "the limit of open files is reached; raise it (ulimit -n, or LimitNOFILE of a service)"
            }
            Errno::ADDRINUSE => "another process has just created it; name another path",
            _ => "name another path",
        };
        let what = format!("cannot listen at {}: {remedy}", path.display());
        anyhow::Error::new(io::Error::from(error)).context(what)
    })
}

/// Sets the group and the mode of a path that has been bound and does not listen yet.
fn permit(path: &Path, about: &Metadata, permissions: Permissions) -> anyhow::Result<()> {
    if let Some(group) = permissions.group {
        rustix::fs::chownat(
            CWD,
            path,
            None,
            Some(Gid::from_raw(group)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .with_context(|| {
            format!(
                "cannot give the socket {} to group {group}; name a group of which this process is a member",
                path.display()
            )
        })?;
    }
    // The umask has removed bits.
    if let Some(mode) = permissions.mode
        && about.mode() & 0o777 != mode
    {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
            .with_context(|| format!("cannot change the mode of the socket {}", path.display()))?;
    }
    Ok(())
}

fn id(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Locks the directory of `path`. Returns `None` if that is impossible. If the directory does not exist, the
/// next step reports it.
fn lock_directory(path: &Path, tries: u32) -> anyhow::Result<Option<File>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => return Ok(None),
    };
    let Ok(file) = File::open(directory) else {
        return Ok(None);
    };
    for _ in 0..tries {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            // The file system has no locks.
            Err(TryLockError::Error(_)) => return Ok(None),
        }
        std::thread::sleep(LOCK_AGAIN);
    }
    bail!(
        "another process holds a lock on the directory {}; end that process, or name a socket elsewhere",
        directory.display()
    );
}

/// Removes a stale socket, such as that of a killed daemon. The directory must be locked.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let Ok(about) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !about.file_type().is_socket() {
        bail!("{} exists and is not a socket; name another path", path.display());
    }
    match listener_at(path)? {
        None => {}
        Some(Some(own)) if own == rustix::process::getpid() => {
            bail!(
                "this daemon listens at {} already, for another option or export; name another path",
                path.display()
            )
        }
        Some(Some(other)) => bail!(
            "another process listens at {} already; stop the process {other}, or name another path",
            path.display()
        ),
        Some(None) => bail!(
            "another process listens at {} already; stop that process, or name another path",
            path.display()
        ),
    }
    std::fs::remove_file(path).with_context(|| format!("cannot remove the stale socket {}", path.display()))
}

/// Returns the process that listens at `path`, if there is a listener and the system reports its process.
/// Does not wait until it accepts.
///
/// If a killed process used an io_uring, the kernel closes its sockets some time after its end. Until then
/// they accept connections.
fn listener_at(path: &Path) -> anyhow::Result<Option<Option<Pid>>> {
    for _ in 0..CLOSE_TRIES {
        match probe(path)? {
            Probe::Free => return Ok(None),
            Probe::Taken(by) => return Ok(Some(by)),
            Probe::Ended => std::thread::sleep(CLOSE_AGAIN),
        }
    }
    Ok(Some(None))
}

/// The result of a connection to a socket: the state of its listener.
enum Probe {
    Free,
    Taken(Option<Pid>),
    /// The process that made the listener has ended. It may have passed the listener on.
    Ended,
}

fn probe(path: &Path) -> anyhow::Result<Probe> {
    let what = || format!("cannot find out whether a process listens at {}", path.display());
    let address = SocketAddrUnix::new(path).with_context(what)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).with_context(what)?;
    loop {
        match rustix::net::connect(probe.as_fd(), &address) {
            Ok(()) => {
                let made_by = peer_process(&probe).with_context(what)?;
                let has_ended = |made_by| rustix::process::test_kill_process(made_by) == Err(Errno::SRCH);
                return Ok(if made_by.is_some_and(has_ended) {
                    Probe::Ended
                } else {
                    Probe::Taken(made_by)
                });
            }
            // The backlog is full.
            Err(Errno::AGAIN) => return Ok(Probe::Taken(None)),
            Err(Errno::CONNREFUSED | Errno::NOENT) => return Ok(Probe::Free),
            Err(Errno::INTR) => {}
            // The socket may be a datagram socket, or belong to another user.
            Err(error) => return Err(error).with_context(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// The system accepts a path of 108 bytes, but most clients do not.
    #[test]
    fn c7_the_path_of_a_socket_has_at_most_107_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let rest = MOST_PATH - directory.path().as_os_str().len() - 1;
        let longest = directory.path().join("x".repeat(rest));
        let listener = Listener::bind(&longest, Permissions::default()).unwrap();
        UnixStream::connect(&longest).unwrap();
        drop(listener);
        let error = Listener::bind(
            &directory.path().join("x".repeat(rest + 1)),
            Permissions::default(),
        );
        assert!(error.unwrap_err().to_string().contains("at most 107 bytes"));
    }

    #[test]
    fn a_stale_socket_makes_room_and_a_live_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&path, Permissions::default()).unwrap();
        assert!(
            Listener::bind(&path, Permissions::default())
                .unwrap_err()
                .to_string()
                .contains("already")
        );
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn c34_mode_and_group_are_those_that_were_named() {
        let directory = tempfile::tempdir().unwrap();
        let own = rustix::process::getgid().as_raw();
        for mode in [0o600, 0o660, 0o666, 0o777] {
            let path = directory.path().join(format!("{mode:o}"));
            let permissions = Permissions {
                mode: Some(mode),
                group: Some(own),
            };
            let _listener = Listener::bind(&path, permissions).unwrap();
            let about = path.metadata().unwrap();
            assert_eq!((about.mode() & 0o7777, about.gid()), (mode, own));
        }
        if rustix::process::geteuid().is_root() {
            let path = directory.path().join("of another group");
            let permissions = Permissions {
                mode: None,
                group: Some(own + 12345),
            };
            match Listener::bind(&path, permissions) {
                Ok(_listener) => assert_eq!(path.metadata().unwrap().gid(), own + 12345),
                // In a user namespace there may be no such group.
                Err(error) => assert!(error.to_string().contains("name a group"), "{error}"),
            }
            assert!(!path.exists());
        } else {
            println!("skipped: only root gives a socket to a group of others");
        }
    }

    #[test]
    fn a_file_is_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(Listener::bind(&path, Permissions::default()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn c7_only_its_own_name_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let former = Listener::bind(&path, Permissions::default()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let present = Listener::bind(&path, Permissions::default()).unwrap();
        drop(former);
        assert!(path.exists(), "the socket of another listener was removed");
        drop(present);
        assert!(!path.exists());
    }

    #[test]
    fn c7_one_of_several_takes_a_stale_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let start = Barrier::new(4);
            let bind = || {
                start.wait();
                Listener::bind(&path, Permissions::default())
            };
            let bound: Vec<_> = std::thread::scope(|scope| {
                let racers = [(); 4].map(|()| scope.spawn(bind));
                racers.map(|racer| racer.join().unwrap()).into()
            });
            assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1);
            for error in bound.iter().filter_map(|bound| bound.as_ref().err()) {
                assert!(error.to_string().contains("already"), "{error}");
            }
            drop(bound);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn c7_a_live_socket_with_a_full_queue_is_live() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let _live = Listener::bind(&path, Permissions::default()).unwrap();
        let address = SocketAddrUnix::new(&path).unwrap();
        let mut clients = Vec::new();
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let client =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
            let connected = rustix::net::connect(&client, &address);
            clients.push(client);
            if connected == Err(Errno::AGAIN) {
                break;
            }
            connected.unwrap();
        }
        assert!(
            Listener::bind(&path, Permissions::default())
                .unwrap_err()
                .to_string()
                .contains("already")
        );
    }
}
