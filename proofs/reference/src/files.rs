//! The files behind the descriptors of a sequence: real ones, which the next sequence reuses where possible.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::OnceLock;

use aio_context::Readiness;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::numbers::{Number, Range};
use crate::op::{COUNT, Fd, Kind};

/// The most bytes in a file: far fewer than there is room for.
pub(crate) const MOST_BYTES: u32 = 32;
/// The size of a pipe that can be full.
const PIPE: usize = 4096;
/// The number of descriptors in a crowd: enough for a ladder to move up.
pub(crate) const CROWD: usize = 64;

/// An open file with one number or more.
#[derive(Debug)]
struct File {
    kind: Kind,
    /// The far end, unless it was closed; an eventfd has none.
    far: Option<OwnedFd>,
    /// The number of bytes that can be read; for an outlet, 1 if it is full.
    bytes: u32,
    /// The number of its open numbers.
    numbers: u32,
}

/// All files, and the file of each descriptor.
#[derive(Debug)]
pub(crate) struct Files {
    range: Range,
    numbers: [Option<Rc<Number>>; COUNT],
    /// A descriptor that was closed keeps its file.
    file_of: [usize; COUNT],
    files: Vec<File>,
    /// Files of an earlier sequence.
    spare: [Option<(Rc<Number>, File)>; COUNT],
    crowd: Vec<Rc<OwnedFd>>,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self {
            range: Range::take(),
            numbers: Default::default(),
            file_of: [0; COUNT],
            files: Vec::new(),
            spare: Default::default(),
            crowd: Vec::new(),
        }
    }

    /// Returns descriptors that never become ready.
    pub(crate) fn crowd(&mut self) -> &[Rc<OwnedFd>] {
        if self.crowd.is_empty() {
            let silent = counter();
            let share = || silent.try_clone().expect("one more descriptor");
            self.crowd = (0..CROWD).map(|_| Rc::new(share())).collect();
        }
        &self.crowd
    }

    /// Returns the number of a descriptor, whether it is open or was closed. The first call makes it.
    pub(crate) fn number(&mut self, fd: Fd) -> Rc<Number> {
        match &self.numbers[fd.place()] {
            Some(number) => number.clone(),
            None => self.make(fd),
        }
    }

    /// Like [`number`](Self::number); if the number was closed, it becomes that of a new file.
    pub(crate) fn open_number(&mut self, fd: Fd) -> Rc<Number> {
        match &self.numbers[fd.place()] {
            Some(number) if number.is_open() => number.clone(),
            _ => self.make(fd),
        }
    }

    fn make(&mut self, fd: Fd) -> Rc<Number> {
        let (number, file) = match self.spare[fd.place()].take() {
            Some(spare) => spare,
            None => self.make_anew(fd),
        };
        self.numbers[fd.place()] = Some(number.clone());
        self.file_of[fd.place()] = self.files.len();
        self.files.push(file);
        number
    }

    fn make_anew(&self, fd: Fd) -> (Rc<Number>, File) {
        let (near, far) = match fd.kind() {
            Kind::Stream | Kind::Urgent => stream(),
            Kind::Counter => (counter(), None),
            Kind::Inlet => {
                let (reader, writer) = pipe();
                (reader, Some(writer))
            }
            Kind::Outlet => {
                let (reader, writer) = pipe();
                fcntl_setpipe_size(&writer, PIPE).expect("a pipe can be small");
                (writer, Some(reader))
            }
        };
        let file = File {
            kind: fd.kind(),
            far,
            bytes: 0,
            numbers: 1,
        };
        (self.range.open(fd.place(), near), file)
    }

    /// Returns the file of a descriptor that has been made.
    fn file(&mut self, fd: Fd) -> &mut File {
        self.number(fd);
        &mut self.files[self.file_of[fd.place()]]
    }

    pub(crate) fn kind(&mut self, fd: Fd) -> Kind {
        self.file(fd).kind
    }

    /// Makes the near end ready, from the far end.
    pub(crate) fn kick(&mut self, fd: Fd) {
        let number = self.number(fd);
        let file = self.file(fd);
        match (file.kind, &file.far) {
            (Kind::Counter, _) if file.bytes < MOST_BYTES && number.is_open() => {
                rustix::io::write(&number, &1u64.to_ne_bytes()).expect("an eventfd has room");
                file.bytes += 1;
            }
            (Kind::Stream | Kind::Inlet, Some(far)) if file.bytes < MOST_BYTES && file.numbers > 0 => {
                rustix::io::write(far, b"x").expect("there is room");
                file.bytes += 1;
            }
            (Kind::Outlet, Some(far)) if file.bytes > 0 => {
                rustix::io::read(far, &mut [0; PIPE]).expect("it is full");
                file.bytes = 0;
            }
            (Kind::Urgent, Some(far)) if file.bytes == 0 && file.numbers > 0 && urgency().is_some() => {
                urge(far).expect("there is room");
                file.bytes = 1;
            }
            _ => {}
        }
    }

    /// Reads all data at the near end, or fills its buffer.
    pub(crate) fn drain(&mut self, fd: Fd) {
        let number = self.number(fd);
        let file = self.file(fd);
        if !number.is_open() {
            return;
        }
        match file.kind {
            Kind::Outlet if file.bytes == 0 && file.far.is_some() => {
                rustix::io::write(&number, &[0; PIPE]).expect("there is room");
                file.bytes = 1;
            }
            Kind::Outlet => {}
            Kind::Urgent if file.bytes > 0 => {
                calm(&number).expect("there is something");
                file.bytes = 0;
            }
            _ if file.bytes > 0 => {
                rustix::io::read(&number, &mut [0; 64]).expect("there is something");
                file.bytes = 0;
            }
            _ => {}
        }
    }

    /// Closes the far end.
    pub(crate) fn close(&mut self, fd: Fd) {
        let file = self.file(fd);
        if file.kind != Kind::Urgent {
            drop(file.far.take());
        }
    }

    /// Closes a number without removing its registration.
    pub(crate) fn close_raw(&mut self, fd: Fd) {
        if let Some(number) = &self.numbers[fd.place()]
            && number.is_open()
        {
            number.close();
            let file = &mut self.files[self.file_of[fd.place()]];
            file.numbers -= 1;
            if file.numbers == 0 {
                file.far = None;
            }
        }
    }

    /// Makes `to` another number of `from`'s file.
    pub(crate) fn dup(&mut self, from: Fd, to: Fd) {
        let number = self.number(from);
        if from == to || !number.is_open() {
            return;
        }
        self.close_raw(to);
        self.spare[to.place()] = None;
        let shared = self.file_of[from.place()];
        self.numbers[to.place()] = Some(self.range.open(to.place(), &number));
        self.file_of[to.place()] = shared;
        self.files[shared].numbers += 1;
    }

    /// Resets all files to the state at the beginning of a sequence. A file that cannot be reset is made
    /// again when it is needed.
    pub(crate) fn tidy(&mut self) {
        for fd in Fd::all() {
            if self.numbers[fd.place()].is_none() {
                continue;
            }
            if fd.kind() == Kind::Outlet {
                self.kick(fd);
            } else {
                self.drain(fd);
            }
            let file = self.file(fd);
            let far = file.far.take();
            let is_whole = (file.kind, file.numbers, file.bytes) == (fd.kind(), 1, 0)
                && (far.is_some() || file.kind == Kind::Counter);
            let file = File { far, ..*file };
            let number = self.numbers[fd.place()].take();
            self.spare[fd.place()] = number
                .filter(|number| is_whole && number.is_open())
                .map(|number| (number, file));
        }
        self.files.clear();
    }
}

