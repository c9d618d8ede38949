//! Rule R3: one handler for each descriptor number, and its replacement.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{
    Backend, Context, Exclusive, GroupId, Handler, HandlerMut, Interest, NotTaken, PollParams, Pollable,
    Polled, Refused, Wait,
};

use crate::common::{Bench, Count, Kick, Number, Twin, everywhere, watch, watch_polled};

everywhere! {
    r3_a_number_has_one_handler_and_the_second_comes_back
    r3_every_way_to_watch_gives_the_handler_back
    r3_a_closed_number_is_refused_by_every_backend_with_the_same_error
    r3_replacing_takes_effect_between_two_callbacks
    r3_replacing_by_number_changes_handler_and_interest_at_once
    r3_replacing_by_number_needs_a_handler_that_is_there
    r3_replacing_from_its_own_callback
    r3_the_successor_of_a_running_handler_is_called_meanwhile
    r3_a_running_handler_that_replaces_itself_by_itself_is_not_entered
    r3_a_replacement_may_begin_or_end_an_interest
    r3_r6_replacing_by_number_keeps_begin_and_end_balanced
    l6_a_closed_number_cannot_be_waited_for_again
}

fn r3_a_number_has_one_handler_and_the_second_comes_back(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let first = watch(&cx, &kick);
    let second = Rc::new(Twin(kick.clone(), Kick::new()));
    let before = cx.remote().wakeups();
    let refused = cx.watch(second.clone(), Interest::READ).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
    assert!(refused.to_string().contains("replace"), "{refused}");
    assert!(Rc::ptr_eq(&refused.into_inner(), &second));
    assert_eq!((Rc::strong_count(&second), cx.remote().wakeups()), (1, before));
    assert!(first.is_live());
    kick.kick();
    assert!(
        bench.block(&cx) && kick.count.get() == 1,
        "the first one is still there"
    );
    drop(first);
    let _second = cx.watch(second, Interest::READ).unwrap();
}

fn r3_every_way_to_watch_gives_the_handler_back(bench: Bench) {
    fn comes_back<H, R, T>(handler: &Rc<H>, result: Result<T, NotTaken<R>>, take: impl Fn(R) -> Rc<H>) {
        let (back, why) = result.err().unwrap().into_parts();
        let back = take(back);
        assert!(Rc::ptr_eq(&back, handler) && why.kind() == io::ErrorKind::AlreadyExists);
        drop(back);
        assert_eq!(Rc::strong_count(handler), 1, "nothing else keeps it");
    }
    let cx = bench.context();
    let (kick, group) = (Kick::new(), cx.new_group());
    let _first = watch(&cx, &kick);
    let twin = Rc::new(Twin(kick.clone(), Kick::new()));
    comes_back(&twin, cx.watch(twin.clone(), Interest::READ), |back| back);
    comes_back(&twin, cx.watch_in(group, twin.clone(), Interest::NONE), |back| {
        back
    });
    let polled = || Polled(twin.clone());
    comes_back(&twin, cx.watch(polled(), Interest::NONE), |back| back.0);
    comes_back(&twin, cx.watch_in(group, polled(), Interest::READ), |back| back.0);

    let calls = Count::default();
    let counted = calls.clone();
    let on = cx.on(kick.clone()).readable(move |kick, _| {
        kick.clear();
        counted.up();
    });
    let closures = on.watch().unwrap_err().into_inner();
    assert!(Rc::ptr_eq(closures.owner(), &kick));
    let token = cx.replace(closures.clone(), closures.interest()).unwrap();
    kick.kick();
    assert!(bench.block(&cx));
    assert_eq!((calls.get(), kick.count.get()), (1, 0));
    assert!(cx.unwatch(token));
    let owner = Rc::into_inner(closures).unwrap().into_owner();
    assert!(Rc::ptr_eq(&owner, &kick));
}

/// Asserts that `why` is the refusal of a closed number: the system's error, and the same text everywhere, which is returned.
fn is_refused_as_closed(why: &io::Error) -> String {
    let refused = why.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
    let refused = refused.unwrap_or_else(|| panic!("{why}"));
    assert_eq!(refused.source.raw_os_error(), Some(9), "EBADF");
    let number = refused.descriptor.unwrap().to_string();
    let text = why.to_string();
    assert!(text.contains(&number) && text.contains("keeps it open"), "{text}");
    text.replace(&number, "N")
}

