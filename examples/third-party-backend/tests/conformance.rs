//! Whether the backends keep their promises: a test for each.

use third_party_backend::{OneShot, Poll};

aio_backend::conformance!(one_shot, || OneShot::new().expect("there is a descriptor left"));
aio_backend::conformance!(poll, Poll::default);
