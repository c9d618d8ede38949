//! The disturbed program: a known amount of work through a context. It repeats refused calls.

use std::cell::{Cell, RefCell};
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aio_backend::remedy;
use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;
use aio_backend_uring::{Config, Uring};
use aio_context::{ClockId, Context, Handler, Interest, PollParams, Pollable, Polled, Registration, Wait};

use crate::calls::{Failing, Plan};

/// The program's way of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ppoll
    Ppoll,
    /// epoll
    Epoll,
    /// epoll, with ppoll to fall back to
    LadderAt0,
    /// ppoll, and epoll from four descriptors on
    LadderAt4,
    /// io_uring; epoll where the system has none
    Uring,
    /// io_uring, with ppoll to fall back to; epoll where the system has none
    LadderToUring,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Ppoll,
        Self::Epoll,
        Self::LadderAt0,
        Self::LadderAt4,
        Self::Uring,
        Self::LadderToUring,
    ];

    /// Returns this kind, or its replacement if the system has no io_uring.
    fn or_available(self) -> Self {
        match self {
            Self::Uring if !has_uring() => Self::Epoll,
            Self::LadderToUring if !has_uring() => Self::LadderAt0,
            kind => kind,
        }
    }

    /// Returns a context of this kind on a kernel that fails as planned.
    pub(crate) fn disturbed(self, plan: &Rc<Plan>) -> io::Result<Context> {
        let sys = Failing(plan.clone());
        let upper = sys.clone();
        let make = move || Epoll::with_sys(upper.clone());
        let builder = Context::builder();
        let lower = Ppoll::with_sys(sys.clone());
        match self.or_available() {
            Self::Ppoll => builder.backend(Box::new(lower)),
            Self::Epoll => builder.backend(Box::new(Epoll::with_sys(sys).map_err(in_words)?)),
            Self::LadderAt0 => builder.backend(Box::new(Ladder::new(lower, make, 0))),
            Self::LadderAt4 => builder.backend(Box::new(Ladder::new(lower, make, 4))),
            Self::Uring => {
                let uring = Uring::with_sys(sys, Config::new());
                builder.backend(Box::new(uring.map_err(in_words)?))
            }
            Self::LadderToUring => {
                let make = move || Uring::with_sys(sys.clone(), Config::new());
                builder.backend(Box::new(Ladder::new(lower, make, 0)))
            }
        }
        .build()
    }

    /// Returns a context of this kind on the kernel.
    ///
    /// # Errors
    /// The system's error.
    pub fn context(self) -> io::Result<Context> {
        let builder = Context::builder();
        match self.or_available() {
            Self::Ppoll => builder.backend(Box::new(Ppoll::new())),
            Self::Epoll => builder.backend(Box::new(Epoll::new().map_err(in_words)?)),
            Self::LadderAt0 => builder.backend(Box::new(Ladder::new(Ppoll::new(), Epoll::new, 0))),
            Self::LadderAt4 => builder.backend(Box::new(Ladder::new(Ppoll::new(), Epoll::new, 4))),
            Self::Uring => builder.backend(Box::new(Uring::new().map_err(in_words)?)),
            Self::LadderToUring => builder.backend(Box::new(Ladder::new(Ppoll::new(), Uring::new, 0))),
        }
        .build()
    }
}

/// Adds the context to the system's error, because a backend made by hand returns it bare.
fn in_words(why: io::Error) -> io::Error {
    io::Error::other(format!("make a backend: {why}; {}", remedy(&why)))
}

/// Returns `true` if the system has io_uring. Otherwise prints a line, once.
#[must_use]
pub fn has_uring() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| match Uring::new() {
        Ok(_) => true,
        Err(error) => {
            let _ = writeln!(io::stderr(), "skipped: no io_uring: {error}");
            false
        }
    })
}

/// The work and the errors of the program.
#[derive(Debug, Default)]
pub struct Report {
    /// The work that was not done although the program waited for it.
    pub lost: Option<String>,
    /// The returned errors, in order.
    pub errors: Vec<String>,
    /// Bytes read, bottom halves and jobs run, timers fired.
    pub done: [u32; 3],
}

