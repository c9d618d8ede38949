//! The connection as a [`Writer`]: it waits until writes of other connections to its export are complete.

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Connection, Phase, State};
use crate::limit::Kind;
use crate::nbd::writes::Writer;

impl Connection {
    /// Begins the next turn once a write of another client is complete.
    pub(super) fn wait_for_writes(&self, state: &State) {
        let Phase::Requests(transmission) = &state.phase else {
            return;
        };
        if transmission.wait_for_writes() {
            let line = format_args!(
                "NBD: a client waits until the image has completed the writes of clients that have disconnected"
            );
            self.limit.borrow().log(Kind::Waiting, line);
        }
    }

    /// Returns `true` if the client has closed its side, even if data that it has sent before are unread.
    fn has_gone(&self) -> bool {
        let ends = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let now = Timespec::default();
        rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(ends)
    }
}

impl Writer for Connection {
    fn wake(&self) {
        self.schedule();
    }

    fn leave_if_gone(&self) {
        if self.has_gone() {
            self.finish();
        }
    }
}
