//! The conformance kit.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aio_backend_epoll::Epoll;

aio_backend::conformance!(epoll, || Epoll::new().unwrap());
