//! Whether the backend keeps its promises: a test for each.

use third_party_backend::OneShot;

aio_backend::conformance!(one_shot, || OneShot::new().expect("there is a descriptor left"));
