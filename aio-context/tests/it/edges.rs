//! Edges: an event that is reported once is delivered once, through panics, nested polls, pauses and moves between backends.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_context::{Context, GroupId, Handler, Interest, Registration, Token, Wait};
use rustix::fd::{AsFd, BorrowedFd};

use crate::common::{Bench, Count, Kick, everywhere, watch};
use aio_testing::{Spoil, spoiled};

everywhere! {
    d3_an_edge_is_served_once
    d3_edges_before_a_call_are_one
    d1_a_nested_poll_takes_over_an_edge
    d7_an_edge_behind_a_panic_is_not_lost
    d7_the_writable_side_behind_a_panic_is_not_lost
    d9_an_edge_that_is_served_while_a_panic_unwinds_is_served_once
    b5_edges_during_a_pause_are_served_after_it
    b5_an_edge_that_was_found_before_the_pause_is_served_after_it
    b5_the_writable_side_is_served_after_a_pause_by_the_readable_one
    r8_a_removed_handler_gets_no_edge
    d5_more_edges_than_one_batch
}

/// An eventfd that is read only where edges are not reported.
struct Unread {
    kick: Rc<Kick>,
    serve: Box<dyn Fn(&Context)>,
}

impl AsFd for Unread {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }
}

impl Handler for Unread {
    fn readable(&self, cx: &Context) {
        if !cx.reports_edges() {
            self.kick.clear();
        }
        (self.serve)(cx);
    }
}

fn watch_unread(cx: &Context, kick: &Rc<Kick>, serve: impl Fn(&Context) + 'static) -> Registration {
    let unread = Unread {
        kick: kick.clone(),
        serve: Box::new(serve),
    };
    cx.watch(Rc::new(unread), Interest::READ | Interest::EDGE)
        .unwrap()
}

fn unread(cx: &Context, number: usize) -> (Vec<Rc<Kick>>, Vec<Count>, Vec<Registration>) {
    let mut all = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..number {
        let (kick, count) = (Kick::new(), Count::default());
        let counted = count.clone();
        let serve = move |_: &Context| {
            counted.up();
        };
        all.2.push(watch_unread(cx, &kick, serve));
        all.0.push(kick);
        all.1.push(count);
    }
    all
}

fn d3_an_edge_is_served_once(bench: Bench) {
    let cx = bench.context();
    let (kicks, counts, _registrations) = unread(&cx, 3);
    for edge in 1..=300 {
        let kick = edge as usize % 3;
        kicks[kick].kick();
        assert!(bench.block(&cx));
        assert_eq!(counts.iter().map(Count::get).sum::<u32>(), edge);
        assert!(!bench.check(&cx), "there was no other edge");
    }
}

fn d3_edges_before_a_call_are_one(bench: Bench) {
    let cx = bench.context();
    let (kicks, counts, _registrations) = unread(&cx, 1);
    for _ in 0..10 {
        kicks[0].kick();
    }
    assert!(bench.block(&cx));
    while bench.check(&cx) {}
    assert_eq!(counts[0].get(), 1);
}

/// Two handlers, of which the first to be called runs `code`, once.
fn pair(cx: &Context, code: impl Fn(&Context) + 'static) -> ([Rc<Kick>; 2], Count, [Registration; 2]) {
    let (served, code) = (Count::default(), Rc::new(code));
    let kicks = [Kick::new(), Kick::new()];
    let registrations = [0, 1].map(|index: usize| {
        let (served, code) = (served.clone(), code.clone());
        watch_unread(cx, &kicks[index], move |cx| {
            if served.up() == 1 {
                code(cx);
            }
        })
    });
    (kicks, served, registrations)
}

fn d1_a_nested_poll_takes_over_an_edge(bench: Bench) {
    let cx = bench.context();
    let (kicks, served, _registrations) = pair(&cx, move |cx| {
        // The same wait has found the other edge, and no later wait reports it again.
        assert!(cx.poll(Wait::AtMost(Duration::from_secs(60))).unwrap());
    });
    kicks.iter().for_each(|kick| kick.kick());
    assert!(bench.block(&cx));
    assert_eq!(served.get(), 2);
    assert!(!bench.check(&cx));
}

