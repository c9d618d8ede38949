//! Busy polling: the set of polled handlers, poll mode and its begin/end calls, and the search for work in user space.
//!
//! It decides nothing about *how long* to look (that is the policy, `aio-pollctl`) and never blocks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Readiness, ReadyList, Token};
use aio_handlers::HotSet;
use aio_timers::Moment;

use crate::handler::Pollable;
use crate::timer::ClockId;
use crate::{Context, context::Inner};

/// Between two looks at the descriptors while polling at most this long, so that what cannot be polled waits no longer.
const LONGEST_BLINDNESS: Duration = Duration::from_micros(50);
/// A look may take this share of the time between two looks: one part in ten.
const LOOK_SHARE: u32 = 10;
/// So many iterations may be ended by a poll hit without a look at the descriptors (rule D8).
const LONGEST_STREAK: u32 = 64;

/// A handler that came to the set, or that left it.
type Change = (Token, Option<Rc<dyn Pollable>>);

/// The handlers that are polled, and which of them are in poll mode.
#[derive(Default)]
pub(crate) struct Hot {
    set: RefCell<HotSet<Rc<dyn Pollable>>>,
    /// A walk has taken the set out; changes are noted down and applied when it is back.
    walking: Cell<bool>,
    changes: RefCell<Vec<Change>>,
    /// Poll mode is on: handlers have had their `poll_begin`.
    mode: Cell<bool>,
    /// Came into the set since poll mode was entered: `poll_begin` is still to be called.
    newcomers: RefCell<Vec<Token>>,
    /// Lost their `poll_begin` without a last look; asked once before the next wait.
    unasked: RefCell<Vec<Token>>,
    /// Handlers of which a callback is running, innermost last; not polled meanwhile (rule A9).
    busy: RefCell<Vec<Token>>,
    /// Where the next round starts, so that a full ready list starves nobody.
    start: Cell<usize>,
    /// Iterations since the descriptors were last looked at.
    streak: Cell<u32>,
    /// What a look costs, as last measured.
    look_cost: Cell<Duration>,
}

impl Hot {
    pub(crate) fn insert(&self, token: Token, handler: Rc<dyn Pollable>) {
        if self.mode.get() {
            self.newcomers.borrow_mut().push(token);
        }
        self.change(token, Some(handler));
    }

    pub(crate) fn remove(&self, token: Token) {
        self.change(token, None);
    }

    /// Has `token` asked once before the next wait.
    pub(crate) fn ask_once(&self, token: Token) {
        self.unasked.borrow_mut().push(token);
    }

    /// Notes that the descriptors have been looked at.
    pub(crate) fn looked(&self) {
        self.streak.set(0);
    }

    fn change(&self, token: Token, handler: Option<Rc<dyn Pollable>>) {
        if self.walking.get() {
            self.changes.borrow_mut().push((token, handler));
            return;
        }
        let mut set = self.set.borrow_mut();
        let former = match handler {
            Some(handler) => set.insert(token, handler),
            None => set.remove(token),
        };
        drop(set);
        drop(former); // perhaps the last share: its drop may use the context
    }

    /// Calls `each` for the handlers of the set until it returns false, with no borrow held. A walk inside a walk finds
    /// nothing. Handlers that come or go meanwhile are respected at once (gone) or after the walk (come).
    fn walk(&self, mut each: impl FnMut(Token, &Rc<dyn Pollable>) -> bool) {
        if self.walking.get() || self.set.borrow().is_empty() {
            return;
        }
        let out = Walk {
            hot: self,
            set: self.set.take(),
        };
        self.walking.set(true);
        let (len, start) = (out.set.len(), self.start.get());
        for step in 0..len {
            let index = if start + step < len {
                start + step
            } else {
                start + step - len
            };
            let Some((token, handler)) = out.set.get(index) else {
                continue;
            };
            if !self.changes.borrow().is_empty() && self.is_changed(token) {
                continue;
            }
            if !each(token, handler) {
                self.start.set((index + 1) % len);
                return;
            }
        }
        self.start.set(0);
    }

