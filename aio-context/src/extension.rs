//! [`Extensions`]: the values that other crates keep with a context.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::rc::Rc;

/// One value of each type.
#[derive(Default)]
pub(crate) struct Extensions(RefCell<Vec<(TypeId, Rc<dyn Any>)>>);

impl Extensions {
    #[inline]
    pub(crate) fn get<T: 'static>(&self) -> Option<Rc<T>> {
        let all = self.0.borrow();
        let found = all.iter().find(|(id, _)| *id == TypeId::of::<T>());
        found.and_then(|(_, value)| value.clone().downcast().ok())
    }

    /// Adds a value, unless there is one of this type, which then stays. Returns the value that is there.
    #[cold]
    pub(crate) fn add<T: 'static>(&self, value: T) -> Rc<T> {
        if let Some(first) = self.get() {
            return first;
        }
        let value = Rc::new(value);
        self.0.borrow_mut().push((TypeId::of::<T>(), value.clone()));
        value
    }
}
