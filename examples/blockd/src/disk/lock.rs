//! Locks on image files, compatible with the locks of QEMU.
//!
//! QEMU locks single bytes of a raw image through open file description locks. Each byte stands for a permission: a byte
//! from [`HELD`] on is locked by a process that uses the permission, a byte from [`UNSHARED`] on by a process that does not
//! allow others to use it. All these locks are shared (read) locks; a process finds a conflict by testing whether an
//! exclusive lock would fail. Because a process locks before it tests, two processes that start at once can both fail,
//! but not both succeed.
//!
//! A lock belongs to the open file description: it ends when the last descriptor of it is closed, and two openings in one
//! process conflict like two processes do.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The time between two attempts, and their number.
const CLOSE_AGAIN: Duration = Duration::from_millis(5);
const CLOSE_TRIES: u32 = 400;
/// The byte of the first permission, locked while the permission is used.
const HELD: i64 = 100;
/// The byte of the first permission, locked while others must not use the permission.
const UNSHARED: i64 = 200;

/// A permission for an image, with QEMU's number. (2, "write unchanged", is not used here.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    ConsistentRead = 0,
    Write = 1,
    Resize = 3,
}

/// The permissions that no export shares: others must not write to the image or change its size, even while
/// the export only reads.
const NOT_SHARED: [Permission; 2] = [Permission::Write, Permission::Resize];

/// The reason for which an image cannot be locked.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another user of the image has a conflicting lock.
    #[error(
        "{user} {conflict}; end it, or name another image. ',lock=off' serves the image regardless, and two writers destroy \
         it"
    )]
    Taken {
        /// The process, if the system reports it.
        user: String,
        /// The conflicting action of the process.
        conflict: &'static str,
        /// Set if the system reports a process. If not, the lock can belong to a process that has ended: see
        /// [`once_closed`].
        is_named: bool,
    },
    /// The system does not support locks on this file.
    #[error("it cannot be locked on its file system ({0}); ',lock=off' serves it without a lock")]
    Impossible(#[source] io::Error),
}

/// Repeats an attempt that fails because a file is in use, as long as the cause may pass.
///
/// If a killed process used an io_uring, the kernel closes the files of the process some time after its end:
/// it executes requests in flight first.
pub(super) fn once_closed<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    may_pass: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 1..CLOSE_TRIES {
        match attempt() {
            Err(error) if may_pass(&error) => thread::sleep(CLOSE_AGAIN),
            result => return result,
        }
    }
    attempt()
}

/// Locks an image for reading, or for reading and writing, until `file` and its duplicates are closed. Waits
/// for at most some seconds for a process that has ended.
pub(super) fn lock(file: &File, writes: bool) -> Result<(), LockError> {
    once_closed(
        || lock_now(file, writes),
        |error| matches!(error, LockError::Taken { is_named: false, .. }),
    )
}

fn lock_now(file: &File, writes: bool) -> Result<(), LockError> {
    let held: &[Permission] = if writes {
        &[Permission::ConsistentRead, Permission::Write]
    } else {
        &[Permission::ConsistentRead]
    };
    let bytes = held
        .iter()
        .map(|permission| HELD + *permission as i64)
        .chain(NOT_SHARED.map(|permission| UNSHARED + permission as i64));
    for byte in bytes {
        let shared = single_byte(libc::F_RDLCK, byte);
        loop {
            match fcntl(file, FcntlArg::F_OFD_SETLK(&shared)) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                // The other lock is an exclusive one over the byte, which QEMU does not use.
                Err(Errno::EAGAIN | Errno::EACCES) => return Err(taken(file, byte, "has locked it")),
                Err(error) => return Err(LockError::Impossible(error.into())),
            }
        }
    }
    for permission in NOT_SHARED {
        let conflict = match permission {
            Permission::Resize => "may change its size",
            _ => "has it open for writing",
        };
        must_be_free(file, HELD + permission as i64, conflict)?;
    }
    for permission in held {
        let conflict = match permission {
            Permission::Write => "has it open and allows no other program to write",
            _ => "has it open and allows no other program to read",
        };
        must_be_free(file, UNSHARED + *permission as i64, conflict)?;
    }
    Ok(())
}

fn must_be_free(file: &File, byte: i64, conflict: &'static str) -> Result<(), LockError> {
    let mut exclusive = single_byte(libc::F_WRLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut exclusive))
        .map_err(|error| LockError::Impossible(error.into()))?;
    if exclusive.l_type == libc::F_UNLCK as i16 {
        return Ok(());
    }
    Err(taken(file, byte, conflict))
}

fn single_byte(kind: libc::c_int, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

fn taken(file: &File, byte: i64, conflict: &'static str) -> LockError {
    let users = users(file, byte).unwrap_or_default();
    let user = match &users[..] {
        [] => "another process".to_owned(),
        users => users.join(" and "),
    };
    LockError::Taken {
        user,
        conflict,
        is_named: !users.is_empty(),
    }
}

/// Returns the processes that lock a byte of a file. The kernel does not report the owner of an open file
/// description lock. It lists a process's locks beside each of its descriptors, for processes that this one
/// may examine.
fn users(file: &File, byte: i64) -> io::Result<Vec<String>> {
    let mut users = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if locks(&process.path(), file, byte).unwrap_or(false) {
            users.push(describe(&process.path(), pid));
        }
    }
    Ok(users)
}

