//! The list of promises. Each is a function of an empty backend, in the module under which it is listed.

mod many;
mod readiness;
mod silence;
mod time;
mod tokens;

use super::Promise;

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
            ($d make:expr) => {
                $($(#[test]
                fn $id() {
                    $crate::conformance::check(stringify!($id), &mut ($d make)());
                })*)*
            };
        }
    };
}

promises! {
    $
    readiness {
        readiness_of_a_pipe: "a pipe is readable while there is something in it, and writable while there is room",
        readiness_of_a_socket: "a socket is reported for all that it is ready for, and only for that",
        readiness_of_an_eventfd: "an eventfd is readable while its count is not zero, and writable while it is not full",
        readiness_of_a_terminal: "a terminal is readable when something was typed, and hangs up with its other end",
        readiness_of_a_set: "an epoll set, such as the backend of a nested loop, is readable while something in it is ready",
        a_regular_file_is_always_ready: "what is always ready is no error: it is reported for its interest at every wait, and keeps nobody out",
        level_triggered_until_consumed: "(1) what is ready and not consumed is reported again by the next wait",
        edges_tell_of_every_new_activity: "(6) asked for edges, it reports something new at least once, though nothing of it is consumed",
        edges_are_told_once_where_they_are_claimed: "(6) a backend that reports edges does not report what it has reported and nothing was added to",
        hang_up_is_told: "a hang-up is reported, to readers and writers, with what is left to read",
        errors_are_told: "an error is reported, to readers and writers",
        a_closed_number_is_told_or_silent: "a number that is closed behind the backend's back is reported as NVAL or not at all, disturbs nobody, and can be removed",
    }
    silence {
        modify_changes_what_is_reported: "a changed interest holds from the next wait on, also for what is ready already",
        only_what_is_asked_for_is_told: "nothing is reported that was not asked for, but hang-ups and errors",
        silence_covers_everything_and_can_be_left: "(3) without an interest nothing is reported, hang-ups and errors included, until modify",
        silence_does_not_spin: "(3) a wait lasts, though somebody silent has hung up",
    }
    tokens {
        remove_and_use_the_number_again: "(2) after its removal a token is not heard of again, also when its number means another file",
        remove_and_use_the_slot_again: "(2) an event carries the token of the latest add, generation included",
        another_descriptor_of_the_same_file_is_another_registration: "(2) two descriptors of one file are two registrations, and each ends alone",
        a_known_token_is_refused: "an add of a token that is there is refused, changes nothing, and its share is let go",
        unknown_tokens_are_errors: "to modify or to remove a token that is not there is NotFound, and changes nothing",
        shares_are_kept_and_let_go: "(4) the share is kept from add until remove or drain, and let go there",
        everybody_is_shown: "visit shows every registration as it was told last and changes nothing, and watched counts them",
        drain_hands_everything_over: "drain hands every registration over as it was told last, and leaves the backend as if newly made",
    }
    time {
        timeout_zero_only_looks: "a timeout of zero does not wait",
        timeout_of_50_us: "(7) a wait of 50 us is not early, and not a millisecond late",
        timeout_of_5_ms: "(7) a wait of 5 ms is not early, and not a millisecond late",
        timeout_never_early: "(7) no wait ends before its time with nothing",
        timeout_not_a_millisecond_late: "(7) a timeout that is no whole number of milliseconds is not rounded up to one",
        no_timeout_waits_for_an_event: "a wait without a timeout ends when something comes, and not before",
        an_event_ends_a_wait: "a wait with a timeout ends when something comes, whatever is left of its time",
        a_timeout_beyond_all_time_is_no_error: "a timeout beyond what the system can take is cut, and neither refused nor passed over",
        interruptions_are_no_errors: "a signal may end a wait early with nothing; it is no error, and nothing is lost",
    }
    many {
        five_thousand_descriptors: "five thousand descriptors are watched, each is found, and each can go",
        nobody_starves_past_one_batch: "(5) with more ready than fit, repeated waits come round to everybody",
        files_and_others_share_a_short_list: "(5) what is always ready does not keep others out of a short list, nor they it",
        a_list_is_appended_to: "(5) what is in a list stays there, and no more comes than there is room for, which may be nothing",
        rebalance_loses_nothing: "to restructure loses nothing, whenever it happens",
        a_peek_is_a_look: "a peek finds what a look finds, or says that it cannot",
        what_stands_for_all_tells_of_all: "a descriptor that stands for all is readable if, and only if, a look would find something",
    }
}
