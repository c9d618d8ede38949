//! One iteration of the reference, in the order of rule D5.

use aio_context::Readiness;

use super::{Flow, Hit, MILLI, Masked, Model, Pending, Registration};
use crate::log::{Entry, What};
use crate::op::{Callback, Name, Side};
use crate::setup::Waiter;

/// The longest sleep of a loop with an idle bottom half (rule H8).
const NAP: u64 = 10 * MILLI;
/// The number of consecutive iterations without a change of time after which a poll ends.
const MOST_STUCK: u32 = 100;
/// The most iterations in which a ready descriptor may be passed over, because polling found other work (rule
/// D8).
const MOST_PASSED_OVER: u32 = 80;

/// A registration with events, and whether its callback is certain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) id: u64,
    pub(super) is_hit: bool,
    pub(super) is_sure: bool,
    /// It was not callable at some moment, perhaps when its turn came.
    pub(super) was_uncallable: bool,
    /// The events that an outer iteration has left for it.
    pub(super) left: Pending,
}

impl Found {
    pub(super) fn new(id: u64, is_hit: bool, is_sure: bool, left: Pending) -> Self {
        Self {
            id,
            is_hit,
            is_sure,
            was_uncallable: false,
            left,
        }
    }
}

/// The events of a registration.
struct Outcome {
    id: u64,
    paused: bool,
    hit: Hit,
    /// The readiness of its file at the end.
    now: Readiness,
    sure: Readiness,
    perhaps: Readiness,
}

/// The state of a registration at some moment before the loop's wait ended.
#[derive(Clone, Copy, Debug)]
struct Seen {
    id: u64,
    ready: Readiness,
    /// There was work, and it may have been polled.
    work: bool,
    /// The handler that had work without a kick from the start.
    unkicked: Option<u64>,
}

/// The first part of an iteration: polling, and the wait.
struct Search {
    started: u64,
    timeout: u64,
    /// The longest time that it may poll.
    spin: u64,
    seen: Vec<Seen>,
    /// A check found a closed number. It was the last check.
    broke: bool,
    /// A handler changed something in its `poll`, and then returned `true`.
    interfered: bool,
    answered: bool,
    /// A handler changed something in its `poll_end`.
    acted: bool,
    /// A handler got its `poll_end`.
    ended: bool,
}

impl Model {
    /// Runs a poll; with `None` it does not wait. A poll that may wait continues until there is progress, its
    /// time is over, or a notification arrives.
    pub(super) fn iterate(&mut self, at_most: Option<u64>) -> Flow<bool> {
        let end = at_most.map_or(self.now, |limit| self.now + limit);
        let foreign = self.waiter == Waiter::Foreign;
        let (nested, calls) = (self.nested_progress, self.calls_seen);
        let (mut stuck, mut last) = (0, None);
        loop {
            let left = at_most.map(|_| end.saturating_sub(self.now));
            let mut progress = self.iterate_once(left)?;
            if !foreign {
                progress |= self.nested_progress != nested;
                self.nested_progress = nested + u64::from(progress);
            }
            if !progress && !self.notified {
                self.calls_seen = self.calls;
            }
            stuck = if last.replace(self.now) == Some(self.now) {
                stuck + 1
            } else {
                0
            };
            let is_called = !foreign && self.calls != calls;
            if is_called && progress && self.notified {
                // The loop has made one more iteration if, and only if, that one made the progress.
                (self.notified, self.maybe_notified) = (false, true);
            }
            if is_called && !progress && self.notified && at_most.is_some() {
                progress = self.iterate_once(None)? || self.nested_progress != nested;
                self.nested_progress = nested + u64::from(progress);
                if !progress && !self.notified {
                    self.calls_seen = self.calls;
                }
            }
            if progress || foreign || is_called || self.now >= end || stuck >= MOST_STUCK {
                self.record(What::Iterated);
                return Ok(progress);
            }
        }
    }

    fn iterate_once(&mut self, at_most: Option<u64>) -> Flow<bool> {
        let foreign = self.waiter == Waiter::Foreign;
        self.most_polling = if foreign { 0 } else { self.polling };
        let before = self.deciding;
        self.deciding |= !foreign;
        let (found, mut progress) = self.search_and_wait(at_most)?;
        let is_unchecked = self.is_unchecked && !foreign && at_most.is_some();
        self.deciding = before;
        self.poll_mode = self.most_polling > 0;
        (self.notified, self.maybe_notified) = (false, false);
        progress |= self.run_bottom_halves()?;
        progress |= self.dispatch(found, is_unchecked && !progress)?;
        progress |= self.run_timers()?;
        Ok(progress)
    }

