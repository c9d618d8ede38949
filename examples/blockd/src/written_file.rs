//! Files that options name and the daemon writes. Their former contents are lost, so only files of the same
//! kind are overwritten.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The bytes at the beginning of a file that determine whether it may be overwritten.
const MOST_BYTES: u64 = 256;

/// Opens a file for writing, or makes it. The contents stay until the caller truncates the file, because
/// another process may still have locked it.
///
/// A character device is opened as well, because it stores nothing. `is_own` gets the first bytes of an
/// existing file, at most 256.
///
/// # Errors
/// If it is not a file, if it has contents that `is_own` refuses, or if it cannot be opened; with the remedy.
pub(crate) fn open(path: &Path, is_own: impl FnOnce(&[u8]) -> bool) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        // Opening a FIFO without a reader then does not wait.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_char_device() {
        return Ok(file);
    }
    if !kind.is_file() {
        return Err(io::Error::other("it exists and is not a file; name another path"));
    }
    let mut beginning = Vec::new();
    Read::take(&mut file, MOST_BYTES).read_to_end(&mut beginning)?;
    match beginning.is_empty() || is_own(&beginning) {
        true => Ok(file),
        false => Err(io::Error::other(
            "the file exists and has other contents; name another path, or remove the file if it is not needed",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c34_only_contents_of_ones_own_are_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let is_own = |beginning: &[u8]| beginning.starts_with(b"own");
        open(&path, is_own).unwrap();
        for (contents, opens) in [("", true), ("own", true), ("owl", false), ("\0", false)] {
            std::fs::write(&path, contents).unwrap();
            let opened = open(&path, is_own);
            assert_eq!(opened.is_ok(), opens, "{contents:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);
        }
        let long = "own".repeat(1000);
        std::fs::write(&path, &long).unwrap();
        open(&path, |beginning| beginning.len() == 256).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), long);
        open(Path::new("/dev/full"), |_| false).unwrap();
    }

    #[test]
    fn c34_what_is_no_file_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        for path in [
            fifo.as_path(),
            directory.path(),
            &directory.path().join("no/file"),
        ] {
            assert!(open(path, |_| true).is_err(), "{}", path.display());
        }
    }
}
