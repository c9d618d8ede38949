//! Cases 48 to 55: bottom halves. (56, the list through which threads post them, is a model of `aio-notify`.)

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aio_context::{BottomHalf, Clock, ClockId, Context};

use crate::check::check;
use crate::common::{Bench, Count, Kick, everywhere, watch};
use crate::counting;
use crate::fixtures::{MOMENT, counted, scaled};
use crate::process::each_in_a_process;

everywhere! {
    case_48_one_that_schedules_itself_for_ever
    case_49_deleted_while_it_runs_or_is_scheduled
    case_50_scheduled_many_times
    case_51_scheduled_and_cancelled_by_many_threads
    case_53_an_idle_one_keeps_no_loop_awake
    case_54_scheduled_after_its_context
    case_55_a_nested_poll_runs_the_rest_once
}

fn counting_one(cx: &Context, name: &'static str) -> (BottomHalf, Count) {
    let count = Count::default();
    let counted = count.clone();
    let bh = cx.bottom_half(name, move |_| {
        counted.up();
    });
    (bh, count)
}

/// Rules H2 and D8.
fn case_48_one_that_schedules_itself_for_ever(bench: Bench) {
    let cx = bench.context();
    let (own, runs) = (
        Rc::new(std::cell::OnceCell::<BottomHalf>::new()),
        Count::default(),
    );
    let (this, counted) = (own.clone(), runs.clone());
    let bh = cx.bottom_half("for ever", move |_| {
        counted.up();
        this.get().unwrap().schedule();
    });
    own.set(bh.clone()).unwrap();
    bh.schedule();
    let (kick, fired) = (Kick::new(), Count::default());
    let _registration = watch(&cx, &kick);
    let counted = fired.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            counted.up();
        })
        .disarmed();
    let polls = scaled(1_000, 1_000_000) as u32;
    let mut served = 0;
    for poll in 1..=polls {
        if poll % 100 == 1 {
            assert_eq!((kick.count.get(), fired.get()), (served, served), "poll {poll}");
            served += 1;
            kick.kick();
            timer.arm_after(Duration::ZERO);
        }
        assert!(bench.block(&cx));
        assert_eq!(runs.get(), poll, "once in each");
    }
    bh.cancel();
    assert!(!bench.check(&cx) && runs.get() == polls);
}

/// Rules H5 and H6: the deletion wins.
fn case_49_deleted_while_it_runs_or_is_scheduled(bench: Bench) {
    for trace in [
        "on x { delete x }; bh x; schedule x; poll -> x; poll ->",
        "on x { schedule x, delete x }; bh x; schedule x; poll -> x; poll ->",
        "on x { delete x, schedule x, bh x, schedule x }; bh x; schedule x; poll -> x; poll -> x; poll -> x",
        "on x { delete y }; bh x; bh y; schedule y; schedule x; poll -> y x; schedule y; poll ->",
        "on x { delete y }; bh x; bh y; schedule x; schedule y; poll -> x; poll ->",
        "bh x; schedule x; delete x; poll ->",
        "bh x; schedule x; cancel x; delete x; poll ->; bh x; schedule x; poll -> x",
        "bh x; idle x; delete x; wait 20 ->",
        "on x { delete x, poll }; bh x; bh y; schedule x; schedule y; poll -> x [ y ]; poll ->",
    ] {
        check(bench, trace);
    }
}

/// Rules H1 and H2.
fn case_50_scheduled_many_times(bench: Bench) {
    for trace in [
        "bh x; schedule x; schedule x; schedule x; idle x; schedule x; poll -> x; poll ->",
        "on x { schedule x, schedule x }; bh x; schedule x; poll -> x; poll -> x; cancel x; poll ->",
        "on y { schedule x }; bh x; bh y; schedule x; schedule y; poll -> x y; poll -> x; poll ->",
        "on y { schedule x }; bh x; bh y; schedule y; schedule x; poll -> y x; poll ->",
    ] {
        check(bench, trace);
    }
    let cx = bench.context();
    let (bh, runs) = counting_one(&cx, "often");
    for round in 1..=3 {
        (0..10_000).for_each(|_| bh.schedule());
        assert!(bench.block(&cx) && runs.get() == round);
        assert!(!bench.check(&cx));
    }
}

/// Rules H1, H5 and I6.
fn case_51_scheduled_and_cancelled_by_many_threads(bench: Bench) {
    const THREADS: u64 = 64;
    let each = scaled(50, 5_000);
    let cx = bench.context();
    let (written, seen) = (Arc::new(AtomicU64::new(0)), Rc::new(RefCell::new(0)));
    let (reader, latest, runs) = (written.clone(), seen.clone(), Count::default());
    let counted = runs.clone();
    let bh = cx.bottom_half("shared", move |_| {
        counted.up();
        *latest.borrow_mut() = reader.load(Ordering::Relaxed);
    });
    let (done, over) = mpsc::channel();
    for thread in 0..THREADS {
        let (bh, written, done) = (bh.clone(), written.clone(), done.clone());
        thread::spawn(move || {
            for number in 0..each {
                written.fetch_add(1, Ordering::Relaxed);
                bh.schedule();
                if (thread + number).is_multiple_of(7) {
                    bh.cancel();
                }
            }
            written.fetch_add(1, Ordering::Relaxed);
            bh.schedule();
            done.send(bh).unwrap();
        });
    }
    drop(done);
    let mut ended = 0;
    while ended < THREADS {
        bench.poll(&cx, MOMENT);
        ended += over.try_iter().count() as u64;
    }
    // No thread cancels any more, so later schedules are not lost.
    written.fetch_add(1, Ordering::Relaxed);
    bh.schedule();
    let all = THREADS * (each + 1) + 1;
    while *seen.borrow() != all {
        assert!(bench.block(&cx));
    }
    assert!((1..=all).contains(&u64::from(runs.get())));
    assert!(!bench.check(&cx));
}