    fn is_changed(&self, token: Token) -> bool {
        self.changes.borrow().iter().any(|(changed, _)| *changed == token)
    }
}

/// The set while a walk has it; brings it back and applies what was changed meanwhile, also on unwinding.
struct Walk<'a> {
    hot: &'a Hot,
    set: HotSet<Rc<dyn Pollable>>,
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        drop(self.hot.set.replace(std::mem::take(&mut self.set)));
        self.hot.walking.set(false);
        loop {
            let mut changes = self.hot.changes.take();
            if changes.is_empty() {
                return;
            }
            for (token, handler) in changes.drain(..) {
                self.hot.change(token, handler);
            }
            // Keep the memory for the next time.
            let mut kept = self.hot.changes.borrow_mut();
            if kept.is_empty() {
                *kept = changes;
            }
        }
    }
}

/// Marks a handler as busy in a callback, until dropped.
pub(crate) struct Busy<'a>(&'a Hot);

impl<'a> Busy<'a> {
    pub(crate) fn new(hot: &'a Hot, token: Token) -> Self {
        hot.busy.borrow_mut().push(token);
        Self(hot)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.borrow_mut().pop();
    }
}

/// What polling found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Polled {
    /// There is something to do: do not wait.
    pub(crate) hit: bool,
    /// How long it looked, as far as a clock was read.
    pub(crate) spun: Duration,
    /// When it stopped looking, if a clock was read: a hit in the very first round costs none.
    pub(crate) ended: Option<Moment>,
    /// The descriptors were looked at last.
    pub(crate) looked: bool,
}

impl Inner {
    /// Looks for work for up to `budget` (rules A2, A3): polled handlers, notifications, and, at intervals, the other
    /// descriptors (rule R10). Hits go to `ready` with an empty readiness.
    pub(crate) fn search(
        &self,
        cx: &Context,
        budget: Duration,
        ready: &mut ReadyList,
    ) -> std::io::Result<Polled> {
        self.enter_poll_mode(cx);
        let mut polled = Polled::default();
        if self.round(cx, ready) || self.shared.notifier.is_notified() {
            polled.hit = true;
            return Ok(polled);
        }
        let clock = self.timers.clock(ClockId::Monotonic);
        let started = clock.now();
        let (mut now, mut looked) = (started, started);
        let (mut stride, mut rounds) = (1u32, 0u32);
        loop {
            if self.has_plain_handlers() && now.since(looked) >= self.look_interval() {
                self.look(cx, ready)?;
                let after = clock.now();
                self.hot.look_cost.set(after.since(now));
                (looked, now) = (after, after);
                polled.looked = true;
                if !ready.is_empty() {
                    polled.hit = true;
                    break;
                }
            }
            while rounds < stride {
                rounds += 1;
                std::hint::spin_loop();
                if self.round(cx, ready) || self.shared.notifier.is_notified() {
                    polled.hit = true;
                    break;
                }
            }
            let before = now;
            now = clock.now();
            if polled.hit || now.since(started) >= budget {
                break;
            }
            if now == before && clock.pass(budget.saturating_sub(now.since(started))) {
                // Simulated time does not move by itself: the rest of the budget passes at once.
                now = clock.now();
                break;
            }
            stride = next_stride(stride, now.since(before));
            rounds = 0;
        }
        polled.spun = now.since(started);
        polled.ended = Some(now);
        Ok(polled)
    }

    /// Whether a poll hit may end this iteration without a look at the descriptors (rule D8).
    pub(crate) fn may_skip_look(&self) -> bool {
        let streak = self.hot.streak.get() + 1;
        self.hot.streak.set(streak);
        streak < LONGEST_STREAK
    }

    fn look_interval(&self) -> Duration {
        (self.hot.look_cost.get() * LOOK_SHARE).min(LONGEST_BLINDNESS)
    }

