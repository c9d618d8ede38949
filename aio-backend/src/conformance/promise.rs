//! [`Promise`]: one promise of the contract, with its test.

use crate::Backend;

/// One promise of the contract.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// The name, which is also the name of the test.
    pub id: &'static str,
    /// The promise. A number in parentheses is the number in the list of the contract.
    pub text: &'static str,
    /// What to do if the test fails: what mends most backends that break this promise.
    pub remedy: &'static str,
    /// Tests an empty backend.
    ///
    /// # Panics
    /// If the backend violates the promise.
    pub run: fn(&mut dyn Backend),
}
