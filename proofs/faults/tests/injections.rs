//! Five thousand injections in one process. There is only one test, because it counts the descriptors of its
//! process.

use aio_faults::{Call, Fault, Plant, Sweep, disturbed};
use aio_faults::{Kind, errors_of, has_uring};

const INJECTIONS: u64 = 5_000;

#[test]
fn b4_every_call_fails_and_nothing_is_lost() {
    planted_faults_are_found();
    let seed = aio_testing::seed();
    for call in Call::ALL {
        println!("{}: {}", call.name(), errors_of(call));
    }
    let mut sweep = Sweep::default();
    sweep.every_call(&mut |_| {});
    let alone = sweep.injected;
    sweep.drawn(INJECTIONS, seed, &mut |_| {});
    println!(
        "{sweep}\n{alone} injections alone, {} in all, {} runs",
        sweep.injected, sweep.runs
    );
    assert!(sweep.failures.is_empty(), "{:#?}", sweep.failures);
    assert!(alone > 1_000 && sweep.injected >= INJECTIONS);
    // Every call has failed at least once, or this would be no evidence about it.
    let table = sweep.to_string();
    let rings = [Call::RingSetup, Call::RingEnter, Call::RingPoll];
    for call in Call::ALL {
        if rings.contains(&call) && !has_uring() {
            continue;
        }
        assert!(
            table.contains(&format!("| {} |", call.name())),
            "{} never failed",
            call.name()
        );
    }
}

fn planted_faults_are_found() {
    let no_room = Call::Add.faults()[0];
    let closed = Call::EpollWait.faults()[1];
    let check = |kind, at: (Call, u64, Fault), plant, part: &str| {
        let why = disturbed(kind, &[at], None, Some(plant)).err();
        assert!(
            why.as_ref().is_some_and(|why| why.contains(part)),
            "{plant:?}: {why:?}"
        );
    };
    check(
        Kind::Epoll,
        (Call::Add, 3, no_room),
        Plant::RefusalIgnored,
        "lost",
    );
    check(
        Kind::LadderAt0,
        (Call::EpollWait, 2, closed),
        Plant::Spin,
        "busy loop",
    );
    check(
        Kind::LadderAt4,
        (Call::EpollWait, 2, closed),
        Plant::Leak,
        "descriptors are open",
    );
}
