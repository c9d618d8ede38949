//! The state machine of a queue: the effect of each message of the client.
//!
//! # States
//! A queue is in the first of these states whose condition holds. It accesses the client's memory only while
//! *serving*.
//!
//! | state | condition |
//! |---|---|
//! | stopped | it has no kick descriptor, or was stopped |
//! | failed | its driver has violated the specification since the last message that stops or changes the queue |
//! | disabled | protocol features are negotiated, and the ring is not enabled |
//! | incomplete | its size or its addresses are missing |
//! | waiting | the shared memory does not hold its rings |
//! | serving | none of the above |
//!
//! # Messages
//! Each message takes effect in every state. A message that changes a serving queue suspends it, changes it
//! and resumes it at the same position. So messages may arrive in any order, and the message that completes
//! the set-up starts the queue.
//!
//! | message | stops or starts | changes | effect on a serving queue |
//! |---|---|---|---|
//! | SET_VRING_NUM | | size | continues with it |
//! | SET_VRING_ADDR | | addresses | continues there |
//! | SET_VRING_BASE | | position | continues: see Starting |
//! | SET_VRING_KICK | starts | kick descriptor | continues with it |
//! | SET_VRING_CALL | | call descriptor | the driver is called, because an earlier call may have gone to the former descriptor |
//! | SET_VRING_ERR | | error descriptor | |
//! | SET_VRING_ENABLE 1 | starts, if there is a kick descriptor | enabled | |
//! | SET_VRING_ENABLE 0 | | disabled | becomes disabled |
//! | GET_VRING_BASE | stops | | stopped; its position is the answer |
//! | RESET_OWNER | stops | disabled | stopped |
//! | SET_FEATURES, if they differ | | event indexes, whether rings must be enabled | continues with them |
//! | SET_CONFIG, if it turns the write cache on or off | | whether writes wait for the medium | continues with it |
//! | SET_LOG_BASE | | the log of written pages, while LOG_ALL is accepted | continues with it |
//! | SET_INFLIGHT_FD | | the tracking of outstanding requests | continues with it |
//! | SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG | | memory | continues in it, or waits |
//! | the connection ends | stops | resets all | stopped |
//!
//! Size, addresses, position and descriptors stay until they are replaced: a queue that is stopped and started again without
//! other messages continues where it stopped.
//!
//! # Starting
//! The queue starts at the used index, independent of the position that the client has set, unless the rings
//! contradict that; [`Ring::resume_at`] has the details. With in-flight tracking, the region and the used
//! index determine the position, and requests that a former daemon has left are executed first ([`Start`]).
//! Each start checks the available index, so that pending requests need no kick, and calls the driver once,
//! so that no completion is missed.
//!
//! If the memory does not contain the rings, the queue waits for its memory, with a line in the log. At the
//! first start this is a mistake of the client, so the message that starts the queue is refused, and the
//! error descriptor is signalled.
//!
//! # Queues of other loops
//! If the export has several I/O threads, the loop of its session serves some of its queues and other loops
//! serve the rest ([`RemoteHosts`]). If a message concerns a queue of another loop, that loop first stops the
//! queue: it takes no more requests, completes those that it has taken, drops the queue with its reference to
//! the client's memory, and reports the position. Meanwhile the session's loop serves all other queues. So
//! the message is handled while no thread accesses the memory of the queue. Afterwards the queue is started
//! again, if its set-up is still complete. A message that concerns one queue stops no other queue.
//!
//! # Failing
//! A queue whose driver offers an impossible available index or a malformed descriptor chain fails: it stops,
//! signals the error descriptor, and logs the reason. The other queues and the connection continue. The
//! protocol has no message for this, and defines only that the error descriptor is signalled when an error
//! occurs. GET_VRING_BASE returns the position of the first incomplete request. SET_VRING_NUM,
//! SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_KICK and SET_VRING_ENABLE 0 set up the queue again; the messages
//! that concern all queues do not. The request that made it fail stays outstanding, so a start that finds it
//! unchanged fails again.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use aio_context::WeakContext;

use crate::connection::Connection;
use crate::dirty_log::DirtyLog;
use crate::eventfd::signal;
use crate::features::{CONFIG_WCE, EVENT_IDX, FLUSH, LOG_ALL, PROTOCOL};
use crate::host::{Host, Serving, VringSetup};
use crate::hosted::Parked;
use crate::inflight::{InflightArea, InflightError, Start};
use crate::limit::Kind;
use crate::memory::Memory;
use crate::remote_hosts::RemoteHosts;
use crate::ring::{Ring, RingAddresses, RingError};

