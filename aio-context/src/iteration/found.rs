//! [`Found`]: the events and hits of an iteration. A context takes back the list and the hits that were not
//! delivered.

use std::cell::RefCell;

use aio_backend::{ReadyList, Token};
use aio_handlers::{Dispatcher, Registry};

use crate::context::Inner;
use crate::handler::Entry;

pub(crate) type Found<'a> = aio_handlers::Found<'a, Inner>;

impl Dispatcher for Inner {
    type Value = Entry;

    #[inline]
    fn registry(&self) -> &RefCell<Registry<Entry>> {
        &self.descriptors.registry
    }

    fn mask(&self, token: Token) {
        self.descriptors.mask(token);
    }

    #[cold]
    fn take_back(&self, list: Box<ReadyList>, delivered: u64) {
        self.shared.counters.events.add(delivered);
        for (token, _) in list.rest() {
            self.polling.set.forget_hit(token);
        }
        self.descriptors.lists.give_back(list);
    }
}
