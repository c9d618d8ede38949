//! Doorbells: each ring is served, although a backend that reports edges does not read their eventfds.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{Context, Registration, Wait};
use aio_sources::Doorbell;
use aio_testing::{Bench, Count, everywhere};
use rustix::fd::AsFd;

everywhere! {
    d3_a_ring_is_served_once
    d3_rings_before_a_call_are_one
    d1_a_nested_poll_serves_the_other_one
    d9_a_panic_loses_no_ring
    b5_rings_during_a_pause_are_served_after_it
    r8_a_removed_doorbell_is_silent
    r3_a_doorbell_is_watched_once
}

fn doorbells(cx: &Context, number: usize) -> (Vec<Doorbell>, Vec<Count>, Vec<Registration>) {
    let mut all = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..number {
        let (bell, count) = (Doorbell::new().unwrap(), Count::default());
        let counted = count.clone();
        let serve = move |_: &Context| {
            counted.up();
        };
        all.2.push(bell.watch(cx, serve).unwrap());
        all.0.push(bell);
        all.1.push(count);
    }
    all
}

fn d3_a_ring_is_served_once(bench: Bench) {
    let cx = bench.context();
    let (bells, counts, _registrations) = doorbells(&cx, 3);
    for ring in 1..=300 {
        let bell = ring as usize % 3;
        bells[bell].ring().unwrap();
        assert!(bench.block(&cx));
        assert_eq!(counts.iter().map(Count::get).sum::<u32>(), ring);
        assert!(!bench.check(&cx), "there was no other ring");
    }
}

fn d3_rings_before_a_call_are_one(bench: Bench) {
    let cx = bench.context();
    let (bells, counts, _registrations) = doorbells(&cx, 1);
    for _ in 0..10 {
        bells[0].ring().unwrap();
    }
    // Another process would write to the descriptor.
    rustix::io::write(bells[0].as_fd(), &7u64.to_ne_bytes()).unwrap();
    assert!(bench.block(&cx));
    bench.settle(&cx);
    assert_eq!(counts[0].get(), 1);
}

/// Makes two doorbells. The first one to be served runs `code`, once.
fn pair(cx: &Context, code: impl Fn(&Context) + 'static) -> ([Doorbell; 2], Count, [Registration; 2]) {
    let (served, code) = (Count::default(), Rc::new(code));
    let bells = [Doorbell::new().unwrap(), Doorbell::new().unwrap()];
    let registrations = [0, 1].map(|index: usize| {
        let (served, code) = (served.clone(), code.clone());
        let serve = move |cx: &Context| {
            if served.up() == 1 {
                code(cx);
            }
        };
        bells[index].watch(cx, serve).unwrap()
    });
    (bells, served, registrations)
}

fn d1_a_nested_poll_serves_the_other_one(bench: Bench) {
    let cx = bench.context();
    let (bells, served, _registrations) = pair(&cx, move |cx| {
        assert!(cx.poll(Wait::AtMost(Duration::from_secs(60))).unwrap());
    });
    bells.iter().for_each(|bell| bell.ring().unwrap());
    assert!(bench.block(&cx));
    assert_eq!(served.get(), 2);
    assert!(!bench.check(&cx));
}

fn d9_a_panic_loses_no_ring(bench: Bench) {
    let cx = bench.context();
    let (bells, served, _registrations) = pair(&cx, |_| panic!("on purpose"));
    bells.iter().for_each(|bell| bell.ring().unwrap());
    let ended = catch_unwind(AssertUnwindSafe(|| bench.block(&cx)));
    assert!(ended.is_err());
    bench.settle(&cx);
    // The doorbell that panicked may be served again.
    assert!((2..=3).contains(&served.get()), "served {} times", served.get());
    let before = served.get();
    bells[0].ring().unwrap();
    assert!(bench.block(&cx));
    assert_eq!(served.get(), before + 1);
}

fn b5_rings_during_a_pause_are_served_after_it(bench: Bench) {
    let cx = bench.context();
    let (group, bell, count) = (cx.new_group(), Doorbell::new().unwrap(), Count::default());
    let counted = count.clone();
    let serve = move |_: &Context| {
        counted.up();
    };
    let _registration = bell.watch_in(&cx, group, serve).unwrap();
    for times in 1..=3 {
        let paused = cx.pause(group);
        bell.ring().unwrap();
        bench.settle(&cx);
        assert_eq!(count.get(), times - 1);
        drop(paused);
        bench.settle(&cx);
        assert_eq!(count.get(), times);
    }
}

fn r8_a_removed_doorbell_is_silent(bench: Bench) {
    let cx = bench.context();
    let (bells, counts, mut registrations) = doorbells(&cx, 2);
    bells.iter().for_each(|bell| bell.ring().unwrap());
    drop(registrations.remove(0));
    assert!(bench.block(&cx));
    bench.settle(&cx);
    assert_eq!((counts[0].get(), counts[1].get()), (0, 1));
}

fn r3_a_doorbell_is_watched_once(bench: Bench) {
    let cx = bench.context();
    let bell = Doorbell::new().unwrap();
    let _registration = bell.watch(&cx, |_| {}).unwrap();
    let why = bell.watch(&cx, |_| {}).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn b3_no_ring_is_lost_when_the_context_moves_to_epoll() {
    let cx = Context::new().unwrap();
    let (bells, counts, _registrations) = doorbells(&cx, 10);
    assert!(!cx.reports_edges(), "it begins on ppoll");
    let (mut rings, mut is_epoll) = (0, false);
    while !is_epoll || rings < 2000 {
        bells[rings % 10].ring().unwrap();
        rings += 1;
        assert!(cx.poll(Wait::Block).unwrap());
        let served: u32 = counts.iter().map(Count::get).sum();
        // The move reports each unread eventfd once more.
        assert!(
            (rings..=rings + 10).contains(&(served as usize)),
            "{served} of {rings}"
        );
        is_epoll = cx.reports_edges();
    }
}

#[test]
fn n1_another_thread_wakes_a_sleeping_loop() {
    let cx = Context::new().unwrap();
    let (bells, counts, _registrations) = doorbells(&cx, 1);
    let bell = bells[0].clone();
    let ringer = std::thread::spawn(move || bell.ring().unwrap());
    assert!(cx.poll(Wait::Block).unwrap());
    ringer.join().unwrap();
    assert_eq!(counts[0].get(), 1);
}
