//! The state machine of a queue: what each message of the client does to it.
//!
//! # States
//! A queue is in the first of these states whose condition holds. It touches the client's memory in *serving* only.
//!
//! | state | condition |
//! |---|---|
//! | stopped | no kick descriptor yet, or stopped since |
//! | disabled | protocol features are negotiated, and the ring is not enabled |
//! | incomplete | its size or its addresses are missing |
//! | waiting | the shared memory does not hold its rings |
//! | serving | none of the above |
//!
//! # Messages
//! Each message takes effect in every state. A queue that is serving and must change is suspended where it is, changed,
//! and goes on, in the same message. So the order of messages does not matter, and the last one that makes it complete
//! starts it.
//!
//! | message | stops or starts | changes | a serving queue |
//! |---|---|---|---|
//! | SET_VRING_NUM | | size | goes on with it |
//! | SET_VRING_ADDR | | addresses | goes on there |
//! | SET_VRING_BASE | | position | goes on at it |
//! | SET_VRING_KICK | starts | kick descriptor | goes on with it |
//! | SET_VRING_CALL | | call descriptor | is called: a call may have gone to the former one |
//! | SET_VRING_ERR | | error descriptor | |
//! | SET_VRING_ENABLE 1 | starts, if there is a kick descriptor | enabled | |
//! | SET_VRING_ENABLE 0 | | disabled | becomes disabled |
//! | GET_VRING_BASE | stops | | stopped; its position is the answer |
//! | RESET_OWNER | stops | disabled | stopped |
//! | SET_FEATURES, if they differ | | event indexes, whether enabling counts | goes on with them |
//! | SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG | | memory | goes on in it, or waits |
//! | the connection ends | stops | forgets all | stopped |
//!
//! Size, addresses, position and descriptors stay until they are replaced: a client that sends nothing between stopping and
//! starting a queue finds it where it was.
//!
//! # Starting
//! The position is the one the client has set, or the one at which the queue stopped; [`Ring::resume_at`] has the details.
//! Each start looks for requests, so that no kick is needed for those that are there, and calls the driver once, so that
//! no completion is missed.
//!
//! If the memory does not hold the rings at the first start, the message that starts the queue is refused: the client has
//! made a mistake. A queue that was serving before waits for its memory instead, with a line in the log.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::rc::Rc;

use aio_context::{Interest, Registration, WeakContext};

use crate::chain::Chain;
use crate::features::{EVENT_IDX, FLUSH, PROTOCOL};
use crate::limit::Kind;
use crate::link::Link;
use crate::memory::Memory;
use crate::request::Device;
use crate::ring::{Ring, RingAddresses, RingError};
use crate::vring::{Doorbell, Vring, Wiring};

/// What the queues of a connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) context: WeakContext,
    pub(crate) device: Rc<Device>,
    pub(crate) chain: Rc<RefCell<Chain>>,
    pub(crate) link: Rc<Link>,
    /// The features that the driver has accepted.
    pub(crate) accepted: Cell<u64>,
    pub(crate) memory: RefCell<Rc<Memory>>,
}

impl Shared {
    /// Whether a queue serves only while it is enabled. Without protocol features there is no message to enable one.
    fn enabling_counts(&self) -> bool {
        self.accepted.get() & PROTOCOL != 0
    }
}

/// Why a queue cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The rings cannot be where they are said to be.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The loop does not watch the kick descriptor.
    #[error("cannot wait for kicks: {0}")]
    Watch(#[from] io::Error),
}

/// A message about one queue.
#[derive(Debug)]
pub(crate) enum Message {
    Size(u32),
    Addresses(RingAddresses),
    Base(u16),
    Kick(Rc<File>),
    Call(Option<File>),
    Error(Option<File>),
    Enable,
    Disable,
    /// GET_VRING_BASE.
    Stop,
    /// RESET_OWNER.
    Reset,
}

/// See the table of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Disabled,
    Incomplete,
    /// Serving, or waiting for memory.
    Complete(u32, RingAddresses),
}

