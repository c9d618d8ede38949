//! E3: a context drops its tasks with itself, on its thread, and no waker keeps anything alive beyond it.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use aio_context::{ClockId, Context, Gone, Wait};
use aio_executor::{AsyncFd, ContextExt, JoinError, RemoteExt, Sleep, current, sleep, spawn};

use crate::common::{Bench, Count, Dropped, Tasks, everywhere, result};

everywhere! {
    e3_a_context_drops_its_tasks_and_the_joiners_learn_of_it
    e3_a_task_may_use_its_context_while_it_is_dropped
    e3_a_waker_that_is_left_over_keeps_no_future
    e3_wakes_after_the_end_do_nothing
    e3_a_task_that_has_not_arrived_is_dropped_with_the_context
    e3_descriptors_and_timers_keep_no_waker_beyond_their_context
    e3_futures_that_are_given_up_leave_no_waker
    e3_a_task_that_waits_for_a_timer_of_a_context_that_goes_does_not_hang
    e3_the_joiner_is_woken_after_the_future_was_dropped
    e3_a_joiner_learns_of_a_future_that_panics_as_its_context_drops_it
    e3_a_joiner_learns_of_a_maker_that_panics_as_its_context_drops_it
}

/// Records the thread on which it is dropped.
struct Mark(Arc<Mutex<Vec<ThreadId>>>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(thread::current().id());
    }
}

/// A waker whose clones can be counted.
struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

fn e3_a_context_drops_its_tasks_and_the_joiners_learn_of_it(bench: Bench) {
    let cx = bench.context();
    let drops = Count::default();
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let owned = Dropped(drops.clone());
            cx.spawn(async move {
                let _owned = owned;
                pending::<()>().await;
            })
        })
        .collect();
    let owned = Dropped(drops.clone());
    cx.spawn(async move {
        let _owned = owned;
        pending::<()>().await;
    })
    .detach();
    bench.settle(&cx);
    drop(cx);
    assert_eq!(drops.get(), 4);
    for task in tasks {
        assert!(matches!(result(task), Err(JoinError::Gone(Gone::Dropped))));
    }
}

fn e3_a_task_may_use_its_context_while_it_is_dropped(bench: Bench) {
    struct Uses(aio_context::WeakContext, Rc<Cell<bool>>);
    impl Drop for Uses {
        fn drop(&mut self) {
            assert!(self.0.upgrade().is_none(), "it is as good as gone");
            self.1.set(true);
        }
    }
    let cx = bench.context();
    let was_dropped = Rc::new(Cell::new(false));
    let uses = Uses(cx.downgrade(), was_dropped.clone());
    let (ours, theirs) = UnixStream::pair().unwrap();
    cx.spawn(async move {
        let _uses = uses;
        let socket = AsyncFd::new(&current(), ours).unwrap();
        let _inner = spawn(pending::<()>());
        let _timer = sleep(Duration::from_secs(1000));
        socket.readable().await.unwrap();
    })
    .detach();
    bench.settle(&cx);
    drop(cx);
    assert!(was_dropped.get());
    drop(theirs);
}

fn e3_a_waker_that_is_left_over_keeps_no_future(bench: Bench) {
    let cx = bench.context();
    let (drops, left) = (Count::default(), Rc::new(RefCell::new(None::<Waker>)));
    let (owned, kept) = (Dropped(drops.clone()), left.clone());
    let task = cx.spawn(async move {
        let _owned = owned;
        poll_fn(|polling| {
            kept.replace(Some(polling.waker().clone()));
            Poll::Ready(())
        })
        .await;
    });
    bench.join(&cx, task).unwrap();
    assert_eq!(drops.get(), 1, "the future is gone, though there is a waker");
    let waker = left.take().unwrap();
    waker.wake_by_ref();
    bench.settle(&cx);
    thread::spawn(move || drop(waker)).join().unwrap();
    bench.settle(&cx);
    assert_eq!(drops.get(), 1);
}

