//! The log of a replayed sequence, which the real loop and the reference both write.

use std::fmt;

use crate::op::{Callback, Fd, Name, Script, Side};

/// An event, and its time on the simulated clock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// In nanoseconds.
    pub(crate) at: u64,
    pub(crate) what: What,
}

/// The operations that the loop may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Watch,
    Replace,
    Interest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Called(Callback),
    /// `poll_end` of a handler whose registration has ended.
    EndedGone(Name),
    /// A nested poll begins.
    Nested,
    /// A nested poll ends, with progress or without.
    Back(bool),
    /// One iteration ended.
    Iterated,
    /// The outermost poll ended, with progress or without.
    Polled(bool),
    Panicked,
    /// The next operation will be refused.
    Refused(Verb, Fd),
    /// A wait took too many iterations.
    Busy,
    /// A violation of a rule.
    Illegal(&'static str),
}

impl What {
    /// Returns the spelling in the expectations of a trace, or `None` if traces do not mention it.
    pub(crate) fn spelled(self) -> Option<String> {
        match self {
            Self::Called(callback) => Some(callback.to_string()),
            Self::EndedGone(name) => Some(format!("{name}.end")),
            Self::Nested => Some("[".to_owned()),
            Self::Back(_) => Some("]".to_owned()),
            Self::Panicked => Some("panic".to_owned()),
            Self::Refused(..) => Some("refused".to_owned()),
            Self::Busy => Some("busy".to_owned()),
            Self::Illegal(why) => Some(why.to_owned()),
            Self::Iterated | Self::Polled(_) => None,
        }
    }
}

/// The number of entries of each kind.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally([u64; Tally::KINDS.len()]);

impl Tally {
    const KINDS: [&str; 15] = [
        "readable",
        "writable",
        "priority",
        "broken",
        "poll",
        "poll_ready",
        "begin",
        "end",
        "deferred",
        "nested",
        "panics",
        "refused",
        "busy",
        "iterations",
        "progress",
    ];

    pub(crate) fn count(&mut self, what: What) {
        let place = match what {
            What::Called(Callback::Of(_, side)) => side as usize,
            What::EndedGone(_) => Side::End as usize,
            What::Called(Callback::Deferred(_)) => 8,
            What::Nested => 9,
            What::Panicked => 10,
            What::Refused(..) => 11,
            What::Busy => 12,
            What::Iterated => 13,
            What::Polled(true) | What::Back(true) => 14,
            What::Polled(false) | What::Back(false) | What::Illegal(_) => return,
        };
        self.0[place] += 1;
    }

    /// Adds the counts of another tally.
    pub fn add(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(sum, more)| *sum += more);
    }

    /// Returns the counts by kind.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Self::KINDS.into_iter().zip(self.0)
    }

    /// Returns the sum of all counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Iterated => f.write_str(".")?,
            What::Polled(progress) => f.write_str(if progress { "+" } else { "-" })?,
            What::Back(progress) => f.write_str(if progress { "]+" } else { "]-" })?,
            What::EndedGone(name) => write!(f, "{name}.end, gone")?,
            what => f.write_str(&what.spelled().unwrap_or_default())?,
        }
        write!(f, "@{}", self.at)
    }
}

/// Scripts of callbacks. There are few, so a search walks over all.
#[derive(Debug, Default)]
pub(crate) struct Scripts(Vec<(Callback, Script)>);

impl Scripts {
    pub(crate) fn set(&mut self, callback: Callback, script: &Script) {
        self.0.retain(|(known, _)| *known != callback);
        self.0.push((callback, script.clone()));
    }

    pub(crate) fn get(&self, callback: Callback) -> Option<Script> {
        let found = self.0.iter().find(|(known, _)| *known == callback);
        found.map(|(_, script)| script.clone())
    }

    pub(crate) fn has(&self, callback: Callback) -> bool {
        self.0.iter().any(|(known, _)| *known == callback)
    }

    /// Takes a script that runs once.
    pub(crate) fn take(&mut self, callback: Callback) -> Option<Script> {
        let place = self.0.iter().position(|(known, _)| *known == callback)?;
        Some(self.0.swap_remove(place).1)
    }
}
