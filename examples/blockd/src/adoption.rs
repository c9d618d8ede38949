//! Queues that another loop than the context serves: the loop of the `floor`.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::vring::Vring;

thread_local! {
    /// The adopted queues that wait to be served, if this thread has such a loop.
    static QUEUES: RefCell<Option<Vec<Weak<Vring>>>> = const { RefCell::new(None) };
}

/// Starts the adoption of this thread's queues.
pub(crate) fn begin() {
    QUEUES.set(Some(Vec::new()));
}

/// Ends the adoption.
pub(crate) fn end() {
    QUEUES.take();
}

/// Takes over a queue that is about to serve. Returns `false` if this thread adopts none.
pub(crate) fn adopt(vring: &Rc<Vring>) -> bool {
    QUEUES.with_borrow_mut(|queues| {
        let Some(queues) = queues else { return false };
        queues.push(Rc::downgrade(vring));
        true
    })
}

/// Returns the queues adopted since the last call that have not ended.
pub(crate) fn take() -> Vec<Rc<Vring>> {
    let adopted = QUEUES.with_borrow_mut(|queues| queues.as_mut().map(std::mem::take));
    adopted
        .unwrap_or_default()
        .iter()
        .filter_map(Weak::upgrade)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_adopted_only_where_another_loop_serves_them() {
        assert!(take().is_empty());
        begin();
        QUEUES.with_borrow_mut(|queues| queues.as_mut().unwrap().push(Weak::new()));
        assert!(take().is_empty(), "it has ended before it was served");
        assert!(QUEUES.with_borrow(|queues| queues.as_ref().is_some_and(Vec::is_empty)));
        end();
        assert!(QUEUES.with_borrow(Option::is_none));
    }
}
