//! Behaviour as traces. Each trace is replayed in every way to wait, beside the reference loop of `proofs/reference`, whose page
//! describes the language and which also has random sequences.

use aio_context::Policy;
use aio_reference::{Setup, USUAL, Waiter, check as replay, check_and_show, sequence};

use crate::found_traces::FOUND;

/// Makes a test of each function for each way to wait.
macro_rules! everywhere {
    ($($test:ident)*) => {
        $(mod $test {
            use aio_reference::Waiter;

            #[test]
            fn on_ppoll() {
                super::$test(Waiter::Ppoll);
            }
            #[test]
            fn on_epoll() {
                super::$test(Waiter::Epoll);
            }
            #[test]
            fn on_a_ladder_at_0() {
                super::$test(Waiter::LadderAt0);
            }
            #[test]
            fn on_a_ladder_at_4() {
                super::$test(Waiter::LadderAt4);
            }
            #[test]
            fn on_a_ladder_at_64() {
                super::$test(Waiter::LadderAt64);
            }
            #[test]
            fn on_uring() {
                super::$test(Waiter::Uring);
            }
            #[test]
            fn in_a_foreign_loop() {
                super::$test(Waiter::Foreign);
            }
        })*
    };
}

everywhere! {
    d3_handlers
    r4_errors_and_closed_numbers
    r3_r9_replacing_and_removing
    r14_one_event
    r13_priority
    r5_registering_inside_a_callback
    b3_b5_moving_between_backends
    b5_pausing
    h1_h8_bottom_halves
    t1_t4_timers
    d1_d6_nested_polls
    d9_panics
    a2_a9_polled_handlers
    regressions
    case_97_the_same_steps_twice
}

fn check(waiter: Waiter, trace: &str) {
    check_with(waiter, "qemu-2020", trace);
}

fn check_with(waiter: Waiter, policy: &'static str, trace: &str) {
    if let Err(why) = replay(Setup { waiter, policy }, trace) {
        panic!("{trace}\n{why}");
    }
}

fn d3_handlers(waiter: Waiter) {
    for trace in [
        "watch a r; poll ->; kick a; poll -> a.readable; poll ->",
        "kick a; watch a r; poll -> a.readable",
        "watch a r; kick a; remove a; poll ->",
        "watch a r; kick a; drain a; poll ->",
        "watch a w; poll -> a.writable; poll -> a.writable; remove a; poll ->",
        "watch a rw; poll -> a.writable; kick a; poll -> a.readable a.writable",
        "watch a -; kick a; poll ->; close a; poll ->",
        "watch a r; watch b r; kick a; kick b; poll ~> a.readable b.readable; poll ->",
        // Level-triggered: data that is not drained is reported again.
        "on a.readable { }; watch a r; kick a; poll -> a.readable; poll -> a.readable; drain a; poll ->",
        // A hang-up goes to the reader, or to the writer if there is no reader.
        "watch a r; close a; poll -> a.readable; poll -> a.readable",
        "watch a w; close a; poll -> a.writable",
        "watch a rw; kick a; close a; poll -> a.readable a.writable",
        // Interest.
        "watch a r; kick a; interest a w; poll -> a.writable; interest a r; poll -> a.readable",
        "watch a rw; interest a -; kick a; poll ->; wait 5 ->; interest a r; wait 5 -> a.readable",
        "on a.readable { interest a r }; watch a rw; kick a; poll -> a.readable; poll -> a.readable",
        "on a.readable { drain a, interest a w }; watch a r; kick a; poll -> a.readable; poll -> a.writable",
        "watch a r; watch b r; kick a; on a.readable { drain a, kick b }; poll -> a.readable; poll -> b.readable",
    ] {
        check(waiter, trace);
    }
}

