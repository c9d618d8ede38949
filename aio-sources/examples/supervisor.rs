//! Keeps a command running: starts it again when it has ended, three times at most, and ends it
//! when `SIGTERM` or `SIGINT` comes.
//!
//! `cargo run -p aio-sources --example supervisor -- sleep 3`

use std::cell::{Cell, RefCell};
use std::io;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{Context, Wait};
use aio_sources::{ChildExit, Interval, Signal, Signals};

const STARTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(10);

struct Supervisor {
    command: RefCell<Command>,
    child: RefCell<Option<ChildExit>>,
    starts: Cell<u32>,
    /// Set after a signal has come.
    is_ending: Cell<bool>,
    is_done: Cell<bool>,
}

impl Supervisor {
    fn start(self: &Rc<Self>, cx: &Context) {
        if self.is_ending.get() {
            return self.is_done.set(true);
        }
        self.starts.set(self.starts.get() + 1);
        if let Err(why) = self.try_start(cx) {
            println!("cannot start it: {why}");
            self.is_done.set(true);
        }
    }

    fn try_start(self: &Rc<Self>, cx: &Context) -> io::Result<()> {
        let child = self.command.borrow_mut().spawn()?;
        println!("start {}", self.starts.get());
        let own = self.clone();
        let exit = ChildExit::new(cx, child, move |cx, status| {
            match status {
                Ok(status) => println!("it has ended: {status}"),
                Err(why) => println!("it has ended: {why}"),
            }
            if own.is_ending.get() || own.starts.get() == STARTS {
                own.is_done.set(true);
            } else {
                cx.after(PAUSE, move |cx| own.start(cx));
            }
        })?;
        self.child.replace(Some(exit));
        Ok(())
    }

    fn end(&self) {
        self.is_ending.set(true);
        if let Some(child) = &*self.child.borrow()
            && let Err(why) = child.kill()
        {
            println!("cannot end it: {why}");
        }
    }
}

fn main() -> io::Result<()> {
    let mut words = std::env::args_os().skip(1);
    let mut command = Command::new(words.next().unwrap_or_else(|| "true".into()));
    command.args(words);
    let cx = Context::new()?;
    let supervisor = Rc::new(Supervisor {
        command: RefCell::new(command),
        child: RefCell::default(),
        starts: Cell::new(0),
        is_ending: Cell::new(false),
        is_done: Cell::new(false),
    });
    let own = supervisor.clone();
    let _signals = Signals::new(&cx, &[Signal::TERM, Signal::INT], move |_cx, received| {
        println!("{:?}", received.signal);
        own.end();
    })?;
    let _alive = Interval::new(&cx, Duration::from_secs(60), |_cx, minutes| {
        println!("{minutes} min")
    });
    supervisor.start(&cx);
    while !supervisor.is_done.get() {
        cx.poll(Wait::Block)?;
    }
    Ok(())
}
