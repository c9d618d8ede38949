//! The simulated ring: its queues, and the work that waits for an enter.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use aio_backend_uring::sys::{Completion, Request, Ring};
use aio_context::{Completed, NotSubmitted, Operation, Readiness, Token};
use rustix::io::Errno;

use crate::calls::{WAIT, nanos};
use crate::plant::Plant;
use crate::poll_requests::{PollRequest, Polled};
use crate::target::Target;
use crate::world::World;

/// The longest time for which the end of a ring waits for its operations.
const END_TIMEOUT: u64 = 1_000_000_000;
const REFUSED: &[Errno] = &[Errno::AGAIN, Errno::NOMEM];
const REQUEST: &[Errno] = &[Errno::NOMEM, Errno::CANCELED];

/// An entry of the submission queue.
#[derive(Clone, Copy, Debug)]
enum Submitted {
    Request(Request),
    Operation(u32),
    /// The cancellation of the operation with this number.
    Cancel(u64),
}

/// An entry of the completion queue.
#[derive(Clone, Copy, Debug)]
enum Ended {
    Request(Completion),
    Operation(u64),
}

/// An operation in its slot.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    held: Option<(u64, Operation)>,
}

/// A ring of the simulated kernel.
pub(crate) struct SimulatedRing {
    world: Rc<World>,
    /// If set, wake-ups become completions only in an enter, and set a flag before.
    is_deferred: bool,
    /// The number of enters for which the flag is set without work, unless work arrives.
    stuck: u64,
    /// The room of the submission queue and of the completion queue.
    room: (usize, usize),
    queue: VecDeque<Submitted>,
    /// Entries for which the submission queue has no room.
    waiting: VecDeque<Submitted>,
    completions: VecDeque<Ended>,
    overflow: VecDeque<Ended>,
    slots: Vec<Slot>,
    accepted: usize,
    /// Operations that have ended and were not returned, with their numbers.
    completed: VecDeque<(u64, Token, Completed)>,
    /// The number of the loop's wake-ups that poll requests have received.
    rings_seen: u64,
    lost: u32,
}

impl SimulatedRing {
    pub(crate) fn new(world: Rc<World>) -> Self {
        let submissions = [1, 2, 8, 256][world.below(4) as usize];
        let completions = submissions * [1, 2, 4][world.below(3) as usize];
        world.has_ring.set(true);
        let is_deferred = !world.one_in(3);
        world.record(
            || format!("ring: room for {submissions} and {completions}, deferred work: {is_deferred}"),
            70,
        );
        Self {
            is_deferred,
            stuck: 0,
            room: (submissions, completions),
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            completions: VecDeque::new(),
            overflow: VecDeque::new(),
            slots: Vec::new(),
            accepted: 0,
            completed: VecDeque::new(),
            rings_seen: 0,
            lost: 0,
            world,
        }
    }

    /// Wakes the requests for the loop's eventfd.
    fn see_doorbell(&mut self) {
        let Some(raw) = self.world.kernel.borrow().requests.doorbell() else {
            return;
        };
        let rings = self.world.remote().map_or(0, |remote| remote.wakeups().0);
        if rings != self.rings_seen && self.world.rings() {
            self.rings_seen = rings;
            let mut kernel = self.world.kernel.borrow_mut();
            kernel.touch(Target::Doorbell(raw), Readiness::IN);
        }
    }

    fn has_ended_work(&self) -> bool {
        self.world.kernel.borrow().requests.has_woken() || !self.world.ended.borrow().is_empty()
    }

    /// Turns work into completions, at most `most`.
    fn work(&mut self, most: usize) {
        self.see_doorbell();
        self.stuck = if self.has_ended_work() {
            0
        } else {
            self.stuck.saturating_sub(1)
        };
        for _ in 0..most {
            let rings = self.world.rings();
            let woken = self.world.kernel.borrow_mut().next_woken(rings);
            if let Some((key, readiness, has_more)) = woken {
                self.complete(key, readiness.to_system() as i32, has_more);
                continue;
            }
            let Some(id) = self.world.ended.borrow_mut().pop_front() else {
                break;
            };
            if self.is_lost(Plant::OperationLost, 8) {
                continue;
            }
            self.post(Ended::Operation(id));
        }
        // A waker sets the flag after another enter has done its work.
        if self.is_deferred && self.world.strikes(self.world.rates.get().spurious) {
            self.stuck = self.world.below(60);
        }
    }

    fn is_lost(&mut self, plant: Plant, every: u32) -> bool {
        if self.world.plant != Some(plant) {
            return false;
        }
        self.lost += 1;
        self.lost.is_multiple_of(every)
    }

    fn complete(&mut self, key: u64, result: i32, has_more: bool) {
        self.world
            .record(|| format!("ring: {key:x} completes with {result}"), key);
        self.post(Ended::Request(Completion {
            key,
            result,
            has_more,
        }));
    }

    fn post(&mut self, ended: Ended) {
        if self.overflow.is_empty() && self.completions.len() < self.room.1 {
            self.completions.push_back(ended);
        } else if !self.is_lost(Plant::OverflowLost, 1) {
            self.overflow.push_back(ended);
        }
    }

