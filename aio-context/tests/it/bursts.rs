//! Rule N6, case L8: a burst of posts to a sleeping loop writes its eventfd once, not once a post.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use aio_backend_ppoll::Ppoll;
use aio_context::{Backend, BottomHalf, Context, PollParams, ReadyList, Remote, Source, Wait};
use aio_testing::{Layer, Layered};

use crate::common::{Bench, everywhere};

const POSTS: u64 = 10_000;

/// A backend whose first wait without a limit sleeps until the eventfd is written, and returns after the burst is over. So during
/// the burst the loop is asleep, or was woken and has not run yet.
#[derive(Debug)]
struct Gated {
    waits: Ppoll,
    /// Passed when the loop has announced its wait; then the posters begin.
    asleep: Arc<Barrier>,
    /// Passed when the posters have finished.
    over: Arc<Barrier>,
    is_passed: bool,
}

impl Layer for Gated {
    type Inner = Ppoll;

    fn inner(&self) -> &Ppoll {
        &self.waits
    }

    fn inner_mut(&mut self) -> &mut Ppoll {
        &mut self.waits
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        if timeout.is_some() || self.is_passed {
            return self.waits.wait(timeout, ready);
        }
        self.asleep.wait();
        self.waits.wait(Some(Duration::from_secs(60)), ready)?;
        assert!(!ready.is_empty(), "no write within a minute");
        self.over.wait();
        self.is_passed = true;
        Ok(())
    }
}

type Poster = Box<dyn FnOnce() + Send>;

/// Makes threads post to a loop that sleeps. `prepare` makes the posters, and `sleep` makes the loop sleep. Returns the number of
/// writes of the eventfd.
fn writes_of_a_burst(
    posters: usize,
    prepare: impl Fn(&Context, usize) -> Poster,
    sleep: impl FnOnce(&Context),
) -> u64 {
    let [asleep, over] = [0; 2].map(|_| Arc::new(Barrier::new(posters + 1)));
    let backend = Gated {
        waits: Ppoll::new(),
        asleep: asleep.clone(),
        over: over.clone(),
        is_passed: false,
    };
    let cx = Context::builder()
        .backend(Box::new(Layered(backend)))
        .build()
        .unwrap();
    let remote = cx.remote();
    let threads: Vec<_> = (0..posters)
        .map(|number| {
            let (post, asleep, over) = (prepare(&cx, number), asleep.clone(), over.clone());
            thread::spawn(move || {
                asleep.wait();
                post();
                over.wait();
            })
        })
        .collect();
    // Work that `prepare` has posted is done before the loop sleeps.
    while cx.poll(Wait::NoBlock).unwrap() {}
    let (before, _) = remote.wakeups();
    sleep(&cx);
    for thread in threads {
        thread.join().unwrap();
    }
    while cx.poll(Wait::NoBlock).unwrap() {}
    remote.wakeups().0 - before
}

fn sleep_once(cx: &Context) {
    cx.poll(Wait::Block).unwrap();
}

/// Returns a poster that sends `posts` jobs.
fn sends_jobs(remote: Remote, ran: Arc<AtomicU64>, posts: u64) -> Poster {
    Box::new(move || {
        for _ in 0..posts {
            let ran = ran.clone();
            let job = move |_: &Context| {
                ran.fetch_add(1, Ordering::Relaxed);
            };
            remote.run(job).unwrap();
        }
    })
}

/// Makes `posts` bottom halves that count their runs.
fn counting(cx: &Context, ran: &Rc<Cell<u64>>, posts: u64) -> Vec<BottomHalf> {
    let one = || {
        let ran = ran.clone();
        cx.bottom_half("burst", move |_| ran.set(ran.get() + 1))
    };
    (0..posts).map(|_| one()).collect()
}

/// Makes `posters` threads schedule different bottom halves, `POSTS` in all. Returns the number of writes of the eventfd.
fn writes_of_bottom_halves(posters: usize) -> u64 {
    let (ran, kept) = (Rc::default(), RefCell::new(Vec::new()));
    let prepare = |cx: &Context, _| -> Poster {
        let halves = Arc::new(counting(cx, &ran, POSTS / posters as u64));
        kept.borrow_mut().push(halves.clone());
        Box::new(move || halves.iter().for_each(BottomHalf::schedule))
    };
    let writes = writes_of_a_burst(posters, prepare, sleep_once);
    assert_eq!(ran.get(), POSTS);
    writes
}

#[test]
fn n6_l8_ten_thousand_jobs_for_a_sleeping_loop_cost_one_write() {
    let ran = Arc::new(AtomicU64::new(0));
    let prepare = |cx: &Context, _| sends_jobs(cx.remote(), ran.clone(), POSTS);
    assert_eq!(writes_of_a_burst(1, prepare, sleep_once), 1);
    assert_eq!(ran.load(Ordering::Relaxed), POSTS);
}

#[test]
fn n6_l8_ten_thousand_bottom_halves_of_a_sleeping_loop_cost_one_write() {
    assert_eq!(writes_of_bottom_halves(1), 1);
}

