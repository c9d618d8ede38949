//! Changes of a disk's size while it is served.
//!
//! The size changes after the storage has grown, and before it shrinks. So a request that is checked against
//! either size finds its bytes. A read that is executed meanwhile can fail only as on a truncated image.
//!
//! A write that was checked before the disk shrank, and is executed after that, extends the image again. So
//! each write checks its end again after its execution, and one that ends beyond the disk has the image
//! [cut](super::Cut) again. If the file was truncated before the write, then the size had changed before it
//! as well, because the kernel executes the two one after the other.

use std::io;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::error::ResizeError;
use super::image::Image;
use super::{Disk, Medium};

impl Disk {
    /// Checks the end of a write after its execution.
    #[inline]
    pub(super) fn has_written(&self, end: u64) {
        if end > self.size() {
            self.cut_again();
        }
    }

    /// Like [`has_written`](Self::has_written), for a write on a ring, whose loop must not wait for the
    /// image.
    ///
    /// # Errors
    /// If the disk has shrunk meanwhile. [`has_shrunk`](super::has_shrunk) recognizes the error, and a thread
    /// must execute the write again.
    pub(super) fn has_written_on_ring(&self, end: u64) -> io::Result<()> {
        if end <= self.size() {
            return Ok(());
        }
        Err(self.cut.leave_to_thread())
    }

    /// Handles a write that is outside the disk. If the disk has shrunk while a ring executed the write, the
    /// image is cut.
    #[cold]
    pub(super) fn is_outside(&self) {
        if self.cut.take_due() {
            self.cut_again();
        }
    }

    #[cold]
    fn cut_again(&self) {
        if let Medium::File(image) = &self.medium {
            self.cut.again(image);
        }
    }

    /// Adopts the present size of the image. Returns `true` if it has changed. May wait for a file server.
    ///
    /// # Errors
    /// [`ResizeError`] if there is no image, if it is shorter than a block, or if the system does not report
    /// its size; the disk keeps its size.
    pub(crate) fn adopt_size(&self) -> Result<bool, ResizeError> {
        let Medium::File(image) = &self.medium else {
            return Err(ResizeError::NoImage);
        };
        let mut len = self.cut.lock();
        let bytes = image.len()?;
        if bytes < self.block() {
            return Err(ResizeError::NoSize(bytes, self.block()));
        }
        *len = bytes;
        let size = bytes / self.block() * self.block();
        Ok(self.size.swap(size, Ordering::Relaxed) != size)
    }

