//! The events that handlers get, and a handler's access to its own registration (rules R13 and R14, cases L7 and L10).

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use aio_context::{
    Action, Context, Event, Exclusive, Handler, HandlerMut, Interest, PollParams, Polled, Readiness, Wait,
};

use crate::common::{Bench, everywhere};

everywhere! {
    l7_a_half_close_is_told_from_a_hang_up
    l7_urgent_data_is_reported_to_those_that_ask_for_it
    r13_an_event_carries_the_whole_readiness
    r13_a_trait_handler_reaches_its_own_registration
    r13_an_exclusive_handler_gets_the_event
    r13_a_handler_that_was_replaced_meanwhile_leaves_the_new_one_alone
    r13_an_interest_that_the_system_refuses_invalidates_the_handler
    r14_one_event_and_then_none_until_rearmed
    r14_a_rearmed_event_is_not_lost_by_what_happened_meanwhile
    r14_both_directions_belong_to_one_event
    r14_armed_between_two_directions_it_gets_one_event
    r14_an_event_before_a_pause_is_delivered_once_after_it
    r14_a_delivered_event_stays_delivered_after_a_pause
    r14_an_event_that_another_callback_rearms_comes_once
    r14_a_nested_poll_delivers_the_one_event
    r14_a_panic_counts_as_delivery_and_other_events_are_kept
    r14_an_exclusive_handler_may_rearm_itself
    r14_replacing_arms_again
    r14_edges_are_rearmed_in_one_call
    r14_asleep_while_the_backend_moves
    l10_a_closure_ends_itself
    l10_a_closure_changes_its_interest
    l10_a_closure_puts_another_handler_in_its_place
    l10_on_covers_edge_and_silence
    l10_on_covers_polling
    l10_a_polled_handler_reaches_its_registration_by_its_number
}

type Log = Rc<RefCell<Vec<Readiness>>>;

fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (near, far)
}

fn write(far: impl AsFd) {
    rustix::io::write(far, b"x").unwrap();
}

fn read(near: impl AsFd) {
    let _ = rustix::io::read(near, &mut [0; 64]);
}

fn l7_a_half_close_is_told_from_a_hang_up(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let log = Log::default();
    let seen = log.clone();
    let registration = cx
        .on(near)
        .ready(move |near, _, event| {
            seen.borrow_mut().push(event.readiness());
            read(near);
        })
        .watch()
        .unwrap();
    write(&far);
    assert!(bench.block(&cx));
    far.shutdown(Shutdown::Write).unwrap();
    assert!(bench.block(&cx));
    registration.set_interest(Interest::WRITE).unwrap();
    assert!(bench.block(&cx), "there is room to write still");
    registration.set_interest(Interest::READ).unwrap();
    drop(far);
    assert!(bench.block(&cx));
    let (data, half) = (Readiness::IN, Readiness::IN | Readiness::RDHUP);
    assert_eq!(*log.borrow(), [data, half, Readiness::OUT, half | Readiness::HUP]);
}

fn l7_urgent_data_is_reported_to_those_that_ask_for_it(bench: Bench) {
    let cx = bench.context();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    let urge = || rustix::net::send(&far, b"!", rustix::net::SendFlags::OOB).unwrap();
    let urgent = Rc::new(Cell::new(0));
    let seen = urgent.clone();
    let registration = cx
        .on(near)
        .priority(move |near, _| {
            let mut byte = [0];
            rustix::net::recv(near, &mut byte, rustix::net::RecvFlags::OOB).unwrap();
            assert_eq!(byte, *b"!");
            seen.set(seen.get() + 1);
        })
        .watch()
        .unwrap();
    for round in 1..4 {
        urge();
        assert!(bench.block(&cx));
        assert_eq!(urgent.get(), round);
        assert!(!bench.check(&cx), "it was received");
    }
    // A handler without an interest in priority is not called. (There is nothing else to read.)
    registration.set_interest(Interest::READ).unwrap();
    urge();
    for _ in 0..3 {
        bench.check(&cx);
        assert_eq!(urgent.get(), 3);
    }
    registration.set_interest(Interest::PRIORITY).unwrap();
    assert!(bench.block(&cx));
    assert_eq!(urgent.get(), 4, "it is there still");
}

