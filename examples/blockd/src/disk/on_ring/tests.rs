use std::os::unix::fs::FileExt as _;
use std::path::Path;

use aio_context::{Buffers, FileAction};

use super::super::{Access, SECTOR, Source};
use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn disk(path: &Path, len: u64, access: Access) -> Disk {
    std::fs::File::create(path).unwrap().set_len(len).unwrap();
    Disk::open_for(&Source::File(path.to_owned()), access).unwrap()
}

/// Executes an operation like the kernel, unless the operation is refused.
fn execute(
    operation: &Operation,
    image: &std::fs::File,
    refused: &[&str],
    errno: Errno,
) -> io::Result<usize> {
    let name = match &operation.action {
        FileAction::Size => "size",
        FileAction::Write { .. } => "write",
        FileAction::Allocate { how, .. } if *how == Allocation::PunchHole => "hole",
        FileAction::Allocate { .. } => "zero",
        other => panic!("{other:?}"),
    };
    if refused.contains(&name) {
        return Err(errno.into());
    }
    match &operation.action {
        FileAction::Size => Ok(image.metadata()?.len() as usize),
        FileAction::Write {
            at,
            from: Buffers::One(zeroes),
            ..
        } => {
            assert!(zeroes.len() as u64 <= crate::disk::STEP);
            image.write_at(zeroes, at.unwrap())
        }
        FileAction::Allocate { at, len, .. } => {
            // Both ways of allocating write these zeroes.
            image.write_all_at(&vec![0; *len as usize], *at)?;
            Ok(0)
        }
        other => panic!("{other:?}"),
    }
}

/// Clears a range. Returns the number of operations.
fn clear(
    disk: &Disk,
    path: &Path,
    how: Clear,
    (at, len): (u64, u64),
    refused: &[&str],
    errno: Errno,
) -> usize {
    let image = std::fs::File::options().write(true).open(path).unwrap();
    let mut progress = RingProgress::default();
    for count in 0.. {
        assert!(progress.done <= len && count < 1000, "{progress:?} of {len}");
        if progress.done == len {
            return count;
        }
        let (from, left) = (at + progress.done, len - progress.done);
        match disk.next_to_clear(how, from, left, progress).unwrap() {
            RingStep::Operation(operation, outcome) => {
                let result = execute(&operation, &image, refused, errno);
                disk.accept(&mut progress, outcome, result).unwrap();
            }
            RingStep::Nothing(bytes) => progress.done += bytes,
            RingStep::Threads => panic!("for threads"),
        }
    }
    unreachable!()
}

/// The range reads as zeroes afterwards, and the bytes beside it are unchanged, for every refused operation
/// and every error.
#[test]
fn c5_the_ring_zeroes_whatever_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let disk = disk(&path, 4 * MIB, Access::new(false));
    let everything = [
        &[][..],
        &["hole"],
        &["size"],
        &["zero"],
        &["hole", "zero"],
        &["size", "hole", "zero"],
    ];
    for refused in everything {
        for errno in [
            Errno::BUSY,
            Errno::OPNOTSUPP,
            Errno::INVAL,
            Errno::IO,
            Errno::TXTBSY,
            Errno::NOSPC,
            Errno::INTR,
        ] {
            for unmap in [false, true] {
                for (at, len) in [
                    (0, 4 * MIB),
                    (SECTOR, SECTOR),
                    (MIB - SECTOR, 2 * MIB + 2 * SECTOR),
                ] {
                    std::fs::write(&path, vec![7; 4 * MIB as usize]).unwrap();
                    clear(&disk, &path, Clear::Zeroes { unmap }, (at, len), refused, errno);
                    let bytes = std::fs::read(&path).unwrap();
                    let mut expected = vec![7; 4 * MIB as usize];
                    expected[at as usize..(at + len) as usize].fill(0);
                    assert!(bytes == expected, "{at} {len}, {refused:?}, {errno}, {unmap}");
                }
            }
        }
    }
}

/// A hole does not extend a file that was truncated, so zeroes are made by another means.
#[test]
fn c15_the_ring_zeroes_beyond_the_end_of_a_truncated_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let disk = disk(&path, MIB, Access::new(false));
    for refused in [&[][..], &["size"], &["zero"]] {
        std::fs::File::create(&path).unwrap().set_len(4096).unwrap();
        let range = (0x8000, 4096);
        clear(
            &disk,
            &path,
            Clear::Zeroes { unmap: true },
            range,
            refused,
            Errno::OPNOTSUPP,
        );
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0x9000);
    }
    let how = Clear::Zeroes { unmap: true };
    let step = disk.next_to_clear(how, 0, 4096, RingProgress::default()).unwrap();
    assert!(
        matches!(&step, RingStep::Operation(operation, Outcome::Size { end: 4096 })
        if matches!(operation.action, FileAction::Size))
    );
}

