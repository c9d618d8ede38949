//! Handshakes, byte by byte: valid ones and hostile ones.

use super::super::catalog::tests::catalog;
use super::super::wire::{Fields, transmission};
use super::*;

/// A client's side of a handshake.
struct Handshake {
    negotiation: Negotiation,
    catalog: Catalog,
}

/// A reply to an option: its type and data.
type Reply = (u32, Vec<u8>);

impl Handshake {
    /// Returns a handshake after the flags of the client.
    fn new(names: &[&str]) -> Self {
        let mut fresh = Self::before_flags(names);
        assert!(matches!(fresh.send(&3u32.to_be_bytes()), Ok(Outcome::Handled)));
        fresh
    }

    fn before_flags(names: &[&str]) -> Self {
        Self {
            negotiation: Negotiation::default(),
            catalog: catalog(names),
        }
    }

    fn send_raw(&mut self, message: &[u8]) -> Result<(Outcome, Vec<u8>), Failure> {
        let mut out = Vec::new();
        // Each beginning of a message is incomplete and has no effect.
        for len in 0..message.len() {
            let handled = self
                .negotiation
                .handle(&message[..len], &self.catalog, &mut out)?;
            assert!(matches!(handled, (0, Outcome::Incomplete)), "{len} bytes");
            assert!(out.is_empty());
        }
        let (consumed, outcome) = self.negotiation.handle(message, &self.catalog, &mut out)?;
        assert_eq!(consumed, message.len());
        Ok((outcome, out))
    }

    fn send(&mut self, message: &[u8]) -> Result<Outcome, Failure> {
        self.send_raw(message).map(|(outcome, _)| outcome)
    }

    /// Sends an option whose replies have the usual format.
    fn option(&mut self, option: u32, data: &[u8]) -> (Outcome, Vec<Reply>) {
        let (outcome, out) = self.send_raw(&message(option, data)).unwrap();
        (outcome, replies(option, &out))
    }

    /// Sends an option with a single reply. Returns the type of the reply.
    fn only_reply(&mut self, option: u32, data: &[u8]) -> u32 {
        let (outcome, replies) = self.option(option, data);
        assert!(matches!(outcome, Outcome::Handled));
        assert_eq!(replies.len(), 1);
        replies[0].0
    }
}

fn message(option: u32, data: &[u8]) -> Vec<u8> {
    let len = data.len() as u32;
    [
        &OPTION_MAGIC.to_be_bytes()[..],
        &option.to_be_bytes(),
        &len.to_be_bytes(),
        data,
    ]
    .concat()
}