fn describe(process: &Path, pid: u32) -> String {
    if pid == std::process::id() {
        return "another export of this daemon".to_owned();
    }
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    format!("process {pid} ({})", name.trim())
}

/// Returns `true` if a process locks the byte, through another descriptor than `file`.
fn locks(process: &Path, file: &File, byte: i64) -> io::Result<bool> {
    let about = file.metadata()?;
    let own = process.ends_with(std::process::id().to_string());
    for entry in std::fs::read_dir(process.join("fdinfo"))?.flatten() {
        let descriptor = entry.file_name();
        if own && descriptor.to_str() == Some(&file.as_raw_fd().to_string()) {
            continue;
        }
        let Ok(info) = std::fs::read_to_string(entry.path()) else {
            continue;
        };
        let locked = info.lines().any(|line| covers(line, about.ino(), byte));
        let same = || {
            std::fs::metadata(process.join("fd").join(descriptor))
                .is_ok_and(|other| (other.dev(), other.ino()) == (about.dev(), about.ino()))
        };
        if locked && same() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns `true` if a line such as `lock: 1: OFDLCK ADVISORY READ -1 fe:00:1062 100 101` is about a byte of
/// a file.
fn covers(line: &str, inode: u64, byte: i64) -> bool {
    let Some(lock) = line.strip_prefix("lock:") else {
        return false;
    };
    let words: Vec<&str> = lock.split_whitespace().collect();
    let [.., file, first, last] = words[..] else {
        return false;
    };
    let same_file = file.rsplit(':').next().and_then(|number| number.parse().ok()) == Some(inode);
    let first = first.parse().unwrap_or(0);
    let last = last.parse().unwrap_or(i64::MAX);
    same_file && (first..=last).contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, write: bool) -> File {
        File::options().read(true).write(write).open(path).unwrap()
    }

    /// Tests every pair of users: only two readers are compatible.
    #[test]
    fn c2_only_readers_share_an_image() {
        let image = tempfile::NamedTempFile::new().unwrap();
        for (first, second, together) in [
            (false, false, true),
            (false, true, false),
            (true, false, false),
            (true, true, false),
        ] {
            let one = open(image.path(), first);
            lock(&one, first).unwrap();
            let two = open(image.path(), second);
            let locked = lock(&two, second);
            assert_eq!(locked.is_ok(), together, "writes: {first} and {second}");
            if let Err(error) = locked {
                assert!(
                    error.to_string().contains("another export of this daemon"),
                    "{error}"
                );
            }
            drop(two);
            // A duplicate keeps the lock until it is closed, and no longer.
            let duplicate = one.try_clone().unwrap();
            drop(one);
            assert_eq!(lock(&open(image.path(), second), second).is_ok(), together);
            drop(duplicate);
            lock(&open(image.path(), second), second).unwrap();
        }
    }

    /// An exclusive lock of the whole file, as other hypervisors take it, conflicts as well.
    #[test]
    fn c2_an_exclusive_lock_of_the_file_is_respected() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let other = open(image.path(), true);
        let mut whole = single_byte(libc::F_WRLCK, 0);
        whole.l_len = 0;
        fcntl(&other, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
        for writes in [false, true] {
            let error = lock(&open(image.path(), writes), writes).unwrap_err();
            assert!(error.to_string().contains("has locked it"), "{error}");
        }
    }

    /// An attempt that fails while a file is closed is repeated, with a limit; other errors are not repeated.
    #[test]
    fn c2_what_may_pass_is_repeated() {
        let left = std::cell::Cell::new(0);
        let attempt = || match left.get() {
            0 => Ok(()),
            more => Err(left.replace(more - 1)),
        };
        left.set(3);
        assert_eq!(once_closed(attempt, |_| true), Ok(()));
        left.set(3);
        assert_eq!(once_closed(attempt, |left| *left != 2), Err(2));
        left.set(CLOSE_TRIES);
        assert_eq!(once_closed(attempt, |_| true), Err(1));
    }

    /// If a descriptor cannot be locked, here because it is write-only, the error names the remedy.
    #[test]
    fn c2_a_file_that_cannot_be_locked_is_an_error_with_a_remedy() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let unreadable = File::options().write(true).open(image.path()).unwrap();
        let error = lock(&unreadable, true).unwrap_err();
        assert!(matches!(error, LockError::Impossible(_)));
        assert!(error.to_string().contains("lock=off"), "{error}");
    }

    #[test]
    fn reads_the_lines_of_the_kernel() {
        let line = "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:10625049 100 101";
        assert!(covers(line, 10_625_049, 100));
        assert!(covers(line, 10_625_049, 101));
        assert!(!covers(line, 10_625_049, 102));
        assert!(!covers(line, 1, 100));
        assert!(covers("lock: 2: POSIX ADVISORY WRITE 77 00:1f:5 0 EOF", 5, 1000));
        assert!(!covers("pos:\t0", 0, 0));
        assert!(!covers("lock:", 0, 0));
    }
}
