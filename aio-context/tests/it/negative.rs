//! What must go wrong in the right way.

use std::io;
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_context::{Backend, Context, Interest, ReadyList, Token, Wait, Watched};

use crate::common::{Kick, watch};

/// An upper rung that fails: at its making, or at its third descriptor.
#[derive(Debug)]
struct Failing {
    inner: Epoll,
    adds: u32,
}

impl Backend for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.adds += 1;
        if self.adds >= 3 {
            return Err(io::Error::from_raw_os_error(28)); // ENOSPC
        }
        self.inner.add(fd, token, interest)
    }
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.inner.modify(token, interest)
    }
    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.inner.remove(token)
    }
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        self.inner.wait(timeout, ready)
    }
    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.inner.drain(each);
    }
}

fn goes_on(cx: &Context) {
    let kicks: Vec<_> = (0..10).map(|_| Kick::new()).collect();
    let _registrations: Vec<_> = kicks.iter().map(|kick| watch(cx, kick)).collect();
    for _ in 0..3 {
        kicks.iter().for_each(|kick| kick.kick());
        while cx.poll(Wait::NoBlock).unwrap() {}
    }
    assert!(kicks.iter().all(|kick| kick.count.get() == 3));
    assert_eq!(cx.backend_name(), "ppoll", "for good");
}

#[test]
fn b4_no_epoll_descriptor_to_be_had() {
    let mut tries = 0;
    let make = move || {
        tries += 1;
        assert_eq!(tries, 1, "it is not tried again");
        Err::<Epoll, _>(io::Error::from_raw_os_error(24)) // EMFILE
    };
    let cx = Context::builder()
        .backend(Box::new(Ladder::new(Ppoll::new(), make, 2)))
        .build()
        .unwrap();
    goes_on(&cx);
}

#[test]
fn b4_epoll_is_full_in_the_middle() {
    for climb_at in [0, 2, 5] {
        let make = || {
            Ok(Failing {
                inner: Epoll::new()?,
                adds: 0,
            })
        };
        let ladder = Ladder::new(Ppoll::new(), make, climb_at);
        let cx = Context::builder().backend(Box::new(ladder)).build().unwrap();
        goes_on(&cx);
    }
}

#[test]
fn d7_a_context_stays_on_its_thread() {
    // Proven by a compile_fail example in the documentation of `Context`; its remote is what travels.
    fn travels<T: Send + Sync>() {}
    travels::<aio_context::Remote>();
    travels::<aio_context::BottomHalf>();
}

#[test]
fn handles_that_outlive_their_context_do_nothing() {
    let cx = Context::new().unwrap();
    let kick = Kick::new();
    let registration = watch(&cx, &kick);
    let bh = cx.bottom_half("outlives", |_| {});
    let timer = cx.timer(aio_context::ClockId::Monotonic, |_, _| {});
    let pause = cx.pause(aio_context::GroupId::DEFAULT);
    let (remote, weak) = (cx.remote(), cx.downgrade());
    drop(cx);
    assert!(weak.upgrade().is_none() && !registration.is_live());
    assert!(registration.set_interest(Interest::NONE).is_err() && registration.replace(kick).is_err());
    bh.schedule();
    timer.arm_after(Duration::ZERO);
    assert!(timer.deadline().is_none());
    remote.kick();
    remote.notify();
    drop((registration, bh, timer, pause));
}
