//! Arbitrary option strings: an accepted string has a meaning that can be written as a string again.

use std::time::Duration;

use crate::disk::{SECTOR, Source};
use crate::duration::parse_poll_max;
use crate::export::{Export, IoThreads, MOST_QUEUES};
use crate::metrics::parse_address;
use crate::nbd::Address;

/// Writes an export in the form of `--export`.
fn describe(export: &Export) -> String {
    let mut text = match &export.source {
        Source::File(path) => format!("path={}", path.display()),
        Source::Ram(bytes) => format!("ram={bytes}"),
        Source::Null(bytes) => format!("null={bytes}"),
    };
    let mut add = |part: String| {
        text.push(',');
        text += &part;
    };
    if let Some(socket) = &export.socket {
        add(format!("socket={}", socket.display()));
        add(format!("queues={}", export.queues));
    }
    if let Some(mode) = export.mode {
        add(format!("mode={mode:o}"));
    }
    if let Some(group) = &export.group {
        add(format!("group={group}"));
    }
    if export.readonly {
        add("readonly".to_owned());
    }
    if let Source::File(_) = export.source {
        add(format!("lock={}", if export.lock { "on" } else { "off" }));
        add(format!(
            "cache={}",
            if export.direct { "none" } else { "writeback" }
        ));
        if export.raw {
            add("format=raw".to_owned());
        }
    }
    add(format!("discard={}", if export.discard { "on" } else { "off" }));
    add(format!("block-size={}", export.block_size));
    if let Some(serial) = &export.serial {
        add(format!("serial={serial}"));
    }
    if let Some(name) = &export.name {
        add(format!("name={name}"));
    }
    match &export.iothreads {
        IoThreads::Any => {}
        IoThreads::All => add("iothread=all".to_owned()),
        IoThreads::These(threads) => {
            let numbers: Vec<String> = threads.iter().map(usize::to_string).collect();
            add(format!("iothread={}", numbers.join("+")));
        }
    }
    text
}

/// Returns `true` if both exports are equal. Fields that [`describe`] does not write belong to the execution,
/// not to the disk.
fn is_the_same(one: &Export, other: &Export) -> bool {
    let fields = |export: &Export| {
        (
            export.source.clone(),
            export.socket.clone(),
            (export.mode, export.group.clone(), export.queues, export.readonly),
            (
                export.lock,
                export.raw,
                export.discard,
                export.block_size,
                export.direct,
            ),
            (
                export.serial.clone(),
                export.name.clone(),
                export.iothreads.clone(),
            ),
        )
    };
    fields(one) == fields(other)
}

fn check_export(text: &str) {
    let export: Export = match text.parse() {
        Ok(export) => export,
        Err(why) => return assert!(!why.is_empty(), "an error without a text"),
    };
    assert!((1..=MOST_QUEUES).contains(&export.queues));
    assert!(export.mode.is_none_or(|mode| mode <= 0o777));
    assert!(export.serial.as_ref().is_none_or(|serial| serial.len() <= 20));
    assert!(export.nbd_name().len() <= 255 || export.name.is_none());
    match export.source {
        Source::Ram(bytes) | Source::Null(bytes) => {
            assert!(bytes >= SECTOR && bytes >= export.block_size.into());
        }
        Source::File(_) => {}
    }
    let again = describe(&export);
    let parsed: Export = again
        .parse()
        .unwrap_or_else(|why| panic!("{text:?} means {again:?}, which is refused: {why}"));
    assert!(
        is_the_same(&parsed, &export),
        "{text:?} means {again:?}, which means {parsed:?}"
    );
}

/// Parses an option string. The first byte selects the kind: an export, an address, or a duration.
///
/// # Panics
/// If an accepted value breaks a limit, or changes when it is written and parsed again.
pub fn export(data: &[u8]) {
    let Some((how, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    match how % 4 {
        0 | 1 => check_export(&text),
        2 => {
            if let Ok(address) = text.parse::<Address>() {
                assert_eq!(address.to_string().parse(), Ok(address));
            }
            if let Ok(address) = parse_address(&text) {
                assert_eq!(parse_address(&address.to_string()), Ok(address));
            }
        }
        _ => {
            if let Ok(duration) = parse_poll_max(&text) {
                assert!(duration <= Duration::from_secs(1), "{text:?} is {duration:?}");
            }
        }
    }
}