/// `/proc/self/mounts` and `/proc/pressure` are always readable. Their changes are reported as priority.
#[test]
fn l7_a_change_of_the_mounts_is_reported_once() {
    use nix::mount::{MsFlags, mount, umount};
    for bench in [Bench::PPOLL, Bench::EPOLL, Bench::LADDER_AT_64] {
        let thread = std::thread::spawn(move || {
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let alone = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>));
            if let Err(why) = alone {
                eprintln!("skipped: mounts of its own need a privilege: {why}");
                return;
            }
            let mounts = std::fs::File::open("/proc/thread-self/mounts").unwrap();
            let cx = bench.context();
            let log = Log::default();
            let seen = log.clone();
            let on = cx.on(mounts).interest(Interest::PRIORITY);
            let _registration = on
                .ready(move |_, _, event| seen.borrow_mut().push(event.readiness()))
                .watch()
                .unwrap();
            assert!(!cx.poll(Wait::NoBlock).unwrap());
            let place = tempfile::tempdir().unwrap();
            for change in 1..4 {
                if change % 2 == 1 {
                    let none = None::<&str>;
                    mount(Some("tmpfs"), place.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
                } else {
                    umount(place.path()).unwrap();
                }
                assert!(cx.poll(Wait::Block).unwrap());
                assert!(!cx.poll(Wait::NoBlock).unwrap(), "one change is one event");
                assert_eq!(log.borrow().len(), change);
                assert!(log.borrow()[change - 1].contains(Readiness::PRI));
            }
            umount(place.path()).unwrap();
        });
        thread.join().unwrap();
    }
}

/// Opens a trigger for any stall for want of a processor within 2 s, the shortest window for an unprivileged process.
fn pressure() -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.read(true).write(true).open("/proc/pressure/cpu")?;
    std::io::Write::write_all(&mut file, b"some 1 2000000\0")?;
    Ok(file)
}

#[test]
fn l7_a_trigger_of_proc_pressure_is_reported_and_does_not_spin() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let left = AtomicU32::new(3);
    std::thread::scope(|threads| {
        for bench in [Bench::PPOLL, Bench::EPOLL, Bench::LADDER_AT_64] {
            let left = &left;
            threads.spawn(move || {
                match pressure() {
                    Ok(trigger) => waits_for(trigger, bench),
                    Err(why) => eprintln!("skipped: no trigger of /proc/pressure/cpu: {why}"),
                }
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for _ in 0..2 * std::thread::available_parallelism().unwrap().get() {
            threads.spawn(|| while left.load(Ordering::Relaxed) > 0 {});
        }
    });
}

fn waits_for(trigger: std::fs::File, bench: Bench) {
    let cx = bench.context();
    let log = Log::default();
    let seen = log.clone();
    let on = cx.on(trigger).interest(Interest::PRIORITY);
    let on = on.ready(move |_, _, event| seen.borrow_mut().push(event.readiness()));
    let _registration = on.watch().unwrap();
    let mut waits = 0;
    while log.borrow().is_empty() {
        let most = std::time::Duration::from_secs(10);
        cx.poll(Wait::AtMost(most)).unwrap();
        waits += 1;
        assert!(waits < 10, "no event, or waits that end at once");
    }
    assert_eq!(*log.borrow(), [Readiness::PRI]);
    assert!(!cx.poll(Wait::NoBlock).unwrap(), "one event is reported once");
}

fn r13_an_event_carries_the_whole_readiness(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let log = Log::default();
    let seen = log.clone();
    let registration = cx
        .on(near)
        .interest(Interest::BOTH)
        .ready(move |_, _, event: Event| {
            assert!(event.is_writable());
            assert_eq!(event.interest(), Interest::BOTH);
            seen.borrow_mut().push(event.readiness());
        })
        .watch()
        .unwrap();
    assert!(bench.check(&cx));
    write(&far);
    assert!(bench.check(&cx));
    drop(far);
    assert!(bench.check(&cx));
    let (r, w) = (Readiness::IN, Readiness::OUT);
    let end = Readiness::HUP | Readiness::RDHUP;
    let seen = log.borrow()[..].to_vec();
    assert_eq!(seen[..2], [w, r | w]);
    assert!(seen[2].contains(r | w | end), "{seen:?}");
    assert!(registration.is_live());
}

type Task = fn(&Context, Event);

/// A handler that does the next of its tasks with its registration at each event.
struct Tasks {
    near: UnixStream,
    tasks: RefCell<Vec<Task>>,
    calls: Cell<u32>,
}

impl AsFd for Tasks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }
}

