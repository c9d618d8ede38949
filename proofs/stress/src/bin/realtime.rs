//! Whole iterations under RealtimeSanitizer: from the first check to the last timer, an iteration neither allocates, frees,
//! locks nor waits in the C library.
//!
//! `cargo xtask prove --only rtsan` builds it with `--cfg rtsan`, which enables the attribute that the
//! sanitizer needs. The system calls of a wait are made without the C library, so the sanitizer does not
//! report them.
#![cfg_attr(rtsan, feature(sanitize))]

use std::cell::Cell;
use std::hint::black_box;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use aio_backend_epoll::Epoll;
use aio_backend_ppoll::Ppoll;
use aio_context::{
    Backend, BottomHalf, ClockId, Context, Handler, Interest, PollParams, Pollable, Polled, Registration,
    Timer, Wait,
};
use clap::Parser;
use rustix::event::{EventfdFlags, eventfd};

/// The number of events of each kind in one iteration.
const EVENTS: usize = 64;
/// The number of iterations in which buffers may grow.
const WARM_UP: usize = 20;

/// A descriptor whose handler counts.
struct Bell {
    fd: OwnedFd,
    served: Rc<Cell<usize>>,
    work: Cell<bool>,
    allocates: bool,
}

impl Bell {
    fn serve(&self) {
        if self.allocates {
            drop(black_box(Vec::<u8>::with_capacity(64)));
        }
        self.work.set(false);
        self.served.set(self.served.get() + 1);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Bell {
    fn readable(&self, _: &Context) {
        // If there is nothing to read, polling has served it already.
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
        self.serve();
    }
}

impl Pollable for Bell {
    fn poll(&self) -> bool {
        self.work.get()
    }

    fn poll_ready(&self, _: &Context) {
        self.serve();
    }
}

/// A context with sixty-four objects of each kind.
struct Load {
    cx: Context,
    served: Rc<Cell<usize>>,
    bells: Vec<(Rc<Bell>, Registration)>,
    halves: Vec<BottomHalf>,
    timers: Vec<Timer>,
}

impl Load {
    fn new(backend: Box<dyn Backend>, allocates: bool) -> io::Result<Self> {
        let cx = Context::builder().backend(backend).build()?;
        let served = Rc::new(Cell::new(0));
        let bell = |number| {
            let bell = Rc::new(Bell {
                fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
                served: served.clone(),
                work: Cell::new(false),
                allocates: allocates && number == 0,
            });
            let registration = cx.watch(Polled(bell.clone()), Interest::READ)?;
            Ok((bell, registration))
        };
        let half = |_| {
            let served = served.clone();
            cx.bottom_half("counts", move |_| served.set(served.get() + 1))
        };
        let timer = |_| {
            let served = served.clone();
            cx.timer(ClockId::Monotonic, move |_, _| served.set(served.get() + 1))
                .disarmed()
        };
        Ok(Self {
            bells: (0..EVENTS).map(bell).collect::<io::Result<_>>()?,
            halves: (0..EVENTS).map(half).collect(),
            timers: (0..EVENTS).map(timer).collect(),
            served,
            cx,
        })
    }

    fn prepare(&self) -> io::Result<()> {
        for (bell, _) in &self.bells {
            rustix::io::write(&bell.fd, &1u64.to_ne_bytes())?;
            bell.work.set(true);
        }
        Ok(())
    }

    /// Runs an iteration, which must not allocate or lock.
    #[cfg_attr(rtsan, sanitize(realtime = "nonblocking"))]
    #[inline(never)]
    fn iterate(&self, wait: Wait) -> io::Result<bool> {
        self.halves.iter().for_each(BottomHalf::schedule);
        for timer in &self.timers {
            timer.arm_after(Duration::ZERO);
        }
        self.cx.poll(wait)
    }
}

fn run(rounds: usize, allocates: bool) -> io::Result<usize> {
    let mut iterations = 0;
    for polling in [Duration::ZERO, Duration::from_micros(100)] {
        let backends: [Box<dyn Backend>; 2] = [Box::new(Ppoll::new()), Box::new(Epoll::new()?)];
        for backend in backends {
            let load = Load::new(backend, allocates)?;
            load.cx.set_poll_params(PollParams::up_to(polling));
            for round in 0..WARM_UP {
                load.prepare()?;
                // The same as `iterate`, outside the sanitized code.
                load.halves.iter().for_each(BottomHalf::schedule);
                load.timers
                    .iter()
                    .for_each(|timer| timer.arm_after(Duration::ZERO));
                load.cx.poll(if round % 2 == 0 {
                    Wait::Block
                } else {
                    Wait::NoBlock
                })?;
            }
            load.served.set(0);
            for round in 0..rounds {
                load.prepare()?;
                load.iterate(if round % 2 == 0 {
                    Wait::Block
                } else {
                    Wait::NoBlock
                })?;
                iterations += 1;
            }
            let expected = 3 * EVENTS * rounds;
            if load.served.get() < expected {
                return Err(io::Error::other(format!(
                    "{} callbacks instead of {expected}",
                    load.served.get()
                )));
            }
        }
    }
    Ok(iterations)
}

/// Run whole iterations that must not allocate, lock or wait
#[derive(Debug, Parser)]
struct Args {
    /// Number of iterations of each backend, with polling and without
    #[arg(long, value_name = "N", default_value_t = 200)]
    rounds: usize,
    /// Make each callback allocate, which the sanitizer must find
    #[arg(long)]
    plant: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args.rounds, args.plant) {
        Ok(iterations) => {
            println!("{iterations} iterations of {} callbacks each", 3 * EVENTS);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
