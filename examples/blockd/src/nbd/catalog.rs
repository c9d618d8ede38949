//! [`Catalog`]: the exports that clients can choose.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::moving::MoveClient;
use super::stats::NbdStats;
use super::wire::transmission;
use super::writes::Writes;
use crate::engine::Workers;
use crate::limit::LineLimit;
use crate::request::Device;

/// A disk that clients can choose.
#[derive(Debug)]
pub(crate) struct NbdExport {
    /// The name by which clients choose the export.
    pub(crate) name: String,
    pub(crate) device: Arc<Device>,
    /// The threads that execute requests. Without them the loop executes requests.
    pub(crate) workers: Option<Rc<Workers>>,
    /// Limits the log lines about its clients.
    pub(crate) limit: Rc<LineLimit>,
    pub(crate) stats: Rc<NbdStats>,
    /// The incomplete writes of its clients.
    pub(crate) writes: Rc<Writes>,
}

impl NbdExport {
    /// Returns the features that the client may use.
    pub(super) fn flags(&self, structured: bool) -> u16 {
        let disk = &self.device.disk;
        let mut flags = transmission::HAS_FLAGS
            | transmission::SEND_FLUSH
            | transmission::SEND_FUA
            | transmission::CAN_MULTI_CONN
            | transmission::SEND_CACHE;
        if disk.is_read_only() {
            flags |= transmission::READ_ONLY;
        } else {
            flags |= transmission::SEND_WRITE_ZEROES;
        }
        if disk.can_discard() {
            flags |= transmission::SEND_TRIM;
        }
        if structured {
            flags |= transmission::SEND_DF;
        }
        flags
    }
}

/// The reason for which a client gets no export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoExport {
    #[error("there is no export {0:?}")]
    Unknown(String),
    #[error("there are {0} exports: name one")]
    NoDefault(usize),
}

/// The exports, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Catalog {
    exports: RefCell<Vec<Rc<NbdExport>>>,
    /// The exports of other loops among these, and the functions that move a client there.
    elsewhere: RefCell<Vec<(Rc<NbdExport>, MoveClient)>>,
}

impl Catalog {
    /// Adds an export. Its name must differ from those of the others.
    pub(crate) fn add(&self, export: NbdExport) {
        self.exports.borrow_mut().push(Rc::new(export));
    }

    /// Adds an export that another loop serves. Clients that choose it are moved there.
    pub(crate) fn add_elsewhere(&self, name: String, device: Arc<Device>, move_client: MoveClient) {
        let export = Rc::new(NbdExport {
            limit: LineLimit::new(name.as_str().into(), None),
            name,
            device,
            workers: None,
            stats: Rc::default(),
            writes: Rc::default(),
        });
        self.exports.borrow_mut().push(export.clone());
        self.elsewhere.borrow_mut().push((export, move_client));
    }

    /// Returns the function that moves a client to the loop of this export, if that is another loop.
    pub(super) fn elsewhere(&self, export: &Rc<NbdExport>) -> Option<MoveClient> {
        let elsewhere = self.elsewhere.borrow();
        let found = elsewhere.iter().find(|(other, _)| Rc::ptr_eq(other, export));
        found.map(|(_, move_client)| move_client.clone())
    }

    /// Removes the export of a device.
    pub(crate) fn remove(&self, device: &Arc<Device>) {
        let is_other = |export: &Rc<NbdExport>| !Arc::ptr_eq(&export.device, device);
        self.exports.borrow_mut().retain(is_other);
        self.elsewhere.borrow_mut().retain(|(export, _)| is_other(export));
    }

    /// Returns the export of this device.
    pub(super) fn of(&self, device: &Arc<Device>) -> Option<Rc<NbdExport>> {
        let exports = self.exports.borrow();
        let found = exports.iter().find(|export| Arc::ptr_eq(&export.device, device));
        found.cloned()
    }

    /// Returns all exports.
    pub(super) fn all(&self) -> Vec<Rc<NbdExport>> {
        self.exports.borrow().clone()
    }

    /// Returns the export `name`. The empty name is that of the only export.
    ///
    /// # Errors
    /// If there is no such export.
    pub(super) fn find(&self, name: &[u8]) -> Result<Rc<NbdExport>, NoExport> {
        let exports = self.exports.borrow();
        let found = exports.iter().find(|export| export.name.as_bytes() == name);
        match (found, &exports[..]) {
            (Some(export), _) => Ok(export.clone()),
            (None, [only]) if name.is_empty() => Ok(only.clone()),
            (None, exports) if name.is_empty() => Err(NoExport::NoDefault(exports.len())),
            (None, _) => Err(NoExport::Unknown(printable(name))),
        }
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog")
            .field("exports", &self.exports)
            .finish_non_exhaustive()
    }
}

/// Returns a name in a form for log lines and messages.
fn printable(name: &[u8]) -> String {
    const MOST: usize = 100;
    let text = String::from_utf8_lossy(name);
    let mut short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::{Disk, Source};

    /// Returns a catalog of RAM disks with these names.
    pub(in super::super) fn catalog(names: &[&str]) -> Catalog {
        let catalog = Catalog::default();
        for name in names {
            catalog.add(export(name, &Source::Ram(1 << 20), false));
        }
        catalog
    }

    pub(in super::super) fn export(name: &str, source: &Source, read_only: bool) -> NbdExport {
        let disk = Disk::open(source, read_only).unwrap();
        NbdExport {
            name: name.to_owned(),
            device: Arc::new(Device::new(disk, "")),
            workers: None,
            limit: LineLimit::new(name.into(), None),
            stats: Rc::default(),
            writes: Rc::default(),
        }
    }

    #[test]
    fn the_empty_name_is_that_of_the_only_export() {
        let one = catalog(&["a"]);
        assert_eq!(one.find(b"a").unwrap().name, "a");
        assert_eq!(one.find(b"").unwrap().name, "a");
        let unknown = one.find(b"b").unwrap_err();
        assert_eq!(unknown, NoExport::Unknown("b".to_owned()));
        let two = catalog(&["a", "b"]);
        assert_eq!(two.find(b"b").unwrap().name, "b");
        assert_eq!(two.find(b"").unwrap_err(), NoExport::NoDefault(2));
        assert!(catalog(&[]).find(b"").is_err());
    }

    #[test]
    fn names_in_messages_are_short() {
        let unknown = catalog(&[]).find(&[0xff; 4096]).unwrap_err();
        assert!(unknown.to_string().len() < 500);
    }

    #[test]
    fn flags_follow_from_the_disk() {
        let writable = export("a", &Source::Ram(512), false);
        let flags = writable.flags(true);
        assert_eq!(flags & transmission::READ_ONLY, 0);
        assert_ne!(flags & transmission::SEND_TRIM, 0);
        assert_ne!(flags & transmission::SEND_DF, 0);
        let read_only = export("a", &Source::Ram(512), true);
        let flags = read_only.flags(false);
        assert_ne!(flags & transmission::READ_ONLY, 0);
        assert_eq!(
            flags & (transmission::SEND_TRIM | transmission::SEND_WRITE_ZEROES),
            0
        );
        assert_eq!(flags & transmission::SEND_DF, 0);
    }
}