impl Handler for Tasks {
    fn ready(&self, cx: &Context, event: Event) {
        self.calls.set(self.calls.get() + 1);
        if let Some(task) = self.tasks.borrow_mut().pop() {
            task(cx, event);
        }
    }
    fn readable(&self, _: &Context) {
        unreachable!("`ready` is called instead")
    }
}

fn r13_a_trait_handler_reaches_its_own_registration(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    write(&far);
    let tasks: [Task; 4] = [
        |cx, event| assert!(event.remove(cx) && !event.is_current(cx) && !event.remove(cx)),
        |cx, event| event.set_interest(cx, Interest::READ).unwrap(),
        |cx, event| event.set_interest(cx, Interest::WRITE).unwrap(),
        |cx, event| assert!(event.is_current(cx) && event.rearm(cx).is_ok()),
    ];
    let handler = Rc::new(Tasks {
        near,
        tasks: RefCell::new(tasks.to_vec()),
        calls: Cell::new(0),
    });
    let registration = cx.watch(handler.clone(), Interest::READ).unwrap();
    for calls in 1..=4 {
        assert!(registration.is_live());
        assert!(bench.check(&cx));
        assert_eq!(handler.calls.get(), calls);
    }
    assert!(!registration.is_live() && !bench.check(&cx));
    assert_eq!(Rc::strong_count(&handler), 1);
}

/// Counts with `&mut self`, and removes itself at the third event.
struct Three(u32);

impl HandlerMut<UnixStream> for Three {
    fn ready(&mut self, _: &UnixStream, cx: &Context, event: Event) {
        self.0 += 1;
        if self.0 == 3 {
            assert!(event.remove(cx));
        }
    }
}

fn r13_an_exclusive_handler_gets_the_event(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    write(&far);
    let handler = Rc::new(Exclusive::new(near, Three(0)));
    let registration = cx.watch(handler.clone(), Interest::READ).unwrap();
    while bench.check(&cx) {}
    assert_eq!(handler.with(|three| three.0), Some(3));
    assert!(!registration.is_live());
}

fn r13_a_handler_that_was_replaced_meanwhile_leaves_the_new_one_alone(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let near = Rc::new(near);
    write(&far);
    let calls = Rc::new(Cell::new(0));
    let (counts, new_owner) = (calls.clone(), near.clone());
    let registration = cx
        .on(near)
        .ready(move |_, cx, event| {
            let (counts, owner) = (counts.clone(), new_owner.clone());
            let other = cx.on(owner).ready(move |near, _, _| {
                read(near);
                counts.set(counts.get() + 1);
            });
            event.replace(cx, other.into_handler(), Interest::READ).unwrap();
            assert!(!event.is_current(cx));
            assert!(event.rearm(cx).is_err() && !event.remove(cx));
            // This is the action of the replaced handler, so it has no effect.
            Action::Remove
        })
        .watch()
        .unwrap();
    assert!(bench.check(&cx));
    assert!(registration.is_live() && calls.get() == 0);
    assert!(bench.check(&cx));
    assert_eq!(calls.get(), 1);
}

