//! Worker pools: all work is run, each result is delivered once, and work that hangs delays no other.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread::{self, ThreadId};

use aio_context::{Context, Wait};
use aio_sources::WorkerPool;
use aio_testing::{Bench, everywhere};

everywhere! {
    s2_each_result_comes_home_once
    s2_work_runs_on_other_threads_and_callbacks_at_home
    s2_work_that_hangs_delays_no_other_pool_nor_the_loop
    s2_work_that_hangs_among_short_work_delays_no_other
    s2_as_many_threads_as_are_needed_and_allowed
    s2_results_are_delivered_in_nested_polls
    s2_a_panic_of_the_work_reaches_its_callback
    s2_a_dropped_pool_drops_what_was_not_begun
    s2_a_context_that_is_dropped_drops_the_callbacks_and_refuses_more_work
    d9_a_result_that_panics_when_a_thread_drops_it_ends_the_thread
    d9_a_panic_of_a_callback_loses_no_other_result
    d9_a_panic_of_what_was_left_by_another_panic_loses_no_later_result
}

/// Polls until `is_done`.
fn until(bench: &Bench, cx: &Context, mut is_done: impl FnMut() -> bool) {
    while !is_done() {
        bench.poll(cx, Wait::Block);
    }
}

/// Returns work that ends when it is allowed to, and the permission.
fn gate() -> (Sender<()>, impl FnOnce() + Send) {
    let (open, opened) = mpsc::channel();
    (open, move || pass(&opened))
}

fn pass(gate: &Receiver<()>) {
    let _ = gate.recv();
}

fn s2_each_result_comes_home_once(bench: Bench) {
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "work", 3);
    let sums = Rc::new(RefCell::new(Vec::new()));
    for n in 0..1000_u64 {
        let sums = sums.clone();
        let done = move |_: &Context, sum: thread::Result<u64>| sums.borrow_mut().push(sum.unwrap());
        pool.run(move || n * n, done).unwrap();
    }
    assert_eq!(pool.in_flight(), 1000);
    until(&bench, &cx, || pool.in_flight() == 0);
    let mut sums = sums.take();
    sums.sort_unstable();
    assert_eq!(sums, (0..1000).map(|n| n * n).collect::<Vec<u64>>());
    bench.settle(&cx);
}

fn s2_work_runs_on_other_threads_and_callbacks_at_home(bench: Bench) {
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "by-name", 1);
    let seen = Rc::new(Cell::new(None));
    let result = seen.clone();
    let work = || {
        (
            thread::current().id(),
            thread::current().name().map(str::to_owned),
        )
    };
    pool.run(
        work,
        move |_, worker: thread::Result<(ThreadId, Option<String>)>| {
            result.set(Some((worker.unwrap(), thread::current().id())));
        },
    )
    .unwrap();
    until(&bench, &cx, || pool.in_flight() == 0);
    let ((worker, name), home) = seen.take().unwrap();
    assert_eq!((home, name.as_deref()), (thread::current().id(), Some("by-name")));
    assert_ne!(worker, home);
}

fn s2_work_that_hangs_delays_no_other_pool_nor_the_loop(bench: Bench) {
    let cx = bench.context();
    let (hanging, other) = (WorkerPool::new(&cx, "a", 1), WorkerPool::new(&cx, "b", 1));
    let (open, work) = gate();
    hanging.run(work, |_, _| {}).unwrap();
    hanging.run(|| (), |_, _| {}).unwrap();
    let ran = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let count = ran.clone();
        other.run(|| (), move |_, _| count.set(count.get() + 1)).unwrap();
    }
    until(&bench, &cx, || ran.get() == 3);
    assert_eq!((hanging.in_flight(), other.in_flight()), (2, 0));
    open.send(()).unwrap();
    until(&bench, &cx, || hanging.in_flight() == 0);
}