/// A failed discard is not an error, and is reported once. A discard that is not allowed needs no operation.
#[test]
fn c5_the_ring_discards_in_few_operations() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let with = disk(&path, 8 * GIB, Access::new(false));
    let all = (0, 8 * GIB);
    for refused in [&["hole"][..], &["hole"]] {
        assert_eq!(
            clear(&with, &path, Clear::Discard, all, refused, Errno::OPNOTSUPP),
            8
        );
    }
    drop(with);
    let access = Access {
        discard: false,
        ..Access::new(false)
    };
    let without = disk(&path, 8 * GIB, access);
    let step = without.next_to_clear(Clear::Discard, 0, GIB, RingProgress::default());
    assert!(matches!(step, Ok(RingStep::Nothing(GIB))));
    let how = Clear::Zeroes { unmap: true };
    let step = without
        .next_to_clear(how, 0, GIB, RingProgress::default())
        .unwrap();
    assert!(
        matches!(&step, RingStep::Operation(Operation { action: FileAction::Allocate { how, .. }, .. }, _)
        if *how == Allocation::ZeroRange)
    );
}

/// If the ring was lost, no other means replaces an operation that was not executed.
#[test]
fn s2_what_was_cancelled_is_not_refused() {
    let directory = tempfile::tempdir().unwrap();
    let disk = disk(&directory.path().join("a"), MIB, Access::new(false));
    for outcome in [
        Outcome::Transferred,
        Outcome::Size { end: 1 },
        Outcome::Written { end: 512 },
        Outcome::Zeroed { bytes: 512, end: 512 },
        Outcome::Discarded(512),
    ] {
        let mut progress = RingProgress::default();
        let accepted = disk.accept(&mut progress, outcome, Err(Errno::CANCELED.into()));
        assert_eq!(
            accepted.unwrap_err().raw_os_error(),
            Some(Errno::CANCELED.raw_os_error())
        );
        assert_eq!(progress, RingProgress::default());
    }
}

#[test]
fn c4_a_flush_on_the_ring_excludes_others_and_a_failure_lasts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let begin = |disk: &Disk| match disk.begin_flush() {
        FlushStart::Begun(flushing, _) => flushing,
        other => panic!("{other:?}"),
    };
    let good = disk(&path, MIB, Access::new(false));
    let first = begin(&good);
    assert!(matches!(good.begin_flush(), FlushStart::Busy));
    first.end(Ok(())).unwrap();
    begin(&good).cancel();
    good.flush().unwrap();
    let failed = begin(&good).end(Err(Errno::IO.into()));
    assert!(matches!(failed, Err(DiskError::File(_))));
    assert!(matches!(good.begin_flush(), FlushStart::Failed));
    assert!(matches!(good.flush(), Err(DiskError::FlushFailed)));
    drop(good);
    // The result of the dropped flush is unknown.
    let unknown = disk(&path, MIB, Access::new(false));
    drop(begin(&unknown));
    assert!(matches!(unknown.flush(), Err(DiskError::FlushFailed)));
    drop(unknown);
    let read_only = Disk::open_for(&Source::File(path), Access::new(true)).unwrap();
    assert!(matches!(read_only.begin_flush(), FlushStart::Unneeded));
}

/// A write through the page cache and a direct one exclude each other, also between a thread and the ring.
#[test]
fn c28_the_ring_writes_directly_only_what_is_aligned_and_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    std::fs::File::create(&path).unwrap().set_len(4 * MIB).unwrap();
    let access = Access {
        direct: true,
        ..Access::new(false)
    };
    let Ok(disk) = Disk::open_for(&Source::File(path), access) else {
        return println!("skipped: no direct access to files here");
    };
    let file = |writes, at, len, alignment| disk.ring_file(writes, at, len, alignment);
    assert!(file(false, 0, 4096, 1 << 20).is_some_and(|file| file.shared.is_none()));
    for (at, len, alignment) in [(1, 4096, 4096), (4096, 511, 4096), (0, 4096, 8)] {
        assert!(file(true, at, len, alignment).is_none(), "{at} {len} {alignment}");
    }
    let (one, two) = (file(true, 0, 4096, 4096), file(true, 4096, 4096, 4096));
    assert!(one.is_some() && two.is_some());
    drop((one, two));
    let Medium::File(image) = &disk.medium else {
        panic!("no image");
    };
    image.while_excluded(|| assert!(file(true, 0, 4096, 4096).is_none()));
}
