//! Operations of the simulated user on the ring of the context (rule S1), and their execution in the kernel.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use aio_context::{Allocation, Buffers, Completed, Context, FileAction, Operation, SharedFd, Submit};
use rustix::io::Errno;

use crate::action::Action;
use crate::ops::MOST;
use crate::submission::{Stage, Submission};
use crate::world::{self, World};

/// The owner of foreign memory. It must live until the kernel is done with the memory.
struct Owner(u64);

impl Drop for Owner {
    fn drop(&mut self) {
        let world = world::here();
        world.owners.set(world.owners.get() - 1);
        let stage = world.submission(self.0).map(|submission| submission.stage.get());
        if stage == Some(Stage::InKernel) {
            world.fail_later(format!(
                "S1: the memory of operation {} is freed while the kernel uses it",
                self.0
            ));
        }
    }
}

impl World {
    pub(crate) fn submission(&self, id: u64) -> Option<Rc<Submission>> {
        self.submissions.borrow().get(&id).cloned()
    }

    fn some_submission(&self) -> Option<Rc<Submission>> {
        let all = self.submissions.borrow();
        let place = self.below(all.len() as u64) as usize;
        all.values().nth(place).cloned()
    }

    pub(crate) fn disturb_operation(&self, cx: &Context) {
        let count = self.submissions.borrow().len();
        let some = self.some_submission();
        match (self.below(8), some) {
            (0..4, _) | (_, None) if count < MOST => self.submit(cx),
            (4, Some(submission)) => {
                let handle = submission.handle.take();
                if let Some(handle) = &handle {
                    self.record(|| format!("operation {} is cancelled", submission.id), 60);
                    submission.is_cancelled.set(true);
                    handle.cancel();
                }
                if submission.stage.get() != Stage::Returned {
                    *submission.handle.borrow_mut() = handle;
                }
            }
            (5, Some(submission)) => self.abandon(&submission),
            (6, Some(submission)) => {
                if let Some(handle) = submission.handle.take() {
                    self.record(|| format!("operation {} is detached", submission.id), 61);
                    handle.detach();
                }
            }
            _ => {}
        }
    }

    fn abandon(&self, submission: &Submission) {
        let Some(handle) = submission.handle.take() else {
            return;
        };
        self.record(
            || format!("the handle of operation {} is dropped", submission.id),
            62,
        );
        submission.is_abandoned.set(true);
        submission.is_cancelled.set(true);
        drop(handle);
        if submission.stage.get() == Stage::Returned {
            self.submissions.borrow_mut().remove(&submission.id);
        }
    }

    fn some_operation(&self, id: u64) -> Operation {
        let file = SharedFd::from(self.null.clone());
        let len = self.below(40) as usize;
        let buffers = match self.below(3) {
            0 => Buffers::from(vec![7; len]),
            1 => Buffers::from(vec![vec![7; len], vec![8; 2]]),
            _ => self.foreign(id),
        };
        match self.below(6) {
            0 => Operation::sync_data(file),
            1 => Operation::allocate(file, Allocation::PunchHole, id, 512),
            2..4 => Operation::read(file, id, buffers),
            _ => Operation::write(file, id, buffers),
        }
    }

    /// Returns memory with an owner.
    fn foreign(&self, id: u64) -> Buffers {
        self.owners.set(self.owners.get() + 1);
        Buffers::Foreign(Box::new(Owner(id)))
    }

    fn submit(&self, cx: &Context) {
        let id = self.id();
        let operation = self.some_operation(id);
        let shape = shape(&operation);
        self.record(|| format!("submit {id}: {shape:?}"), id);
        let submission = Rc::new(Submission {
            id,
            stage: Cell::new(Stage::Queued),
            result: Cell::new(Ok(0)),
            can_be_cancelled: Cell::new(false),
            hangs: Cell::new(false),
            is_abandoned: Cell::new(false),
            is_cancelled: Cell::new(false),
            ended_in: Cell::new(0),
            handle: RefCell::default(),
        });
        self.submissions.borrow_mut().insert(id, submission.clone());
        self.submitting.set(id);
        let done = move |cx: &Context, completed: Completed| {
            world::here().operation_completes(cx, id, completed, shape);
        };
        match cx.submit(operation, done) {
            Ok(handle) => *submission.handle.borrow_mut() = Some(handle),
            Err(refused) => {
                self.submissions.borrow_mut().remove(&id);
                let (operation, why) = refused.into_parts();
                self.record(|| format!("submit fails: {why}"), 63);
                let is_legal = match why.kind() {
                    io::ErrorKind::Unsupported => !self.has_ring.get(),
                    _ => self.refused.get() > 0,
                };
                self.require(is_legal && self::shape(&operation) == shape, || {
                    format!("S1: submit fails without a reason, or comes back as another one: {why}")
                });
            }
        }
    }

    fn operation_completes(&self, cx: &Context, id: u64, completed: Completed, expected: Shape) {
        self.called();
        self.operations.set(self.operations.get() + 1);
        self.record(|| format!("operation {id} ends: {:?}", completed.result), id);
        let Some(submission) = self.submission(id) else {
            self.fail(format!("S1: the callback of operation {id} is called twice"));
        };
        self.require(submission.stage.get() == Stage::Returned, || {
            format!("S1: the callback of operation {id} is called before its end")
        });
        self.require(!submission.is_abandoned.get(), || {
            format!("S1: the callback of operation {id} is called after its handle was dropped")
        });
        let result = completed
            .result
            .map_err(|error| error.raw_os_error().unwrap_or(0));
        let is_same = result == submission.result.get() && shape(&completed.operation) == expected;
        self.require(is_same, || {
            format!("S1: operation {id} ends with {result:?}, and the kernel says {submission:?}")
        });
        self.submissions.borrow_mut().remove(&id);
        let handle = submission.handle.take();
        if let Some(handle) = &handle {
            self.require(handle.is_done(), || {
                format!("S1: operation {id} is not done in its callback")
            });
        }
        drop(completed.operation);
        self.maybe_panic();
        self.user_code(cx);
    }

