//! The handshake of a connection, from bytes to bytes: fixed newstyle, until the client has chosen an export.

use std::rc::Rc;

use super::catalog::{Catalog, NbdExport};
use super::options::{InfoRequest, MetaRequest};
use super::wire::{
    INIT_MAGIC, MOST_STRING, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHeader, WrongMagic, handshake, info,
    option, reply,
};

/// The longest data of an option.
pub(super) const MOST_OPTION: usize = 64 * 1024;
/// The longest read or write of a client.
pub(super) const MOST_TRANSFER: u32 = 32 * 1024 * 1024;
/// The only metadata context, and its number.
const CONTEXT: &[u8] = b"base:allocation";
pub(super) const CONTEXT_ID: u32 = 1;
/// The query that selects all contexts of the namespace, in a list.
const NAMESPACE: &[u8] = b"base:";
const PREFERRED_BLOCK: u32 = 4096;
/// The number of zeroes after the reply to the oldest option for choosing an export.
const PADDING: usize = 124;

/// The reason for which a handshake ends without an export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("malformed handshake: {0}; the client does not speak NBD")]
    Magic(#[from] WrongMagic),
    #[error("the client sends unknown flags: {0:#x}")]
    Flags(u32),
    #[error("the client sends an option of {0} bytes; at most {MOST_OPTION} are accepted")]
    TooLong(u32),
    /// The reply to this option cannot contain an error.
    #[error("{0}")]
    NoExport(String),
}

/// The agreement of a client and the server.
#[derive(Clone, Debug)]
pub(super) struct Agreement {
    pub(super) export: Rc<NbdExport>,
    /// Set if replies consist of chunks.
    pub(super) structured: bool,
    /// Set if the client may query the allocation of ranges.
    pub(super) status: bool,
}

/// The result of a message.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The message is incomplete. No byte was consumed.
    Incomplete,
    /// The handshake continues.
    Handled,
    /// The client has chosen an export. Requests follow.
    Agreed(Agreement),
    /// The client ends the handshake.
    Aborted,
}

/// The state of a handshake.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    has_flags: bool,
    no_zeroes: bool,
    structured: bool,
    /// The export for which the client has selected the context.
    selected: Option<Rc<NbdExport>>,
}

impl Negotiation {
    /// Returns the first bytes of the server.
    pub(super) fn opening() -> Vec<u8> {
        let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
        [
            &INIT_MAGIC.to_be_bytes()[..],
            &OPTION_MAGIC.to_be_bytes(),
            &flags.to_be_bytes(),
        ]
        .concat()
    }

    /// Handles the message at the beginning of `input`, and appends the reply to `out`. Returns the number of
    /// bytes of the message.
    ///
    /// # Errors
    /// [`Failure`] if the connection must end.
    pub(super) fn handle(
        &mut self,
        input: &[u8],
        catalog: &Catalog,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Outcome), Failure> {
        if !self.has_flags {
            return self.take_flags(input);
        }
        let Some(header) = OptionHeader::parse(input)? else {
            return Ok((0, Outcome::Incomplete));
        };
        let len = header.len as usize;
        if len > MOST_OPTION {
            return Err(Failure::TooLong(header.len));
        }
        let all = OptionHeader::LEN + len;
        let Some(data) = input.get(OptionHeader::LEN..all) else {
            return Ok((0, Outcome::Incomplete));
        };
        let mut replies = Replies {
            option: header.option,
            out,
        };
        let outcome = self.handle_option(header.option, data, catalog, &mut replies)?;
        Ok((all, outcome))
    }

    fn take_flags(&mut self, input: &[u8]) -> Result<(usize, Outcome), Failure> {
        let Some(flags) = input.first_chunk() else {
            return Ok((0, Outcome::Incomplete));
        };
        let flags = u32::from_be_bytes(*flags);
        let known = u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        if flags & !known != 0 {
            return Err(Failure::Flags(flags));
        }
        self.has_flags = true;
        self.no_zeroes = flags & u32::from(handshake::NO_ZEROES) != 0;
        Ok((size_of::<u32>(), Outcome::Handled))
    }

    fn handle_option(
        &mut self,
        option: u32,
        data: &[u8],
        catalog: &Catalog,
        replies: &mut Replies<'_>,
    ) -> Result<Outcome, Failure> {
        match option {
            option::EXPORT_NAME => return self.choose_by_name(data, catalog, replies.out),
            option::ABORT => {
                replies.acknowledge();
                return Ok(Outcome::Aborted);
            }
            option::LIST | option::STRUCTURED_REPLY | option::STARTTLS if !data.is_empty() => {
                replies.refuse(reply::ERR_INVALID, "the option takes no data");
            }
            option::LIST => list(catalog, replies),
            option::STRUCTURED_REPLY => {
                self.structured = true;
                replies.acknowledge();
            }
            option::STARTTLS => replies.refuse(
                reply::ERR_UNSUP,
                "TLS is not supported; use a Unix socket, or a tunnel such as ssh -L",
            ),
            option::INFO | option::GO => {
                let export = self.inform(data, catalog, replies);
                if let Some(export) = export.filter(|_| option == option::GO) {
                    return Ok(Outcome::Agreed(self.agree(export)));
                }
            }
            option::LIST_META_CONTEXT => {
                self.contexts(data, catalog, replies);
            }
            option::SET_META_CONTEXT => {
                // An option that fails also ends the selection by an earlier one.
                self.selected = None;
                self.selected = self.contexts(data, catalog, replies);
            }
            _ => replies.refuse(reply::ERR_UNSUP, "the option is not supported"),
        }
        Ok(Outcome::Handled)
    }

