//! Cases 33 to 35 and 44: panics at every place where the loop calls foreign code, and balanced begins and ends.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use aio_backend::conformance::disturb::Number;
use aio_context::{
    ClockId, Context, Handler, Interest, Paused, PollParams, Pollable, Polled, Registration, Wait,
    WeakContext,
};

use crate::check::check;
use crate::common::{Bench, Count, Kick, everywhere, watch};
use crate::fixtures::{MOMENT, always, disturbed, feed, is_balanced, keeps, pipe, polling, scaled};
use crate::process::to_its_death;

everywhere! {
    case_33_a_panic_at_each_site
    case_34_a_panic_three_polls_deep
    case_44_begin_and_end_in_pairs_whatever_happens
}

/// The payload of a callback that panics on purpose.
struct OnPurpose;

/// A wait that may sleep, for a very short time.
const INSTANT: Wait = Wait::AtMost(Duration::from_micros(60));

/// A handler that panics at one site, once, or polls there.
struct Bomb {
    fd: Rc<dyn AsFd>,
    site: Cell<&'static str>,
    /// Set if it polls instead.
    nests: Option<(Bench, WeakContext)>,
    log: RefCell<Vec<&'static str>>,
    /// The result of `poll`.
    has_work: Cell<bool>,
}

impl Bomb {
    fn new(fd: impl AsFd + 'static, site: &'static str) -> Rc<Self> {
        Rc::new(Self {
            fd: Rc::new(fd),
            site: Cell::new(site),
            nests: None,
            log: RefCell::default(),
            has_work: Cell::new(false),
        })
    }

    fn at(&self, site: &'static str) {
        self.log.borrow_mut().push(site);
        if self.site.get() != site {
            return;
        }
        self.site.set("");
        match &self.nests {
            Some((bench, cx)) => {
                let cx = cx.upgrade().unwrap();
                bench.poll(&cx, INSTANT);
                bench.check(&cx);
            }
            None => resume_unwind(Box::new(OnPurpose)),
        }
    }

    /// Returns `true` after its `poll_begin` and before its `poll_end`.
    fn is_in_poll_mode(&self) -> bool {
        let log = self.log.borrow();
        log.iter().rfind(|entry| ["begin", "end"].contains(entry)) == Some(&"begin")
    }
}

impl AsFd for Bomb {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self.fd).as_fd()
    }
}

impl Handler for Bomb {
    fn readable(&self, _: &Context) {
        self.at("readable");
    }
    fn writable(&self, _: &Context) {
        self.at("writable");
    }
    fn invalidated(&self, _: &Context, _: io::Error) {
        self.at("broken");
    }
}

impl Pollable for Bomb {
    fn poll(&self) -> bool {
        self.at("poll");
        self.has_work.get()
    }
    fn poll_ready(&self, _: &Context) {
        self.has_work.set(false);
        self.at("poll_ready");
    }
    fn poll_begin(&self) {
        self.at("begin");
    }
    fn poll_end(&self) {
        self.at("end");
    }
}

/// Unwinds when it is dropped, once.
struct Fuse(Cell<bool>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if !self.0.replace(true) {
            resume_unwind(Box::new(OnPurpose));
        }
    }
}

/// Polls until it panics, which must be the bomb's panic. Meanwhile other handlers have work, which must be done once all the same.
fn blow_up(bench: Bench, cx: &Context, set_off: impl FnOnce()) {
    let (others, runs) = ([(); 3].map(|()| Kick::new()), Count::default());
    let _registrations = others.each_ref().map(|kick| watch(cx, kick));
    let (of_bh, of_timer) = (runs.clone(), runs.clone());
    let bh = cx.bottom_half("beside", move |_| {
        of_bh.up();
    });
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            of_timer.up();
        })
        .disarmed();
    others.iter().for_each(|kick| kick.kick());
    set_off();
    bh.schedule();
    timer.arm_after(Duration::ZERO);
    let mut panics = 0;
    for _ in 0..8 {
        let polled = catch_unwind(AssertUnwindSafe(|| bench.poll(cx, MOMENT)));
        if let Err(panic) = polled {
            assert!(panic.is::<OnPurpose>(), "another panic");
            panics += 1;
        }
        assert!(format!("{cx:?}").contains("depth: 0"), "{cx:?}");
    }
    assert_eq!(panics, 1);
    let counts = others.each_ref().map(|kick| kick.count.get());
    assert_eq!((counts, runs.get()), ([1; 3], 2), "nothing lost, nothing twice");
    others[0].kick();
    assert!(bench.block(cx) && others[0].count.get() == 2);
}