    /// Returns the timeout by rule T1.
    fn timeout(&self, limit: u64) -> u64 {
        if !self.line.is_empty() || (self.urgent && !self.inbox.is_empty()) {
            return 0;
        }
        let nap = (!self.inbox.is_empty()).then_some(NAP);
        let timers = self.timers.iter().filter_map(|(_, timer)| match timer.due {
            Some(_) => Some(0),
            None => Some(timer.armed?.0.saturating_sub(self.now)),
        });
        let timeout = timers.chain(nap).chain([limit]).min().unwrap_or(0);
        if self.waiter == Waiter::Foreign {
            timeout.next_multiple_of(MILLI)
        } else {
            timeout
        }
    }

    /// Returns the registrations with events, and `true` if one was invalidated, which is progress.
    fn search_and_wait(&mut self, at_most: Option<u64>) -> Flow<(Vec<Found>, bool)> {
        let timeout = at_most.map_or(0, |limit| self.timeout(limit));
        let mut search = Search {
            started: self.now,
            timeout,
            spin: timeout.min(self.most_polling),
            seen: Vec::new(),
            broke: false,
            interfered: false,
            answered: false,
            acted: false,
            ended: false,
        };
        self.poll_mode |= search.spin > 0;
        self.observe(&mut search);
        for one in &mut search.seen {
            let found = self.registrations.iter().find(|other| other.id == one.id);
            one.unkicked = found
                .filter(|found| self.must_be_polled(found))
                .map(|found| found.handler);
        }
        while let Some(entry) = self.next()
            && self.follow(entry, &mut search)?
        {
            self.observe(&mut search);
        }
        Ok((self.end_search(&search), search.broke))
    }

    /// Records the registrations that are ready, and those with work that a poll would find.
    fn observe(&mut self, search: &mut Search) {
        for place in 0..self.registrations.len() {
            let (ready, work) = (self.ready(place), self.may_hit(place));
            let id = self.registrations[place].id;
            match search.seen.iter_mut().find(|seen| seen.id == id) {
                Some(seen) => {
                    seen.ready |= ready;
                    seen.work |= work;
                }
                None => search.seen.push(Seen {
                    id,
                    ready,
                    work,
                    unkicked: None,
                }),
            }
        }
    }

    /// Follows the real context in a step that it may take before it waits. Returns `false` if the next entry is not such a step.
    fn follow(&mut self, entry: Entry, search: &mut Search) -> Flow<bool> {
        let (label, side) = match entry.what {
            What::Called(Callback::Of(label, side)) => (label, side),
            What::EndedGone(label) => (label, Side::Invalidated),
            _ => return Ok(false),
        };
        let Some(place) = self.find_callable(label, side) else {
            return Ok(false);
        };
        let end = search.started + search.timeout;
        // The poll may continue with another iteration. The entry then belongs to that.
        let is_next_iteration = match side {
            Side::Begin => entry.at != search.started,
            // A notification ends a search in poll mode, without delay. The next search has a timeout of its
            // own.
            Side::End if self.notified && !search.ended && entry.at > self.now => true,
            _ => entry.at > search.started + search.spin,
        };
        if is_next_iteration && self.waiter != Waiter::Foreign {
            return Ok(false);
        }
        // With a foreign loop, only the context's own check after the wait detects closed numbers.
        let is_late = self.waiter == Waiter::Foreign && side == Side::Invalidated && entry.at == end;
        if is_late || (self.now..=search.started + search.spin).contains(&entry.at) {
            self.now = entry.at;
        }
        let one = &mut self.registrations[place];
        let fd = one.fd;
        let device = &mut self.devices[fd.place()];
        match side {
            Side::Begin => {
                (one.begun, one.owed) = (true, false);
                device.is_polled = true;
                self.called(Callback::Of(label, side), &[])?;
            }
            Side::End => {
                let ended = self.end(place, search);
                if ended.is_err() {
                    self.end_others(search);
                    self.interrupt_check();
                }
                ended?;
            }
            Side::Invalidated => {
                search.broke = true;
                let invalidated = self.invalidate(place);
                if invalidated.is_err() {
                    self.invalidate_others();
                    self.interrupt_check();
                }
                invalidated?;
            }
            _ => {
                search.interfered = true;
                let callback = Callback::Of(label, side);
                let script = self.scripts.take(callback);
                self.record(What::Called(callback));
                let answer = self.run_script(script.as_deref().unwrap_or_default());
                if answer.is_err() {
                    self.interrupt_check();
                }
                answer?;
                // The hit counts even if the handler was paused or removed in the meantime.
                search.answered |= self.devices[fd.place()].work > 0;
            }
        }
        Ok(true)
    }