fn r13_an_interest_that_the_system_refuses_invalidates_the_handler(bench: Bench) {
    use aio_backend::conformance::disturb::Number;
    let cx = bench.context();
    let (near, far) = pair();
    write(&far);
    let number = Number::of(&near);
    let why = Rc::new(RefCell::new(None));
    let (gets, closes) = (why.clone(), number.clone());
    let registration = cx
        .on(number)
        .ready(move |_, _, _| {
            closes.close();
            Action::Interest(Interest::BOTH)
        })
        .invalidated(move |_, _, error| _ = gets.replace(Some(error)))
        .watch()
        .unwrap();
    assert!(bench.check(&cx));
    assert!(!registration.is_live());
    assert!(why.borrow().is_some(), "the error is not lost");
    drop(near);
}

/// A stream that counts its events and leaves them unread.
fn once(cx: &Context) -> (aio_context::Registration, Rc<Cell<u32>>, UnixStream) {
    let (near, far) = pair();
    let calls = Rc::new(Cell::new(0));
    let counts = calls.clone();
    let on = cx.on(near).oneshot();
    let on = on.readable(move |_, _| counts.set(counts.get() + 1));
    (on.watch().unwrap(), calls, far)
}

fn r14_one_event_and_then_none_until_rearmed(bench: Bench) {
    let cx = bench.context();
    let (registration, calls, far) = once(&cx);
    assert!(!bench.check(&cx));
    write(&far);
    for round in 1..4 {
        assert!(bench.block(&cx));
        write(&far);
        assert!(!bench.check(&cx) && !bench.check(&cx));
        assert_eq!(calls.get(), round);
        registration.rearm().unwrap();
    }
    assert!(bench.block(&cx));
    cx.set_interest(registration.token(), Interest::READ | Interest::ONESHOT)
        .unwrap();
    assert!(bench.block(&cx));
    assert!(!bench.check(&cx));
    registration.set_interest(Interest::READ).unwrap();
    assert!(
        bench.check(&cx) && bench.check(&cx) && bench.check(&cx),
        "levels again"
    );
    assert_eq!(calls.get(), 8);
}

fn r14_a_rearmed_event_is_not_lost_by_what_happened_meanwhile(bench: Bench) {
    let cx = bench.context();
    let (registration, calls, far) = once(&cx);
    write(&far);
    assert!(bench.block(&cx));
    drop(far);
    assert!(!bench.check(&cx), "a hang-up wakes no handler that sleeps");
    registration.rearm().unwrap();
    assert!(bench.block(&cx));
    assert_eq!(calls.get(), 2);
    assert!(!bench.check(&cx));
}

fn r14_both_directions_belong_to_one_event(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    write(&far);
    let log = Rc::new(RefCell::new(String::new()));
    let (reads, writes) = (log.clone(), log.clone());
    let on = cx.on(near).oneshot();
    let on = on.readable(move |_, _| reads.borrow_mut().push('r'));
    let on = on.writable(move |_, _| writes.borrow_mut().push('w'));
    let _registration = on.watch().unwrap();
    assert!(bench.check(&cx));
    assert!(!bench.check(&cx));
    assert_eq!(*log.borrow(), "rw");
}

/// The rest of the former event is reported together with the event that was armed.
fn r14_armed_between_two_directions_it_gets_one_event(bench: Bench) {
    for before in [Interest::BOTH, Interest::BOTH | Interest::ONESHOT] {
        let cx = bench.context();
        let (near, far) = pair();
        write(&far);
        let writes = Rc::new(Cell::new(0));
        let counts = writes.clone();
        let on = cx.on(near).interest(before).readable(|near, cx| {
            let token = cx.token_of(near).unwrap();
            cx.set_interest(token, Interest::WRITE | Interest::ONESHOT)
                .unwrap();
        });
        let on = on.writable(move |_, _| counts.set(counts.get() + 1));
        let _registration = on.watch().unwrap();
        for _ in 0..4 {
            bench.check(&cx);
        }
        assert_eq!(writes.get(), 1, "armed once, called once");
    }
}