fn r4_errors_and_closed_numbers(waiter: Waiter) {
    for trace in [
        // An end of a pipe that is full, that has room again, and whose other end is closed.
        "watch q w; poll -> q.writable; poll ->; kick q; poll -> q.writable; poll ->",
        "watch q w; poll -> q.writable; close q; poll -> q.writable; poll -> q.writable",
        "watch q r; poll ->; close q; poll -> q.readable; interest q rw; poll -> q.readable q.writable",
        "watch p r; kick p; poll -> p.readable; close p; poll -> p.readable; interest p -; poll ->; wait 5 ->",
        "watch p w; close p; poll -> p.writable; interest p rw; poll -> p.readable",
        // Two numbers of one file are two handlers.
        "watch a r; dup a b; watch b r; kick a; poll ~> a.readable b.readable; poll ->; remove a; kick b; poll -> b.readable",
        // The number is used for another file, with and without another owner of the former one.
        "watch e r; kick e; closeraw e; remove e; watch e r; poll ->; kick e; poll -> e.readable",
        "watch a r; dup a b; closeraw a; kick b; remove a; poll ->; watch a r; poll ->; kick a; poll -> a.readable",
        "watch a r; dup a b; closeraw a; remove a; dup b a; watch a r; kick b; poll -> a.readable; remove a; kick b; poll ->",
        "watch a r; dup a b; closeraw a; watch a r -> refused; remove a; watch a r; poll ->; kick a; poll -> a.readable",
        // A handler without an interest gets no events.
        "watch e -; closeraw e; poll ->; remove e; poll ->",
        "watch e -; closeraw e; interest e r -> refused; replace e n w -> refused; poll ->; remove e; poll ->",
        "watch e r in g; pause g; kick e; poll ->; closeraw e; resume g -> e.invalidated; poll ->",
    ] {
        check(waiter, trace);
    }
    if waiter == Waiter::Ppoll {
        check(
            waiter,
            "watch e r; closeraw e; poll -> e.invalidated; poll ->; remove e; poll ->",
        );
        check(
            waiter,
            "on e.invalidated { watch e r, kick e }; watch e r; closeraw e; poll -> e.invalidated; poll -> e.readable",
        );
        check(
            waiter,
            "watch e r in g; pause g; closeraw e; poll -> e.invalidated; resume g; poll ->",
        );
    }
    if waiter == Waiter::Epoll {
        check(
            waiter,
            "watch e r; closeraw e; poll ->; interest e w -> refused; replace e n -> refused e.invalidated",
        );
    }
}

fn b3_b5_moving_between_backends(waiter: Waiter) {
    for trace in [
        "watch a r; gather; kick a; poll -> a.readable; scatter; kick a; poll -> a.readable; gather; poll ->",
        "watch a r; kick a; gather; poll -> a.readable; kick a; scatter; poll -> a.readable",
        "watch a r in g; pause g; kick a; poll ->; gather; poll ->; scatter; poll ->; resume g; poll -> a.readable",
        "watch a r in g; gather; poll ->; pause g; kick a; poll ->; scatter; poll ->; resume g; poll -> a.readable",
        "watch a -; gather; poll ->; kick a; interest a r; scatter; poll -> a.readable",
        "on x { poll }; bh x; watch a r; gather; kick a; schedule x; poll -> x [ a.readable ]; scatter; poll ->",
        "watch a r; closeraw a; gather; poll; scatter; poll; remove a; watch a r; kick a; poll -> a.readable",
    ] {
        check(waiter, trace);
    }
}

