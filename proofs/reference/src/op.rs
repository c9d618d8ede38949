//! The language: the operations on a context, and the callbacks. `text` parses its text form.

use std::fmt;
use std::rc::Rc;

use aio_context::Interest;

/// A name: a letter, or the same letter twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(u8);

const LETTERS: u8 = 26;

/// The group of handlers without a given group.
pub const DEFAULT_GROUP: Name = Name(25 + LETTERS);

/// The descriptors: four streams, two eventfds, the read end of a pipe, the write end of another one, and a
/// stream whose far end sends urgent data.
pub const DESCRIPTORS: [char; COUNT] = ['a', 'b', 'c', 'd', 'e', 'f', 'p', 'q', 'o'];
pub(crate) const COUNT: usize = 9;

impl Name {
    /// Returns the name of one letter.
    ///
    /// # Panics
    /// If `letter` is not from a to z.
    #[must_use]
    pub const fn of(letter: char) -> Self {
        assert!(
            letter.is_ascii_lowercase(),
            "names are made of lower case letters"
        );
        Self(letter as u8 - b'a')
    }

    /// Returns the name with the same letter twice.
    #[must_use]
    pub const fn doubled(self) -> Self {
        Self(self.0 % LETTERS + LETTERS)
    }

    const fn letter(self) -> char {
        (b'a' + self.0 % LETTERS) as char
    }

