//! Tasks: one thread wakes, cancels and ends, while the other one polls, sleeps, or drops the context.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32 as Recorded, Ordering::Relaxed as Unchecked};
use std::task::{Context as Polling, Poll, Waker};

use aio_checker::AtomicU32;
use aio_checker::planting::must_be_found;
use aio_context::{Context, Wait};
use aio_executor::{ContextExt, JoinHandle, Mutex, RemoteExt};
use aio_schedules::Fake;
use loom::sync::atomic::Ordering;
use loom::thread;

use crate::{check, check_further};

/// Returns a task that is done when `flag` is set, and its waker.
fn waits_for(cx: &Context, flag: &Arc<AtomicU32>) -> (JoinHandle<()>, Waker) {
    let (own, wakers) = (flag.clone(), Arc::new(std::sync::Mutex::new(None)));
    let given = wakers.clone();
    let task = cx.spawn(poll_fn(move |polling| {
        given
            .lock()
            .unwrap()
            .get_or_insert_with(|| polling.waker().clone());
        if own.load(Ordering::Relaxed) == 0 {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }));
    cx.poll(Wait::NoBlock).unwrap();
    let waker = wakers.lock().unwrap().take().unwrap();
    (task, waker)
}

/// The poll after a wake reads the data written before the wake, while the loop falls asleep.
fn a_wake_while_the_loop_falls_asleep() {
    let cx = Fake::context();
    let flag = Arc::new(AtomicU32::new(0));
    let (task, waker) = waits_for(&cx, &flag);
    let other = thread::spawn(move || {
        flag.store(1, Ordering::Relaxed);
        waker.wake();
    });
    while !task.is_finished() {
        cx.poll(Wait::Block).unwrap();
    }
    other.join().unwrap();
}

/// A wake while the home thread polls two tasks that it has woken itself, and takes back its own ring.
fn a_wake_while_others_are_polled() {
    let cx = Fake::context();
    let [flag, never] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
    let (task, waker) = waits_for(&cx, &flag);
    let (_endless, endless) = waits_for(&cx, &never);
    waker.wake_by_ref();
    endless.wake();
    let other = thread::spawn(move || {
        flag.store(1, Ordering::Relaxed);
        waker.wake();
    });
    while !task.is_finished() {
        cx.poll(Wait::Block).unwrap();
    }
    other.join().unwrap();
}

/// A value that counts its drops, all of which happen on the home thread.
struct AtHome(Arc<Recorded>, thread::ThreadId);

impl AtHome {
    fn new() -> (Self, Arc<Recorded>) {
        let drops = Arc::new(Recorded::new(0));
        (Self(drops.clone(), thread::current().id()), drops)
    }
}

impl Drop for AtHome {
    fn drop(&mut self) {
        assert_eq!(
            thread::current().id(),
            self.1,
            "a task is dropped by another thread"
        );
        self.0.fetch_add(1, Unchecked);
    }
}

/// Another thread wakes a task whose context is dropped.
fn a_wake_of_a_task_whose_context_goes() {
    let cx = Fake::context();
    let (owned, drops) = AtHome::new();
    let wakers = Arc::new(std::sync::Mutex::new(None));
    let given = wakers.clone();
    let task = cx.spawn(poll_fn(move |polling| {
        let _owned = &owned;
        given
            .lock()
            .unwrap()
            .get_or_insert_with(|| polling.waker().clone());
        Poll::<()>::Pending
    }));
    cx.poll(Wait::NoBlock).unwrap();
    let waker = wakers.lock().unwrap().take().unwrap();
    let other = thread::spawn(move || {
        waker.wake_by_ref();
        drop(task);
        drop(waker);
    });
    drop(cx);
    assert_eq!(drops.load(Unchecked), 1, "the context has dropped the task");
    other.join().unwrap();
}

/// Another thread drops the handle while the loop falls asleep.
fn a_cancellation_while_the_loop_falls_asleep() {
    let cx = Fake::context();
    let (owned, drops) = AtHome::new();
    let task = cx.spawn(async move {
        let _owned = owned;
        pending::<()>().await;
    });
    cx.poll(Wait::NoBlock).unwrap();
    let other = thread::spawn(move || drop(task));
    while drops.load(Unchecked) == 0 {
        cx.poll(Wait::Block).unwrap();
    }
    other.join().unwrap();
}

/// Another thread spawns a task, and waits for its result.
fn another_thread_spawns_and_waits() {
    let cx = Fake::context();
    let (remote, done) = (cx.remote(), Arc::new(Recorded::new(0)));
    let by_task = done.clone();
    let other = thread::spawn(move || {
        let task = remote.spawn(async move { by_task.fetch_add(1, Unchecked) + 7 });
        assert_eq!(task.wait().unwrap(), 7);
    });
    while done.load(Unchecked) == 0 {
        cx.poll(Wait::Block).unwrap();
    }
    other.join().unwrap();
}

/// Another thread spawns a task on a context that is dropped: it gets the result or an error.
fn another_thread_spawns_where_the_context_goes() {
    let cx = Fake::context();
    let remote = cx.remote();
    let other = thread::spawn(move || {
        let ran = Arc::new(Recorded::new(0));
        let by_task = ran.clone();
        let task = remote.spawn(async move { by_task.store(1, Unchecked) });
        assert_eq!(task.wait().is_ok(), ran.load(Unchecked) == 1);
        assert_eq!(Arc::strong_count(&ran), 1, "the task is left");
    });
    cx.poll(Wait::NoBlock).unwrap();
    drop(cx);
    other.join().unwrap();
}

/// A waiter is dropped while the mutex is handed to it. The next one gets it.
fn a_mutex_whose_waiter_gives_up() {
    let cx = Fake::context();
    // Leaked, because the other thread gets a guard of it.
    let mutex: &'static Mutex<u32> = Box::leak(Box::new(Mutex::new(0)));
    let guard = mutex.try_lock().unwrap();
    let mut first = Box::pin(mutex.lock());
    let polled = first.as_mut().poll(&mut Polling::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    let other = thread::spawn(move || drop(guard));
    drop(first);
    drop(cx.block_on(mutex.lock()).unwrap());
    other.join().unwrap();
}

/// A thread that has unlocked the mutex does not take it from the task to which it was handed.
fn a_mutex_that_is_handed_over() {
    let cx = Fake::context();
    let mutex = Arc::new(Mutex::new(0));
    let theirs = mutex.clone();
    let other = thread::spawn(move || {
        for _ in 0..2 {
            drop(theirs.try_lock());
        }
    });
    let mut lock = mutex.lock();
    let value = cx.block_on(poll_fn(|polling| Pin::new(&mut lock).poll(polling)));
    drop(value.unwrap());
    other.join().unwrap();
}

models! { check_further:
    e1_a_wake_while_the_loop_falls_asleep_is_not_lost => a_wake_while_the_loop_falls_asleep;
    e2_a_handle_that_another_thread_drops_cancels => a_cancellation_while_the_loop_falls_asleep;
    e2_an_unlocked_mutex_is_not_taken_from_the_task_it_is_handed_to => a_mutex_that_is_handed_over;
    e2_a_mutex_outlives_a_waiter_that_gives_up => a_mutex_whose_waiter_gives_up;
    e3_a_task_is_dropped_at_home_while_another_thread_wakes_it => a_wake_of_a_task_whose_context_goes;
}

models! { check:
    e1_a_wake_while_others_are_polled_is_not_lost => a_wake_while_others_are_polled;
    e2_a_task_of_another_thread_returns_its_result => another_thread_spawns_and_waits;
    e3_a_task_of_another_thread_ends_with_the_context => another_thread_spawns_where_the_context_goes;
}

faults! {
    e1_planted_scheduled_before_queued: ScheduledBeforeQueued in a_wake_while_the_loop_falls_asleep;
    e1_planted_unscheduled_for_all: UnscheduledForAll in a_wake_while_others_are_polled;
    e2_planted_woken_before_cancelled: WokenBeforeCancelled in a_cancellation_while_the_loop_falls_asleep;
    e2_planted_joiner_not_woken: JoinerNotWoken in another_thread_spawns_and_waits;
    e2_planted_reserved_is_free: ReservedIsFree in a_mutex_that_is_handed_over;
    e2_planted_reservation_kept: ReservationKept in a_mutex_whose_waiter_gives_up;
}