fn r3_r9_replacing_and_removing(waiter: Waiter) {
    for trace in [
        "watch a r; kick a; replace a n; poll -> n.readable",
        "watch a r; kick a; poll -> a.readable; replace a n; poll ->; kick a; poll -> n.readable",
        "watch a r; replace a n; remove a; kick a; poll ->",
        "watch a r; watch a w; kick a; poll -> a.readable; poll ->",
        "watch a r; kick a; replace a n w; poll -> n.writable",
        "watch a r in g; pause g; kick a; poll ->; replace a n w; poll ->; resume g; poll -> n.writable",
        "watch a -; kick a; poll ->; replace a n r; poll -> n.readable; replace a n -; kick a; poll ->",
        // Between readable and writable of one event.
        "on a.readable { remove a }; watch a rw; kick a; poll -> a.readable; poll ->",
        "on a.readable { replace a n }; watch a rw; kick a; poll -> a.readable; poll -> n.readable n.writable",
        "on a.readable { drain a, replace a n rw }; watch a rw; kick a; poll -> a.readable; poll -> n.writable",
        // The handler that is called first removes the other.
        "on a.readable { remove b, drain a }; watch a r; watch b r; kick a; poll -> a.readable; kick b; poll ->",
        "on x { remove a }; bh x; watch a r; kick a; schedule x; poll -> x; poll ->",
        "on x { replace a n }; bh x; watch a r; kick a; schedule x; poll -> x; poll -> n.readable",
        "on t { remove a }; timer t; watch a r; kick a; arm t 0; poll -> a.readable t; kick a; poll ->",
    ] {
        check(waiter, trace);
    }
}

fn r14_one_event(waiter: Waiter) {
    for trace in [
        "watch a r1; kick a; poll -> a.readable; kick a; poll ->; wait 5 ->; rearm a; poll -> a.readable; poll ->",
        "watch a r1; kick a; poll -> a.readable; kick a; interest a r1; poll -> a.readable; kick a; poll ->",
        // Without the one-shot mode, events are level-triggered again, and to arm such a handler has no effect.
        "watch a r1; kick a; poll -> a.readable; kick a; interest a r; poll -> a.readable; kick a; rearm a; poll -> a.readable",
        // One event includes all readiness of its time.
        "watch a rw1; kick a; poll -> a.readable a.writable; poll ->",
        "watch a rw1; poll -> a.writable; kick a; poll ->; rearm a; poll -> a.readable a.writable",
        // If the handler is armed in its first callback, the rest of the event is reported anew.
        "on a.readable { rearm a }; watch a rw1; kick a; poll -> a.readable; drain a; poll -> a.writable; poll ->",
        // A replacement is armed, with or without an interest of its own.
        "watch a r1; kick a; poll -> a.readable; kick a; replace a n; poll -> n.readable; kick a; replace a a r1; poll -> a.readable",
        // Pauses do not arm it.
        "watch a r1 in g; kick a; poll -> a.readable; kick a; pause g; resume g; poll ->; rearm a; pause g; poll ->; resume g; \
         poll -> a.readable",
        "watch a r1 in g; pause g; kick a; poll ->; poll ->; resume g; poll -> a.readable; kick a; poll ->",
        // Moves to another backend do not arm the handler, and do not lose its event.
        "watch a r1; kick a; poll -> a.readable; kick a; gather; poll ->; scatter; poll ->; rearm a; gather; poll -> a.readable",
        // A delivery counts when its callback starts.
        "on a.readable { drain a, panic }; watch a r1; kick a; poll -> a.readable panic; kick a; poll ->; rearm a; \
         on a.readable { }; poll -> a.readable",
        // The outer poll finds the event, and a nested one delivers it, once.
        "on a.readable { drain a, poll }; on b.readable { drain b, poll }; watch a r1; watch b r1; kick a; kick b; \
         poll; kick a; kick b; poll ->",
    ] {
        check(waiter, trace);
    }
}

fn r13_priority(waiter: Waiter) {
    for trace in [
        // A hang-up goes to a handler that waits for nothing else.
        "watch a p; kick a; poll ->; close a; poll -> a.priority; poll -> a.priority",
        "watch a p1; close a; poll -> a.priority; poll ->; rearm a; poll -> a.priority",
        "watch a rp; close a; poll -> a.readable; interest a wp; poll -> a.writable",
        "watch q p; poll ->; close q; poll -> q.priority",
        // Urgent data, where the kernel has it.
        "watch o p; poll ->; kick o; poll; poll ->; kick o; wait 5; wait 5 ->",
        "watch o wp; poll -> o.writable; kick o; poll; replace o oo p1; kick o; poll; kick o; poll ->; rearm o; poll",
        "watch o -; kick o; poll ->; interest o p; poll; interest o r; kick o; poll",
    ] {
        check(waiter, trace);
    }
}

