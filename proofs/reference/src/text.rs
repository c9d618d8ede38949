//! Parses traces: operations as text, with the calls that they are expected to make.

use aio_context::Interest;

use crate::op::{Callback, DEFAULT_GROUP, Fd, LETTERS_OF_INTEREST, Name, Op, Script, Side, spelled};

/// The expected calls of a step.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) calls: Vec<String>,
    pub(crate) in_any_order: bool,
}

/// Returns the steps with their expectations, or an error that names the part that could not be parsed.
pub(crate) fn parse(trace: &str) -> Result<Vec<(Op, Option<Expected>)>, String> {
    let steps = trace.split(';').map(str::trim).filter(|step| !step.is_empty());
    steps.map(parse_with_expectation).collect()
}

fn parse_with_expectation(text: &str) -> Result<(Op, Option<Expected>), String> {
    let (step, calls, in_any_order) = match (text.split_once("->"), text.split_once("~>")) {
        (Some((step, calls)), _) => (step, calls, false),
        (_, Some((step, calls))) => (step, calls, true),
        _ => return Ok((parse_op(text)?, None)),
    };
    let calls = calls.split_whitespace().map(str::to_owned).collect();
    Ok((parse_op(step)?, Some(Expected { calls, in_any_order })))
}

fn parse_op(text: &str) -> Result<Op, String> {
    let malformed = || format!("`{text}` is not a step of the language");
    if let Some((head, script)) = text.split_once('{') {
        let script = script.trim().strip_suffix('}').ok_or_else(malformed)?;
        let steps = script.split(',').map(str::trim).filter(|step| !step.is_empty());
        let script: Script = steps.map(parse_op).collect::<Result<_, _>>()?;
        let words: Vec<_> = head.split_whitespace().collect();
        return match words[..] {
            ["on", callback] => Ok(Op::On(parse_callback(callback).ok_or_else(malformed)?, script)),
            ["repeat", times] => Ok(Op::Repeat(times.parse().map_err(|_| malformed())?, script)),
            _ => Err(malformed()),
        };
    }
    let words: Vec<_> = text.split_whitespace().collect();
    parse_words(&words).ok_or_else(malformed)
}

fn parse_words(words: &[&str]) -> Option<Op> {
    let fd = |word: &str| parse_name(word)?.descriptor();
    Some(match *words {
        ["watch", a, interest, ref rest @ ..] => {
            let (group, polled) = match *rest {
                [] => (DEFAULT_GROUP, false),
                ["polled"] => (DEFAULT_GROUP, true),
                ["in", group] => (parse_name(group)?, false),
                ["in", group, "polled"] => (parse_name(group)?, true),
                _ => return None,
            };
            Op::Watch(fd(a)?, parse_interest(interest)?, group, polled)
        }
        ["replace", a, by, ref rest @ ..] => {
            let (interest, polled) = match *rest {
                [] => (None, false),
                ["polled"] => (None, true),
                [interest] => (Some(parse_interest(interest)?), false),
                [interest, "polled"] => (Some(parse_interest(interest)?), true),
                _ => return None,
            };
            Op::Replace(fd(a)?, parse_name(by)?, interest, polled)
        }
        ["interest", a, interest] => Op::Interest(fd(a)?, parse_interest(interest)?),
        ["dup", from, to] => Op::Dup(fd(from)?, fd(to)?),
        ["arm", name, ms] => Op::Arm(parse_name(name)?, ms.parse().ok()?),
        ["anticipate", name, ms] => Op::Anticipate(parse_name(name)?, ms.parse().ok()?),
        ["polling", us] => Op::Polling(us.parse().ok()?),
        ["advance", ms] => Op::Advance(ms.parse().ok()?),
        ["wait", ms] => Op::Wait(ms.parse().ok()?),
        ["gather"] => Op::Gather,
        ["scatter"] => Op::Scatter,
        ["poll"] => Op::Poll,
        ["panic"] => Op::Panic,
        [verb, name] => return parse_pair(verb, parse_name(name)?),
        _ => return None,
    })
}

fn parse_pair(verb: &str, name: Name) -> Option<Op> {
    let on_fd: Option<fn(Fd) -> Op> = match verb {
        "remove" => Some(Op::Remove),
        "rearm" => Some(Op::Rearm),
        "kick" => Some(Op::Kick),
        "drain" => Some(Op::Drain),
        "work" => Some(Op::Work),
        "close" => Some(Op::Close),
        "closeraw" => Some(Op::CloseRaw),
        _ => None,
    };
    if let Some(op) = on_fd {
        return name.descriptor().map(op);
    }
    Some(match verb {
        "pause" => Op::Pause(name),
        "resume" => Op::Resume(name),
        "bh" => Op::BottomHalf(name),
        "schedule" => Op::Schedule(name),
        "idle" => Op::Idle(name),
        "cancel" => Op::Cancel(name),
        "delete" => Op::Delete(name),
        "timer" => Op::Timer(name),
        "disarm" => Op::Disarm(name),
        "forget" => Op::Forget(name),
        _ => return None,
    })
}

fn parse_name(word: &str) -> Option<Name> {
    let mut letters = word.chars();
    let first = letters.next().filter(char::is_ascii_lowercase)?;
    let name = Name::of(first);
    match (letters.next(), letters.next()) {
        (None, _) => Some(name),
        (Some(second), None) if second == first => Some(name.doubled()),
        _ => None,
    }
}

fn parse_callback(word: &str) -> Option<Callback> {
    let Some((name, side)) = word.split_once('.') else {
        return parse_name(word).map(Callback::Deferred);
    };
    let side = Side::ALL.into_iter().find(|known| known.name() == side)?;
    Some(Callback::Of(parse_name(name)?, side))
}

fn parse_interest(word: &str) -> Option<Interest> {
    if word == "-" {
        return Some(Interest::NONE);
    }
    let parts = word.chars().map(|letter| {
        let known = LETTERS_OF_INTEREST.iter().find(|(known, _)| *known == letter);
        known.map(|(_, part)| *part)
    });
    let interest = parts.collect::<Option<Interest>>()?;
    // Each letter once, in order, and not the mode alone.
    (interest != Interest::ONESHOT && spelled(interest) == word).then_some(interest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_and_printing_round_trip() {
        let trace = "watch a rw in g polled; replace p pp; dup a b; closeraw a; on aa.poll_ready { drain a, wait 3 }; \
                     repeat 40 { work e, poll }; polling 50; gather; arm t 5; interest q -; on x { panic }; \
                     watch o p; watch b rwp1; replace b bb w1; rearm b; on o.priority { drain o }";
        let ops = parse(trace).unwrap();
        let texts: Vec<_> = ops.iter().map(|(op, _)| op.to_string()).collect();
        assert_eq!(texts.join("; "), trace);
    }

    #[test]
    fn malformed_traces_are_refused() {
        for trace in [
            "watch",
            "watch n r",
            "watch a 1",
            "watch a wr",
            "watch a rr",
            "watch a",
            "kick ab",
            "on a.reads { }",
            "arm t x",
            "on x { poll",
        ] {
            assert!(parse(trace).is_err(), "{trace}");
        }
    }
}