/// Also if the pool has run only short work so far, on one thread.
fn s2_work_that_hangs_among_short_work_delays_no_other(bench: Bench) {
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "work", 3);
    let ended = Rc::new(Cell::new(0));
    let short = |count: u32| {
        for _ in 0..count {
            let count = ended.clone();
            pool.run(|| (), move |_, _| count.set(count.get() + 1)).unwrap();
        }
    };
    short(500);
    until(&bench, &cx, || pool.in_flight() == 0);
    let mut gates = Vec::new();
    for hanging in 1..=2 {
        short(5);
        let (open, work) = gate();
        pool.run(work, |_, _| {}).unwrap();
        gates.push(open);
        short(5);
        until(&bench, &cx, || pool.in_flight() == hanging);
    }
    assert_eq!(ended.get(), 520);
    for open in gates {
        open.send(()).unwrap();
    }
    until(&bench, &cx, || pool.in_flight() == 0);
}

fn s2_as_many_threads_as_are_needed_and_allowed(bench: Bench) {
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "work", 3);
    assert_eq!(pool.threads(), 0);
    // Three that wait for each other, so each has a thread; and more, for which no thread is left.
    let all = Arc::new(Barrier::new(3));
    for _ in 0..9 {
        let all = all.clone();
        pool.run(move || all.wait().is_leader(), |_, _| {}).unwrap();
    }
    assert_eq!(pool.threads(), 3);
    until(&bench, &cx, || pool.in_flight() == 0);
    assert!(pool.threads() <= 3);
}

fn s2_results_are_delivered_in_nested_polls(bench: Bench) {
    let cx = bench.context();
    let pool = Rc::new(WorkerPool::new(&cx, "work", 2));
    let order = Rc::new(RefCell::new(Vec::new()));
    let (inner_pool, inner_order) = (pool.clone(), order.clone());
    pool.run(
        || (),
        move |cx, _| {
            let is_done = Rc::new(Cell::new(false));
            let (done, order) = (is_done.clone(), inner_order.clone());
            let inner = move |_: &Context, _: thread::Result<()>| {
                order.borrow_mut().push("inner");
                done.set(true);
            };
            inner_pool.run(|| (), inner).unwrap();
            while !is_done.get() {
                cx.poll(Wait::Block).unwrap();
            }
            inner_order.borrow_mut().push("outer");
        },
    )
    .unwrap();
    until(&bench, &cx, || order.borrow().len() == 2);
    assert_eq!(order.take(), ["inner", "outer"]);
    assert_eq!(pool.in_flight(), 0);
}

fn s2_a_panic_of_the_work_reaches_its_callback(bench: Bench) {
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "work", 1);
    let payload = Rc::new(Cell::new(None));
    let seen = payload.clone();
    let work = || std::panic::resume_unwind(Box::new("on purpose"));
    pool.run(work, move |_, result: thread::Result<()>| seen.set(result.err()))
        .unwrap();
    until(&bench, &cx, || pool.in_flight() == 0);
    let payload = payload.take().unwrap();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"on purpose"));
    // The thread takes further work.
    pool.run(|| (), |_, _| {}).unwrap();
    until(&bench, &cx, || pool.in_flight() == 0);
}

fn s2_a_dropped_pool_drops_what_was_not_begun(bench: Bench) {
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "work", 1);
    let (began, has_begun) = mpsc::channel();
    let (open, work) = gate();
    let result = Arc::new(());
    let (held, kept) = (result.clone(), Rc::new(()));
    let begin = move || {
        began.send(()).unwrap();
        work();
        held
    };
    pool.run(begin, |_, _| panic!("the pool is gone")).unwrap();
    has_begun.recv().unwrap();
    let (never, callback) = (result.clone(), kept.clone());
    pool.run(move || drop(never), move |_, _| drop(callback)).unwrap();
    drop(pool);
    assert_eq!(Rc::strong_count(&kept), 1);
    assert_eq!(Arc::strong_count(&result), 2);
    open.send(()).unwrap();
    // The thread drops the result of the work that had begun.
    while Arc::strong_count(&result) > 1 {
        thread::yield_now();
    }
    bench.settle(&cx);
}

