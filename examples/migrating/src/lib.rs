//! The parts that the pairs of programs in `examples/` share: the client of their server, and the ring of a virtual device.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// How long the servers go on after the client has asked them to stop.
pub const LINGER: Duration = Duration::from_millis(5);

/// Sends a line over the socket, and waits until it has come back.
///
/// # Errors
/// If the server ends first, or sends something else.
pub fn ask(mut server: &UnixStream) -> io::Result<()> {
    server.write_all(b"ping")?;
    let mut answer = [0; 4];
    server.read_exact(&mut answer)?;
    match &answer {
        b"ping" => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Sends back what the socket has, and returns how many bytes that was.
///
/// # Errors
/// If the client is gone.
pub fn echo(mut client: &UnixStream) -> io::Result<usize> {
    let (mut echoed, mut buffer) = (0, [0; 64]);
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return Ok(echoed),
            Ok(read) => {
                client.write_all(&buffer[..read])?;
                echoed += read;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(echoed),
            Err(error) => return Err(error),
        }
    }
}

/// Counts the requests of a guest, in place of a virtqueue in its memory. One thread pushes, one pops.
#[derive(Debug)]
pub struct Ring {
    pushed: AtomicU64,
    popped: AtomicU64,
    needs_kick: AtomicBool,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            pushed: AtomicU64::new(0),
            popped: AtomicU64::new(0),
            needs_kick: AtomicBool::new(true),
        }
    }
}

impl Ring {
    /// Adds a request. Returns whether the device must be kicked for it.
    pub fn push(&self) -> bool {
        self.pushed.fetch_add(1, SeqCst);
        self.needs_kick.load(SeqCst)
    }

    /// Adds requests, as a guest does, and calls `kick` where the device must be kicked.
    ///
    /// # Errors
    /// The error of `kick`.
    pub fn fill(&self, requests: u64, kick: impl Fn() -> io::Result<()>) -> io::Result<()> {
        for _ in 0..requests {
            if self.push() {
                kick()?;
            }
        }
        Ok(())
    }

    /// Takes a request. Returns whether there was one.
    pub fn pop(&self) -> bool {
        let has_one = !self.is_empty();
        self.popped.fetch_add(u64::from(has_one), SeqCst);
        has_one
    }

    /// Returns the number of requests that were taken.
    pub fn popped(&self) -> u64 {
        self.popped.load(SeqCst)
    }

    /// Returns whether there is no request.
    pub fn is_empty(&self) -> bool {
        self.pushed.load(SeqCst) == self.popped.load(SeqCst)
    }

    /// Sets whether a push has to kick the device from now on.
    pub fn set_notification(&self, needs_kick: bool) {
        self.needs_kick.store(needs_kick, SeqCst);
    }
}
