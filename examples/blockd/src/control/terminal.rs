//! [`Screen`]: text that is shown repeatedly, and a wait that a signal ends.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// Moves the cursor to the upper left corner.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// The columns of a terminal whose width is unknown.
const USUAL_WIDTH: u16 = 80;

/// The output of repeated texts. On a terminal each text replaces the former one; elsewhere it follows it.
/// Dropping the screen shows the cursor again.
pub(super) struct Screen<'a> {
    out: &'a mut dyn Write,
    is_terminal: bool,
    signalled: UnixStream,
}

impl<'a> Screen<'a> {
    /// Takes over standard output, to which `out` writes and which may be a terminal, and the signals SIGINT,
    /// SIGTERM and SIGHUP.
    ///
    /// # Errors
    /// If the signals cannot be handled.
    pub(super) fn start(out: &'a mut dyn Write, is_terminal: bool) -> io::Result<Self> {
        let (signalled, by_handler) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, by_handler.try_clone()?)?;
        }
        let mut screen = Self {
            out,
            is_terminal,
            signalled,
        };
        if screen.is_terminal {
            screen.write(&format!("{HIDE_CURSOR}{HOME}{CLEAR_BELOW}"))?;
        }
        Ok(screen)
    }

    /// Shows the lines of a text.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn show(&mut self, text: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(text);
        if !self.is_terminal {
            return self.write(&format!("{text}\n"));
        }
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (columns, rows) = size.map_or((USUAL_WIDTH, u16::MAX), |size| (size.ws_col, size.ws_row));
        let mut screen = String::from(HOME);
        // A line that is too long, or one line too many, would scroll.
        for line in text.lines().take(usize::from(rows) - 1) {
            screen.extend(line.chars().take(columns.into()));
            screen.push_str(CLEAR_LINE);
            screen.push_str("\r\n");
        }
        screen.push_str(CLEAR_BELOW);
        self.write(&screen)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Waits. Returns `true` if a signal has arrived.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub(super) fn wait(&self, time: Duration) -> io::Result<bool> {
        wait_readable(&self.signalled, time)
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        if self.is_terminal {
            // The terminal may no longer exist.
            self.write(SHOW_CURSOR).unwrap_or_default();
        }
    }
}

/// Waits until a descriptor is readable. Returns `true` if it is.
fn wait_readable(descriptor: &UnixStream, time: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(descriptor, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