/// Rule D9.
fn case_33_a_panic_at_each_site(bench: Bench) {
    for (site, interest) in [("readable", Interest::READ), ("writable", Interest::WRITE)] {
        let (cx, (reader, writer)) = (bench.context(), pipe());
        let fd = if site == "readable" {
            reader
        } else {
            writer.try_clone().unwrap()
        };
        let bomb = Bomb::new(fd, site);
        let _registration = cx.watch(bomb.clone(), interest).unwrap();
        blow_up(bench, &cx, || feed(&writer));
        assert!(bomb.log.borrow().contains(&site));
    }
    for site in ["poll", "begin", "end", "poll_ready"] {
        let Some(cx) = polling(bench, Duration::from_micros(20)) else {
            continue;
        };
        let bomb = Bomb::new(Kick::new(), site);
        let registration = cx.watch(Polled(bomb.clone()), Interest::READ).unwrap();
        blow_up(bench, &cx, || bomb.has_work.set(site == "poll_ready"));
        drop(registration);
        assert!(is_balanced(&bomb.log.borrow()), "{site}: {:?}", bomb.log);
    }
    a_panic_in_an_invalidation(bench);
    a_panic_at_the_end_of_a_pause(bench);
    a_panic_in_a_backend(bench);
    a_panic_in_a_deferred_callback(bench);
    a_panic_in_a_drop(bench);
}

fn a_panic_in_an_invalidation(bench: Bench) {
    let (cx, (reader, _writer)) = (bench.context(), pipe());
    let number = Number::of(reader);
    let bomb = Bomb::new(number.clone(), "broken");
    let registration = cx.watch(bomb, Interest::READ).unwrap();
    bench.poll(&cx, MOMENT);
    if cx.backend_name() == "ppoll" {
        blow_up(bench, &cx, || number.close());
        assert!(!registration.is_live());
    }
}

/// The end of a pause invalidates a handler, which panics. The others must get their events all the same.
fn a_panic_at_the_end_of_a_pause(bench: Bench) {
    for place in 0..3 {
        let cx = bench.context();
        let group = cx.new_group();
        let pipes = [(); 3].map(|()| pipe());
        let numbers = pipes.each_ref().map(|(reader, _)| Number::of(reader));
        let bombs = numbers
            .each_ref()
            .map(|number| Bomb::new(number.clone(), "broken"));
        let registrations = bombs
            .each_ref()
            .map(|bomb| cx.watch_in(group, bomb.clone(), Interest::READ).unwrap());
        let polled = Bomb::new(Kick::new(), "");
        let _polled = cx
            .watch_in(group, Polled(polled.clone()), Interest::READ)
            .unwrap();
        let pause = cx.pause(group);
        pipes.iter().for_each(|(_, writer)| feed(writer));
        assert!(!bench.poll(&cx, MOMENT), "all three are parked");
        numbers[place].close();
        let resumed = catch_unwind(AssertUnwindSafe(|| drop(pause)));
        assert!(resumed.is_err_and(|panic| panic.is::<OnPurpose>()));
        assert!(bench.check(&cx));
        for (number, (bomb, registration)) in bombs.iter().zip(&registrations).enumerate() {
            let expected = if number == place { "broken" } else { "readable" };
            let log = bomb.log.borrow();
            assert!(log.contains(&expected), "{number} of {place}: {log:?}");
            assert_eq!(registration.is_live(), number != place);
        }
    }
}

fn a_panic_in_a_backend(bench: Bench) {
    let armed = Rc::new(Cell::new(false));
    let fuse = armed.clone();
    let (builder, _) = disturbed(bench, move |_, _| {
        if fuse.take() {
            resume_unwind(Box::new(OnPurpose));
        }
        false
    });
    let cx = builder.build().unwrap();
    blow_up(bench, &cx, || armed.set(true));
}

