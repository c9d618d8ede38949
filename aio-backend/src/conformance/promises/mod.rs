//! The list of promises. Each is a function of an empty backend, in the module under which it is listed.

mod many;
mod once;
mod readiness;
mod silence;
mod time;
mod tokens;

use super::promise::Promise;

/// Makes the list, and a macro with a test for each line.
macro_rules! promises {
    ($d:tt $($module:ident { $($id:ident: $text:literal,)* })*) => {
        /// All promises, in the order of the tests.
        pub const PROMISES: &[Promise] = &[
            $($(Promise { id: stringify!($id), text: $text, run: $module::$id },)*)*
        ];

        #[doc(hidden)]
        #[macro_export]
        macro_rules! __one_test_per_promise {
            ($d make:expr, $d check:path) => {
                $($(#[test]
                fn $id() {
                    $d check(stringify!($id), &mut ($d make)());
                })*)*
            };
        }
    };
}

promises! {
    $
    readiness {
        readiness_of_a_pipe: "a pipe is readable while it holds data, and writable while there is room",
        readiness_of_a_socket: "a socket is reported with exactly its readiness",
        readiness_of_an_eventfd: "an eventfd is readable while its count is not zero, and writable while it is not full",
        readiness_of_a_terminal: "a terminal is readable after input, and hangs up with its other end",
        readiness_of_a_set: "an epoll set, such as the backend of a nested loop, is readable while a descriptor in it is ready",
        a_regular_file_is_always_ready: "a descriptor that is always ready is not an error: every wait reports it for its interest, and it does not displace others",
        level_triggered_until_consumed: "(1) readiness that is not consumed is reported again by the next wait",
        edges_report_every_new_activity: "(6) with the edge interest, new activity is reported at least once, though none of it is consumed, and so is a ready descriptor after each modify, also to the same interest",
        edges_are_reported_once_where_claimed: "(6) a backend that reports edges does not report the same activity twice",
        hang_ups_are_reported: "a hang-up is reported to readers and writers, together with data that is left to read",
        half_closes_are_reported: "(9) a half close of the peer is reported to readers, also after all data was read, and to no other registration",
        errors_are_reported: "an error is reported to readers and writers",
        a_closed_number_is_reported_or_silent: "a number that is closed without the backend's knowledge is reported as NVAL or not at all, disturbs no other registration, and can be removed",
        a_closed_number_is_refused: "with an interest, add and modify refuse a number that is not open with EBADF, and change nothing",
    }
    silence {
        modify_changes_what_is_reported: "a changed interest holds from the next wait on, also for a descriptor that is ready already",
        only_the_interest_is_reported: "events are within the interest, except hang-ups and errors",
        silence_covers_everything_and_can_be_left: "(3) without an interest no event is reported, not even hang-ups and errors, until modify",
        silence_does_not_spin: "(3) a hang-up of a silent descriptor does not end a wait",
    }
    once {
        oneshot_reports_one_event: "(8) with the oneshot interest one event is reported, with all readiness of the moment, and nothing after it",
        oneshot_does_not_spin: "(8) a registration that had its only event does not end a wait",
        oneshot_is_armed_again_by_modify: "(8) modify arms a oneshot registration again, also with the same interest",
        oneshot_is_no_interest_after_its_event: "(8) visit and drain show a registration that had its only event without an interest, and restructuring does not arm it",
        priority_is_reported_to_those_that_wait_for_it: "(9) urgent data is reported with an interest in priority, and with no other; a file has no priority",
    }
    tokens {
        remove_and_use_the_number_again: "(2) no event carries a token after its removal, even if the descriptor number is reused",
        remove_and_use_the_slot_again: "(2) an event carries the token of the latest add, generation included",
        another_descriptor_of_the_same_file_is_another_registration: "(2) two descriptors of one file are two registrations, and each ends alone",
        a_known_token_is_refused: "an add of a registered token is refused, changes nothing, and drops the descriptor it was given",
        unknown_tokens_are_errors: "modify and remove of an unknown token return NotFound, and change nothing",
        descriptors_are_kept_until_removal: "(4) the descriptor is kept from add until remove or drain, and released there",
        visit_shows_every_registration: "visit passes every registration with its latest interest and changes nothing, and watched counts them",
        drain_hands_everything_over: "drain hands over every registration with its latest interest, and leaves the backend as if newly made",
    }
    time {
        timeout_zero_only_checks: "a timeout of zero does not wait",
        timeout_of_50_us: "(7) a wait of 50 us is not early, and not a millisecond late",
        timeout_of_5_ms: "(7) a wait of 5 ms is not early, and not a millisecond late",
        timeout_never_early: "(7) no wait without an event ends before its timeout",
        timeout_not_a_millisecond_late: "(7) a timeout with a fraction of a millisecond is not rounded up to a whole one",
        no_timeout_waits_for_an_event: "a wait without a timeout ends with an event, and not before",
        an_event_ends_a_wait: "an event ends a wait before its timeout",
        a_timeout_beyond_all_time_is_no_error: "a timeout beyond the range of the system call is reduced to the largest possible one",
        interruptions_are_no_errors: "a signal may end a wait early and without events; it is not an error, and no event is lost",
    }
    many {
        five_thousand_descriptors: "five thousand descriptors are watched; each is reported, and each can be removed",
        no_starvation_past_one_batch: "(5) if more descriptors are ready than fit into the list, repeated waits report each of them",
        files_and_others_share_a_short_list: "(5) in a short list, descriptors that are always ready and others do not displace each other",
        a_list_is_appended_to: "(5) a wait keeps the events that are in the list, and appends at most as many as there is room for",
        rebalance_loses_nothing: "rebalance loses neither a registration nor an event",
        a_peek_equals_a_check: "a peek reports the events of a check, or reports that it is unsupported",
        the_pollable_descriptor_covers_all: "the descriptor of make_pollable is readable if, and only if, a check would report an event",
    }
}
