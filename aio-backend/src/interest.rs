//! [`Interest`]: the events to wait for. [`Readiness`]: the events that the system reports.

use bitflags::bitflags;

bitflags! {
    /// The events that a registration waits for.
    ///
    /// With [`Interest::NONE`] a backend reports nothing, not even errors and hang-ups. This makes pausing safe on a level-triggered
    /// backend, which would otherwise report an unhandled hang-up again and again.
    ///
    /// # Examples
    /// ```
    /// use aio_backend::{Interest, Readiness};
    ///
    /// let interest = Interest::READ | Interest::ONESHOT;
    /// assert!(interest.contains(Interest::READ) && interest.reports_once());
    /// assert!(interest.mask().contains(Readiness::IN | Readiness::HUP));
    /// assert!(!interest.mask().intersects(Readiness::OUT));
    /// assert_eq!(Interest::NONE.mask() & Readiness::HUP, Readiness::empty());
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Interest: u8 {
        /// Data to read, the end of the data (a hang-up or a half close of the peer), an error.
        const READ = 1;
        /// Room to write, a hang-up of the peer, an error.
        const WRITE = 2;
        /// Edge-triggered, with another interest: a backend that [reports edges](crate::Backend::reports_edges) reports each new
        /// activity once. The handler must read or write until `WouldBlock`, or need no data, as with an eventfd that only wakes. It
        /// must tolerate spurious calls.
        const EDGE = 4;
        /// An exceptional condition, a hang-up of the peer, an error. Exceptional are urgent data of a TCP connection, a state change
        /// of a pseudo-terminal in packet mode, a trigger of `/proc/pressure`, and a change of
        /// `/proc/self/mounts`. The kernel reports each of the last two once, to the first poll: setting the
        /// interest again, or a move to another backend, can miss one.
        #[doc(alias = "POLLPRI")]
        const PRIORITY = 8;
        /// One-shot, with another interest: the backend reports the next event, and nothing after it until
        /// the interest is set again, even to the same value.
        #[doc(alias = "EPOLLONESHOT")]
        const ONESHOT = 16;
    }
}

bitflags! {
    /// The events that a descriptor is ready for. The bits are those of `poll(2)` and `epoll(7)` on Linux.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Readiness: u16 {
        /// There is data to read, or the end of the stream.
        const IN = 1;
        /// There is an exceptional condition, such as urgent data.
        const PRI = 2;
        /// There is room to write.
        const OUT = 4;
        /// The descriptor has an error.
        const ERR = 8;
        /// The peer has hung up.
        const HUP = 16;
        /// The descriptor number is not open: a raw `close` has closed it.
        const NVAL = 32;
        /// The peer of a stream socket writes nothing more: it has shut down its writing half, or hung up.
        /// There may still be data to read, and room to write.
        const RDHUP = 0x2000;
    }
}

impl Interest {
    /// No events at all.
    pub const NONE: Self = Self::empty();

    /// Reading and writing.
    pub const BOTH: Self = Self::READ.union(Self::WRITE);

    /// The events that a registration can wait for, without the modes `EDGE` and `ONESHOT`.
    const EVENTS: Self = Self::BOTH.union(Self::PRIORITY);

    /// Returns the interest in its canonical form: without `READ`, `WRITE` or `PRIORITY`, the modes `EDGE`
    /// and `ONESHOT` have no effect and are removed.
    #[must_use]
    pub const fn canonical(self) -> Self {
        if self.intersects(Self::EVENTS) {
            self
        } else {
            Self::NONE
        }
    }

    /// Returns whether a backend may report an event with this interest only once: with `EDGE` or `ONESHOT`.
    ///
    /// Setting such an interest again arms it again, also if it is the same one.
    #[inline]
    #[must_use]
    pub const fn reports_once(self) -> bool {
        self.intersects(Self::EDGE.union(Self::ONESHOT))
    }

    /// Returns the readiness that concerns a handler with this interest (rules R4, R13, D3).
    ///
    /// A hang-up and an error concern every handler with an interest in events, a half close one with an interest in reading.
    /// [`Readiness::NVAL`] concerns every handler, because its registration ends.
    #[inline]
    #[must_use]
    pub const fn mask(self) -> Readiness {
        /// The masks by the bits of an interest without `ONESHOT`.
        const MASKS: [Readiness; 16] = {
            let mut masks = [Readiness::NVAL; 16];
            let mut bits = 0;
            while bits < masks.len() {
                masks[bits] = Interest::from_bits_retain(bits as u8).reckon_mask();
                bits += 1;
            }
            masks
        };
        MASKS[(self.bits() & 15) as usize]
    }

    const fn reckon_mask(self) -> Readiness {
        let mut mask = Readiness::NVAL;
        if self.contains(Self::READ) {
            mask = mask.union(Readiness::IN).union(Readiness::RDHUP);
        }
        if self.contains(Self::WRITE) {
            mask = mask.union(Readiness::OUT);
        }
        if self.contains(Self::PRIORITY) {
            mask = mask.union(Readiness::PRI);
        }
        if self.intersects(Self::EVENTS) {
            mask = mask.union(Readiness::HUP).union(Readiness::ERR);
        }
        mask
    }
}

