//! [`Attached`]: a context in a main context, until dropped.

use std::io;
use std::marker::PhantomData;
use std::rc::Rc;

use aio_context::Context;
use glib::{MainContext, Priority, Source};

use crate::source_new;

/// A context that a GLib main context serves. When it is dropped, the service ends, and the context is as before.
#[derive(Debug)]
#[must_use = "the service ends when this is dropped"]
pub struct Attached {
    source: Source,
    destroys: bool,
    /// It is dropped on the home thread, as its context is.
    _home: PhantomData<Rc<()>>,
}

/// Has `main` serve a context, with the default priority; without `main`, the default main context.
///
/// Each main context can serve any number of contexts, which share a thread.
///
/// # Errors
/// As [`Context::embed`].
pub fn attach(cx: &Context, main: Option<&MainContext>) -> io::Result<Attached> {
    let source = source_new(cx, None, Priority::DEFAULT)?;
    source.attach(main);
    Ok(Attached {
        source,
        destroys: true,
        _home: PhantomData,
    })
}

impl Attached {
    /// The source.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
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
