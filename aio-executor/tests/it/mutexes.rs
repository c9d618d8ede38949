//! The mutex: one task at a time, in order, and no waiter is forgotten.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Polling, Poll, Waker};

use aio_executor::{ContextExt, Mutex, yield_now};

use crate::common::{Bench, Tasks, everywhere, result};

everywhere! {
    e2_tasks_get_the_mutex_in_the_order_in_which_they_asked
    e2_a_waiter_that_gives_up_is_passed_over
}

fn e2_tasks_get_the_mutex_in_the_order_in_which_they_asked(bench: Bench) {
    let cx = bench.context();
    let (mutex, order) = (Rc::new(Mutex::new(0)), Rc::new(RefCell::new(Vec::new())));
    let tasks: Vec<_> = (0..5)
        .map(|number| {
            let (mutex, order) = (mutex.clone(), order.clone());
            cx.spawn(async move {
                for _ in 0..3 {
                    let mut value = mutex.lock().await;
                    order.borrow_mut().push(number);
                    let before = *value;
                    yield_now().await;
                    *value = before + 1;
                }
            })
        })
        .collect();
    for task in tasks {
        bench.join(&cx, task).unwrap();
    }
    assert_eq!(*order.borrow(), [0, 1, 2, 3, 4].repeat(3));
    assert_eq!(*mutex.try_lock().unwrap(), 15);
}

fn e2_a_waiter_that_gives_up_is_passed_over(bench: Bench) {
    let cx = bench.context();
    let mutex = Rc::new(Mutex::new(()));
    let guard = mutex.try_lock().unwrap();
    let mut tasks: Vec<_> = (0..4)
        .map(|_| {
            let mutex = mutex.clone();
            cx.spawn(async move { drop(mutex.lock().await) })
        })
        .collect();
    bench.settle(&cx);
    drop(tasks.remove(1)); // in the queue
    bench.settle(&cx);
    drop(guard);
    drop(tasks.remove(0)); // the value is reserved for it, and it never takes it
    for task in tasks {
        bench.join(&cx, task).unwrap();
    }
    assert!(mutex.try_lock().is_some());
}

/// If a step took time in proportion to the number of waiters, this would take minutes.
#[test]
fn e2_a_hundred_thousand_waiters_ask_again_and_give_up() {
    let mutex = Mutex::new(1);
    let guard = mutex.try_lock().unwrap();
    let mut polling = Polling::from_waker(Waker::noop());
    let mut waiting: Vec<_> = (0..100_000).map(|_| mutex.lock()).collect();
    for _ in 0..2 {
        for waits in &mut waiting {
            assert!(Pin::new(waits).poll(&mut polling).is_pending());
        }
    }
    while let Some(last) = waiting.pop() {
        drop(last);
    }
    drop(guard);
    assert!(mutex.try_lock().is_some());
}

#[test]
fn e2_a_value_that_is_reserved_is_not_free() {
    let mutex = Mutex::new(1);
    let guard = mutex.try_lock().unwrap();
    assert!(mutex.try_lock().is_none());
    let mut waits = mutex.lock();
    let mut polling = Polling::from_waker(Waker::noop());
    assert!(Pin::new(&mut waits).poll(&mut polling).is_pending());
    drop(guard);
    assert!(mutex.try_lock().is_none(), "no task overtakes");
    let mut late = mutex.lock();
    assert!(Pin::new(&mut late).poll(&mut polling).is_pending());
    let Poll::Ready(mut guard) = Pin::new(&mut waits).poll(&mut polling) else {
        panic!("it is its turn");
    };
    *guard += 1;
    drop(guard);
    drop((waits, late));
    assert_eq!(mutex.into_inner(), 2);
}

#[test]
fn e2_a_task_that_panics_with_the_guard_gives_it_on() {
    let cx = aio_context::Context::new().unwrap();
    let mutex = Rc::new(Mutex::new(1));
    let held = mutex.clone();
    let task = cx.spawn(async move {
        *held.lock().await += 1;
        let _guard = held.lock().await;
        panic!("with the guard");
    });
    while !task.is_finished() {
        cx.poll(aio_context::Wait::Block).unwrap();
    }
    result::<()>(task).unwrap_err();
    assert_eq!(*mutex.try_lock().unwrap(), 2);
}
