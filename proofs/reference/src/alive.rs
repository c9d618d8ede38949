//! [`Alive`]: the number of handlers and closures that have not been dropped.

use std::cell::Cell;
use std::rc::Rc;

/// Counts the values that the loop owns and has not dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alive(Rc<Cell<u32>>);

/// One of the counted values.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Cell<u32>>);

impl Alive {
    pub(crate) fn one(&self) -> Counted {
        self.0.set(self.0.get() + 1);
        Counted(self.0.clone())
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.get()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
