//! C12: a disk of any size is discarded in few requests.

use virtio_driver::VirtioBlkFeatureFlags;

use super::Image;
use crate::client::Client;
use crate::daemon::Daemon;
use crate::raw::{DATA, Raw};

const TIB: u64 = 1 << 40;
const GIB: u64 = 1 << 30;
/// The positions in `struct virtio_blk_config` of the most sectors of a range, followed by the most ranges of
/// a request: to discard and to zero.
const LIMITS: [usize; 2] = [36, 48];

#[test]
fn c12_a_terabyte_is_discarded_in_one_request() {
    let image = Image::new(TIB);
    let daemon = Daemon::start(&image.disk(), &[]);
    let mut client = Client::simple(daemon.socket());
    assert_eq!(client.capacity(), TIB);
    assert!(client.features().contains(VirtioBlkFeatureFlags::DISCARD));
    let data = vec![9; 1 << 20];
    let places = [0, 100 * GIB, TIB - data.len() as u64];
    for kind in [11, 13] {
        for at in places {
            client.write(0, at, &data).unwrap();
        }
        client.flush(0).unwrap();
        assert!(image.allocated() >= 3 << 20);
        drop(client);

        let mut raw = Raw::ready(daemon.socket());
        let config = raw.config();
        let number = |at: usize| u64::from(u32::from_le_bytes(config[at..at + 4].try_into().unwrap()));
        for at in LIMITS {
            let (sectors, ranges) = (number(at), number(at + 4));
            assert!(
                sectors * 512 * ranges >= TIB,
                "{ranges} ranges of {sectors} sectors"
            );
        }
        let flags = u32::from(kind == 13);
        let ranges = (0..256).flat_map(|index| {
            let sectors = 4 * GIB / 512;
            let start = (index * sectors).to_le_bytes();
            [start, (sectors | (u64::from(flags) << 32)).to_le_bytes()].concat()
        });
        raw.put(DATA, &ranges.collect::<Vec<u8>>());
        assert_eq!(raw.request(kind, 0, &[(DATA, 4096)], 0), 0);
        drop(raw);

        client = Client::simple(daemon.socket());
        client.flush(0).unwrap();
        let left = image.allocated();
        assert!(left < 1 << 20, "{left} bytes are left after request {kind}");
        for at in places {
            assert_eq!(client.read(0, at, 4096).unwrap(), [0; 4096]);
        }
    }
}
