//! A connection among the others of its export: which writes have to be complete before its own.

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

    /// Whether the client has closed its side, also if it has sent more before that.
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
