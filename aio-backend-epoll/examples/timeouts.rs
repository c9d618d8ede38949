//! What a finite timeout costs an epoll loop when something is ready already, and how late it ends when nothing is.
//!
//! `cargo run --release -p aio-backend-epoll --example timeouts`
//!
//! The ways take turns, so that a machine that changes its speed changes it for all; medians and the middle half are
//! given as ratios to a plain `epoll_wait` of zero.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_backend::{Backend, Interest, ReadyList, Token};
use aio_backend_epoll::Epoll;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const ROUNDS: usize = 301;
const CALLS: u32 = 1_000;

const ZERO: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// More than fits into the milliseconds of `epoll_wait`: for this rustix uses `epoll_pwait2`.
const MONTHS: Timespec = Timespec {
    tv_sec: 10_000_000,
    tv_nsec: 1,
};

fn main() -> io::Result<()> {
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
    backend.add(
        Rc::new(reader.try_clone()?).into(),
        Token::new(0, 0),
        Interest::READ,
    )?;
    let mut ready = ReadyList::new();
    let mut backend_wait = |timeout: Duration| {
        ready.clear();
        backend.wait(Some(timeout), &mut ready)
    };

    let names = [
        "epoll_wait, zero",
        "epoll_pwait2",
        "ppoll, then epoll_wait of zero",
        "this backend, zero",
        "this backend, 300 us",
        "this backend, 10.3 ms",
    ];
    let mut nanos = names.map(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (way, nanos) in nanos.iter_mut().enumerate() {
            let start = Instant::now();
            for _ in 0..CALLS {
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
            nanos.push(start.elapsed().as_nanos() as f64 / f64::from(CALLS));
        }
    }
    println!("One descriptor is ready, {ROUNDS} rounds of {CALLS} calls:");
    let floor = quartiles(&mut nanos[0].clone())[1];
    for (name, nanos) in names.iter().zip(&mut nanos) {
        let [low, middle, high] = quartiles(nanos).map(|time| time / floor);
        println!("  {name:32} {middle:5.2}  ({low:.2} to {high:.2})");
    }

    println!("Nothing is ready, how late a timeout ends, in us:");
    backend.modify(Token::new(0, 0), Interest::NONE)?;
    for micros in [50, 300, 1_000, 2_300] {
        let timeout = Duration::from_micros(micros);
        let mut late = Vec::new();
        for _ in 0..200 {
            let start = Instant::now();
            backend.wait(Some(timeout), &mut ready)?;
            late.push((start.elapsed() - timeout).as_nanos() as f64 / 1e3);
        }
        let [low, middle, high] = quartiles(&mut late);
        println!("  {micros:5} us  {middle:5.0}  ({low:.0} to {high:.0})");
    }
    Ok(())
}

fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