    /// Calls a handler's `poll_end`. After it one last poll is pending.
    fn end(&mut self, place: usize, search: &mut Search) -> Flow {
        let one = &mut self.registrations[place];
        let callback = Callback::Of(one.label, Side::End);
        (one.begun, one.owed) = (false, true);
        self.devices[one.fd.place()].is_polled = false;
        search.ended = true;
        search.acted |= self.scripts.has(callback);
        self.called(callback, &[])
    }

    /// Handles a panic of a handler in its `poll_end`. If the loop is about to sleep, all others still get
    /// their `poll_end`. If only this handler was demoted, no other one does.
    fn end_others(&mut self, search: &mut Search) {
        let mut others = 0;
        while let Some(Callback::Of(label, Side::End)) = self.next_call() {
            let Some(place) = self.find_callable(label, Side::End) else {
                break;
            };
            // The first panic is propagated.
            let _ = self.end(place, search);
            others += 1;
        }
        let is_polled = |one: &Registration| one.begun && !self.is_paused(one.group);
        if others > 0 && self.registrations.iter().any(is_polled) {
            self.record(What::Illegal(
                "D9: a panic in `poll_end` kept another one from its own",
            ));
        }
    }

    /// Handles a panic of a handler that was invalidated: the others with closed numbers in this check are
    /// invalidated all the same.
    fn invalidate_others(&mut self) {
        while let Some(Entry { what, .. }) = self.next() {
            let (What::Called(Callback::Of(label, Side::Invalidated)) | What::EndedGone(label)) = what else {
                return;
            };
            let Some(place) = self.find_callable(label, Side::Invalidated) else {
                return;
            };
            // The first panic is propagated.
            let _ = self.invalidate(place);
        }
    }

    /// Returns the registration that may get this callback before the wait.
    fn find_callable(&self, label: Name, side: Side) -> Option<usize> {
        let may = |one: &Registration| match side {
            Side::Begin => one.polled && !one.begun && !self.is_paused(one.group) && self.most_polling > 0,
            Side::End => one.begun,
            Side::Invalidated => !self.files.is_open(one.fd),
            Side::Poll => self.may_be_polled(one) && self.scripts.has(Callback::Of(label, side)),
            Side::Readable | Side::Writable | Side::Priority | Side::PollReady => false,
        };
        self.registrations
            .iter()
            .position(|one| one.label == label && may(one))
    }

    /// Ends the search and the wait, and returns the registrations with events.
    fn end_search(&mut self, search: &Search) -> Vec<Found> {
        // A hit ends polling, perhaps without a check of the descriptors; so does a notification.
        let worked = |seen: &Seen| seen.work;
        let is_hit = search.answered || search.seen.iter().any(worked);
        let ends_early = search.spin > 0 && (self.notified || self.maybe_notified || is_hit);
        let checks = !ends_early && !search.broke;
        self.is_unchecked = ends_early;
        if checks && self.waiter.detects_closes() && self.is_any_close_unreported() {
            self.record(What::Illegal("R4: a closed number was not reported"));
        }
        let outcomes: Vec<_> = search
            .seen
            .iter()
            .filter_map(|seen| self.outcome(seen, search, checks))
            .collect();
        let (mut is_sure, mut is_possible) = (self.notified || search.broke, is_hit);
        is_possible |= self.maybe_notified || self.haunted && self.waiter == Waiter::Foreign;
        // A handler with work without a kick keeps the loop awake, even if it is not called yet.
        is_sure |= self.registrations.iter().any(|one| self.must_be_polled(one));
        for one in &outcomes {
            is_sure |= one.hit == Hit::Yes || !one.sure.is_empty();
            is_possible |= one.hit == Hit::Perhaps || !one.perhaps.is_empty();
        }
        let slept = self.pass(search, is_sure, is_possible);
        let mut found = Vec::new();
        for place in 0..self.registrations.len() {
            let was_polled = self.may_be_polled(&self.registrations[place]);
            self.registrations[place].owed &= !was_polled;
        }
        for one in outcomes {
            self.take_in(&one, slept, &mut found);
        }
        found
    }