fn e3_wakes_after_the_end_do_nothing(bench: Bench) {
    let cx = bench.context();
    let left = Rc::new(RefCell::new(None::<Waker>));
    let (kept, drops) = (left.clone(), Count::default());
    let owned = Dropped(drops.clone());
    cx.spawn(poll_fn(move |polling| {
        let _owned = &owned;
        kept.replace(Some(polling.waker().clone()));
        Poll::<()>::Pending
    }))
    .detach();
    bench.settle(&cx);
    drop(cx);
    assert_eq!(drops.get(), 1);
    let waker = left.take().unwrap();
    waker.wake_by_ref();
    thread::spawn(move || waker.wake()).join().unwrap();
}

fn e3_a_task_that_has_not_arrived_is_dropped_with_the_context(bench: Bench) {
    let cx = bench.context();
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let mark = Mark(dropped.clone());
    let task = cx.remote().spawn(async move { drop(mark) });
    let remote = cx.remote();
    drop(cx);
    assert_eq!(*dropped.lock().unwrap(), [thread::current().id()]);
    assert!(matches!(result(task), Err(JoinError::Gone(Gone::Dropped))));
    let late = remote.spawn(async {});
    assert!(matches!(late.wait(), Err(JoinError::Gone(Gone::Dropped))));
}

fn e3_descriptors_and_timers_keep_no_waker_beyond_their_context(bench: Bench) {
    let cx = bench.context();
    let counted = Arc::new(Counted);
    let waker = Waker::from(counted.clone());
    let mut polling = std::task::Context::from_waker(&waker);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let socket = AsyncFd::new(&cx, ours).unwrap();
    let mut readable = Box::pin(socket.readable());
    assert!(readable.as_mut().poll(&mut polling).is_pending());
    let mut timer = Box::pin(Sleep::new(&cx, ClockId::Monotonic, aio_context::Moment::NEVER));
    assert!(timer.as_mut().poll(&mut polling).is_pending());
    assert_eq!(Arc::strong_count(&counted), 4);
    drop(cx);
    assert_eq!(Arc::strong_count(&counted), 2, "the test's own two");
    let Poll::Ready(Err(why)) = readable.as_mut().poll(&mut polling) else {
        panic!("it would wait for ever");
    };
    assert_eq!(
        why.to_string(),
        "the context that watched the descriptor was dropped"
    );
}

fn e3_futures_that_are_given_up_leave_no_waker(bench: Bench) {
    let cx = bench.context();
    let counted = Arc::new(Counted);
    let waker = Waker::from(counted.clone());
    let mut polling = std::task::Context::from_waker(&waker);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let socket = AsyncFd::new(&cx, ours).unwrap();
    let mut others = Box::pin(socket.readable());
    assert!(others.as_mut().poll(&mut polling).is_pending());
    let mut readable = Box::pin(socket.readable());
    assert!(readable.as_mut().poll(&mut polling).is_pending());
    let mut timer = Box::pin(Sleep::new(&cx, ClockId::Monotonic, aio_context::Moment::NEVER));
    assert!(timer.as_mut().poll(&mut polling).is_pending());
    assert_eq!(Arc::strong_count(&counted), 5);
    drop((readable, timer));
    assert_eq!(Arc::strong_count(&counted), 3, "the other waiter still waits");
    let mut task = cx.spawn(pending::<()>());
    assert!(std::pin::Pin::new(&mut task).poll(&mut polling).is_pending());
    assert_eq!(Arc::strong_count(&counted), 4);
    drop(task);
    assert_eq!(Arc::strong_count(&counted), 3);
}

