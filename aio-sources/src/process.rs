//! [`Process`]: the handler of a child process.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};

use aio_context::{Context, Handler, Token};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

type OnExit = Box<dyn FnOnce(&Context, io::Result<ExitStatus>)>;

pub(crate) struct Process {
    pidfd: OwnedFd,
    pub(crate) id: u32,
    /// `None` after it was given back.
    pub(crate) child: RefCell<Option<Child>>,
    /// `None` after it was called.
    on_exit: Cell<Option<OnExit>>,
    /// Set when the process is watched.
    pub(crate) token: Cell<Option<Token>>,
}

impl Process {
    pub(crate) fn new(
        pidfd: OwnedFd,
        child: Child,
        on_exit: impl FnOnce(&Context, io::Result<ExitStatus>) + 'static,
    ) -> Self {
        Self {
            pidfd,
            id: child.id(),
            child: RefCell::new(Some(child)),
            on_exit: Cell::new(Some(Box::new(on_exit))),
            token: Cell::new(None),
        }
    }

    /// Kills the process, unless it has ended.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }
}

/// Opens a pidfd of a child.
pub(crate) fn open(id: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(id.cast_signed()).ok_or(Errno::SRCH);
    let opened = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    opened.map_err(|why| {
        let why = io::Error::from(why);
        io::Error::new(why.kind(), format!("cannot open a pidfd of process {id}: {why}"))
    })
}

impl Handler for Process {
    fn readable(&self, cx: &Context) {
        // The borrow lasts only for the system call.
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
