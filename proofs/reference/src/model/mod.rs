//! The reference: a simple model of a context.
//!
//! It reads the log of the real context, and follows it where the rules leave a choice:
//!
//! - the order of the handlers in one iteration, which the backend decides;
//! - the time that a policy polls before it waits, and so whether a poll or a kick finds work in memory;
//! - the time when the loop detects a number that was closed without a removal, if the system does not report
//!   it at once.
//!
//! Each followed step must be allowed, and each missing callback needs a reason. The model computes
//! everything else by itself, to the nanosecond.
//!
//! This file runs operations, `iteration` is one iteration, `visible` computes the readiness and the work
//! that it can find, and `dispatch` calls the handlers in it.

mod dispatch;
mod files;
mod iteration;
mod operations;
mod visible;

use std::collections::VecDeque;

use aio_context::{Interest, Readiness};

pub(crate) use self::files::Files;
use crate::log::{Entry, Scripts, What};
use crate::op::{COUNT, Callback, Fd, Kind, Name, Op, Side};
use crate::setup::Waiter;
use crate::{DEEPEST, MOST_ITERATIONS, MOST_POLLS, MOST_SCRIPTS};

/// The error of a callback that panicked.
pub(crate) struct Panic;

pub(crate) type Flow<T = ()> = Result<T, Panic>;

/// The time when a sequence begins, in nanoseconds.
const START: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;

/// The mask of a handler that had an event while it was paused. The mask ends with the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Masked {
    No,
    /// Masked if descriptors were checked.
    Perhaps,
    Yes,
}

/// The state of a hit: `poll` returned `true`, and `poll_ready` has not been called for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hit {
    No,
    /// A hit if the handler was polled.
    Perhaps,
    Yes,
}

/// The events of a registration that were collected and not served.
#[derive(Clone, Copy, Debug)]
struct Pending {
    hit: Hit,
    /// The certain readiness, and the possible readiness.
    sure: Readiness,
    perhaps: Readiness,
}

impl Pending {
    const NOTHING: Self = Self {
        hit: Hit::No,
        sure: Readiness::empty(),
        perhaps: Readiness::empty(),
    };
}

#[derive(Debug)]
struct Registration {
    id: u64,
    fd: Fd,
    label: Name,
    /// The number of the handler. It changes with each replacement.
    handler: u64,
    polled: bool,
    interest: Interest,
    group: Name,
    pending: Pending,
    masked: Masked,
    /// The handler had its `poll_begin`, and not yet its `poll_end`.
    begun: bool,
    /// A last poll may be pending.
    owed: bool,
    /// The number of callbacks of a polled handler on the stack.
    busy: u32,
    /// The number of iterations in which it was ready and not called, because descriptors were perhaps not checked.
    passed_over: u32,
    /// The only event was delivered, and the registration was not armed again (rule R14).
    is_asleep: bool,
}

impl Registration {
    /// Drops the collected events. A hit is polled for once more.
    fn drop_pending(&mut self) {
        self.owed |= self.pending.hit != Hit::No;
        self.pending = Pending::NOTHING;
    }

    /// Like [`drop_pending`](Self::drop_pending), but may keep the event of an interest in one event, which
    /// is not reported again.
    fn drop_repeatable(&mut self) {
        let perhaps = self.pending.perhaps;
        self.drop_pending();
        if self.awaits_only_event() {
            self.pending.perhaps = perhaps;
        }
    }

    fn is_once(&self) -> bool {
        self.interest.contains(Interest::ONESHOT)
    }

    /// Returns `true` if the registration waits for its only event.
    fn awaits_only_event(&self) -> bool {
        self.is_once() && !self.is_asleep
    }

    /// Returns `true` if its only event may have been collected. The backend then reports nothing more.
    fn may_be_spent(&self) -> bool {
        self.is_asleep || self.is_once() && !self.pending.perhaps.is_empty()
    }
}

/// The peer of a descriptor, with work in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Device {
    work: u32,
    /// The handler had its `poll_begin`, so the peer need not kick.
    is_polled: bool,
    /// There is work for which the peer has not kicked.
    unkicked: bool,
}