    fn flush_overflow(&mut self) {
        while self.completions.len() < self.room.1
            && let Some(ended) = self.overflow.pop_front()
        {
            self.completions.push_back(ended);
        }
    }

    /// Takes entries out of the submission queue, as the kernel does. Returns `true` if it took all.
    fn take_queue(&mut self) -> bool {
        let count = if self.world.strikes(self.world.rates.get().refused) {
            self.world.injected.set(self.world.injected.get() + 1);
            self.world.below(self.queue.len() as u64) as usize
        } else {
            self.queue.len()
        };
        for _ in 0..count {
            match self.queue.pop_front() {
                Some(Submitted::Request(request)) => self.take_request(request),
                Some(Submitted::Operation(index)) => {
                    let held = self.slots[index as usize].held.as_ref().map(|held| held.0);
                    held.into_iter().for_each(|id| self.world.begin_operation(id));
                }
                Some(Submitted::Cancel(id)) if self.world.plant != Some(Plant::OperationKept) => {
                    self.world.cancel_operation(id);
                }
                _ => {}
            }
        }
        self.queue.is_empty()
    }

    fn take_request(&mut self, request: Request) {
        match request {
            Request::Poll {
                key,
                fd,
                readiness,
                is_multishot,
            } => {
                let rate = self.world.rates.get().refused;
                if let Err(error) = self.world.refuse("a poll request", REQUEST, rate) {
                    let number = error.raw_os_error().unwrap_or(0);
                    return self.complete(key, -number, false);
                }
                let request = PollRequest {
                    key,
                    raw: fd,
                    wanted: readiness,
                    is_multishot,
                };
                let rings = self.world.rings();
                let polled = self.world.kernel.borrow_mut().arm(request, rings);
                self.world
                    .record(|| format!("ring: {request:?} is armed: {polled:?}"), key);
                match polled {
                    Polled::Waits => {}
                    Polled::Ready(ready, goes_on) => self.complete(key, ready.to_system() as i32, goes_on),
                    Polled::Bad => self.complete(key, -Errno::BADF.raw_os_error(), false),
                    Polled::Invalid => self.complete(key, -Errno::INVAL.raw_os_error(), false),
                }
            }
            Request::Cancel { key, target } => {
                let was_there = self.world.plant == Some(Plant::RequestKept)
                    || self.world.kernel.borrow_mut().cancel_request(target);
                if was_there {
                    self.complete(target, -Errno::CANCELED.raw_os_error(), false);
                    self.complete(key, 0, false);
                } else {
                    self.complete(key, -Errno::NOENT.raw_os_error(), false);
                }
            }
            _ => {}
        }
    }

    fn push_entry(&mut self, entry: Submitted) {
        if self.waiting.is_empty() && self.queue.len() < self.room.0 {
            self.queue.push_back(entry);
        } else {
            self.waiting.push_back(entry);
        }
    }

    fn flush_waiting(&mut self) {
        while self.queue.len() < self.room.0
            && let Some(entry) = self.waiting.pop_front()
        {
            self.queue.push_back(entry);
        }
    }

    fn holder(&self, id: u64) -> Option<usize> {
        let holds = |slot: &Slot| slot.held.as_ref().is_some_and(|held| held.0 == id);
        self.slots.iter().position(holds)
    }

    /// Takes an operation out of its slot. The slot is free again when the operation was returned.
    fn finish(&mut self, index: usize, result: Result<usize, i32>) {
        let slot = &mut self.slots[index];
        if let Some((id, operation)) = slot.held.take() {
            let result = result.map_err(io::Error::from_raw_os_error);
            let token = Token::new(index as u32, slot.generation);
            self.completed
                .push_back((id, token, Completed { result, operation }));
        }
    }

    /// Ends an operation that the kernel has not received.
    fn withdraw(&mut self, id: u64) {
        self.world.withdraw_operation(id);
        if let Some(index) = self.holder(id) {
            self.finish(index, Err(Errno::CANCELED.raw_os_error()));
        }
    }

    /// Returns the operations that the kernel has.
    fn in_kernel(&self) -> Vec<u64> {
        let held = self.slots.iter().filter_map(|slot| slot.held.as_ref());
        held.map(|held| held.0).collect()
    }

    /// Cancels an operation that the kernel has received, or will receive.
    fn cancel_id(&mut self, index: u32, id: u64) {
        let is_same = |entry: &Submitted| matches!(entry, Submitted::Operation(other) if *other == index);
        let waits = self.waiting.iter().position(is_same);
        match waits.and_then(|place| self.waiting.remove(place)) {
            Some(_) => self.withdraw(id),
            None => self.push_entry(Submitted::Cancel(id)),
        }
    }
}

impl Ring for SimulatedRing {
    fn sees_all(&self) -> bool {
        self.is_deferred
    }

    fn is_idle(&mut self) -> bool {
        self.world.pass(5);
        self.world.others_may_act();
        self.see_doorbell();
        let has_work = self.is_deferred && (self.has_ended_work() || self.stuck > 0);
        !has_work && self.overflow.is_empty() && self.completions.is_empty()
    }

