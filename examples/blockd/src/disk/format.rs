//! Recognizes images that are not raw by their first and last bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The number of bytes that are examined at the beginning and at the end.
const EXAMINED: usize = 512;

/// The mark of a format and its position.
struct Mark {
    format: &'static str,
    at: usize,
    bytes: &'static [u8],
}

const fn mark(format: &'static str, at: usize, bytes: &'static [u8]) -> Mark {
    Mark { format, at, bytes }
}

/// Marks in the first bytes.
const FIRST: [Mark; 12] = [
    mark("qcow2", 0, b"QFI\xfb"),
    mark("qed", 0, b"QED\0"),
    mark("vmdk", 0, b"KDMV"),
    mark("vmdk", 0, b"COWD"),
    mark("vmdk", 0, b"# Disk DescriptorFile"),
    mark("vhdx", 0, b"vhdxfile"),
    mark("vdi", 64, b"\x7f\x10\xda\xbe"),
    mark("luks", 0, b"LUKS\xba\xbe"),
    mark("vpc", 0, b"conectix"),
    mark("parallels", 0, b"WithoutFreeSpace"),
    mark("parallels", 0, b"WithouFreSpacExt"),
    mark("bochs", 0, b"Bochs Virtual HD Image"),
];

/// Marks in the last 512 bytes. The vpc format has only a footer for disks of fixed size.
const LAST: [Mark; 1] = [mark("vpc", 0, b"conectix")];

/// The image looks like a container.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its {place} bytes are those of a {format} image, and only raw images are served: convert it (qemu-img convert -O raw). \
     A guest can write such bytes to a raw image as well; if the image is raw, add ',format=raw'"
)]
pub(super) struct NotRaw {
    format: &'static str,
    place: &'static str,
}

/// Examines an image of this size in bytes.
///
/// # Errors
/// [`NotRaw`], as the source of an [`io::Error`], or the error of a read.
pub(super) fn must_be_raw(file: &File, bytes: u64) -> io::Result<()> {
    let len = bytes.min(EXAMINED as u64) as usize;
    let mut examined = [0; EXAMINED];
    let examined = &mut examined[..len];
    for (place, at, marks) in [("first", 0, &FIRST[..]), ("last", bytes - len as u64, &LAST[..])] {
        file.read_exact_at(examined, at)?;
        if let Some(format) = recognize(examined, marks) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                NotRaw { format, place },
            ));
        }
    }
    Ok(())
}

fn recognize(bytes: &[u8], marks: &[Mark]) -> Option<&'static str> {
    marks
        .iter()
        .find(|mark| {
            bytes
                .get(mark.at..)
                .is_some_and(|rest| rest.starts_with(mark.bytes))
        })
        .map(|mark| mark.format)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(bytes: &[u8]) -> io::Result<()> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        must_be_raw(&file, bytes.len() as u64)
    }

    #[test]
    fn c3_marks_count_in_their_place_only() {
        for mark in &FIRST {
            let mut image = vec![0; 4096];
            image[mark.at..mark.at + mark.bytes.len()].copy_from_slice(mark.bytes);
            let error = judge(&image).unwrap_err().to_string();
            assert!(
                error.contains(&format!("first bytes are those of a {} image", mark.format)),
                "{error}"
            );
            assert!(error.contains("format=raw"), "{error}");
            image.rotate_right(1);
            judge(&image).unwrap();
        }
    }

    #[test]
    fn c3_a_footer_counts_at_the_end_only() {
        for (len, at, raw) in [
            (4096, 3584, false),
            (4096, 3583, true),
            (5000, 4488, false),
            (512, 0, false),
        ] {
            let mut image = vec![0; len];
            image[at..at + 8].copy_from_slice(b"conectix");
            assert_eq!(judge(&image).is_ok(), raw, "{len} bytes, mark at {at}");
        }
    }

    #[test]
    fn c3_anything_else_is_raw() {
        let mut partitioned = vec![0; 1024];
        partitioned[510..520].copy_from_slice(b"\x55\xaaEFI PART");
        for image in [
            vec![0; 512],
            partitioned,
            b"QFI\xfa".repeat(200),
            b"conecti".repeat(100),
        ] {
            judge(&image).unwrap();
        }
    }
}
