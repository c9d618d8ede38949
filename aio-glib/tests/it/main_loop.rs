//! An iteration of a real main loop of GLib, for the tests of `aio-context`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Wait};
use aio_glib::Attached;
use glib::thread_guard::ThreadGuard;
use glib::{ControlFlow, MainContext, Priority, Source};

use aio_testing::{Count, limited};

thread_local! {
    static MAIN: MainContext = MainContext::new();
    /// The attachments of the iterations that are on the stack.
    static ATTACHED: RefCell<Vec<Rc<Attached>>> = const { RefCell::new(Vec::new()) };
}

/// Runs one iteration of a main loop with `cx` as a source. Returns `true` if there was progress.
pub(crate) fn poll_in_glib(cx: &Context, wait: Wait) -> bool {
    let main = MAIN.with(Clone::clone);
    // First: a notification after this and before the check would count as known, and end nothing.
    let notifications = notified(cx);
    let may_block = wait != Wait::NoBlock && !is_due(cx, wait);
    let attached = Rc::new(aio_glib::attach(cx, Some(&main)).expect("it can be embedded"));
    ATTACHED.with_borrow_mut(|all| all.push(attached));
    let _iteration = Iteration;
    let most = match wait {
        Wait::AtMost(most) => Some(most),
        Wait::Until(at) => Some(at.since(cx.now(ClockId::Monotonic))),
        Wait::Block | Wait::NoBlock => None,
    };
    let ends = match most {
        Some(most) if may_block => {
            let name = Some("the end of a wait");
            let ends = glib::timeout_source_new(most, name, Priority::DEFAULT, || ControlFlow::Continue);
            ends.attach(Some(&main));
            Some(ends)
        }
        _ => None,
    };
    // Attaching a source has woken GLib itself, which ends with this. If it accepts a notification of the
    // context, that notification would have ended the wait.
    let may_block = may_block && !main.pending() && notified(cx) == notifications;
    let before = served();
    let iterated = std::panic::catch_unwind(|| aio_glib::iteration(&main, may_block));
    if let Some(ends) = ends {
        ends.destroy();
    }
    match iterated {
        Ok(_) => served() > before,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Returns the number of times that a thread has notified a context.
fn notified(cx: &Context) -> u64 {
    let stats = cx.remote().stats();
    stats.wakeups_sent + stats.wakeups_elided
}

/// Returns the progress so far. Progress of a nested iteration counts for its outer ones, too.
fn served() -> u64 {
    ATTACHED.with_borrow(|all| all.iter().map(|attached| attached.served()).sum::<u64>() + ENDED.get())
}

thread_local! {
    /// The progress of detached contexts.
    static ENDED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

struct Iteration;

impl Drop for Iteration {
    fn drop(&mut self) {
        let attached = ATTACHED.with_borrow_mut(Vec::pop).expect("it was pushed");
        ENDED.set(ENDED.get() + attached.served());
    }
}

/// Returns whether an iteration has no reason to block: there is something to do; or time is simulated, and
/// has passed.
fn is_due(cx: &Context, wait: Wait) -> bool {
    let embedded = cx.embed().expect("it can be embedded");
    let limit = embedded.prepare_ms();
    limit == 0 || limited(cx, &embedded, limit, wait) == 0
}

/// Makes a source of GLib that counts.
pub(crate) fn counter(runs: &Count, interval: Duration, flow: ControlFlow) -> Source {
    let counted = ThreadGuard::new(runs.clone());
    glib::timeout_source_new(interval, None, Priority::DEFAULT, move || {
        counted.get_ref().up();
        flow
    })
}
