//! The conformance kit, for a ladder that is always up, one that climbs when it pays, and one that climbs when it has
//! waited for some time.

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;

aio_backend::conformance!(ladder_at_0, || Ladder::new(Ppoll::new(), Epoll::new, 0));
aio_backend::conformance!(ladder_at_64, || Ladder::new(Ppoll::new(), Epoll::new, 64));
aio_backend::conformance!(ladder_after_8, || Ladder::new(Ppoll::new(), Epoll::new, 64)
    .climbing_after(8));
