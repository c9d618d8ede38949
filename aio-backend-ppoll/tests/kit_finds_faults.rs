//! The conformance kit finds what is wrong: a good backend with one fault each, and the promise that it breaks.

use std::collections::{HashMap, HashSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use aio_backend::conformance::{check, walk};
use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};
use aio_backend_ppoll::Ppoll;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    ReportsOnce,
    IgnoresModify,
    ForgetsHangUps,
    KeepsShares,
    ReportsTheOldToken,
    AlwaysBeginsAtTheFront,
    EndsEarly,
    RoundsToMilliseconds,
    OverfillsTheList,
    RefusesUnknownsSilently,
    LosesAllWhenRebalanced,
    DrainsHalf,
    HearsTheSilent,
    CallsInterruptionsErrors,
    BlocksWhenTheListIsFull,
}

#[derive(Debug)]
struct Faulty {
    good: Ppoll,
    fault: Fault,
    told: HashSet<u64>,
    kept: Vec<Watched>,
    first_tokens: HashMap<u32, Token>,
    interests: HashMap<u64, Interest>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self {
            good: Ppoll::new(),
            fault,
            told: HashSet::new(),
            kept: Vec::new(),
            first_tokens: HashMap::new(),
            interests: HashMap::new(),
        }
    }

    fn distort(&mut self, token: Token, readiness: Readiness) -> Option<(Token, Readiness)> {
        match self.fault {
            Fault::ReportsOnce if !self.told.insert(token.to_bits()) => None,
            Fault::ForgetsHangUps => Some((token, readiness - Readiness::HUP)),
            Fault::ReportsTheOldToken => Some((
                *self.first_tokens.get(&token.index()).unwrap_or(&token),
                readiness,
            )),
            _ => Some((token, readiness)),
        }
    }
}

impl Backend for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.fault == Fault::KeepsShares {
            self.kept.push(fd.clone());
        }
        self.first_tokens.entry(token.index()).or_insert(token);
        self.interests.insert(token.to_bits(), interest);
        let heard = if self.fault == Fault::HearsTheSilent && interest == Interest::NONE {
            Interest::READ
        } else {
            interest
        };
        self.good.add(fd, token, heard)
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        match self.fault {
            Fault::IgnoresModify if self.interests.contains_key(&token.to_bits()) => Ok(()),
            Fault::RefusesUnknownsSilently => {
                let _ = self.good.modify(token, interest);
                Ok(())
            }
            _ => self.good.modify(token, interest),
        }
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.interests.remove(&token.to_bits());
        self.good.remove(token)
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let timeout = match self.fault {
            Fault::EndsEarly => timeout.map(|timeout| timeout / 2),
            Fault::RoundsToMilliseconds => {
                timeout.map(|timeout| Duration::from_millis(timeout.as_nanos().div_ceil(1_000_000) as u64))
            }
            _ => timeout,
        };
        let began = Instant::now();
        let room = match self.fault {
            Fault::OverfillsTheList | Fault::AlwaysBeginsAtTheFront | Fault::BlocksWhenTheListIsFull => {
                10_000
            }
            _ => ready.room(),
        };
        if room == 0 {
            return Ok(());
        }
        if self.fault == Fault::BlocksWhenTheListIsFull && ready.room() == 0 {
            // It would block for ever: as good as a panic.
            panic!("it blocks");
        }
        let mut found = ReadyList::with_limit(room);
        self.good.wait(timeout, &mut found)?;
        if self.fault == Fault::CallsInterruptionsErrors
            && found.is_empty()
            && timeout.is_none_or(|timeout| began.elapsed() < timeout)
        {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut found: Vec<_> = found.iter().collect();
        if self.fault == Fault::AlwaysBeginsAtTheFront {
            found.sort_by_key(|(token, _)| *token);
        }
        for (token, readiness) in found {
            let Some((token, readiness)) = self.distort(token, readiness) else {
                continue;
            };
            if self.fault == Fault::OverfillsTheList && ready.is_full() {
                *ready = std::mem::take(ready);
            }
            if !ready.push(token, readiness) && self.fault == Fault::OverfillsTheList {
                let mut larger = ReadyList::with_limit(ready.limit() + 1);
                ready.iter().for_each(|(token, readiness)| {
                    larger.push(token, readiness);
                });
                larger.push(token, readiness);
                *ready = larger;
            }
        }
        Ok(())
    }

    fn rebalance(&mut self) {
        if self.fault == Fault::LosesAllWhenRebalanced {
            self.good.drain(&mut |_, _, _| {});
        }
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        let mut number = 0;
        let skips = self.fault == Fault::DrainsHalf;
        self.good.drain(&mut |fd, token, interest| {
            number += 1;
            if !skips || number % 2 == 0 {
                each(fd, token, interest);
            }
        });
    }
}

#[test]
fn b6_without_a_fault_there_is_no_complaint() {
    for promise in aio_backend::conformance::PROMISES {
        (promise.run)(&mut Faulty::new(Fault::None));
    }
    walk(&mut Faulty::new(Fault::None));
}

#[test]
fn b6_every_fault_is_found_by_its_promise() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for (fault, promise) in [
        (Fault::ReportsOnce, "level_triggered_until_consumed"),
        (Fault::IgnoresModify, "modify_changes_what_is_reported"),
        (Fault::ForgetsHangUps, "hang_up_is_told"),
        (Fault::KeepsShares, "shares_are_kept_and_let_go"),
        (Fault::ReportsTheOldToken, "remove_and_use_the_number_again"),
        (Fault::AlwaysBeginsAtTheFront, "nobody_starves_past_one_batch"),
        (Fault::EndsEarly, "timeout_of_5_ms"),
        (Fault::RoundsToMilliseconds, "timeout_not_a_millisecond_late"),
        (Fault::OverfillsTheList, "nobody_starves_past_one_batch"),
        (Fault::RefusesUnknownsSilently, "unknown_tokens_are_errors"),
        (Fault::LosesAllWhenRebalanced, "rebalance_loses_nothing"),
        (Fault::DrainsHalf, "drain_hands_everything_over"),
        (Fault::HearsTheSilent, "silence_covers_everything_and_can_be_left"),
        (Fault::CallsInterruptionsErrors, "interruptions_are_no_errors"),
        (Fault::BlocksWhenTheListIsFull, "a_full_list_gets_nothing"),
    ] {
        if catch_unwind(AssertUnwindSafe(|| check(promise, &mut Faulty::new(fault)))).is_ok() {
            missed.push((fault, promise));
        }
    }
    for fault in [
        Fault::ReportsOnce,
        Fault::IgnoresModify,
        Fault::ForgetsHangUps,
        Fault::HearsTheSilent,
    ] {
        if catch_unwind(AssertUnwindSafe(|| walk(&mut Faulty::new(fault)))).is_ok() {
            missed.push((fault, "the random walk"));
        }
    }
    std::panic::set_hook(quiet);
    assert_eq!(missed, [], "faults that were not found");
}
