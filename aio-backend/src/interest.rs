//! What a handler asks for ([`Interest`]) and what the system reports ([`Readiness`]).

use bitflags::bitflags;

bitflags! {
    /// What a registration waits for.
    ///
    /// [`Interest::NONE`] is silence: not even an error or a hang-up is reported. That makes pausing safe on a
    /// level-triggered backend, where a hang-up that nobody handles would otherwise be reported for ever.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Interest: u8 {
        /// Data to read, a peer that hung up, an error.
        const READ = 1;
        /// Room to write, a peer that hung up, an error.
        const WRITE = 2;
        /// With `READ` or `WRITE`: each new activity needs to be reported only once, where the backend
        /// [can do that](crate::Backend::reports_edges). Who asks for it consumes everything at each call, or has nothing to
        /// consume, like a doorbell; and bears to be called more often.
        const EDGE = 4;
    }
}

bitflags! {
    /// What a descriptor is ready for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Readiness: u8 {
        /// There is something to read, or the end of the stream.
        const IN = 1;
        /// Something can be written.
        const OUT = 2;
        /// The other side is gone.
        const HUP = 4;
        /// The descriptor has an error.
        const ERR = 8;
        /// The descriptor number is not open: its owner closed it behind the loop's back.
        const NVAL = 16;
    }
}

impl Interest {
    /// Waits for nothing and hears nothing.
    pub const NONE: Self = Self::empty();

    /// To read and to write.
    pub const BOTH: Self = Self::READ.union(Self::WRITE);

    /// The same interest, spelled the one way: without `READ` and `WRITE` there is nothing that could be an edge.
    #[must_use]
    pub const fn canonical(self) -> Self {
        if self.intersects(Self::BOTH) {
            self
        } else {
            Self::NONE
        }
    }

    /// The readiness that concerns a handler with this interest (rules R4, D3).
    ///
    /// A hang-up and an error concern whoever is there to hear them; [`Readiness::NVAL`] concerns everybody,
    /// because the registration itself has come to its end.
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
    /// Whether the readable side is to be called, given `interest`: IN, HUP or ERR with an interest in reading.
    #[inline]
    #[must_use]
    pub const fn wakes_reader(self, interest: Interest) -> bool {
        interest.contains(Interest::READ) && self.intersects(Self::IN.union(Self::HUP).union(Self::ERR))
    }

    /// Whether the writable side is to be called, given `interest`: OUT or ERR with an interest in writing; a HUP
    /// too if nobody reads, because otherwise nobody would hear of it and the loop would spin.
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
    fn edges_change_nothing_but_how_often() {
        assert_eq!((Interest::READ | Interest::EDGE).mask(), Interest::READ.mask());
        assert_eq!(Interest::EDGE.canonical(), Interest::NONE);
        assert_eq!(Interest::EDGE.mask(), Interest::NONE.mask());
        for interest in [Interest::NONE, Interest::BOTH, Interest::all()] {
            assert_eq!(interest.canonical(), interest);
        }
    }

    #[test]
    fn r4_who_hears_a_hang_up() {
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
