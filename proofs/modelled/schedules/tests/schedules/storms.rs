//! Many notifications, and a foreign loop that waits on behalf of a context.

use std::sync::Arc;

use aio_checker::kernel::Kernel;
use aio_context::Wait;
use aio_schedules::Fake;
use shuttle::sync::atomic::{AtomicU32, Ordering::SeqCst};
use shuttle::thread;

use crate::{Crowd, Recorded};

const STORMY: u32 = 7;
const EACH: u32 = 2;

/// Each thread sends notifications without a cause, and one with a cause at its end. That one is not lost,
/// the number of iterations is bounded by that of the notifications, and the eventfd is silent at the end.
fn notifications() {
    let cx = Fake::context();
    let ended = Arc::new(AtomicU32::new(0));
    let others: Vec<_> = (0..STORMY)
        .map(|_| {
            let (remote, ended) = (cx.remote(), ended.clone());
            thread::spawn(move || {
                for number in 1..=EACH {
                    if number == EACH {
                        ended.fetch_add(1, SeqCst);
                    }
                    remote.notify();
                }
            })
        })
        .collect();
    while ended.load(SeqCst) < STORMY {
        cx.poll(Wait::Block).unwrap();
    }
    others.into_iter().for_each(|other| other.join().unwrap());
    let stats = cx.remote().stats();
    let notified = u64::from(STORMY * EACH);
    assert!(stats.wakeups_sent + stats.wakeups_elided <= notified, "{stats:?}");
    // Each notification wakes the loop once, and its ring may arrive after it has been accepted.
    assert!(stats.iterations <= 2 * notified, "{stats:?}");
    for _ in 0..2 {
        cx.poll(Wait::AtMost(std::time::Duration::from_nanos(1))).unwrap();
    }
    Kernel::of_this_run().wait(false, |counts| {
        assert!(counts.values().all(|count| *count == 0), "it still rings");
        true
    });
}

/// A foreign loop sleeps on behalf of the context. A message, a schedule and a warp of the clock each wake
/// it.
fn a_foreign_loop() {
    let cx = Fake::context();
    let ran = Recorded::default();
    let half = {
        let ran = ran.clone();
        cx.bottom_half("embedded", move |_| ran.add(1))
    };
    let mut crowd = Crowd::of(&cx);
    // Dropping the last handle deletes it.
    let schedules = half.clone();
    crowd.add(move |_| schedules.schedule());
    let count = ran.clone();
    crowd.add(move |remote| remote.run(move |_| count.add(1)).unwrap());
    let kernel = Kernel::of_this_run();
    let embedded = cx.embed().unwrap();
    while ran.get() < 2 {
        if embedded.prepare().is_none() {
            kernel.wait(true, |counts| counts.values().any(|count| *count > 0));
        }
        if embedded.check().unwrap() {
            embedded.dispatch();
        }
    }
    drop(embedded);
    crowd.end(&cx);
    assert_eq!(ran.get(), 2);
}

crate::scenarios! {
    n1_n4_a_storm_of_notifications_wakes_and_ends => notifications;
    g1_n5_a_foreign_loop_is_woken => a_foreign_loop;
}

crate::faults! {
    n1_planted_counted_after_ring: CountedAfterRing in notifications;
    n6_planted_drained_read_late: DrainedReadLate in notifications;
    n6_planted_finished_any_drain: FinishedAnyDrain in notifications;
    g1_planted_checks_before_flag: ChecksBeforeFlag in a_foreign_loop;
}
