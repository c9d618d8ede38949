//! E1: spawning, and one poll for a burst of wakes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;

use aio_context::{Context, Wait};
use aio_executor::{ContextExt, RemoteExt, current, spawn, try_current, yield_now};
use aio_sources::IoThread;

use crate::common::{Bench, Count, Tasks, everywhere};

everywhere! {
    e1_a_task_is_polled_in_the_next_iteration_and_need_not_be_send
    e1_a_burst_of_wakes_is_one_poll
    e1_a_task_that_wakes_itself_runs_once_an_iteration
    e1_a_task_that_another_thread_wakes_while_it_is_polled_runs_again
    e1_a_task_that_a_nested_poll_comes_to_runs_again
    e1_another_thread_spawns
    e1_a_task_spawns_and_awaits_another
    e1_a_nested_poll_runs_the_other_tasks
    e1_a_nested_poll_runs_a_task_that_was_woken_before
    e1_a_block_on_in_a_task_sleeps_until_it_is_woken
    e1_a_panic_leaves_the_other_tasks_due
    e1_tasks_that_wake_each_other_for_ever_leave_others_their_turn
    e1_a_waker_of_a_former_task_does_not_wake_the_next_one
}

/// Spawns a task that counts its polls and gives its waker away.
fn counted(cx: &Context) -> (Count, Rc<RefCell<Option<Waker>>>) {
    let (count, waker) = (Count::default(), Rc::new(RefCell::new(None)));
    let (polls, kept) = (count.clone(), waker.clone());
    cx.spawn(poll_fn(move |polling| {
        polls.up();
        kept.replace(Some(polling.waker().clone()));
        Poll::<()>::Pending
    }))
    .detach();
    (count, waker)
}

fn e1_a_task_is_polled_in_the_next_iteration_and_need_not_be_send(bench: Bench) {
    let cx = bench.context();
    let order = Rc::new(RefCell::new(Vec::new()));
    for number in 0..3 {
        let order = order.clone();
        cx.spawn(async move { order.borrow_mut().push(number) }).detach();
    }
    assert!(order.borrow().is_empty(), "no task is polled by `spawn`");
    assert!(bench.block(&cx));
    assert_eq!(*order.borrow(), [0, 1, 2]);
    assert!(!bench.check(&cx));
    assert_eq!(Rc::strong_count(&order), 1, "the futures are gone");
}

fn e1_a_burst_of_wakes_is_one_poll(bench: Bench) {
    let cx = bench.context();
    let (polls, waker) = counted(&cx);
    bench.settle(&cx);
    assert_eq!(polls.get(), 1);
    for round in 2..10 {
        let own = waker.borrow().clone().unwrap();
        for _ in 0..100 {
            own.wake_by_ref();
        }
        let others: Vec<_> = (0..2)
            .map(|_| {
                let waker = own.clone();
                thread::spawn(move || (0..100).for_each(|_| waker.wake_by_ref()))
            })
            .collect();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(bench.block(&cx));
        bench.settle(&cx);
        assert_eq!(polls.get(), round);
    }
}

fn e1_a_task_that_wakes_itself_runs_once_an_iteration(bench: Bench) {
    let cx = bench.context();
    let polls = Count::default();
    let counted = polls.clone();
    cx.spawn(async move {
        for _ in 0..10 {
            counted.up();
            yield_now().await;
        }
    })
    .detach();
    for expected in 1..=10 {
        assert!(bench.check(&cx));
        assert_eq!(polls.get(), expected);
    }
    bench.settle(&cx);
    assert_eq!(polls.get(), 10);
}

fn e1_a_task_that_another_thread_wakes_while_it_is_polled_runs_again(bench: Bench) {
    let cx = bench.context();
    let polls = Count::default();
    let counted = polls.clone();
    let task = cx.spawn(poll_fn(move |polling| {
        if counted.up() == 2 {
            return Poll::Ready(());
        }
        let waker = polling.waker().clone();
        thread::spawn(move || waker.wake()).join().unwrap();
        Poll::Pending
    }));
    assert!(bench.check(&cx));
    assert!(!task.is_finished());
    assert!(bench.block(&cx), "the wake is not lost");
    assert!(task.is_finished());
    assert_eq!(polls.get(), 2);
}

