//! The memory that all disks in memory can take together.

use super::Exports;
use crate::advice;
use crate::disk::Source;

impl Exports {
    /// Returns a warning if the disk of this export is in memory, and all such disks together can exceed the
    /// available memory.
    pub(crate) fn memory_warning(&self, name: &str) -> Option<String> {
        let entries = self.entries.borrow();
        let in_memory = || {
            entries
                .iter()
                .filter(|entry| matches!(entry.export.source, Source::Ram(_)))
        };
        in_memory().find(|entry| entry.export.log_name() == name)?;
        advice::too_much_memory(in_memory().map(|entry| entry.device.disk.size()))
    }
}
