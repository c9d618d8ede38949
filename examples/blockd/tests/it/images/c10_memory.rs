//! C10: a disk in memory uses memory for written data, and releases it for discarded data.

use crate::client::Client;
use crate::daemon::Daemon;

const MIB: u64 = 1 << 20;
const WRITTEN: u64 = 128 * MIB;
/// The tolerance for the daemon's own memory, a small part of the written data.
const SLACK_KIB: usize = 16 * 1024;

#[test]
fn c10_memory_is_given_back() {
    let daemon = Daemon::start("ram=4G", &[]);
    let mut client = Client::simple(daemon.socket());
    let size = client.capacity();
    assert_eq!(size, 4096 * MIB);
    client.write(0, 0, &[7; 512]).unwrap();
    let before = daemon.holds().rss_kib;
    let is_flat = |what: &str| {
        let now = daemon.holds().rss_kib;
        assert!(now < before + SLACK_KIB, "{what}: {before} KiB have become {now}");
    };
    // mkfs does the same.
    client.discard(0, 0, size).unwrap();
    is_flat("discard of a disk that nothing was written to");
    client.write_zeroes(0, 0, size, true).unwrap();
    is_flat("zeroes that may be given back");
    for at in (0..WRITTEN).step_by(64 * MIB as usize) {
        client.read(0, at, 512).unwrap();
    }
    is_flat("reading");
    let data = vec![7; MIB as usize];
    type Clear = fn(&mut Client) -> Result<(), i32>;
    let ways: [(&str, Clear); 2] = [
        ("discard", |client| client.discard(0, 0, WRITTEN)),
        ("write-zeroes", |client| {
            client.write_zeroes(0, 512, WRITTEN - 1024, true)
        }),
    ];
    for (what, clear) in ways {
        for at in (0..WRITTEN).step_by(data.len()) {
            client.write(0, at, &data).unwrap();
        }
        let full = daemon.holds().rss_kib;
        assert!(
            full > before + (WRITTEN / 1024) as usize - SLACK_KIB,
            "{what}: only {full} KiB"
        );
        clear(&mut client).unwrap();
        is_flat(what);
    }
    // The first and last sectors were not cleared, and all others were.
    assert_eq!(client.read(0, 0, 1024).unwrap(), [[7; 512], [0; 512]].concat());
    assert_eq!(
        client.read(0, WRITTEN - 1024, 1024).unwrap(),
        [[0; 512], [7; 512]].concat()
    );
    for at in (MIB..WRITTEN - MIB).step_by(MIB as usize) {
        assert_eq!(client.read(0, at, 4096).unwrap(), [0; 4096]);
    }
}
