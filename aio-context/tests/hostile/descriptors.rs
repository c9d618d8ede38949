//! Cases 1 to 12 and 22: descriptor numbers, their owners and their files.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::thread;

use aio_backend::conformance::disturb::Number;
use aio_context::{Context, Interest, Polled, Refused, Registration, WatchError};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::common::{Bench, Count, Kick, everywhere, watch};
use crate::fixtures::{MOMENT, Tap, assert_sleeps, counted, feed, pipe};
use crate::process::each_in_a_process;

everywhere! {
    case_01_closed_while_it_is_registered
    case_02_closed_while_a_twin_keeps_its_file_alive
    case_05_two_numbers_of_one_file
    case_06_a_file_that_epoll_refuses_is_always_ready
    case_07_the_same_number_twice
    case_08_removing_an_unknown_handler
    case_09_a_number_that_is_not_open
    case_10_a_loop_that_watches_itself
    case_11_epoll_sets_inside_epoll_sets
    case_12_polled_only_and_then_watched
    case_22_another_ready_one_is_removed_or_closed_by_a_callback
}

fn errno<H>(result: Result<Registration, WatchError<H>>) -> Option<i32> {
    result.err().and_then(|why| why.raw_os_error())
}

/// Returns the system's error below the context's error.
fn refused(why: &io::Error) -> Option<i32> {
    let refused = why.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
    refused.and_then(|refused| refused.source.raw_os_error())
}

const EBADF: i32 = 9;
const EINVAL: i32 = 22;
const ELOOP: i32 = 40;

/// Asserts that the context waits without events, and that an event wakes it.
fn goes_on(bench: Bench, cx: &Context) {
    let kick = Kick::new();
    let _registration = watch(cx, &kick);
    assert!(!bench.check(cx));
    kick.kick();
    assert!(bench.block(cx) && kick.count.get() == 1);
}

/// Rule R4. The kernel reports a closed number to `ppoll` at once. It never reports it to `epoll`: there the registration has no events
/// until it is changed, and is invalidated then.
fn case_01_closed_while_it_is_registered(bench: Bench) {
    let (builder, calls) = counted(bench);
    let cx = builder.build().unwrap();
    let (reader, _writer) = pipe();
    let tap = Tap::new(Number::of(reader));
    let registration = cx.watch(tap.clone(), Interest::READ).unwrap();
    assert!(!bench.poll(&cx, MOMENT));
    tap.fd.close();
    let is_detected = cx.backend_name() == "ppoll";
    assert_eq!(
        bench.poll(&cx, MOMENT),
        is_detected,
        "D4: an invalidation is progress"
    );
    let (met, live) = (tap.met(), registration.is_live());
    if is_detected {
        assert_eq!((met, live), (vec!["broken".to_owned()], false), "once");
    } else {
        assert_eq!((met.len(), live), (0, true));
        let why = registration.set_interest(Interest::BOTH).unwrap_err();
        assert_eq!(refused(&why), Some(EBADF));
    }
    (0..3).for_each(|_| assert_sleeps(bench, &cx, &calls));
    assert!(tap.met().is_empty());
    drop(registration);
    goes_on(bench, &cx);
}

/// Rule R2. On epoll such a number still has events. While it is registered, its handler gets them, and an error when it reads.
/// Afterwards they are dropped.
fn case_02_closed_while_a_twin_keeps_its_file_alive(bench: Bench) {
    let (builder, calls) = counted(bench);
    let cx = builder.build().unwrap();
    let (reader, writer) = pipe();
    let tap = Tap::new(Number::of(&reader));
    let registration = cx.watch(tap.clone(), Interest::READ).unwrap();
    assert!(!bench.poll(&cx, MOMENT));
    feed(&writer);
    tap.fd.close();
    // A ring verifies each completion by the number.
    let is_detected = ["ppoll", "uring"].contains(&cx.backend_name());
    bench.poll(&cx, MOMENT);
    let met = tap.met();
    if is_detected {
        assert_eq!(met, ["broken"]);
    } else {
        assert_eq!(met, ["readable", "Bad file descriptor (os error 9)"]);
    }
    drop(registration);
    // The first check detects it.
    assert!(!bench.check(&cx));
    (0..3).for_each(|_| assert_sleeps(bench, &cx, &calls));
    assert!(tap.met().is_empty());
    goes_on(bench, &cx);
}

/// Opens another file with this number, which must be free.
fn reopened(number: i32, file: &OwnedFd) -> OwnedFd {
    let again = rustix::io::fcntl_dupfd_cloexec(file, number).unwrap();
    assert_eq!(again.as_raw_fd(), number);
    again
}

