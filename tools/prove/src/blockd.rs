//! Long forms of blockd's tests.

use aio_tools::shell;
use anyhow::ensure;

use crate::at::{At, Outcome, Result};

const KILLS: u64 = 100;
const CLIENTS: u64 = 10_000;

/// Kills the daemon under writes, over both protocols and with both engines.
pub(crate) fn kills(at: &At<'_>) -> Result {
    let said = tests(at, &["kills::"], ("BLOCKD_KILLS", KILLS))?;
    let lines = lines_of(&said, "kills: ");
    let skipped = lines_of(&said, "skipped: ");
    ensure!(
        lines.len() == 4 || (!skipped.is_empty() && lines.len() >= 2),
        "{} of 4 combinations were run",
        lines.len()
    );
    let sum = |words: &str| -> u64 { lines.iter().filter_map(|line| number_before(line, words)).sum() };
    let all = KILLS * lines.len() as u64;
    ensure!(sum(" kills") == all, "{} kills instead of {all}", sum(" kills"));
    let tracked = sum(" of them with in-flight tracking");
    ensure!(tracked > 0, "no kill with in-flight tracking");
    let mut found = format!(
        "{all} kills in {} combinations, {tracked} of them with in-flight tracking, {} writes and {} flushes acknowledged, {} writes under way: 0 lost, \
         0 hung",
        lines.len(),
        sum(" writes and"),
        sum(" flushes"),
        sum(" writes under way"),
    );
    if let Some(why) = skipped.first() {
        found += &format!("; the ring was skipped: {why}");
    }
    Ok(Outcome::Found(found))
}

/// Connects and disconnects many clients, and counts the resources that they leave behind.
pub(crate) fn clients(at: &At<'_>) -> Result {
    let names = ["case_09", "a_thousand_clients", "a_thousand_exports"];
    let said = tests(at, &names, ("BLOCKD_CLIENTS", CLIENTS))?;
    let lines = lines_of(&said, "clients: ");
    for protocol in ["vhost-user", "NBD"] {
        let is_there = lines.iter().any(|line| line.starts_with(protocol));
        ensure!(is_there, "no client of {protocol} was run");
    }
    Ok(Outcome::Found(lines.join("; ")))
}

/// Runs tests of blockd one after the other, and returns their output.
fn tests(at: &At<'_>, names: &[&str], (variable, value): (&str, u64)) -> anyhow::Result<String> {
    let test = || {
        let mut cargo = shell::cargo();
        cargo
            .args(["test", "--locked", "--package", "blockd", "--test", "it"])
            .env(variable, value.to_string());
        cargo
    };
    at.built_tests(test, &[names, &["--nocapture", "--test-threads=1"]].concat())
}

/// Returns the rest of each line after this text. Other text can precede it.
fn lines_of<'a>(said: &'a str, start: &str) -> Vec<&'a str> {
    said.lines()
        .filter_map(|line| Some(line.split_once(start)?.1))
        .collect()
}

/// Returns the number before these words.
fn number_before(line: &str, words: &str) -> Option<u64> {
    let (before, _) = line.split_once(words)?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tests_are_read() {
        let said = "test a ... AIO_SEED=1\nkills: NBD, uring: 100 kills, 50 of them with in-flight tracking, 61 writes and 4 flushes acknowledged, 40 writes under way, 0 lost, 0 hung\nok\n\
                    test b ... kills: x\n";
        let lines = lines_of(said, "kills: ");
        assert_eq!(lines.len(), 2);
        let words = [
            " kills",
            " of them with",
            " writes and",
            " flushes",
            " writes under way",
        ];
        let numbers = words.map(|words| number_before(lines[0], words));
        assert_eq!(numbers, [100, 50, 61, 4, 40].map(Some));
        assert_eq!(number_before(lines[1], " kills"), None);
    }
}
