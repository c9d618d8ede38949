//! Behaviour as traces: each is replayed on every backend and in a foreign loop, beside the reference model.
//!
//! The language is in `trace.rs`. A random trace that fails is made as short as it can be and printed; `AIO_SEED` repeats a
//! run, `AIO_TRACES` says how many.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::check::{check, replay};
use crate::common::{Bench, everywhere};
use crate::replay::Replay;
use crate::trace::parse;

everywhere! {
    d3_handlers
    r3_r9_replacing_and_removing
    r5_registering_inside_a_callback
    b5_pausing
    h1_h8_bottom_halves
    t1_t4_timers
    d1_d6_nested_polls
    d9_panics
    case_97_the_same_steps_twice
    random_traces
}

fn d3_handlers(bench: Bench) {
    for trace in [
        "watch a r; poll ->; kick a; poll -> a.readable; poll ->",
        "kick a; watch a r; poll -> a.readable",
        "watch a r; kick a; remove a; poll ->",
        "watch a r; kick a; drain a; poll ->",
        "watch a w; poll -> a.writable; poll -> a.writable; remove a; poll ->",
        "watch a rw; poll -> a.writable; kick a; poll -> a.readable a.writable",
        "watch a -; kick a; poll ->; close a; poll ->",
        "watch a r; watch b r; kick a; kick b; poll ~> a.readable b.readable; poll ->",
        // Level-triggered: what is not drained comes again.
        "on a.readable { }; watch a r; kick a; poll -> a.readable; poll -> a.readable; drain a; poll ->",
        // A hang-up goes to the reader, or to the writer if nobody reads.
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
        check(bench, trace);
    }
}

fn r3_r9_replacing_and_removing(bench: Bench) {
    for trace in [
        "watch a r; kick a; replace a n; poll -> n.readable",
        "watch a r; kick a; poll -> a.readable; replace a n; poll ->; kick a; poll -> n.readable",
        "watch a r; replace a n; remove a; kick a; poll ->",
        "watch a r; watch a w; kick a; poll -> a.writable",
        // Between readable and writable of one event.
        "on a.readable { remove a }; watch a rw; kick a; poll -> a.readable; poll ->",
        "on a.readable { replace a n }; watch a rw; kick a; poll -> a.readable; poll -> n.readable n.writable",
        "on a.readable { drain a, watch a rw }; watch a rw; kick a; poll -> a.readable; poll -> a.writable",
        // Whoever comes first removes the other.
        "on a.readable { remove b, drain a }; watch a r; watch b r; kick a; poll -> a.readable; kick b; poll ->",
        "on x { remove a }; bh x; watch a r; kick a; schedule x; poll -> x; poll ->",
        "on x { replace a n }; bh x; watch a r; kick a; schedule x; poll -> x; poll -> n.readable",
        "on t { remove a }; timer t; watch a r; kick a; arm t 0; poll -> a.readable t; kick a; poll ->",
    ] {
        check(bench, trace);
    }
}

fn r5_registering_inside_a_callback(bench: Bench) {
    for trace in [
        "on a.readable { drain a, watch b r }; watch a r; kick a; kick b; poll -> a.readable; poll -> b.readable",
        "on x { watch b r }; bh x; kick b; schedule x; poll -> x; poll -> b.readable",
        "on x { watch b r, remove b, watch b w }; bh x; schedule x; poll -> x; poll -> b.writable",
        "on a.readable { remove a, watch a r }; watch a r; kick a; poll -> a.readable; poll -> a.readable; poll -> a.readable",
    ] {
        check(bench, trace);
    }
}

fn b5_pausing(bench: Bench) {
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
        // The last resume has the loop look, without the nap that an idle one allows.
        "on x { arm t 3 }; bh x; timer t; pause g; idle x; resume g; wait 4 -> x t",
        "on x { arm t 3 }; bh x; timer t; pause g; pause g; idle x; resume g; wait 4 -> x; wait 3 -> t",
        // A paused event does not keep the loop awake, nor does it end a timer's wait.
        "timer t; watch a r in g; pause g; kick a; arm t 7; wait 20 -> t; resume g; poll -> a.readable",
    ] {
        check(bench, trace);
    }
}

fn h1_h8_bottom_halves(bench: Bench) {
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
        check(bench, trace);
    }
}