/// Rule R2.
#[test]
fn case_03_closed_and_used_again() {
    let name = concat!(module_path!(), "::case_03_closed_and_used_again");
    each_in_a_process(name, |bench| {
        let cx = bench.context();
        let (first, first_writer) = pipe();
        let former = Tap::new(Number::of(&first));
        let registration = cx.watch(former.clone(), Interest::READ).unwrap();
        bench.poll(&cx, MOMENT);
        feed(&first_writer);
        let number = former.as_fd().as_raw_fd();
        former.fd.close();
        let (second, second_writer) = pipe();
        let latter = Tap::new(reopened(number, &second));
        // The former handler occupies the number until it is replaced.
        let refused = cx.watch(latter.clone(), Interest::READ).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        let token = cx.replace(refused.into_inner(), Interest::READ).unwrap();
        assert_eq!(token, registration.token());
        for _ in 0..3 {
            assert!(!bench.poll(&cx, MOMENT), "events of the former file are dropped");
        }
        assert!(former.met().is_empty() && latter.met().is_empty());
        feed(&second_writer);
        assert!(bench.block(&cx));
        assert_eq!((latter.met().len(), latter.bytes.get()), (1, 1));
        assert!(registration.is_live());
        assert!(!bench.poll(&cx, MOMENT));
    });
}

/// A number that another owner closes.
struct Lent(ManuallyDrop<OwnedFd>);

impl AsFd for Lent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Rule R2. Bottom halves run between the wait and the dispatch. In one of them another thread closes a ready number,
/// which is then used again.
#[test]
fn case_04_used_again_between_the_wait_and_the_dispatch() {
    let name = concat!(
        module_path!(),
        "::case_04_used_again_between_the_wait_and_the_dispatch"
    );
    each_in_a_process(name, |bench| {
        let cx = bench.context();
        let (first, first_writer) = pipe();
        let former = Tap::new(Lent(ManuallyDrop::new(first.try_clone().unwrap())));
        let registration = cx.watch(former.clone(), Interest::READ).unwrap();
        let number = former.as_fd().as_raw_fd();
        bench.poll(&cx, MOMENT);
        let (second, second_writer) = pipe();
        let latter = Rc::new(RefCell::new(None));
        let slot = latter.clone();
        let bh = cx.bottom_half("between", move |cx| {
            let second = second.try_clone().unwrap();
            let other = thread::spawn(move || {
                nix::unistd::close(number).unwrap();
                reopened(number, &second)
            });
            let tap = Tap::new(other.join().unwrap());
            cx.replace(tap.clone(), Interest::READ).unwrap();
            *slot.borrow_mut() = Some(tap);
        });
        feed(&first_writer);
        bh.schedule();
        assert!(bench.block(&cx));
        let tap = latter.take().unwrap();
        assert!(registration.is_live());
        assert!(
            former.met().is_empty() && tap.met().is_empty(),
            "the event is stale"
        );
        assert!(!bench.poll(&cx, MOMENT));
        feed(&second_writer);
        assert!(bench.block(&cx));
        assert_eq!((former.met().len(), tap.met()), (0, vec!["readable".to_owned()]));
    });
}

/// Rule R2: a registration belongs to the number, not to the file.
fn case_05_two_numbers_of_one_file(bench: Bench) {
    let (cx, counts) = (bench.context(), [Count::default(), Count::default()]);
    let kick = Kick::new();
    let _registrations = counts.clone().map(|count| {
        let watched = cx.on(kick.writer()).readable(move |_, _| {
            count.up();
        });
        watched.watch().unwrap()
    });
    assert!(!bench.check(&cx));
    kick.kick();
    for calls in 1..=3 {
        assert!(bench.block(&cx));
        assert_eq!(counts.each_ref().map(Count::get), [calls, calls]);
    }
    kick.clear();
    assert!(!bench.check(&cx));
}

