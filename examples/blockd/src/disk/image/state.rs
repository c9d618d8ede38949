//! The state of an image: whether its path still names the open file.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use super::Image;
use crate::figures::ImageState;

impl Image {
    /// Compares the open file with the file that its path names now. Can wait for a file server.
    ///
    /// # Errors
    /// The error of the system for either file, unless the path names none.
    pub(in crate::disk) fn state(&self) -> io::Result<ImageState> {
        let open = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(found) if is_same(&open, &found) => Ok(ImageState::InPlace),
            Ok(_) => Ok(ImageState::Replaced),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ImageState::Missing),
            Err(error) => Err(error),
        }
    }
}

/// Returns `true` if both are the same file or block device. A block device may have several nodes.
fn is_same(open: &Metadata, found: &Metadata) -> bool {
    if open.file_type().is_block_device() {
        return found.file_type().is_block_device() && found.rdev() == open.rdev();
    }
    (found.dev(), found.ino()) == (open.dev(), open.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Access;

    #[test]
    fn c15_an_image_that_is_renamed_replaced_or_deleted_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["a", "b"] {
            std::fs::write(path(name), [0; 512]).unwrap();
        }
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        let (image, _) = Image::open(&path("a"), Access::new(false)).unwrap();
        let (linked, _) = Image::open(&path("link"), Access::new(true)).unwrap_or_else(|_| {
            let access = Access {
                lock: false,
                ..Access::new(true)
            };
            Image::open(&path("link"), access).unwrap()
        });
        let both = || (image.state().unwrap(), linked.state().unwrap());
        assert_eq!(both(), (ImageState::InPlace, ImageState::InPlace));
        std::fs::hard_link(path("a"), path("c")).unwrap();
        assert_eq!(both(), (ImageState::InPlace, ImageState::InPlace));
        std::fs::remove_file(path("link")).unwrap();
        std::os::unix::fs::symlink(path("b"), path("link")).unwrap();
        assert_eq!(both(), (ImageState::InPlace, ImageState::Replaced));
        std::fs::rename(path("b"), path("a")).unwrap();
        assert_eq!(both(), (ImageState::Replaced, ImageState::Missing));
        std::fs::remove_file(path("a")).unwrap();
        assert_eq!(image.state().unwrap(), ImageState::Missing);
        // The image comes back.
        std::fs::rename(path("c"), path("a")).unwrap();
        assert_eq!(image.state().unwrap(), ImageState::InPlace);
    }
}
