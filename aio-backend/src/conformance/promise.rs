//! [`Promise`]: one promise of the contract, with its test.

use crate::Backend;

/// One promise of the contract.
///
/// # Examples
/// ```
/// use aio_backend::Backend;
/// use aio_backend::conformance::PROMISES;
///
/// /// Tests the promises whose names contain `word`, each with a new backend.
/// fn check_some(word: &str, make: impl Fn() -> Box<dyn Backend>) {
///     for promise in PROMISES.iter().filter(|promise| promise.id.contains(word)) {
///         println!("{}: {}", promise.id, promise.text);
///         (promise.run)(&mut *make());
///     }
/// }
///
/// assert!(PROMISES.iter().any(|promise| promise.id == "level_triggered_until_consumed"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// The name, which is also the name of the test.
    pub id: &'static str,
    /// The promise. A number in parentheses is the number in the list of the contract.
    pub text: &'static str,
    /// The remedy for most backends that break this promise.
    pub remedy: &'static str,
    /// Tests an empty backend.
    ///
    /// # Panics
    /// If the backend violates the promise.
    pub run: fn(&mut dyn Backend),
}