/// Rule B4, while the ladder goes up and down.
fn case_06_a_file_that_epoll_refuses_is_always_ready(bench: Bench) {
    let cx = bench.context();
    let counts = [Count::default(), Count::default()];
    let null = std::fs::File::open("/dev/null").unwrap();
    let files = [null, tempfile::tempfile().unwrap()];
    let _files: Vec<_> = files
        .into_iter()
        .zip(counts.clone())
        .map(|(file, count)| {
            let watched = cx.on(file).readable(move |_, _| {
                count.up();
            });
            watched.watch().unwrap()
        })
        .collect();
    let mut polls = 0;
    for round in 1..=3 {
        let kicks: Vec<_> = (0..70).map(|_| Kick::new()).collect();
        let _registrations: Vec<_> = kicks.iter().map(|kick| watch(&cx, kick)).collect();
        kicks.iter().for_each(|kick| kick.kick());
        // Two batches serve all handlers.
        for _ in 0..3 {
            polls += 1;
            assert!(bench.block(&cx));
        }
        let served = kicks.iter().filter(|kick| kick.count.get() == 1).count();
        assert_eq!(served, 70, "round {round}");
        assert!(kicks.iter().all(|kick| !kick.is_set()));
    }
    for count in &counts {
        assert!((3..=polls).contains(&count.get()), "{} of {polls}", count.get());
    }
}

/// Rules R2 and R3: the first handler is registered, the others are returned, and one event causes one call.
fn case_07_the_same_number_twice(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let shares = Rc::strong_count(&kick);
    let first = watch(&cx, &kick);
    let others = [(); 2].map(|()| cx.watch(kick.clone(), Interest::READ).unwrap_err());
    for refused in others {
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert!(Rc::ptr_eq(&refused.into_inner(), &kick));
    }
    kick.kick();
    assert!(bench.block(&cx));
    assert_eq!((kick.count.get(), kick.log.borrow().len()), (1, 1));
    kick.kick();
    assert!(bench.block(&cx) && kick.count.get() == 2);
    drop(first);
    assert_eq!(Rc::strong_count(&kick), shares);
    goes_on(bench, &cx);
}

/// Rule R3: the removal makes no system call and no wake-up.
fn case_08_removing_an_unknown_handler(bench: Bench) {
    let (builder, calls) = counted(bench);
    let (cx, other) = (builder.build().unwrap(), bench.context());
    let kicks = [Kick::new(), Kick::new(), Kick::new()];
    let gone = watch(&cx, &kicks[0]).detach();
    assert!(cx.unwatch(gone));
    let elsewhere: Vec<_> = (0..9).map(|_| watch(&other, &Kick::new()).detach()).collect();
    let replaced = watch(&cx, &kicks[1]);
    assert!(cx.unwatch(replaced.token()));
    let _live = watch(&cx, &kicks[1]);
    assert!(!bench.check(&cx));
    let before = (calls.changes(), cx.remote().wakeups());
    assert!(!cx.unwatch(gone));
    assert!(elsewhere[2..].iter().all(|token| !cx.unwatch(*token)));
    drop(replaced);
    assert!(!cx.unwatch(gone));
    assert_eq!((calls.changes(), cx.remote().wakeups()), before);
    goes_on(bench, &cx);
}

/// Rules R3 and R4. (-1 is no `BorrowedFd`; `aio-handlers/src/index.rs` has the largest numbers.)
fn case_09_a_number_that_is_not_open(bench: Bench) {
    let cx = bench.context();
    let (reader, writer) = pipe();
    let tap = Tap::new(Number::of(&reader));
    tap.fd.close();
    assert_eq!(errno(cx.watch(tap.clone(), Interest::READ)), Some(EBADF));
    assert!(format!("{cx:?}").contains("handlers: Some(0)"), "{cx:?}");
    assert_eq!(Rc::strong_count(&tap), 1, "it was not kept");
    assert!(!bench.poll(&cx, MOMENT) && tap.met().is_empty());
    // The refused number does not prevent the next registration.
    let open = Tap::new(reader);
    let _registration = cx.watch(open.clone(), Interest::READ).unwrap();
    feed(&writer);
    assert!(bench.block(&cx) && open.bytes.get() == 1);
    goes_on(bench, &cx);
}

/// Rule G2: a loop cannot watch its own pollable descriptor, and two loops cannot watch each other.
fn case_10_a_loop_that_watches_itself(bench: Bench) {
    let (cx, other) = (bench.context(), bench.context());
    let stands_for = |cx: &Context| {
        let embedded = cx.embed().unwrap();
        embedded.as_fd().try_clone_to_owned().unwrap()
    };
    let refused = errno(cx.on(stands_for(&cx)).readable(|_, _| unreachable!()).watch());
    assert!(matches!(refused, Some(EINVAL | ELOOP)), "{refused:?}");
    let heard = Count::default();
    let counted = heard.clone();
    let inner = other.clone();
    let of_other = cx.on(stands_for(&other)).readable(move |_, _| {
        counted.up();
        assert!(bench.check(&inner));
    });
    let _of_other = of_other.watch().unwrap();
    let around = other.on(stands_for(&cx)).readable(|_, _| unreachable!());
    assert_eq!(errno(around.watch()), Some(ELOOP));
    let kick = Kick::new();
    let _registration = watch(&other, &kick);
    kick.kick();
    assert!(bench.block(&cx));
    assert_eq!((kick.count.get(), heard.get()), (1, 1));
    goes_on(bench, &other);
    goes_on(bench, &cx);
}

