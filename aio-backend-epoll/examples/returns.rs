//! Measures the cost of returns after a system call: `epoll_wait` of zero, called through more and more
//! functions.
//!
//! `cargo run --release -p aio-backend-epoll --example returns`
//!
//! On a kernel that clears the processor's stack of returns, each of them is mispredicted.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

#[inline(always)]
fn check(set: &OwnedFd, events: &mut [Event]) -> usize {
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    epoll::wait(set, events, Some(&zero)).unwrap_or(0)
}

/// Makes functions that call each other and have work left after the call.
macro_rules! through {
    ($($name:ident calls $next:ident;)*) => {
        $(#[inline(never)]
        fn $name(set: &OwnedFd, events: &mut [Event]) -> usize {
            black_box($next(set, events)) + 1
        })*
    };
}

through! {
    one calls check;
    two calls one;
    three calls two;
    four calls three;
    five calls four;
}

/// Returns the shortest time of a call among some rounds, in nanoseconds.
#[inline(always)]
fn least(rounds: usize, calls: u32, set: &OwnedFd, call: impl Fn(&OwnedFd, &mut [Event]) -> usize) -> f64 {
    let nothing = Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(0),
    };
    let mut events = [nothing; 64];
    let mut least = f64::MAX;
    for _ in 0..rounds {
        let began = Instant::now();
        for _ in 0..calls {
            black_box(call(set, &mut events));
        }
        least = least.min(began.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    least
}

fn main() -> std::io::Result<()> {
    run(15, 200_000)
}

pub(crate) fn run(rounds: usize, calls: u32) -> std::io::Result<()> {
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    let silent = eventfd(0, EventfdFlags::CLOEXEC)?;
    epoll::add(&set, &silent, EventData::new_u64(0), EventFlags::IN)?;
    let times = [
        least(rounds, calls, &set, check),
        least(rounds, calls, &set, one),
        least(rounds, calls, &set, two),
        least(rounds, calls, &set, three),
        least(rounds, calls, &set, four),
        least(rounds, calls, &set, five),
    ];
    println!("returns  ns");
    for (returns, time) in times.iter().enumerate() {
        println!("{returns:7}  {time:.1}");
    }
    Ok(())
}
