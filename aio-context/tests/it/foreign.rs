//! Rules G and N5: a context inside a foreign loop.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Interest, PollParams, Wait};

use crate::common::{Bench, Kick, Number, is_readable, watch, watch_polled};

const BENCH: Bench = Bench::FOREIGN;

#[test]
fn g1_timeouts_are_rounded_up_to_milliseconds() {
    let (cx, _) = BENCH.simulated();
    let embedded = cx.embed().unwrap();
    assert_eq!(embedded.prepare_ms(), -1);
    let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
    for (delay, ms) in [(1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2), (0, 0)] {
        embedded.check().unwrap();
        timer.arm_after(Duration::from_nanos(delay));
        assert_eq!(embedded.prepare_ms(), ms, "{delay} ns");
    }
    timer.arm_after(Duration::ZERO);
    assert_eq!(
        embedded.prepare_ms(),
        0,
        "armed while the foreign loop may be waiting: it is woken"
    );
    embedded.check().unwrap();
    timer.arm_after(Duration::from_secs(1 << 23));
    assert_eq!(embedded.prepare_ms(), i32::MAX);
}

#[test]
fn t3_only_a_new_earliest_deadline_wakes_a_foreign_loop() {
    let (cx, _) = BENCH.simulated();
    let embedded = cx.embed().unwrap();
    let new = || cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
    let (first, other) = (new(), new());
    let now = cx.now(ClockId::Monotonic);
    let after = |ms| now.saturating_add(Duration::from_millis(ms));
    first.arm_at(after(10));
    let is_woken_by = |act: &dyn Fn()| {
        embedded.prepare();
        act();
        let mut fds = [rustix::event::PollFd::new(
            &embedded,
            rustix::event::PollFlags::IN,
        )];
        let readable = rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap();
        embedded.check().unwrap();
        readable == 1
    };
    assert!(!is_woken_by(&|| other.arm_at(after(20))));
    assert!(
        !is_woken_by(&|| other.anticipate(after(10))),
        "a tie is not earlier"
    );
    assert!(is_woken_by(&|| other.anticipate(after(9))));
    assert!(!is_woken_by(&|| other.anticipate(after(9))));
    assert!(
        !is_woken_by(&|| other.cancel()),
        "after too short a wait the loop checks again"
    );
    assert!(is_woken_by(&|| other.arm_at(after(8))));
    assert!(!is_woken_by(&|| drop(new())));
}

#[test]
fn g1_n5_a_schedule_between_prepare_and_check_makes_the_descriptor_readable() {
    let cx = BENCH.context();
    let embedded = cx.embed().unwrap();
    let ran = Rc::new(RefCell::new(0));
    let counter = ran.clone();
    let bh = cx.bottom_half("g1", move |_| *counter.borrow_mut() += 1);
    assert_eq!(embedded.prepare_ms(), -1);
    let scheduler = bh.clone();
    std::thread::spawn(move || scheduler.schedule()).join().unwrap();
    let mut fds = [rustix::event::PollFd::new(
        &embedded,
        rustix::event::PollFlags::IN,
    )];
    assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
    assert!(embedded.check().unwrap() && embedded.dispatch());
    assert_eq!(*ran.borrow(), 1);
    assert_eq!(embedded.prepare_ms(), -1, "nothing is left");
}

#[test]
fn g1_work_before_prepare_makes_the_wait_return() {
    let cx = BENCH.context();
    let embedded = cx.embed().unwrap();
    let bh = cx.bottom_half("g1", |_| {});
    bh.schedule();
    assert_eq!(embedded.prepare_ms(), 0);
    assert!(embedded.check().unwrap() && embedded.dispatch());
    assert_eq!(embedded.prepare_ms(), -1);
}

#[test]
fn g1_a_hit_while_leaving_poll_mode_is_not_lost() {
    let cx = BENCH
        .builder()
        .policy(Box::new(crate::polling::Always))
        .build()
        .unwrap();
    cx.set_poll_params(PollParams::up_to(Duration::from_millis(1)));
    let kick = Kick::new();
    let _registration = watch_polled(&cx, &kick);
    kick.kick();
    assert!(cx.poll(Wait::Block).unwrap());
    let embedded = cx.embed().unwrap();
    kick.has_work.set(Some(true));
    assert_eq!(embedded.prepare_ms(), 0, "the last poll had a hit");
    assert!(embedded.check().unwrap() && embedded.dispatch());
    assert_eq!(kick.count.get(), 2);
}

