//! Handlers of descriptors, polled or not.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aio_checker::planting::is_planted;
use aio_context::{Context, Handler, Interest, Iteration, PollParams, PollPolicy, Pollable, Polled, Wait};
use aio_notify::EventNotifier;
use aio_schedules::Fake;
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use crate::{Crowd, Recorded, recorded};

/// A policy that polls for the time that was set last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Adjustable(Arc<Mutex<PollParams>>);

impl PollPolicy for Adjustable {
    fn name(&self) -> &'static str {
        "adjustable"
    }

    fn budget(&self) -> Duration {
        self.0.lock().unwrap().max
    }

    fn observe(&mut self, _: Iteration) {}

    fn reset(&mut self, params: PollParams) {
        *self.0.lock().unwrap() = params;
    }
}

pub(crate) const POLLING: PollParams = PollParams::up_to(Duration::from_micros(4));

/// Makes a context that polls for the time that is set.
pub(crate) fn searching(policy: &Adjustable, params: PollParams) -> Context {
    Fake::ticking(
        Context::builder()
            .policy(Box::new(policy.clone()))
            .poll_params(params),
    )
}

/// The shared state of a guest and its host. The host sets whether it needs a kick.
struct Queue {
    work: AtomicU32,
    needs_kick: AtomicBool,
    kick: EventNotifier,
}

impl Queue {
    fn produce(&self) {
        self.work.fetch_add(1, SeqCst);
        if self.needs_kick.load(SeqCst) {
            self.kick.set().unwrap();
        }
    }
}

struct Host {
    queue: Arc<Queue>,
    begun: Cell<bool>,
    served: Recorded,
}

impl AsFd for Host {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.kick.as_fd()
    }
}

impl Handler for Host {
    fn readable(&self, cx: &Context) {
        self.queue.kick.test_and_clear().unwrap();
        self.poll_ready(cx);
    }
}

impl Pollable for Host {
    fn poll(&self) -> bool {
        self.queue.work.load(SeqCst) > 0
    }

    fn poll_ready(&self, _: &Context) {
        self.served.add(self.queue.work.swap(0, SeqCst));
    }

    fn poll_begin(&self) {
        assert!(!self.begun.replace(true), "begun twice");
        self.queue.needs_kick.store(false, SeqCst);
    }

    fn poll_end(&self) {
        assert!(self.begun.replace(false), "ended without a beginning");
        self.queue.needs_kick.store(true, SeqCst);
    }
}

/// Guests produce without a kick while they are polled. At the same time polling is switched on and off.
fn parameters_in_the_middle_of_polling() {
    let policy = Adjustable::default();
    let cx = searching(&policy, POLLING);
    let served = Recorded::default();
    let hosts: [Rc<Host>; 2] = std::array::from_fn(|_| {
        Rc::new(Host {
            queue: Arc::new(Queue {
                work: AtomicU32::new(0),
                needs_kick: AtomicBool::new(true),
                kick: EventNotifier::new().unwrap(),
            }),
            begun: Cell::new(false),
            served: served.clone(),
        })
    });
    let registrations = hosts
        .clone()
        .map(|host| cx.watch(Polled(host), Interest::READ).unwrap());
    let mut crowd = Crowd::of(&cx);
    for host in &hosts {
        let queue = host.queue.clone();
        crowd.add(move |_| (0..2).for_each(|_| queue.produce()));
    }
    crowd.add(|remote| {
        for params in [PollParams::OFF, POLLING, PollParams::OFF] {
            remote.set_poll_params(params);
        }
    });
    while served.get() < 4 {
        cx.poll(Wait::Block).unwrap();
    }
    crowd.end(&cx);
    assert_eq!(
        *policy.0.lock().unwrap(),
        PollParams::OFF,
        "not the parameters that were set last"
    );
    assert!(hosts.iter().all(|host| !host.begun.get()), "still in poll mode");
    assert_eq!(served.get(), 4, "served twice");
    drop(registrations);
    assert!(hosts.iter().all(|host| Rc::strong_count(host) == 1));
}

struct Port {
    bell: Arc<EventNotifier>,
    removed: Recorded,
    calls: Recorded,
    nests: bool,
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Handler for Port {
    fn readable(&self, cx: &Context) {
        assert_eq!(self.removed.get(), 0, "called after its removal");
        self.bell.test_and_clear().unwrap();
        self.calls.add(1);
        if self.nests {
            cx.poll(Wait::NoBlock).unwrap();
        }
    }
}

/// Three handlers have events, and another thread removes the second. None of its callbacks starts after the removal has returned.
fn removal_by_another_thread() {
    let cx = Fake::context();
    let [removed, calls, never] = recorded();
    let port = |removed: &Recorded, nests| {
        Rc::new(Port {
            bell: Arc::new(EventNotifier::new().unwrap()),
            removed: removed.clone(),
            calls: calls.clone(),
            nests,
        })
    };
    let ports = [port(&never, false), port(&removed, false), port(&never, true)];
    let [first, second, third] = ports.clone().map(|port| cx.watch(port, Interest::READ).unwrap());
    let token = second.detach();
    let mut crowd = Crowd::of(&cx);
    for range in [0..2, 1..3] {
        let bells: Vec<_> = ports[range].iter().map(|port| port.bell.clone()).collect();
        crowd.add(move |_| bells.iter().for_each(|bell| bell.set().unwrap()));
    }
    crowd.add_announcing(move |remote| {
        if is_planted("RemovalNotAwaited") {
            remote.run(move |cx| assert!(cx.unwatch(token))).unwrap();
        } else {
            assert!(remote.run_and_wait(move |cx| cx.unwatch(token)).unwrap());
        }
        removed.set(1);
    });
    crowd.serve(&cx, 1);
    crowd.end(&cx);
    assert!((2..=4).contains(&calls.get()), "{} calls", calls.get());
    drop((first, third));
    assert!(ports.iter().all(|port| Rc::strong_count(port) == 1));
}

crate::scenarios! {
    a5_a6_parameters_change_in_the_middle_of_polling => parameters_in_the_middle_of_polling;
    r11_nothing_is_called_after_its_removal_from_another_thread => removal_by_another_thread;
}

crate::faults! {
    a6_planted_version_before_params: VersionBeforeParams in parameters_in_the_middle_of_polling;
    a6_planted_last_word_loaded_last: LastWordLoadedLast in parameters_in_the_middle_of_polling;
    r11_planted_removal_not_awaited: RemovalNotAwaited in removal_by_another_thread;
}
