//! A small language for what is done to a context and what it calls.
//!
//! Steps are separated by `;`. A poll may say which callbacks it is to make: `poll -> a.readable x`, in this order, or
//! `poll ~> a.readable b.readable`, in any. A nested poll stands in brackets; a panic that comes out of a poll is `panic`.
//!
//! | step | does |
//! |---|---|
//! | `watch a rw in g` | registers a handler of the same name for descriptor `a`; interest `r`, `w`, `rw` or `-`; group optional |
//! | `replace a b` | puts handler `b` in the place of `a`'s; the descriptor is still `a` |
//! | `remove a`, `interest a w` | about the registration of descriptor `a` |
//! | `pause g`, `resume g` | counted |
//! | `kick a`, `drain a`, `close a` | writes a byte at the far end, unless many lie there, reads all at the near end, closes the far end |
//! | `bh x`, `schedule x`, `idle x`, `cancel x`, `delete x` | bottom halves |
//! | `timer t`, `arm t 5`, `anticipate t 5`, `disarm t`, `forget t` | timers, in milliseconds from now |
//! | `on a.readable { drain a, poll }` | what a callback does; otherwise `readable` drains, and all others do nothing |
//! | `advance 5` | lets time pass |
//! | `poll`, `wait 5` | does what is ready; waits until there is progress, or for 5 ms |
//! | `panic` | in a callback |
//!
//! What makes no sense, such as removing what is not there, does nothing.

use std::rc::Rc;

use aio_context::Interest;

pub(crate) type Name = Rc<str>;
/// What a callback does.
pub(crate) type Script = Rc<[Step]>;

/// Polls in callbacks are done to this depth; below, they do nothing.
pub(crate) const DEEPEST: u32 = 3;
/// So many polls are done for one step, nested ones counted; all later ones do nothing.
pub(crate) const MOST_POLLS: u32 = 40;
/// So many bytes may lie in a stream: far fewer than it has room for.
pub(crate) const MOST_BYTES: u32 = 32;
/// A wait that takes more iterations than this is given up as `busy`. (It can be: what is always ready lets no time pass,
/// and if a bottom half that is no progress serves it in a poll of its own, the wait has none.)
pub(crate) const PATIENCE: u32 = 20;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Watch(Name, Interest, Name),
    Replace(Name, Name),
    Remove(Name),
    Interest(Name, Interest),
    Pause(Name),
    Resume(Name),
    Kick(Name),
    Drain(Name),
    Close(Name),
    BottomHalf(Name),
    Schedule(Name),
    Idle(Name),
    Cancel(Name),
    Delete(Name),
    Timer(Name),
    Arm(Name, u64),
    Anticipate(Name, u64),
    Disarm(Name),
    Forget(Name),
    On(Name, Script),
    Advance(u64),
    Poll,
    Wait(u64),
    Panic,
}

/// What a poll is expected to call.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) calls: Vec<String>,
    pub(crate) in_any_order: bool,
}

/// Steps with what is expected of them.
pub(crate) fn parse(trace: &str) -> Vec<(Step, Option<Expected>)> {
    trace
        .split(';')
        .map(str::trim)
        .filter(|step| !step.is_empty())
        .map(parse_with_expectation)
        .collect()
}

fn parse_with_expectation(text: &str) -> (Step, Option<Expected>) {
    let (step, calls, in_any_order) = match (text.split_once("->"), text.split_once("~>")) {
        (Some((step, calls)), _) => (step, calls, false),
        (_, Some((step, calls))) => (step, calls, true),
        _ => return (parse_step(text), None),
    };
    let calls = calls.split_whitespace().map(str::to_owned).collect();
    (parse_step(step), Some(Expected { calls, in_any_order }))
}

fn parse_step(text: &str) -> Step {
    if let Some((head, script)) = text.split_once('{') {
        let script = script.trim().strip_suffix('}').expect("a script ends with }");
        let label = head.trim().strip_prefix("on ").expect("only `on` has a script");
        let steps = script.split(',').map(str::trim).filter(|step| !step.is_empty());
        return Step::On(label.trim().into(), steps.map(parse_step).collect());
    }
    let words: Vec<_> = text.split_whitespace().collect();
    let name = |index: usize| Name::from(words[index]);
    let number = |index: usize| words[index].parse().expect("a number of milliseconds");
    match (words[0], words.len()) {
        ("watch", 3) => Step::Watch(name(1), parse_interest(words[2]), "default".into()),
        ("watch", 5) => Step::Watch(name(1), parse_interest(words[2]), name(4)),
        ("replace", 3) => Step::Replace(name(1), name(2)),
        ("remove", 2) => Step::Remove(name(1)),
        ("interest", 3) => Step::Interest(name(1), parse_interest(words[2])),
        ("pause", 2) => Step::Pause(name(1)),
        ("resume", 2) => Step::Resume(name(1)),
        ("kick", 2) => Step::Kick(name(1)),
        ("drain", 2) => Step::Drain(name(1)),
        ("close", 2) => Step::Close(name(1)),
        ("bh", 2) => Step::BottomHalf(name(1)),
        ("schedule", 2) => Step::Schedule(name(1)),
        ("idle", 2) => Step::Idle(name(1)),
        ("cancel", 2) => Step::Cancel(name(1)),
        ("delete", 2) => Step::Delete(name(1)),
        ("timer", 2) => Step::Timer(name(1)),
        ("arm", 3) => Step::Arm(name(1), number(2)),
        ("anticipate", 3) => Step::Anticipate(name(1), number(2)),
        ("disarm", 2) => Step::Disarm(name(1)),
        ("forget", 2) => Step::Forget(name(1)),
        ("advance", 2) => Step::Advance(number(1)),
        ("poll", 1) => Step::Poll,
        ("wait", 2) => Step::Wait(number(1)),
        ("panic", 1) => Step::Panic,
        _ => panic!("what is `{text}`?"),
    }
}

fn parse_interest(word: &str) -> Interest {
    match word {
        "-" => Interest::NONE,
        "r" => Interest::READ,
        "w" => Interest::WRITE,
        "rw" => Interest::BOTH,
        _ => panic!("`{word}` is no interest"),
    }
}
