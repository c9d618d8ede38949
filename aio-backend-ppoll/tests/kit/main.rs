//! The conformance kit finds faults: a good backend with one fault at a time, and the promises that it violates.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faulty;
mod operations;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aio_backend::conformance::{PROMISES, check, walk};

use crate::faulty::{Fault, Faulty};
use crate::operations::Mistake;

/// Every fault, with a promise that it violates. Every promise is listed, so each one is proven to be
/// testable.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::OmitsOut, "readiness_of_a_pipe"),
    (Fault::ReportsOneOfTwo, "readiness_of_a_socket"),
    (Fault::OmitsIn, "readiness_of_an_eventfd"),
    (Fault::OmitsHangUps, "readiness_of_a_terminal"),
    (Fault::OmitsSets, "readiness_of_a_set"),
    (Fault::RefusesFiles, "a_regular_file_is_always_ready"),
    (Fault::ReportsOnce, "a_regular_file_is_always_ready"),
    (Fault::ReportsOnce, "level_triggered_until_consumed"),
    (Fault::ReportsOnceUntilModified, "level_triggered_until_consumed"),
    (Fault::ReportsOnceUntilModified, "edges_report_every_new_activity"),
    (Fault::ClaimsEdges, "edges_are_reported_once_where_claimed"),
    (Fault::OmitsHangUps, "hang_ups_are_reported"),
    (Fault::OmitsErrors, "errors_are_reported"),
    (Fault::OmitsHalfCloses, "half_closes_are_reported"),
    (
        Fault::OmitsPriority,
        "priority_is_reported_to_those_that_wait_for_it",
    ),
    (
        Fault::ReportsPriorityToAll,
        "priority_is_reported_to_those_that_wait_for_it",
    ),
    (Fault::ReportsOneshotsAgain, "oneshot_reports_one_event"),
    (Fault::SplitsOneshots, "oneshot_reports_one_event"),
    (Fault::SpinsAfterOneshots, "oneshot_does_not_spin"),
    (
        Fault::ArmsOneshotsOnlyWithAnotherInterest,
        "oneshot_is_armed_again_by_modify",
    ),
    (
        Fault::ShowsInterestsOfReportedOneshots,
        "oneshot_is_no_interest_after_its_event",
    ),
    (
        Fault::ArmsOneshotsWhenRestructured,
        "oneshot_is_no_interest_after_its_event",
    ),
    (
        Fault::ReportsClosedNumbersAsReadable,
        "a_closed_number_is_reported_or_silent",
    ),
    (Fault::AcceptsClosedNumbers, "a_closed_number_is_refused"),
    (Fault::RefusesToSilenceClosedNumbers, "a_closed_number_is_refused"),
    (Fault::IgnoresModify, "modify_changes_what_is_reported"),
    (Fault::ExceedsTheInterest, "only_the_interest_is_reported"),
    (
        Fault::ReportsTheSilent,
        "silence_covers_everything_and_can_be_left",
    ),
    (
        Fault::CannotLeaveSilence,
        "silence_covers_everything_and_can_be_left",
    ),
    (Fault::SpinsWhenTheSilentHangUp, "silence_does_not_spin"),
    (Fault::ReportsRemovedTokens, "remove_and_use_the_number_again"),
    (Fault::ReportsTheFirstToken, "remove_and_use_the_slot_again"),
    (Fault::ReportsTheFirstToken, "remove_and_use_the_number_again"),
    (
        Fault::RemovesTwins,
        "another_descriptor_of_the_same_file_is_another_registration",
    ),
    (Fault::AcceptsTokensTwice, "a_known_token_is_refused"),
    (Fault::KeepsRefusedDescriptors, "a_known_token_is_refused"),
    (Fault::SwallowsUnknownTokens, "unknown_tokens_are_errors"),
    (Fault::KeepsDescriptors, "descriptors_are_kept_until_removal"),
    (
        Fault::DropsDescriptorsAtOnce,
        "descriptors_are_kept_until_removal",
    ),
    (Fault::KeepsFiles, "files_are_closed_after_removal"),
    (Fault::ShowsHalf, "visit_shows_every_registration"),
    (Fault::ShowsFirstInterests, "visit_shows_every_registration"),
    (Fault::CountsOnlyActiveOnes, "visit_shows_every_registration"),
    (Fault::DrainsHalf, "drain_hands_everything_over"),
    (Fault::DrainsFirstInterests, "drain_hands_everything_over"),
    (Fault::DrainKeepsAll, "drain_hands_everything_over"),
    (Fault::SleepsWithTimeoutZero, "timeout_zero_only_checks"),
    (Fault::RoundsUpToMilliseconds, "timeout_of_50_us"),
    (Fault::IsAFewMillisecondsLate, "timeout_of_5_ms"),
    (Fault::EndsHalfWay, "timeout_of_5_ms"),
    (Fault::RoundsDownToMilliseconds, "timeout_never_early"),
    (Fault::RoundsUpToMilliseconds, "timeout_not_a_millisecond_late"),
    (
        Fault::ReturnsAtOnceWithoutTimeout,
        "no_timeout_waits_for_an_event",
    ),
    (Fault::GivesUpWithoutTimeout, "no_timeout_waits_for_an_event"),
    (Fault::SleepsItsWholeTime, "an_event_ends_a_wait"),
    (
        Fault::RefusesLongTimeouts,
        "a_timeout_beyond_all_time_is_no_error",
    ),
    (Fault::WrapsLongTimeouts, "a_timeout_beyond_all_time_is_no_error"),
    (Fault::CallsInterruptionsErrors, "interruptions_are_no_errors"),
    (
        Fault::BeginsAgainAfterInterruptions,
        "interruptions_are_no_errors",
    ),
    (Fault::ReportsOnlyAThousand, "five_thousand_descriptors"),
    (Fault::BeginsAtTheFront, "no_starvation_past_one_batch"),
    (
        Fault::BeginsAtTheFront,
        "no_starvation_while_reported_ones_are_silenced",
    ),
    (Fault::PutsFilesFirst, "files_and_others_share_a_short_list"),
    (Fault::ClearsTheList, "a_list_is_appended_to"),
    (Fault::LosesOneWhenRestructured, "rebalance_loses_nothing"),
    (Fault::PeeksTooMuch, "a_peek_equals_a_check"),
    (Fault::ShowsTooLittle, "the_pollable_descriptor_covers_all"),
    (
        Fault::Operations(Mistake::LosesOne),
        "operations_end_once_and_come_back",
    ),
    (
        Fault::Operations(Mistake::ReportsOnce),
        "completions_are_reported_until_they_are_taken",
    ),
];