fn r5_registering_inside_a_callback(waiter: Waiter) {
    for trace in [
        "on a.readable { drain a, watch b r }; watch a r; kick a; kick b; poll -> a.readable; poll -> b.readable",
        "on x { watch b r }; bh x; kick b; schedule x; poll -> x; poll -> b.readable",
        "on x { watch b r, remove b, watch b w }; bh x; schedule x; poll -> x; poll -> b.writable",
        "on a.readable { remove a, watch a r }; watch a r; kick a; poll -> a.readable; poll -> a.readable; poll -> a.readable",
    ] {
        check(waiter, trace);
    }
}

fn b5_pausing(waiter: Waiter) {
    for trace in [
        "watch a r in g; pause g; kick a; poll ->; wait 5 ->; resume g; poll -> a.readable; poll ->",
        "watch a r in g; pause g; pause g; kick a; poll ->; resume g; poll ->; resume g; poll -> a.readable",
        "watch a r in g; watch b r; pause g; kick a; kick b; poll -> b.readable; poll ->; resume g; poll -> a.readable",
        "pause g; watch a r in g; kick a; poll ->; resume g; poll -> a.readable",
        "watch a r in g; pause g; kick a; poll ->; drain a; resume g; poll ->",
        "watch a r in g; pause g; kick a; poll ->; interest a w; poll ->; resume g; poll -> a.writable",
        "watch a r in g; pause g; kick a; poll ->; replace a n; poll ->; resume g; poll -> n.readable",
        "watch a r in g; pause g; kick a; poll ->; remove a; watch a r; poll -> a.readable",
        "on a.readable { pause g }; watch a rw in g; kick a; poll -> a.readable; poll ->; resume g; poll -> a.readable",
        "on x { pause g }; bh x; watch a r in g; kick a; schedule x; poll -> x; poll ->; resume g; poll -> a.readable",
        "on x { pause g, resume g }; bh x; watch a r in g; kick a; schedule x; poll -> x a.readable",
        // The last resume makes the loop check at once, without the delay that an idle bottom half allows.
        "on x { arm t 3 }; bh x; timer t; pause g; idle x; resume g; wait 4 -> x t",
        "on x { arm t 3 }; bh x; timer t; pause g; pause g; idle x; resume g; wait 4 -> x; wait 3 -> t",
        // A paused event does not keep the loop awake, nor does it end a timer's wait.
        "timer t; watch a r in g; pause g; kick a; arm t 7; wait 20 -> t; resume g; poll -> a.readable",
    ] {
        check(waiter, trace);
    }
}

fn h1_h8_bottom_halves(waiter: Waiter) {
    for trace in [
        "bh x; poll ->; schedule x; schedule x; poll -> x; poll ->",
        "bh x; bh y; bh z; schedule z; schedule x; schedule y; poll -> z x y",
        "bh x; schedule x; cancel x; poll ->; schedule x; poll -> x",
        "bh x; bh y; schedule x; schedule y; cancel x; schedule x; poll -> x y",
        "bh x; schedule x; delete x; poll ->; bh x; poll ->; schedule x; poll -> x",
        "on x { schedule x }; bh x; schedule x; poll -> x; poll -> x; wait 5 -> x; cancel x; poll ->",
        "on x { schedule y }; bh x; bh y; schedule x; poll -> x; poll -> y; poll ->",
        "on x { cancel y }; bh x; bh y; schedule x; schedule y; poll -> x; poll ->",
        "on x { delete y }; bh x; bh y; schedule x; schedule y; poll -> x; poll ->",
        "on x { delete x }; bh x; schedule x; poll -> x; schedule x; poll ->",
        "bh x; idle x; poll -> x; poll ->; idle x; wait 30 -> x",
        "bh x; idle x; schedule x; poll -> x; poll ->",
        "bh x; timer t; arm t 25; idle x; wait 30 -> x t",
        "on x { idle x }; bh x; idle x; wait 35 -> x x x x; cancel x; wait 5 ->",
    ] {
        check(waiter, trace);
    }
}

