//! E2: results, cancellation and panics.

use std::cell::RefCell;
use std::future::{Future as _, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context as Polling, Wake, Waker};
use std::thread;

use aio_context::{Context, Gone, Wait};
use aio_executor::{ContextExt, JoinError, JoinHandle, RemoteExt, spawn, yield_now};
use aio_sources::IoThread;

use crate::common::{Bench, Count, Dropped, Tasks, everywhere, result};

everywhere! {
    e2_a_result_reaches_the_joiner
    e2_dropping_the_handle_cancels
    e2_a_detached_task_goes_on
    e2_a_cancelled_task_tells_when_it_has_been_dropped
    e2_another_thread_cancels
    e2_a_task_that_is_cancelled_on_its_way_is_not_polled
    e2_a_task_cancels_itself
    e2_a_panic_reaches_the_joiner_and_the_context_goes_on
    e2_a_panic_without_a_joiner_comes_out_of_the_poll
    e2_a_future_that_panics_when_it_is_dropped_has_panicked
    e2_a_waker_that_panics_takes_no_result_away
}

fn is_cancelled<T>(result: &Result<T, JoinError>) -> bool {
    matches!(result, Err(JoinError::Cancelled))
}

fn e2_a_result_reaches_the_joiner(bench: Bench) {
    let cx = bench.context();
    let local = Rc::new(7);
    let own = local.clone();
    let task = cx.spawn(async move {
        yield_now().await;
        own
    });
    assert!(!task.is_finished());
    assert_eq!(*bench.join(&cx, task).unwrap(), 7);
    assert_eq!(Rc::strong_count(&local), 1);
    let text = bench.run(&cx, async { spawn(async { "text".to_owned() }).await.unwrap() });
    assert_eq!(text, "text");
}

fn e2_dropping_the_handle_cancels(bench: Bench) {
    let cx = bench.context();
    let (polls, drops) = (Count::default(), Count::default());
    let (polled, owned) = (polls.clone(), Dropped(drops.clone()));
    let task = cx.spawn(async move {
        let _owned = owned;
        polled.up();
        pending::<()>().await;
    });
    bench.settle(&cx);
    assert_eq!((polls.get(), drops.get()), (1, 0));
    drop(task);
    assert!(bench.block(&cx), "the home thread drops it");
    assert_eq!((polls.get(), drops.get()), (1, 1));
    // Before its first poll, too.
    let owned = Dropped(drops.clone());
    drop(cx.spawn(async move { drop(owned) }));
    bench.settle(&cx);
    assert_eq!(drops.get(), 2);
    // A result that is not awaited is dropped with the handle.
    let owned = Dropped(drops.clone());
    let task = cx.spawn(async move { owned });
    bench.settle(&cx);
    assert_eq!(drops.get(), 2);
    drop(task);
    assert_eq!(drops.get(), 3);
}

fn e2_a_detached_task_goes_on(bench: Bench) {
    let cx = bench.context();
    let (steps, drops) = (Count::default(), Count::default());
    let (counted, owned) = (steps.clone(), Dropped(drops.clone()));
    cx.spawn(async move {
        for _ in 0..3 {
            counted.up();
            yield_now().await;
        }
        owned
    })
    .detach();
    bench.settle(&cx);
    assert_eq!((steps.get(), drops.get()), (3, 1), "its result is dropped");
}

fn e2_a_cancelled_task_tells_when_it_has_been_dropped(bench: Bench) {
    let cx = bench.context();
    let drops = Count::default();
    let owned = Dropped(drops.clone());
    let task = cx.spawn(async move {
        let _owned = owned;
        pending::<()>().await;
    });
    bench.settle(&cx);
    task.cancel();
    task.cancel();
    assert!(!task.is_finished());
    let seen = drops.clone();
    let outcome = bench.run(&cx, async move { (task.await, seen.get()) });
    assert!(is_cancelled(&outcome.0));
    assert_eq!(outcome.1, 1, "the future was dropped before the joiner went on");
    // Cancelling a task that is done has no effect.
    let task = cx.spawn(async { 1 });
    bench.settle(&cx);
    task.cancel();
    assert_eq!(result(task).unwrap(), 1);
}

fn e2_another_thread_cancels(bench: Bench) {
    let cx = bench.context();
    let drops = Rc::new(Count::default());
    for _ in 0..100 {
        let owned = Dropped((*drops).clone());
        let task = cx.spawn(async move {
            let _owned = owned;
            pending::<()>().await;
        });
        let before = drops.get();
        let other = thread::spawn(move || drop(task));
        while drops.get() == before {
            bench.block(&cx);
        }
        other.join().unwrap();
    }
    assert_eq!(drops.get(), 100);
}