#[test]
fn g2_one_descriptor_stands_for_all() {
    let cx = BENCH.context();
    let embedded = cx.embed().unwrap();
    let kicks: Vec<_> = (0..100).map(|_| Kick::new()).collect();
    let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
    let outer = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    let data = rustix::event::epoll::EventData::new_u64(1);
    rustix::event::epoll::add(
        &outer,
        embedded.as_fd(),
        data,
        rustix::event::epoll::EventFlags::IN,
    )
    .unwrap();
    for kick in &kicks {
        assert_eq!(embedded.prepare_ms(), -1);
        kick.kick();
        let mut events = Vec::with_capacity(4);
        let found = rustix::event::epoll::wait(&outer, rustix::buffer::spare_capacity(&mut events), None);
        assert_eq!(found.unwrap(), 1);
        assert!(embedded.check().unwrap() && embedded.dispatch());
        assert_eq!(kick.count.get(), 1);
    }
}

/// An edge-triggered foreign loop must dispatch until no work is due, because more can be ready than one dispatch serves.
#[test]
fn g2_an_edge_triggered_loop_looks_until_nothing_is_due() {
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    let cx = BENCH.builder().batch(4).build().unwrap();
    let embedded = cx.embed().unwrap();
    let kicks: Vec<_> = (0..10).map(|_| Kick::new()).collect();
    let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
    let outer = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let flags = EventFlags::IN | EventFlags::ET;
    epoll::add(&outer, embedded.as_fd(), EventData::new_u64(1), flags).unwrap();
    for round in 1..=20 {
        assert_eq!(embedded.prepare_ms(), -1);
        kicks.iter().for_each(|kick| kick.kick());
        let mut events = Vec::with_capacity(4);
        let found = epoll::wait(&outer, rustix::buffer::spare_capacity(&mut events), None);
        assert_eq!(found.unwrap(), 1);
        while embedded.check().unwrap() {
            assert!(embedded.dispatch());
        }
        assert!(kicks.iter().all(|kick| kick.count.get() == round));
    }
}

/// ppoll, and a backend from outside that has no descriptor.
#[test]
fn g2_epoll_stands_for_a_backend_without_a_descriptor() {
    for backend in [Bench::PPOLL.backend, crate::backends::plain] {
        let cx = Context::builder().backend(backend()).build().unwrap();
        let kicks: Vec<_> = (0..20).map(|_| Kick::new()).collect();
        let registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
        registrations[3].set_interest(Interest::NONE).unwrap();
        kicks.iter().step_by(2).for_each(|kick| kick.kick());
        kicks[3].kick();
        let embedded = cx.embed().unwrap();
        assert_eq!(cx.backend_name(), "epoll");
        assert!(is_readable(&embedded));
        assert!(embedded.prepare().is_none() && embedded.dispatch());
        let counts = |even: u32, odd: u32| {
            kicks
                .iter()
                .zip([even, odd].into_iter().cycle())
                .all(|(kick, count)| kick.count.get() == count)
        };
        assert!(counts(1, 0));
        drop(embedded);
        registrations[3].set_interest(Interest::READ).unwrap();
        assert!(cx.poll(Wait::Block).unwrap() && kicks[3].count.get() == 1);
        assert!(!cx.poll(Wait::NoBlock).unwrap());
    }
}

/// If one descriptor is refused, the context keeps its backend.
#[test]
fn g2_l6_a_backend_that_cannot_be_replaced_stays() {
    let cx = Bench::PPOLL.context();
    let (kick, number) = (Kick::new(), Number::new());
    let _registrations = (
        watch(&cx, &kick),
        cx.watch(number.clone(), Interest::READ).unwrap(),
    );
    number.close();
    let refused = cx.embed().unwrap_err();
    assert!(refused.to_string().contains("closed behind"), "{refused}");
    assert_eq!(cx.backend_name(), "ppoll");
    kick.kick();
    assert!(cx.poll(Wait::Block).unwrap() && kick.count.get() == 1);
    drop(cx.embed().unwrap());
    assert_eq!(cx.backend_name(), "epoll");
}

#[test]
fn g2_embedded_in_tokio() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let cx = BENCH.context();
        let embedded = cx.embed().unwrap();
        let own = embedded.as_fd().try_clone_to_owned().unwrap();
        // SAFETY: the descriptor is owned by the value that is registered, and nothing closes it before.
        let fd = unsafe { tokio::io::unix::AsyncFd::register(own) }.unwrap();
        let kick = Kick::new();
        let _registration = watch(&cx, &kick);
        let fired = Rc::new(RefCell::new(0));
        let count = fired.clone();
        let timer = cx
            .timer(ClockId::Monotonic, move |_, _| *count.borrow_mut() += 1)
            .disarmed();
        timer.arm_after(Duration::from_millis(1));
        kick.kick();
        while kick.count.get() == 0 || *fired.borrow() == 0 {
            let limit = embedded.prepare().unwrap_or(Duration::from_secs(60));
            let ready = tokio::select! {
                ready = fd.readable() => Some(ready.unwrap()),
                () = tokio::time::sleep(limit) => None,
            };
            if embedded.check().unwrap() {
                embedded.dispatch();
            } else if let Some(mut ready) = ready {
                ready.clear_ready();
            }
        }
    });
}