    fn outcome(&mut self, seen: &Seen, search: &Search, checks: bool) -> Option<Outcome> {
        let place = self.registrations.iter().position(|one| one.id == seen.id)?;
        let now = self.ready(place);
        let one = &self.registrations[place];
        let is_overdue = one.passed_over > MOST_PASSED_OVER;
        // The event of an interest in one event is collected once, with the readiness at that time.
        let collected = if one.is_once() {
            one.pending.perhaps
        } else {
            Readiness::empty()
        };
        let is_armed = one.masked == Masked::No && collected.is_empty();
        let is_sure = self.files.is_open(one.fd) && is_armed && (checks || is_overdue);
        let mut outcome = Outcome {
            id: one.id,
            paused: self.is_paused(one.group),
            hit: self.hit(place, seen, search),
            now,
            sure: Readiness::empty(),
            perhaps: seen.ready | now | collected,
        };
        if is_sure {
            outcome.sure = now;
        }
        let one = &mut self.registrations[place];
        if checks && one.masked == Masked::Perhaps && !now.is_empty() {
            one.masked = Masked::Yes;
        }
        if outcome.perhaps.is_empty() {
            one.passed_over = 0;
        }
        Some(outcome)
    }

    /// Stores the events of a registration. If the loop slept, there were none, and at most the handler is masked.
    fn take_in(&mut self, outcome: &Outcome, slept: bool, found: &mut Vec<Found>) {
        let Some(one) = self.registrations.iter_mut().find(|one| one.id == outcome.id) else {
            return;
        };
        let left = one.pending;
        let mut push = |is_hit, is_sure| found.push(Found::new(outcome.id, is_hit, is_sure, left));
        if outcome.paused && !outcome.perhaps.is_empty() {
            // If the loop sleeps beside a ready file, it has masked its handler. Earlier readiness may have been
            // drained before it was collected.
            if !outcome.sure.is_empty() || slept && !outcome.now.is_empty() {
                one.masked = Masked::Yes;
                one.pending.perhaps = Readiness::empty();
            } else if one.masked == Masked::No {
                one.masked = Masked::Perhaps;
            }
            one.pending.sure = Readiness::empty();
        } else if !outcome.perhaps.is_empty() && !slept {
            one.pending.sure |= outcome.sure;
            one.pending.perhaps |= outcome.perhaps;
            push(false, !outcome.sure.is_empty());
        }
        if outcome.hit != Hit::No && !slept {
            if one.pending.hit != Hit::Yes {
                one.pending.hit = outcome.hit;
            }
            push(true, outcome.hit == Hit::Yes);
        }
    }

    fn hit(&self, place: usize, seen: &Seen, search: &Search) -> Hit {
        let one = &self.registrations[place];
        if !self.may_be_polled(one) {
            return Hit::No;
        }
        let from_the_start = seen.unkicked == Some(one.handler) && !search.interfered;
        // A demoted handler may bring work to others after they were polled. A hit ends the search before
        // they are polled again.
        let others = || search.seen.iter().any(|other| other.id != seen.id && other.work);
        let is_overtaken = search.acted && others();
        let undisturbed = !search.broke && !search.interfered && !is_overtaken && self.must_be_polled(one);
        if self.devices[one.fd.place()].unkicked && (from_the_start || undisturbed) {
            Hit::Yes
        } else if seen.work || self.may_hit(place) {
            Hit::Perhaps
        } else {
            Hit::No
        }
    }

    /// Advances the time as the rules demand or, if they leave it open, as the real context did. Returns
    /// `true` if the loop slept.
    fn pass(&mut self, search: &Search, is_sure: bool, is_possible: bool) -> bool {
        let observed = self.next().map_or(self.now, |entry| entry.at);
        let end = search.started + search.timeout;
        let awake = observed.clamp(self.now, (search.started + search.spin).max(self.now));
        self.now = match (is_sure, is_possible) {
            (true, _) => awake,
            (false, true) if observed != end => awake,
            (false, _) => end,
        };
        let slept = search.timeout > search.spin && !is_sure && self.now == end;
        // A paused handler is polled after the pause.
        let waits_in_vain = |one: &Registration| one.begun && !self.is_paused(one.group);
        if slept && self.registrations.iter().any(waits_in_vain) {
            self.record(What::Illegal("A5: asleep without a `poll_end`"));
        }
        slept
    }
}