fn t1_t4_timers(bench: Bench) {
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
        check(bench, trace);
    }
}

fn d1_d6_nested_polls(bench: Bench) {
    for trace in [
        "on x { poll }; bh x; bh y; schedule x; schedule y; poll -> x [ y ]; poll ->",
        "on x { schedule z, poll }; bh x; bh y; bh z; schedule x; schedule y; poll -> x [ y z ]; poll ->",
        "on a.readable { drain a, kick b, poll }; watch a r; watch b r; kick a; poll -> a.readable [ b.readable ]",
        // The nested one takes over what the outer one has collected.
        "on x { poll }; bh x; watch a r; kick a; schedule x; poll -> x [ a.readable ]; poll ->",
        "on a.readable { poll, drain a }; watch a r; kick a; poll -> a.readable [ a.readable [ a.readable ] ]; poll ->",
        "on a.readable { remove a, poll }; watch a rw; kick a; poll -> a.readable [ ]",
        "on t { poll }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t [ u ]; poll ->",
        "on t { arm t 5, wait 10 }; timer t; arm t 0; poll -> t [ t [ t ] ]; wait 10 -> t [ t [ t ] ]",
        "on a.readable { drain a, wait 10 }; timer t; watch a r; kick a; arm t 5; poll -> a.readable [ t ]",
        "on a.readable { drain a, pause g, poll, resume g }; watch a r; watch b r in g; kick a; poll -> a.readable [ ]; kick b; poll -> b.readable",
        "on x { poll, poll }; bh x; watch a w; schedule x; poll -> x [ a.writable ] [ a.writable ]",
    ] {
        check(bench, trace);
    }
}

fn d9_panics(bench: Bench) {
    for trace in [
        "on a.readable { drain a, panic }; watch a r; kick a; poll -> a.readable panic; poll ->; kick a; poll -> a.readable panic",
        "on x { panic }; bh x; bh y; schedule x; schedule y; poll -> x panic; poll -> y; poll ->",
        "on t { panic }; timer t; timer u; arm t 1; arm u 1; advance 1; poll -> t panic; poll -> u; poll ->",
        // What was collected is found again.
        "on x { panic }; bh x; watch a r; kick a; schedule x; poll -> x panic; poll -> a.readable; poll ->",
        "on x { panic }; bh x; watch a rw; kick a; schedule x; poll -> x panic; drain a; poll -> a.writable",
        "on a.readable { panic }; watch a rw; kick a; poll -> a.readable panic; poll -> a.readable panic",
        // Through two levels.
        "on x { poll }; on y { panic }; bh x; bh y; schedule x; schedule y; poll -> x [ y panic; poll ->",
        "on x { poll }; on a.readable { panic }; bh x; watch a r; kick a; schedule x; poll -> x [ a.readable panic; \
         on a.readable { drain a }; poll -> a.readable; poll ->",
        "on a.readable { pause g, panic }; watch a r in g; kick a; poll -> a.readable panic; poll ->; resume g; remove a; poll ->",
    ] {
        check(bench, trace);
    }
}

/// Makes up steps as text, so that what fails can be put into this file.
struct Author(fastrand::Rng);

