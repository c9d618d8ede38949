//! The reasons why the events of a set are uncertain.

/// Counts the reasons why an event may belong to no entry that is in the set and stays there: one-shot
/// entries, a removed entry that may be left over, and a set that may differ from the entries. Without any,
/// events are reported as they are.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    count: u32,
    to_verify: bool,
}

impl Doubts {
    #[inline]
    pub(crate) fn has_any(&self) -> bool {
        self.count != 0
    }

    /// Adds a reason if `is_one`.
    #[inline]
    pub(crate) fn add(&mut self, is_one: bool) {
        self.count += u32::from(is_one);
    }

    /// Removes a reason if `was_one`.
    #[inline]
    pub(crate) fn remove(&mut self, was_one: bool) {
        self.count -= u32::from(was_one);
    }

    /// Returns `true` if the set may differ from the entries, so that the next wait must rebuild it.
    #[inline]
    pub(crate) fn is_to_verify(&self) -> bool {
        self.to_verify
    }

    /// Records that the set may differ from the entries, if `may_differ`.
    #[inline]
    pub(crate) fn verify_if(&mut self, may_differ: bool) {
        if may_differ {
            self.set_to_verify(true);
        }
    }

    #[cold]
    pub(crate) fn set_to_verify(&mut self, to_verify: bool) {
        self.add(to_verify);
        self.remove(self.to_verify);
        self.to_verify = to_verify;
    }
}
