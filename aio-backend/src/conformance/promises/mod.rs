//! The list of promises. Each is a function of an empty backend, in the module under which it is listed.

mod many;
mod once;
mod operations;
mod readiness;
mod silence;
mod time;
mod tokens;

use super::promise::Promise;

/// Makes the list, and a macro with a test for each promise. An entry has the name, the promise, and the
/// remedy for most backends that break it.
macro_rules! promises {
    ($d:tt $($module:ident { $($id:ident: $text:literal, $remedy:literal;)* })*) => {
        /// All promises, in the order of the tests.
        pub const PROMISES: &[Promise] = &[
            $($(Promise { id: stringify!($id), text: $text, remedy: $remedy, run: $module::$id },)*)*
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
            "translate IN and OUT of the system call, and register both directions of READ | WRITE at once";
        readiness_of_a_socket: "a socket is reported with exactly its readiness",
            "pass on the bits that the system reports, all in one event, and none that it does not report";
        readiness_of_an_eventfd: "an eventfd is readable while its count is not zero, and writable while it is not full",
            "compare the bits that are asked for with Interest::mask(), which holds what the system calls by these names";
        readiness_of_a_terminal: "a terminal is readable after input, and hangs up with its other end",
            "pass on HUP beside IN: data may be left to read after a hang-up";
        readiness_of_a_set: "an epoll set, such as the backend of a nested loop, is readable while a descriptor in it is ready",
            "watch an epoll set as any descriptor; the system reports it readable";
        a_regular_file_is_always_ready: "a descriptor that is always ready is not an error: every wait reports it for its interest, and it does not displace others",
            "epoll refuses files with EPERM: keep them beside the set, and report them in each wait with a timeout of zero for the rest";
        level_triggered_until_consumed: "(1) readiness that is not consumed is reported again by the next wait",
            "arm again what the system reports once (one-shot entries, poll requests) before the next wait";
        edges_report_every_new_activity: "(6) with the edge interest, new activity is reported at least once, though none of it is consumed, and so is a ready descriptor after each modify, also to the same interest",
            "after an event or a modify, arm the registration again; if that is hard, treat edges as level-triggered";
        edges_are_reported_once_where_claimed: "(6) a backend that reports edges does not report the same activity twice",
            "return false from reports_edges, or ask the system for edges (EPOLLET)";
        hang_ups_are_reported: "a hang-up is reported to readers and writers, together with data that is left to read",
            "pass on HUP also with an interest to write alone";
        half_closes_are_reported: "(9) a half close of the peer is reported to readers, also after all data was read, and to no other registration",
            "ask the system for RDHUP with Interest::READ, and only then";
        errors_are_reported: "an error is reported to readers and writers",
            "pass on ERR whatever the interest is, unless it is NONE";
        a_closed_number_is_reported_or_silent: "a number that is closed without the backend's knowledge is reported as NVAL or not at all, disturbs no other registration, and can be removed",
            "let an error about one descriptor (EBADF) fail neither the wait nor other registrations; drop the entry in remove whatever the system says";
        a_closed_number_is_refused: "with an interest, add and modify refuse a number that is not open with EBADF, and change nothing; without one, modify accepts it",
            "check the number in add and modify (F_GETFD), before you change anything";
    }
    silence {
        modify_changes_what_is_reported: "a changed interest holds from the next wait on, also for a descriptor that is ready already",
            "tell the system of the new interest in modify, and drop events that were collected for the former one";
        only_the_interest_is_reported: "events are within the interest, except hang-ups and errors",
            "reduce what the system reports to Interest::mask(), with HUP and ERR";
        silence_covers_everything_and_can_be_left: "(3) without an interest no event is reported, not even hang-ups and errors, until modify",
            "take a registration without an interest out of what the system waits for: it reports HUP and ERR in any case";
        silence_does_not_spin: "(3) a hang-up of a silent descriptor does not end a wait",
            "leave registrations without an interest out of the wait, not merely out of the list";
    }
    once {
        oneshot_reports_one_event: "(8) with the oneshot interest one event is reported, with all readiness of the moment, and nothing after it",
            "set the interest to NONE when the event goes into the list, with all bits of the moment in it";
        oneshot_does_not_spin: "(8) a registration that had its only event does not end a wait",
            "take a registration out of the wait after its only event";
        oneshot_is_armed_again_by_modify: "(8) modify arms a oneshot registration again, also with the same interest",
            "do not skip a modify to the same interest: with ONESHOT it arms again";
        oneshot_is_no_interest_after_its_event: "(8) visit and drain show a registration that had its only event without an interest, and restructuring does not arm it",
            "store NONE as the interest after the event, so that visit, drain and restructuring see it";
        priority_is_reported_to_those_that_wait_for_it: "(9) urgent data is reported with an interest in priority, and with no other; a file has no priority",
            "ask the system for PRI with Interest::PRIORITY only";
    }
    tokens {
        remove_and_use_the_number_again: "(2) no event carries a token after its removal, even if the descriptor number is reused",
            "find registrations by token, not by descriptor number, and drop late events of unknown tokens";
        remove_and_use_the_slot_again: "(2) an event carries the token of the latest add, generation included",
            "compare the whole token, with its generation, before you report an event";
        another_descriptor_of_the_same_file_is_another_registration: "(2) two descriptors of one file are two registrations, and each ends alone",
            "key registrations by token: the file behind the number may be shared";
        a_known_token_is_refused: "an add of a registered token is refused, changes nothing, and drops the descriptor it was given",
            "look for the token before you change anything, and return AlreadyExists";
        unknown_tokens_are_errors: "modify and remove of an unknown token return NotFound, and change nothing",
            "look for the token first, and return NotFound";
        descriptors_are_kept_until_removal: "(4) the descriptor is kept from add until remove or drain, and released there",
            "keep the Watched beside the registration, and move it out in remove and drain, also when the system call fails";
        files_are_closed_after_removal: "(4) after a removal and a wait, and after a drain, the file is closed with its last owner, whatever was under way",
            "cancel requests of the system also if their wake-up is pending, though its cause may be gone (io_uring: IORING_OP_ASYNC_CANCEL; POLL_REMOVE fails then)";
        visit_shows_every_registration: "visit passes every registration with its latest interest and changes nothing, and watched counts them",
            "store the latest interest, also NONE, and count silent registrations too";
        drain_hands_everything_over: "drain hands over every registration with its latest interest, and leaves the backend as if newly made",
            "empty every list and set, also those of the last wait";
    }
    time {
        timeout_zero_only_checks: "a timeout of zero does not wait",
            "pass a timeout of zero on as zero, not as none";
        timeout_of_50_us: "(7) a wait of 50 us is not early, and not a millisecond late",
            "use a call with nanoseconds (ppoll, epoll_pwait2), or wait for whole milliseconds first and for the rest by ppoll";
        timeout_of_5_ms: "(7) a wait of 5 ms is not early, and not a millisecond late",
            "round a timeout up to the unit of the system call, never down";
        timeout_never_early: "(7) no wait without an event ends before its timeout",
            "wait again for the rest if the system call returns early without an event or a signal";
        timeout_not_a_millisecond_late: "(7) a timeout with a fraction of a millisecond is not rounded up to a whole one",
            "do not round up to whole milliseconds; see timeout_of_50_us";
        no_timeout_waits_for_an_event: "a wait without a timeout ends with an event, and not before",
            "pass None on as \"for ever\": a negative timeout for epoll_wait, a null pointer for ppoll";
        an_event_ends_a_wait: "an event ends a wait before its timeout",
            "do not sleep for the timeout yourself: let the system call wait for both";
        a_timeout_beyond_all_time_is_no_error: "a timeout beyond the range of the system call is reduced to the largest possible one",
            "reduce the timeout to the largest value that the system call takes";
        interruptions_are_no_errors: "a signal may end a wait early and without events; it is not an error, and no event is lost",
            "return Ok without events on EINTR, or wait again for the rest of the time";
    }
    many {
        five_thousand_descriptors: "five thousand descriptors are watched; each is reported, and each can be removed",
            "avoid fixed sizes and searches through all registrations in add and remove";
        no_starvation_past_one_batch: "(5) if more descriptors are ready than fit into the list, repeated waits report each of them",
            "begin the next report where the last one ended, or let reported entries go to the end of the queue";
        no_starvation_while_reported_ones_are_silenced: "(5) repeated waits report each ready descriptor, also if those that were reported are silenced and watched again after each wait",
            "begin the next report where the last one ended, also if interests changed meanwhile";
        files_and_others_share_a_short_list: "(5) in a short list, descriptors that are always ready and others do not displace each other",
            "take turns between the two kinds, so that neither fills the list alone";
        a_list_is_appended_to: "(5) a wait keeps the events that are in the list, and appends at most as many as there is room for",
            "do not clear the list, and stop at ReadyList::room()";
        rebalance_loses_nothing: "rebalance loses neither a registration nor an event",
            "fill the new structure while the old one is complete, and empty that afterwards";
        a_peek_equals_a_check: "a peek reports the events of a check, or that it is unsupported, or that a check is pending",
            "return Peek::Unsupported if each check needs a system call, and Peek::Pending if this one does";
        the_pollable_descriptor_covers_all: "the descriptor of make_pollable is readable if, and only if, a check would report an event",
            "return None from make_pollable unless the descriptor is level-triggered; report the rest by always_ready";
    }
    operations {
        operations_end_once_and_come_back: "(10) each operation that was accepted comes back once, and the backend keeps nothing of it",
            "keep operations in a table until the system has completed them, and give them back by next_completed, also those that were cancelled";
        completions_are_reported_until_they_are_taken: "(11) while operations have ended that were not taken, every wait reports the token of submit, and does not block",
            "report the token in each wait, not only in the one that has found the completion";
    }
}
