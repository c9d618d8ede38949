//! Runs sequences on the real loop and on the reference, and compares their logs.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::files::Files;
use crate::generator::sequence;
use crate::log::{Entry, Tally};
use crate::model::Model;
use crate::op::Op;
use crate::plant::Plant;
use crate::real::Real;
use crate::setup::{Setup, Waiter};
use crate::text::{Expected, parse};

/// The default for the largest number of operations in a sequence.
pub const USUAL: usize = 60;

/// The results of a sequence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// The number of operations.
    pub operations: u64,
    /// The entries, which were the same on both sides.
    pub tally: Tally,
}

/// A difference between the real loop and the reference.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The set-up.
    pub setup: Setup,
    /// The operations of the shortest sequence that was found.
    pub trace: String,
    /// The description of the difference.
    pub why: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n(again: cargo run -p aio-reference -- --setup {} --trace '{}')",
            self.why, self.setup, self.trace
        )
    }
}

impl std::error::Error for Difference {}

thread_local! {
    /// Files for reuse by the next sequence.
    static FILES: RefCell<Option<Files>> = const { RefCell::new(None) };
}

/// One sequence on one set-up.
struct Run {
    real: std::rc::Rc<Real>,
    model: Model,
    log: Vec<Entry>,
    summary: Summary,
}

impl Run {
    fn new(setup: Setup, plant: Option<Plant>) -> Self {
        let files = FILES.take().unwrap_or_else(Files::new);
        Self {
            real: Real::new(setup, plant, files),
            model: Model::new(setup.waiter),
            log: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// Runs an operation on both.
    fn step(&mut self, number: usize, op: &Op) -> Result<(), String> {
        self.log.clear();
        self.real.step(op, &mut self.log);
        let said = self.model.step(op, &self.log);
        if self.log != said {
            let place = self
                .log
                .iter()
                .zip(said)
                .take_while(|(real, said)| real == said)
                .count();
            return Err(format!(
                "operation {number}, {op}: the context did {:?}, the reference {said:?} (entry {place})",
                self.log
            ));
        }
        let (kept, registered) = (self.real.handlers.count(), self.model.handlers());
        if kept != registered {
            return Err(format!(
                "operation {number}, {op}: {registered} handlers are registered, and {kept} are kept (rule R8)"
            ));
        }
        self.summary.operations += 1;
        self.log
            .iter()
            .for_each(|entry| self.summary.tally.count(entry.what));
        Ok(())
    }

    fn end(self) -> Result<Summary, String> {
        let (files, left) = self.real.end();
        if let Some(mut files) = files {
            files.tidy();
            FILES.set(Some(files));
        }
        if left > 0 {
            return Err(format!("{left} handlers and closures were never dropped"));
        }
        Ok(self.summary)
    }
}

/// Replays operations. The error describes the difference.
fn replay(setup: Setup, plant: Option<Plant>, ops: &[Op]) -> Result<Summary, String> {
    let mut run = Run::new(setup, plant);
    for (number, op) in ops.iter().enumerate() {
        run.step(number, op)?;
    }
    run.end()
}

/// Like [`replay`]; an unplanned panic counts as a difference, too.
fn try_replay(setup: Setup, plant: Option<Plant>, ops: &[Op]) -> Result<Summary, String> {
    let replayed = catch_unwind(AssertUnwindSafe(|| replay(setup, plant, ops)));
    replayed.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Err(format!("it panicked: {}", text.unwrap_or("?")))
    })
}

fn text(ops: &[Op]) -> String {
    let steps: Vec<_> = ops.iter().map(Op::to_string).collect();
    steps.join("; ")
}

/// Removes each operation that is not needed for a difference.
fn shortest(setup: Setup, plant: Option<Plant>, mut ops: Vec<Op>) -> Vec<Op> {
    let differs = |ops: &[Op]| try_replay(setup, plant, ops).is_err();
    let mut index = 0;
    while index < ops.len() {
        let shorter = shorter_at(&ops, index).into_iter().find(|fewer| differs(fewer));
        match shorter {
            Some(fewer) => (ops, index) = (fewer, index.saturating_sub(1)),
            None => index += 1,
        }
    }
    ops
}