/// What the client has said about one queue, and the queue itself while it serves.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    size: Option<u32>,
    addresses: Option<RingAddresses>,
    /// Where to start.
    base: u16,
    kick: Option<Rc<File>>,
    call: Doorbell,
    error: Doorbell,
    is_started: bool,
    is_enabled: bool,
    has_served: bool,
    serving: Option<Serving>,
}

#[derive(Debug)]
struct Serving {
    vring: Rc<Vring>,
    _registration: Registration,
}

impl Queue {
    /// Does what the table of messages says, and starts the queue if nothing is missing.
    pub(crate) fn handle(
        &mut self,
        index: usize,
        message: Message,
        shared: &Shared,
    ) -> Result<(), StartError> {
        match message {
            Message::Size(size) => {
                self.suspend();
                self.size = Some(size);
            }
            Message::Addresses(addresses) => {
                self.suspend();
                self.addresses = Some(addresses);
            }
            Message::Base(base) => {
                self.suspend();
                self.base = base;
            }
            Message::Kick(kick) => {
                self.suspend();
                self.kick = Some(kick);
                self.is_started = true;
            }
            Message::Call(call) => {
                self.call.replace(call);
                if let Some(serving) = &self.serving {
                    serving.vring.call();
                }
            }
            Message::Error(error) => drop(self.error.replace(error)),
            Message::Enable => {
                self.is_enabled = true;
                self.is_started = self.kick.is_some();
            }
            Message::Disable => {
                self.suspend();
                self.is_enabled = false;
            }
            Message::Stop => {
                self.suspend();
                self.is_started = false;
            }
            Message::Reset => {
                self.suspend();
                self.is_started = false;
                self.is_enabled = false;
            }
        }
        self.resume(index, shared)
    }

    /// Where the queue stands, or stood when it stopped.
    pub(crate) fn position(&self) -> u16 {
        self.base
    }

    /// Stops serving; [`resume`](Self::resume) goes on at the same place.
    pub(crate) fn suspend(&mut self) {
        if let Some(serving) = self.serving.take() {
            self.base = serving.vring.stop();
        }
    }

    fn state(&self, shared: &Shared) -> State {
        if !self.is_started || self.kick.is_none() {
            State::Stopped
        } else if shared.enabling_counts() && !self.is_enabled {
            State::Disabled
        } else if let (Some(size), Some(addresses)) = (self.size, self.addresses) {
            State::Complete(size, addresses)
        } else {
            State::Incomplete
        }
    }

    /// Serves, if nothing is missing.
    pub(crate) fn resume(&mut self, index: usize, shared: &Shared) -> Result<(), StartError> {
        let (State::Complete(size, addresses), None) = (self.state(shared), &self.serving) else {
            return Ok(());
        };
        let memory = shared.memory.borrow().clone();
        let event_idx = shared.accepted.get() & EVENT_IDX != 0;
        match Ring::find(&memory, addresses, size, event_idx) {
            Ok(ring) => self.serve(index, ring, memory, shared),
            Err(error @ RingError::Outside { .. }) if self.has_served => {
                let line = format_args!("queue {index} waits for its memory: {error}");
                shared.link.log(Kind::Queues, line);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn serve(
        &mut self,
        index: usize,
        ring: Ring,
        memory: Rc<Memory>,
        shared: &Shared,
    ) -> Result<(), StartError> {
        let (Some(kick), Some(context)) = (&self.kick, shared.context.upgrade()) else {
            return Ok(());
        };
        let wiring = Wiring {
            index,
            kick: kick.clone(),
            call: self.call.clone(),
            error: self.error.clone(),
            memory,
            device: shared.device.clone(),
            chain: shared.chain.clone(),
            link: shared.link.clone(),
            write_through: shared.accepted.get() & FLUSH == 0,
        };
        let vring = Rc::new(Vring::new(ring, self.base, wiring));
        let registration = context.watch_polled(vring.clone(), Interest::READ)?;
        vring.start();
        self.has_served = true;
        self.serving = Some(Serving {
            vring,
            _registration: registration,
        });
        Ok(())
    }
}
