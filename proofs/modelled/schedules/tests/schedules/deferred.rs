//! Bottom halves and jobs.

use std::sync::Arc;

use aio_context::{BottomHalf, Context, Remote, Wait};
use aio_schedules::Fake;
use shuttle::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::{Crowd, Recorded, recorded};

/// Each producer schedules its bottom half twice. The run after the last schedule reads the data written
/// before it.
fn schedules_while_the_loop_falls_asleep() {
    let cx = Fake::context();
    let goals: [Arc<AtomicU32>; 3] = std::array::from_fn(|_| Arc::default());
    let (seen, runs) = (recorded::<3>(), recorded::<3>());
    let halves: [BottomHalf; 3] = std::array::from_fn(|number| {
        let (goal, seen, runs) = (goals[number].clone(), seen[number].clone(), runs[number].clone());
        cx.bottom_half("producer", move |_| {
            seen.set(goal.load(SeqCst));
            runs.add(1);
        })
    });
    let mut crowd = Crowd::of(&cx);
    for (half, goal) in halves.iter().cloned().zip(goals) {
        crowd.add(move |_| {
            for value in 1..=2 {
                goal.store(value, SeqCst);
                half.schedule();
            }
        });
    }
    while seen.iter().any(|seen| seen.get() < 2) {
        cx.poll(Wait::Block).unwrap();
    }
    crowd.end(&cx);
    assert!(runs.iter().all(|runs| (1..=2).contains(&runs.get())));
}

/// A bottom half that several threads schedule and cancel. Any of them may drop the last handle.
fn cancels_and_deletes_against_schedules_and_runs() {
    let cx = Fake::context();
    let [runs, deleted, handles] = recorded();
    handles.set(3);
    let kept = Arc::new(());
    let half = {
        let (runs, deleted, kept) = (runs.clone(), deleted.clone(), kept.clone());
        cx.bottom_half("contended", move |_| {
            assert_eq!(deleted.get(), 0, "it runs after it was deleted");
            assert!(Arc::strong_count(&kept) > 1);
            runs.add(1);
        })
    };
    let uses: [fn(&BottomHalf); 3] = [
        |half| {
            half.schedule();
            half.schedule();
        },
        |half| {
            half.cancel();
            half.schedule();
        },
        |half| {
            half.schedule_idle();
            half.cancel();
        },
    ];
    let mut crowd = Crowd::of(&cx);
    for (half, work) in std::iter::repeat_n(half, 3).zip(uses) {
        let (handles, deleted) = (handles.clone(), deleted.clone());
        crowd.add(move |remote| {
            work(&half);
            drop(half);
            handles.set(handles.get() - 1);
            deleted.set(u32::from(handles.get() == 0));
            // Freeing it is no progress.
            remote.notify();
        });
    }
    while Arc::strong_count(&kept) > 1 {
        cx.poll(Wait::Block).unwrap();
    }
    crowd.end(&cx);
    assert!(runs.get() <= 4, "{} runs", runs.get());
}

/// A bottom half that is cancelled and not scheduled again runs at most once more.
fn cancels_that_come_late() {
    let cx = Fake::context();
    let runs = Recorded::default();
    let half = {
        let runs = runs.clone();
        cx.bottom_half("cancelled", move |_| runs.add(1))
    };
    let mut crowd = Crowd::of(&cx);
    let schedules = half.clone();
    crowd.add(move |_| schedules.schedule());
    let (cancels, count) = (half.clone(), runs.clone());
    crowd.add_announcing(move |remote| {
        cancels.schedule();
        cancels.cancel();
        let before = count.get();
        remote.run_and_wait(|_| ()).unwrap();
        // A run may just have begun, and the other thread's schedule may come in between.
        assert!(count.get() <= before + 2);
    });
    crowd.serve(&cx, 1);
    crowd.end(&cx);
    half.schedule();
    half.cancel();
    let before = runs.get();
    while cx.poll(Wait::NoBlock).unwrap() {}
    assert_eq!(runs.get(), before, "it was cancelled at home");
}

/// Three producers send three jobs each, some of which poll, and the loop sends some to itself. Each runs
/// once, in the order of its producer, and after all jobs that had been sent before it.
fn jobs_of_several_threads() {
    let cx = Fake::context();
    let order = Order::default();
    let mut crowd = Crowd::of(&cx);
    for producer in 0..3 {
        let order = order.clone();
        crowd.add(move |remote| {
            for number in 0..3 {
                order.send(remote, producer, move |cx| {
                    if number == producer {
                        cx.poll(Wait::NoBlock).unwrap();
                    }
                });
            }
        });
    }
    let (sends, at_home) = (order.clone(), cx.remote());
    for _ in 0..3 {
        let sends = sends.clone();
        order.send(&at_home, HOME, move |cx| sends.send(&cx.remote(), HOME, |_| ()));
    }
    while order.ran() < 15 {
        cx.poll(Wait::Block).unwrap();
    }
    crowd.end(&cx);
    assert_eq!(order.ran(), 15);
}

const HOME: usize = 3;

/// For each producer: the number of jobs sent, and the number that ran.
#[derive(Clone, Default)]
struct Order(Arc<[(Recorded, Recorded); 4]>);

impl Order {
    fn send(&self, remote: &Remote, producer: usize, job: impl FnOnce(&Context) + Send + 'static) {
        let (order, place) = (self.clone(), &self.0[producer]);
        let sent_before: Vec<u32> = self.0.iter().map(|(sent, _)| sent.get()).collect();
        let run = move |cx: &Context| {
            for (number, (before, (_, ran))) in sent_before.iter().zip(&*order.0).enumerate() {
                let ran = ran.get();
                assert!(ran >= *before, "{producer} overtakes {number}");
                assert!(number != producer || ran == *before, "{producer} is out of order");
            }
            order.0[producer].1.add(1);
            job(cx);
        };
        remote.run(run).unwrap();
        place.0.add(1);
    }

    fn ran(&self) -> u32 {
        self.0.iter().map(|(_, ran)| ran.get()).sum()
    }
}

crate::scenarios! {
    h1_n2_a_schedule_while_the_loop_falls_asleep_is_not_lost => schedules_while_the_loop_falls_asleep;
    h5_h6_a_deleted_half_never_runs_when_others_schedule_it => cancels_and_deletes_against_schedules_and_runs;
    h5_a_cancelled_half_does_not_come_back => cancels_that_come_late;
    h3_h7_jobs_run_once_in_the_order_of_each_sender => jobs_of_several_threads;
}

crate::faults! {
    n2_planted_prepare_without_recheck: PrepareWithoutRecheck in schedules_while_the_loop_falls_asleep;
    n1_planted_notify_swapped: NotifySwapped in schedules_while_the_loop_falls_asleep jobs_of_several_threads;
    h2_planted_begin_keeps_queued: BeginKeepsQueued in schedules_while_the_loop_falls_asleep;
    h1_planted_push_twice: PushTwice in schedules_while_the_loop_falls_asleep;
    h6_planted_begin_in_two_steps: BeginInTwoSteps in cancels_and_deletes_against_schedules_and_runs;
    h6_planted_retire_in_two_steps: RetireInTwoSteps in cancels_and_deletes_against_schedules_and_runs;
    h7_planted_notified_before_sent: NotifiedBeforeSent in jobs_of_several_threads;
    h3_planted_home_overtakes: HomeOvertakes in jobs_of_several_threads;
    h1_planted_home_is_everywhere: HomeIsEverywhere in jobs_of_several_threads;
}