    /// Changes the size to `to` bytes: extends or truncates an image file, or memory. New bytes are zero. May
    /// wait for the medium.
    ///
    /// # Errors
    /// [`ResizeError`]; the disk keeps its size.
    pub(crate) fn resize(&self, to: u64, may_shrink: bool) -> Result<(), ResizeError> {
        if to == 0 || !to.is_multiple_of(self.block()) {
            return Err(ResizeError::NoSize(to, self.block()));
        }
        let mut len = self.cut.lock();
        let from = match &self.medium {
            // The file may have grown from outside, and is truncated only on demand.
            Medium::File(image) => image.len()?,
            Medium::Ram(_) | Medium::Null => self.size(),
        };
        if let Medium::File(image) = &self.medium {
            if image.is_device() && from != to {
                return Err(ResizeError::Device(from));
            }
            if self.is_read_only() && from != to {
                return Err(ResizeError::ReadOnly);
            }
        }
        if to < from && !may_shrink {
            return Err(ResizeError::Shrinks { from, to });
        }
        if to < from {
            self.size.store(to, Ordering::Relaxed);
        }
        let resized = match &self.medium {
            Medium::File(image) if from != to => set_len(image, to),
            Medium::Ram(ram) => ram.resize(from, to),
            Medium::File(_) | Medium::Null => Ok(()),
        };
        match &resized {
            Ok(()) => {
                *len = to;
                self.size.store(to, Ordering::Relaxed);
            }
            Err(_) if to < from => {
                *len = from;
                let size = from / self.block() * self.block();
                self.size.store(size, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        resized
    }
}

/// Extends or truncates an image file to at most the number of bytes that an `off_t` can count.
fn set_len(image: &Image, to: u64) -> Result<(), ResizeError> {
    if i64::try_from(to).is_err() {
        return Err(io::Error::from(Errno::FBIG).into());
    }
    Ok(image.set_len(to)?)
}

#[cfg(test)]
mod tests {
    use super::super::on_ring::Outcome;
    use super::super::{Access, RingProgress, Source, has_shrunk};
    use super::*;
    use std::os::unix::fs::FileExt;

    use crate::buffers::{Buffer, Bytes};
    use crate::memory::tests::simple;

    const MIB: u64 = 1 << 20;

    fn disk(source: &Source) -> Disk {
        Disk::open_for(source, Access::new(false)).unwrap()
    }

    fn image(bytes: u64) -> (tempfile::NamedTempFile, Source) {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(bytes).unwrap();
        let source = Source::File(image.path().to_owned());
        (image, source)
    }

    /// Writes this byte over a sector, or reads the sector.
    fn sector(disk: &Disk, at: u64, write: Option<u8>) -> Vec<u8> {
        let memory = simple(0x1000);
        let buffers = [Buffer {
            guest: 0x1000,
            len: 512,
        }];
        let bytes = Bytes::new(&memory, &buffers);
        let mut contents = vec![write.unwrap_or(0xa5); 512];
        bytes.write(&contents).unwrap();
        if write.is_some() {
            disk.write(at, bytes).unwrap();
        } else {
            disk.read(at, bytes).unwrap();
            bytes.read(&mut contents).unwrap();
        }
        contents
    }

    #[test]
    fn c14_a_disk_grows_and_its_new_bytes_are_zero() {
        let (_image, file) = image(MIB);
        for source in [file, Source::Ram(MIB)] {
            let disk = disk(&source);
            sector(&disk, MIB - 512, Some(7));
            disk.resize(3 * MIB + 512, false).unwrap();
            assert_eq!(disk.size(), 3 * MIB + 512);
            assert_eq!(sector(&disk, MIB - 512, None), [7; 512]);
            for at in [MIB, 2 * MIB, 3 * MIB] {
                assert_eq!(sector(&disk, at, None), [0; 512], "{source:?} at {at}");
                sector(&disk, at, Some(9));
            }
            // The bytes beyond the end are zero when the disk grows again.
            disk.resize(MIB + 512, true).unwrap();
            assert!(disk.check(MIB + 512, 1).is_err());
            disk.resize(4 * MIB, false).unwrap();
            assert_eq!(sector(&disk, MIB, None), [9; 512]);
            for at in [MIB + 512, MIB + 4096, 3 * MIB] {
                assert_eq!(sector(&disk, at, None), [0; 512], "{source:?} at {at}");
            }
        }
    }

    /// Tests a write that was checked before the disk shrank, and executed after that.
    #[test]
    fn c14_a_write_in_flight_leaves_nothing_behind_the_new_end() {
        let (image, file) = image(2 * MIB);
        let disk = disk(&file);
        let len = || image.as_file().metadata().unwrap().len();
        let at = 2 * MIB - 512;
        disk.check_write(at, 512).unwrap();
        disk.resize(MIB, true).unwrap();
        // A thread writes.
        image.as_file().write_all_at(&[7; 512], at).unwrap();
        disk.has_written(at + 512);
        assert_eq!((len(), disk.size()), (MIB, MIB));
        // A ring writes: its loop leaves the write to a thread, which finds it outside the disk.
        for outcome in [
            Outcome::Written { end: at + 512 },
            Outcome::Zeroed {
                bytes: 512,
                end: at + 512,
            },
        ] {
            image.as_file().write_all_at(&[7; 512], at).unwrap();
            let error = disk
                .accept(&mut RingProgress::default(), outcome, Ok(512))
                .unwrap_err();
            assert!(has_shrunk(&error) && len() == 2 * MIB, "{outcome:?}");
            disk.check_write(at, 512).unwrap_err();
            assert_eq!((len(), disk.size()), (MIB, MIB), "{outcome:?}");
        }
        // Bytes inside the disk are unchanged, and so is an image that another program has extended.
        let within = Outcome::Written { end: MIB };
        disk.accept(&mut RingProgress::default(), within, Ok(512))
            .unwrap();
        image.as_file().set_len(3 * MIB).unwrap();
        disk.check_write(at, 512).unwrap_err();
        sector(&disk, MIB - 512, Some(7));
        assert_eq!(len(), 3 * MIB);
        disk.resize(MIB, true).unwrap();
        disk.resize(2 * MIB, false).unwrap();
        assert_eq!(sector(&disk, at, None), [0; 512]);
    }

    #[test]
    fn c14_memory_that_was_written_after_it_was_cut_off_is_zero_when_it_comes_back() {
        let disk = disk(&Source::Ram(MIB));
        let Medium::Ram(ram) = &disk.medium else {
            unreachable!("it was made that way");
        };
        for end in [MIB / 2, MIB / 2 + 512] {
            disk.resize(end, true).unwrap();
            for at in [end, MIB - 512] {
                ram.write_from(at, &[7; 512]).unwrap();
            }
            disk.resize(MIB, false).unwrap();
            for at in [end, MIB - 512] {
                assert_eq!(sector(&disk, at, None), [0; 512], "{at} of {end}");
            }
        }
    }

    #[test]
    fn c14_a_size_that_no_file_has_is_refused_by_the_systems_word() {
        let (_image, file) = image(MIB);
        let disk = disk(&file);
        for size in [1 << 62, 1 << 63, u64::MAX / 512 * 512] {
            let error = disk.resize(size, false).unwrap_err();
            let text = format!("{:#}", anyhow::Error::new(error));
            assert_eq!(text, "the system refuses: File too large (os error 27)", "{size}");
            assert_eq!(disk.size(), MIB);
        }
    }

    #[test]
    fn c14_a_disk_shrinks_only_if_that_is_meant() {
        let (image, file) = image(MIB);
        for source in [file, Source::Ram(MIB), Source::Null(MIB)] {
            let disk = disk(&source);
            let error = disk.resize(MIB / 2, false).unwrap_err();
            assert!(error.to_string().contains("--shrink"), "{error}");
            assert_eq!(disk.size(), MIB);
            for wrong in [0, 511, 1000] {
                assert!(matches!(
                    disk.resize(wrong, true),
                    Err(ResizeError::NoSize(_, 512))
                ));
            }
            disk.resize(MIB / 2, true).unwrap();
            assert_eq!(disk.size(), MIB / 2);
        }
        assert_eq!(image.as_file().metadata().unwrap().len(), MIB / 2);
    }

    #[test]
    fn c14_an_image_that_has_grown_is_adopted_and_not_truncated() {
        let (image, file) = image(MIB);
        let disk = disk(&file);
        assert!(!disk.adopt_size().unwrap());
        image.as_file().set_len(2 * MIB + 100).unwrap();
        assert_eq!(disk.size(), MIB);
        assert!(matches!(
            disk.resize(MIB + 512, false),
            Err(ResizeError::Shrinks { .. })
        ));
        assert!(disk.adopt_size().unwrap());
        assert_eq!(disk.size(), 2 * MIB);
        image.as_file().set_len(3 * MIB).unwrap();
        disk.adopt_size().unwrap();
        assert_eq!(disk.size(), 3 * MIB);
        image.as_file().set_len(100).unwrap();
        assert!(matches!(disk.adopt_size(), Err(ResizeError::NoSize(100, 512))));
        assert_eq!(disk.size(), 3 * MIB);
        assert!(matches!(
            super::tests::disk(&Source::Ram(512)).adopt_size(),
            Err(ResizeError::NoImage)
        ));
    }

    #[test]
    fn c14_memory_has_a_limit_and_read_only_images_keep_their_size() {
        let disk = disk(&Source::Ram(MIB));
        let error = disk.resize(1 << 60, false).unwrap_err();
        assert!(matches!(error, ResizeError::NoRoom(_)), "{error}");
        assert_eq!(disk.size(), MIB);
        let (_image, file) = image(MIB);
        let disk = Disk::open_for(&file, Access::new(true)).unwrap();
        assert!(matches!(disk.resize(2 * MIB, false), Err(ResizeError::ReadOnly)));
        disk.adopt_size().unwrap();
    }
}