/// Pauses in a bottom half, between the wait and the call.
fn r14_an_event_before_a_pause_is_delivered_once_after_it(bench: Bench) {
    let cx = bench.context();
    let (registration, calls, far) = once(&cx);
    write(&far);
    let paused = Rc::new(Cell::new(None));
    let slot = paused.clone();
    cx.defer(move |cx| slot.set(Some(cx.pause(aio_context::GroupId::DEFAULT))));
    bench.check(&cx);
    bench.check(&cx);
    assert_eq!(calls.get(), 0, "it is paused");
    drop(paused.take());
    bench.check(&cx);
    bench.check(&cx);
    bench.check(&cx);
    assert_eq!(calls.get(), 1);
    registration.rearm().unwrap();
    bench.check(&cx);
    assert_eq!(calls.get(), 2);
}

fn r14_a_delivered_event_stays_delivered_after_a_pause(bench: Bench) {
    let cx = bench.context();
    let (registration, calls, far) = once(&cx);
    write(&far);
    assert!(bench.block(&cx));
    for _ in 0..2 {
        let paused = cx.pause(aio_context::GroupId::DEFAULT);
        write(&far);
        assert!(!bench.check(&cx));
        drop(paused);
        bench.check(&cx);
        bench.check(&cx);
        assert_eq!(calls.get(), 1, "no pause arms it");
    }
    let paused = cx.pause(aio_context::GroupId::DEFAULT);
    registration.rearm().unwrap();
    bench.check(&cx);
    assert_eq!(calls.get(), 1, "it is paused");
    drop(paused);
    bench.check(&cx);
    bench.check(&cx);
    assert_eq!(calls.get(), 2);
}

fn r14_an_event_that_another_callback_rearms_comes_once(bench: Bench) {
    let cx = bench.context();
    let (registration, calls, far) = once(&cx);
    write(&far);
    // The event is found, and the handler is armed again before its call.
    let token = registration.token();
    cx.defer(move |cx| cx.rearm(token).unwrap());
    for _ in 0..4 {
        bench.check(&cx);
    }
    assert_eq!(calls.get(), 1, "armed once, called once");
}

fn r14_a_nested_poll_delivers_the_one_event(bench: Bench) {
    let cx = bench.context();
    let (_registration, calls, far) = once(&cx);
    write(&far);
    // The outer iteration finds the event, and the nested one calls the handler. Then its group is paused.
    let paused = Rc::new(Cell::new(None));
    let slot = paused.clone();
    cx.defer(move |cx| {
        cx.poll(Wait::NoBlock).unwrap();
        slot.set(Some(cx.pause(aio_context::GroupId::DEFAULT)));
    });
    bench.check(&cx);
    assert_eq!(calls.get(), 1);
    drop(paused.take());
    for _ in 0..3 {
        bench.check(&cx);
    }
    assert_eq!(calls.get(), 1, "it had its event");
}

fn r14_a_panic_counts_as_delivery_and_other_events_are_kept(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    write(&far);
    let calls = Rc::new(Cell::new(0));
    let counts = calls.clone();
    let on = cx.on(near).oneshot().readable(move |_, _| {
        counts.set(counts.get() + 1);
        panic!("on purpose");
    });
    let registration = on.watch().unwrap();
    let (_other, others, other_far) = once(&cx);
    let (_third, thirds, third_far) = once(&cx);
    write(&other_far);
    write(&third_far);
    for _ in 0..3 {
        let _ = catch_unwind(AssertUnwindSafe(|| while bench.check(&cx) {}));
    }
    assert_eq!((calls.get(), others.get(), thirds.get()), (1, 1, 1));
    registration.rearm().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| bench.check(&cx)));
    assert!(panicked.is_err() && calls.get() == 2);
}

/// A handler that arms itself again, and polls.
struct Nests(u32);

impl HandlerMut<UnixStream> for Nests {
    fn ready(&mut self, _: &UnixStream, cx: &Context, event: Event) {
        self.0 += 1;
        if self.0 < 3 {
            event.rearm(cx).unwrap();
            cx.poll(Wait::NoBlock).unwrap();
        }
    }
}

