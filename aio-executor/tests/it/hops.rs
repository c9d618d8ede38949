//! E2: a task moves to another context.

use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use aio_context::{Context, Gone, Remote};
use aio_executor::{ContextExt, HopError, JoinError, RemoteExt, current, hop, sleep, spawn, yield_now};
use aio_sources::IoThread;

use crate::common::{Bench, Tasks, everywhere, result};

everywhere! {
    e2_a_task_goes_on_where_it_hopped_to
    e2_a_hop_to_where_the_task_is_goes_on_at_once
    e2_a_task_that_is_not_send_stays
    e2_a_task_stays_where_the_other_context_is_gone
    e2_a_hop_that_is_given_up_moves_nothing
    e2_a_task_that_is_cancelled_on_its_way_is_dropped_where_it_arrives
    e2_a_task_whose_goal_goes_is_dropped_with_it
    e2_wakes_through_old_wakers_do_no_harm
}

fn e2_a_task_goes_on_where_it_hopped_to(bench: Bench) {
    let (one, two) = (bench.context(), bench.context());
    let (here, there) = (one.remote(), two.remote());
    let task = here.clone().spawn(async move {
        let is_at = |place: &Remote| current().remote().is_same(place);
        let mut places = vec![is_at(&here)];
        hop(&there).await.unwrap();
        places.push(is_at(&there));
        yield_now().await;
        places.push(is_at(&there));
        hop(&here).await.unwrap();
        places.push(is_at(&here));
        places
    });
    while !task.is_finished() {
        bench.check(&one);
        bench.check(&two);
    }
    assert_eq!(result(task).unwrap(), [true; 4]);
}

fn e2_a_hop_to_where_the_task_is_goes_on_at_once(bench: Bench) {
    let cx = bench.context();
    let here = cx.remote();
    let own = here.clone();
    let task = here.spawn(async move { hop(&own).await });
    assert!(bench.block(&cx));
    bench.settle(&cx);
    assert_eq!(result(task).unwrap(), Ok(()));
    // For a task that is not `Send`, a hop to its own context succeeds, too.
    let own = cx.remote();
    assert_eq!(bench.run(&cx, async move { hop(&own).await }), Ok(()));
}

fn e2_a_task_that_is_not_send_stays(bench: Bench) {
    let (cx, other) = (bench.context(), bench.context());
    let there = other.remote();
    let outcome = bench.run(&cx, async move {
        let local = Rc::new(1);
        let outcome = hop(&there).await;
        drop(local);
        outcome
    });
    assert_eq!(outcome, Err(HopError::NotSend));
}

fn e2_a_task_stays_where_the_other_context_is_gone(bench: Bench) {
    let (cx, other) = (bench.context(), bench.context());
    let there = other.remote();
    drop(other);
    let task = cx.remote().spawn(async move {
        let outcome = hop(&there).await;
        yield_now().await;
        (outcome, thread::current().id())
    });
    let (outcome, place) = bench.join(&cx, task).unwrap();
    assert_eq!((outcome, place), (Err(HopError::Gone), thread::current().id()));
    // It can still be cancelled and woken.
    let task = cx.remote().spawn(async move {
        let gone = Context::new().unwrap().remote();
        hop(&gone).await.unwrap_err();
        pending::<()>().await;
    });
    bench.settle(&cx);
    task.cancel();
    assert!(matches!(bench.join(&cx, task), Err(JoinError::Cancelled)));
}

fn e2_a_hop_that_is_given_up_moves_nothing(bench: Bench) {
    let (cx, other) = (bench.context(), bench.context());
    let (here, there) = (cx.remote(), other.remote());
    let task = cx.remote().spawn(async move {
        let mut asked = Box::pin(hop(&there));
        poll_fn(|polling| {
            assert!(asked.as_mut().poll(polling).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(asked);
        yield_now().await;
        current().remote().is_same(&here)
    });
    assert!(bench.join(&cx, task).unwrap());
    assert!(!bench.check(&other));
}

/// Sends a task to another context, and returns it before it has arrived.
fn on_its_way(bench: Bench, cx: &Context, other: &Context) -> (aio_executor::JoinHandle<()>, Arc<()>) {
    let (there, kept) = (other.remote(), Arc::new(()));
    let owned = kept.clone();
    let task = cx.remote().spawn(async move {
        hop(&there).await.unwrap();
        drop(owned);
        pending().await
    });
    bench.settle(cx);
    (task, kept)
}

fn e2_a_task_that_is_cancelled_on_its_way_is_dropped_where_it_arrives(bench: Bench) {
    let (cx, other) = (bench.context(), bench.context());
    let (task, kept) = on_its_way(bench, &cx, &other);
    task.cancel();
    bench.settle(&cx);
    assert!(!task.is_finished());
    assert_eq!(Arc::strong_count(&kept), 2);
    bench.settle(&other);
    assert!(matches!(result(task), Err(JoinError::Cancelled)));
    assert_eq!(Arc::strong_count(&kept), 1);
}

fn e2_a_task_whose_goal_goes_is_dropped_with_it(bench: Bench) {
    let (cx, other) = (bench.context(), bench.context());
    let (task, kept) = on_its_way(bench, &cx, &other);
    drop(other);
    assert!(matches!(result(task), Err(JoinError::Gone(Gone::Dropped))));
    assert_eq!(Arc::strong_count(&kept), 1);
}

fn e2_wakes_through_old_wakers_do_no_harm(bench: Bench) {
    let (cx, other) = (bench.context(), bench.context());
    let (there, old) = (other.remote(), Arc::new(Mutex::new(None::<Waker>)));
    let kept = old.clone();
    let task = cx.remote().spawn(async move {
        poll_fn(|polling| {
            *kept.lock().unwrap() = Some(polling.waker().clone());
            Poll::Ready(())
        })
        .await;
        hop(&there).await.unwrap();
        let mut polls = 0;
        poll_fn(|_| {
            polls += 1;
            if polls == 1 {
                Poll::<()>::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    });
    bench.settle(&cx);
    let old = old.lock().unwrap().take().unwrap();
    old.wake_by_ref();
    bench.settle(&other);
    old.wake_by_ref();
    bench.settle(&cx);
    bench.settle(&other);
    assert!(!task.is_finished(), "it is polled by its own context only");
    task.cancel();
    assert!(matches!(bench.join(&other, task), Err(JoinError::Cancelled)));
}

#[test]
fn e2_a_task_that_hops_sleeps_through_one_that_stays() {
    let io = IoThread::spawn(|_cx| Ok(())).unwrap();
    let cx = Context::new().unwrap();
    let (here, there) = (cx.remote(), io.remote().clone());
    let task = cx.remote().spawn(async move {
        for _ in 0..10 {
            hop(&there).await.unwrap();
            spawn(async { sleep(Duration::from_micros(100)).await })
                .await
                .unwrap();
            hop(&here).await.unwrap();
        }
    });
    cx.block_on(task).unwrap().unwrap();
    io.stop().unwrap();
}