    /// Returns the descriptor of this name, if it is the name of one.
    #[must_use]
    pub fn descriptor(self) -> Option<Fd> {
        let place = DESCRIPTORS.iter().position(|letter| Self::of(*letter) == self);
        place.map(|place| Fd(place as u8))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.0 < LETTERS { 1 } else { 2 };
        (0..times).try_for_each(|_| write!(f, "{}", self.letter()))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A descriptor, by its place in [`DESCRIPTORS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fd(pub(crate) u8);

impl Fd {
    /// Returns all descriptors.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..COUNT as u8).map(Self)
    }

    /// Returns the letter of the descriptor.
    #[must_use]
    pub fn name(self) -> Name {
        Name::of(DESCRIPTORS[self.place()])
    }

    pub(crate) fn place(self) -> usize {
        self.0.into()
    }

    /// Returns the kind of file that it is made as.
    pub(crate) fn kind(self) -> Kind {
        match self.0 {
            0..4 => Kind::Stream,
            4..6 => Kind::Counter,
            6 => Kind::Inlet,
            7 => Kind::Outlet,
            _ => Kind::Urgent,
        }
    }
}

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.name(), f)
    }
}

impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One end of a socket pair. It can be read and written, and hangs up.
    Stream,
    /// An eventfd: always writable, never hangs up.
    Counter,
    /// The read end of a pipe: hangs up.
    Inlet,
    /// The write end of a pipe: can be full, fails.
    Outlet,
    /// A stream whose far end sends urgent data. Never hangs up.
    Urgent,
}

/// The callbacks of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `Handler::readable`.
    Readable,
    /// `Handler::writable`.
    Writable,
    /// `Handler::priority`.
    Priority,
    /// The callback of an invalidated handler.
    Invalidated,
    /// `Pollable::poll`. It is recorded only when it has a script, which runs once.
    Poll,
    /// `Pollable::poll_ready`.
    PollReady,
    /// `Pollable::poll_begin`.
    Begin,
    /// `Pollable::poll_end`.
    End,
}

impl Side {
    /// All callbacks, in the order of their declaration.
    pub(crate) const ALL: [Self; 8] = [
        Self::Readable,
        Self::Writable,
        Self::Priority,
        Self::Invalidated,
        Self::Poll,
        Self::PollReady,
        Self::Begin,
        Self::End,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Readable => "readable",
            Self::Writable => "writable",
            Self::Priority => "priority",
            Self::Invalidated => "invalidated",
            Self::Poll => "poll",
            Self::PollReady => "poll_ready",
            Self::Begin => "begin",
            Self::End => "end",
        }
    }

    /// Returns `true` if it is called before the loop has decided the length of the wait.
    #[must_use]
    pub fn is_early(self) -> bool {
        matches!(self, Self::Invalidated | Self::Poll | Self::Begin | Self::End)
    }
}

/// A callback.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Callback {
    /// A callback of a handler.
    Of(Name, Side),
    /// The callback of a bottom half or a timer.
    Deferred(Name),
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(name, side) => write!(f, "{name}.{}", side.name()),
            Self::Deferred(name) => write!(f, "{name}"),
        }
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The operations of a callback.
pub type Script = Rc<[Op]>;

/// One operation. An operation that does not apply, such as the removal of an unknown handler, has no effect.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the table on the crate's page describes each")]
pub enum Op {
    Watch(Fd, Interest, Name, bool),
    Replace(Fd, Name, Option<Interest>, bool),
    Remove(Fd),
    Interest(Fd, Interest),
    Rearm(Fd),
    Pause(Name),
    Resume(Name),
    Kick(Fd),
    Drain(Fd),
    Work(Fd),
    Close(Fd),
    CloseRaw(Fd),
    Dup(Fd, Fd),
    BottomHalf(Name),
    Schedule(Name),
    Idle(Name),
    Cancel(Name),
    Delete(Name),
    Timer(Name),
    Arm(Name, u64),
    Anticipate(Name, u64),
    Disarm(Name),
    Forget(Name),
    Polling(u64),
    Gather,
    Scatter,
    On(Callback, Script),
    Repeat(u32, Script),
    Advance(u64),
    Poll,
    Wait(u64),
    Panic,
}

impl Op {
    /// Returns the same operation with another script, if it has one.
    pub(crate) fn with_script(&self, script: Script) -> Self {
        match self {
            Self::On(callback, _) => Self::On(*callback, script),
            Self::Repeat(times, _) => Self::Repeat(*times, script),
            other => other.clone(),
        }
    }
}

/// The letters of an interest.
pub(crate) const LETTERS_OF_INTEREST: [(char, Interest); 4] = [
    ('r', Interest::READ),
    ('w', Interest::WRITE),
    ('p', Interest::PRIORITY),
    ('1', Interest::ONESHOT),
];

pub(crate) fn spelled(interest: Interest) -> String {
    let letters = LETTERS_OF_INTEREST.iter();
    let letters: String = letters
        .filter(|(_, part)| interest.contains(*part))
        .map(|(letter, _)| *letter)
        .collect();
    if letters.is_empty() {
        "-".to_owned()
    } else {
        letters
    }
}

fn list(script: &[Op]) -> String {
    let steps: Vec<_> = script.iter().map(Op::to_string).collect();
    steps.join(", ")
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let polled = |polled: bool| if polled { " polled" } else { "" };
        match self {
            Self::Watch(fd, interest, group, is_polled) => {
                write!(f, "watch {fd} {}", spelled(*interest))?;
                if *group != DEFAULT_GROUP {
                    write!(f, " in {group}")?;
                }
                f.write_str(polled(*is_polled))
            }
            Self::Replace(fd, by, interest, is_polled) => {
                write!(f, "replace {fd} {by}")?;
                if let Some(interest) = interest {
                    write!(f, " {}", spelled(*interest))?;
                }
                f.write_str(polled(*is_polled))
            }
            Self::Remove(fd) => write!(f, "remove {fd}"),
            Self::Interest(fd, interest) => write!(f, "interest {fd} {}", spelled(*interest)),
            Self::Rearm(fd) => write!(f, "rearm {fd}"),
            Self::Pause(group) => write!(f, "pause {group}"),
            Self::Resume(group) => write!(f, "resume {group}"),
            Self::Kick(fd) => write!(f, "kick {fd}"),
            Self::Drain(fd) => write!(f, "drain {fd}"),
            Self::Work(fd) => write!(f, "work {fd}"),
            Self::Close(fd) => write!(f, "close {fd}"),
            Self::CloseRaw(fd) => write!(f, "closeraw {fd}"),
            Self::Dup(from, to) => write!(f, "dup {from} {to}"),
            Self::BottomHalf(name) => write!(f, "bh {name}"),
            Self::Schedule(name) => write!(f, "schedule {name}"),
            Self::Idle(name) => write!(f, "idle {name}"),
            Self::Cancel(name) => write!(f, "cancel {name}"),
            Self::Delete(name) => write!(f, "delete {name}"),
            Self::Timer(name) => write!(f, "timer {name}"),
            Self::Arm(name, ms) => write!(f, "arm {name} {ms}"),
            Self::Anticipate(name, ms) => write!(f, "anticipate {name} {ms}"),
            Self::Disarm(name) => write!(f, "disarm {name}"),
            Self::Forget(name) => write!(f, "forget {name}"),
            Self::Polling(us) => write!(f, "polling {us}"),
            Self::Gather => write!(f, "gather"),
            Self::Scatter => write!(f, "scatter"),
            Self::On(callback, script) => write!(f, "on {callback} {{ {} }}", list(script)),
            Self::Repeat(times, script) => write!(f, "repeat {times} {{ {} }}", list(script)),
            Self::Advance(ms) => write!(f, "advance {ms}"),
            Self::Poll => write!(f, "poll"),
            Self::Wait(ms) => write!(f, "wait {ms}"),
            Self::Panic => write!(f, "panic"),
        }
    }
}
