//! [`ChildExit`]: a callback at the end of a child process, without `SIGCHLD`.

use std::fmt;
use std::io;
use std::process::{Child, ExitStatus};
use std::rc::Rc;

use aio_context::{Context, GroupId, Interest, Registration};

use crate::AddError;
use crate::process::{Process, open};

/// Calls back at the end of a child process. Dropping it removes the callback and leaves the process running.
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

impl ChildExit {
    /// Calls `on_exit` once, after the process has ended and was reaped.
    ///
    /// The pipes of `child` stay open while this keeps it. If the process reads its `stdin` to the end, take
    /// `child.stdin` first.
    ///
    /// The status is an error if something else has reaped the process, such as a `wait` for any child.
    ///
    /// # Errors
    /// The error of the system: `EMFILE` means that `ulimit -n` is too low, `ENOSYS` that the kernel is older
    /// than Linux 5.3. The process is returned in the error.
    pub fn new(
        cx: &Context,
        child: Child,
        on_exit: impl FnOnce(&Context, io::Result<ExitStatus>) + 'static,
    ) -> Result<Self, AddError<Child>> {
        Self::new_in(cx, GroupId::DEFAULT, child, on_exit)
    }

    /// As [`new`](Self::new), as a member of `group`, which can be [paused](Context::pause). A process that ends during a pause is
    /// reaped after it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in(
        cx: &Context,
        group: GroupId,
        child: Child,
        on_exit: impl FnOnce(&Context, io::Result<ExitStatus>) + 'static,
    ) -> Result<Self, AddError<Child>> {
        let id = child.id();
        let pidfd = match open(id) {
            Ok(pidfd) => pidfd,
            Err(why) => return Err(AddError::new(child, why)),
        };
        let process = Rc::new(Process::new(pidfd, child, on_exit));
        match cx.watch_in(group, process.clone(), Interest::READ) {
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

    /// Kills the process. The callback is called after it has ended. If something else has reaped the process
    /// and its number was reused, the other process is not killed.
    ///
    /// # Errors
    /// The error of the system. Killing a process that has ended is not an error.
    pub fn kill(&self) -> io::Result<()> {
        self.process.kill()
    }

    /// Removes the callback and returns the process, which goes on.
    #[must_use]
    pub fn into_child(self) -> Child {
        let child = self.process.child.take();
        child.unwrap_or_else(|| unreachable!("it is given back once"))
    }
}

impl fmt::Debug for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildExit").field(&self.process.id).finish()
    }
}
