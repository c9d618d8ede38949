//! [`NoSpin`]: waits that begin at once.

use std::cell::Cell;

use crate::context::{Context, WeakContext};

/// Waits begin at once as long as this lives; see [`Context::without_spin`].
///
/// # Examples
/// ```
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let (send, receive) = std::sync::mpsc::channel();
/// let remote = cx.remote();
/// let worker = std::thread::spawn(move || {
///     let sum = receive.iter().sum::<u32>();
///     remote.run(move |_cx| assert_eq!(sum, 3))
/// });
/// send.send(3).unwrap();
/// drop(send);
/// let for_worker = cx.without_spin();
/// cx.poll(Wait::Block)?;
/// drop(for_worker);
/// # worker.join().unwrap().unwrap(); Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it has no effect"]
pub struct NoSpin(WeakContext);

impl Context {
    /// Has waits begin at once until the returned value is dropped. Otherwise a loop that has just served an event checks its descriptors
    /// for a moment before it sleeps. For the time in which threads work for the loop: they may need its core.
    ///
    /// Polling of handlers goes on as before.
    pub fn without_spin(&self) -> NoSpin {
        let spin = &self.0.spin.0;
        spin.set(spin.get() + HOLD);
        NoSpin(self.downgrade())
    }
}

impl Drop for NoSpin {
    fn drop(&mut self) {
        if let Some(cx) = self.0.upgrade() {
            let spin = &cx.0.spin.0;
            spin.set(spin.get() - HOLD);
        }
    }
}

/// The next wait begins at once.
const NEXT: u32 = 1;
/// One [`NoSpin`].
const HOLD: u32 = 2;

/// Whether a loop may spin before it waits.
#[derive(Default)]
pub(crate) struct Spin(Cell<u32>);

impl Spin {
    /// Has the next wait that could spin begin at once.
    pub(crate) fn skip_next(&self) {
        self.0.set(self.0.get() | NEXT);
    }

    #[inline(always)]
    pub(crate) fn is_allowed(&self) -> bool {
        self.0.get() == 0
    }

    /// As [`is_allowed`](Self::is_allowed), and forgets the last [`skip_next`](Self::skip_next).
    #[inline(always)]
    pub(crate) fn take_allowed(&self) -> bool {
        let reasons = self.0.get();
        if reasons != 0 {
            self.0.set(reasons & !NEXT);
        }
        reasons == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r10_a_wait_spins_again_after_the_last_reason_is_gone() {
        let cx = Context::new().expect("there is a descriptor left");
        let spin = &cx.0.spin;
        spin.skip_next();
        spin.skip_next();
        assert!(!spin.is_allowed() && !spin.take_allowed() && spin.take_allowed());
        let two = [cx.without_spin(), cx.without_spin()];
        spin.skip_next();
        assert!(!spin.take_allowed() && !spin.take_allowed());
        let [first, second] = two;
        drop(first);
        assert!(!spin.take_allowed());
        drop(second);
        assert!(spin.take_allowed() && spin.is_allowed());
        let late = cx.without_spin();
        drop(cx);
        drop(late);
    }
}