fn t1_t4_timers(waiter: Waiter) {
    for trace in [
        "timer t; arm t 5; poll ->; wait 4 ->; wait 4 -> t; wait 5 ->",
        "timer t; timer u; arm t 5; arm u 5; advance 5; poll -> t u",
        "timer t; timer u; arm t 5; arm u 5; arm t 5; advance 5; poll -> u t",
        "timer t; timer u; arm t 5; arm u 3; wait 10 -> u; wait 10 -> t",
        "timer t; arm t 5; disarm t; disarm t; wait 10 ->; arm t 0; poll -> t",
        "timer t; arm t 5; forget t; wait 10 ->; timer t; arm t 1; wait 3 -> t",
        "timer t; arm t 5; anticipate t 8; wait 6 -> t; anticipate t 2; wait 3 -> t",
        "timer t; arm t 8; anticipate t 2; wait 3 -> t; wait 10 ->",
        "on t { arm t 0 }; timer t; arm t 0; poll -> t; poll -> t; wait 5 -> t",
        "on t { disarm u }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t; poll ->",
        "on t { forget u, forget t }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t; poll ->",
        "on t { arm u 0 }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t; poll -> u",
        // All kinds in their order.
        "timer t; bh x; watch a r; arm t 0; schedule x; kick a; poll -> x a.readable t",
        "watch a r; timer t; arm t 5; kick a; wait 20 -> a.readable; wait 20 -> t",
    ] {
        check(waiter, trace);
    }
}

fn d1_d6_nested_polls(waiter: Waiter) {
    for trace in [
        "on x { poll }; bh x; bh y; schedule x; schedule y; poll -> x [ y ]; poll ->",
        "on x { schedule z, poll }; bh x; bh y; bh z; schedule x; schedule y; poll -> x [ y z ]; poll ->",
        "on a.readable { drain a, kick b, poll }; watch a r; watch b r; kick a; poll -> a.readable [ b.readable ]",
        // The nested one takes over the events of the outer one.
        "on x { poll }; bh x; watch a r; kick a; schedule x; poll -> x [ a.readable ]; poll ->",
        "on a.readable { poll, drain a }; watch a r; kick a; poll -> a.readable [ a.readable [ a.readable ] ]; poll ->",
        "on a.readable { remove a, poll }; watch a rw; kick a; poll -> a.readable [ ]",
        "on t { poll }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t [ u ]; poll ->",
        "on t { arm t 5, wait 10 }; timer t; arm t 0; poll -> t [ t [ t ] ]; wait 10 -> t [ t [ t ] ]",
        "on a.readable { drain a, wait 10 }; timer t; watch a r; kick a; arm t 5; poll -> a.readable [ t ]",
        "on a.readable { drain a, pause g, poll, resume g }; watch a r; watch b r in g; kick a; poll -> a.readable [ ]; kick b; poll -> b.readable",
        "on x { poll, poll }; bh x; watch a w; schedule x; poll -> x [ a.writable ] [ a.writable ]",
    ] {
        check(waiter, trace);
    }
}

fn d9_panics(waiter: Waiter) {
    for trace in [
        "on a.readable { drain a, panic }; watch a r; kick a; poll -> a.readable panic; poll ->; kick a; poll -> a.readable panic",
        "on x { panic }; bh x; bh y; schedule x; schedule y; poll -> x panic; poll -> y; poll ->",
        "on t { panic }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t panic; poll -> u; poll ->",
        // Collected events are found again.
        "on x { panic }; bh x; watch a r; kick a; schedule x; poll -> x panic; poll -> a.readable; poll ->",
        "on x { panic }; bh x; watch a rw; kick a; schedule x; poll -> x panic; drain a; poll -> a.writable",
        "on a.readable { panic }; watch a rw; kick a; poll -> a.readable panic; poll -> a.readable panic",
        // Through two levels.
        "on x { poll }; on y { panic }; bh x; bh y; schedule x; schedule y; poll -> x [ y panic; poll ->",
        "on x { poll }; on a.readable { panic }; bh x; watch a r; kick a; schedule x; poll -> x [ a.readable panic; \
         on a.readable { drain a }; poll -> a.readable; poll ->",
        "on a.readable { pause g, panic }; watch a r in g; kick a; poll -> a.readable panic; poll ->; resume g; remove a; poll ->",
    ] {
        check(waiter, trace);
    }
}

