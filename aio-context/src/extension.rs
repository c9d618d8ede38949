//! [`Context::extension`]: what other crates keep with a context.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::Context;

/// One value of each type.
#[derive(Default)]
pub(crate) struct Extensions(RefCell<Vec<(TypeId, Rc<dyn Any>)>>);

impl Extensions {
    #[inline]
    fn get<T: 'static>(&self) -> Option<Rc<T>> {
        let all = self.0.borrow();
        let found = all.iter().find(|(id, _)| *id == TypeId::of::<T>());
        found.and_then(|(_, value)| value.clone().downcast().ok())
    }
}

impl Context {
    /// Returns the one value of type `T` that belongs to this context; `make` makes it when it is first asked for. The context drops it
    /// on its thread, at its own end.
    ///
    /// For crates that need a state for each context, such as an executor. A value that keeps the context alive is a cycle.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use aio_context::Context;
    ///
    /// #[derive(Default)]
    /// struct Requests(Cell<u64>);
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let cx = Context::new()?;
    /// let requests = cx.extension(|_cx| Requests::default());
    /// requests.0.set(1);
    /// assert_eq!(cx.extension(|_cx| Requests::default()).0.get(), 1);
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn extension<T: 'static>(&self, make: impl FnOnce(&Self) -> T) -> Rc<T> {
        match self.0.extensions.get() {
            Some(value) => value,
            None => self.extend(make),
        }
    }

    #[cold]
    fn extend<T: 'static>(&self, make: impl FnOnce(&Self) -> T) -> Rc<T> {
        let value = Rc::new(make(self));
        // `make` may have asked for the same: the first one stays.
        if let Some(first) = self.0.extensions.get() {
            return first;
        }
        self.0
            .extensions
            .0
            .borrow_mut()
            .push((TypeId::of::<T>(), value.clone()));
        value
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions").finish_non_exhaustive()
    }
}
