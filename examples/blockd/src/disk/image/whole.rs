//! Reads that fill their buffer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Fills `target`. A read beyond the end of a truncated file is an error, because zeroes would be wrong.
pub(super) fn read_all(file: &File, target: &mut [u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < target.len() {
        match file.read_at(&mut target[done..], at + done as u64) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it has become shorter than it was when it was opened",
                ));
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