/// A thread that posts while another one is writing writes, too. Each thread writes at most once.
#[test]
fn n6_l8_four_threads_at_once_write_once_each_at_the_most() {
    let ran = Arc::new(AtomicU64::new(0));
    let prepare = |cx: &Context, _| sends_jobs(cx.remote(), ran.clone(), POSTS / 4);
    let writes = writes_of_a_burst(4, prepare, sleep_once);
    assert!((1..=4).contains(&writes), "{writes} writes");
    assert_eq!(ran.load(Ordering::Relaxed), POSTS);
    let writes = writes_of_bottom_halves(4);
    assert!((1..=4).contains(&writes), "{writes} writes");
}

/// All other calls by which another thread can wake a loop.
#[test]
fn n6_a_burst_of_any_kind_costs_one_write() {
    type Prepare = fn(&Context) -> Poster;
    let kinds: [(&str, Prepare); 6] = [
        ("a bottom half again and again", |cx| {
            let half = cx.bottom_half("again", |_| {});
            Box::new(move || (0..POSTS).for_each(|_| half.schedule()))
        }),
        ("idle bottom halves", |cx| {
            let halves = counting(cx, &Rc::default(), POSTS);
            Box::new(move || halves.iter().for_each(BottomHalf::schedule_idle))
        }),
        ("handles that are dropped", |cx| {
            let halves = counting(cx, &Rc::default(), POSTS);
            Box::new(move || drop(halves))
        }),
        ("notifications", |cx| {
            let remote = cx.remote();
            Box::new(move || (0..POSTS).for_each(|_| remote.notify()))
        }),
        ("polling parameters", |cx| {
            let remote = cx.remote();
            Box::new(move || (0..POSTS).for_each(|_| remote.set_poll_params(PollParams::default())))
        }),
        ("a clock that is warped", |cx| {
            let clock = cx.virtual_clock();
            Box::new(move || (0..POSTS).for_each(|_| clock.warp(Duration::from_nanos(1))))
        }),
    ];
    for (kind, prepare) in kinds {
        // A poll continues after events without progress, until it is notified (D4).
        let and_notify = |cx: &Context, _| -> Poster {
            let (post, remote) = (prepare(cx), cx.remote());
            Box::new(move || {
                post();
                remote.notify();
            })
        };
        let writes = writes_of_a_burst(1, and_notify, sleep_once);
        assert_eq!(writes, 1, "{kind}");
    }
}

#[test]
fn n6_w1_a_burst_of_kicks_costs_one_write() {
    let kicked = Arc::new(AtomicU64::new(0));
    let prepare = |cx: &Context, _| -> Poster {
        let (remote, kicked) = (cx.remote(), kicked.clone());
        Box::new(move || {
            for _ in 0..POSTS {
                kicked.fetch_add(1, Ordering::Relaxed);
                remote.kick();
            }
        })
    };
    let sleep = |cx: &Context| {
        assert!(cx.wait_while(|| kicked.load(Ordering::Relaxed) < POSTS).unwrap());
    };
    assert_eq!(writes_of_a_burst(1, prepare, sleep), 1);
}

#[test]
fn n6_a_burst_of_wakes_of_a_source_costs_one_write() {
    let served = Rc::new(Cell::new(0));
    let registration = Rc::new(Cell::new(None));
    let prepare = |cx: &Context, _| -> Poster {
        let source = cx.source("source");
        let waker = source.waker();
        registration.set(Some(source.register(Counts(served.clone()))));
        Box::new(move || (0..POSTS).for_each(|_| waker.wake()))
    };
    assert_eq!(writes_of_a_burst(1, prepare, sleep_once), 1);
    assert_eq!(served.get(), 1);
}

/// A source that counts the times that it is served.
struct Counts(Rc<Cell<u32>>);

impl Source for Counts {
    fn poll(&self) -> bool {
        false
    }
    fn poll_ready(&self, _: &Context) {
        self.0.set(self.0.get() + 1);
    }
}

everywhere! {
    n6_l8_a_burst_costs_at_most_two_writes_a_wait
}

/// On real backends the loop wakes up during the burst, and may sleep again: then the next post wakes it again. A post that
/// began before the end of the wait, and ends after it, may write once more.
fn n6_l8_a_burst_costs_at_most_two_writes_a_wait(bench: Bench) {
    let cx = bench.context();
    let (remote, ran) = (cx.remote(), Arc::new(AtomicU64::new(0)));
    let poster = sends_jobs(remote.clone(), ran.clone(), POSTS);
    let (before, _) = remote.wakeups();
    let thread = thread::spawn(poster);
    let mut waits = 0;
    while ran.load(Ordering::Relaxed) < POSTS {
        bench.block(&cx);
        waits += 1;
    }
    thread.join().unwrap();
    let writes = remote.wakeups().0 - before;
    assert!(writes <= 2 * waits, "{writes} writes in {waits} waits");
}
