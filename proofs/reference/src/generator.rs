//! Generates sequences: from a seed, or from the bytes of a fuzzer.

use aio_context::Interest;

use crate::op::{COUNT, Callback, DEFAULT_GROUP, Fd, Kind, Name, Op, Script, Side};

/// A source of choices.
pub trait Dice {
    /// Returns a number below `limit`, which is at least one and at most 256.
    fn below(&mut self, limit: u32) -> u32;
    /// Returns `true` if there are no choices left.
    fn is_over(&self) -> bool;
}

impl Dice for fastrand::Rng {
    fn below(&mut self, limit: u32) -> u32 {
        self.u32(..limit)
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// Choices from bytes, one each; zero after the last byte.
#[derive(Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Dice for Bytes<'_> {
    fn below(&mut self, limit: u32) -> u32 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        u32::from(*first) % limit
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// Generates a sequence of at most `most` operations.
pub fn sequence(dice: &mut impl Dice, most: usize) -> Vec<Op> {
    let mut generator = Generator(dice);
    let mut ops = generator.opening();
    while ops.len() < most && !generator.0.is_over() {
        let op = generator.step();
        if matches!(op, Op::Repeat(..)) {
            ops.extend(generator.crowded());
        }
        ops.push(op);
    }
    ops.truncate(most);
    ops
}

struct Generator<'a, D>(&'a mut D);

const fn name(letter: char) -> Name {
    Name::of(letter)
}

impl<D: Dice> Generator<'_, D> {
    fn one_in(&mut self, cases: u32) -> bool {
        self.0.below(cases) == 0
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.below(all.len() as u32) as usize]
    }

    /// Chooses the first descriptors more often than the others, so that operations coincide on one.
    fn fd(&mut self) -> Fd {
        let most = self.one_of(&[2, 4, COUNT as u32]);
        match self.0.below(most) {
            // A stream, an eventfd, and the others.
            0 => Fd(0),
            1 => Fd(4),
            other => Fd(other as u8),
        }
    }

    fn half(&mut self) -> Name {
        self.one_of(&[name('x'), name('y'), name('z')])
    }

    fn timer(&mut self) -> Name {
        self.one_of(&[name('t'), name('u'), name('v')])
    }

    fn group(&mut self) -> Name {
        self.one_of(&[DEFAULT_GROUP, DEFAULT_GROUP, name('g'), name('h')])
    }

    /// Rarely chooses an interest that is always ready, because the loop never waits then.
    fn interest(&mut self, fd: Fd) -> Interest {
        let (r, w, p) = (Interest::READ, Interest::WRITE, Interest::PRIORITY);
        let usual = match fd.kind() {
            Kind::Outlet => w,
            Kind::Urgent => p,
            _ => r,
        };
        let interest = match self.0.below(20) {
            0 => w,
            1 => Interest::BOTH,
            2 => return Interest::NONE,
            3 => r,
            4 => p,
            5 => r | p,
            6 => Interest::BOTH | p,
            _ => usual,
        };
        if self.one_in(6) {
            interest | Interest::ONESHOT
        } else {
            interest
        }
    }

    /// Generates the first operations of every sequence, which make some objects for the others.
    fn opening(&mut self) -> Vec<Op> {
        let mut ops = vec![Op::BottomHalf(name('x')), Op::Timer(name('t'))];
        if !self.one_in(3) {
            ops.push(Op::Polling(self.polling()));
        }
        for _ in 0..2 + self.0.below(4) {
            let watch = self.watch();
            ops.push(watch);
        }
        ops
    }

    fn polling(&mut self) -> u64 {
        self.one_of(&[0, 5, 50, 50, 1000, 20_000])
    }

    fn watch(&mut self) -> Op {
        let (fd, polled) = (self.fd(), !self.one_in(3));
        Op::Watch(fd, self.interest(fd), self.group(), polled)
    }

    fn replace(&mut self) -> Op {
        let (fd, polled) = (self.fd(), !self.one_in(3));
        let by = if self.one_in(3) {
            fd.name()
        } else {
            fd.name().doubled()
        };
        let interest = self.one_in(2).then(|| self.interest(fd));
        Op::Replace(fd, by, interest, polled)
    }

    fn on_registrations(&mut self) -> Op {
        match self.0.below(16) {
            0..4 => self.watch(),
            4..7 => self.replace(),
            7..9 => Op::Remove(self.fd()),
            14.. => Op::Rearm(self.fd()),
            9 => {
                let fd = self.fd();
                Op::Interest(fd, self.interest(fd))
            }
            10 => Op::Pause(self.group()),
            _ => Op::Resume(self.group()),
        }
    }

    fn on_files(&mut self) -> Op {
        match self.0.below(24) {
            0..8 => Op::Kick(self.fd()),
            8..19 => Op::Work(self.fd()),
            19..21 => Op::Drain(self.fd()),
            21 => Op::Close(self.fd()),
            22 => Op::CloseRaw(self.fd()),
            _ => Op::Dup(self.fd(), self.fd()),
        }
    }

    fn on_halves(&mut self) -> Op {
        let half = self.half();
        match self.0.below(8) {
            0..2 => Op::BottomHalf(half),
            2..5 => Op::Schedule(half),
            5 => Op::Idle(half),
            6 => Op::Cancel(half),
            _ => Op::Delete(half),
        }
    }

    fn on_timers(&mut self) -> Op {
        let (timer, ms) = (self.timer(), u64::from(self.0.below(12)));
        match self.0.below(8) {
            0..2 => Op::Timer(timer),
            2..5 => Op::Arm(timer, ms),
            5 => Op::Anticipate(timer, ms),
            6 => Op::Disarm(timer),
            _ => Op::Forget(timer),
        }
    }

    /// Generates an operation that a callback may also do.
    fn action(&mut self) -> Op {
        match self.0.below(24) {
            0 => Op::Advance(self.0.below(5).into()),
            1 => Op::Poll,
            2..4 => Op::Wait(self.0.below(15).into()),
            4..7 => self.on_halves(),
            7..10 => self.on_timers(),
            10..15 => self.on_registrations(),
            _ => self.on_files(),
        }
    }

    /// Generates an operation for a callback before the wait: one that does not invalidate earlier observations, and no poll.
    fn early_action(&mut self) -> Op {
        match self.0.below(12) {
            0..2 => self.on_halves(),
            2..4 => self.on_timers(),
            4..9 => match self.on_registrations() {
                Op::Interest(fd, _) | Op::Rearm(fd) => Op::Work(fd),
                op => op,
            },
            9..11 => Op::Work(self.fd()),
            _ => Op::Kick(self.fd()),
        }
    }

    fn callback(&mut self) -> Callback {
        match self.0.below(10) {
            0..2 => Callback::Deferred(self.half()),
            2..4 => Callback::Deferred(self.timer()),
            _ => {
                let sides = [
                    Side::Readable,
                    Side::Readable,
                    Side::PollReady,
                    Side::PollReady,
                    Side::Writable,
                    Side::Writable,
                    Side::Priority,
                    Side::Begin,
                    Side::End,
                    Side::Poll,
                    Side::Invalidated,
                ];
                let (fd, side) = (self.fd(), self.one_of(&sides));
                let label = if self.one_in(6) {
                    fd.name().doubled()
                } else {
                    fd.name()
                };
                Callback::Of(label, side)
            }
        }
    }

    fn script(&mut self) -> Op {
        let callback = self.callback();
        let is_early = matches!(callback, Callback::Of(_, side) if side.is_early());
        let count = self.0.below(4);
        let mut ops: Vec<_> = (0..count)
            .map(|_| {
                if is_early {
                    self.early_action()
                } else {
                    self.action()
                }
            })
            .collect();
        if self.one_in(6) {
            ops.push(Op::Panic);
        }
        Op::On(callback, ops.into())
    }

    /// Generates some polled handlers, and time for them to be polled.
    fn crowded(&mut self) -> Vec<Op> {
        let watch = |place| Op::Watch(Fd(place), Interest::READ, DEFAULT_GROUP, true);
        let mut ops: Vec<_> = [0, 1, 4, 5].map(watch).into();
        ops.push(Op::Polling(50));
        ops
    }

    /// Generates traffic for one handler, so that others become idle (rule A8).
    fn traffic(&mut self) -> Op {
        let script: Script = [Op::Work(Fd(0)), Op::Wait(1), Op::Wait(1)].into();
        Op::Repeat(30 + self.0.below(60), script)
    }

    fn step(&mut self) -> Op {
        match self.0.below(40) {
            0..4 => self.script(),
            4..11 => Op::Poll,
            11..18 => Op::Wait(self.0.below(30).into()),
            18 => match self.0.below(16) {
                0..3 => Op::Gather,
                3..6 => Op::Scatter,
                6 if self.one_in(2) => self.traffic(),
                _ => Op::Polling(self.polling()),
            },
            _ => self.action(),
        }
    }
}
