//! E2: timers as futures, on a clock that the test sets.

use std::future::{Future as _, pending, poll_fn};
use std::time::Duration;

use aio_context::{ClockId, Moment};
use aio_executor::{ContextExt, Elapsed, Sleep, current, sleep, sleep_until, timeout, yield_now};

use crate::common::{Bench, Count, Tasks, everywhere, result};

everywhere! {
    e2_a_sleep_ends_at_its_time_and_not_before
    e2_a_sleep_without_delay_ends_in_the_next_iteration
    e2_sleeps_end_in_the_order_of_their_deadlines
    e2_a_sleep_that_is_dropped_disarms_its_timer
    e2_a_sleep_can_be_moved
    e1_a_sleep_that_is_dropped_wakes_no_task
    e2_a_timeout_is_over_or_returns_the_result
    e2_the_virtual_clock_may_stand_still
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn e2_a_sleep_ends_at_its_time_and_not_before(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let task = cx.spawn(sleep_for(100));
    bench.settle(&cx);
    clock.advance(ms(99));
    bench.settle(&cx);
    assert!(!task.is_finished());
    clock.advance(ms(1));
    bench.settle(&cx);
    result(task).unwrap();
}

async fn sleep_for(count: u64) {
    sleep(ms(count)).await;
}

fn e2_a_sleep_without_delay_ends_in_the_next_iteration(bench: Bench) {
    let (cx, _clock) = bench.simulated();
    let task = cx.spawn(async {
        for _ in 0..3 {
            sleep(Duration::ZERO).await;
        }
    });
    bench.join(&cx, task).unwrap();
}

fn e2_sleeps_end_in_the_order_of_their_deadlines(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    for delay in [30, 10, 20, 40] {
        let order = order.clone();
        cx.spawn(async move {
            sleep(ms(delay)).await;
            order.borrow_mut().push(delay);
        })
        .detach();
    }
    bench.settle(&cx);
    clock.advance(ms(35));
    bench.settle(&cx);
    assert_eq!(*order.borrow(), [10, 20, 30]);
    clock.advance(ms(5));
    bench.settle(&cx);
    assert_eq!(*order.borrow(), [10, 20, 30, 40]);
}

fn e2_a_sleep_that_is_dropped_disarms_its_timer(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let task = cx.spawn(sleep_for(10));
    bench.settle(&cx);
    drop(task);
    bench.settle(&cx);
    clock.advance(ms(100));
    assert!(!bench.check(&cx), "no timer fires");
}

/// Nor does a timeout whose future has ended before it.
fn e1_a_sleep_that_is_dropped_wakes_no_task(bench: Bench) {
    let (cx, _clock) = bench.simulated();
    let polls = Count::default();
    let counted = polls.clone();
    let task = async {
        timeout(ms(10), yield_now()).await.unwrap();
        pending::<()>().await;
    };
    let mut task = Box::pin(task);
    let task = cx.spawn(poll_fn(move |polling| {
        counted.up();
        task.as_mut().poll(polling)
    }));
    bench.settle(&cx);
    assert_eq!(polls.get(), 2, "at first, and after it has yielded");
    drop(task);
}

fn e2_a_sleep_can_be_moved(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let ends = Count::default();
    let counted = ends.clone();
    let begin = cx.now(ClockId::Monotonic);
    let task = cx.spawn(async move {
        let mut nap = Sleep::new(&current(), ClockId::Monotonic, Moment::NEVER);
        assert_eq!(nap.deadline(), Some(Moment::NEVER));
        for tick in 1..=3 {
            nap.reset(begin.saturating_add(ms(10) * tick));
            (&mut nap).await;
            assert_eq!(nap.deadline(), None);
            counted.up();
        }
    });
    for expected in 1..=3 {
        bench.settle(&cx);
        assert_eq!(ends.get(), expected - 1);
        clock.advance(ms(10));
        bench.settle(&cx);
        assert_eq!(ends.get(), expected);
    }
    result(task).unwrap();
}

fn e2_a_timeout_is_over_or_returns_the_result(bench: Bench) {
    let (cx, clock) = bench.simulated();
    let late = cx.spawn(timeout(ms(10), pending::<()>()));
    let early = cx.spawn(timeout(ms(10), async {
        yield_now().await;
        7
    }));
    let at_once = cx.spawn(timeout(Duration::ZERO, async { 8 }));
    bench.settle(&cx);
    assert_eq!(result(early).unwrap(), Ok(7));
    assert_eq!(result(at_once).unwrap(), Ok(8));
    assert!(!late.is_finished());
    clock.advance(ms(10));
    bench.settle(&cx);
    assert_eq!(result(late).unwrap(), Err(Elapsed));
}

fn e2_the_virtual_clock_may_stand_still(bench: Bench) {
    let cx = bench.context();
    let clock = cx.virtual_clock();
    clock.stop();
    let deadline = cx.now(ClockId::Virtual).saturating_add(ms(10));
    let task = cx.spawn(async move { sleep_until(ClockId::Virtual, deadline).await });
    bench.settle(&cx);
    clock.warp(ms(20));
    bench.settle(&cx);
    assert!(!task.is_finished(), "timers of a stopped clock do not run");
    clock.start();
    bench.join(&cx, task).unwrap();
}
