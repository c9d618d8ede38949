//! Timers of a context: callbacks at a moment of one of three clocks.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use aio_timers::{Clock, Moment, TimerId, TimerQueue};

use crate::Context;
use crate::context::Inner;

/// Which clock a timer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockId {
    /// Never jumps: for intervals. The loop's own time.
    Monotonic,
    /// The wall clock: jumps when somebody sets it.
    Wall,
    /// Can be stopped, set and warped; see [`Context::virtual_clock`]. While it is stopped its timers do not run.
    Virtual,
}

impl ClockId {
    pub(crate) const ALL: [Self; 3] = [Self::Monotonic, Self::Wall, Self::Virtual];
}

/// Calls back at a deadline; dropping it cancels.
///
/// A timer is used on the home thread; another thread arms one through [`Remote::run`](crate::Remote::run).
#[doc(alias = "QEMUTimer")]
#[must_use = "dropped at once, it never fires"]
pub struct Timer {
    core: Rc<Core>,
    /// Absent in the face that the callback sees: dropping that one cancels nothing.
    _owner: Option<Owner>,
}

pub(crate) type Fire = Box<dyn Fn(&Context, &Timer)>;

pub(crate) struct Core {
    context: Weak<Inner>,
    clock: ClockId,
    id: Cell<Option<TimerId>>,
    fire: Fire,
}

struct Owner(Rc<Core>);

impl Drop for Owner {
    fn drop(&mut self) {
        let Some(inner) = self.0.context.upgrade() else {
            return;
        };
        if let Some(id) = self.0.id.take() {
            let removed = inner.timers.queue(self.0.clock).borrow_mut().remove(id);
            drop(removed);
        }
    }
}

impl Timer {
    pub(crate) fn new(cx: &Context, clock: ClockId, fire: Fire) -> Self {
        let core = Rc::new(Core {
            context: Rc::downgrade(&cx.0),
            clock,
            id: Cell::new(None),
            fire,
        });
        let id = cx.0.timers.queue(clock).borrow_mut().insert(core.clone());
        core.id.set(Some(id));
        Self {
            _owner: Some(Owner(core.clone())),
            core,
        }
    }

    /// Fires once, `delay` from now. A delay of zero fires in the next iteration.
    #[doc(alias = "timer_mod")]
    pub fn arm_after(&self, delay: Duration) {
        if let Some(inner) = self.core.context.upgrade() {
            let now = inner.timers.now(self.core.clock);
            self.arm(&inner, now.saturating_add(delay), false);
        }
    }

    /// Fires once, at `deadline`; a deadline in the past fires in the next iteration, [`Moment::NEVER`] never.
    #[doc(alias = "timer_mod_ns")]
    pub fn arm_at(&self, deadline: Moment) {
        if let Some(inner) = self.core.context.upgrade() {
            self.arm(&inner, deadline, false);
        }
    }

    /// Fires at `deadline`, unless it is armed for an earlier moment already.
    #[doc(alias = "timer_mod_anticipate_ns")]
    pub fn anticipate(&self, deadline: Moment) {
        if let Some(inner) = self.core.context.upgrade() {
            self.arm(&inner, deadline, true);
        }
    }

    fn arm(&self, inner: &Inner, deadline: Moment, only_earlier: bool) {
        let Some(id) = self.core.id.get() else { return };
        inner.timers.in_use.set(true);
        let mut queue = inner.timers.queue(self.core.clock).borrow_mut();
        let earliest = if only_earlier {
            queue.anticipate(id, deadline)
        } else {
            queue.arm(id, deadline)
        };
        drop(queue);
        if earliest {
            inner.wake_if_about_to_wait();
        }
    }

    /// Does not fire any more; without effect if it is not armed.
    #[doc(alias = "timer_del")]
    pub fn cancel(&self) {
        if let (Some(inner), Some(id)) = (self.core.context.upgrade(), self.core.id.get()) {
            inner.timers.queue(self.core.clock).borrow_mut().cancel(id);
        }
    }

    /// When it fires, if it is armed.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let inner = self.core.context.upgrade()?;
        let queue = inner.timers.queue(self.core.clock).borrow();
        queue.deadline(self.core.id.get()?)
    }

    /// The clock it follows.
    #[must_use]
    pub fn clock(&self) -> ClockId {
        self.core.clock
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer")
            .field("clock", &self.core.clock)
            .field("deadline", &self.deadline())
            .finish()
    }
}

/// The clocks of a context and a queue for each.
pub(crate) struct Timers {
    clocks: [Arc<dyn Clock + Send + Sync>; 3],
    queues: [RefCell<TimerQueue<Rc<Core>>>; 3],
    /// A timer was armed since all queues were last seen empty.
    in_use: Cell<bool>,
}

impl Timers {
    /// `clocks` in the order of [`ClockId::ALL`].
    pub(crate) fn new(clocks: [Arc<dyn Clock + Send + Sync>; 3]) -> Self {
        Self {
            clocks,
            queues: std::array::from_fn(|_| RefCell::new(TimerQueue::new())),
            in_use: Cell::new(false),
        }
    }

    pub(crate) fn clock(&self, id: ClockId) -> &(dyn Clock + Send + Sync) {
        &*self.clocks[id as usize]
    }

    pub(crate) fn now(&self, id: ClockId) -> Moment {
        self.clock(id).now()
    }

    pub(crate) fn queue(&self, id: ClockId) -> &RefCell<TimerQueue<Rc<Core>>> {
        &self.queues[id as usize]
    }

    /// How long until the earliest deadline of a running clock; no clock is read if no timer is armed.
    #[inline]
    pub(crate) fn time_left(&self) -> Option<Duration> {
        if !self.in_use.get() {
            return None;
        }
        ClockId::ALL
            .into_iter()
            .filter_map(|id| self.time_left_on(id))
            .min()
    }

    fn time_left_on(&self, id: ClockId) -> Option<Duration> {
        let deadline = self.queue(id).borrow().next_deadline()?;
        if deadline == Moment::NEVER || !self.clock(id).is_running() {
            return None;
        }
        if deadline == Moment::ZERO {
            return Some(Duration::ZERO);
        }
        Some(deadline.since(self.now(id)))
    }

    /// Fires what is due (rule T4: each clock is read once); true if a timer fired.
    #[inline]
    pub(crate) fn run(&self, cx: &Context) -> bool {
        self.in_use.get() && self.run_queues(cx)
    }

    fn run_queues(&self, cx: &Context) -> bool {
        let is_empty = |id| self.queue(id).borrow().next_deadline().is_none();
        if ClockId::ALL.into_iter().all(is_empty) {
            self.in_use.set(false);
            return false;
        }
        let mut fired = false;
        for id in ClockId::ALL {
            if self.queue(id).borrow().next_deadline().is_none() || !self.clock(id).is_running() {
                continue;
            }
            let now = self.now(id);
            self.queue(id).borrow_mut().begin(now);
            while let Some(core) = self.next_due(id) {
                fired = true;
                let face = Timer {
                    core: core.clone(),
                    _owner: None,
                };
                cx.call(|cx| (core.fire)(cx, &face));
            }
        }
        fired
    }

    fn next_due(&self, id: ClockId) -> Option<Rc<Core>> {
        let mut queue = self.queue(id).borrow_mut();
        let due = queue.next_due()?;
        queue.get(due).cloned()
    }
}
