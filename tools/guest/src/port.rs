//! [`Port`]: a socket of QEMU that carries lines, with a limit for every wait.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use aio_tools::interrupt::Interrupt;
use anyhow::{Context as _, bail};

/// The interval at which a wait checks for Ctrl-C.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// A connection.
pub(crate) struct Port {
    stream: UnixStream,
    input: Vec<u8>,
    interrupt: Interrupt,
}

impl Port {
    /// Connects to a socket that QEMU makes when it starts. Checks `is_alive` during the wait.
    ///
    /// # Errors
    /// If there is no socket within the limit, or QEMU has ended.
    pub(crate) fn connect(
        path: &Path,
        limit: Duration,
        interrupt: &Interrupt,
        mut is_alive: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let began = Instant::now();
        loop {
            interrupt.check()?;
            is_alive()?;
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(CHECK_EVERY))?;
                    return Ok(Self {
                        stream,
                        input: Vec::new(),
                        interrupt: interrupt.clone(),
                    });
                }
                Err(error) if began.elapsed() > limit => {
                    return Err(error).with_context(|| format!("QEMU does not listen at {}", path.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Sends a line.
    ///
    /// # Errors
    /// If QEMU has ended.
    pub(crate) fn send(&mut self, line: &str) -> anyhow::Result<()> {
        self.stream
            .write_all(format!("{line}\n").as_bytes())
            .context("QEMU has ended")
    }

    /// Receives a line, without its end.
    ///
    /// # Errors
    /// If no line arrives within the limit, if QEMU has ended, or after a Ctrl-C.
    pub(crate) fn line(&mut self, limit: Duration) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.interrupt.check()?;
            if began.elapsed() > limit {
                bail!("no answer within {} s", limit.as_secs());
            }
            let mut part = [0; 4096];
            match self.stream.read(&mut part) {
                Ok(0) => bail!("QEMU has ended"),
                Ok(count) => self.input.extend_from_slice(&part[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("QEMU has ended"),
            }
        }
    }
}
