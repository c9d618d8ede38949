//! [`ChildExit`]: a callback at the end of a child process, without `SIGCHLD`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::rc::Rc;

use aio_context::{Context, Handler, Interest, Registration, Token};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::AddError;

/// A child process whose end is a callback; dropping it takes the callback back and leaves the process running.
///
/// ```
/// use std::process::Command;
/// use aio_context::{Context, Wait};
/// use aio_sources::ChildExit;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let child = Command::new("true").spawn()?;
/// let _exit = ChildExit::new(&cx, child, |_cx, status| println!("it has ended: {status:?}"))?;
/// cx.poll(Wait::Block)?;
/// # Ok(()) }
/// ```
#[must_use = "dropped at once, the end of the process calls nothing"]
pub struct ChildExit {
    _registration: Registration,
    process: Rc<Process>,
}

type OnExit = Box<dyn FnOnce(&Context, io::Result<ExitStatus>)>;

struct Process {
    pidfd: OwnedFd,
    id: u32,
    /// `None` once it was given back.
    child: RefCell<Option<Child>>,
    /// `None` once it is called.
    on_exit: Cell<Option<OnExit>>,
    /// Set when the process is watched.
    token: Cell<Option<Token>>,
}

impl ChildExit {
    /// Calls `on_exit` once, when the process has ended and was reaped.
    ///
    /// The status is an error if something else has reaped the process, such as a `wait` for any child.
    ///
    /// # Errors
    /// The system's: `EMFILE` means that `ulimit -n` is too low, `ENOSYS` that the kernel is older than Linux 5.3. The process
    /// comes back in the error.
    pub fn new(
        cx: &Context,
        child: Child,
        on_exit: impl FnOnce(&Context, io::Result<ExitStatus>) + 'static,
    ) -> Result<Self, AddError<Child>> {
        let id = child.id();
        let pidfd = match open(id) {
            Ok(pidfd) => pidfd,
            Err(why) => return Err(AddError::new(child, why)),
        };
        let process = Rc::new(Process {
            pidfd,
            id,
            child: RefCell::new(Some(child)),
            on_exit: Cell::new(Some(Box::new(on_exit))),
            token: Cell::new(None),
        });
        match cx.watch(process.clone(), Interest::READ) {
            Ok(registration) => {
                process.token.set(Some(registration.token()));
                Ok(Self {
                    _registration: registration,
                    process,
                })
            }
            Err(why) => {
                let Some(child) = process.child.take() else {
                    unreachable!("no callback has run");
                };
                Err(AddError::new(child, why.into()))
            }
        }
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id
    }

    /// Kills the process, as [`Child::kill`] does. The callback comes when it has ended.
    ///
    /// # Errors
    /// The system's. Killing a process that has ended is none.
    pub fn kill(&self) -> io::Result<()> {
        let mut child = self.process.child.borrow_mut();
        child.as_mut().map_or(Ok(()), Child::kill)
    }

    /// Takes the callback back and returns the process, which goes on.
    #[must_use]
    pub fn into_child(self) -> Child {
        let child = self.process.child.take();
        child.unwrap_or_else(|| unreachable!("it is given back once"))
    }
}

fn open(id: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(id.cast_signed()).ok_or(Errno::SRCH);
    let opened = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    opened.map_err(|why| {
        let why = io::Error::from(why);
        io::Error::new(why.kind(), format!("cannot open a pidfd of process {id}: {why}"))
    })
}

impl Handler for Process {
    fn readable(&self, cx: &Context) {
        // A borrow for as long as the system call takes.
        let status = match self.child.borrow_mut().as_mut().map(Child::try_wait) {
            None | Some(Ok(None)) => return,
            Some(Ok(Some(status))) => Ok(status),
            Some(Err(why)) => Err(why),
        };
        // Its descriptor stays readable.
        self.token.take().map(|token| cx.unwatch(token));
        if let Some(on_exit) = self.on_exit.take() {
            on_exit(cx, status);
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl fmt::Debug for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildExit").field(&self.process.id).finish()
    }
}