/// The policy decides how long to poll, so these traces expect few calls. The reference checks the rest.
fn a2_a9_polled_handlers(waiter: Waiter) {
    let traces = [
        "watch e r polled; kick e; poll -> e.readable; work e; wait 5 -> e.readable; wait 5 ->",
        "polling 50; watch e r polled; work e; wait 5; wait 5; work e; wait 5; wait 5; polling 0; wait 5; work e; wait 5",
        // Polling delays no timer, and other events are found.
        "polling 20000; watch e r polled; timer t; arm t 7; wait 5 ; wait 5; watch a r; kick a; poll -> a.readable",
        "polling 20000; watch e r polled; watch a r; wait 5; work e; kick a; wait 5; wait 5; wait 5",
        // A nested poll does not poll a busy handler; it is served again afterwards.
        "polling 50; watch e r polled; on e.poll_ready { drain e, work e, wait 3 }; work e; wait 5; wait 5; wait 5",
        "polling 20000; watch e r polled; watch f r polled; on e.poll_ready { drain e, work f, wait 3 }; work e; wait 5; wait 5",
        // Begin and end are balanced, and the loop never sleeps while there is work, whatever happens in between.
        "polling 20000; watch e r in g polled; wait 5; work e; pause g; poll ->; work e; resume g; poll; poll; wait 5",
        "polling 20000; watch e r polled; wait 5; work e; replace e ee polled; wait 5; wait 5; replace e e; work e; wait 5",
        "polling 20000; watch e r polled; wait 5; work e; watch e rw polled; wait 5; remove e; wait 5",
        "polling 50; watch e r polled; on e.begin { work e }; on e.end { work e }; wait 5; wait 5; wait 5",
        "polling 50; watch e r polled; watch f r polled; on e.poll { remove f, remove e }; wait 5; wait 5",
        "polling 50; watch e r polled; on e.begin { panic }; wait 5; wait 5; on e.begin { }; on e.end { panic }; wait 5; wait 5; wait 5",
        "polling 50; watch e - polled; wait 5; work e; wait 5; wait 5; interest e r; wait 5",
        // Idle handlers are demoted, and promoted again.
        "polling 50; watch a r polled; watch b r polled; watch c r polled; watch d r polled; repeat 80 { work a, wait 1, wait 1 }; \
         work b; wait 1; wait 1; work c; work d; wait 1; wait 1; wait 1",
    ];
    for trace in traces {
        for policy in Policy::NAMES {
            check_with(waiter, policy, trace);
        }
    }
}

/// The traces that random sequences have found.
fn regressions(waiter: Waiter) {
    for (policy, trace) in FOUND {
        check_with(waiter, policy, trace);
    }
}

/// No order depends on random keys or on addresses: the same steps make the same calls.
fn case_97_the_same_steps_twice(waiter: Waiter) {
    let seed = aio_testing::seed();
    let mut dice = fastrand::Rng::with_seed(seed);
    for number in 0..75 {
        let steps: Vec<_> = sequence(&mut dice, USUAL)
            .iter()
            .map(ToString::to_string)
            .collect();
        let steps = steps.join("; ");
        let calls = || {
            let mut calls = Vec::new();
            let setup = Setup::new(waiter, number);
            let agrees = check_and_show(setup, &steps, &mut |op, log| calls.push(format!("{op}: {log:?}")));
            assert_eq!(agrees.err(), None, "{steps}");
            calls
        };
        assert_eq!(calls(), calls(), "sequence {number} of AIO_SEED={seed}: {steps}");
    }
}