    /// Takes an operation out of the submission queue, as the kernel does.
    pub(crate) fn begin_operation(&self, id: u64) {
        let Some(submission) = self.submission(id) else {
            return;
        };
        submission.stage.set(Stage::InKernel);
        submission.can_be_cancelled.set(self.one_in(2));
        submission.result.set(match self.below(5) {
            0 => Err(Errno::IO.raw_os_error()),
            1 => Err(Errno::NOSPC.raw_os_error()),
            _ => Ok(self.below(40) as usize),
        });
        match self.below(6) {
            // The operation completes at once.
            0..2 => self.end_operation(id),
            2 if submission.can_be_cancelled.get() && !self.quiet.get() => submission.hangs.set(true),
            _ => self.plan(Action::EndOperation(id), self.below(4_000_000)),
        }
    }

    /// Ends an operation, if it is still in the kernel.
    pub(crate) fn end_operation(&self, id: u64) {
        let submission = self.submission(id);
        if let Some(submission) = submission.filter(|one| one.stage.get() == Stage::InKernel) {
            submission.stage.set(Stage::Ended);
            submission.ended_in.set(self.iterations.get());
            self.ended.borrow_mut().push_back(id);
        }
    }

    /// Cancels an operation in the kernel, if that is possible.
    pub(crate) fn cancel_operation(&self, id: u64) {
        let submission = self.submission(id);
        if let Some(submission) = submission.filter(|one| one.stage.get() == Stage::InKernel)
            && submission.can_be_cancelled.get()
        {
            submission.result.set(Err(Errno::CANCELED.raw_os_error()));
            self.end_operation(id);
        }
    }

    /// Ends an operation that the kernel has not received.
    pub(crate) fn withdraw_operation(&self, id: u64) {
        if let Some(submission) = self.submission(id) {
            submission.result.set(Err(Errno::CANCELED.raw_os_error()));
            submission.stage.set(Stage::Ended);
            submission.ended_in.set(self.iterations.get());
        }
    }

    /// Records that the backend returns an operation.
    pub(crate) fn return_operation(&self, id: u64) {
        if let Some(submission) = self.submission(id) {
            submission.stage.set(Stage::Returned);
            if submission.is_abandoned.get() {
                self.submissions.borrow_mut().remove(&id);
            }
        }
    }

    /// Leaks the buffers of an operation that the kernel still has when the ring is closed.
    pub(crate) fn leak_operation(&self, id: u64, buffers: Buffers) {
        if let Buffers::Foreign(_) = &buffers {
            self.owners.set(self.owners.get() - 1);
        }
        std::mem::forget(buffers);
        if let Some(submission) = self.submission(id) {
            submission.result.set(Err(Errno::TIMEDOUT.raw_os_error()));
            submission.stage.set(Stage::Ended);
        }
    }

    /// Plans the end of operations that hang in the kernel.
    pub(crate) fn release_operations(&self) {
        let all: Vec<_> = self.submissions.borrow().values().cloned().collect();
        for submission in all {
            if submission.hangs.get() {
                self.plan(Action::EndOperation(submission.id), self.below(1_000_000));
            }
        }
    }

    /// Checks before the loop sleeps that the kernel has all operations and cancellations, and that all
    /// completed ones were delivered.
    pub(crate) fn operations_may_sleep(&self) {
        for submission in self.submissions.borrow().values() {
            let is_held = match submission.stage.get() {
                Stage::InKernel => submission.is_cancelled.get() && submission.can_be_cancelled.get(),
                Stage::Queued | Stage::Ended | Stage::Returned => true,
            };
            self.require(!is_held, || {
                format!("S1: the loop sleeps while something is to be done for {submission:?}")
            });
        }
    }

    /// Checks after an iteration that each operation was delivered at most some iterations after its end.
    pub(crate) fn operations_are_delivered(&self) {
        let now = self.iterations.get();
        for submission in self.submissions.borrow().values() {
            let has_ended = matches!(submission.stage.get(), Stage::Ended | Stage::Returned);
            self.require(
                !has_ended || now - submission.ended_in.get() <= MOST_ITERATIONS,
                || {
                    format!(
                        "S1: {} iterations have not delivered {submission:?}",
                        now - submission.ended_in.get()
                    )
                },
            );
        }
    }
}

/// The most iterations that may pass between the end of an operation and its callback, because waits can fail
/// or end at once.
const MOST_ITERATIONS: u64 = 80;

/// The properties that a returned operation must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    kind: u8,
    at: u64,
    bytes: Option<usize>,
}

fn shape(operation: &Operation) -> Shape {
    let (kind, at) = match operation.action {
        FileAction::Read { at, .. } => (0, at),
        FileAction::Write { at, .. } => (1, at),
        FileAction::Allocate { at, .. } => (2, Some(at)),
        _ => (3, None),
    };
    Shape {
        kind,
        at: at.unwrap_or(0),
        bytes: operation.buffers().and_then(Buffers::len),
    }
}
