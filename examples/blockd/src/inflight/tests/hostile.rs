//! Areas and regions with contents that a client may have written.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::super::region::{ENTRY_LEN, HEADER_LEN};
use super::super::{InflightArea, InflightError, Layout, Start};
use super::{Daemon, SIZE, Scene, live};
use crate::memory::tests::file;
use crate::ring::{Ring, RingError};

/// The position of the region of the second queue.
const REGION: u64 = 192;

pub(super) fn contents(area: &File) -> Vec<u8> {
    let mut bytes = vec![0; area.metadata().unwrap().len() as usize];
    area.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn c6_an_area_has_a_region_for_each_queue() {
    let layout = |queues, size| Layout::of(queues, size, 256);
    for (queues, size, bytes) in [
        (1, 1, 64),
        (1, 8, 192),
        (3, 64, 3 * 1088),
        (256, 1024, 256 * 16448),
    ] {
        let layout = layout(queues, size).unwrap();
        assert_eq!(layout.bytes(), bytes);
        let area = layout.make().unwrap();
        assert_eq!(area.metadata().unwrap().len(), bytes);
        assert!(area.set_len(0).is_err() && area.set_len(1 << 30).is_err());
        InflightArea::map(layout, area, 0, bytes).unwrap();
    }
    assert!(matches!(
        layout(0, 8),
        Err(InflightError::Queues { wanted: 0, has: 256 })
    ));
    assert!(matches!(layout(257, 8), Err(InflightError::Queues { .. })));
    for size in [0, 3, 0x8001] {
        assert!(matches!(
            layout(1, size),
            Err(InflightError::Size(RingError::Size(_)))
        ));
    }
    assert!(matches!(
        layout(256, 0x8000),
        Err(InflightError::TooLong {
            queues: 256,
            size: 0x8000
        })
    ));
}

#[test]
fn c6_an_area_that_is_none_is_refused() {
    let layout = Layout::of(2, SIZE, 2).unwrap();
    let map = |file, offset, len| InflightArea::map(layout, file, offset, len).map(drop);
    assert!(map(file(0x1000), 0, 0x1000).is_ok(), "longer than needed");
    assert!(map(file(0x2000), 0x1000, 2 * REGION).is_ok());
    assert!(matches!(
        map(file(0x1000), 0, 2 * REGION - 1),
        Err(InflightError::TooShort { .. })
    ));
    for (len, offset) in [
        (2 * REGION - 1, 0),
        (0x1000, 0x1000),
        (0x1000, u64::MAX),
        (0x1000, 64),
    ] {
        let wrong = map(file(len), offset, 2 * REGION);
        assert!(
            matches!(wrong, Err(InflightError::Map(_))),
            "{len} {offset}: {wrong:?}"
        );
    }
    for (at, value) in [(8, 2), (10, 7), (0, 1)] {
        let area = file(0x1000);
        area.write_all_at(&1_u16.to_ne_bytes(), REGION + 8).unwrap();
        area.write_all_at(&[value], REGION + at).unwrap();
        assert!(matches!(map(area, 0, 0x1000), Err(InflightError::Header { .. })));
    }
}

/// Returns the scene of a used region with three requests in flight, and one that is not.
fn scene() -> Scene {
    let mut scene = Scene::at(5);
    let mut random = fastrand::Rng::with_seed(3);
    (0..4).for_each(|_| scene.offer(&mut random));
    let mut daemon = Daemon::start(&scene, 5);
    for _ in 0..3 {
        let head = daemon.take().unwrap();
        daemon.tracking.mark(head, daemon.next_used);
    }
    scene
}

#[test]
fn c6_a_region_that_contradicts_itself_or_the_rings_is_refused_and_stays() {
    type Change = fn(&Scene, &mut Vec<u8>);
    type Expected = fn(&InflightError) -> bool;
    let entry = |head: u16| REGION as usize + HEADER_LEN + usize::from(head) * ENTRY_LEN;
    let used_index = REGION as usize + 14;
    let last_head = REGION as usize + 12;
    assert_eq!((entry(0), used_index, last_head), (208, 206, 204));
    let cases: [(&str, Change, Expected); 7] = [
        (
            "a mark that is none",
            |scene, bytes| bytes[208 + usize::from(scene.outstanding[1]) * 16] = 2,
            |error| matches!(error, InflightError::Entry { value: 2, .. }),
        ),
        (
            "more completions than entries",
            |_, bytes| bytes[206..208].copy_from_slice(&5_u16.wrapping_sub(9).to_ne_bytes()),
            |error| matches!(error, InflightError::Batch { count: 9, .. }),
        ),
        (
            "a used index ahead of that of the ring",
            |_, bytes| bytes[206..208].copy_from_slice(&6_u16.to_ne_bytes()),
            |error| matches!(error, InflightError::Batch { count: 0xffff, .. }),
        ),
        (
            "a list that begins beyond the queue",
            |_, bytes| {
                bytes[206] = 4;
                bytes[204..206].copy_from_slice(&SIZE.to_ne_bytes());
            },
            |error| matches!(error, InflightError::List { count: 1 }),
        ),
        (
            "a list that goes on beyond the queue",
            |_, bytes| {
                bytes[206] = 3;
                bytes[204] = 2;
                bytes[208 + 2 * 16 + 6..][..2].copy_from_slice(&[0xff; 2]);
            },
            |error| matches!(error, InflightError::List { count: 2 }),
        ),
        (
            "a list that ends in itself",
            |_, bytes| {
                bytes[206] = 3;
                bytes[204] = 2;
                bytes[208 + 2 * 16 + 6] = 2;
            },
            |error| matches!(error, InflightError::List { count: 2 }),
        ),
        (
            "more marks than requests",
            |_, bytes| (0..8).for_each(|head| bytes[208 + head * 16] = 1),
            |error| {
                matches!(
                    error,
                    InflightError::TooMany {
                        marked: 8,
                        outstanding: 4
                    }
                )
            },
        ),
    ];
    for (what, change, is_expected) in cases {
        let scene = scene();
        let mut bytes = contents(&scene.area);
        change(&scene, &mut bytes);
        scene.area.write_all_at(&bytes, 0).unwrap();
        let error = Start::of(&scene.ring(), 5, 1, Some(&scene.map())).unwrap_err();
        assert!(is_expected(&error), "{what}: {error:?}");
        assert_eq!(contents(&scene.area), bytes, "{what}");
    }
    let scene = scene();
    let untouched = Start::of(&scene.ring(), 5, 1, Some(&scene.map())).unwrap();
    assert_eq!(untouched.next_available, 8);
}

/// A region of version 0 was never used, so its contents do not count, even if a daemon is killed while it
/// initializes the region.
#[test]
fn c6_a_region_that_was_never_used_has_nothing_in_flight() {
    for until_kill in 1..=SIZE.into() {
        let scene = scene();
        scene.area.write_all_at(&[0, 0], REGION + 8).unwrap();
        for head in 0..SIZE {
            let at = REGION + (HEADER_LEN + usize::from(head) * ENTRY_LEN) as u64;
            scene.area.write_all_at(&[7], at).unwrap();
        }
        assert!(live(Some(until_kill), || drop(Daemon::start(&scene, 5))));
        let daemon = Daemon::start(&scene, 5);
        assert_eq!(daemon.next_available, 5);
        assert_eq!(daemon.to_complete(), scene.outstanding);
        assert_eq!(daemon.tracking.count_left(), 0);
    }
}

/// QEMU 7.2 sets the base 0 for queues that it had not started when the daemon was killed. Requests before the used index are complete.
#[test]
fn c6_a_region_that_was_used_tells_the_position_whatever_the_base_is() {
    for used in [0_u16, 5, SIZE, 0xfffe] {
        for offered in 0..=SIZE {
            for base in (0..=SIZE).map(|behind| used.wrapping_sub(behind)) {
                let mut scene = Scene::at(used);
                drop(Daemon::start(&scene, used));
                let mut random = fastrand::Rng::with_seed(9);
                (0..offered).for_each(|_| scene.offer(&mut random));
                let next = Daemon::start(&scene, base);
                assert_eq!(next.next_available, used, "{offered} offered, base {base}");
                assert_eq!(next.to_complete(), scene.outstanding);
            }
        }
    }
    // Nor does the base count if no region was used before.
    let scene = Scene::at(5);
    assert_eq!(Daemon::start(&scene, 3).next_available, 5);
}

/// A queue beyond the area is served without tracking. A queue that is longer than its region is not served.
#[test]
fn c6_an_area_for_other_queues_tracks_none_of_this_one() {
    let scene = scene();
    let area = scene.map();
    let beyond = Start::of(&scene.ring(), 5, 2, Some(&area)).unwrap();
    assert!(beyond.tracking.is_none() && beyond.next_available == 5);
    let ring = Ring::find(&scene.memory, super::AT, 16, false).unwrap();
    let longer = Start::of(&ring, 5, 1, Some(&area));
    assert!(matches!(longer, Err(InflightError::Queue { queue: 16, area: 8 })));
    // A driver may make its queue shorter.
    let ring = Ring::find(&scene.memory, super::AT, 4, false).unwrap();
    assert!(Start::of(&ring, 5, 0, Some(&area)).unwrap().tracking.is_some());
}

#[test]
fn c6_a_region_of_any_bytes_leaves_at_most_what_is_outstanding() {
    let mut random = fastrand::Rng::with_seed(6);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..2000 {
        let scene = scene();
        let mut bytes = contents(&scene.area);
        for _ in 0..random.usize(1..6) {
            let at = random.usize(REGION as usize..bytes.len());
            bytes[at] = [0, 1, random.u8(..8), random.u8(..)][random.usize(..4)];
        }
        scene.area.write_all_at(&bytes, 0).unwrap();
        let file = scene.area.try_clone().unwrap();
        let area = InflightArea::map(scene.layout, file, 0, scene.layout.bytes());
        let start = area.and_then(|area| Start::of(&scene.ring(), 5, 1, Some(&area)));
        let Ok(start) = start else {
            refused += 1;
            continue;
        };
        accepted += 1;
        let mut left = start.tracking.unwrap().left.take();
        assert!(left.len() <= 4 && left.iter().all(|head| *head < SIZE));
        assert_eq!(start.next_available, 5 + left.len() as u16);
        left.make_contiguous().sort_unstable();
        assert!(
            left.iter()
                .zip(left.iter().skip(1))
                .all(|(one, other)| one < other)
        );
    }
    assert!(accepted > 100 && refused > 100, "{accepted} {refused}");
}

#[test]
fn c6_an_area_that_is_truncated_is_lost() {
    let scene = Scene::at(0);
    let area = file(0x1000);
    let map = || InflightArea::map(scene.layout, area.try_clone().unwrap(), 0, 0x1000);
    let before = map().unwrap();
    let running = Start::of(&scene.ring(), 0, 1, Some(&before)).unwrap();
    let tracking = running.tracking.unwrap();
    assert!(!tracking.is_lost());
    area.set_len(0).unwrap();
    tracking.mark(0, 0);
    assert!(tracking.is_lost());
    assert!(matches!(
        Start::of(&scene.ring(), 0, 1, Some(&before)),
        Err(InflightError::Lost)
    ));
    assert!(matches!(map(), Err(InflightError::Map(_))));
}