fn r3_a_closed_number_is_refused_by_every_backend_with_the_same_error(bench: Bench) {
    let cx = bench.context();
    let refused = |cx: &Context, interest| {
        let number = Number::closed();
        let refused = cx.watch(number.clone(), interest).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(9));
        let (back, why) = refused.into_parts();
        assert!(Rc::ptr_eq(&back, &number));
        is_refused_as_closed(&why)
    };
    let usual = refused(&Context::new().unwrap(), Interest::READ);
    let all = [
        Interest::READ,
        Interest::WRITE,
        Interest::BOTH,
        Interest::READ | Interest::EDGE,
        Interest::NONE,
    ];
    for interest in all {
        assert_eq!(refused(&cx, interest), usual, "{interest:?}");
    }
    // Each backend moves to epoll.
    drop(cx.embed().unwrap());
    assert_eq!(refused(&cx, Interest::READ), usual, "embedded");
    let kick = Kick::new();
    let _kick = watch(&cx, &kick);
    kick.kick();
    assert!(
        bench.block(&cx) && kick.count.get() == 1,
        "nothing is left of them"
    );
    assert_eq!(cx.anomalies(), (0, 0));
}

/// A number that no process can have is refused, with an interest and without one.
#[test]
fn r3_the_highest_number_is_refused_too() {
    struct Highest;
    impl AsFd for Highest {
        fn as_fd(&self) -> BorrowedFd<'_> {
            // SAFETY: the number is not open, which is the case under test. Nothing is read, written or closed through it.
            unsafe { BorrowedFd::borrow_raw(i32::MAX) }
        }
    }
    impl Handler for Highest {}
    let backends: [Box<dyn Backend>; 3] = [
        Box::new(Ppoll::new()),
        Box::new(Epoll::new().unwrap()),
        Box::new(Ladder::new(Ppoll::new(), Epoll::new, 0)),
    ];
    for backend in backends {
        let cx = Context::builder().backend(backend).build().unwrap();
        for interest in [Interest::READ, Interest::NONE] {
            let why = cx.watch(Rc::new(Highest), interest).unwrap_err().into();
            is_refused_as_closed(&why);
        }
    }
}