fn stream() -> (OwnedFd, Option<OwnedFd>) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let (near, far) = pair.expect("two more descriptors");
    (near, Some(far))
}

/// Sends urgent data.
fn urge(far: impl AsFd) -> rustix::io::Result<()> {
    send(far, b"!", SendFlags::OOB).map(|_| ())
}

/// Reads the urgent data, and its mark.
fn calm(near: impl AsFd) -> rustix::io::Result<()> {
    recv(near.as_fd(), &mut [0; 1], RecvFlags::OOB)?;
    match rustix::io::read(near, &mut [0; 1]) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(why) => Err(why),
    }
}

/// Returns the readiness of a stream with urgent data; `None` if the kernel has no urgent data between
/// sockets of one machine.
pub(crate) fn urgency() -> Option<Readiness> {
    static URGENCY: OnceLock<Option<Readiness>> = OnceLock::new();
    *URGENCY.get_or_init(|| {
        let tried = try_urgency();
        if tried.is_none() {
            println!("skipped: this kernel has no urgent data between local sockets; descriptor `o` is never ready for it");
        }
        tried
    })
}

fn try_urgency() -> Option<Readiness> {
    let (near, far) = stream();
    let far = far?;
    let ready = || {
        let mut fds = [PollFd::new(
            &near,
            PollFlags::IN | PollFlags::OUT | PollFlags::PRI,
        )];
        poll(&mut fds, Some(&Default::default())).ok()?;
        Some(Readiness::from_system(fds[0].revents().bits() as u32))
    };
    let calm_state = ready()?;
    let mut urgent_state = None;
    // The result must be the same each time.
    for _ in 0..3 {
        urge(&far).ok()?;
        let urgent = ready()?;
        let is_usable = urgent.contains(Readiness::PRI) && urgent_state.is_none_or(|known| known == urgent);
        urgent_state = Some(urgent).filter(|_| is_usable);
        calm(&near).ok()?;
        if urgent_state.is_none() || ready()? != calm_state {
            return None;
        }
    }
    urgent_state
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("two more descriptors")
}

