//! Rule G4: a foreign loop that calls `dispatch` without `check`.

use std::time::Duration;

use aio_context::{ClockId, Context, Embedded, Wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::common::{Bench, Count, Kick, is_readable, watch, watch_polled};

fn everywhere(test: impl Fn(&Context)) {
    for bench in Bench::DIRECT {
        println!("{}", bench.name);
        test(&bench.context());
    }
    println!("the usual one");
    test(&Context::new().unwrap());
}

/// Runs an iteration of a loop that never calls `check`: it waits for the time from `prepare`, and dispatches.
fn turn(embedded: &Embedded) -> bool {
    let limit = embedded.prepare();
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().try_into().unwrap(),
        tv_nsec: limit.subsec_nanos().into(),
    });
    poll(&mut [PollFd::new(embedded, PollFlags::IN)], limit.as_ref()).unwrap();
    embedded.dispatch()
}

#[test]
fn g4_descriptors_are_served() {
    everywhere(|cx| {
        let embedded = cx.embed().unwrap();
        let kicks: Vec<_> = (0..100).map(|_| Kick::new()).collect();
        let _registrations: Vec<_> = kicks.iter().map(|kick| watch(cx, kick)).collect();
        for round in 1..=3 {
            for kick in &kicks {
                kick.kick();
                assert!(turn(&embedded));
                assert_eq!(kick.count.get(), round);
            }
        }
        assert!(
            embedded.prepare().is_none(),
            "nothing is left that would make it spin"
        );
    });
}

#[test]
fn g4_a_file_that_is_always_ready_is_served() {
    everywhere(|cx| {
        let embedded = cx.embed().unwrap();
        let (reads, file) = (Count::default(), tempfile::tempfile().unwrap());
        let counted = reads.clone();
        let on = cx.on(file).readable(move |_, _| {
            counted.up();
        });
        let _registration = on.watch().unwrap();
        for round in 1..=3 {
            assert!(turn(&embedded) && reads.get() == round);
        }
    });
}

#[test]
fn g4_bottom_halves_run_and_notifications_do_not_stay() {
    everywhere(|cx| {
        let embedded = cx.embed().unwrap();
        let runs = Count::default();
        let counted = runs.clone();
        let bh = cx.bottom_half("g4", move |_| {
            counted.up();
        });
        for round in 1..=3 {
            // On this thread before `prepare`, and on another thread after it.
            bh.schedule();
            assert!(turn(&embedded) && runs.get() == 2 * round - 1);
            assert!(embedded.prepare().is_none());
            let other = bh.clone();
            std::thread::spawn(move || other.schedule()).join().unwrap();
            poll(&mut [PollFd::new(&embedded, PollFlags::IN)], None).unwrap();
            assert!(embedded.dispatch() && runs.get() == 2 * round);
            assert!(embedded.prepare().is_none(), "the notification is accepted");
            assert!(!embedded.dispatch(), "and nothing is due");
        }
    });
}

#[test]
fn g4_timers_fire() {
    everywhere(|cx| {
        let embedded = cx.embed().unwrap();
        let fired = Count::default();
        let counted = fired.clone();
        let timer = cx
            .timer(ClockId::Monotonic, move |_, _| {
                counted.up();
            })
            .disarmed();
        for round in 1..=3 {
            timer.arm_after(Duration::from_millis(1));
            while fired.get() < round {
                turn(&embedded);
            }
        }
        assert!(embedded.prepare().is_none());
    });
}

/// All kinds of work at once, also a polled handler, and some turns with `check`.
#[test]
fn g4_turns_with_and_without_check_agree() {
    everywhere(|cx| {
        let embedded = cx.embed().unwrap();
        let (kick, polled) = (Kick::new(), Kick::new());
        let _kick = watch(cx, &kick);
        let _polled = watch_polled(cx, &polled);
        let bh = cx.bottom_half("g4", |_| {});
        for round in 1..=9 {
            kick.kick();
            polled.kick();
            bh.schedule();
            embedded.prepare();
            match round % 3 {
                0 => assert!(embedded.dispatch()),
                1 => assert!(embedded.check().unwrap() && embedded.dispatch()),
                _ => {
                    // Events that a check has found before another turn begins are found again.
                    assert!(embedded.check().unwrap());
                    assert_eq!(embedded.prepare(), Some(Duration::ZERO));
                    assert!(embedded.dispatch());
                }
            }
            assert_eq!((kick.count.get(), polled.count.get()), (round, round));
            assert!(!embedded.dispatch());
        }
    });
}

/// Two foreign loops embed one context, and one of them drops its embedding.
#[test]
fn g4_two_embeddings_of_one_context_do_not_disarm_each_other() {
    for bench in Bench::DIRECT {
        println!("{}", bench.name);
        let cx = bench.context();
        let [first, second] = [cx.embed().unwrap(), cx.embed().unwrap()];
        let runs = Count::default();
        let counted = runs.clone();
        let bh = cx.bottom_half("g4", move |_| {
            counted.up();
        });
        assert_eq!((first.prepare(), second.prepare()), (None, None));
        assert!(!first.check().unwrap());
        bh.schedule();
        assert!(is_readable(&second), "the second one is still prepared");
        assert!(second.check().unwrap() && second.dispatch());
        assert_eq!((runs.get(), second.prepare(), first.prepare()), (1, None, None));
        // Work that the first one has accepted is not lost when it is dropped.
        bh.schedule();
        assert!(first.check().unwrap());
        drop(first);
        assert!(is_readable(&second));
        assert!(second.check().unwrap() && second.dispatch());
        assert_eq!((runs.get(), second.prepare()), (2, None));
        drop(second);
        assert!(!cx.poll(Wait::NoBlock).unwrap());
    }
}