    fn push(&mut self, request: Request) -> bool {
        let has_room = self.queue.len() < self.room.0;
        if has_room {
            self.queue.push_back(Submitted::Request(request));
        }
        has_room
    }

    fn pushed(&mut self) -> usize {
        self.queue.len()
    }

    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let world = self.world.clone();
        world.enter("io_uring_enter");
        world.record(
            || {
                let (queued, waiting) = (self.queue.len(), self.waiting.len());
                format!("ring: enter with {queued} requests, {waiting} more, for {timeout:?}")
            },
            71,
        );
        let rates = world.rates.get();
        let submits = !self.queue.is_empty();
        if submits {
            world.refuse("io_uring_enter", REFUSED, rates.refused)?;
        }
        if submits && !self.overflow.is_empty() && world.strikes(rates.interrupted) {
            self.flush_overflow();
            return Err(Errno::BUSY.into());
        }
        let took_all = self.take_queue();
        self.flush_overflow();
        let timeout = timeout.map(nanos);
        // The number of submitted entries is the result, independent of later errors.
        let waited = match world.begin_wait(timeout, WAIT) {
            Err(error) if !submits => Err(error),
            Ok(false) if took_all => Ok(timeout),
            _ => Ok(Some(0)),
        };
        let entered = waited.and_then(|timeout| {
            let found = world.sleep(timeout, |_| {
                self.work(1 + world.below(20) as usize);
                self.completions.len()
            });
            if found == 0 && timeout != Some(0) && !submits {
                return Err(Errno::TIME.into());
            }
            Ok(())
        });
        self.flush_waiting();
        entered
    }

    fn next(&mut self) -> Option<Completion> {
        loop {
            let id = match self.completions.pop_front()? {
                Ended::Request(completion) => return Some(completion),
                Ended::Operation(id) => id,
            };
            let result = self.world.submission(id).map(|one| one.result.get());
            if let (Some(result), Some(index)) = (result, self.holder(id)) {
                self.accepted = self.accepted.wrapping_add(1);
                self.finish(index, result);
            }
        }
    }

    fn submit(&mut self, operation: Operation) -> Result<Token, NotSubmitted> {
        let rate = self.world.rates.get().refused;
        if let Err(error) = self.world.refuse("a submission", REFUSED, rate) {
            return Err(NotSubmitted::new(operation, error));
        }
        let is_free = |index: &usize| {
            let is_completed = |one: &(u64, Token, Completed)| one.1.index() as usize == *index;
            self.slots[*index].held.is_none() && !self.completed.iter().any(is_completed)
        };
        let free = (0..self.slots.len()).find(is_free);
        let index = free.unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.held = Some((self.world.submitting.get(), operation));
        let token = Token::new(index as u32, slot.generation);
        self.push_entry(Submitted::Operation(index as u32));
        Ok(token)
    }

    fn cancel(&mut self, operation: Token) {
        let slot = self.slots.get(operation.index() as usize);
        let slot = slot.filter(|slot| slot.generation == operation.generation());
        let Some(id) = slot.and_then(|slot| slot.held.as_ref()).map(|held| held.0) else {
            return;
        };
        if self.world.plant == Some(Plant::BuffersFreed)
            && let Some((_, operation)) = &mut self.slots[operation.index() as usize].held
        {
            drop(operation.take_buffers());
        }
        self.cancel_id(operation.index(), id);
    }

    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        let (id, token, completed) = self.completed.pop_front()?;
        self.world.return_operation(id);
        Some((token, completed))
    }

    fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn accepted(&self) -> usize {
        self.accepted
    }

    fn end_operations(&mut self, other: &mut dyn FnMut(Completion)) {
        for index in 0..self.slots.len() {
            let Some(id) = self.slots[index].held.as_ref().map(|held| held.0) else {
                continue;
            };
            self.cancel_id(index as u32, id);
        }
        let end = self.world.time.get().saturating_add(END_TIMEOUT);
        loop {
            while !self.queue.is_empty() || !self.waiting.is_empty() {
                self.take_queue();
                self.flush_waiting();
            }
            self.work(usize::MAX);
            while !self.completions.is_empty() {
                while let Some(completion) = self.next() {
                    other(completion);
                }
                self.flush_overflow();
            }
            if self.in_kernel().is_empty() {
                return;
            }
            match self.world.next_action() {
                Some(at) if at <= end => {
                    self.world.time.set(self.world.time.get().max(at));
                    self.world.others_may_act();
                }
                _ => break,
            }
        }
        for id in self.in_kernel() {
            let Some(index) = self.holder(id) else { continue };
            if let Some((_, operation)) = &mut self.slots[index].held {
                self.world.leak_operation(id, operation.take_buffers());
            }
            self.finish(index, Err(Errno::TIMEDOUT.raw_os_error()));
        }
    }
}

impl Drop for SimulatedRing {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end_operations(&mut |_| {});
        }
        self.world.kernel.borrow_mut().cancel_all_requests();
        self.world.has_ring.set(false);
    }
}

impl fmt::Debug for SimulatedRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedRing")
    }
}