/// The work of a whole run.
pub const ALL_DONE: [u32; 3] = [22, 6, 3];
/// The time after which a wait has missed its event.
const TOO_LONG: Duration = Duration::from_millis(900);
/// The number of errors that is too many for one fault.
const MOST_ERRORS: usize = 40;

struct Tap {
    reader: PipeReader,
    bytes: Rc<Cell<u32>>,
    own: Weak<Self>,
    invalidated: Rc<RefCell<Vec<Rc<Self>>>>,
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Handler for Tap {
    fn readable(&self, _: &Context) {
        let mut buffer = [0; 1];
        // Level-triggered: one byte at a time, and only after an event. An interrupted call is repeated at
        // once. Suppose that every second read of the process fails, and the loop makes one read between two
        // events, as it does while it may share its core with another thread: then no read here would
        // succeed.
        let read = loop {
            match (&self.reader).read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        if let Ok(read) = read {
            self.bytes.set(self.bytes.get() + read as u32);
        }
    }

    fn invalidated(&self, _: &Context, _: io::Error) {
        // The program watches the tap again.
        self.invalidated.borrow_mut().extend(self.own.upgrade());
    }
}

impl Pollable for Tap {
    fn poll(&self) -> bool {
        false
    }
}

struct Program {
    cx: Context,
    report: RefCell<Report>,
    bytes: Rc<Cell<u32>>,
    invalidated: Rc<RefCell<Vec<Rc<Tap>>>>,
    /// The new registrations of invalidated taps.
    again: RefCell<Vec<Registration>>,
    writers: Vec<PipeWriter>,
    written: u32,
}

impl Program {
    fn record(&self, why: &io::Error) {
        self.report.borrow_mut().errors.push(why.to_string());
    }

    fn is_lost(&self) -> bool {
        self.report.borrow().lost.is_some()
    }

    fn lose(&self, what: &str) {
        self.report
            .borrow_mut()
            .lost
            .get_or_insert_with(|| what.to_owned());
    }

    /// Repeats an attempt until it succeeds. No injected fault lasts.
    fn persist<T>(&self, what: &str, mut attempt: impl FnMut() -> io::Result<T>) -> Option<T> {
        for _ in 0..8 {
            match attempt() {
                Ok(value) => return Some(value),
                Err(why) => self.record(&why),
            }
        }
        self.lose(what);
        None
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        while !done() && !self.is_lost() {
            let invalidated = self.invalidated.take();
            for tap in invalidated {
                self.record(&io::Error::other("a handler was invalidated"));
                let registered = self.persist("a second registration", || {
                    Ok(self.cx.watch(tap.clone(), Interest::READ)?)
                });
                self.again.borrow_mut().extend(registered);
            }
            let began = Instant::now();
            if let Err(why) = self.cx.poll(Wait::AtMost(Duration::from_secs(1))) {
                self.record(&why);
            }
            if (began.elapsed() > TOO_LONG && !done()) || self.report.borrow().errors.len() > MOST_ERRORS {
                self.lose(what);
            }
        }
    }

    fn write(&mut self, place: usize, count: u32) {
        for _ in 0..count {
            self.written += u32::from(self.writers[place].write_all(b"x").is_ok());
        }
    }

    fn read_all(&self, what: &str) {
        self.until(what, || self.bytes.get() == self.written);
    }

    fn watch(&mut self, polled: bool) -> Option<Registration> {
        let (reader, writer) = self.persist("a pipe", io::pipe)?;
        self.writers.push(writer);
        let tap = Rc::new_cyclic(|own| Tap {
            reader,
            bytes: self.bytes.clone(),
            own: own.clone(),
            invalidated: self.invalidated.clone(),
        });
        self.persist("a registration", || {
            if polled {
                Ok(self.cx.watch(Polled(tap.clone()), Interest::READ)?)
            } else {
                Ok(self.cx.watch(tap.clone(), Interest::READ)?)
            }
        })
    }

    fn change(&self, what: &str, registration: &Registration, interest: Interest) -> Option<()> {
        self.persist(what, || {
            if registration.is_live() {
                registration.set_interest(interest)
            } else {
                Ok(()) // it is invalidated
            }
        })
    }

    fn descriptors(&mut self) -> Option<()> {
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(self.watch(false)?);
        }
        for place in 0..5 {
            self.write(place, 2);
        }
        self.read_all("the first data");
        // Silences two registrations, and restores them.
        for registration in &all[..2] {
            self.change("silence", registration, Interest::NONE)?;
        }
        self.write(0, 1);
        self.write(2, 1);
        self.until("the one that is not silent", || {
            self.bytes.get() + 1 >= self.written
        });
        for registration in &all[..2] {
            self.persist("the end of a silence", || {
                registration.set_interest(Interest::READ)
            })?;
        }
        self.read_all("data from a silence");
        // Another interest, for which a pipe's reader never has an event.
        for interest in [Interest::BOTH, Interest::READ] {
            self.change("another interest", &all[3], interest)?;
        }
        // A pause masks each handler that has an event during it.
        let pause = self.cx.pause(aio_context::GroupId::DEFAULT);
        self.write(1, 2);
        if let Err(why) = self.cx.poll(Wait::NoBlock) {
            self.record(&why);
        }
        drop(pause);
        self.read_all("data from a pause");
        // Moves the ladder down.
        all.truncate(1);
        self.write(0, 2);
        self.read_all("data after the removals");
        Some(())
    }

    fn callbacks(&self) {
        let ran = Arc::new(AtomicU32::new(0));
        let count = ran.clone();
        let half = self.cx.bottom_half("work", move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        for round in 1..=3 {
            let (half, remote, ran) = (half.clone(), self.cx.remote(), ran.clone());
            let counts = ran.clone();
            let other = std::thread::spawn(move || {
                half.schedule();
                let _ = remote.run(move |_| {
                    counts.fetch_add(1, Ordering::Relaxed);
                });
            });
            self.until("a bottom half or a job of another thread", || {
                ran.load(Ordering::Relaxed) == 2 * round
            });
            if other.join().is_err() {
                self.lose("another thread");
            }
        }
        self.report.borrow_mut().done[1] = ran.load(Ordering::Relaxed);
    }

    fn timers(&self) {
        let fired = Rc::new(Cell::new(0));
        let timers: Vec<_> = [50, 300, 1_200]
            .into_iter()
            .map(|micros| {
                let (count, due) = (fired.clone(), Instant::now() + Duration::from_micros(micros));
                let timer = self
                    .cx
                    .timer(ClockId::Monotonic, move |_, _| {
                        // An early timer does not count.
                        count.set(count.get() + u32::from(Instant::now() >= due));
                    })
                    .disarmed();
                timer.arm_after(Duration::from_micros(micros));
                timer
            })
            .collect();
        self.until("a timer", || fired.get() == timers.len() as u32);
        self.report.borrow_mut().done[2] = fired.get();
    }

    fn polling(&mut self) -> Option<()> {
        self.cx
            .set_poll_params(PollParams::up_to(Duration::from_micros(10)));
        let polled = self.watch(true)?;
        let last = self.writers.len() - 1;
        for _ in 0..3 {
            self.write(last, 2);
            self.read_all("data written while polling");
        }
        drop(polled);
        Some(())
    }
}

/// Does the work and reports it.
pub fn work(mut make: impl FnMut() -> io::Result<Context>) -> Report {
    let mut report = Report::default();
    let cx = loop {
        match make() {
            Ok(cx) => break cx,
            Err(why) if report.errors.len() < 8 => report.errors.push(why.to_string()),
            Err(why) => {
                report.errors.push(why.to_string());
                report.lost = Some("the context itself".to_owned());
                return report;
            }
        }
    };
    let mut program = Program {
        cx,
        report: RefCell::new(report),
        bytes: Rc::default(),
        invalidated: Rc::default(),
        again: RefCell::default(),
        writers: Vec::new(),
        written: 0,
    };
    let whole = program.descriptors().is_some() && program.polling().is_some();
    if whole {
        program.callbacks();
        program.timers();
    }
    let mut report = program.report.take();
    report.done[0] = program.bytes.get();
    report
}

/// Returns `true` if an error names the cause and a remedy. An error about one descriptor is the system's
/// own, without a remedy.
pub(crate) fn is_explained(text: &str) -> bool {
    let of_one = ["(os error 9)", "(os error 22)", "(os error 40)"];
    let remedied = text.contains("; ") && !text.ends_with("none is known");
    remedied || of_one.iter().any(|end| text.ends_with(end)) || text.starts_with("a handler was invalidated")
}