/// Rules H3 and H7: the one-shots of each thread run in its order, and all their memory is freed.
#[test]
fn case_52_a_storm_of_one_shots() {
    const THREADS: usize = 4;
    let name = concat!(module_path!(), "::case_52_a_storm_of_one_shots");
    each_in_a_process(name, |bench| {
        let each = scaled(5_000, 2_500_000);
        let cx = bench.context();
        counting::observe_this_thread(true);
        let storm = |each: u64| {
            let latest = Arc::new([const { AtomicU64::new(0) }; THREADS]);
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (remote, latest) = (cx.remote(), latest.clone());
                    thread::spawn(move || {
                        counting::observe_this_thread(true);
                        for number in 0..each {
                            let latest = latest.clone();
                            let job = move |_: &Context| {
                                let before = latest[thread].fetch_add(1, Ordering::Relaxed);
                                assert_eq!(before, number, "in the order of the thread");
                            };
                            remote.run(job).unwrap();
                        }
                        counting::observe_this_thread(false);
                    })
                })
                .collect();
            let landed = || {
                latest
                    .iter()
                    .map(|count| count.load(Ordering::Relaxed))
                    .sum::<u64>()
            };
            while landed() < THREADS as u64 * each {
                bench.block(&cx);
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(!bench.check(&cx));
        };
        storm(100);
        let before = counting::live().blocks;
        storm(each);
        // A thread leaves at most one block of its handle.
        let left = counting::live().blocks - before;
        assert!(
            left.unsigned_abs() <= 4 * THREADS as u64,
            "{left} blocks are left"
        );
    });
}

/// Rule H8, counted in waits.
fn case_53_an_idle_one_keeps_no_loop_awake(bench: Bench) {
    let (builder, calls) = counted(bench);
    let clock = Arc::new(aio_context::ManualClock::new());
    let cx = builder.monotonic(clock.clone()).build().unwrap();
    if bench.foreign {
        return; // `h8_` tests have the foreign loop's part
    }
    let own = Rc::new(std::cell::OnceCell::<BottomHalf>::new());
    let (this, runs) = (own.clone(), Count::default());
    let counted = runs.clone();
    let bh = cx.bottom_half("idle", move |_| {
        counted.up();
        this.get().unwrap().schedule_idle();
    });
    own.set(bh.clone()).unwrap();
    bh.schedule_idle();
    let (start, before) = (clock.now(), calls.waits());
    for polls in 1..=100 {
        let wait = aio_context::Wait::AtMost(Duration::from_millis(10));
        assert!(!bench.poll(&cx, wait), "it is no progress");
        assert_eq!(runs.get(), polls);
    }
    assert_eq!(clock.now().since(start), Duration::from_secs(1), "10 ms each");
    assert_eq!(calls.waits() - before, 100, "one wait each");
    bh.cancel();
}

/// Rules H6 and H7.
fn case_54_scheduled_after_its_context(bench: Bench) {
    struct Tells(Arc<AtomicU64>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let drops = Arc::new(AtomicU64::new(0));
    let tells = || Tells(drops.clone());
    let cx = bench.context();
    let (scheduled, late, job) = (tells(), tells(), tells());
    let scheduled = cx.bottom_half("scheduled before", move |_| {
        unreachable!("{}", scheduled.0.load(Ordering::Relaxed))
    });
    let late = cx.bottom_half("scheduled after", move |_| {
        unreachable!("{}", late.0.load(Ordering::Relaxed))
    });
    scheduled.schedule();
    let remote = cx.remote();
    remote.run(move |_| drop(job)).unwrap();
    drop(cx);
    assert_eq!(drops.load(Ordering::Relaxed), 3, "with the context, once each");
    let (other_half, job, refused) = (late.clone(), tells(), remote.clone());
    thread::spawn(move || {
        other_half.schedule();
        other_half.schedule_idle();
        other_half.cancel();
        assert!(refused.run(move |_| drop(job)).is_err());
    })
    .join()
    .unwrap();
    assert_eq!(drops.load(Ordering::Relaxed), 4, "given back and dropped");
    late.schedule();
    drop((scheduled, late, remote));
    assert_eq!(drops.load(Ordering::Relaxed), 4);
}

/// Rule H4.
fn case_55_a_nested_poll_runs_the_rest_once(bench: Bench) {
    for trace in [
        "on x { poll }; bh x; bh y; bh z; schedule x; schedule y; schedule z; poll -> x [ y z ]; poll ->",
        "on x { poll }; on y { poll }; bh x; bh y; bh z; schedule x; schedule y; schedule z; poll -> x [ y [ z ] ]; poll ->",
        "on x { schedule y, poll, poll }; bh x; bh y; bh z; schedule x; schedule z; poll -> x [ z y ] [ ]; poll ->",
        "on x { schedule x, poll }; bh x; bh y; schedule x; schedule y; poll -> x [ y x [ x ] ]; cancel x; poll ->",
        "on x { cancel z, delete y, poll }; bh x; bh y; bh z; schedule x; schedule y; schedule z; poll -> x [ ]; poll ->",
    ] {
        check(bench, trace);
    }
}