fn r3_replacing_takes_effect_between_two_callbacks(bench: Bench) {
    struct Named(Rc<Kick>, &'static str, Rc<RefCell<Vec<&'static str>>>);
    impl AsFd for Named {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl Handler for Named {
        fn readable(&self, _: &Context) {
            self.0.clear();
            self.2.borrow_mut().push(self.1);
        }
    }
    let (cx, kick, log) = (bench.context(), Kick::new(), Rc::default());
    let registration = cx
        .watch(
            Rc::new(Named(kick.clone(), "old", Rc::clone(&log))),
            Interest::READ,
        )
        .unwrap();
    kick.kick();
    assert!(bench.block(&cx));
    kick.kick();
    registration
        .replace(Rc::new(Named(kick.clone(), "new", Rc::clone(&log))))
        .unwrap();
    assert!(bench.block(&cx));
    assert_eq!(*log.borrow(), ["old", "new"]);
    let other = Kick::new();
    assert_eq!(
        registration.replace(other).unwrap_err().kind(),
        std::io::ErrorKind::InvalidInput
    );
    kick.kick();
    assert!(bench.block(&cx), "a refused replacement changes nothing");
}

/// Records its calls, and clears its eventfd.
struct Named(Rc<Kick>, &'static str, Rc<RefCell<Vec<String>>>);

impl Named {
    fn record(&self, what: &str) {
        self.2.borrow_mut().push(format!("{} {what}", self.1));
    }
}

impl AsFd for Named {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Handler for Named {
    fn readable(&self, _: &Context) {
        self.0.clear();
        self.record("readable");
    }
    fn writable(&self, _: &Context) {
        self.record("writable");
    }
}

fn r3_replacing_by_number_changes_handler_and_interest_at_once(bench: Bench) {
    let (cx, kick, log) = (bench.context(), Kick::new(), Rc::default());
    let named = |name| Rc::new(Named(kick.clone(), name, Rc::clone(&log)));
    let registration = cx.watch(named("first"), Interest::READ).unwrap();
    kick.kick();
    let token = cx.replace(named("second"), Interest::WRITE).unwrap();
    assert!(token == registration.token() && registration.is_live());
    assert!(bench.block(&cx));
    assert_eq!(log.take(), ["second writable"]);
    registration.replace_with(named("third"), Interest::BOTH).unwrap();
    assert!(bench.block(&cx));
    assert_eq!(log.take(), ["third readable", "third writable"]);
    registration.replace(named("fourth")).unwrap();
    kick.kick();
    assert!(bench.block(&cx));
    assert_eq!(
        log.take(),
        ["fourth readable", "fourth writable"],
        "the interest stays"
    );
    drop(registration);
    assert!(!bench.check(&cx), "the owner of the registration ends it");
}

fn r3_replacing_by_number_needs_a_handler_that_is_there(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let refused = cx.replace(kick.clone(), Interest::READ).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    assert!(Rc::ptr_eq(&refused.into_inner(), &kick));
    let refused = cx.replace(Polled(kick.clone()), Interest::READ).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    drop(refused);
    let registration = watch(&cx, &kick);
    assert!(cx.unwatch(registration.token()));
    let refused = registration
        .replace_with(kick.clone(), Interest::READ)
        .unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    drop(refused);
    assert_eq!(Rc::strong_count(&kick), 1);
    kick.kick();
    assert!(!bench.check(&cx) && kick.count.get() == 0);
}

fn r3_replacing_from_its_own_callback(bench: Bench) {
    let (cx, log) = (bench.context(), Rc::<RefCell<Vec<String>>>::default());
    let heard = log.clone();
    let kick = Kick::with(move |_, _| heard.borrow_mut().push("first ends".into()));
    let (entries, heir) = (log.clone(), kick.clone());
    *kick.on_ready.borrow_mut() = Some(Rc::new(move |_, cx| {
        let second = Rc::new(Named(heir.clone(), "second", entries.clone()));
        cx.replace(second, Interest::BOTH).unwrap();
        entries.borrow_mut().push("first goes on".into());
    }));
    let _registration = cx.watch(kick.clone(), Interest::READ).unwrap();
    kick.kick();
    assert!(bench.block(&cx));
    assert_eq!(log.take(), ["first goes on"], "nothing more in this iteration");
    assert!(bench.block(&cx));
    assert_eq!(log.take(), ["second writable"]);
    kick.on_ready.take();
}

fn r3_the_successor_of_a_running_handler_is_called_meanwhile(bench: Bench) {
    /// Replaced, while it runs, by its own descriptor's owner.
    struct Predecessor;
    impl HandlerMut<Rc<Kick>> for Predecessor {
        fn readable(&mut self, kick: &Rc<Kick>, cx: &Context) {
            cx.replace(kick.clone(), Interest::READ).unwrap();
            assert!(cx.poll(Wait::Block).unwrap());
            assert_eq!(kick.count.get(), 1, "the next event is the successor's");
        }
    }
    let (cx, kick) = (bench.context(), Kick::new());
    let first = Rc::new(Exclusive::new(kick.clone(), Predecessor));
    let registration = cx.watch(first, Interest::READ).unwrap();
    kick.kick();
    assert!(bench.block(&cx));
    kick.kick();
    assert!(bench.block(&cx) && registration.is_live());
    assert_eq!(kick.count.get(), 2, "and all later ones");
    assert!(!bench.check(&cx));
}

fn r3_a_running_handler_that_replaces_itself_by_itself_is_not_entered(bench: Bench) {
    struct Again(u32, Weak<Exclusive<Rc<Kick>, Again>>);
    impl HandlerMut<Rc<Kick>> for Again {
        fn readable(&mut self, kick: &Rc<Kick>, cx: &Context) {
            self.0 += 1;
            kick.clear();
            if self.0 == 1 {
                cx.replace(self.1.upgrade().unwrap(), Interest::READ).unwrap();
                kick.kick();
                let nested = cx.poll(Wait::AtMost(Duration::from_nanos(1)));
                assert!(!nested.unwrap(), "its event waits");
            }
        }
    }
    let (cx, kick) = (bench.context(), Kick::new());
    let handler = Rc::new_cyclic(|own: &Weak<_>| Exclusive::new(kick.clone(), Again(0, own.clone())));
    let _registration = cx.watch(handler.clone(), Interest::READ).unwrap();
    kick.kick();
    for calls in 1..=2 {
        assert!(bench.block(&cx));
        assert_eq!(handler.with(|again| again.0), Some(calls));
    }
    assert!(!bench.check(&cx));
}

fn r3_a_replacement_may_begin_or_end_an_interest(bench: Bench) {
    let (cx, kick) = (bench.context(), Kick::new());
    let registration = cx.watch(kick.clone(), Interest::NONE).unwrap();
    kick.kick();
    assert!(!bench.check(&cx));
    registration.replace_with(kick.clone(), Interest::READ).unwrap();
    assert!(bench.block(&cx) && kick.count.get() == 1);
    kick.kick();
    registration.replace_with(kick.clone(), Interest::NONE).unwrap();
    assert!(!bench.check(&cx));
    registration
        .replace_with(Polled(kick.clone()), Interest::READ)
        .unwrap();
    assert!(bench.block(&cx) && kick.count.get() == 2);
    // In a paused group: after the pause the new interest is in force.
    let pause = cx.pause(GroupId::DEFAULT);
    kick.kick();
    assert!(!bench.check(&cx), "its first event masks it");
    registration.replace_with(kick.clone(), Interest::NONE).unwrap();
    drop(pause);
    assert!(!bench.check(&cx));
    registration.set_interest(Interest::READ).unwrap();
    assert!(bench.block(&cx) && kick.count.get() == 3);
}

fn r3_r6_replacing_by_number_keeps_begin_and_end_balanced(bench: Bench) {
    let builder = bench.builder().policy(Box::new(crate::polling::Always));
    let cx = builder.build().unwrap();
    if bench.foreign {
        return; // a foreign loop does not poll
    }
    cx.set_poll_params(PollParams::up_to(Duration::from_millis(1)));
    let (kick, second) = (Kick::new(), Kick::new());
    kick.has_work.set(Some(true));
    let registration = watch_polled(&cx, &kick);
    assert!(bench.block(&cx));
    let twin = Rc::new(Twin(kick.clone(), second.clone()));
    assert_eq!(
        cx.replace(Polled(twin), Interest::READ).unwrap(),
        registration.token()
    );
    assert_eq!(*kick.log.borrow(), ["begin", "poll_ready", "end"]);
    second.has_work.set(Some(true));
    assert!(bench.block(&cx));
    assert!(second.poll());
    drop(registration);
    assert_eq!(*second.log.borrow(), ["begin", "poll_ready", "end"]);
}

/// The number was registered while it was open, was closed without removal, and then gets an interest again.
fn l6_a_closed_number_cannot_be_waited_for_again(bench: Bench) {
    let (cx, number) = (bench.context(), Number::new());
    let registration = cx.watch(number.clone(), Interest::READ).unwrap();
    number.kick();
    assert!(bench.block(&cx));
    registration.set_interest(Interest::NONE).unwrap();
    number.close();
    assert!(
        !bench.check(&cx) && number.errors.borrow().is_empty(),
        "it is silent"
    );
    let why = registration.set_interest(Interest::READ).unwrap_err();
    is_refused_as_closed(&why);
    assert!(
        registration.is_live() && !bench.check(&cx),
        "the former interest stays"
    );
    registration.set_interest(Interest::NONE).unwrap();
    let (back, why) = registration
        .replace_with(number.clone(), Interest::READ)
        .unwrap_err()
        .into_parts();
    is_refused_as_closed(&why);
    drop(back);
    // A paused handler is invalidated when the pause ends.
    let number = Number::new();
    let registration = cx.watch(number.clone(), Interest::READ).unwrap();
    let pause = cx.pause(GroupId::DEFAULT);
    number.kick();
    assert!(!bench.check(&cx), "its first event masks it");
    number.close();
    drop(pause);
    assert!(!registration.is_live());
    let errors = number.errors.take();
    assert!(
        matches!(&errors[..], [why] if why.contains("closed while it was registered")),
        "{errors:?}"
    );
}

/// A number that was closed without removal cannot move to the backend for a foreign loop.
#[test]
fn l6_embedding_with_a_closed_number_names_a_remedy_and_works_once_it_is_detected() {
    let (cx, number) = (Context::new().unwrap(), Number::new());
    let registration = cx.watch(number.clone(), Interest::READ).unwrap();
    number.close();
    let why = cx.embed().unwrap_err();
    let refused = why
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Refused>())
        .unwrap();
    assert_eq!(refused.source.raw_os_error(), Some(9));
    assert!(why.to_string().contains("poll"), "{why}");
    cx.poll(Wait::NoBlock).unwrap();
    assert!(!registration.is_live() && number.errors.borrow().len() == 1);
    drop(cx.embed().unwrap());
    assert_eq!(cx.backend_name(), "epoll");
    drop(cx.embed().unwrap());
}
