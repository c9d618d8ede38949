//! The process at the other end of a Unix socket.
#![allow(
    unsafe_code,
    reason = "rustix has no value for a process of another namespace, and nix would bring a crate"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::process::Pid;

/// Returns the process that made the other end; for a client, the process that listens. `None` if that
/// process is in a PID namespace that this process cannot see, such as that of a container's host.
///
/// # Errors
/// If the descriptor is not a Unix socket.
pub(crate) fn peer_process(socket: impl AsFd) -> io::Result<Option<Pid>> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the system writes at most `len` bytes through the pointer, which points to a value of this size. Any number is valid in
    // each of its fields. Both pointers are those of local variables that outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(peer.pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_process_at_the_other_end() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peer_process(&one).unwrap(), Some(rustix::process::getpid()));
        assert!(peer_process(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
