//! Timers of a context: callbacks at a moment of one of three clocks.
//!
//! A timer is an id in the queue of its clock, and a handle that knows both. A callback that runs is [out](Running) of the queue:
//! so nothing is borrowed, it may do anything, and no counter has to be kept for each of them. This module never waits, and
//! never decides when the timers of an iteration have their turn.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::mem;
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
    const ALL: [Self; 3] = [Self::Monotonic, Self::Wall, Self::Virtual];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Calls back at a deadline; dropping it cancels.
///
/// A timer is used on the home thread; another thread arms one through [`Remote::run`](crate::Remote::run). When the context
/// goes, the callbacks of its timers are dropped with it.
#[doc(alias = "QEMUTimer")]
#[must_use = "dropped at once, it never fires"]
pub struct Timer {
    line: Rc<Line>,
    /// Absent in a face that a callback has seen: dropping that one cancels nothing.
    id: Option<TimerId>,
}

pub(crate) type Fire = Box<dyn Fn(&Context, &Timer)>;

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let removed = self.line.queue.borrow_mut().timers.remove(id);
            drop(removed);
        }
    }
}

impl Timer {
    pub(crate) fn new(cx: &Context, clock: ClockId, fire: Fire) -> Self {
        let line = cx.0.timers.line(clock).clone();
        line.context.get_or_init(|| Rc::downgrade(&cx.0));
        let id = line.queue.borrow_mut().timers.insert(fire);
        Self { line, id: Some(id) }
    }

    /// Fires once, `delay` from now. A delay of zero fires in the next iteration.
    #[doc(alias = "timer_mod")]
    pub fn arm_after(&self, delay: Duration) {
        if let Some(inner) = self.line.context() {
            let now = inner.timers.now(self.line.clock);
            self.arm_at(now.saturating_add(delay));
        }
    }

    /// Fires once, at `deadline`; a deadline in the past fires in the next iteration, [`Moment::NEVER`] never.
    #[doc(alias = "timer_mod_ns")]
    pub fn arm_at(&self, deadline: Moment) {
        self.arm(|timers, id| timers.arm(id, deadline));
    }

    /// Fires at `deadline`, unless it is armed for an earlier moment already.
    #[doc(alias = "timer_mod_anticipate_ns")]
    pub fn anticipate(&self, deadline: Moment) {
        self.arm(|timers, id| timers.anticipate(id, deadline));
    }

    #[inline]
    fn arm(&self, arm: impl FnOnce(&mut TimerQueue<Fire>, TimerId) -> bool) {
        let Some(id) = self.id else { return };
        let line = &*self.line;
        line.in_use.set(line.in_use.get() | line.clock.bit());
        let is_earliest = arm(&mut line.queue.borrow_mut().timers, id);
        if is_earliest && let Some(inner) = line.context() {
            inner.wake_if_about_to_wait();
        }
    }

    /// Does not fire any more; without effect if it is not armed.
    #[doc(alias = "timer_del")]
    pub fn cancel(&self) {
        if let Some(id) = self.id {
            self.line.queue.borrow_mut().timers.cancel(id);
        }
    }

    /// When it fires, if it is armed.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.line.queue.borrow().timers.deadline(self.id?)
    }

    /// The clock it follows.
    #[must_use]
    pub fn clock(&self) -> ClockId {
        self.line.clock
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer")
            .field("clock", &self.clock())
            .field("deadline", &self.deadline())
            .finish()
    }
}

/// The timers of one clock, as they wait in line. The context has it, and every handle.
struct Line {
    clock: ClockId,
    context: OnceCell<Weak<Inner>>,
    /// Of the clocks of which a timer was armed since their queues were last seen empty, the [bits](ClockId::bit). All lines
    /// of a context have it in common.
    in_use: Rc<Cell<u8>>,
    queue: RefCell<Queue>,
}

#[derive(Default)]
struct Queue {
    timers: TimerQueue<Fire>,
    /// The first `depth` of these are in use, one for each callback that an inner one has interrupted; the others are kept.
    running: Vec<Rc<Running>>,
    depth: usize,
}

/// Where a callback is while it runs. Who fires the same timer in a nested poll finds it here.
#[derive(Default)]
struct Running(RefCell<Option<(TimerId, Fire)>>);

impl Line {
    fn new(clock: ClockId, in_use: Rc<Cell<u8>>) -> Rc<Self> {
        Rc::new(Self {
            clock,
            context: OnceCell::new(),
            in_use,
            queue: RefCell::default(),
        })
    }

    fn context(&self) -> Option<Rc<Inner>> {
        self.context.get()?.upgrade()
    }

    fn is_empty(&self) -> bool {
        self.queue.borrow().timers.next_deadline().is_none()
    }

    /// How long until the earliest deadline, if its clock runs.
    fn time_left(&self, clock: &dyn Clock) -> Option<Duration> {
        let deadline = self.queue.borrow().timers.next_deadline()?;
        if deadline == Moment::NEVER || !clock.is_running() {
            return None;
        }
        if deadline == Moment::ZERO {
            return Some(Duration::ZERO);
        }
        Some(deadline.since(clock.now()))
    }

    /// Fires what is due; true if that was anything.
    fn run(self: &Rc<Self>, clock: &dyn Clock, cx: &Context) -> bool {
        if self.is_empty() {
            self.in_use.set(self.in_use.get() & !self.clock.bit());
            return false;
        }
        if !clock.is_running() {
            return false;
        }
        let now = clock.now();
        self.queue.borrow_mut().timers.begin(now);
        let mut fired = false;
        while let Some(call) = self.next_call() {
            fired = true;
            call.make(cx);
        }
        fired
    }

