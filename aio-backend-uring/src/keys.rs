//! [`Key`]: the 64 bits of user data with which the kernel returns a request.
//!
//! | bits | poll request | cancellation | operation |
//! |---|---|---|---|
//! | 63, 62 | 0 | 1 | 2 |
//! | 61 to 32 | sequence of the request | 0 | generation of the slot |
//! | 31 to 0 | slot of the registration | 0 | slot of the operation |
//!
//! Each poll request has its own sequence, regardless of its registration. So a completion of a cancelled
//! request is recognised even if its registration was removed, its slot reused, or its interest changed. The
//! sequence returns to an earlier value after 2^30 requests. By then no completion of the earlier request is
//! left, because a cancellation is submitted no later than the next wait.
//!
//! Only [`operations`](crate::operations) submits requests with bit 63, and only for operations. The ring clears it in all others.

/// The kind of request that a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A poll request of the registration in this slot.
    Poll { slot: u32, sequence: u32 },
    /// The cancellation of a poll request.
    Cancellation,
    /// A request that is not of this crate.
    Other,
}

const KIND: u32 = 62;
const POLL: u64 = 0;
const CANCELLATION: u64 = 1;

impl Key {
    /// The largest sequence. 0 is no sequence: it stands for no request.
    pub(crate) const LAST_SEQUENCE: u32 = (1 << 30) - 1;

    /// Returns the user data.
    pub(crate) const fn to_bits(self) -> u64 {
        match self {
            Self::Poll { slot, sequence } => {
                POLL << KIND | ((sequence & Self::LAST_SEQUENCE) as u64) << 32 | slot as u64
            }
            Self::Cancellation => CANCELLATION << KIND,
            Self::Other => u64::MAX,
        }
    }

    /// Returns the key with these bits.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        match bits >> KIND {
            POLL => Self::Poll {
                slot: bits as u32,
                sequence: (bits >> 32) as u32 & Self::LAST_SEQUENCE,
            },
            CANCELLATION => Self::Cancellation,
            _ => Self::Other,
        }
    }

    /// Returns the slot and the sequence of a poll request. For other requests the sequence is beyond
    /// [`LAST_SEQUENCE`](Self::LAST_SEQUENCE).
    pub(crate) const fn parts(bits: u64) -> (u32, u32) {
        (bits as u32, (bits >> 32) as u32)
    }

    /// Returns the sequence after `sequence`.
    pub(crate) const fn next_sequence(sequence: u32) -> u32 {
        if sequence >= Self::LAST_SEQUENCE {
            1
        } else {
            sequence + 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_a_key_survives_the_way_through_the_kernel() {
        for slot in [0, 7, u32::MAX] {
            for sequence in [1, 99, Key::LAST_SEQUENCE] {
                let key = Key::Poll { slot, sequence };
                assert_eq!(Key::from_bits(key.to_bits()), key);
                assert_eq!(Key::parts(key.to_bits()), (slot, sequence));
            }
        }
        for other in [Key::Cancellation.to_bits(), Key::Other.to_bits(), 2 << KIND] {
            assert!(Key::parts(other).1 > Key::LAST_SEQUENCE);
        }
        assert_eq!(Key::from_bits(Key::Cancellation.to_bits()), Key::Cancellation);
        assert_eq!(Key::from_bits(Key::Other.to_bits()), Key::Other);
    }

    #[test]
    fn operations_have_a_range_of_their_own() {
        for operation in [2 << KIND, (2 << KIND) + 12_345, (3 << KIND) - 1] {
            assert_eq!(Key::from_bits(operation), Key::Other);
        }
    }

    #[test]
    fn r2_no_request_has_sequence_0() {
        assert_eq!(Key::next_sequence(0), 1);
        assert_eq!(Key::next_sequence(5), 6);
        assert_eq!(Key::next_sequence(Key::LAST_SEQUENCE), 1);
    }
}
