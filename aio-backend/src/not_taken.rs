//! [`NotTaken`]: an error that gives back the value that was not taken.

use std::error::Error;
use std::fmt;
use std::io;

use crate::Refused;

/// The reason why a value was not taken, such as an operation that was not submitted or a handler that was
/// not registered, and the value itself.
///
/// It converts into an [`io::Error`], so that `?` works if the caller does not need the value. It has the
/// size of one word, so that results with it are small.
///
/// ```
/// use std::io;
/// use aio_backend::NotTaken;
///
/// /// Takes names that are not taken yet.
/// fn register(name: String) -> Result<(), NotTaken<String>> {
///     Err(NotTaken::new(name, io::ErrorKind::AlreadyExists.into()))
/// }
///
/// let refused = register("disk".to_owned()).unwrap_err();
/// assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
/// let name = refused.into_inner() + "-2";
///
/// fn first() -> io::Result<()> {
///     Ok(register("disk".to_owned())?)
/// }
/// assert!(first().is_err() && name == "disk-2");
/// ```
pub struct NotTaken<T> {
    parts: Box<(T, io::Error)>,
}

impl<T> NotTaken<T> {
    /// Makes the error for a value that was not taken because of `error`.
    #[cold]
    #[must_use]
    pub fn new(value: T, error: io::Error) -> Self {
        let parts = Box::new((value, error));
        Self { parts }
    }

    /// Passes a clone of a value, such as a reference to it, to `take`. If that fails, the value is returned.
    ///
    /// # Errors
    /// The value, and the error of `take`.
    ///
    /// ```
    /// use std::{io, rc::Rc};
    /// use aio_backend::NotTaken;
    ///
    /// let mut taken = Vec::new();
    /// let mut take = |name: Rc<str>| {
    ///     let is_new = !taken.contains(&name);
    ///     if is_new { Ok(taken.push(name)) } else { Err(io::ErrorKind::AlreadyExists.into()) }
    /// };
    /// assert!(NotTaken::offer(Rc::from("disk"), &mut take).is_ok());
    /// let refused = NotTaken::offer(Rc::from("disk"), &mut take).unwrap_err();
    /// assert_eq!(&*refused.into_inner(), "disk");
    /// ```
    #[inline]
    pub fn offer<R>(value: T, take: impl FnOnce(T) -> io::Result<R>) -> Result<R, Self>
    where
        T: Clone,
    {
        match take(value.clone()) {
            Ok(taken) => Ok(taken),
            Err(error) => Err(Self::new(value, error)),
        }
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.parts.1.kind()
    }

    /// Returns the system's number for the error, if the system refused it: `EBADF` for a descriptor that is not open.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        Refused::raw_os_error(&self.parts.1)
    }

    /// Returns the error.
    #[must_use]
    pub fn error(&self) -> &io::Error {
        &self.parts.1
    }

    /// Gives the value back.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.parts.0
    }

    /// Gives back the value and the error.
    #[must_use]
    pub fn into_parts(self) -> (T, io::Error) {
        *self.parts
    }
}

impl<T> From<NotTaken<T>> for io::Error {
    fn from(refused: NotTaken<T>) -> Self {
        refused.parts.1
    }
}

impl<T> Error for NotTaken<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.parts.1.source()
    }
}

impl<T> fmt::Display for NotTaken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.1.fmt(f)
    }
}

impl<T> fmt::Debug for NotTaken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotTaken")
            .field("error", &self.parts.1)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn r11_a_value_comes_back_whole_with_the_error_of_the_system() {
        let value = Rc::new("value");
        let why = Refused::wrap("try", "mine", io::Error::from_raw_os_error(24));
        let text = why.to_string();
        let refused = NotTaken::new(value.clone(), why);
        assert_eq!(
            (refused.raw_os_error(), refused.to_string()),
            (Some(24), text.clone())
        );
        assert_eq!(
            (refused.kind(), refused.error().to_string()),
            (refused.error().kind(), text.clone())
        );
        assert!(refused.source().is_some(), "that of the error");
        let (returned, why) = refused.into_parts();
        assert!(Rc::ptr_eq(&value, &returned) && why.to_string() == text);
        let why = io::Error::from(NotTaken::new(returned, why));
        assert_eq!(
            (Refused::raw_os_error(&why), Rc::strong_count(&value)),
            (Some(24), 1)
        );
        assert_eq!(size_of::<Result<(), NotTaken<[u64; 9]>>>(), size_of::<usize>());
    }
}
