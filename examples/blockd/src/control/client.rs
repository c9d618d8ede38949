//! `blockd ctl`: sends a command and prints the answer.

use std::io::{self, Write};

use anyhow::Context as _;

use super::args::{Action, CtlArgs};
use super::connection::Connection;
use super::stats;
use super::table::Table;
use crate::figures::{ImageState, List};

/// Executes `blockd ctl`.
pub(super) fn run(args: &CtlArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let path = args
        .control
        .as_deref()
        .context("name the control socket of the daemon: --control PATH, or the variable BLOCKD_CONTROL")?;
    let mut connection = Connection::open(path)?;
    if let Action::Stats {
        watch: true,
        interval,
    } = args.action
    {
        return stats::watch(&mut connection, interval, args.json, out);
    }
    let answer = connection.send(&args.action.command())?;
    if args.json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    let warning = answer["warning"].as_str().map(str::to_owned);
    match &args.action {
        Action::Stats { .. } => stats::print(&serde_json::from_value(answer)?, out)?,
        Action::List => print_list(&serde_json::from_value(answer)?, out)?,
        Action::Remove { name } => match answer["incomplete_requests"].as_u64() {
            Some(0) | None => writeln!(out, "{name} is removed")?,
            Some(count) => writeln!(
                out,
                "{name} is removed; {count} requests were not completed in time, or their replies not read by NBD clients; the driver of a guest \
                 regards its own as outstanding"
            )?,
        },
        Action::Resize { name, .. } => writeln!(out, "{name} has {} bytes", answer["size"])?,
        Action::SetPoll { .. } => {
            writeln!(out, "polling: {}", answer["polling"].as_str().unwrap_or_default())?;
        }
        Action::Add { .. } | Action::LogLevel { .. } => writeln!(out, "done")?,
    }
    if let Some(warning) = warning {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

fn print_list(list: &List, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&["NAME", "DISK", "SIZE", "CLIENT", "QUEUES", "THREAD", "SOCKET"]);
    for export in &list.exports {
        let notes = [
            export.readonly.then_some("read-only"),
            match export.image {
                ImageState::InPlace => None,
                ImageState::Replaced => Some("replaced by another file"),
                ImageState::Missing => Some("renamed or deleted"),
            },
        ];
        let notes: Vec<&str> = notes.into_iter().flatten().collect();
        let disk = match notes.is_empty() {
            true => export.disk.clone(),
            false => format!("{} ({})", export.disk, notes.join("; ")),
        };
        let client = match (export.is_leaving, export.connected) {
            (true, _) => "leaving",
            (false, true) => "connected",
            (false, false) => "none",
        };
        table.row([
            export.name.clone(),
            disk,
            bytes(export.size),
            client.to_owned(),
            format!("{} of {}", export.serving, export.queues),
            export.thread.clone(),
            export.socket.clone(),
        ]);
    }
    table.write(out)?;
    for event_loop in &list.loops {
        let (name, backend) = (&event_loop.name, &event_loop.backend);
        if !event_loop.responds {
            writeln!(
                out,
                "loop {name}: does not respond; an image or a callback blocks it"
            )?;
            continue;
        }
        writeln!(
            out,
            "loop {name}: waits with {backend}; polling {}",
            event_loop.polling
        )?;
    }
    Ok(())
}

/// Formats a number of bytes with the largest unit of which it is a multiple.
fn bytes(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let whole = |(shift, _): &(u32, &str)| bytes >> shift > 0 && bytes.is_multiple_of(1 << shift);
    match units.into_iter().find(whole) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}
