//! An opened export: its disk and its socket. Opening can wait for a file server or for a lock, so a running
//! daemon opens exports on a thread.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};

use crate::disk::{Disk, Source};
use crate::export::{Export, passed_name};
use crate::process::PassedSockets;
use crate::request::Device;
use crate::serial;
use crate::socket::{Listener, Permissions};

/// An export with its disk, and its listening socket if it has one. Clients can connect, and wait until the
/// export is served.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) export: Export,
    pub(crate) device: Arc<Device>,
    /// Shared by the loop that accepts its clients and the one that removes its path.
    pub(crate) listener: Option<Arc<Listener>>,
}

impl Opened {
    /// Opens the disk and listens at the socket, which can be one of those that were passed to the process.
    ///
    /// # Errors
    /// If the system refuses; with the remedy.
    pub(crate) fn open(export: Export, sockets: &PassedSockets) -> anyhow::Result<Self> {
        let device = Device::new(open_disk(&export)?, &serial::of(&export));
        let listener = match &export.socket {
            None => None,
            Some(socket) => Some(Arc::new(match passed_name(socket) {
                Some(name) => Listener::passed(sockets.get(name)?),
                None => Listener::bind(socket, permissions(export.mode, export.group.as_deref())?)?,
            })),
        };
        Ok(Self {
            export,
            device: Arc::new(device),
            listener,
        })
    }
}

/// Returns the permissions of a socket with this mode and group.
///
/// # Errors
/// If there is no such group.
pub(crate) fn permissions(mode: Option<u32>, name: Option<&str>) -> anyhow::Result<Permissions> {
    let group = name.map(group).transpose()?;
    Ok(Permissions { mode, group })
}

/// Returns the number of a group.
fn group(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        // For chown(2) this number means that the group does not change.
        ensure!(
            number != u32::MAX,
            "group={number} is not a group; getent group shows the groups"
        );
        return Ok(number);
    }
    let group =
        nix::unistd::Group::from_name(name).with_context(|| format!("cannot find the group {name}"))?;
    let group = group.with_context(|| format!("there is no group {name}; getent group shows the groups"))?;
    Ok(group.gid.as_raw())
}

fn open_disk(export: &Export) -> anyhow::Result<Disk> {
    Disk::open_for(&export.source, export.access()).map_err(|error| {
        let what = match &export.source {
            Source::File(path) => cannot_open(path, export.readonly, error.kind()),
            Source::Ram(bytes) | Source::Null(bytes) => {
                format!("cannot reserve {bytes} bytes of memory for a disk; name a smaller size")
            }
        };
        anyhow::Error::new(error).context(what)
    })
}

/// Returns the error text for an image that cannot be opened, with the remedy.
fn cannot_open(path: &Path, readonly: bool, why: io::ErrorKind) -> String {
    let path = path.display();
    let how = if readonly {
        "reading"
    } else {
        "reading and writing"
    };
    let remedy = match why {
        io::ErrorKind::NotFound => format!("; truncate -s 1G {path} makes an empty disk"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !readonly => {
            "; add ',readonly' to only read it".to_owned()
        }
        io::ErrorKind::PermissionDenied => "; check that you may read it".to_owned(),
        io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory => "; name another one".to_owned(),
        _ => String::new(),
    };
    format!("cannot open the image {path} for {how}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c34_a_group_is_a_name_or_a_number_that_a_group_can_have() {
        assert_eq!(permissions(None, Some("0")).unwrap().group, Some(0));
        assert_eq!(
            permissions(None, Some("4294967294")).unwrap().group,
            Some(u32::MAX - 1)
        );
        for (name, explanation) in [
            ("4294967295", "is not a group"),
            ("4294967296", "there is no group"),
            ("-1", "there is no group"),
            ("no such group", "there is no group"),
        ] {
            let error = permissions(None, Some(name)).unwrap_err().to_string();
            assert!(error.contains(explanation), "{error}");
        }
    }
}