    /// Asks every polled handler once, without stopping at the first hit; true if there was one.
    fn round(&self, cx: &Context, ready: &mut ReadyList) -> bool {
        let mut hit = false;
        let nested = !self.hot.busy.borrow().is_empty();
        self.hot.walk(|token, handler| {
            if nested && self.hot.busy.borrow().contains(&token) {
                return true;
            }
            if cx.call(|_| handler.poll()) {
                hit = true;
                return self.note_hit(token, ready);
            }
            true
        });
        hit
    }

    /// Puts a hit on the list; false if the list is full.
    fn note_hit(&self, token: Token, ready: &mut ReadyList) -> bool {
        if let Some(entry) = self.registry.borrow_mut().get_mut(token) {
            entry.hit = true;
            ready.push(token, Readiness::empty());
        }
        !ready.is_full()
    }

    fn enter_poll_mode(&self, cx: &Context) {
        if !self.hot.mode.replace(true) {
            self.hot.newcomers.borrow_mut().clear();
            self.hot.walk(|token, handler| {
                self.begin(cx, token, handler);
                true
            });
        }
        if !self.hot.newcomers.borrow().is_empty() {
            self.greet_newcomers(cx);
        }
    }

    /// Calls `poll_begin` of those that came while poll mode was on (rule R7).
    fn greet_newcomers(&self, cx: &Context) {
        loop {
            let Some(token) = self.hot.newcomers.borrow_mut().pop() else {
                return;
            };
            let handler = self.polled_handler(token);
            if let Some(handler) = handler {
                self.begin(cx, token, &handler);
            }
        }
    }

    pub(crate) fn polled_handler(&self, token: Token) -> Option<Rc<dyn Pollable>> {
        let registry = self.registry.borrow();
        if registry.is_paused(registry.group(token)?) {
            return None;
        }
        registry.get(token)?.kind.polled().cloned()
    }

    fn begin(&self, cx: &Context, token: Token, handler: &Rc<dyn Pollable>) {
        let first = match self.registry.borrow_mut().get_mut(token) {
            Some(entry) => !std::mem::replace(&mut entry.begun, true),
            None => false,
        };
        if first {
            cx.call(|_| handler.poll_begin());
        }
    }

    /// Calls `poll_end` if `poll_begin` was called; true if so.
    pub(crate) fn end(&self, cx: &Context, token: Token, handler: &Rc<dyn Pollable>) -> bool {
        let last = match self.registry.borrow_mut().get_mut(token) {
            Some(entry) => std::mem::replace(&mut entry.begun, false),
            None => false,
        };
        if last {
            cx.call(|_| handler.poll_end());
        }
        last
    }

    /// Leaves poll mode, right before a real wait (rule A5): `poll_end` for everybody, then one last question. A hit
    /// goes to `ready`; true if there was one.
    ///
    /// A panic in the middle leaves poll mode on, with those that had their `poll_end` as newcomers: still balanced.
    pub(crate) fn leave_poll_mode(&self, cx: &Context, ready: &mut ReadyList) -> bool {
        let mut hit = false;
        if self.hot.mode.get() {
            self.hot.walk(|token, handler| {
                if self.end(cx, token, handler) {
                    self.hot.newcomers.borrow_mut().push(token);
                }
                true
            });
            self.hot.newcomers.borrow_mut().clear();
            self.hot.mode.set(false);
            hit = self.round(cx, ready);
        }
        while let Some(token) = self.next_unasked() {
            let handler = self.polled_handler(token);
            if handler.is_some_and(|handler| cx.call(|_| handler.poll())) {
                hit = true;
                self.note_hit(token, ready);
            }
        }
        hit
    }

    fn next_unasked(&self) -> Option<Token> {
        self.hot.unasked.borrow_mut().pop()
    }

    /// Now on the loop's own clock.
    pub(crate) fn now(&self) -> Moment {
        self.timers.now(ClockId::Monotonic)
    }
}

/// How many rounds to do before the clock is read again: enough to make its cost small, few enough to stay exact.
fn next_stride(stride: u32, took: Duration) -> u32 {
    if took < Duration::from_nanos(500) {
        (stride * 2).min(64)
    } else if took > Duration::from_nanos(1500) {
        (stride / 2).max(1)
    } else {
        stride
    }
}