/// Returns as many nested sets as the system allows, the innermost first.
fn nested_sets(innermost: &Kick) -> Vec<OwnedFd> {
    let mut sets: Vec<OwnedFd> = Vec::new();
    loop {
        let set = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let inner = sets.last().map_or(innermost.as_fd(), AsFd::as_fd);
        if epoll::add(&set, inner, EventData::new_u64(0), EventFlags::IN).is_err() {
            return sets;
        }
        sets.push(set);
    }
}

/// Rule B4: the system allows five levels. Our own set takes one, and its pollable descriptor another one.
fn case_11_epoll_sets_inside_epoll_sets(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    // A foreign loop's wait moves the context to epoll.
    bench.poll(&cx, MOMENT);
    let sets = nested_sets(&kick);
    assert!((3..=6).contains(&sets.len()), "{}", sets.len());
    for (depth, set) in (1..).zip(&sets) {
        let heard = Count::default();
        let counted = heard.clone();
        let watched = cx.on(set.try_clone().unwrap()).readable(move |_, _| {
            counted.up();
        });
        match watched.watch() {
            Ok(_registration) => {
                assert!(!bench.check(&cx));
                kick.kick();
                assert!(bench.block(&cx) && heard.get() == 1, "depth {depth}");
                kick.clear();
                assert!(!bench.check(&cx));
            }
            Err(why) => {
                assert!(matches!(why.raw_os_error(), Some(EINVAL | ELOOP)), "{why}");
                let allowed = if bench.foreign { 3 } else { 4 };
                assert!(cx.backend_name() == "epoll" && depth > allowed, "depth {depth}");
            }
        }
        goes_on(bench, &cx);
    }
}

/// Rule R1: a registration that the backend does not have yet is added, not modified.
fn case_12_polled_only_and_then_watched(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let registration = cx.watch(Polled(kick.clone()), Interest::NONE).unwrap();
    kick.kick();
    assert!(!bench.check(&cx));
    for rounds in 1..=2 {
        registration.set_interest(Interest::READ).unwrap();
        assert!(bench.block(&cx) && kick.count.get() == rounds);
        registration.set_interest(Interest::NONE).unwrap();
        kick.kick();
        assert!(!bench.check(&cx));
    }
    registration.set_interest(Interest::READ).unwrap();
    assert!(bench.block(&cx) && !bench.check(&cx));
    goes_on(bench, &cx);
}

/// Rule R9: a removed handler is not called. A handler whose number is only closed is called, and reads `EBADF`.
fn case_22_another_ready_one_is_removed_or_closed_by_a_callback(bench: Bench) {
    for is_removed in [true, false] {
        let cx = bench.context();
        let pipes = [pipe(), pipe()];
        let taps = pipes.each_ref().map(|(reader, _)| Tap::new(Number::of(reader)));
        let slots = Rc::new(RefCell::new(Vec::new()));
        let first = Rc::new(Cell::new(None));
        // The handler that is called first removes or closes the other one.
        for which in 0..2 {
            let (own, other) = (taps[which].clone(), taps[1 - which].clone());
            let (slots, first) = (slots.clone(), first.clone());
            let all = slots.clone();
            let watched = cx.on(own.clone()).readable(move |tap, cx| {
                aio_context::Handler::readable(&**tap, cx);
                if first.get().is_some() {
                    return;
                }
                first.set(Some(which));
                if is_removed {
                    let removed = slots.borrow_mut().remove(1 - which);
                    drop(removed);
                } else {
                    other.fd.close();
                }
            });
            all.borrow_mut().push(watched.watch().unwrap());
        }
        bench.poll(&cx, MOMENT);
        pipes.iter().for_each(|(_, writer)| feed(writer));
        assert!(bench.block(&cx));
        let which = first.get().unwrap();
        assert_eq!(taps[which].met(), ["readable"]);
        let met = taps[1 - which].met();
        if is_removed {
            assert!(met.is_empty(), "{met:?}");
        } else {
            assert_eq!(met, ["readable", "Bad file descriptor (os error 9)"]);
        }
        let removed = slots.take();
        drop(removed);
        goes_on(bench, &cx);
    }
}