fn a_panic_in_a_deferred_callback(bench: Bench) {
    let blow = || -> () { resume_unwind(Box::new(OnPurpose)) };
    let cx = bench.context();
    let bh = cx.bottom_half("blows up", move |_| blow());
    blow_up(bench, &cx, || bh.schedule());
    let idle = cx.bottom_half("blows up idly", move |_| blow());
    blow_up(bench, &cx, || idle.schedule_idle());
    blow_up(bench, &cx, || cx.remote().run(move |_| blow()).unwrap());
    for clock in [ClockId::Monotonic, ClockId::Wall, ClockId::Virtual] {
        let timer = cx.timer(clock, move |_, _| blow()).disarmed();
        blow_up(bench, &cx, || timer.arm_after(Duration::ZERO));
    }
}

fn a_panic_in_a_drop(bench: Bench) {
    let cx = bench.context();
    let job = {
        let fuse = Fuse(Cell::new(false));
        move |_: &Context| {
            keeps(&fuse);
        }
    };
    blow_up(bench, &cx, || cx.remote().run(job).unwrap());
    let fuse = Fuse(Cell::new(false));
    let deleted = cx.bottom_half("deleted", move |_| keeps(&fuse));
    blow_up(bench, &cx, || drop(deleted));
    let fuse = Fuse(Cell::new(false));
    let kick = Kick::with(move |_, _| keeps(&fuse));
    let registration = RefCell::new(Some(watch(&cx, &kick)));
    drop(kick);
    let bh = cx.bottom_half("removes", move |_| drop(registration.borrow_mut().take()));
    blow_up(bench, &cx, || bh.schedule());
}

/// Rules D6 and D9.
fn case_34_a_panic_three_polls_deep(bench: Bench) {
    for trace in [
        "on x { poll }; on y { poll }; on z { panic }; bh x; bh y; bh z; bh v; schedule x; schedule y; schedule z; \
         schedule v; poll -> x [ y [ z panic; poll -> v; poll ->",
        "on x { poll }; on a.readable { drain a, poll }; on t { panic }; bh x; timer t; timer u; watch a r; kick a; \
         schedule x; arm t 0; arm u 0; poll -> x [ a.readable [ t panic; poll -> u; poll ->",
        "on t { arm u 0, poll }; on u { kick a, poll }; on a.readable { drain a, panic }; timer t; timer u; watch a r; \
         watch b r; arm t 0; kick b; poll -> b.readable t [ u [ a.readable panic; poll ->",
        "on a.readable { poll }; on b.readable { panic }; watch a r; watch b r; kick a; kick b; poll; drain a; drain b; poll ->",
    ] {
        check(bench, trace);
    }
}

/// A panic while another one unwinds aborts the process, as everywhere in Rust.
#[test]
fn case_35_a_second_panic_while_the_first_unwinds() {
    const SIGABRT: i32 = 6;
    let name = concat!(module_path!(), "::case_35_a_second_panic_while_the_first_unwinds");
    let died = to_its_death(name, || {
        let cx = Context::new().unwrap();
        let fuse = Fuse(Cell::new(false));
        let job = move |_: &Context| -> () {
            let _burns_down_meanwhile = fuse;
            resume_unwind(Box::new(OnPurpose));
        };
        cx.remote().run(job).unwrap();
        let polled = catch_unwind(AssertUnwindSafe(|| cx.poll(Wait::NoBlock)));
        unreachable!("it is over: {}", polled.is_err());
    });
    assert_eq!(died, Some(SIGABRT));
}

/// Polled handlers that are registered and removed at random, and panic.
struct Crowd {
    bench: Bench,
    cx: Context,
    dice: fastrand::Rng,
    descriptors: Vec<Rc<Kick>>,
    /// The registered handler of each descriptor.
    present: Vec<Option<(Rc<Bomb>, Registration)>>,
    /// All handlers that were ever registered.
    all: Rc<RefCell<Vec<Rc<Bomb>>>>,
    group: aio_context::GroupId,
    pauses: Vec<Paused>,
}

