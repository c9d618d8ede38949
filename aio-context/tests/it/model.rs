//! A reference loop: what a context should do with a trace, as simply as it can be said.
//!
//! It is told what the real one called, for one reason: in which order handlers of one iteration come is the backend's
//! business. Where the model has a choice it follows, and what is left over must have had a reason not to be called.

use std::collections::{BTreeMap, VecDeque};

use aio_context::{Interest, Readiness};

use crate::trace::{DEEPEST, MOST_BYTES, MOST_POLLS, Name, PATIENCE, Script, Step};

/// A callback panicked.
struct Panic;

type Flow<T = ()> = Result<T, Panic>;

#[derive(Default)]
struct Stream {
    bytes: u32,
    closed: bool,
}

struct Registration {
    descriptor: Name,
    label: Name,
    /// Another one after each replacement.
    handler: u32,
    interest: Interest,
    group: Name,
    /// Collected and not served.
    ready: Readiness,
    /// It had an event while it was paused, and hears nothing until it is resumed.
    parked: bool,
}

#[derive(Default)]
struct BottomHalf {
    label: String,
    queued: bool,
    scheduled: bool,
    idle: bool,
    deleted: bool,
}

#[derive(Default)]
struct Timer {
    /// The deadline, and a number that grows with each arming.
    armed: Option<(u64, u64)>,
    /// Taken out of the armed ones by a run that has not come to it.
    due: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Model {
    log: Vec<String>,
    /// What the real context called.
    observed: Vec<String>,
    now_ms: u64,
    depth: u32,
    polls: u32,
    scripts: BTreeMap<Name, Script>,
    streams: BTreeMap<Name, Stream>,
    registrations: BTreeMap<u32, Registration>,
    pauses: BTreeMap<Name, u32>,
    bottom_halves: Vec<BottomHalf>,
    live_bottom_halves: BTreeMap<Name, usize>,
    /// Posted, and not taken by an iteration.
    inbox: Vec<usize>,
    /// One of them was scheduled, not idle.
    urgent: bool,
    /// Taken, and still to be run.
    line: VecDeque<usize>,
    /// The next wait does not wait.
    notified: bool,
    timers: BTreeMap<Name, Timer>,
    due: VecDeque<(Name, u64)>,
    counter: u64,
}

impl Model {
    /// Does a step and returns what is called, given what the real context called.
    pub(crate) fn step(&mut self, step: &Step, observed: &[String]) -> Vec<String> {
        self.observed = observed.to_vec();
        self.polls = 0;
        if self.run(step).is_err() {
            self.depth = 0;
            self.log.push("panic".to_owned());
        }
        std::mem::take(&mut self.log)
    }

    fn called(&mut self, label: &str, otherwise: &[Step]) -> Flow {
        self.log.push(label.to_owned());
        let script = self.scripts.get(label).cloned();
        let steps = script.as_deref().unwrap_or(otherwise);
        steps.iter().try_for_each(|step| self.run(step))
    }

