//! One connection: a handler that receives bytes, processes messages, and sends the replies of a turn
//! together.
//!
//! A turn is bounded, so that other handlers have their turns. If a client does not read its replies, its
//! requests are not read any further.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aio_context::{BottomHalf, ClockId, Context, Handler, Interest, Registration, Timer};

use super::catalog::{Catalog, NbdExport};
use super::input::{Input, Received};
use super::moving::MoveClient;
use super::negotiation::{self, Agreement, Negotiation, Outcome};
use super::outbox::Outbox;
use super::places::Place;
use super::transmission::Transmission;
use super::turn::{Failure, Stop, Turn};
use crate::limit::{Kind, LineLimit};
use crate::request::Device;

mod executing;
mod handover;
mod writing;

/// The time limit of the handshake, from the connection on.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connected client.
pub(super) struct Connection {
    me: Weak<Self>,
    socket: OwnedFd,
    catalog: Rc<Catalog>,
    /// The limit of log lines: first the one of all clients, then that of the export.
    limit: RefCell<Rc<LineLimit>>,
    state: RefCell<State>,
    interest: Cell<Interest>,
    has_ended: Cell<bool>,
    /// Set when threads are to abandon the rest of their requests.
    cancelled: Arc<AtomicBool>,
    /// Kept until threads have ended the requests of the client.
    place: Arc<Place>,
    /// A function that is called once the connection has ended.
    on_end: Box<dyn Fn()>,
    parts: RefCell<Option<Parts>>,
    /// The loop to which the connection is to be moved.
    destination: RefCell<Option<(Agreement, MoveClient)>>,
}

/// The parts that make the loop call a connection.
struct Parts {
    registration: Registration,
    /// Begins the next turn.
    next_turn: BottomHalf,
    /// Ends a handshake that takes too long.
    timeout: Timer,
}

struct State {
    phase: Phase,
    input: Input,
    out: Outbox,
    /// Set when the connection ends once the replies are sent.
    is_ending: bool,
}

enum Phase {
    Handshake(Negotiation),
    Requests(Transmission),
}

/// The reason for which a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    /// The client ends it.
    #[error("the client has disconnected")]
    Client,
    #[error(transparent)]
    Handshake(#[from] negotiation::Failure),
    #[error(transparent)]
    Requests(#[from] Failure),
    #[error("the handshake was not complete within {TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Socket(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The client did not wait for the reply.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Client,
            _ => Self::Socket(error),
        }
    }
}

impl Connection {
    /// Starts the handshake. Calls `on_end` once the connection has ended, unless it was [closed](Self::close).
    ///
    /// # Errors
    /// If the loop cannot watch the socket.
    pub(super) fn start(
        (cx, clock): (&Context, ClockId),
        socket: OwnedFd,
        (catalog, limit): (Rc<Catalog>, Rc<LineLimit>),
        place: Arc<Place>,
        on_end: impl Fn() + 'static,
    ) -> io::Result<Rc<Self>> {
        let mut out = Outbox::default();
        out.put(&Negotiation::opening());
        let state = State {
            phase: Phase::Handshake(Negotiation::default()),
            input: Input::new(),
            out,
            is_ending: false,
        };
        let connection = Self::watch((cx, clock), socket, (catalog, limit), (state, place), on_end)?;
        if let Some(parts) = &*connection.parts.borrow() {
            parts.timeout.arm_after(TIMEOUT);
        }
        Ok(connection)
    }