fn r14_an_exclusive_handler_may_rearm_itself(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    write(&far);
    let handler = Rc::new(Exclusive::new(near, Nests(0)));
    let registration = cx
        .watch(handler.clone(), Interest::READ | Interest::ONESHOT)
        .unwrap();
    for _ in 0..6 {
        bench.check(&cx);
    }
    assert_eq!(handler.with(|state| state.0), Some(3));
    registration.rearm().unwrap();
    bench.check(&cx);
    assert_eq!(handler.with(|state| state.0), Some(4));
}

fn r14_replacing_arms_again(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let near = Rc::new(near);
    write(&far);
    let calls = Rc::new(Cell::new(0));
    let counts = calls.clone();
    let on = cx.on(near.clone()).oneshot();
    let on = on.readable(move |_, _| counts.set(counts.get() + 1));
    let registration = on.watch().unwrap();
    assert!(bench.check(&cx) && !bench.check(&cx));
    let counts = calls.clone();
    let on = cx.on(near).readable(move |_, _| counts.set(counts.get() + 10));
    registration.replace(on.into_handler()).unwrap();
    assert!(bench.check(&cx) && !bench.check(&cx));
    assert_eq!(calls.get(), 11);
}

fn r14_edges_are_rearmed_in_one_call(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let calls = Rc::new(Cell::new(0));
    let counts = calls.clone();
    let on = cx.on(near).edge();
    let on = on.readable(move |_, _| counts.set(counts.get() + 1));
    let registration = on.watch().unwrap();
    write(&far);
    assert!(bench.block(&cx));
    while cx.reports_edges() && bench.check(&cx) {}
    let before = calls.get();
    for round in 1..4 {
        registration.rearm().unwrap();
        assert!(bench.check(&cx), "there is data left to read");
        assert!(calls.get() >= before + round);
    }
}

fn r14_asleep_while_the_backend_moves(bench: Bench) {
    let cx = bench.context();
    let (registration, calls, far) = once(&cx);
    write(&far);
    assert!(bench.block(&cx));
    // The context climbs, and steps down again.
    let crowd: Vec<_> = (0..100).map(|_| pair()).collect();
    for _ in 0..2 {
        let registrations: Vec<_> = crowd
            .iter()
            .map(|(near, _)| {
                let share = near.try_clone().unwrap();
                cx.on(share).readable(|_, _| {}).watch().unwrap()
            })
            .collect();
        assert!(!bench.check(&cx) && !bench.check(&cx));
        drop(registrations);
        assert!(!bench.check(&cx) && !bench.check(&cx));
    }
    assert_eq!(calls.get(), 1, "no move arms it");
    registration.rearm().unwrap();
    assert!(bench.block(&cx));
    assert_eq!(calls.get(), 2);
}

fn l10_a_closure_ends_itself(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let near = Rc::new(near);
    let on = cx
        .on(near.clone())
        .ready(|near, _, _| match (&**near).read(&mut [0; 8]) {
            Ok(0) => Action::Remove,
            _ => Action::Continue,
        });
    on.watch().unwrap().detach();
    write(&far);
    assert!(bench.block(&cx));
    assert_eq!(Rc::strong_count(&near), 2);
    drop(far);
    assert!(bench.block(&cx));
    assert_eq!(Rc::strong_count(&near), 1, "the closure is gone");
    assert!(!bench.check(&cx));
}

fn l10_a_closure_changes_its_interest(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let log = Log::default();
    let seen = log.clone();
    let on = cx.on(near).ready(move |near, _, event| {
        seen.borrow_mut().push(event.readiness());
        read(near);
        match event.interest() {
            Interest::READ => Action::Interest(Interest::WRITE),
            _ => Action::Interest(Interest::NONE),
        }
    });
    let registration = on.watch().unwrap();
    write(&far);
    while bench.check(&cx) {}
    assert_eq!(*log.borrow(), [Readiness::IN, Readiness::OUT]);
    assert!(registration.is_live());
}

