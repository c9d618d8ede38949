//! Measures the cost of a finite timeout for an epoll loop with a ready event, and how late it ends without one.
//!
//! `cargo run --release -p aio-backend-epoll --example timeouts`
//!
//! The variants take turns, so that a machine that changes its speed changes it for all. Medians and the
//! middle half are given as ratios to a plain `epoll_wait` of zero.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Interest, ReadyList, Token};
use aio_backend_epoll::Epoll;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[rustfmt::skip]
const NAMES: [&str; 6] = [
    "epoll_wait, zero", "epoll_pwait2", "ppoll, then epoll_wait of zero",
    "this backend, zero", "this backend, 300 us", "this backend, 10.3 ms",
];
const ZERO: Timespec = timespec(0, 0);
/// More than fits into the milliseconds of `epoll_wait`. For this, rustix uses `epoll_pwait2`.
const MONTHS: Timespec = timespec(10_000_000, 1);

fn main() -> io::Result<()> {
    run(301, 1_000)
}

pub(crate) fn run(rounds: usize, calls: u32) -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(b"x")?;
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&set, &reader, EventData::new_u64(0), EventFlags::IN)?;
    let mut events = Vec::<Event>::with_capacity(64);
    let mut wait = |timeout: &Timespec| {
        events.clear();
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), Some(timeout))
    };
    let mut backend = Epoll::new()?;
    let watched = Rc::new(reader.try_clone()?).into();
    backend.add(watched, Token::new(0, 0), Interest::READ)?;
    let mut ready = ReadyList::new();
    let mut backend_wait = |timeout: Duration| {
        ready.clear();
        backend.wait(Some(timeout), &mut ready)
    };

    let mut nanos = NAMES.map(|_| Vec::new());
    for _ in 0..rounds {
        for (way, nanos) in nanos.iter_mut().enumerate() {
            let start = Instant::now();
            for _ in 0..calls {
                match way {
                    0 => _ = wait(&ZERO)?,
                    1 => _ = wait(&MONTHS)?,
                    2 => {
                        poll(&mut [PollFd::new(&set.as_fd(), PollFlags::IN)], Some(&MONTHS))?;
                        wait(&ZERO)?;
                    }
                    3 => backend_wait(Duration::ZERO)?,
                    4 => backend_wait(Duration::from_micros(300))?,
                    _ => backend_wait(Duration::from_micros(10_300))?,
                }
            }
            nanos.push(start.elapsed().as_nanos() as f64 / f64::from(calls));
        }
    }
    println!("One descriptor is ready, {rounds} rounds of {calls} calls:");
    let floor = quartiles(&mut nanos[0].clone())[1];
    for (name, nanos) in NAMES.iter().zip(&mut nanos) {
        let [low, middle, high] = quartiles(nanos).map(|time| time / floor);
        println!("  {name:32} {middle:5.2}  ({low:.2} to {high:.2})");
    }

    println!("Nothing is ready, how late a timeout ends, in us:");
    backend.modify(Token::new(0, 0), Interest::NONE)?;
    for micros in [50, 300, 1_000, 2_300] {
        let (timeout, mut late) = (Duration::from_micros(micros), Vec::new());
        for _ in 0..rounds {
            let start = Instant::now();
            backend.wait(Some(timeout), &mut ready)?;
            late.push((start.elapsed() - timeout).as_nanos() as f64 / 1e3);
        }
        let [low, middle, high] = quartiles(&mut late);
        println!("  {micros:5} us  {middle:5.0}  ({low:.0} to {high:.0})");
    }
    Ok(())
}

const fn timespec(tv_sec: i64, tv_nsec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec }
}

fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
