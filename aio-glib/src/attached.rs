//! [`Attached`]: a context in a main context, until dropped.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use aio_context::Context;
use glib::{MainContext, Priority, Source};

use crate::source::counting;

/// Owns the service of a context by a GLib main context. Dropping it ends the service; the context is then as
/// before.
///
/// # Examples
/// ```
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, main) = (Context::new()?, glib::MainContext::new());
/// let attached = aio_glib::attach(&cx, Some(&main))?;
/// cx.defer(|_cx| ());
/// while attached.served() == 0 {
///     main.iteration(true);
/// }
/// drop(attached);
/// assert!(!main.pending());
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "the service ends when this is dropped"]
pub struct Attached {
    source: Source,
    destroys: bool,
    /// Also keeps this value on the home thread.
    served: Rc<Cell<u64>>,
}

/// Makes `main` serve a context, with the default priority. Without `main`, the default main context serves
/// it.
///
/// Each main context can serve any number of contexts of one thread.
///
/// # Errors
/// As [`Context::embed`].
pub fn attach(cx: &Context, main: Option<&MainContext>) -> io::Result<Attached> {
    let served = Rc::default();
    let source = counting(cx, None, Priority::DEFAULT, &served)?;
    source.attach(main);
    Ok(Attached {
        source,
        served,
        destroys: true,
    })
}

impl Attached {
    /// Returns the source.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Returns the number of times that the main loop has served the context with progress: a handler or a
    /// bottom half ran, or a timer fired. The progress of [`Context::poll`] does not count.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.get()
    }

    /// Leaves the context attached until the main context is freed, or the source is destroyed.
    pub fn detach(mut self) {
        self.destroys = false;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.destroys {
            self.source.destroy();
        }
    }
}