/// The state that the queues of a connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) context: WeakContext,
    /// The export on this loop.
    pub(crate) host: Rc<Host>,
    /// The export on the other loops that serve some of its queues.
    pub(crate) others: Rc<RemoteHosts>,
    pub(crate) connection: Rc<Connection>,
    /// The features that the driver has accepted.
    pub(crate) accepted: Cell<u64>,
    /// Whether a write may complete before it is on the medium. Only drivers that have accepted `CONFIG_WCE` turn it off.
    pub(crate) write_cache: Cell<bool>,
    pub(crate) memory: RefCell<Arc<Memory>>,
    /// The log in which the client wants written pages to be marked.
    pub(crate) log: RefCell<Option<Arc<DirtyLog>>>,
    /// The area in which the client wants outstanding requests to be tracked.
    pub(crate) inflight: RefCell<Option<Arc<InflightArea>>>,
}

impl Shared {
    /// Returns `true` if a queue serves only while it is enabled. Without protocol features there is no
    /// message that enables it.
    fn must_be_enabled(&self) -> bool {
        self.accepted.get() & PROTOCOL != 0
    }

    /// Returns the log, while the client wants it to be used.
    fn log_if_wanted(&self) -> Option<Arc<DirtyLog>> {
        if self.accepted.get() & LOG_ALL == 0 {
            return None;
        }
        self.log.borrow().clone()
    }

    /// Returns `true` if each write must be on the medium before it completes: the driver has turned the
    /// write cache off, or cannot flush.
    fn is_write_through(&self) -> bool {
        let accepted = self.accepted.get();
        if accepted & CONFIG_WCE != 0 {
            return !self.write_cache.get();
        }
        accepted & FLUSH == 0
    }
}

/// The reason for which a queue cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The rings cannot be at the given addresses.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The loop cannot watch the kick descriptor.
    #[error("cannot wait for kicks: {0}")]
    Watch(#[from] io::Error),
    /// The requests that a former daemon has left in flight contradict the rings.
    #[error(transparent)]
    Inflight(#[from] InflightError),
}

/// A message about one queue.
#[derive(Debug)]
pub(crate) enum Message {
    Size(u32),
    /// The addresses, with the guest address of the used ring for the log of written pages.
    Addresses(RingAddresses, Option<u64>),
    Base(u16),
    Kick(Arc<File>),
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
    Failed,
    Disabled,
    Incomplete,
    /// The queue serves, or waits for memory.
    Complete(u32, RingAddresses),
}

/// The settings that the client has sent for one queue, and the running queue while it serves.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    size: Option<u32>,
    addresses: Option<RingAddresses>,
    used_log: Option<u64>,
    /// The position at which to start.
    base: u16,
    kick: Option<Arc<File>>,
    call: Option<Arc<File>>,
    error: Option<Arc<File>>,
    is_started: bool,
    is_enabled: bool,
    has_served: bool,
    /// Set if the queue has failed, and was not set up again since then.
    has_failed: bool,
    /// Set if another loop has stopped the queue for the current message.
    is_parked: bool,
    serving: Option<Place>,
}

/// The place where a queue is served.
#[derive(Debug)]
enum Place {
    Here(Serving),
    /// On another loop, at this index in [`RemoteHosts`].
    There(usize),
}

impl Queue {
    /// Handles a message as the table of messages defines, and starts the queue if its set-up is complete.
    pub(crate) fn handle(
        &mut self,
        index: usize,
        message: Message,
        shared: &Shared,
    ) -> Result<(), StartError> {
        match message {
            Message::Size(size) => {
                self.prepare();
                self.size = Some(size);
            }
            Message::Addresses(addresses, used_log) => {
                self.prepare();
                self.addresses = Some(addresses);
                self.used_log = used_log;
            }
            Message::Base(base) => {
                self.prepare();
                self.base = base;
            }
            Message::Kick(kick) => {
                self.prepare();
                self.kick = Some(kick);
                self.is_started = true;
            }
            Message::Call(call) => {
                self.call = call.map(Arc::new);
                if let Some(Place::Here(serving)) = &self.serving {
                    serving.vring.set_call(self.call.clone());
                }
                return Ok(());
            }
            Message::Error(error) => {
                self.error = error.map(Arc::new);
                if let Some(Place::Here(serving)) = &self.serving {
                    serving.vring.set_error(self.error.clone());
                }
                return Ok(());
            }
            Message::Enable => {
                self.is_enabled = true;
                self.is_started = self.kick.is_some();
            }
            Message::Disable => {
                self.prepare();
                self.is_enabled = false;
            }
            Message::Stop => {
                self.prepare();
                self.is_started = false;
            }
            Message::Reset => {
                self.prepare();
                self.is_started = false;
                self.is_enabled = false;
            }
        }
        let resumed = self.resume(index, shared);
        if resumed.is_err()
            && let Some(error) = &self.error
        {
            signal(error);
        }
        resumed
    }