    fn agree(&self, export: Rc<NbdExport>) -> Agreement {
        let selected = self.selected.as_ref();
        Agreement {
            structured: self.structured,
            status: selected.is_some_and(|selected| Rc::ptr_eq(selected, &export)),
            export,
        }
    }

    /// Handles the oldest option for choosing an export. It has no reply for an error.
    fn choose_by_name(&self, name: &[u8], catalog: &Catalog, out: &mut Vec<u8>) -> Result<Outcome, Failure> {
        if name.len() > MOST_STRING {
            return Err(Failure::NoExport(
                "the client sends a name that is too long".to_owned(),
            ));
        }
        let export = catalog
            .find(name)
            .map_err(|error| Failure::NoExport(error.to_string()))?;
        out.extend(export.device.disk.size().to_be_bytes());
        out.extend(export.flags(self.structured).to_be_bytes());
        if !self.no_zeroes {
            out.extend([0; PADDING]);
        }
        Ok(Outcome::Agreed(self.agree(export)))
    }

    /// Replies with information about an export. Returns `None` after an error.
    fn inform(&self, data: &[u8], catalog: &Catalog, replies: &mut Replies<'_>) -> Option<Rc<NbdExport>> {
        let Some(request) = InfoRequest::parse(data) else {
            replies.refuse(reply::ERR_INVALID, "malformed name or list of information");
            return None;
        };
        let export = replies.find(catalog, request.name)?;
        let flags = export.flags(self.structured).to_be_bytes();
        let size = export.device.disk.size().to_be_bytes();
        replies.inform(info::EXPORT, &[&size[..], &flags].concat());
        if request.wants(info::NAME) {
            replies.inform(info::NAME, export.name.as_bytes());
        }
        if request.wants(info::DESCRIPTION) {
            replies.inform(info::DESCRIPTION, description(&export).as_bytes());
        }
        if request.wants(info::BLOCK_SIZE) {
            let sizes = [1, PREFERRED_BLOCK, MOST_TRANSFER].map(u32::to_be_bytes);
            replies.inform(info::BLOCK_SIZE, &sizes.concat());
        }
        replies.acknowledge();
        Some(export)
    }

    /// Lists or selects metadata contexts. Returns the export if its only context was selected.
    fn contexts(&self, data: &[u8], catalog: &Catalog, replies: &mut Replies<'_>) -> Option<Rc<NbdExport>> {
        if !self.structured {
            replies.refuse(reply::ERR_INVALID, "negotiate structured replies first");
            return None;
        }
        let Some(request) = MetaRequest::parse(data) else {
            replies.refuse(reply::ERR_INVALID, "malformed name or query");
            return None;
        };
        let export = replies.find(catalog, request.name)?;
        let lists = replies.option == option::LIST_META_CONTEXT;
        let is_matched = if lists {
            request.queries.is_empty()
                || request.queries.contains(&NAMESPACE)
                || request.queries.contains(&CONTEXT)
        } else {
            request.queries.contains(&CONTEXT)
        };
        if is_matched {
            let id = if lists { 0 } else { CONTEXT_ID };
            replies.add(reply::META_CONTEXT, &[&id.to_be_bytes()[..], CONTEXT].concat());
        }
        replies.acknowledge();
        is_matched.then_some(export)
    }
}

fn list(catalog: &Catalog, replies: &mut Replies<'_>) {
    for export in catalog.all() {
        let len = (export.name.len() as u32).to_be_bytes();
        let entry = [&len[..], export.name.as_bytes(), description(&export).as_bytes()].concat();
        replies.add(reply::SERVER, &entry);
    }
    replies.acknowledge();
}

/// Returns a description of an export, for people.
fn description(export: &NbdExport) -> String {
    let disk = &export.device.disk;
    let access = if disk.is_read_only() { ", read-only" } else { "" };
    format!("{} of {} bytes{access}", disk.kind(), disk.size())
}

/// The replies to one option.
struct Replies<'a> {
    option: u32,
    out: &'a mut Vec<u8>,
}

impl Replies<'_> {
    fn add(&mut self, kind: u32, data: &[u8]) {
        self.out.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        self.out.extend(self.option.to_be_bytes());
        self.out.extend(kind.to_be_bytes());
        self.out.extend((data.len() as u32).to_be_bytes());
        self.out.extend(data);
    }

    fn acknowledge(&mut self) {
        self.add(reply::ACK, &[]);
    }

    /// Replies with an error and a text for people.
    fn refuse(&mut self, error: u32, why: &str) {
        self.add(error, why.as_bytes());
    }

    fn inform(&mut self, kind: u16, data: &[u8]) {
        self.add(reply::INFO, &[&kind.to_be_bytes()[..], data].concat());
    }

    /// Finds an export, or replies that there is none.
    fn find(&mut self, catalog: &Catalog, name: &[u8]) -> Option<Rc<NbdExport>> {
        match catalog.find(name) {
            Ok(export) => Some(export),
            Err(error) => {
                self.refuse(reply::ERR_UNKNOWN, &error.to_string());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
