//! Hooks in the eventfds that a thread of a model writes and drains. They stop the thread before a write,
//! count the writes, and touch memory at each step, so that the checker checks the order of the steps.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::{lazy_static, thread_local};

use crate::monitor::Monitor;

/// Memory whose accesses the checker compares. Two unordered accesses, one of which is a change, are a
/// failure.
#[derive(Debug, Default)]
pub struct Trace(UnsafeCell<()>);

impl Trace {
    /// Reads the memory.
    pub fn read(&self) {
        self.0.with(|_| ());
    }

    fn change(&self) {
        self.0.with_mut(|_| ());
    }
}

/// A step of this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads the trace before it writes an eventfd.
    ReadsBeforeWrite,
    /// Changes the trace after it has written an eventfd.
    ChangesAfterWrite,
    /// Changes the trace after it has drained an eventfd.
    ChangesAfterDrain,
}

thread_local! {
    static TRACES: RefCell<Vec<(Step, Arc<Trace>)>> = RefCell::new(Vec::new());
    static STOPS: Cell<bool> = Cell::new(false);
    static OPENS: Cell<bool> = Cell::new(false);
    static WRITES: Cell<u32> = Cell::new(0);
    static DRAINED: Cell<u64> = Cell::new(0);
}

lazy_static! {
    static ref GATE: Arc<Monitor<Gate>> = Arc::new(Monitor::new(Gate::default()));
}

/// The point where threads stop.
#[derive(Debug, Default)]
struct Gate {
    is_open: bool,
    /// A thread has reached it.
    is_reached: bool,
}

/// Makes this thread touch `trace` at each such step.
pub fn trace(step: Step, trace: &Arc<Trace>) {
    TRACES.with(|traces| traces.borrow_mut().push((step, trace.clone())));
}

/// Makes this thread stop before its next write, until [`go_on`] is called.
pub fn stop_before_write() {
    STOPS.with(|stops| stops.set(true));
}

/// Waits until a thread has stopped.
pub fn wait_until_stopped() {
    GATE.wait(|gate| gate.is_reached);
}

/// Releases stopped threads, and threads that would stop from now on.
pub fn go_on() {
    GATE.change(|gate| gate.is_open = true);
}

/// Makes this thread call [`go_on`] right after its next drain.
pub fn go_on_after_drain() {
    OPENS.with(|opens| opens.set(true));
}

/// Returns the sum that this thread has drained from eventfds.
pub fn drained_by_this_thread() -> u64 {
    DRAINED.with(Cell::get)
}

/// Returns the number of this thread's writes to eventfds.
pub fn writes_of_this_thread() -> u32 {
    WRITES.with(Cell::get)
}

pub(crate) fn before_write() {
    if STOPS.with(|stops| stops.replace(false)) {
        GATE.change(|gate| gate.is_reached = true);
        GATE.wait(|gate| gate.is_open);
    }
    at(Step::ReadsBeforeWrite, Trace::read);
}

pub(crate) fn after_write() {
    WRITES.with(|writes| writes.set(writes.get() + 1));
    at(Step::ChangesAfterWrite, Trace::change);
}

pub(crate) fn after_drain(count: u64) {
    DRAINED.with(|drained| drained.set(drained.get() + count));
    if OPENS.with(|opens| opens.replace(false)) {
        go_on();
    }
    at(Step::ChangesAfterDrain, Trace::change);
}

fn at(step: Step, touch: impl Fn(&Trace)) {
    TRACES.with(|traces| {
        let traces = traces.borrow();
        let of_step = traces.iter().filter(|(other, _)| *other == step);
        of_step.for_each(|(_, trace)| touch(trace));
    });
}
