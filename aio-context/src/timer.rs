//! Timers of a context: callbacks at a moment of one of three clocks.
//!
//! A timer is an id in the queue of its clock, and a handle that knows both. A callback that runs is [out](Running) of the queue:
//! so nothing is borrowed, it may do anything, and no counter has to be kept for each of them. This module never waits, and
//! never decides when the timers of an iteration have their turn.

use std::cell::{Cell, OnceCell, RefCell};
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
    /// One for each run that is going on, the outermost first: that are `depth`. The others are kept for the next ones.
    running: Vec<Rc<Running>>,
    depth: usize,
}

/// Where a callback is while it runs. A nested run that fires the same timer finds it here.
#[derive(Default)]
struct Running(RefCell<Option<(TimerId, Fire)>>);

impl Queue {
    /// Where a callback is that an outer run has taken out.
    #[cold]
    fn find_running(&self, id: TimerId) -> Option<Rc<Running>> {
        let is_its = |running: &&Rc<Running>| running.0.borrow().as_ref().is_some_and(|(its, _)| *its == id);
        self.running[..self.depth].iter().find(is_its).cloned()
    }
}

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
        let Some(deadline) = self.queue.borrow().timers.next_deadline() else {
            self.in_use.set(self.in_use.get() & !self.clock.bit());
            return false;
        };
        if !clock.is_running() {
            return false;
        }
        let now = clock.now();
        if now < deadline {
            return false;
        }
        let mut run = Run::begin(self, now);
        let mut fired = false;
        while run.fire_next(cx) {
            fired = true;
        }
        fired
    }
}

/// Fires what is due, one after the other. Also if a callback panics, it is put back where it was taken out.
struct Run {
    /// What the callbacks see of their timers.
    face: Timer,
    running: Rc<Running>,
}

impl Run {
    fn begin(line: &Rc<Line>, now: Moment) -> Self {
        let mut queue = line.queue.borrow_mut();
        queue.timers.begin(now);
        if queue.depth == queue.running.len() {
            queue.running.push(Rc::default());
        }
        let running = queue.running[queue.depth].clone();
        queue.depth += 1;
        let face = Timer {
            line: line.clone(),
            id: None,
        };
        Self { face, running }
    }

    /// False if nothing is due.
    #[inline]
    fn fire_next(&mut self, cx: &Context) -> bool {
        let mut queue = self.face.line.queue.borrow_mut();
        let Some(id) = queue.timers.next_due() else {
            return false;
        };
        self.face.id = Some(id);
        let outer = match queue.timers.value_mut(id).and_then(Option::take) {
            Some(fire) => {
                self.running.0.replace(Some((id, fire)));
                None
            }
            None => queue.find_running(id),
        };
        drop(queue);
        let callback = outer.as_ref().unwrap_or(&self.running).0.borrow();
        if let Some((_, fire)) = &*callback {
            cx.call(|cx| fire(cx, &self.face));
        }
        drop(callback);
        self.put_back();
        true
    }

    /// Puts back what this run has taken out, if anything. If its timer is gone, it is dropped, now that nothing is borrowed.
    fn put_back(&self) {
        let Some((id, fire)) = self.running.0.take() else {
            return;
        };
        let mut queue = self.face.line.queue.borrow_mut();
        let Some(place) = queue.timers.value_mut(id) else {
            drop(queue);
            return drop(fire);
        };
        *place = Some(fire);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.face.id = None;
        self.face.line.queue.borrow_mut().depth -= 1;
        self.put_back();
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
    use crate::Wait;

    /// What a timer takes besides its place in line, and what its callback has captured.
    #[test]
    fn p12_a_handle_and_a_callback_are_two_words_each() {
        assert_eq!(size_of::<Timer>(), 16);
        assert_eq!(size_of::<Option<Fire>>(), 16);
    }

    #[test]
    fn t1_an_iteration_looks_at_the_clocks_in_use_only() {
        let cx = Context::new().expect("there is a descriptor left");
        let in_use = || cx.0.timers.in_use.get();
        let look = || cx.poll(Wait::NoBlock).expect("the backend works");
        let timers = ClockId::ALL.map(|clock| cx.timer(clock, |_, _| {}));
        assert!(!look() && in_use() == 0);
        for (timer, expected) in timers.iter().zip([0b001, 0b011, 0b111]) {
            timer.arm_at(Moment::NEVER);
            assert_eq!(in_use(), expected);
        }
        assert!(!look() && in_use() == 0b111);
        timers[1].arm_at(Moment::ZERO);
        assert!(look() && !look());
        assert_eq!(in_use(), 0b101);
        timers.iter().for_each(Timer::cancel);
        assert!(!look() && in_use() == 0);
    }
}
