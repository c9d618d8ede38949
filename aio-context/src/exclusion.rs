//! The exclusive handlers that run on this thread: none is entered again, in whatever place it is by then (rules R3, A9).
//!
//! The exclusion follows the handler, not its registration: a handler may move while it runs, or be watched by two contexts.

use std::cell::RefCell;

use crate::registration::call_each;
use crate::sync::thread_local;

/// Names a handler, by its address.
pub(crate) type Identity = *const ();

/// What waits for a handler to return.
type Owed = Box<dyn FnOnce()>;

thread_local! {
    static RUNNING: RefCell<Vec<(Identity, Vec<Owed>)>> = const { RefCell::new(Vec::new()) };
}

/// Without effect while the thread ends.
fn with_running<R: Default>(use_it: impl FnOnce(&mut Vec<(Identity, Vec<Owed>)>) -> R) -> R {
    RUNNING
        .try_with(|running| use_it(&mut running.borrow_mut()))
        .unwrap_or_default()
}

/// An exclusive handler runs until this is dropped. What waits for it is then done.
pub(crate) struct Entered(());

/// Enters an exclusive handler; `None` if it runs already.
pub(crate) fn enter(handler: Identity) -> Option<Entered> {
    let runs = with_running(|running| {
        let runs = running.iter().any(|(one, _)| *one == handler);
        if !runs {
            running.push((handler, Vec::new()));
        }
        runs
    });
    (!runs).then(|| Entered(()))
}

pub(crate) fn is_running(handler: Identity) -> bool {
    with_running(|running| running.iter().any(|(one, _)| *one == handler))
}

/// Does `owed` when the handler has returned: at once, if it does not run.
pub(crate) fn after(handler: Identity, owed: impl FnOnce() + 'static) {
    let mut owed = Some(owed);
    with_running(|running| {
        if let Some((_, waiting)) = running.iter_mut().find(|(one, _)| *one == handler) {
            waiting.extend(owed.take().map(|owed| Box::new(owed) as Owed));
        }
    });
    if let Some(owed) = owed {
        owed();
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Calls return in the opposite order.
        let last = with_running(Vec::pop);
        call_each(last.into_iter().flat_map(|(_, waiting)| waiting), |owed| owed());
    }
}