fn s2_a_context_that_is_dropped_drops_the_callbacks_and_refuses_more_work(bench: Bench) {
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "work", 1);
    let (open, work) = gate();
    let (kept, never) = (Rc::new(()), Arc::new(()));
    let (began, has_begun) = mpsc::channel();
    let callback = kept.clone();
    let begin = move || {
        began.send(()).unwrap();
        work();
    };
    pool.run(begin, move |_, _| drop(callback)).unwrap();
    has_begun.recv().unwrap();
    let (owned, callback) = (never.clone(), kept.clone());
    pool.run(move || drop(owned), move |_, _| drop(callback)).unwrap();
    drop(cx);
    assert_eq!((Rc::strong_count(&kept), pool.in_flight()), (1, 0));
    assert_eq!(Arc::strong_count(&never), 1, "no thread has begun it");
    let callback = kept.clone();
    let refused = pool.run(|| (), move |_, _| drop(callback)).unwrap_err();
    assert!(refused.to_string().contains("context"), "{refused}");
    assert_eq!((Rc::strong_count(&kept), pool.in_flight()), (1, 0));
    open.send(()).unwrap();
}

/// The callback is gone, so the thread drops the result.
fn d9_a_result_that_panics_when_a_thread_drops_it_ends_the_thread(bench: Bench) {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "work", 1);
    let (open, work) = gate();
    let (began, has_begun) = mpsc::channel();
    let begin = move || {
        began.send(()).unwrap();
        work();
        Panics
    };
    pool.run(begin, |_, _| panic!("the context is gone")).unwrap();
    has_begun.recv().unwrap();
    assert_eq!(pool.threads(), 1);
    drop(cx);
    open.send(()).unwrap();
    while pool.threads() > 0 {
        thread::yield_now();
    }
}

fn d9_a_panic_of_a_callback_loses_no_other_result(bench: Bench) {
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "work", 1);
    let ran = Rc::new(Cell::new(0));
    for n in 0..4 {
        let count = ran.clone();
        let done = move |_: &Context, _: thread::Result<()>| {
            count.set(count.get() + 1);
            assert_ne!(n, 1, "on purpose");
        };
        pool.run(|| (), done).unwrap();
    }
    let mut panics = 0;
    while pool.in_flight() > 0 {
        let polled = catch_unwind(AssertUnwindSafe(|| bench.poll(&cx, Wait::Block)));
        panics += u32::from(polled.is_err());
    }
    assert_eq!((ran.get(), panics), (4, 1));
}

/// The bell of the later results rings before the loop delivers the results that the first panic has left.
fn d9_a_panic_of_what_was_left_by_another_panic_loses_no_later_result(bench: Bench) {
    let cx = bench.context();
    let pool = WorkerPool::new(&cx, "work", 1);
    let ran = Rc::new(Cell::new(0));
    let run = |panics: bool| {
        let count = ran.clone();
        let done = move |_: &Context, _: thread::Result<()>| {
            count.set(count.get() + 1);
            assert!(!panics, "on purpose");
        };
        pool.run(|| (), done).unwrap();
    };
    // When the only thread arrives there, it has ended all earlier work.
    let stop = || {
        let (arrived, has_arrived) = mpsc::channel();
        let (open, work) = gate();
        let wait = move || {
            arrived.send(()).unwrap();
            work();
        };
        pool.run(wait, |_, _| {}).unwrap();
        (has_arrived, open)
    };
    let poll = || catch_unwind(AssertUnwindSafe(|| bench.poll(&cx, Wait::Block)));
    // The thread is never idle before the end, so it needs no iteration to be woken.
    let (is_there, begin) = stop();
    is_there.recv().unwrap();
    run(true);
    run(true);
    let (has_arrived, open) = stop();
    begin.send(()).unwrap();
    has_arrived.recv().unwrap();
    while ran.get() == 0 {
        let _ = poll();
    }
    assert_eq!(ran.get(), 1);
    run(false);
    let (is_behind, end) = stop();
    open.send(()).unwrap();
    is_behind.recv().unwrap();
    while ran.get() < 3 {
        let _ = poll();
    }
    end.send(()).unwrap();
    until(&bench, &cx, || pool.in_flight() == 0);
}
