//! The files of the reference, and their readiness.

use aio_context::Readiness;

use crate::files::{MOST_BYTES, urgency};
use crate::op::{COUNT, Fd, Kind};

#[derive(Clone, Copy, Debug)]
struct File {
    kind: Kind,
    /// The number of bytes that can be read; for an outlet, 1 if it is full.
    bytes: u32,
    closed: bool,
    /// The number of its open numbers.
    numbers: u32,
}

/// A descriptor that has been made: its file, and the state of its number.
#[derive(Clone, Copy, Debug)]
struct Number {
    file: usize,
    open: bool,
}

/// All files, and the file of each descriptor.
#[derive(Debug, Default)]
pub(crate) struct Files {
    files: Vec<File>,
    numbers: [Option<Number>; COUNT],
}

impl Files {
    fn make(&mut self, fd: Fd) -> Number {
        self.files.push(File {
            kind: fd.kind(),
            bytes: 0,
            closed: false,
            numbers: 1,
        });
        let number = Number {
            file: self.files.len() - 1,
            open: true,
        };
        self.numbers[fd.place()] = Some(number);
        number
    }

    fn number(&mut self, fd: Fd) -> Number {
        match self.numbers[fd.place()] {
            Some(number) => number,
            None => self.make(fd),
        }
    }

    fn file(&mut self, fd: Fd) -> (&mut File, bool) {
        let number = self.number(fd);
        (&mut self.files[number.file], number.open)
    }

    /// Makes a closed number that of a new file.
    pub(crate) fn open(&mut self, fd: Fd) {
        if !self.number(fd).open {
            self.make(fd);
        }
    }

    pub(crate) fn is_open(&self, fd: Fd) -> bool {
        self.numbers[fd.place()].is_none_or(|number| number.open)
    }

    /// Returns `true` if another number still shares the file of a closed number.
    pub(crate) fn is_shared(&self, fd: Fd) -> bool {
        self.numbers[fd.place()].is_some_and(|number| self.files[number.file].numbers > 0)
    }

    pub(crate) fn kind(&mut self, fd: Fd) -> Kind {
        self.file(fd).0.kind
    }

    pub(crate) fn kick(&mut self, fd: Fd) {
        let (file, open) = self.file(fd);
        match file.kind {
            Kind::Outlet if !file.closed => file.bytes = 0,
            Kind::Counter if !open => {}
            Kind::Outlet => {}
            Kind::Urgent => file.bytes |= u32::from(!file.closed && urgency().is_some()),
            _ if !file.closed && file.bytes < MOST_BYTES => file.bytes += 1,
            _ => {}
        }
    }

    pub(crate) fn drain(&mut self, fd: Fd) {
        let (file, open) = self.file(fd);
        match file.kind {
            _ if !open => {}
            Kind::Outlet => file.bytes |= u32::from(!file.closed),
            _ => file.bytes = 0,
        }
    }

    pub(crate) fn close(&mut self, fd: Fd) {
        let (file, _) = self.file(fd);
        file.closed |= !matches!(file.kind, Kind::Counter | Kind::Urgent);
    }

    pub(crate) fn close_raw(&mut self, fd: Fd) {
        if let Some(number) = &mut self.numbers[fd.place()]
            && std::mem::replace(&mut number.open, false)
        {
            let file = &mut self.files[number.file];
            file.numbers -= 1;
            file.closed |= file.numbers == 0;
        }
    }

    pub(crate) fn dup(&mut self, from: Fd, to: Fd) {
        let number = self.number(from);
        if from == to || !number.open {
            return;
        }
        self.close_raw(to);
        self.numbers[to.place()] = Some(number);
        self.files[number.file].numbers += 1;
    }

    /// Returns the readiness of the file, whether its number is open or not.
    pub(crate) fn readiness(&mut self, fd: Fd) -> Readiness {
        let (file, _) = self.file(fd);
        let file = *file;
        let mut ready = Readiness::empty();
        match file.kind {
            Kind::Stream => {
                ready.insert(Readiness::OUT);
                ready.set(Readiness::IN, file.bytes > 0 || file.closed);
                ready.set(Readiness::HUP | Readiness::RDHUP, file.closed);
            }
            Kind::Counter => {
                ready.insert(Readiness::OUT);
                ready.set(Readiness::IN, file.bytes > 0);
            }
            Kind::Inlet => {
                ready.set(Readiness::IN, file.bytes > 0);
                ready.set(Readiness::HUP, file.closed);
            }
            Kind::Outlet => {
                ready.set(Readiness::OUT, file.bytes == 0);
                ready.set(Readiness::ERR, file.closed);
            }
            Kind::Urgent => {
                ready.insert(Readiness::OUT);
                if file.bytes > 0 {
                    ready |= urgency().unwrap_or_default();
                }
            }
        }
        ready
    }
}
