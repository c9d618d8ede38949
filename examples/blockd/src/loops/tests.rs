//! Calls between loops, and their ends.

use std::sync::{Barrier, mpsc};

use aio_context::{BackendKind, Wait};
use clap::Parser as _;

use super::*;
use crate::cli::Args;
use crate::engine::Engine;
use crate::polling::Settings;
use crate::stopper::Stopper;

/// Returns a context with `count` loops without exports.
fn loops(count: usize) -> (Context, Loops, Stopper) {
    let args = Args::try_parse_from(["blockd", "--export", "null=512,socket=a"]).unwrap();
    let setup = Setup {
        backend: BackendKind::Auto,
        engine: Engine::Auto,
        polling: Settings::of(&args).unwrap(),
        record_waits: None,
        nbd: false,
    };
    let (cx, polling) = setup.context(MAIN, true).unwrap();
    let stopper = Stopper::new(&cx);
    let own = Local::new(&cx, MAIN.into(), setup.engine, polling, None);
    let loops = Loops::start(own, count, &setup, Ending::new(stopper.clone())).unwrap();
    (cx, loops, stopper)
}

/// Polls until there is a value, and returns it.
fn wait_for<T>(cx: &Context, value: &RefCell<Option<T>>) -> T {
    loop {
        if let Some(value) = value.take() {
            return value;
        }
        cx.poll(Wait::Block).unwrap();
    }
}

/// Returns the names of the loops that answer.
fn responding(cx: &Context, loops: &Loops) -> Vec<String> {
    let answered = Rc::new(RefCell::new(None));
    let names = answered.clone();
    let name = |cx: &Context, local: &Local| local.state(cx).name;
    loops.gather(cx, name, move |_, gathered| {
        names.replace(Some(gathered));
    });
    wait_for(cx, &answered).into_iter().flatten().collect()
}

/// Returns the result of a call of the loop `index`.
fn call(cx: &Context, loops: &Loops, index: usize) -> anyhow::Result<usize> {
    let result = Rc::new(RefCell::new(None));
    let passed = result.clone();
    loops.call(
        cx,
        index,
        move |cx, _, reply| reply.send(cx, Ok(index)),
        Box::new(move |_, answer| drop(passed.replace(Some(answer)))),
    );
    wait_for(cx, &result)
}

#[test]
fn each_loop_answers_under_its_name() {
    for count in [1, 2, 4] {
        let (cx, loops, _) = loops(count);
        assert_eq!(responding(&cx, &loops), ["main", "io1", "io2", "io3"][..count]);
        for index in 0..count {
            assert_eq!(call(&cx, &loops, index).unwrap(), index);
            assert_eq!(loops.find(loops.name(index)), Some(index));
        }
        assert_eq!(loops.find("io9"), None);
        assert!(loops.failure().is_none());
    }
}

#[test]
fn a_loop_that_panics_ends_the_daemon() {
    let (cx, loops, stopper) = loops(3);
    let result = Rc::new(RefCell::new(None));
    let passed = result.clone();
    loops.call(
        &cx,
        2,
        |_, _, _: Reply<()>| panic!("planted"),
        Box::new(move |_, answer| drop(passed.replace(Some(answer)))),
    );
    // The call has an error, and so has each later one.
    let error = wait_for(&cx, &result).unwrap_err().to_string();
    assert!(error.contains("the loop io2 has ended"), "{error}");
    while !stopper.is_stopped() {
        cx.poll(Wait::Block).unwrap();
    }
    let error = loops.failure().unwrap().to_string();
    for part in ["the I/O thread io2 has ended", "planted"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(call(&cx, &loops, 2).is_err());
    // The others still answer, so they can complete their requests.
    assert_eq!(call(&cx, &loops, 1).unwrap(), 1);
    assert_eq!(responding(&cx, &loops), ["main", "io1"]);
}

#[test]
fn a_loop_that_is_stopped_is_no_failure() {
    let (_cx, loops, stopper) = loops(2);
    loops.stop();
    assert!(!stopper.is_stopped() && loops.failure().is_none());
}

#[test]
fn a_loop_that_hangs_is_reported_and_not_waited_for() {
    let (cx, loops, stopper) = loops(3);
    let (release, hang) = mpsc::channel::<()>();
    let entered = Arc::new(Barrier::new(2));
    let hangs = entered.clone();
    loops.call(
        &cx,
        1,
        move |cx, _, reply| {
            hangs.wait();
            hang.recv().unwrap_or_default();
            reply.send(cx, Ok(()));
        },
        Box::new(|_, _| ()),
    );
    entered.wait();
    assert_eq!(responding(&cx, &loops), ["main", "io2"]);
    // The number of queries that a loop has not answered is limited.
    let [hanging, other] = &loops.others[..] else {
        panic!("three loops");
    };
    for _ in 0..2 * thread::MOST_QUERIES {
        loops.gather(&cx, |_, _| (), |_, _| ());
        while other.unanswered() > 0 {
            cx.poll(Wait::Block).unwrap();
        }
    }
    assert_eq!(hanging.unanswered(), thread::MOST_QUERIES);
    assert_eq!(responding(&cx, &loops), ["main", "io2"]);
    loops.stop();
    assert!(!stopper.is_stopped());
    drop(release);
}