/// The bottom half of the task is due in a poll that the task itself makes.
fn e1_a_task_that_a_nested_poll_comes_to_runs_again(bench: Bench) {
    let cx = bench.context();
    let polls = Count::default();
    let counted = polls.clone();
    let task = cx.spawn(poll_fn(move |polling| {
        if counted.up() == 2 {
            return Poll::Ready(());
        }
        polling.waker().wake_by_ref();
        let progress = current().poll(Wait::NoBlock).unwrap();
        assert!(progress, "the bottom half ran");
        assert_eq!(counted.get(), 1, "a future is not polled inside its own poll");
        Poll::Pending
    }));
    assert!(bench.block(&cx));
    assert!(!task.is_finished());
    assert!(bench.check(&cx), "it is due again");
    assert!(task.is_finished());
}

fn e1_another_thread_spawns(bench: Bench) {
    let cx = bench.context();
    let (remote, home) = (cx.remote(), thread::current().id());
    let (hand_over, tasks) = mpsc::channel();
    let other = thread::spawn(move || {
        for number in 0..100_u64 {
            let task = remote.spawn(async move {
                yield_now().await;
                (number, thread::current().id())
            });
            hand_over.send(task).unwrap();
        }
    });
    for (number, task) in tasks.iter().enumerate() {
        assert_eq!(bench.join(&cx, task).unwrap(), (number as u64, home));
    }
    other.join().unwrap();
}

fn e1_a_task_spawns_and_awaits_another(bench: Bench) {
    let cx = bench.context();
    assert!(try_current().is_none());
    let answer = bench.run(&cx, async {
        let parts: Vec<_> = (1..=10).map(|number| spawn(async move { number })).collect();
        let mut sum = 0;
        for part in parts {
            sum += part.await.unwrap();
        }
        sum
    });
    assert_eq!(answer, 55);
    assert!(try_current().is_none());
}

#[test]
#[should_panic(expected = "no task is running")]
fn e1_there_is_no_current_context_outside_a_task() {
    let _ = current();
}

#[test]
fn e1_block_on_serves_the_context_meanwhile() {
    let cx = Context::new().unwrap();
    let (count, shared) = (Count::default(), String::from("borrowed"));
    let counted = count.clone();
    let half = cx.bottom_half("count", move |_| {
        counted.up();
    });
    half.schedule();
    let length = cx
        .block_on(async {
            yield_now().await;
            yield_now().await;
            // Nested, as a task may do it.
            current().block_on(yield_now()).unwrap();
            shared.len()
        })
        .unwrap();
    assert_eq!((length, count.get()), (8, 1));
}

/// A wake comes just before, just after, or during the wait that it must end.
#[test]
fn e1_block_on_loses_no_wake_of_another_thread() {
    let io = IoThread::spawn(|_cx| Ok(())).unwrap();
    let cx = Context::new().unwrap();
    for number in 0..2_000_u32 {
        let answer = cx.block_on(io.remote().call(move |_cx| number)).unwrap();
        assert_eq!(answer.unwrap(), number);
    }
    io.stop().unwrap();
}

/// A task's own poll does not delay the other tasks of the same run, or those that the task wakes.
fn e1_a_nested_poll_runs_the_other_tasks(bench: Bench) {
    let cx = bench.context();
    let order = Rc::new(RefCell::new(Vec::new()));
    let outer = order.clone();
    cx.spawn(async move {
        for round in 0..2 {
            let inner = outer.clone();
            spawn(async move { inner.borrow_mut().push(10 + round) }).detach();
            while outer.borrow().len() < 2 + round {
                current().poll(Wait::Block).unwrap();
            }
        }
        outer.borrow_mut().push(99);
    })
    .detach();
    let other = order.clone();
    cx.spawn(async move { other.borrow_mut().push(1) }).detach();
    bench.settle(&cx);
    assert_eq!(*order.borrow(), [1, 10, 11, 99]);
}