impl Readiness {
    /// Converts the bits of `revents` of `poll(2)`, or of `events` of `epoll_wait(2)`. Other bits are
    /// dropped.
    ///
    /// ```
    /// use aio_backend::Readiness;
    ///
    /// let (pollin, pollrdhup, pollrdnorm) = (0x1, 0x2000, 0x40);
    /// let readiness = Readiness::from_system(pollin | pollrdhup | pollrdnorm);
    /// assert_eq!(readiness, Readiness::IN | Readiness::RDHUP);
    /// ```
    #[inline]
    #[must_use]
    pub const fn from_system(bits: u32) -> Self {
        Self::from_bits_truncate(bits as u16)
    }

    /// Returns the bits for `poll(2)` and `epoll(7)`.
    ///
    /// ```
    /// # use aio_backend::Readiness;
    /// assert_eq!((Readiness::OUT | Readiness::RDHUP).to_system(), 0x2004);
    /// ```
    #[inline]
    #[must_use]
    pub const fn to_system(self) -> u32 {
        self.bits() as u32
    }

    /// Returns whether to call `readable`: with an interest in reading, for IN, RDHUP, HUP or ERR.
    #[inline]
    #[must_use]
    pub const fn wakes_reader(self, interest: Interest) -> bool {
        let ends = Self::RDHUP.union(Self::HUP).union(Self::ERR);
        interest.contains(Interest::READ) && self.intersects(Self::IN.union(ends))
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

    /// Returns whether to call `priority`: with an interest in priority, for PRI, and for HUP or ERR without another interest.
    #[inline]
    #[must_use]
    pub const fn wakes_priority(self, interest: Interest) -> bool {
        interest.contains(Interest::PRIORITY)
            && (self.contains(Self::PRI)
                || (self.intersects(Self::HUP.union(Self::ERR)) && !interest.intersects(Interest::BOTH)))
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
        assert_eq!(Interest::BOTH.mask(), Readiness::all() - Readiness::PRI);
        assert_eq!(Interest::all().mask(), Readiness::all());
    }

    #[test]
    fn r13_a_half_close_concerns_readers_and_priority_those_that_wait_for_it() {
        assert!(Interest::READ.mask().contains(Readiness::RDHUP));
        assert!(!Interest::WRITE.mask().contains(Readiness::RDHUP));
        assert!(!Interest::BOTH.mask().contains(Readiness::PRI));
        let all = Readiness::PRI | Readiness::HUP | Readiness::ERR | Readiness::NVAL;
        assert_eq!(Interest::PRIORITY.mask(), all);
        assert!(Readiness::RDHUP.wakes_reader(Interest::READ));
        assert!(!Readiness::RDHUP.wakes_writer(Interest::BOTH));
    }

    #[test]
    fn r13_priority_wakes_its_callback_and_a_hang_up_only_without_others() {
        let (priority, both) = (Interest::PRIORITY, Interest::PRIORITY | Interest::READ);
        assert!(Readiness::PRI.wakes_priority(priority) && Readiness::PRI.wakes_priority(both));
        assert!(Readiness::HUP.wakes_priority(priority) && !Readiness::HUP.wakes_priority(both));
        assert!(Readiness::ERR.wakes_priority(priority) && !Readiness::ERR.wakes_priority(both));
        assert!(!Readiness::PRI.wakes_reader(both) && !Readiness::PRI.wakes_priority(Interest::BOTH));
    }

    /// Every readiness within an interest calls a function of the handler; otherwise the loop would spin.
    #[test]
    fn r4_no_readiness_within_the_interest_is_left_uncalled() {
        for bits in 0..=Interest::all().bits() {
            let interest = Interest::from_bits_retain(bits);
            for one in (interest.mask() - Readiness::NVAL).iter() {
                let calls = one.wakes_reader(interest) || one.wakes_writer(interest);
                assert!(calls || one.wakes_priority(interest), "{one:?} with {interest:?}");
            }
        }
    }

    #[test]
    fn r13_the_bits_of_the_system_are_converted_both_ways() {
        for bits in 0..=Readiness::all().bits() {
            let readiness = Readiness::from_bits_truncate(bits);
            assert_eq!(Readiness::from_system(readiness.to_system()), readiness);
        }
        assert_eq!(Readiness::from_system(0xffff_dfc0), Readiness::empty());
        assert_eq!(Readiness::from_system(u32::MAX), Readiness::all());
    }

    #[test]
    fn modes_change_only_the_frequency() {
        let once = Interest::ONESHOT | Interest::EDGE;
        assert_eq!((Interest::WRITE | once).mask(), Interest::WRITE.mask());
        assert_eq!(once.canonical(), Interest::NONE);
        assert!(Interest::EDGE.reports_once() && Interest::ONESHOT.reports_once());
        assert!(!(Interest::BOTH | Interest::PRIORITY).reports_once());
        assert_eq!((Interest::READ | Interest::EDGE).mask(), Interest::READ.mask());
        assert_eq!(Interest::EDGE.canonical(), Interest::NONE);
        assert_eq!(Interest::EDGE.mask(), Interest::NONE.mask());
        for interest in [
            Interest::NONE,
            Interest::BOTH,
            Interest::PRIORITY,
            Interest::all(),
        ] {
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
