//! Macros for trait implementations that many types have, in a line each.

/// Implements `Debug` with some fields, and a mark that there are others.
macro_rules! impl_debug {
    (impl[$($generics:tt)*] $type:ty, $name:literal: |$this:ident| $($field:ident = $value:expr),+) => {
        impl<$($generics)*> std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $this = self;
                f.debug_struct($name)$(.field(stringify!($field), &$value))+.finish_non_exhaustive()
            }
        }
    };
    ($($rest:tt)+) => {
        $crate::macros::impl_debug!(impl[] $($rest)+);
    };
}

/// Implements `AsFd` with the descriptor of a field.
macro_rules! impl_as_fd {
    (impl[$($generics:tt)*] $type:ty, $field:tt) => {
        impl<$($generics)*> std::os::fd::AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.$field.as_fd()
            }
        }
    };
    ($($rest:tt)+) => {
        $crate::macros::impl_as_fd!(impl[] $($rest)+);
    };
}

pub(crate) use {impl_as_fd, impl_debug};