    fn watch(
        (cx, clock): (&Context, ClockId),
        socket: OwnedFd,
        (catalog, limit): (Rc<Catalog>, Rc<LineLimit>),
        (state, place): (State, Arc<Place>),
        on_end: impl Fn() + 'static,
    ) -> io::Result<Rc<Self>> {
        let connection = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            socket,
            catalog,
            limit: RefCell::new(limit),
            state: RefCell::new(state),
            interest: Cell::new(Interest::READ),
            has_ended: Cell::new(false),
            cancelled: Arc::default(),
            place,
            on_end: Box::new(on_end),
            parts: RefCell::default(),
            destination: RefCell::default(),
        });
        let registration = cx.watch(connection.clone(), Interest::READ)?;
        let me = connection.me.clone();
        let next_turn = cx.bottom_half("nbd turn", move |_| {
            if let Some(connection) = me.upgrade() {
                connection.take_turn(false);
            }
        });
        let me = connection.me.clone();
        let timeout = cx
            .timer(clock, move |_, _| {
                if let Some(connection) = me.upgrade() {
                    connection.end(&End::Timeout);
                }
            })
            .disarmed();
        connection.parts.replace(Some(Parts {
            registration,
            next_turn,
            timeout,
        }));
        Ok(connection)
    }

    /// Begins the first turn: sends the first bytes of the handshake, or handles the bytes that were moved
    /// with the connection.
    pub(super) fn begin(&self) {
        self.take_turn(false);
    }

    /// Ends the connection without calling `on_end`.
    pub(super) fn close(&self) {
        self.has_ended.set(true);
        self.cancelled.store(true, Ordering::Relaxed);
        let parts = self.parts.take();
        drop(parts);
        // The client must not wait for the threads, which can hold the connection longer.
        rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both).unwrap_or_default();
    }

    fn end(&self, why: &End) {
        if self.has_ended.get() {
            return;
        }
        let limit = self.limit.borrow().clone();
        if matches!(why, End::Client) {
            limit.log(Kind::Clients, format_args!("NBD: {why}"));
        } else {
            limit.log(Kind::Ended, format_args!("NBD: the connection ends: {why}"));
        }
        self.close();
        (self.on_end)();
    }

    /// Returns `true` if the client has chosen the export of this device.
    pub(super) fn uses(&self, device: &Arc<Device>) -> bool {
        match &self.state.borrow().phase {
            Phase::Handshake(_) => false,
            Phase::Requests(transmission) => Arc::ptr_eq(&transmission.agreement().export.device, device),
        }
    }

    /// Begins no further requests. The requests that have begun are completed, and then the connection ends.
    pub(super) fn finish(&self) {
        let mut state = self.state.borrow_mut();
        state.is_ending = true;
        state.input.clear();
        if let Phase::Requests(transmission) = &mut state.phase {
            transmission.end();
        }
        drop(state);
        self.take_turn(false);
    }

    /// Returns the number of requests whose replies are not sent completely.
    pub(super) fn in_flight(&self) -> usize {
        let state = self.state.borrow();
        match &state.phase {
            Phase::Handshake(_) => 0,
            Phase::Requests(_) if self.has_ended.get() => 0,
            Phase::Requests(transmission) => transmission.in_flight().max(usize::from(!state.out.is_empty())),
        }
    }

    /// Processes the received bytes and sends the replies. Receives more only if it `may_receive`.
    fn take_turn(&self, may_receive: bool) {
        if self.has_ended.get() {
            return;
        }
        let mut state = self.state.borrow_mut();
        let result = self.turn(&mut state, may_receive);
        drop(state);
        if let Some((agreement, move_client)) = self.destination.take() {
            self.leave(&agreement, &move_client);
            return;
        }
        let result = result.and_then(|interest| Ok(self.set_interest(interest)?));
        if let Err(why) = result {
            self.end(&why);
        }
    }

    /// Runs a turn, and returns the events to wait for.
    fn turn(&self, state: &mut State, mut may_receive: bool) -> Result<Interest, End> {
        let mut turn = Turn::new();
        loop {
            let stop = self.process(state, &mut turn)?;
            if stop == Stop::Leave {
                return Ok(Interest::NONE);
            }
            if !state.out.is_empty() && !state.out.send(&self.socket)? {
                return Ok(Interest::WRITE);
            }
            match stop {
                Stop::Output | Stop::Leave => {}
                Stop::Turn => {
                    self.schedule();
                    return Ok(Interest::READ);
                }
                Stop::Jobs => return Ok(Interest::NONE),
                Stop::Writes => {
                    self.wait_for_writes(state);
                    return Ok(Interest::NONE);
                }
                Stop::Disconnect => {
                    return if self.is_idle(state) {
                        Err(End::Client)
                    } else {
                        Ok(Interest::NONE)
                    };
                }
                Stop::Input if !may_receive => return Ok(Interest::READ),
                Stop::Input => match state.receive(&self.socket)? {
                    Received::Full => {}
                    Received::All => may_receive = false,
                    Received::Nothing => return Ok(Interest::READ),
                    Received::End => state.end(),
                },
            }
        }
    }

    fn is_idle(&self, state: &State) -> bool {
        match &state.phase {
            Phase::Handshake(_) => true,
            Phase::Requests(transmission) => transmission.in_flight() == 0,
        }
    }

    fn process(&self, state: &mut State, turn: &mut Turn) -> Result<Stop, End> {
        let State {
            phase,
            input,
            out,
            is_ending,
        } = state;
        loop {
            match phase {
                Phase::Requests(transmission) => {
                    let submit = |export: &NbdExport, job, write| self.submit(export, job, write);
                    return Ok(transmission.process(input, out, turn, &submit)?);
                }
                Phase::Handshake(_) if *is_ending => return Ok(Stop::Disconnect),
                Phase::Handshake(negotiation) => {
                    // A client sends the next option only after the replies to the last one.
                    if !out.is_empty() {
                        return Ok(Stop::Output);
                    }
                    if turn.is_over() {
                        return Ok(Stop::Turn);
                    }
                    turn.begin_request();
                    let mut replies = Vec::new();
                    let (consumed, outcome) =
                        negotiation.handle(input.data(), &self.catalog, &mut replies)?;
                    input.consume(consumed);
                    if !replies.is_empty() {
                        out.push(replies);
                    }
                    match outcome {
                        Outcome::Incomplete => return Ok(Stop::Input),
                        Outcome::Handled => {}
                        Outcome::Aborted => *is_ending = true,
                        Outcome::Agreed(agreement) => {
                            if let Some(move_client) = self.catalog.elsewhere(&agreement.export) {
                                self.destination.replace(Some((agreement, move_client)));
                                return Ok(Stop::Leave);
                            }
                            self.has_agreed(&agreement.export.limit);
                            let limit = agreement.export.limit.clone();
                            let transmission = Self::begin_requests(&limit, agreement);
                            transmission.enter(self.me.clone());
                            *phase = Phase::Requests(transmission);
                        }
                    }
                }
            }
        }
    }

    fn has_agreed(&self, limit: &Rc<LineLimit>) {
        if let Some(parts) = &*self.parts.borrow() {
            parts.timeout.cancel();
        }
        self.limit.replace(limit.clone());
    }

    fn begin_requests(limit: &LineLimit, agreement: Agreement) -> Transmission {
        agreement.export.stats.has_client();
        limit.log(Kind::Clients, format_args!("NBD: a client has connected"));
        Transmission::new(agreement)
    }

    /// Schedules another turn after the turns of the other handlers of the loop.
    fn schedule(&self) {
        if let Some(parts) = &*self.parts.borrow() {
            parts.next_turn.schedule();
        }
    }

    fn set_interest(&self, interest: Interest) -> io::Result<()> {
        if self.interest.replace(interest) != interest
            && let Some(parts) = &*self.parts.borrow()
        {
            parts.registration.set_interest(interest)?;
        }
        Ok(())
    }
}

impl State {
    fn receive(&mut self, socket: &OwnedFd) -> io::Result<Received> {
        let direct = match &mut self.phase {
            Phase::Requests(transmission) => transmission.direct(),
            Phase::Handshake(_) => &mut [],
        };
        let (count, received) = self.input.receive(socket, direct)?;
        if let Phase::Requests(transmission) = &mut self.phase {
            transmission.received(count);
        }
        Ok(received)
    }

    /// Handles the end of the client's stream.
    fn end(&mut self) {
        self.is_ending = true;
        self.input.clear();
        if let Phase::Requests(transmission) = &mut self.phase {
            transmission.end();
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Handler for Connection {
    fn readable(&self, _: &Context) {
        self.take_turn(true);
    }

    fn writable(&self, _: &Context) {
        self.take_turn(true);
    }

    fn invalidated(&self, _: &Context, why: io::Error) {
        self.end(&End::Socket(why));
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}