    fn run(&mut self, step: &Step) -> Flow {
        match step {
            Step::On(label, script) => drop(self.scripts.insert(label.clone(), script.clone())),
            Step::Advance(ms) => self.now_ms += ms,
            Step::Poll => self.poll(|model| model.iterate(None))?,
            Step::Wait(ms) => self.poll(|model| model.wait(*ms))?,
            Step::Panic => return Err(Panic),
            Step::Kick(name) => {
                let stream = self.streams.entry(name.clone()).or_default();
                stream.bytes += u32::from(!stream.closed && stream.bytes < MOST_BYTES);
            }
            Step::Drain(name) => self.streams.entry(name.clone()).or_default().bytes = 0,
            Step::Close(name) => self.streams.entry(name.clone()).or_default().closed = true,
            Step::Watch(name, interest, group) => {
                self.run(&Step::Remove(name.clone()))?;
                let (id, handler) = (self.next() as u32, self.next() as u32);
                let registration = Registration {
                    descriptor: name.clone(),
                    label: name.clone(),
                    handler,
                    interest: *interest,
                    group: group.clone(),
                    ready: Readiness::empty(),
                    parked: false,
                };
                self.registrations.insert(id, registration);
            }
            Step::Replace(name, label) => {
                let handler = self.next() as u32;
                if let Some(registration) = self.registration(name) {
                    registration.label = label.clone();
                    registration.handler = handler;
                    registration.ready = Readiness::empty();
                }
            }
            Step::Remove(name) => self.registrations.retain(|_, one| one.descriptor != *name),
            Step::Interest(name, interest) => {
                if let Some(registration) = self.registration(name) {
                    registration.interest = *interest;
                    registration.ready &= interest.mask();
                }
            }
            Step::Pause(group) => *self.pauses.entry(group.clone()).or_default() += 1,
            Step::Resume(group) => self.resume(group),
            Step::BottomHalf(_) | Step::Schedule(_) | Step::Idle(_) | Step::Cancel(_) | Step::Delete(_) => {
                self.run_on_bottom_half(step);
            }
            Step::Timer(name) => drop(self.timers.entry(name.clone()).or_default()),
            Step::Arm(name, ms) => self.arm(name, *ms, false),
            Step::Anticipate(name, ms) => self.arm(name, *ms, true),
            Step::Disarm(name) => drop(self.timers.get_mut(name).map(std::mem::take)),
            Step::Forget(name) => drop(self.timers.remove(name)),
        }
        Ok(())
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn registration(&mut self, descriptor: &Name) -> Option<&mut Registration> {
        self.registrations
            .values_mut()
            .find(|one| one.descriptor == *descriptor)
    }

    fn is_paused(&self, group: &Name) -> bool {
        self.pauses.get(group).is_some_and(|pauses| *pauses > 0)
    }

    fn resume(&mut self, group: &Name) {
        let pauses = self.pauses.entry(group.clone()).or_default();
        if *pauses == 1 {
            self.notified = true;
            for one in self.registrations.values_mut().filter(|one| one.group == *group) {
                one.parked = false;
            }
        }
        *pauses = pauses.saturating_sub(1);
    }

    fn run_on_bottom_half(&mut self, step: &Step) {
        if let Step::BottomHalf(name) = step {
            if !self.live_bottom_halves.contains_key(name) {
                self.live_bottom_halves
                    .insert(name.clone(), self.bottom_halves.len());
                self.bottom_halves.push(BottomHalf {
                    label: name.to_string(),
                    ..BottomHalf::default()
                });
            }
            return;
        }
        let (Step::Schedule(name) | Step::Idle(name) | Step::Cancel(name) | Step::Delete(name)) = step else {
            unreachable!("{step:?}")
        };
        let Some(&index) = self.live_bottom_halves.get(name) else {
            return;
        };
        let bh = &mut self.bottom_halves[index];
        match step {
            Step::Schedule(_) => {
                bh.scheduled = true;
                self.urgent = true;
                self.notified = true;
            }
            Step::Cancel(_) => (bh.scheduled, bh.idle) = (false, false),
            Step::Delete(_) => {
                // It is posted once more, so that the loop frees it.
                bh.deleted = true;
                self.notified = true;
                self.live_bottom_halves.remove(name);
            }
            _ => bh.idle = true,
        }
        if !matches!(step, Step::Cancel(_)) && !std::mem::replace(&mut bh.queued, true) {
            self.inbox.push(index);
        }
    }

    fn arm(&mut self, name: &Name, ms: u64, only_earlier: bool) {
        let armed = (self.now_ms + ms, self.next());
        if let Some(timer) = self.timers.get_mut(name) {
            let present = timer.due.map(|_| 0).or(timer.armed.map(|(deadline, _)| deadline));
            if !only_earlier || present.is_none_or(|present| present > armed.0) {
                *timer = Timer {
                    armed: Some(armed),
                    due: None,
                };
            }
        }
    }

    fn poll(&mut self, poll: impl FnOnce(&mut Self) -> Flow<bool>) -> Flow {
        self.polls += 1;
        if self.depth == DEEPEST || self.polls > MOST_POLLS {
            return Ok(());
        }
        let nested = self.depth > 0;
        if nested {
            self.log.push("[".to_owned());
        }
        self.depth += 1;
        let progress = poll(self)?;
        self.depth -= 1;
        let sign = if progress { "+" } else { "-" };
        self.log.push(format!("{}{sign}", if nested { "]" } else { "" }));
        Ok(())
    }

    fn wait(&mut self, ms: u64) -> Flow<bool> {
        let end = self.now_ms + ms;
        for _ in 0..PATIENCE {
            let progress = self.iterate(Some(end.saturating_sub(self.now_ms)))?;
            if progress || self.now_ms >= end {
                return Ok(progress);
            }
        }
        self.log.push("busy".to_owned());
        Ok(false)
    }

    /// One iteration, in the order of rule D5; `None`: do not wait.
    fn iterate(&mut self, at_most: Option<u64>) -> Flow<bool> {
        let timeout = at_most.map_or(0, |limit| self.timeout(limit));
        let (found, silence) = self.collect();
        if silence && !self.notified {
            self.now_ms += timeout;
        }
        self.notified = false;
        let Ok(mut progress) = self.run_bottom_halves() else {
            self.forget(&found);
            return Err(Panic);
        };
        progress |= self.dispatch(found)?;
        progress |= self.run_timers()?;
        Ok(progress)
    }

    /// Rule T1.
    fn timeout(&self, limit: u64) -> u64 {
        if !self.line.is_empty() || (self.urgent && !self.inbox.is_empty()) {
            return 0;
        }
        let nap = (!self.inbox.is_empty()).then_some(10);
        let timers = self.timers.values().filter_map(|timer| match timer.due {
            Some(_) => Some(0),
            None => Some(timer.armed?.0.saturating_sub(self.now_ms)),
        });
        timers.chain(nap).chain([limit]).min().unwrap_or(0)
    }

    /// Who is ready, and whether nobody had any event.
    fn collect(&mut self) -> (Vec<u32>, bool) {
        let (mut found, mut silence) = (Vec::new(), true);
        for (id, one) in &mut self.registrations {
            let paused = self.pauses.get(&one.group).is_some_and(|pauses| *pauses > 0);
            let stream = self.streams.entry(one.descriptor.clone()).or_default();
            let mut ready = Readiness::OUT;
            ready.set(Readiness::IN, stream.bytes > 0 || stream.closed);
            ready.set(Readiness::HUP, stream.closed);
            ready &= one.interest.mask();
            if one.parked || ready.is_empty() {
                continue;
            }
            silence = false;
            if paused {
                one.parked = true;
                one.ready = Readiness::empty();
            } else {
                one.ready |= ready;
                found.push(*id);
            }
        }
        (found, silence)
    }

    fn forget(&mut self, found: &[u32]) {
        for id in found {
            if let Some(one) = self.registrations.get_mut(id) {
                one.ready = Readiness::empty();
            }
        }
    }

    fn run_bottom_halves(&mut self) -> Flow<bool> {
        self.urgent &= self.inbox.is_empty();
        self.line.extend(std::mem::take(&mut self.inbox));
        let mut progress = false;
        while let Some(index) = self.line.pop_front() {
            let bh = &mut self.bottom_halves[index];
            bh.queued = false;
            let (scheduled, idle) = (std::mem::take(&mut bh.scheduled), std::mem::take(&mut bh.idle));
            if !bh.deleted && (scheduled || idle) {
                let label = bh.label.clone();
                progress |= scheduled;
                self.called(&label, &[])?;
            }
        }
        Ok(progress)
    }

    /// Serves who was found, in the order that was observed.
    fn dispatch(&mut self, mut found: Vec<u32>) -> Flow<bool> {
        let (mut progress, mut skipped) = (false, Vec::new());
        loop {
            // Who is passed over once is not come back to: it may have been that one's turn.
            skipped.extend(found.iter().filter(|id| self.call_of(**id).is_none()).copied());
            let observed = self.observed.get(self.log.len()).cloned();
            let is_next = |id: &u32| observed.is_some() && self.call_of(*id) == observed;
            let overdue = |id: &u32| self.call_of(*id).is_some() && !skipped.contains(id);
            let chosen = found.iter().position(is_next).or(found.iter().position(overdue));
            let Some(id) = chosen.map(|position| found.swap_remove(position)) else {
                self.forget(&found);
                return Ok(progress);
            };
            progress = true;
            if self.serve(id).is_err() {
                self.forget(&found);
                return Err(Panic);
            }
        }
    }

    /// The first callback that a registration would get now, if any.
    fn call_of(&self, id: u32) -> Option<String> {
        let one = self.registrations.get(&id)?;
        if self.is_paused(&one.group) {
            return None;
        }
        let side = match one.ready {
            ready if ready.wakes_reader(one.interest) => "readable",
            ready if ready.wakes_writer(one.interest) => "writable",
            _ => return None,
        };
        Some(format!("{}.{side}", one.label))
    }

    /// Rule D3, with the second look of rule R9.
    fn serve(&mut self, id: u32) -> Flow {
        let Some(one) = self.registrations.get_mut(&id) else {
            return Ok(());
        };
        let ready = std::mem::replace(&mut one.ready, Readiness::empty());
        let (handler, interest) = (one.handler, one.interest);
        let (label, drain) = (one.label.clone(), Step::Drain(one.descriptor.clone()));
        if ready.wakes_reader(interest) {
            self.called(&format!("{label}.readable"), &[drain])?;
        }
        let still = self.registrations.get(&id).is_some_and(|one| {
            one.handler == handler && ready.wakes_writer(one.interest) && !self.is_paused(&one.group)
        });
        if still && ready.wakes_writer(interest) {
            self.called(&format!("{label}.writable"), &[])?;
        }
        Ok(())
    }

    fn run_timers(&mut self) -> Flow<bool> {
        let mut due: Vec<_> = self.timers.iter_mut().collect();
        due.retain(|(_, timer)| timer.armed.is_some_and(|(deadline, _)| deadline <= self.now_ms));
        due.sort_by_key(|(_, timer)| timer.armed);
        for (name, timer) in due {
            timer.due = timer.armed.take().map(|(_, ticket)| ticket);
            self.due.extend(timer.due.map(|ticket| (name.clone(), ticket)));
        }
        let mut fired = false;
        while let Some((name, ticket)) = self.due.pop_front() {
            let timer = self.timers.get_mut(&name);
            if timer.is_some_and(|timer| timer.due.take_if(|due| *due == ticket).is_some()) {
                fired = true;
                self.called(&name, &[])?;
            }
        }
        Ok(fired)
    }
}
