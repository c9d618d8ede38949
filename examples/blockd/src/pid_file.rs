//! [`PidFile`]: the number of the process in a file, for tools that read it there.

use std::fs::{File, TryLockError};
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::written_file;

/// The most bytes of such a file: other programs put spaces around the number.
const MOST_BYTES: usize = 32;

/// A file with the number of this process. It is locked while the process runs, and removed when this value
/// is dropped.
#[derive(Debug)]
#[must_use = "dropping it removes the file"]
pub struct PidFile {
    file: File,
    path: PathBuf,
}

impl PidFile {
    /// Writes the file. A file that another process has left is overwritten.
    ///
    /// # Errors
    /// If a running process has locked the file, if the file has other contents than the number of a process,
    /// or if it cannot be written; with the remedy. A file with other contents stays unchanged.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("cannot write the number of the process to {}", path.display());
        let mut file = written_file::open(path, is_number).with_context(what)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another process runs with {}; stop it, or name another file",
                    path.display()
                )
            }
            Err(TryLockError::Error(error)) => return Err(anyhow::Error::new(error).context(what())),
        }
        file.set_len(0).and_then(|()| file.rewind()).with_context(what)?;
        writeln!(file, "{}", std::process::id()).with_context(what)?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }
}

/// Returns `true` if these are the contents of a file with the number of a process.
fn is_number(contents: &[u8]) -> bool {
    let text = contents.trim_ascii();
    contents.len() <= MOST_BYTES && !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let id = |about: std::fs::Metadata| (about.dev(), about.ino());
        let own = self.file.metadata().map(id).ok();
        if own.is_none() || self.path.symlink_metadata().map(id).ok() != own {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the file with the number of the process");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c34_a_file_with_the_number_is_locked_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        std::fs::write(&path, "  123456789\n").unwrap();
        let file = PidFile::create(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        let error = PidFile::create(&path).unwrap_err().to_string();
        assert!(error.contains("another process runs"), "{error}");
        drop(file);
        assert!(!path.exists());
        // A file that belongs to another process by now stays.
        let file = PidFile::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists());
        let error = PidFile::create(&directory.path().join("no/pid")).unwrap_err();
        assert!(error.to_string().contains("cannot write the number"), "{error}");
    }

    #[test]
    fn c34_a_file_with_other_contents_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        for contents in [
            "0".repeat(512),
            "123456789 of a process\n".to_owned(),
            "\0".repeat(4096),
            "\n".to_owned(),
        ] {
            std::fs::write(&path, &contents).unwrap();
            let error = format!("{:#}", PidFile::create(&path).unwrap_err());
            assert!(error.contains("has other contents; name another path"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);
        }
    }
}