/// Other threads use and drop wakers and handles of tasks at the moment when the context is dropped.
#[test]
fn e3_tasks_are_dropped_at_home_while_other_threads_wake_them() {
    const THREADS: usize = 2;
    for _ in 0..200 {
        let dropped = Arc::new(Mutex::new(Vec::new()));
        let cx = Context::new().unwrap();
        let wakers = Arc::new(Mutex::new(Vec::new()));
        let mut handles = Vec::new();
        for _ in 0..THREADS * 2 {
            let (mark, kept) = (Mark(dropped.clone()), wakers.clone());
            handles.push(cx.spawn(poll_fn(move |polling| {
                let _mark = &mark;
                kept.lock().unwrap().push(polling.waker().clone());
                Poll::<()>::Pending
            })));
        }
        cx.poll(Wait::NoBlock).unwrap();
        let start = Arc::new(Barrier::new(THREADS + 1));
        let mut wakers = std::mem::take(&mut *wakers.lock().unwrap());
        let others: Vec<_> = (0..THREADS)
            .map(|_| {
                let (start, handle) = (start.clone(), handles.pop().unwrap());
                let wakers = wakers.split_off(wakers.len() - 2);
                thread::spawn(move || {
                    start.wait();
                    wakers[0].wake_by_ref();
                    drop(handle);
                    wakers.into_iter().for_each(Waker::wake);
                })
            })
            .collect();
        start.wait();
        cx.poll(Wait::NoBlock).unwrap();
        drop(cx);
        others.into_iter().for_each(|other| other.join().unwrap());
        let dropped = dropped.lock().unwrap();
        assert_eq!(dropped.len(), THREADS * 2);
        assert!(dropped.iter().all(|by| *by == thread::current().id()));
    }
}

fn e3_a_task_that_waits_for_a_timer_of_a_context_that_goes_does_not_hang(bench: Bench) {
    let (cx, other) = (bench.context(), bench.context());
    let nap = Sleep::new(&other, ClockId::Monotonic, aio_context::Moment::NEVER);
    let task = cx.spawn(nap);
    bench.settle(&cx);
    drop(other);
    let Err(JoinError::Panicked(value)) = bench.join(&cx, task) else {
        panic!("it cannot end");
    };
    assert!(
        value
            .to_string()
            .starts_with("the context of a `Sleep` was dropped")
    );
}

fn e3_the_joiner_is_woken_after_the_future_was_dropped(bench: Bench) {
    /// Records how many futures were dropped when it was woken.
    struct Records(Arc<Mutex<Vec<ThreadId>>>, Mutex<Option<usize>>);
    impl Wake for Records {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = Some(self.0.lock().unwrap().len());
        }
    }
    for is_cancelled in [false, true] {
        let cx = bench.context();
        let dropped = Arc::new(Mutex::new(Vec::new()));
        let mark = Mark(dropped.clone());
        let mut task = cx.spawn(async move {
            let _mark = mark;
            pending::<()>().await;
        });
        bench.settle(&cx);
        let records = Arc::new(Records(dropped, Mutex::new(None)));
        let waker = Waker::from(records.clone());
        let mut polling = std::task::Context::from_waker(&waker);
        assert!(std::pin::Pin::new(&mut task).poll(&mut polling).is_pending());
        if is_cancelled {
            task.cancel();
            bench.settle(&cx);
        }
        drop(cx);
        assert_eq!(*records.1.lock().unwrap(), Some(1));
    }
}

/// Panics when it is dropped.
struct Panics;

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

fn e3_a_joiner_learns_of_a_future_that_panics_as_its_context_drops_it(bench: Bench) {
    for has_begun in [false, true] {
        let cx = bench.context();
        let owned = Panics;
        let task = cx.remote().spawn(async move {
            let _owned = owned;
            pending::<()>().await;
        });
        if has_begun {
            bench.settle(&cx);
        }
        let other = cx.spawn(pending::<()>());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(cx))).is_err());
        assert!(matches!(result(task), Err(JoinError::Gone(_))));
        assert!(matches!(result(other), Err(JoinError::Gone(_))));
    }
}

fn e3_a_joiner_learns_of_a_maker_that_panics_as_its_context_drops_it(bench: Bench) {
    let cx = bench.context();
    let owned = Panics;
    let task = cx.remote().call(move |_| drop(owned));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(cx))).is_err());
    assert!(matches!(result(task), Err(JoinError::Gone(_))));
}
