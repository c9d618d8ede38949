//! P7: registering, removing, and changing interests, with many existing registrations.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use aio_context::{Handler, Interest};
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::case::{Case, Run, timed};
use crate::floor::Epoll;
use crate::floor_uring::Ring;
use crate::load::{doorbell, doorbells};
use crate::ours::{Loop, Silent};
use crate::peers;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for n in [10, 1000, 10_000, 18_000] {
        cases.push(peers::register(register(n), n));
    }
    for n in [10, 1000, 10_000, 18_000] {
        cases.push(modify(n));
    }
    cases
}

/// Ours is on epoll from the start, as it would be with so many descriptors.
fn register(n: u64) -> Case {
    Case::new("P7", "register+remove", n)
        .by("floor", move || {
            let floor = Epoll::new(doorbells(n)?, 64)?;
            let fd = doorbell()?;
            Ok(Box::new(move |times| {
                let _whole = &floor;
                timed(times, || {
                    let _ = epoll::add(&floor.set, &fd, EventData::new_u64(1), EventFlags::IN);
                    let _ = epoll::delete(&floor.set, &fd);
                })
            }))
        })
        .by("aio", move || register_with(Loop::on_epoll(doorbells(n)?)?))
        .by("floor-uring", move || {
            let mut floor = Ring::new(doorbells(n)?)?;
            let fd = doorbell()?;
            Ok(Box::new(move |times| {
                timed(times, || floor.add_and_remove(&fd, n + 1))
            }))
        })
        .by("aio-uring", move || register_with(Loop::on_uring(doorbells(n)?)?))
}

fn modify(n: u64) -> Case {
    Case::new("P7", "modify", n)
        .by("floor", move || {
            let floor = Epoll::new(doorbells(n)?, 64)?;
            let fd: Rc<OwnedFd> = floor.fds[0].clone();
            Ok(Box::new(move |times| {
                let _whole = &floor;
                timed(times, || {
                    let both = EventFlags::IN | EventFlags::OUT;
                    let _ = epoll::modify(&floor.set, &fd, EventData::new_u64(0), both);
                    let _ = epoll::modify(&floor.set, &fd, EventData::new_u64(0), EventFlags::IN);
                })
            }))
        })
        .by("aio", move || modify_with(Loop::on_epoll(doorbells(n)?)?))
        .by("aio-uring", move || modify_with(Loop::on_uring(doorbells(n)?)?))
}

fn register_with(ours: Loop) -> anyhow::Result<Run> {
    let handler = Rc::new(Silent(doorbell()?));
    Ok(Box::new(move |times| {
        let _whole = &ours;
        timed(times, || {
            drop(ours.cx.watch(handler.clone(), Interest::READ));
        })
    }))
}

fn modify_with(ours: Loop) -> anyhow::Result<Run> {
    let registration = ours
        .cx
        .watch(silent()?, Interest::READ)
        .map_err(std::io::Error::from)?;
    Ok(Box::new(move |times| {
        let _whole = &ours;
        timed(times, || {
            let _ = registration.set_interest(Interest::READ | Interest::WRITE);
            let _ = registration.set_interest(Interest::READ);
        })
    }))
}

fn silent() -> anyhow::Result<Rc<impl Handler>> {
    Ok(Rc::new(Silent(doorbell()?)))
}
