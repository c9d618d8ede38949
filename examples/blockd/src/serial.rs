//! Serial numbers of disks. A guest distinguishes disks by them, for example in /dev/disk/by-id.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::disk::Source;
use crate::export::{Export, passed_name};

/// Returns the serial number of an export: the one that `serial=` sets, or a hash. The hash is of the path of
/// its image, or of its socket if it has no image, or of its name if it has neither. It does not depend on
/// other exports, their order, or the number of daemons.
pub(crate) fn of(export: &Export) -> String {
    let path = match (&export.serial, &export.source) {
        (Some(serial), _) => return serial.clone(),
        (None, Source::File(path)) => path,
        (None, Source::Ram(_) | Source::Null(_)) => match &export.socket {
            Some(socket) => socket,
            None => return serial_of(Path::new(&export.nbd_name())),
        },
    };
    if passed_name(path).is_some() {
        // The name is not a path, and does not depend on the directory.
        return format!("blockd-{:013x}", hash(path) >> 12);
    }
    // Symbolic links are not followed: the name in /dev/disk/by-id is the stable one.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    serial_of(&absolute)
}

fn serial_of(path: &Path) -> String {
    format!("blockd-{:013x}", hash(path) >> 12)
}

/// Returns the FNV-1a hash. The result must be the same in every version. The standard library's hash does
/// not promise that.
fn hash(path: &Path) -> u64 {
    path.as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::SERIAL_LEN;

    #[test]
    fn c25_the_serial_follows_from_the_path() {
        let file = |path: &str| of(&Export::new(Source::File(path.into()), "/tmp/any"));
        let ram = |socket: &str| of(&Export::new(Source::Ram(512), socket));
        // These values are on the labels of disks: they must never change.
        assert_eq!(file("/srv/a.raw"), "blockd-d0cabe369c873");
        assert_eq!(ram("/run/a.sock"), "blockd-ea4ba7cb7c199");
        assert_ne!(file("/srv/a.raw"), file("/srv/b.raw"));
        assert_eq!(ram("fd:disk"), "blockd-eb6a85e13f4ee");
        assert_ne!(ram("/run/a"), ram("/run/b"));
        assert_eq!(file("a.raw"), file("./a.raw"));
        assert_eq!(file("a.raw").len(), SERIAL_LEN);
        let given = Export {
            serial: Some("mine".into()),
            ..Export::new(Source::Ram(512), "a")
        };
        assert_eq!(of(&given), "mine");
    }
}