/// Returns the same sequence without an operation, without one of its script, or with fewer repetitions.
fn shorter_at(ops: &[Op], index: usize) -> Vec<Vec<Op>> {
    let with = |op: Option<Op>| {
        let mut other = ops.to_vec();
        other.splice(index..=index, op);
        other
    };
    let mut all = vec![with(None)];
    if let Op::Repeat(times, script) = &ops[index]
        && *times > 1
    {
        all.push(with(Some(Op::Repeat(times / 2, script.clone()))));
        all.push(with(Some(Op::Repeat(times - 1, script.clone()))));
    }
    if let Op::On(_, script) | Op::Repeat(_, script) = &ops[index] {
        for left_out in 0..script.len() {
            let mut shorter = script.to_vec();
            shorter.remove(left_out);
            all.push(with(Some(ops[index].with_script(shorter.into()))));
        }
    }
    all
}

/// Runs operations on one set-up.
///
/// # Errors
/// The first difference, with the shortest sequence that shows it.
pub fn run(setup: Setup, plant: Option<Plant>, ops: &[Op]) -> Result<Summary, Box<Difference>> {
    let first = match try_replay(setup, plant, ops) {
        Ok(summary) => return Ok(summary),
        Err(why) => why,
    };
    let fewer = shortest(setup, plant, ops.to_vec());
    let (trace, why) = match try_replay(setup, plant, &fewer) {
        Err(why) => (text(&fewer), why),
        // The removed operations may matter.
        Ok(_) => (text(ops), format!("not every time: {first}")),
    };
    Err(Box::new(Difference { setup, trace, why }))
}

/// Runs the sequence of a seed, of at most `most` operations, with every way of waiting, and with the policy
/// whose turn it is. The operations are counted once.
///
/// # Errors
/// As [`run`].
pub fn run_seed(seed: u64, most: usize, plant: Option<Plant>) -> Result<Summary, Box<Difference>> {
    let ops = sequence(&mut fastrand::Rng::with_seed(seed), most);
    let mut all = Summary {
        operations: ops.len() as u64,
        ..Summary::default()
    };
    for waiter in Waiter::ALL {
        let summary = run(Setup::new(waiter, seed as usize), plant, &ops)?;
        all.tally.add(&summary.tally);
    }
    Ok(all)
}

/// Replays a trace. It may list the calls of each operation.
///
/// # Errors
/// The difference from the reference or from the expectation, or the part that cannot be parsed.
pub fn check(setup: Setup, trace: &str) -> Result<Summary, String> {
    check_and_show(setup, trace, &mut |_, _| {})
}

/// Like [`check`], and calls `show` with each operation and its log.
///
/// # Errors
/// As [`check`].
pub fn check_and_show(
    setup: Setup,
    trace: &str,
    show: &mut dyn FnMut(&Op, &dyn fmt::Debug),
) -> Result<Summary, String> {
    let mut run = Run::new(setup, None);
    for (number, (op, expected)) in parse(trace)?.iter().enumerate() {
        let agrees = run.step(number, op);
        show(op, &run.log);
        agrees?;
        if let Some(expected) = expected {
            let called = run.log.iter().filter_map(|entry| entry.what.spelled());
            compare(called.collect(), expected).map_err(|why| format!("operation {number}, {op}: {why}"))?;
        }
    }
    run.end()
}

fn compare(mut called: Vec<String>, expected: &Expected) -> Result<(), String> {
    let mut wanted = expected.calls.clone();
    if expected.in_any_order {
        called.sort();
        wanted.sort();
    }
    if called == wanted {
        Ok(())
    } else {
        Err(format!("{called:?} was called, {wanted:?} was expected"))
    }
}
