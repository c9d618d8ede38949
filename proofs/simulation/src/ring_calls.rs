//! The calls of a ring's backend that concern no ring.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use aio_backend_uring::Config;
use aio_backend_uring::sys::Sys;
use aio_context::{Interest, Readiness};
use rustix::io::Errno;

use crate::calls::{Calls, PPOLL};
use crate::kernel::reported;
use crate::ring::SimulatedRing;
use crate::target::Target;

impl Sys for Calls {
    type Ring = SimulatedRing;

    fn setup(&self, _: &Config) -> io::Result<SimulatedRing> {
        Ok(SimulatedRing::new(self.0.clone()))
    }

    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.enter("fcntl");
        self.0.meet(fd);
        match self.0.kernel.borrow().target(fd) {
            Some(_) => Ok(()),
            None => Err(Errno::BADF.into()),
        }
    }

    fn poll(&self, fds: &[(BorrowedFd<'_>, Interest)], answers: &mut [Readiness]) -> io::Result<()> {
        let world = &self.0;
        world.enter("poll");
        world.refuse("poll", PPOLL, world.rates.get().failed_waits)?;
        let rings = world.rings();
        let kernel = world.kernel.borrow();
        for ((fd, interest), answer) in fds.iter().zip(answers) {
            *answer = match kernel.target(*fd) {
                None => Readiness::NVAL,
                Some(Target::Doorbell(_)) if rings => Readiness::IN,
                Some(Target::Doorbell(_)) => Readiness::empty(),
                Some(Target::File(file)) => kernel.files[file].readiness() & reported(*interest),
            };
        }
        Ok(())
    }

    fn is_socket(&self, fd: BorrowedFd<'_>) -> bool {
        fd.as_raw_fd() % 2 == 0
    }

    fn now(&self) -> Instant {
        self.0.instant()
    }
}