fn d7_an_edge_behind_a_panic_is_not_lost(bench: Bench) {
    let cx = bench.context();
    let (kicks, served, _registrations) = pair(&cx, |_| panic!("on purpose"));
    kicks.iter().for_each(|kick| kick.kick());
    let ended = catch_unwind(AssertUnwindSafe(|| bench.block(&cx)));
    assert!(ended.is_err());
    assert!(bench.block(&cx), "it does not wait either");
    while bench.check(&cx) {}
    // The handler that panicked may be called again, because its work is not done.
    assert_eq!(served.get(), 3);
    kicks[0].kick();
    assert!(bench.block(&cx));
    assert_eq!(served.get(), 4);
}

type OnCall = Box<dyn Fn(&Context)>;

/// A socket that is readable and writable, with edges.
struct Both {
    socket: std::os::unix::net::UnixStream,
    log: RefCell<Vec<&'static str>>,
    on_readable: RefCell<Option<OnCall>>,
}

impl Both {
    fn new() -> (Rc<Self>, std::os::unix::net::UnixStream) {
        use std::io::Write;
        let (socket, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        far.write_all(b"x").unwrap();
        let both = Self {
            socket,
            log: RefCell::default(),
            on_readable: RefCell::default(),
        };
        (Rc::new(both), far)
    }
}

impl AsFd for Both {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Handler for Both {
    fn readable(&self, cx: &Context) {
        use std::io::Read;
        self.log.borrow_mut().push("readable");
        if let Some(code) = self.on_readable.take() {
            code(cx);
        }
        (&self.socket).read_exact(&mut [0]).unwrap();
    }
    fn writable(&self, _: &Context) {
        self.log.borrow_mut().push("writable");
    }
}

/// Polls when a panic drops it; the callbacks of that poll return.
struct PollsOnDrop<'a>(&'a Context);

impl Drop for PollsOnDrop<'_> {
    fn drop(&mut self) {
        assert!(self.0.poll(Wait::AtMost(Duration::from_secs(60))).unwrap());
    }
}

fn d9_an_edge_that_is_served_while_a_panic_unwinds_is_served_once(bench: Bench) {
    let cx = bench.context();
    let (kicks, served, _registrations) = pair(&cx, |cx| {
        let _polls = PollsOnDrop(cx);
        panic!("on purpose");
    });
    kicks.iter().for_each(|kick| kick.kick());
    let ended = catch_unwind(AssertUnwindSafe(|| bench.block(&cx)));
    assert!(ended.is_err());
    assert_eq!(served.get(), 2);
    while bench.check(&cx) {}
    assert_eq!(
        served.get(),
        3,
        "only the edge comes again whose callback has panicked"
    );
}

fn d7_the_writable_side_behind_a_panic_is_not_lost(bench: Bench) {
    let cx = bench.context();
    let (both, _far) = Both::new();
    *both.on_readable.borrow_mut() = Some(Box::new(|_| panic!("on purpose")));
    let _registration = cx.watch(both.clone(), Interest::BOTH | Interest::EDGE).unwrap();
    let ended = catch_unwind(AssertUnwindSafe(|| bench.block(&cx)));
    assert!(ended.is_err());
    assert!(bench.check(&cx));
    assert_eq!(*both.log.borrow(), ["readable", "readable", "writable"]);
}

fn in_a_group(cx: &Context, bench: Bench) -> (GroupId, Rc<Kick>, Registration) {
    let group = cx.new_group();
    let kick = Kick::new();
    let interest = Interest::READ | Interest::EDGE;
    let registration = cx.watch_in(group, kick.clone(), interest).unwrap();
    assert!(!bench.check(cx));
    (group, kick, registration)
}

fn b5_edges_during_a_pause_are_served_after_it(bench: Bench) {
    let cx = bench.context();
    let (group, kick, _registration) = in_a_group(&cx, bench);
    let paused = cx.pause(group);
    kick.kick();
    assert!(!bench.check(&cx) && !bench.check(&cx));
    drop(paused);
    assert!(bench.block(&cx) || bench.block(&cx));
    assert_eq!(kick.count.get(), 1);
}