    /// Returns the position at which the queue was last suspended, or the one that the client has set.
    pub(crate) fn position(&self) -> u16 {
        self.base
    }

    /// Stops serving for a message that sets up the queue again, and resets the failure.
    fn prepare(&mut self) {
        self.suspend();
        self.has_failed = false;
    }

    /// Stops serving. [`resume`](Self::resume) continues at the same position, unless the queue has failed.
    pub(crate) fn suspend(&mut self) {
        if let Some(Place::Here(serving)) = self.serving.take() {
            self.has_failed = serving.vring.is_stopped();
            self.base = serving.vring.stop();
        }
    }

    /// Returns `true` if this loop serves the queue.
    pub(crate) fn is_serving_here(&self) -> bool {
        matches!(&self.serving, Some(Place::Here(serving)) if !serving.vring.is_stopped())
    }

    /// Returns the index in [`RemoteHosts`] of the loop that serves the queue, if another one does.
    pub(crate) fn served_by(&self) -> Option<usize> {
        match self.serving {
            Some(Place::There(other)) => Some(other),
            _ => None,
        }
    }

    /// Records that the loop that served the queue has stopped it, until [`release`](Self::release).
    pub(crate) fn park(&mut self, parked: Parked) {
        self.serving = None;
        self.is_parked = true;
        self.has_failed = parked.has_failed;
        self.base = parked.position.unwrap_or(self.base);
    }

    /// Takes no requests until [`release`](Self::release), if this loop serves the queue. Returns `true` if
    /// no request is outstanding.
    pub(crate) fn hold(&self) -> bool {
        match &self.serving {
            Some(Place::Here(serving)) => serving.vring.hold(),
            _ => true,
        }
    }

    /// Takes requests again. A parked queue is resumed.
    pub(crate) fn release(&mut self, index: usize, shared: &Shared) -> Result<(), StartError> {
        if let Some(Place::Here(serving)) = &self.serving {
            serving.vring.release();
        }
        match std::mem::take(&mut self.is_parked) {
            true => self.resume(index, shared),
            false => Ok(()),
        }
    }

    fn state(&self, shared: &Shared) -> State {
        if !self.is_started || self.kick.is_none() {
            State::Stopped
        } else if self.has_failed {
            State::Failed
        } else if shared.must_be_enabled() && !self.is_enabled {
            State::Disabled
        } else if let (Some(size), Some(addresses)) = (self.size, self.addresses) {
            State::Complete(size, addresses)
        } else {
            State::Incomplete
        }
    }

    /// Starts serving if the set-up is complete.
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
                shared.connection.log(Kind::Queues, line);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn serve(
        &mut self,
        index: usize,
        ring: Ring,
        memory: Arc<Memory>,
        shared: &Shared,
    ) -> Result<(), StartError> {
        let (Some(kick), Some(context)) = (&self.kick, shared.context.upgrade()) else {
            return Ok(());
        };
        let area = shared.inflight.borrow();
        let start = Start::of(&ring, self.base, index, area.as_deref())?;
        let setup = VringSetup {
            index,
            ring,
            start,
            kick: kick.clone(),
            call: self.call.clone(),
            error: self.error.clone(),
            memory,
            log: shared.log_if_wanted(),
            used_log: self.used_log,
            write_through: shared.is_write_through(),
        };
        let connection = &shared.connection;
        let place = match shared.others.host_of(index) {
            None => Place::Here(shared.host.serve(&context, connection.clone(), setup)?),
            Some(other) => {
                shared.others.serve(other, connection.socket(), setup);
                Place::There(other)
            }
        };
        self.has_served = true;
        self.serving = Some(place);
        Ok(())
    }
}
