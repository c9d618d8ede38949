//! A backend that works until a chosen call of it fails.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Backend, Completed, Interest, NotSubmitted, Operation, ReadyList, Token, Watched};
use aio_backend_ppoll::Ppoll;
use rustix::io::Errno;

/// The call that fails, and its error. A test shares it with all backends that it makes.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The number of calls that still succeed. If `only` is set, only its calls count.
    left: Cell<Option<u32>>,
    only: Cell<Option<&'static str>>,
    error: Cell<Option<Errno>>,
    /// `true` if all later calls fail, too.
    lasting: Cell<bool>,
    made: Cell<u32>,
    alive: Cell<u32>,
    failed: RefCell<Vec<&'static str>>,
}

impl Plan {
    /// Returns a plan in which all calls succeed.
    pub(crate) fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Makes the call after `works` more calls fail with `error`.
    pub(crate) fn fail_after(&self, works: u32, error: Errno) {
        self.left.set(Some(works));
        self.only.set(None);
        self.error.set(Some(error));
    }

    /// Makes the call of this name after `works` more of them fail with `error`.
    pub(crate) fn fail_next_after(&self, call: &'static str, works: u32, error: Errno) {
        self.fail_after(works, error);
        self.only.set(Some(call));
    }

    /// Makes the next call of this name fail with `error`.
    pub(crate) fn fail_next(&self, call: &'static str, error: Errno) {
        self.fail_next_after(call, 0, error);
    }

    /// Like `fail_next`, for all later calls, too.
    pub(crate) fn fail_always(&self, call: &'static str, error: Errno) {
        self.fail_next(call, error);
        self.lasting.set(true);
    }

    /// Returns the names of the calls that failed.
    pub(crate) fn failed(&self) -> Vec<&'static str> {
        self.failed.borrow().clone()
    }

    /// Returns the number of backends that were made, and the number that still exist.
    pub(crate) fn made_and_alive(&self) -> (u32, u32) {
        (self.made.get(), self.alive.get())
    }

    /// Returns the function for `Ladder::new`.
    pub(crate) fn maker(self: &Rc<Self>) -> impl FnMut() -> io::Result<Faulty> + 'static {
        let plan = Rc::clone(self);
        move || {
            plan.made.set(plan.made.get() + 1);
            plan.check("create")?;
            plan.alive.set(plan.alive.get() + 1);
            Ok(Faulty {
                inner: Ppoll::new(),
                plan: Rc::clone(&plan),
                operations: Vec::new(),
                cancelled: Vec::new(),
            })
        }
    }

    fn check(&self, call: &'static str) -> io::Result<()> {
        let (Some(left), Some(error)) = (self.left.get(), self.error.get()) else {
            return Ok(());
        };
        if self.only.get().is_some_and(|only| only != call) {
            return Ok(());
        }
        if left > 0 {
            self.left.set(Some(left - 1));
            return Ok(());
        }
        if !self.lasting.get() {
            self.left.set(None);
        }
        self.failed.borrow_mut().push(call);
        Err(error.into())
    }
}

/// A backend that works until a chosen call of it fails.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Ppoll,
    plan: Rc<Plan>,
    /// Operations that end only when they are cancelled.
    operations: Vec<(Token, Operation)>,
    cancelled: Vec<(Token, Operation)>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.plan.alive.set(self.plan.alive.get() - 1);
    }
}

impl Backend for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.plan.check("add")?;
        self.inner.add(fd, token, interest)
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.plan.check("modify")?;
        self.inner.modify(token, interest)
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.inner.remove(token)?;
        self.plan.check("remove")
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        self.plan.check("wait")?;
        self.inner.wait(timeout, ready)
    }

    fn make_operations_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        self.plan.check("show")?;
        Ok(None)
    }

    fn submit(&mut self, _: Token, operation: Operation) -> Result<Token, NotSubmitted> {
        let id = Token::new(self.operations.len() as u32, 0);
        self.operations.push((id, operation));
        Ok(id)
    }

    fn cancel(&mut self, operation: Token) {
        let is_it = |(id, _): &mut (Token, Operation)| *id == operation;
        self.cancelled.extend(self.operations.extract_if(.., is_it));
    }

    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        let (id, operation) = self.cancelled.pop()?;
        let result = Err(Errno::CANCELED.into());
        Some((id, Completed { result, operation }))
    }

    fn in_flight(&self) -> usize {
        self.operations.len() + self.cancelled.len()
    }

    fn end_operations(&mut self) {
        self.cancelled.extend(self.operations.drain(..).rev());
    }

    fn watched(&self) -> usize {
        self.inner.watched()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.inner.visit(each);
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.inner.drain(each);
    }
}