fn l10_a_closure_puts_another_handler_in_its_place(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let near = Rc::new(near);
    let log = Rc::new(RefCell::new(Vec::new()));
    let (opens, owner) = (log.clone(), near.clone());
    let on = cx.on(near).ready(move |near, cx, event| {
        read(near);
        opens.borrow_mut().push("opening");
        let talks = opens.clone();
        let next = cx.on(owner.clone()).ready(move |near, _, _| {
            read(near);
            talks.borrow_mut().push("talk");
        });
        event.replace(cx, next.into_handler(), Interest::READ).unwrap();
    });
    let _registration = on.watch().unwrap();
    for _ in 0..3 {
        write(&far);
        assert!(bench.block(&cx));
    }
    assert_eq!(*log.borrow(), ["opening", "talk", "talk"]);
}

fn l10_on_covers_edge_and_silence(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let calls = Rc::new(Cell::new(0));
    let counts = calls.clone();
    let on = cx.on(near).silent();
    let on = on.readable(move |_, _| counts.set(counts.get() + 1));
    let registration = on.watch().unwrap();
    write(&far);
    assert!(!bench.check(&cx));
    registration.rearm().unwrap();
    assert!(!bench.check(&cx), "there is no interest to arm");
    registration.set_interest(Interest::READ).unwrap();
    assert!(bench.check(&cx));

    let (near, far) = pair();
    let edges = Rc::new(Cell::new(0));
    let counts = edges.clone();
    let on = cx.on(near).edge().readable(move |near, _| {
        read(near);
        counts.set(counts.get() + 1);
    });
    let _edge = on.watch().unwrap();
    drop(registration);
    write(&far);
    assert!(bench.block(&cx));
    assert_eq!((calls.get(), edges.get()), (1, 1));
}

fn l10_on_covers_polling(bench: Bench) {
    let cx = bench.context();
    cx.set_poll_params(PollParams::up_to(std::time::Duration::from_micros(50)));
    assert!(!bench.check(&cx), "setting them interrupts a wait");
    let (near, far) = pair();
    let log = Rc::new(RefCell::new(Vec::new()));
    let work = Rc::new(Cell::new(0));
    let (has_work, begins, ends) = (work.clone(), log.clone(), log.clone());
    let (works, calls) = (work.clone(), log.clone());
    let on = cx
        .on(near)
        .polled(move |_| has_work.get() > 0)
        .poll_begin(move |_| begins.borrow_mut().push("begin"))
        .poll_end(move |_| ends.borrow_mut().push("end"));
    let on = on.ready(move |near, _, event| {
        calls.borrow_mut().push(if event.readiness().is_empty() {
            "work"
        } else {
            "kick"
        });
        read(near);
        works.set(0);
        Action::Continue
    });
    let registration = on.watch().unwrap();
    write(&far);
    assert!(bench.block(&cx));
    assert_eq!(log.borrow().iter().filter(|what| **what == "kick").count(), 1);
    if !bench.foreign {
        // While the loop polls, work needs no kick.
        let mut rounds = 0;
        while !log.borrow().contains(&"work") && rounds < 1000 {
            write(&far);
            work.set(1);
            bench.block(&cx);
            rounds += 1;
        }
        assert!(log.borrow().contains(&"work") && log.borrow().contains(&"begin"));
    }
    drop(registration);
    let log = log.borrow();
    let count = |which| log.iter().filter(|what| **what == which).count();
    assert_eq!(count("begin"), count("end"));
}

/// A handler that removes itself by its token when it has work.
struct Polls(UnixStream);

impl AsFd for Polls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Handler for Polls {
    fn readable(&self, cx: &Context) {
        assert!(cx.unwatch(cx.token_of(self).unwrap()));
    }
}

impl aio_context::Pollable for Polls {
    fn poll(&self) -> bool {
        false
    }
}

fn l10_a_polled_handler_reaches_its_registration_by_its_number(bench: Bench) {
    let cx = bench.context();
    let (near, far) = pair();
    let handler = Rc::new(Polls(near));
    assert_eq!(cx.token_of(&*handler), None);
    let registration = cx.watch(Polled(handler.clone()), Interest::READ).unwrap();
    assert_eq!(cx.token_of(&*handler), Some(registration.token()));
    write(&far);
    assert!(bench.block(&cx));
    assert!(!registration.is_live());
    assert_eq!(Rc::strong_count(&handler), 1);
}