fn b5_an_edge_that_was_found_before_the_pause_is_served_after_it(bench: Bench) {
    let cx = bench.context();
    let (group, kick, _registration) = in_a_group(&cx, bench);
    let paused = Rc::new(Cell::new(None));
    let slot = paused.clone();
    // Bottom halves run between the wait and the calls.
    let bh = cx.bottom_half("pause", move |cx| slot.set(Some(cx.pause(group))));
    for _ in 0..3 {
        kick.kick();
        bh.schedule();
        bench.check(&cx);
        let served = kick.count.get();
        bench.check(&cx);
        assert_eq!(kick.count.get(), served, "it is paused");
        drop(paused.take());
        bench.check(&cx);
        bench.check(&cx);
        assert_eq!(kick.count.get(), served + 1, "it is served after the pause");
    }
}

fn b5_the_writable_side_is_served_after_a_pause_by_the_readable_one(bench: Bench) {
    let cx = bench.context();
    let group = cx.new_group();
    let (both, _far) = Both::new();
    let paused = Rc::new(Cell::new(None));
    let slot = paused.clone();
    *both.on_readable.borrow_mut() = Some(Box::new(move |cx| slot.set(Some(cx.pause(group)))));
    let _registration = cx
        .watch_in(group, both.clone(), Interest::BOTH | Interest::EDGE)
        .unwrap();
    assert!(bench.block(&cx));
    assert!(!bench.check(&cx));
    assert_eq!(*both.log.borrow(), ["readable"]);
    drop(paused.take());
    bench.check(&cx);
    bench.check(&cx);
    assert_eq!(both.log.borrow()[..2], ["readable", "writable"]);
}

fn r8_a_removed_handler_gets_no_edge(bench: Bench) {
    let cx = bench.context();
    let (kicks, counts, mut registrations) = unread(&cx, 2);
    kicks.iter().for_each(|kick| kick.kick());
    drop(registrations.remove(0));
    assert!(bench.block(&cx));
    while bench.check(&cx) {}
    assert_eq!((counts[0].get(), counts[1].get()), (0, 1));
}

fn d5_more_edges_than_one_batch(bench: Bench) {
    let cx = bench.builder().batch(10).build().unwrap();
    let (kicks, counts, _registrations) = unread(&cx, 200);
    kicks.iter().for_each(|kick| kick.kick());
    while bench.check(&cx) {}
    assert!(counts.iter().all(|count| count.get() == 1));
}

#[test]
fn edges_survive_a_context_that_climbs() {
    let cx = Context::new().unwrap();
    let (kicks, counts, _registrations) = unread(&cx, 10);
    assert!(!cx.reports_edges(), "it begins on ppoll");
    let (mut sent, mut climbed) = (0, false);
    while !climbed || sent < 2000 {
        kicks[sent % 10].kick();
        sent += 1;
        assert!(cx.poll(Wait::Block).unwrap());
        let served: u32 = counts.iter().map(Count::get).sum();
        // When the context climbs, each eventfd that was not read is reported once more.
        assert!(
            (sent..=sent + 10).contains(&(served as usize)),
            "{served} of {sent}"
        );
        climbed = cx.reports_edges();
    }
}

/// Refuses changes of interest while the flag is set.
#[derive(Debug)]
struct Unwilling(Rc<Cell<bool>>);

impl Spoil for Unwilling {
    const NAME: &'static str = "unwilling";

    fn modify(&mut self, _: Token) -> io::Result<()> {
        if self.0.get() {
            return Err(io::Error::from_raw_os_error(12)); // ENOMEM
        }
        Ok(())
    }
}

#[test]
fn b4_a_change_of_interest_that_fails_loses_no_edge() {
    let unwilling = Rc::new(Cell::new(true));
    let backend = spoiled(Epoll::new().unwrap(), Unwilling(unwilling));
    let cx = Context::builder().backend(Box::new(backend)).build().unwrap();
    let edge = Kick::new();
    let interest = Interest::READ | Interest::EDGE;
    let registration = cx.watch(edge.clone(), interest).unwrap();
    let meddles = Kick::with(move |kick, _| {
        kick.clear();
        let why = registration.set_interest(Interest::WRITE).unwrap_err();
        assert!(why.to_string().contains("change an interest"), "{why}");
    });
    let _registration = watch(&cx, &meddles);
    // One wait finds both events, that of `meddles` first.
    meddles.kick();
    edge.kick();
    assert!(cx.poll(Wait::NoBlock).unwrap());
    assert_eq!((meddles.count.get(), edge.count.get()), (1, 1));
}