fn counter() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("one more descriptor")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(files: &mut Files, fd: Fd) -> PollFlags {
        let number = files.number(fd);
        let mut fds = [PollFd::new(
            &number,
            PollFlags::IN | PollFlags::OUT | PollFlags::PRI,
        )];
        poll(&mut fds, Some(&Default::default())).unwrap();
        fds[0].revents()
    }

    /// The reference's files behave like real ones.
    #[test]
    fn the_system_agrees_about_readiness() {
        let mut files = Files::new();
        let mut model = crate::model::Files::default();
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..3000 {
            let fd = Fd(random.u8(..COUNT as u8));
            match random.u32(..12) {
                0..4 => (files.kick(fd), model.kick(fd)),
                4..7 => (files.drain(fd), model.drain(fd)),
                7 => (files.close(fd), model.close(fd)),
                8 => (files.close_raw(fd), model.close_raw(fd)),
                9 => {
                    let to = Fd(random.u8(..COUNT as u8));
                    (files.dup(fd, to), model.dup(fd, to))
                }
                _ => (drop(files.open_number(fd)), model.open(fd)),
            };
            if round % 50 == 49 {
                files.tidy();
                model = crate::model::Files::default();
            }
            for fd in Fd::all() {
                let (real, said) = (ready(&mut files, fd), model.readiness(fd));
                let text = format!("{fd} in round {round}: {real:?}, {said:?}");
                if !model.is_open(fd) {
                    assert_eq!(real, PollFlags::NVAL, "{text}");
                    continue;
                }
                assert_eq!(
                    real.contains(PollFlags::IN),
                    said.contains(aio_context::Readiness::IN),
                    "{text}"
                );
                assert_eq!(
                    real.contains(PollFlags::OUT),
                    said.contains(aio_context::Readiness::OUT),
                    "{text}"
                );
                assert_eq!(
                    real.contains(PollFlags::PRI),
                    said.contains(aio_context::Readiness::PRI),
                    "{text}"
                );
                assert_eq!(
                    real.contains(PollFlags::HUP),
                    said.contains(aio_context::Readiness::HUP),
                    "{text}"
                );
                assert_eq!(
                    real.contains(PollFlags::ERR),
                    said.contains(aio_context::Readiness::ERR),
                    "{text}"
                );
            }
        }
    }
}