fn e1_a_block_on_in_a_task_sleeps_until_it_is_woken(bench: Bench) {
    let cx = bench.context();
    let polls = Count::default();
    let counted = polls.clone();
    let answer = bench.run(&cx, async move {
        let cx = current();
        let (give, answer) = mpsc::channel();
        let waiting = poll_fn(move |polling| match answer.try_recv() {
            Ok(answer) => Poll::Ready(answer),
            Err(_) if counted.up() > 3 => panic!("it is polled without a wake"),
            Err(_) => {
                let (give, waker) = (give.clone(), polling.waker().clone());
                if counted.get() == 1 {
                    thread::spawn(move || {
                        give.send(7).unwrap();
                        waker.wake();
                    });
                }
                Poll::Pending
            }
        });
        cx.block_on(waiting).unwrap()
    });
    assert_eq!(answer, 7);
    bench.settle(&cx);
    assert!(!bench.check(&cx));
}

fn e1_a_panic_leaves_the_other_tasks_due(bench: Bench) {
    let cx = bench.context();
    let ran = Count::default();
    for number in 0..10 {
        let ran = ran.clone();
        cx.spawn(async move {
            assert!(number != 3, "on purpose");
            ran.up();
        })
        .detach();
    }
    let block = std::panic::AssertUnwindSafe(|| bench.block(&cx));
    std::panic::catch_unwind(block).unwrap_err();
    assert_eq!(ran.get(), 3);
    assert!(bench.block(&cx), "the others are still due");
    assert_eq!(ran.get(), 9);
    bench.settle(&cx);
}

fn e1_tasks_that_wake_each_other_for_ever_leave_others_their_turn(bench: Bench) {
    let cx = bench.context();
    let wakers = Rc::new(RefCell::new([const { None::<Waker> }; 2]));
    let turns = Count::default();
    let tasks = [0, 1].map(|side| {
        let (wakers, turns) = (wakers.clone(), turns.clone());
        cx.spawn(poll_fn(move |polling| {
            turns.up();
            wakers.borrow_mut()[side] = Some(polling.waker().clone());
            let other = wakers.borrow_mut()[1 - side].take();
            other.into_iter().for_each(Waker::wake);
            Poll::<()>::Pending
        }))
    });
    let served = Count::default();
    let counted = served.clone();
    let half = cx.bottom_half("other work", move |_| {
        counted.up();
    });
    for round in 1..=10 {
        half.schedule();
        assert!(bench.check(&cx));
        assert_eq!(served.get(), round, "one iteration, after {} turns", turns.get());
    }
    assert!(turns.get() > 10);
    drop(tasks);
    bench.settle(&cx);
}

fn e1_a_waker_of_a_former_task_does_not_wake_the_next_one(bench: Bench) {
    let cx = bench.context();
    let former = Rc::new(RefCell::new(None::<Waker>));
    for _ in 0..3 {
        let kept = former.clone();
        bench.run(
            &cx,
            poll_fn(move |polling| {
                let waker = polling.waker();
                assert!(
                    !kept
                        .borrow()
                        .as_ref()
                        .is_some_and(|former: &Waker| former.will_wake(waker))
                );
                kept.replace(Some(waker.clone()));
                Poll::Ready(())
            }),
        );
        let (polls, _waker) = counted(&cx);
        bench.settle(&cx);
        assert_eq!(polls.get(), 1);
        former.borrow().iter().for_each(Waker::wake_by_ref);
        bench.settle(&cx);
        assert_eq!(polls.get(), 1, "the waker of another task");
    }
}

fn e1_a_nested_poll_runs_a_task_that_was_woken_before(bench: Bench) {
    let cx = bench.context();
    let ran = Count::default();
    let (seen, counted) = (ran.clone(), ran.clone());
    let outer = cx.spawn(async move {
        assert!(current().poll(Wait::NoBlock).unwrap());
        seen.get()
    });
    cx.spawn(async move {
        counted.up();
    })
    .detach();
    assert_eq!(bench.join(&cx, outer).unwrap(), 1);
}
