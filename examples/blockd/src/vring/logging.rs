//! Marks the pages that a queue has written, while the client wants that. Usually it does not, so the marking
//! is out of line.

use super::Vring;
use crate::descriptor_chain::DescriptorChain;
use crate::dirty_log::DirtyLog;

impl Vring {
    /// Writes an entry of the used ring for a request that has ended.
    #[inline(always)]
    pub(super) fn use_entry(&self, position: u16, head: u16, written: u32) {
        if let Some(log) = &self.config.log {
            self.mark_buffers(log, head);
        }
        self.ring.set_used_entry(position, head, written);
    }

    /// Makes the entries of the used ring before `index` visible.
    #[inline(always)]
    pub(super) fn publish(&self, index: u16) {
        self.ring.publish(index);
        if let Some(log) = &self.config.log {
            self.mark_used_ring(log);
        }
    }

    #[cold]
    fn mark_used_ring(&self, log: &DirtyLog) {
        if let Some(used) = self.config.used_log {
            log.mark(used, self.ring.used_len());
        }
    }

    /// Marks all buffers that the device may write. A driver that has changed them since then harms only its
    /// own copy.
    #[cold]
    fn mark_buffers(&self, log: &DirtyLog, head: u16) {
        let mut chain = DescriptorChain::default();
        if chain.collect(&self.ring, &self.config.memory, head).is_ok() {
            for buffer in &chain.writable {
                log.mark(buffer.guest, buffer.len.into());
            }
        }
    }
}