fn e2_a_task_that_is_cancelled_on_its_way_is_not_polled(bench: Bench) {
    let cx = bench.context();
    let (polled, was_polled) = mpsc::channel::<()>();
    let task = cx.remote().spawn(async move { polled.send(()).unwrap() });
    drop(task);
    bench.settle(&cx);
    assert_eq!(was_polled.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

fn e2_a_task_cancels_itself(bench: Bench) {
    let cx = bench.context();
    let own = Rc::new(RefCell::new(None::<JoinHandle<()>>));
    let (taken, drops) = (own.clone(), Count::default());
    let owned = Dropped(drops.clone());
    let task = cx.spawn(async move {
        let _owned = owned;
        drop(taken.take());
        yield_now().await;
        unreachable!("it is not polled again");
    });
    own.replace(Some(task));
    bench.settle(&cx);
    assert_eq!(drops.get(), 1);
}

fn e2_a_panic_reaches_the_joiner_and_the_context_goes_on(bench: Bench) {
    let cx = bench.context();
    let drops = Count::default();
    let owned = Dropped(drops.clone());
    let task = cx.spawn(async move {
        let _owned = owned;
        yield_now().await;
        panic!("on purpose: {}", 6 * 7);
    });
    let Err::<(), _>(JoinError::Panicked(value)) = bench.join(&cx, task) else {
        panic!("the panic is lost");
    };
    assert_eq!(value.to_string(), "on purpose: 42");
    assert!(value.into_inner().is::<String>());
    assert_eq!(drops.get(), 1);
    // From another thread.
    let task = cx.remote().spawn(async { panic!("out of luck") });
    let other = thread::spawn(move || task.wait().unwrap_err().to_string());
    while !other.is_finished() {
        cx.poll(Wait::AtMost(std::time::Duration::from_millis(1)))
            .unwrap();
    }
    assert_eq!(other.join().unwrap(), "the task panicked: out of luck");
    assert_eq!(bench.run(&cx, async { 1 }), 1);
}

fn e2_a_panic_without_a_joiner_comes_out_of_the_poll(bench: Bench) {
    let cx = bench.context();
    cx.spawn(async { panic!("no handle is left") }).detach();
    let panicked = catch_unwind(AssertUnwindSafe(|| bench.block(&cx)));
    let value = panicked.unwrap_err();
    assert_eq!(value.downcast_ref::<&str>(), Some(&"no handle is left"));
    assert_eq!(bench.run(&cx, async { 1 }), 1);
    bench.settle(&cx);
}

fn e2_a_future_that_panics_when_it_is_dropped_has_panicked(bench: Bench) {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("boom");
        }
    }
    let cx = bench.context();
    let task = cx.spawn(async {
        let _bomb = Bomb;
        pending::<()>().await;
    });
    bench.settle(&cx);
    task.cancel();
    let outcome = bench.join(&cx, task);
    assert!(matches!(outcome, Err(JoinError::Panicked(_))), "{outcome:?}");
}

fn e2_a_waker_that_panics_takes_no_result_away(bench: Bench) {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }
    let cx = bench.context();
    let waker = Waker::from(Arc::new(Panics));
    let mut task = cx.spawn(async { 5 });
    let polled = Pin::new(&mut task).poll(&mut Polling::from_waker(&waker));
    assert!(polled.is_pending());
    let other = cx.spawn(async { 6 });
    assert!(catch_unwind(AssertUnwindSafe(|| bench.settle(&cx))).is_err());
    assert_eq!(result(task).unwrap(), 5);
    assert_eq!(bench.join(&cx, other).unwrap(), 6);
}

#[test]
fn e2_a_thread_without_a_context_waits() {
    let io = IoThread::spawn(|_cx| Ok(())).unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            io.remote().spawn(async move {
                yield_now().await;
                number
            })
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.wait().unwrap(), number);
    }
    io.stop().unwrap();
}

#[test]
#[should_panic(expected = "use `Context::block_on`")]
fn e2_the_home_thread_cannot_wait_for_its_own_task() {
    let cx = Context::new().unwrap();
    let task = cx.spawn(async { 1 });
    let _ = task.wait();
}

#[test]
#[should_panic(expected = "use `Context::block_on`")]
fn e2_the_home_thread_cannot_wait_for_a_task_on_its_way() {
    let cx = Context::new().unwrap();
    let _ = cx.remote().spawn(async { 1 }).wait();
}

#[test]
fn e2_a_job_on_another_context_is_a_future() {
    let io = IoThread::spawn(|_cx| Ok(())).unwrap();
    let cx = Context::new().unwrap();
    let (home, there) = (thread::current().id(), io.remote().clone());
    let other = cx
        .block_on(async move { there.call(|_cx| thread::current().id()).await.unwrap() })
        .unwrap();
    assert_ne!(home, other);
    let failure = cx.block_on(io.remote().call(|_cx| panic!("in the job"))).unwrap();
    assert!(matches!(failure, Err::<(), _>(JoinError::Panicked(_))));
    assert_eq!(
        cx.block_on(io.remote().call(|_cx| 1)).unwrap().unwrap(),
        1,
        "it goes on"
    );
    let remote = io.remote().clone();
    io.stop().unwrap();
    let gone = cx.block_on(remote.call(|_cx| 1)).unwrap();
    assert!(matches!(gone, Err(JoinError::Gone(Gone::Dropped))));
}

#[test]
fn e2_spawn_with_makes_a_future_that_is_not_send_over_there() {
    let io = IoThread::spawn(|_cx| Ok(())).unwrap();
    let task = io.remote().spawn_with(|_cx| async {
        let local = Rc::new(21);
        yield_now().await;
        *local * 2
    });
    assert_eq!(task.wait().unwrap(), 42);
    io.stop().unwrap();
}

#[test]
fn e2_handles_are_send_if_the_result_is() {
    fn is_send<T: Send>(_: &T) {}
    let cx = Context::new().unwrap();
    let task = cx.spawn(async {
        let local = Rc::new(1);
        yield_now().await;
        *local
    });
    is_send(&task);
}