#[derive(Debug)]
struct Half {
    name: Name,
    queued: bool,
    scheduled: bool,
    idle: bool,
    deleted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timer {
    /// The deadline, and a number that grows with each arming.
    armed: Option<(u64, u64)>,
    /// The deadline of a timer that a run has removed from the armed ones and not reached yet.
    due: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Model {
    waiter: Waiter,
    log: Vec<Entry>,
    /// The log of the real context.
    observed: Vec<Entry>,
    now: u64,
    depth: u32,
    polls: u32,
    /// The number of scripts that have been run for this step.
    scripts_run: u32,
    counter: u64,
    scripts: Scripts,
    files: Files,
    devices: [Device; COUNT],
    registrations: Vec<Registration>,
    /// The number of pauses of each group.
    pauses: Vec<(Name, u32)>,
    guards: Vec<Name>,
    crowd: bool,
    halves: Vec<Half>,
    /// Bottom halves that are posted, and not taken by an iteration.
    inbox: Vec<usize>,
    /// One of the posted bottom halves was scheduled as urgent, not as idle.
    urgent: bool,
    /// Bottom halves that are taken, and still to be run.
    line: VecDeque<usize>,
    timers: Vec<(Name, Timer)>,
    due: VecDeque<(Name, u64)>,
    /// The next wait returns at once.
    notified: bool,
    /// Like `notified`, but an iteration without waiting, which the log does not show, may have accepted it.
    maybe_notified: bool,
    /// The number of requests to return from a poll, and that number when a poll last returned without
    /// progress.
    calls: u64,
    calls_seen: u64,
    /// The number of nested polls that made progress.
    nested_progress: u64,
    /// The length of the wait is decided, so a change that shortens it must notify.
    deciding: bool,
    /// The last search may have ended without a check.
    is_unchecked: bool,
    /// The longest polling time: the set one, and the one in force since the last iteration began.
    polling: u64,
    most_polling: u64,
    /// Handlers may have had their `poll_begin`.
    poll_mode: bool,
    /// The set in the kernel may have entries that cannot be deleted.
    haunted: bool,
}

impl Model {
    pub(crate) fn new(waiter: Waiter) -> Self {
        Self {
            waiter,
            log: Vec::new(),
            observed: Vec::new(),
            now: START,
            depth: 0,
            polls: 0,
            scripts_run: 0,
            counter: 0,
            scripts: Scripts::default(),
            files: Files::default(),
            devices: [Device::default(); COUNT],
            registrations: Vec::new(),
            pauses: Vec::new(),
            guards: Vec::new(),
            crowd: false,
            halves: Vec::new(),
            inbox: Vec::new(),
            urgent: false,
            line: VecDeque::new(),
            timers: Vec::new(),
            due: VecDeque::new(),
            notified: false,
            maybe_notified: false,
            calls: 0,
            calls_seen: 0,
            nested_progress: 0,
            deciding: false,
            is_unchecked: false,
            polling: 0,
            most_polling: 0,
            poll_mode: false,
            haunted: false,
        }
    }

    /// Runs an operation and returns its log, given the log of the real context.
    pub(crate) fn step(&mut self, op: &Op, observed: &[Entry]) -> &[Entry] {
        self.observed.clear();
        self.observed.extend_from_slice(observed);
        self.log.clear();
        (self.polls, self.scripts_run) = (0, 0);
        if self.run(op).is_err() {
            self.unwind();
            self.record(What::Panicked);
        }
        &self.log
    }

    /// Ends all iterations after a panic. The next iteration finds their events again.
    fn unwind(&mut self) {
        self.depth = 0;
        self.deciding = false;
        for one in &mut self.registrations {
            one.busy = 0;
            one.drop_repeatable();
        }
    }

    /// Returns the number of registered handlers.
    pub(crate) fn handlers(&self) -> u32 {
        self.registrations.len() as u32
    }

    fn record(&mut self, what: What) {
        self.log.push(Entry { at: self.now, what });
    }

    /// Returns the next entry of the real context.
    fn next(&self) -> Option<Entry> {
        self.observed.get(self.log.len()).copied()
    }

    fn next_call(&self) -> Option<Callback> {
        match self.next()?.what {
            What::Called(callback) => Some(callback),
            _ => None,
        }
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn called(&mut self, callback: Callback, otherwise: &[Op]) -> Flow {
        self.record(What::Called(callback));
        self.act(callback, otherwise)
    }

    fn act(&mut self, callback: Callback, otherwise: &[Op]) -> Flow {
        let script = self.scripts.get(callback);
        self.run_script(script.as_deref().unwrap_or(otherwise))
    }

    fn run_script(&mut self, ops: &[Op]) -> Flow {
        self.scripts_run += 1;
        if self.scripts_run > MOST_SCRIPTS {
            return Ok(());
        }
        ops.iter().try_for_each(|op| self.run(op))
    }

    /// Returns the operation of a callback without a script.
    fn usual(&mut self, fd: Fd, side: Side) -> Option<Op> {
        let fills = side == Side::Writable && self.files.kind(fd) == Kind::Outlet;
        let drains = matches!(side, Side::Readable | Side::Priority | Side::PollReady);
        (fills || drains).then_some(Op::Drain(fd))
    }

    fn run(&mut self, op: &Op) -> Flow {
        match op {
            Op::On(callback, script) => self.scripts.set(*callback, script),
            Op::Repeat(times, script) => {
                for _ in 0..*times {
                    (self.polls, self.scripts_run) = (0, 0);
                    script.iter().try_for_each(|op| self.run(op))?;
                }
            }
            Op::Advance(ms) => self.now += ms * MILLI,
            Op::Poll => self.nest(|model| model.iterate(None))?,
            Op::Wait(ms) => self.nest(|model| model.wait(ms * MILLI))?,
            Op::Panic => return Err(Panic),
            Op::Polling(us) => {
                self.polling = us * 1000;
                self.notified = true;
                self.calls += 1;
            }
            Op::Gather => self.crowd(true),
            Op::Scatter => self.crowd(false),
            Op::Kick(fd) => self.files.kick(*fd),
            Op::Drain(fd) => self.drain(*fd),
            Op::Work(fd) => self.work(*fd),
            Op::Close(fd) => self.files.close(*fd),
            Op::CloseRaw(fd) => self.close_raw(*fd),
            Op::Dup(from, to) => {
                if self.registration(*to).is_none() {
                    self.files.dup(*from, *to);
                }
            }
            Op::Watch(fd, interest, group, polled) => self.watch(*fd, *interest, *group, *polled)?,
            Op::Replace(fd, by, interest, polled) => self.replace(*fd, *by, *interest, *polled)?,
            Op::Remove(fd) => {
                if let Some(place) = self.registration(*fd) {
                    self.remove(place)?;
                }
            }
            Op::Interest(fd, interest) => self.set_interest(*fd, *interest),
            Op::Rearm(fd) => {
                if let Some(place) = self.registration(*fd) {
                    self.set_interest(*fd, self.registrations[place].interest);
                }
            }
            Op::Pause(group) => self.pause(*group)?,
            Op::Resume(group) => {
                if let Some(place) = self.guards.iter().rposition(|guard| guard == group) {
                    self.guards.remove(place);
                    self.resume(*group)?;
                }
            }
            _ => self.run_deferred(op),
        }
        Ok(())
    }

    fn nest(&mut self, poll: impl FnOnce(&mut Self) -> Flow<bool>) -> Flow {
        self.polls += 1;
        if self.depth == DEEPEST || self.polls > MOST_POLLS {
            return Ok(());
        }
        let nested = self.depth > 0;
        if nested {
            self.record(What::Nested);
        }
        self.depth += 1;
        let progress = poll(self)?;
        self.depth -= 1;
        self.record(if nested {
            What::Back(progress)
        } else {
            What::Polled(progress)
        });
        Ok(())
    }

    fn wait(&mut self, limit: u64) -> Flow<bool> {
        let end = self.now + limit;
        for _ in 0..MOST_ITERATIONS {
            let progress = self.iterate(Some(end.saturating_sub(self.now)))?;
            if progress || self.now >= end {
                return Ok(progress);
            }
        }
        self.record(What::Busy);
        Ok(false)
    }
}
