//! [`Interest`]: the events to wait for. [`Readiness`]: the events that the system reports.

use bitflags::bitflags;

bitflags! {
    /// The events that a registration waits for.
    ///
    /// With [`Interest::NONE`] a backend reports nothing, not even errors and hang-ups. This makes pausing safe on a level-triggered
    /// backend, which would otherwise report an unhandled hang-up again and again.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Interest: u8 {
        /// Data to read, a hang-up of the peer, an error.
        const READ = 1;
        /// Room to write, a hang-up of the peer, an error.
        const WRITE = 2;
        /// Edge-triggered, with `READ` or `WRITE`: a backend that [reports edges](crate::Backend::reports_edges) reports each new
        /// activity once. The handler must read or write until `WouldBlock`, or need no data, as with an eventfd that only wakes. It
        /// must tolerate spurious calls.
        const EDGE = 4;
    }
}

bitflags! {
    /// The events that a descriptor is ready for. The bits are those of `poll(2)` and `epoll(7)` on Linux.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Readiness: u8 {
        /// There is data to read, or the end of the stream.
        const IN = 1;
        /// There is room to write.
        const OUT = 4;
        /// The peer has hung up.
        const HUP = 16;
        /// The descriptor has an error.
        const ERR = 8;
        /// The descriptor number is not open: a raw `close` has closed it.
        const NVAL = 32;
    }
}

impl Interest {
    /// No events at all.
    pub const NONE: Self = Self::empty();

    /// Reading and writing.
    pub const BOTH: Self = Self::READ.union(Self::WRITE);

    /// Returns the same interest in its canonical form: without `READ` and `WRITE`, `EDGE` has no effect and is removed.
    #[must_use]
    pub const fn canonical(self) -> Self {
        if self.intersects(Self::BOTH) {
            self
        } else {
            Self::NONE
        }
    }

    /// Returns the readiness that concerns a handler with this interest (rules R4, D3).
    ///
    /// A hang-up and an error concern every handler with an interest in reading or writing. [`Readiness::NVAL`] concerns every
    /// handler, because its registration ends.
    #[inline]
    #[must_use]
    pub const fn mask(self) -> Readiness {
        const MASKS: [Readiness; 4] = [
            Interest::NONE.reckon_mask(),
            Interest::READ.reckon_mask(),
            Interest::WRITE.reckon_mask(),
            Interest::BOTH.reckon_mask(),
        ];
        MASKS[(self.bits() & Self::BOTH.bits()) as usize]
    }

    const fn reckon_mask(self) -> Readiness {
        let mut mask = Readiness::NVAL;
        if self.contains(Self::READ) {
            mask = mask
                .union(Readiness::IN)
                .union(Readiness::HUP)
                .union(Readiness::ERR);
        }
        if self.contains(Self::WRITE) {
            mask = mask
                .union(Readiness::OUT)
                .union(Readiness::HUP)
                .union(Readiness::ERR);
        }
        mask
    }
}

impl Readiness {
    /// Returns whether to call `readable`: with an interest in reading, for IN, HUP or ERR.
    #[inline]
    #[must_use]
    pub const fn wakes_reader(self, interest: Interest) -> bool {
        interest.contains(Interest::READ) && self.intersects(Self::IN.union(Self::HUP).union(Self::ERR))
    }

    /// Returns whether to call `writable`: with an interest in writing, for OUT or ERR, and for HUP without an interest in reading.
    /// An unhandled HUP would make the loop spin.
    #[inline]
    #[must_use]
    pub const fn wakes_writer(self, interest: Interest) -> bool {
        interest.contains(Interest::WRITE)
            && (self.intersects(Self::OUT.union(Self::ERR))
                || (self.contains(Self::HUP) && !interest.contains(Interest::READ)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_masks() {
        assert_eq!(Interest::NONE.mask(), Readiness::NVAL);
        assert!(!Interest::READ.mask().contains(Readiness::OUT));
        assert!(!Interest::WRITE.mask().contains(Readiness::IN));
        assert_eq!(Interest::BOTH.mask(), Readiness::all());
    }

    #[test]
    fn edges_change_only_the_frequency() {
        assert_eq!((Interest::READ | Interest::EDGE).mask(), Interest::READ.mask());
        assert_eq!(Interest::EDGE.canonical(), Interest::NONE);
        assert_eq!(Interest::EDGE.mask(), Interest::NONE.mask());
        for interest in [Interest::NONE, Interest::BOTH, Interest::all()] {
            assert_eq!(interest.canonical(), interest);
        }
    }

    #[test]
    fn r4_hang_ups_wake_the_reader_or_the_writer() {
        let (r, w, rw) = (Interest::READ, Interest::WRITE, Interest::BOTH);
        assert!(Readiness::HUP.wakes_reader(r) && Readiness::HUP.wakes_reader(rw));
        assert!(Readiness::HUP.wakes_writer(w) && !Readiness::HUP.wakes_writer(rw));
        assert!(Readiness::ERR.wakes_reader(rw) && Readiness::ERR.wakes_writer(rw));
    }

    #[test]
    fn d3_a_side_without_interest_is_never_woken() {
        for ready in [
            Readiness::IN,
            Readiness::OUT,
            Readiness::HUP,
            Readiness::ERR,
            Readiness::all(),
        ] {
            assert!(!ready.wakes_reader(Interest::WRITE) && !ready.wakes_writer(Interest::READ));
            assert!(!ready.wakes_reader(Interest::NONE) && !ready.wakes_writer(Interest::NONE));
        }
    }
}
