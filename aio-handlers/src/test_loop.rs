//! A loop for tests, which stores everything that its guards pass to it.

use std::cell::{Cell, RefCell};

use aio_backend::{ReadyList, Token};

use crate::{Dispatcher, Registry};

#[derive(Default)]
pub(crate) struct Loop {
    pub(crate) registry: RefCell<Registry<u32>>,
    /// The registration that was masked last.
    pub(crate) masked: Cell<Option<Token>>,
    /// For each list that was taken back: the number of delivered events, and of the others.
    pub(crate) taken_back: RefCell<Vec<(u64, usize)>>,
}

impl Dispatcher for Loop {
    type Value = u32;
    fn registry(&self) -> &RefCell<Registry<u32>> {
        &self.registry
    }
    fn mask(&self, token: Token) {
        self.masked.set(Some(token));
    }
    fn take_back(&self, list: Box<ReadyList>, delivered: u64) {
        self.taken_back.borrow_mut().push((delivered, list.rest().len()));
    }
}