    /// Takes the next due timer, and its callback out of the queue, unless it is running already.
    fn next_call(self: &Rc<Self>) -> Option<Call> {
        let mut queue = self.queue.borrow_mut();
        let id = queue.timers.next_due()?;
        let outer = queue.find_running(id);
        let is_outermost = outer.is_none();
        let callback = outer.or_else(|| queue.start(id))?;
        let face = Timer {
            line: self.clone(),
            id: Some(id),
        };
        Some(Call {
            callback,
            face,
            is_outermost,
        })
    }
}

impl Queue {
    fn find_running(&self, id: TimerId) -> Option<Rc<Running>> {
        let is_its = |running: &&Rc<Running>| running.0.borrow().as_ref().is_some_and(|(its, _)| *its == id);
        self.running[..self.depth].iter().find(is_its).cloned()
    }

    /// Takes a callback out. In its place is one that does nothing, and takes no memory.
    fn start(&mut self, id: TimerId) -> Option<Rc<Running>> {
        let fire = mem::replace(self.timers.get_mut(id)?, Box::new(|_, _| ()));
        if self.depth == self.running.len() {
            self.running.push(Rc::default());
        }
        let running = self.running[self.depth].clone();
        self.depth += 1;
        running.0.replace(Some((id, fire)));
        Some(running)
    }

    /// Puts the callback back that was taken out last. What is left over, to be dropped when nothing is borrowed: the callback
    /// itself, if its timer is gone.
    fn finish(&mut self, running: &Running) -> Option<Fire> {
        self.depth -= 1;
        let (id, fire) = running.0.take()?;
        match self.timers.get_mut(id) {
            Some(place) => Some(mem::replace(place, fire)),
            None => Some(fire),
        }
    }
}

/// A callback that is to be called. Afterwards, also if it panics, it is put back where it was taken out.
struct Call {
    callback: Rc<Running>,
    /// What the callback sees of its timer.
    face: Timer,
    /// Not called by a poll inside the same callback.
    is_outermost: bool,
}

impl Call {
    fn make(self, cx: &Context) {
        let callback = self.callback.0.borrow();
        if let Some((_, fire)) = &*callback {
            cx.call(|cx| fire(cx, &self.face));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.face.id = None;
        if self.is_outermost {
            let left_over = self.face.line.queue.borrow_mut().finish(&self.callback);
            drop(left_over);
        }
    }
}

/// The clocks of a context and a line of timers for each.
pub(crate) struct Timers {
    clocks: [Arc<dyn Clock + Send + Sync>; 3],
    lines: [Rc<Line>; 3],
    /// As in each line.
    in_use: Rc<Cell<u8>>,
}

impl Timers {
    /// `clocks` in the order of [`ClockId::ALL`].
    pub(crate) fn new(clocks: [Arc<dyn Clock + Send + Sync>; 3]) -> Self {
        let in_use = Rc::new(Cell::new(0));
        Self {
            clocks,
            lines: ClockId::ALL.map(|clock| Line::new(clock, in_use.clone())),
            in_use,
        }
    }

    pub(crate) fn clock(&self, id: ClockId) -> &(dyn Clock + Send + Sync) {
        &*self.clocks[id as usize]
    }

    pub(crate) fn now(&self, id: ClockId) -> Moment {
        self.clock(id).now()
    }

    fn line(&self, id: ClockId) -> &Rc<Line> {
        &self.lines[id as usize]
    }

    /// Whether nothing is borrowed.
    pub(crate) fn is_free(&self) -> bool {
        self.lines.iter().all(|line| line.queue.try_borrow_mut().is_ok())
    }

    /// The clocks that may have timers armed, with these.
    fn lines_in_use(&self) -> impl Iterator<Item = (&dyn Clock, &Rc<Line>)> {
        let is_in_use = |line: &&Rc<Line>| self.in_use.get() & line.clock.bit() != 0;
        self.lines
            .iter()
            .filter(is_in_use)
            .map(|line| (self.clock(line.clock) as &dyn Clock, line))
    }

    /// How long until the earliest deadline of a running clock; no clock is read if no timer of its is armed.
    #[inline]
    pub(crate) fn time_left(&self) -> Option<Duration> {
        if self.in_use.get() == 0 {
            return None;
        }
        self.shortest_time_left()
    }

    #[inline(never)]
    fn shortest_time_left(&self) -> Option<Duration> {
        self.lines_in_use()
            .filter_map(|(clock, line)| line.time_left(clock))
            .min()
    }

    /// Fires what is due (rule T4: each clock is read once); true if a timer fired.
    #[inline]
    pub(crate) fn run(&self, cx: &Context) -> bool {
        self.in_use.get() != 0 && self.run_lines(cx)
    }

    #[inline(never)]
    fn run_lines(&self, cx: &Context) -> bool {
        self.lines_in_use()
            .fold(false, |fired, (clock, line)| line.run(clock, cx) | fired)
    }
}

impl Drop for Timers {
    /// Drops the callbacks. The queues themselves are kept by the handles, and a handle may be kept by a callback.
    fn drop(&mut self) {
        for line in &self.lines {
            let queue = line.queue.take();
            drop(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule P12: what a timer takes besides its place in line, and what its callback has captured.
    #[test]
    fn p12_a_handle_and_a_callback_are_two_words_each() {
        assert_eq!(size_of::<Timer>(), 16);
        assert_eq!(size_of::<Option<Fire>>(), 16);
    }
}
