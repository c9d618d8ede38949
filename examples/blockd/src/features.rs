//! The offers to a driver: features, and the configuration space.

use vhost::vhost_user::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::disk::{Disk, SECTOR};
use crate::request::{MOST_RANGE_SECTORS, MOST_RANGES};

/// The most buffers in a request. With header and status they fit into a queue of 128.
pub(crate) const SEG_MAX: u32 = 126;

/// The driver and the device use event indexes.
pub(crate) const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
/// The driver may send flushes.
pub(crate) const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;
/// The driver may turn the write cache off and on.
pub(crate) const CONFIG_WCE: u64 = 1 << VIRTIO_BLK_F_CONFIG_WCE;
/// Pages that the device writes are marked for the client.
pub(crate) const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();
/// The position in the configuration space of the byte that tells whether the write cache is on.
pub(crate) const WCE_AT: u32 = 32;
/// The unit of writes to the medium in bytes: pages, and nearly all file systems and devices use it. Smaller
/// writes are slower.
const PHYSICAL_BLOCK: u64 = 4096;
/// Protocol features are negotiated, and queues are disabled at first.
pub(crate) const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// The size of the configuration space in bytes; bytes without a definition are zero.
const CONFIG_LEN: usize = 256;

/// Returns the features that are offered for a disk.
pub(crate) fn offered(disk: &Disk) -> u64 {
    let mut bits = 0;
    for bit in [
        VIRTIO_F_VERSION_1,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_MQ,
    ] {
        bits |= 1 << bit;
    }
    if disk.is_read_only() {
        bits |= 1 << VIRTIO_BLK_F_RO;
    } else {
        bits |= 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        bits |= 1 << VIRTIO_BLK_F_CONFIG_WCE;
    }
    if disk.can_discard() {
        bits |= 1 << VIRTIO_BLK_F_DISCARD;
    }
    bits | PROTOCOL | LOG_ALL
}

/// Returns the protocol features that are offered.
pub(crate) fn protocol() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::BACKEND_REQ
        | VhostUserProtocolFeatures::LOG_SHMFD
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
}

/// Returns the configuration space (`struct virtio_blk_config`) of a disk with this number of queues.
pub(crate) fn config_space(disk: &Disk, queues: u16, write_cache: bool) -> [u8; CONFIG_LEN] {
    let block = disk.block();
    let blocks_in_physical = PHYSICAL_BLOCK / block;
    let mut space = [0; CONFIG_LEN];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(disk.size() / SECTOR).to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &(block as u32).to_le_bytes());
    put(24, &[blocks_in_physical.ilog2() as u8, 0]); // the first block is aligned
    put(26, &(blocks_in_physical as u16).to_le_bytes()); // least transfer that is efficient
    put(WCE_AT as usize, &[u8::from(write_cache)]);
    put(34, &queues.to_le_bytes());
    if disk.can_discard() {
        put(36, &MOST_RANGE_SECTORS.to_le_bytes());
        put(40, &MOST_RANGES.to_le_bytes());
        put(44, &((block / SECTOR) as u32).to_le_bytes()); // discard alignment in sectors
    }
    if !disk.is_read_only() {
        put(48, &MOST_RANGE_SECTORS.to_le_bytes());
        put(52, &MOST_RANGES.to_le_bytes());
        put(56, &[u8::from(disk.can_discard())]); // write-zeroes may unmap
    }
    space
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Source;
    use std::mem::offset_of;
    use virtio_bindings::virtio_blk::virtio_blk_config as Config;

    #[test]
    fn the_numbers_are_where_the_specification_has_them() {
        let disk = Disk::open(&Source::Null(7 << 20), false).unwrap();
        let space = config_space(&disk, 0x1234, true);
        let long = |at: usize| u32::from_le_bytes(space[at..at + 4].try_into().unwrap());
        assert_eq!(u64::from(long(0)), (7 << 20) / 512);
        assert_eq!(long(offset_of!(Config, seg_max)), SEG_MAX);
        assert_eq!(long(offset_of!(Config, blk_size)), 512);
        let queues = offset_of!(Config, num_queues);
        assert_eq!(space[queues..queues + 2], [0x34, 0x12]);
        assert_eq!(long(offset_of!(Config, max_discard_sectors)), MOST_RANGE_SECTORS);
        assert_eq!(long(offset_of!(Config, max_discard_seg)), MOST_RANGES);
        assert_eq!(
            long(offset_of!(Config, max_write_zeroes_sectors)),
            MOST_RANGE_SECTORS
        );
        assert_eq!(long(offset_of!(Config, max_write_zeroes_seg)), MOST_RANGES);
        assert_eq!(space[offset_of!(Config, write_zeroes_may_unmap)], 1);
        assert_eq!(offset_of!(Config, wce), WCE_AT as usize);
        assert_eq!(space[WCE_AT as usize], 1);
        assert_eq!(config_space(&disk, 1, false)[WCE_AT as usize], 0);
        assert_eq!(space[offset_of!(Config, physical_block_exp)], 3);
        assert_eq!(space[offset_of!(Config, min_io_size)], 8);
    }

    #[test]
    fn a_read_only_disk_offers_the_flag() {
        let offers = |read_only| offered(&Disk::open(&Source::Null(512), read_only).unwrap());
        let changing = 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        assert_eq!(offers(true) & changing, 0);
        assert_eq!(offers(false) & changing, changing);
        assert_eq!(offers(true) & 1 << VIRTIO_BLK_F_RO, 1 << VIRTIO_BLK_F_RO);
        assert_eq!(offers(false) & 1 << VIRTIO_BLK_F_RO, 0);
    }
}
