//! Handlers made of closures and handlers with a state of their own: each event calls its closure, and the debug output names the
//! type.

use std::cell::{Cell, RefCell};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use aio_context::{Context, Exclusive, HandlerMut, Interest, Wait};

#[test]
fn d3_closures_are_called_for_their_events() {
    let cx = Context::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let seen = Rc::new(RefCell::new(String::new()));
    let (reads, writes) = (seen.clone(), seen.clone());
    let group = cx.new_group();
    let on = cx
        .on(near)
        .group(group)
        .readable(move |_, _| reads.borrow_mut().push('r'))
        .writable(move |_, _| writes.borrow_mut().push('w'));
    assert!(format!("{on:?}").starts_with("On {"));
    let registration = on.watch().unwrap();
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(*seen.borrow(), "w");
    let paused = cx.pause(group);
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(*seen.borrow(), "w", "a member of its group");
    drop(paused);
    rustix::io::write(&far, b"x").unwrap();
    registration.set_interest(Interest::READ).unwrap();
    cx.poll(Wait::Block).unwrap();
    assert_eq!(*seen.borrow(), "wr");
}

/// Counts with `&mut self`.
#[derive(Default)]
struct Counting {
    reads: u32,
    writes: u32,
}

impl HandlerMut<UnixStream> for Counting {
    fn readable(&mut self, owner: &UnixStream, _: &Context) {
        rustix::io::read(owner, &mut [0u8; 8]).unwrap();
        self.reads += 1;
    }
    fn writable(&mut self, _: &UnixStream, _: &Context) {
        self.writes += 1;
    }
}

/// A handler without callbacks.
struct Idle;

impl HandlerMut<UnixStream> for Idle {}

#[test]
fn r11_an_exclusive_handler_has_both_callbacks_and_its_state() {
    let cx = Context::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let handler = Rc::new(Exclusive::new(near, Counting::default()));
    assert!(format!("{handler:?}").starts_with("Exclusive { owner: UnixStream"));
    let registration = cx
        .watch(handler.clone(), Interest::READ | Interest::WRITE)
        .unwrap();
    rustix::io::write(&far, b"x").unwrap();
    cx.poll(Wait::Block).unwrap();
    let counts = handler.with(|state| (state.reads, state.writes));
    assert_eq!(counts, Some((1, 1)));
    drop(registration);
}

/// Polls before it reads.
#[derive(Default)]
struct Nesting(Vec<bool>);

impl HandlerMut<UnixStream> for Nesting {
    fn readable(&mut self, owner: &UnixStream, cx: &Context) {
        self.0.push(cx.poll(Wait::NoBlock).unwrap());
        rustix::io::read(owner, &mut [0u8; 8]).unwrap();
    }
}

#[test]
fn r11_the_events_of_an_exclusive_handler_wait_while_it_runs() {
    let cx = Context::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let handler = Rc::new(Exclusive::new(near, Nesting::default()));
    let _registration = cx.watch(handler.clone(), Interest::READ).unwrap();
    for _ in 0..2 {
        rustix::io::write(&far, b"x").unwrap();
        assert!(cx.poll(Wait::Block).unwrap());
    }
    let inner = handler.with(|state| state.0.clone()).unwrap();
    assert_eq!(
        inner,
        [false, false],
        "an iteration inside it has no handler to call"
    );
}

#[test]
fn d3_callbacks_that_are_not_overridden_do_nothing() {
    let cx = Context::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    rustix::io::write(&far, b"x").unwrap();
    let idle = Rc::new(Exclusive::new(near, Idle));
    let _registration = cx.watch(idle, Interest::READ | Interest::WRITE).unwrap();
    assert!(
        cx.poll(Wait::Block).unwrap(),
        "they were called, which is progress"
    );
}

#[test]
fn debug_output_names_the_type() {
    let cx = Context::new().unwrap();
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    let half = cx.bottom_half("flush", move |_| counted.set(counted.get() + 1));
    let timer = cx.timer(aio_context::ClockId::Virtual, |_, _| {}).disarmed();
    let (near, _far) = UnixStream::pair().unwrap();
    let registration = cx.on(near).readable(|_, _| {}).watch().unwrap();
    for (shown, word) in [
        (format!("{half:?}"), "flush"),
        (format!("{timer:?}"), "Virtual"),
        (format!("{registration:?}"), "Registration"),
        (format!("{:?}", cx.remote()), "Remote"),
        (format!("{:?}", cx.downgrade()), "WeakContext"),
        (format!("{:?}", cx.pause(cx.new_group())), "Paused"),
        (format!("{:?}", cx.source("ring")), "ring"),
        (format!("{:?}", cx.source("ring").waker()), "SourceWaker"),
    ] {
        assert!(shown.contains(word), "{shown} does not say {word}");
    }
    assert_eq!(
        (half.name(), timer.clock()),
        ("flush", aio_context::ClockId::Virtual)
    );
    assert!(cx.downgrade().upgrade().is_some());
}
