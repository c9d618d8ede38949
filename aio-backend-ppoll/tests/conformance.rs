//! The conformance kit.

use aio_backend_ppoll::Ppoll;

aio_backend::conformance!(ppoll, Ppoll::new);
