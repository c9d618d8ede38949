//! Moves a connection to the loop of its export.

use std::io;
use std::rc::Rc;

use aio_context::{ClockId, Context};

use super::super::catalog::{Catalog, NbdExport};
use super::super::input::Input;
use super::super::moving::{MoveClient, Moved};
use super::super::negotiation::{Agreement, Negotiation};
use super::super::outbox::Outbox;
use super::{Connection, End, Phase, State};

impl Connection {
    /// Continues with a client that has chosen this export on another loop. `on_end` is the same as for
    /// [`start`](Self::start).
    ///
    /// # Errors
    /// If the loop cannot watch the socket.
    pub(in super::super) fn adopt(
        on: (&Context, ClockId),
        moved: Moved,
        catalog: Rc<Catalog>,
        export: Rc<NbdExport>,
        on_end: impl Fn() + 'static,
    ) -> io::Result<Rc<Self>> {
        let limit = export.limit.clone();
        let agreement = Agreement {
            export,
            structured: moved.structured,
            status: moved.status,
        };
        let state = State {
            phase: Phase::Requests(Self::begin_requests(&limit, agreement)),
            input: moved.input,
            out: moved.out,
            is_ending: false,
        };
        let (shared, own) = ((catalog, limit), (state, moved.place));
        let connection = Self::watch(on, moved.socket, shared, own, on_end)?;
        if let Phase::Requests(transmission) = &connection.state.borrow().phase {
            transmission.enter(connection.me.clone());
        }
        Ok(connection)
    }

    /// Moves the connection to the loop of its export.
    pub(super) fn leave(&self, agreement: &Agreement, move_client: &MoveClient) {
        // The original socket is closed with the connection.
        let socket = match rustix::io::fcntl_dupfd_cloexec(&self.socket, 0) {
            Ok(socket) => socket,
            Err(error) => return self.end(&End::Socket(error.into())),
        };
        let nothing = State {
            phase: Phase::Handshake(Negotiation::default()),
            input: Input::new(),
            out: Outbox::default(),
            is_ending: true,
        };
        let State { input, out, .. } = self.state.replace(nothing);
        self.has_ended.set(true);
        // Two loops must not watch the socket at the same time.
        let parts = self.parts.take();
        drop(parts);
        let moved = Moved {
            socket,
            input,
            out,
            device: agreement.export.device.clone(),
            structured: agreement.structured,
            status: agreement.status,
            place: self.place.clone(),
        };
        (self.on_end)();
        move_client(moved);
    }
}