/// The faults that a random walk finds.
const WALKED_INTO: &[Fault] = &[
    Fault::OmitsIn,
    Fault::OmitsOut,
    Fault::OmitsHangUps,
    Fault::OmitsErrors,
    Fault::OmitsHalfCloses,
    Fault::ReportsOneshotsAgain,
    Fault::SplitsOneshots,
    Fault::ArmsOneshotsOnlyWithAnotherInterest,
    Fault::ReportsOneOfTwo,
    Fault::ReportsOnce,
    Fault::ReportsOnceUntilModified,
    Fault::ExceedsTheInterest,
    Fault::ReportsRemovedTokens,
    Fault::ReportsTheFirstToken,
    Fault::IgnoresModify,
    Fault::ReportsTheSilent,
    Fault::CannotLeaveSilence,
    Fault::SpinsWhenTheSilentHangUp,
    Fault::AcceptsTokensTwice,
    Fault::SwallowsUnknownTokens,
    Fault::KeepsDescriptors,
    Fault::RoundsDownToMilliseconds,
    Fault::LosesOneWhenRestructured,
    Fault::ForgetsOneAtEveryFiftiethRemove,
];

/// Some faults need consecutive descriptor numbers, so no other test may open a descriptor at the same time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the message with which a trial of a faulty backend panics.
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
fn l15_what_the_contract_allows_is_not_complained_about() {
    let _turn = alone();
    for peculiarity in [Fault::WaitsThroughInterruptions, Fault::SplitsEvents] {
        for promise in PROMISES {
            check(promise.id, &mut Faulty::new(peculiarity));
        }
    }
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
    let violated: BTreeSet<_> = FAULTS.iter().map(|(_, promise)| *promise).collect();
    let promised: BTreeSet<_> = PROMISES.iter().map(|promise| promise.id).collect();
    assert_eq!(violated, promised);
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