impl Author {
    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.0.usize(..words.len())]
    }

    fn descriptor(&mut self) -> &'static str {
        self.one_of(&["a", "b", "c", "d"])
    }

    fn on_descriptors(&mut self) -> String {
        let (name, interest) = (self.descriptor(), self.one_of(&["r", "r", "w", "rw", "-"]));
        match self.0.u32(..16) {
            0..3 => format!("watch {name} {interest}"),
            3..5 => format!("watch {name} {interest} in g"),
            5 => format!("replace {name} {name}{name}"),
            6 => format!("remove {name}"),
            7..9 => format!("interest {name} {interest}"),
            9 => format!("drain {name}"),
            10 if self.0.u32(..3) == 0 => format!("close {name}"),
            11 => "pause g".to_owned(),
            12 => "resume g".to_owned(),
            _ => format!("kick {name}"),
        }
    }

    fn on_others(&mut self) -> String {
        let (bh, timer, ms) = (
            self.one_of(&["x", "y", "z"]),
            self.one_of(&["t", "u", "v"]),
            self.0.u32(..12),
        );
        match self.0.u32(..16) {
            0..2 => format!("bh {bh}"),
            2..5 => format!("schedule {bh}"),
            5 => format!("idle {bh}"),
            6 => format!("cancel {bh}"),
            7 => format!("delete {bh}"),
            8..10 => format!("timer {timer}"),
            10..13 => format!("arm {timer} {ms}"),
            13 => format!("anticipate {timer} {ms}"),
            14 => format!("disarm {timer}"),
            _ => format!("forget {timer}"),
        }
    }

    /// A step that a callback may do, too.
    fn action(&mut self) -> String {
        match self.0.u32(..20) {
            0 => format!("advance {}", self.0.u32(..5)),
            1..3 => "poll".to_owned(),
            3 => format!("wait {}", self.0.u32(..15)),
            4..11 => self.on_others(),
            _ => self.on_descriptors(),
        }
    }

    fn script(&mut self) -> String {
        let label = match self.0.u32(..10) {
            0..2 => self.one_of(&["x", "y", "z"]).to_owned(),
            2..4 => self.one_of(&["t", "u", "v"]).to_owned(),
            which => {
                let (name, side) = (
                    self.descriptor(),
                    self.one_of(&["readable", "readable", "writable"]),
                );
                let label = if which == 9 {
                    name.repeat(2)
                } else {
                    name.to_owned()
                };
                format!("{label}.{side}")
            }
        };
        let mut steps: Vec<_> = (0..self.0.u32(1..4)).map(|_| self.action()).collect();
        if self.0.u32(..8) == 0 {
            steps.push("panic".to_owned());
        }
        format!("on {label} {{ {} }}", steps.join(", "))
    }

    fn trace(&mut self) -> Vec<String> {
        let mut steps =
            vec!["bh x; bh y; timer t; timer u; watch a r; watch b rw; watch c r in g".to_owned()];
        for _ in 0..self.0.u32(10..60) {
            steps.push(match self.0.u32(..10) {
                0..2 => self.script(),
                2..5 => "poll".to_owned(),
                5 => format!("wait {}", self.0.u32(..30)),
                _ => self.action(),
            });
        }
        steps
    }
}

/// Replays a trace; a panic that is not the trace's own is an error like any other.
fn try_replay(bench: Bench, steps: &[String]) -> Result<usize, String> {
    let trace = steps.join("; ");
    catch_unwind(AssertUnwindSafe(|| replay(bench, &trace))).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// Leaves out whatever is not needed for a failure.
fn shortest(bench: Bench, mut steps: Vec<String>) -> Vec<String> {
    let mut index = 0;
    while index < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(index);
        if try_replay(bench, &fewer).is_err() {
            (steps, index) = (fewer, 0);
        } else {
            index += 1;
        }
    }
    steps
}

/// The seed and the number of random traces, printed.
fn asked_for() -> (u64, u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("AIO_SEED").unwrap_or_else(|| fastrand::u64(..));
    let traces = number("AIO_TRACES").unwrap_or(300);
    println!("AIO_SEED={seed} AIO_TRACES={traces}");
    (seed, traces)
}

/// No order depends on keys or addresses of the moment: the same steps make the same calls.
fn case_97_the_same_steps_twice(bench: Bench) {
    let (seed, traces) = asked_for();
    let mut author = Author(fastrand::Rng::with_seed(seed));
    for number in 0..traces / 4 {
        let steps = author.trace().join("; ");
        let calls = || {
            let real = Replay::new(bench);
            parse(&steps)
                .iter()
                .map(|(step, _)| real.step(step))
                .collect::<Vec<_>>()
        };
        assert_eq!(calls(), calls(), "trace {number} of AIO_SEED={seed}: {steps}");
    }
}

fn random_traces(bench: Bench) {
    let (seed, traces) = asked_for();
    let mut author = Author(fastrand::Rng::with_seed(seed));
    let mut calls = 0;
    for number in 0..traces {
        let steps = author.trace();
        match try_replay(bench, &steps) {
            Ok(called) => calls += called as u64,
            Err(_) => {
                let steps = shortest(bench, steps);
                let why = try_replay(bench, &steps).expect_err("the shortest one fails, too");
                panic!("trace {number} of AIO_SEED={seed}: {}\n{why}", steps.join("; "));
            }
        }
    }
    assert!(
        calls > 10 * traces,
        "they hardly do anything: {calls} calls in {traces} traces"
    );
}
