//! The conformance kit finds what is wrong: a good backend with one fault each, and the promises that it breaks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faulty;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aio_backend::conformance::{PROMISES, check, walk};

use crate::faulty::{Fault, Faulty};

/// Every fault, and a promise that it breaks. Every promise is there, so that none is one that nobody can break.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::DeafToOut, "readiness_of_a_pipe"),
    (Fault::TellsOneOfTwo, "readiness_of_a_socket"),
    (Fault::DeafToIn, "readiness_of_an_eventfd"),
    (Fault::DeafToHangUps, "readiness_of_a_terminal"),
    (Fault::DeafToSets, "readiness_of_a_set"),
    (Fault::RefusesFiles, "a_regular_file_is_always_ready"),
    (Fault::TellsOnce, "a_regular_file_is_always_ready"),
    (Fault::TellsOnce, "level_triggered_until_consumed"),
    (Fault::TellsOnceUntilModified, "level_triggered_until_consumed"),
    (Fault::TellsOnceUntilModified, "edges_tell_of_every_new_activity"),
    (Fault::ClaimsEdges, "edges_are_told_once_where_they_are_claimed"),
    (Fault::DeafToHangUps, "hang_up_is_told"),
    (Fault::DeafToErrors, "errors_are_told"),
    (
        Fault::TellsClosedNumbersAsReadable,
        "a_closed_number_is_told_or_silent",
    ),
    (Fault::TakesClosedNumbers, "a_closed_number_is_refused"),
    (Fault::IgnoresModify, "modify_changes_what_is_reported"),
    (Fault::TellsWhatWasNotAsked, "only_what_is_asked_for_is_told"),
    (Fault::HearsTheSilent, "silence_covers_everything_and_can_be_left"),
    (
        Fault::CannotLeaveSilence,
        "silence_covers_everything_and_can_be_left",
    ),
    (Fault::SpinsWhenTheSilentHangUp, "silence_does_not_spin"),
    (Fault::TellsWhoIsGone, "remove_and_use_the_number_again"),
    (Fault::TellsTheFirstToken, "remove_and_use_the_slot_again"),
    (Fault::TellsTheFirstToken, "remove_and_use_the_number_again"),
    (
        Fault::RemovesTwins,
        "another_descriptor_of_the_same_file_is_another_registration",
    ),
    (Fault::TakesTokensTwice, "a_known_token_is_refused"),
    (Fault::KeepsSharesOfTheRefused, "a_known_token_is_refused"),
    (Fault::SwallowsUnknownTokens, "unknown_tokens_are_errors"),
    (Fault::KeepsShares, "shares_are_kept_and_let_go"),
    (Fault::DropsSharesAtOnce, "shares_are_kept_and_let_go"),
    (Fault::ShowsHalf, "everybody_is_shown"),
    (Fault::ShowsFirstInterests, "everybody_is_shown"),
    (Fault::CountsOnlyTheLoud, "everybody_is_shown"),
    (Fault::DrainsHalf, "drain_hands_everything_over"),
    (Fault::DrainsFirstInterests, "drain_hands_everything_over"),
    (Fault::DrainsNobodyOut, "drain_hands_everything_over"),
    (Fault::SleepsWhenOnlyLooking, "timeout_zero_only_looks"),
    (Fault::RoundsUpToMilliseconds, "timeout_of_50_us"),
    (Fault::IsAFewMillisecondsLate, "timeout_of_5_ms"),
    (Fault::EndsHalfWay, "timeout_of_5_ms"),
    (Fault::RoundsDownToMilliseconds, "timeout_never_early"),
    (Fault::RoundsUpToMilliseconds, "timeout_not_a_millisecond_late"),
    (Fault::TakesForEverAsNow, "no_timeout_waits_for_an_event"),
    (Fault::SleepsItsWholeTime, "an_event_ends_a_wait"),
    (
        Fault::RefusesLongTimeouts,
        "a_timeout_beyond_all_time_is_no_error",
    ),
    (Fault::WrapsLongTimeouts, "a_timeout_beyond_all_time_is_no_error"),
    (Fault::CallsInterruptionsErrors, "interruptions_are_no_errors"),
    (Fault::TakesOnlyAThousand, "five_thousand_descriptors"),
    (Fault::BeginsAtTheFront, "nobody_starves_past_one_batch"),
    (Fault::PutsFilesFirst, "files_and_others_share_a_short_list"),
    (Fault::ClearsTheList, "a_list_is_appended_to"),
    (Fault::LosesSomebodyWhenRestructured, "rebalance_loses_nothing"),
    (Fault::PeeksTooMuch, "a_peek_is_a_look"),
    (Fault::ShowsTooLittle, "what_stands_for_all_tells_of_all"),
];

/// What random walks find by themselves.
const WALKED_INTO: &[Fault] = &[
    Fault::DeafToIn,
    Fault::DeafToOut,
    Fault::DeafToHangUps,
    Fault::DeafToErrors,
    Fault::TellsOneOfTwo,
    Fault::TellsOnce,
    Fault::TellsOnceUntilModified,
    Fault::TellsWhatWasNotAsked,
    Fault::TellsWhoIsGone,
    Fault::TellsTheFirstToken,
    Fault::IgnoresModify,
    Fault::HearsTheSilent,
    Fault::CannotLeaveSilence,
    Fault::SpinsWhenTheSilentHangUp,
    Fault::TakesTokensTwice,
    Fault::SwallowsUnknownTokens,
    Fault::KeepsShares,
    Fault::RoundsDownToMilliseconds,
    Fault::LosesSomebodyWhenRestructured,
    Fault::ForgetsOneAtEveryFiftiethRemove,
];

/// Some faults show only in descriptor numbers that follow each other: nobody else may open any meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a trial of a faulty backend complains of.
fn complaint(trial: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(trial)).err()?;
    let text = match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    };
    Some(text)
}

#[test]
fn b6_without_a_fault_there_is_no_complaint() {
    let _turn = alone();
    for promise in PROMISES {
        check(promise.id, &mut Faulty::new(Fault::Nothing));
    }
    walk(&mut Faulty::new(Fault::Nothing));
}

#[test]
fn b6_every_fault_is_found_by_its_promise() {
    let _turn = alone();
    let missed: Vec<_> = FAULTS
        .iter()
        .filter(|(fault, promise)| {
            let complaint = complaint(|| check(promise, &mut Faulty::new(*fault)));
            println!("{fault:?}, {promise}: {complaint:?}\n");
            complaint.is_none()
        })
        .collect();
    assert_eq!(missed, [] as [&(Fault, &str); 0], "faults that were not found");
}

#[test]
fn b6_every_promise_can_be_broken() {
    let _turn = alone();
    let broken: BTreeSet<_> = FAULTS.iter().map(|(_, promise)| *promise).collect();
    let promised: BTreeSet<_> = PROMISES.iter().map(|promise| promise.id).collect();
    assert_eq!(broken, promised);
    assert_eq!(promised.len(), PROMISES.len(), "two promises have the same name");
}

#[test]
fn b6_random_walks_find_faults_too() {
    let _turn = alone();
    const WALKS: u32 = 20;
    let missed: Vec<_> = WALKED_INTO
        .iter()
        .filter(|fault| {
            let found = (0..WALKS).find_map(|_| complaint(|| walk(&mut Faulty::new(**fault))));
            println!("{fault:?}: {found:?}\n");
            found.is_none()
        })
        .collect();
    assert_eq!(missed, [] as [&Fault; 0], "faults that were not found");
}
