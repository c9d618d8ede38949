//! The invariants of a set outside of walks. Tests check them after each operation.

use crate::PollSet;
use crate::slots::{Flags, NONE, Slots};
use crate::walk::Walk;

impl PollSet {
    /// Checks all invariants.
    pub(crate) fn check(&self) {
        if self.is_calling() {
            return;
        }
        let walk = Walk::begin(&self.core).expect("no walk is under way");
        let slots = self.state().slots.borrow();
        let mut entries = 0;
        for (number, array) in (0..).zip(walk.arrays()) {
            for at in 0..array.len() {
                let slot = slots.get(array.slot(at));
                assert_eq!((slot.array, slot.at as usize), (number, at), "{slot:?}");
                assert!(!slot.flags().has_any(Flags::GONE | Flags::FREE), "{slot:?}");
                assert_eq!(slot.flags().is_promoted(), at < array.promoted(), "{slot:?}");
                entries += 1;
            }
        }
        assert_eq!(entries, slots.sources(), "an entry is missing, or was left");
        slots.check(self.is_on());
    }
}

impl Slots {
    fn check(&self, is_on: bool) {
        let all = || (0..).map_while(|slot| self.try_get(slot)).zip(0u32..);
        let in_use = || all().filter(|(slot, _)| !slot.flags().has_any(Flags::FREE));
        let count = |flags: Flags| all().filter(|(slot, _)| slot.flags().has_any(flags)).count();
        for (slot, number) in in_use() {
            let has = |flags| slot.flags().has_any(flags);
            assert_eq!(self.find(slot.token), Some(number));
            assert!(!has(Flags::ABSENT | Flags::GONE) && slot.at != NONE, "{slot:?}");
            assert!(
                !(has(Flags::BEGUN) && (has(Flags::DEMOTED | Flags::SUSPENDED) || !is_on)),
                "{slot:?}"
            );
            assert!(
                !(has(Flags::DEMOTED) && has(Flags::RECHECK | Flags::SUSPENDED)),
                "{slot:?}"
            );
            assert_eq!(has(Flags::EXCLUDED), slot.excluded > 0, "{slot:?}");
            let is_pending = is_on && slot.flags().is_promoted() && !has(Flags::BEGUN);
            assert!(!is_pending || has(Flags::IN_BEGINS), "{slot:?}");
            let is_due = has(Flags::RECHECK) && !has(Flags::SUSPENDED | Flags::EXCLUDED);
            assert!(!is_due || has(Flags::IN_RECHECKS), "{slot:?}");
        }
        let due = |flags: Flags| {
            flags.has_any(Flags::RECHECK) && !flags.has_any(Flags::SUSPENDED | Flags::EXCLUDED)
        };
        assert_eq!(in_use().count(), self.sources());
        assert_eq!(
            in_use().filter(|(slot, _)| slot.flags().is_promoted()).count(),
            self.promoted()
        );
        assert_eq!(
            in_use().filter(|(slot, _)| due(slot.flags())).count(),
            self.due.count()
        );
        assert_eq!(count(Flags::IN_BEGINS), self.begins());
        assert!(is_on || self.begins() == 0, "a begin is queued out of poll mode");
        assert_eq!(count(Flags::IN_RECHECKS), self.rechecks());
    }
}