impl Crowd {
    fn bomb(&mut self, place: usize) -> Rc<Bomb> {
        let sites = ["poll", "begin", "end", "poll_ready", "", "", ""];
        let site = sites[self.dice.usize(..sites.len())];
        let bomb = Rc::new(Bomb {
            fd: self.descriptors[place].clone(),
            site: Cell::new(site),
            nests: self.dice.bool().then(|| (self.bench, self.cx.downgrade())),
            log: RefCell::default(),
            has_work: Cell::new(false),
        });
        self.all.borrow_mut().push(bomb.clone());
        bomb
    }

    fn step(&mut self) {
        let place = self.dice.usize(..self.descriptors.len());
        match self.dice.u32(..12) {
            0 | 1 => {
                let former = self.present[place].take();
                drop(former);
                let bomb = self.bomb(place);
                let group = if place == 0 {
                    aio_context::GroupId::DEFAULT
                } else {
                    self.group
                };
                let registration = self
                    .cx
                    .watch_in(group, Polled(bomb.clone()), Interest::READ)
                    .unwrap();
                self.present[place] = Some((bomb, registration));
            }
            2 => drop(self.present[place].take()),
            3 => {
                let bomb = self.bomb(place);
                if let Some((present, registration)) = &mut self.present[place] {
                    // The handler is gone if the end of a former one has panicked.
                    if registration.is_live() {
                        *present = bomb.clone();
                        registration.replace(Polled(bomb)).unwrap();
                    }
                }
            }
            4 => self.pauses.push(self.cx.pause(self.group)),
            5 => drop(self.pauses.pop()),
            6 => {
                let max = Duration::from_micros(if self.dice.bool() { 50 } else { 0 });
                self.cx.set_poll_params(PollParams::up_to(max));
            }
            7 => {
                if let Some((bomb, _)) = &self.present[place] {
                    bomb.has_work.set(true);
                }
            }
            8 => drop(self.bench.check(&self.cx)),
            _ => drop(self.bench.poll(&self.cx, INSTANT)),
        }
    }
}

/// Rules A5, R6, R7 and D9: the calls are paired also if a handler panics, polls, is removed, replaced or paused. No handler is in
/// poll mode while the loop sleeps.
fn case_44_begin_and_end_in_pairs_whatever_happens(bench: Bench) {
    if bench.foreign {
        return; // a foreign loop does not poll
    }
    let seed = aio_testing::seed();
    let mut panics = 0;
    for round in 0..scaled(100, 20_000) {
        let all = Rc::new(RefCell::new(Vec::<Rc<Bomb>>::new()));
        let (forgotten, handlers) = (Rc::new(Cell::new(0)), all.clone());
        let count = forgotten.clone();
        let (builder, _) = disturbed(bench, move |_, is_sleep| {
            let left = handlers.borrow();
            if is_sleep && left.iter().any(|bomb| bomb.is_in_poll_mode()) {
                count.set(count.get() + 1);
            }
            false
        });
        let cx = always(builder, Duration::from_micros(20)).build().unwrap();
        let mut crowd = Crowd {
            bench,
            dice: fastrand::Rng::with_seed(seed.wrapping_add(round)),
            descriptors: (0..4).map(|_| Kick::new()).collect(),
            present: (0..4).map(|_| None).collect(),
            all,
            group: cx.new_group(),
            pauses: Vec::new(),
            cx,
        };
        for step in 0..100 {
            let stepped = catch_unwind(AssertUnwindSafe(|| crowd.step()));
            if let Err(panic) = stepped {
                assert!(panic.is::<OnPurpose>(), "round {round} of AIO_SEED={seed}");
                panics += 1;
            }
            assert_eq!(
                forgotten.get(),
                0,
                "step {step}, round {round} of AIO_SEED={seed}"
            );
        }
        // No more panics: the rest is dropped normally.
        crowd.all.borrow().iter().for_each(|bomb| bomb.site.set(""));
        crowd.pauses.clear();
        while crowd.bench.poll(&crowd.cx, INSTANT) {}
        crowd.present.clear();
        for bomb in &*crowd.all.borrow() {
            let log = bomb.log.borrow();
            assert!(is_balanced(&log), "round {round} of AIO_SEED={seed}: {log:?}");
        }
    }
    assert!(panics > 10, "they hardly blow up: {panics}");
}