fn replies(option: u32, out: &[u8]) -> Vec<Reply> {
    let mut fields = Fields(out);
    let mut replies = Vec::new();
    while !fields.is_empty() {
        assert_eq!(fields.u64(), Some(OPTION_REPLY_MAGIC));
        assert_eq!(fields.u32(), Some(option));
        let kind = fields.u32().unwrap();
        let len = fields.u32().unwrap();
        replies.push((kind, fields.bytes(len as usize).unwrap().to_vec()));
    }
    replies
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

/// Returns the data of an option that requests information.
fn wanted(name: &str, kinds: &[u16]) -> Vec<u8> {
    let kinds: Vec<u8> = kinds.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    let count = (kinds.len() as u16 / 2).to_be_bytes();
    [&string(name.as_bytes())[..], &count, &kinds].concat()
}

fn query(name: &str, queries: &[&[u8]]) -> Vec<u8> {
    let count = (queries.len() as u32).to_be_bytes();
    let queries: Vec<u8> = queries.iter().flat_map(|query| string(query)).collect();
    [&string(name.as_bytes())[..], &count, &queries].concat()
}

#[test]
fn the_opening_offers_fixed_newstyle() {
    let opening = Negotiation::opening();
    assert_eq!(opening[..16], *b"NBDMAGICIHAVEOPT");
    assert_eq!(opening[16..], [0, 3]);
}

#[test]
fn an_export_is_chosen() {
    let mut client = Handshake::new(&["a", "b"]);
    let (outcome, replies) = client.option(option::GO, &wanted("b", &[info::BLOCK_SIZE, info::NAME, 77]));
    let Outcome::Agreed(agreement) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(agreement.export.name, "b");
    assert!(!agreement.structured && !agreement.status);
    let kinds: Vec<u32> = replies.iter().map(|reply| reply.0).collect();
    assert_eq!(kinds, [reply::INFO, reply::INFO, reply::INFO, reply::ACK]);
    let mut export = Fields(&replies[0].1);
    assert_eq!(export.u16(), Some(info::EXPORT));
    assert_eq!(export.u64(), Some(1 << 20));
    assert_eq!(export.u16().unwrap() & transmission::HAS_FLAGS, 1);
    assert_eq!(replies[1].1, [&[0, 1][..], b"b"].concat());
    let mut sizes = Fields(&replies[2].1);
    assert_eq!(sizes.u16(), Some(info::BLOCK_SIZE));
    assert_eq!(
        [sizes.u32(), sizes.u32(), sizes.u32()],
        [Some(1), Some(4096), Some(32 << 20)]
    );
}

#[test]
fn information_does_not_choose() {
    let mut client = Handshake::new(&["a"]);
    let (outcome, replies) = client.option(option::INFO, &wanted("a", &[info::DESCRIPTION]));
    assert!(matches!(outcome, Outcome::Handled));
    assert_eq!(replies.len(), 3);
    let text = String::from_utf8(replies[1].1[2..].to_vec()).unwrap();
    assert!(text.contains("1048576 bytes"), "{text}");
    assert_eq!(
        client.only_reply(option::INFO, &wanted("x", &[])),
        reply::ERR_UNKNOWN
    );
    assert_eq!(
        client.only_reply(option::GO, &wanted("x", &[])),
        reply::ERR_UNKNOWN
    );
    assert_eq!(client.only_reply(option::GO, b"junk"), reply::ERR_INVALID);
    assert!(matches!(
        client.option(option::GO, &wanted("", &[])).0,
        Outcome::Agreed(_)
    ));
}

#[test]
fn exports_are_listed() {
    let mut client = Handshake::new(&["a", "disk two"]);
    let (_, replies) = client.option(option::LIST, &[]);
    let names: Vec<&[u8]> = replies[..2]
        .iter()
        .map(|(kind, data)| {
            assert_eq!(*kind, reply::SERVER);
            Fields(data).string().unwrap()
        })
        .collect();
    assert_eq!(names, [&b"a"[..], b"disk two"]);
    assert_eq!(replies[2], (reply::ACK, Vec::new()));
    assert_eq!(client.only_reply(option::LIST, b"x"), reply::ERR_INVALID);
}

#[test]
fn the_oldest_way_to_choose() {
    for (flags, padding) in [(3u32, 0), (1, 124), (0, 124)] {
        let mut client = Handshake::before_flags(&["a"]);
        client.send(&flags.to_be_bytes()).unwrap();
        let (outcome, out) = client.send_raw(&message(option::EXPORT_NAME, b"a")).unwrap();
        assert!(matches!(outcome, Outcome::Agreed(_)));
        assert_eq!(out.len(), 10 + padding);
        assert_eq!(Fields(&out).u64(), Some(1 << 20));
    }
    for name in [&b"x"[..], &[b'a'; 4097]] {
        let mut client = Handshake::new(&["a"]);
        let (mut out, unknown) = (Vec::new(), message(option::EXPORT_NAME, name));
        let failed = client.negotiation.handle(&unknown, &client.catalog, &mut out);
        assert!(matches!(failed, Err(Failure::NoExport(_))));
        assert!(out.is_empty());
    }
}

#[test]
fn metadata_contexts_need_structured_replies() {
    let mut client = Handshake::new(&["a", "b"]);
    let select = query("a", &[b"base:allocation"]);
    assert_eq!(
        client.only_reply(option::SET_META_CONTEXT, &select),
        reply::ERR_INVALID
    );
    assert_eq!(
        client.only_reply(option::STRUCTURED_REPLY, b"x"),
        reply::ERR_INVALID
    );
    assert_eq!(client.only_reply(option::STRUCTURED_REPLY, &[]), reply::ACK);
    let context = |id: u32| (reply::META_CONTEXT, [&id.to_be_bytes()[..], CONTEXT].concat());
    for queries in [&[][..], &[&b"base:"[..]], &[b"x-other:", b"base:allocation"]] {
        let (_, replies) = client.option(option::LIST_META_CONTEXT, &query("a", queries));
        assert_eq!(replies, [context(0), (reply::ACK, Vec::new())]);
    }
    for queries in [
        &[][..],
        &[&b"base:"[..]],
        &[b"qemu:dirty-bitmap:x"],
        &[b"base:depth"],
    ] {
        assert_eq!(
            client.only_reply(option::SET_META_CONTEXT, &query("a", queries)),
            reply::ACK
        );
    }
    assert_eq!(
        client.only_reply(option::SET_META_CONTEXT, &query("x", &[])),
        reply::ERR_UNKNOWN
    );
    assert_eq!(
        client.only_reply(option::LIST_META_CONTEXT, b"x"),
        reply::ERR_INVALID
    );
    let (_, replies) = client.option(option::SET_META_CONTEXT, &select);
    assert_eq!(replies, [context(CONTEXT_ID), (reply::ACK, Vec::new())]);
    let Outcome::Agreed(agreement) = client.option(option::GO, &wanted("a", &[])).0 else {
        panic!("no export");
    };
    assert!(agreement.structured && agreement.status);
}

#[test]
fn a_context_is_that_of_one_export() {
    let mut client = Handshake::new(&["a", "b"]);
    client.only_reply(option::STRUCTURED_REPLY, &[]);
    client.option(option::SET_META_CONTEXT, &query("a", &[CONTEXT]));
    let Outcome::Agreed(agreement) = client.option(option::GO, &wanted("b", &[])).0 else {
        panic!("no export");
    };
    assert!(agreement.structured && !agreement.status);
    // A later selection that fails ends an earlier one.
    let mut client = Handshake::new(&["a"]);
    client.only_reply(option::STRUCTURED_REPLY, &[]);
    client.option(option::SET_META_CONTEXT, &query("a", &[CONTEXT]));
    assert_eq!(
        client.only_reply(option::SET_META_CONTEXT, b"junk"),
        reply::ERR_INVALID
    );
    let Outcome::Agreed(agreement) = client.option(option::GO, &wanted("a", &[])).0 else {
        panic!("no export");
    };
    assert!(!agreement.status);
}

#[test]
fn other_options_are_refused_and_the_handshake_goes_on() {
    let mut client = Handshake::new(&["a"]);
    assert_eq!(client.only_reply(option::STARTTLS, &[]), reply::ERR_UNSUP);
    assert_eq!(client.only_reply(option::STARTTLS, b"x"), reply::ERR_INVALID);
    for unknown in [0, 4, 11, 77, u32::MAX] {
        assert_eq!(client.only_reply(unknown, b"data"), reply::ERR_UNSUP);
    }
    let (outcome, replies) = client.option(option::ABORT, b"ignored");
    assert!(matches!(outcome, Outcome::Aborted));
    assert_eq!(replies, [(reply::ACK, Vec::new())]);
}

#[test]
fn hostile_beginnings_end_the_connection() {
    let mut client = Handshake::before_flags(&["a"]);
    let mut out = Vec::new();
    let failed = client
        .negotiation
        .handle(b"GET / HTTP/1.1\r\n", &client.catalog, &mut out);
    assert!(matches!(failed, Err(Failure::Flags(_))));
    let mut client = Handshake::new(&["a"]);
    let failed = client.negotiation.handle(b"GET / HT", &client.catalog, &mut out);
    assert!(matches!(failed, Err(Failure::Magic(_))));
    // No data are collected for an option that is too long.
    for len in [MOST_OPTION as u32 + 1, u32::MAX] {
        let mut client = Handshake::new(&["a"]);
        let header = [
            &OPTION_MAGIC.to_be_bytes()[..],
            &option::GO.to_be_bytes(),
            &len.to_be_bytes(),
        ]
        .concat();
        let failed = client.negotiation.handle(&header, &client.catalog, &mut out);
        assert_eq!(failed.unwrap_err(), Failure::TooLong(len));
    }
    assert!(out.is_empty());
}
