//! [`Mask`]: the reason why the backend is silent about a registration.

/// Whether the backend is silent about a registration, and the operation that ends that.
///
/// | state | interest in the backend | next state |
/// |---|---|---|
/// | `None` | as registered | an event while paused: `Listed`; an event while excluded and not paused: `Excluded` |
/// | `Excluded` | none | the last `readmit`: `None`, or `Listed` if the group is paused by then |
/// | `Listed` | none | the last `resume`: `None`, or `Excluded` if the handler is excluded |
/// | `Asleep` | none | a `set_interest` or a `replace`: `None` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    None,
    /// The last `readmit` ends the mask.
    Excluded,
    /// The last `resume` ends the mask. The number is the position in the list of the paused group.
    Listed(u32),
    /// The event of a one-shot interest was delivered. Setting an interest, or replacing the value, ends the
    /// mask.
    Asleep,
}

/// [`Mask`] in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedMask(u32);

impl PackedMask {
    pub(crate) const NONE: Self = Self(u32::MAX);
    const EXCLUDED: Self = Self(u32::MAX - 1);
    const ASLEEP: Self = Self(u32::MAX - 2);

    #[inline]
    pub(crate) fn get(self) -> Mask {
        match self {
            Self::NONE => Mask::None,
            Self::EXCLUDED => Mask::Excluded,
            Self::ASLEEP => Mask::Asleep,
            Self(position) => Mask::Listed(position),
        }
    }
}

impl From<Mask> for PackedMask {
    fn from(mask: Mask) -> Self {
        match mask {
            Mask::None => Self::NONE,
            Mask::Excluded => Self::EXCLUDED,
            Mask::Asleep => Self::ASLEEP,
            // A group has fewer members than there are slots, and memory is exhausted long before 2^32 - 3 of
            // them.
            Mask::Listed(position) => Self(position),
        }
    }
}
