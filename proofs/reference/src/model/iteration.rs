//! One iteration of the reference, in the order of rule D5.

use aio_context::Readiness;

use super::{Flow, Hit, MILLI, Model, Parked, Pending, Registration};
use crate::log::{Entry, What};
use crate::op::{Callback, Name, Side};
use crate::setup::Waiter;

/// An idle bottom half lets the loop sleep, but no longer than this (rule H8).
const NAP: u64 = 10 * MILLI;
/// A poll ends after so many iterations in a row in which no time passes.
const MOST_STUCK: u32 = 100;
/// In so many iterations a ready descriptor may be passed over, because polling found something else (rule D8).
const MOST_PASSED_OVER: u32 = 80;

/// Who was found, and whether it has to be called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) id: u64,
    pub(super) is_hit: bool,
    pub(super) is_sure: bool,
    /// It could not be called at some moment, which may have been its turn.
    pub(super) was_deaf: bool,
    /// What an outer iteration has left for it.
    pub(super) left: Pending,
}

/// What was found for a registration.
struct Outcome {
    id: u64,
    paused: bool,
    hit: Hit,
    sure: Readiness,
    perhaps: Readiness,
}

/// What was the case at some moment before the loop's wait ended.
#[derive(Clone, Copy, Debug)]
struct Seen {
    id: u64,
    ready: Readiness,
    /// There was work, and it may have been asked.
    work: bool,
    /// There was work from the start that nobody kicks for.
    unkicked: Option<u64>,
}

/// The first part of an iteration: polling, and the wait.
struct Search {
    started: u64,
    timeout: u64,
    /// How long it may poll.
    spin: u64,
    seen: Vec<Seen>,
    /// A number was found closed, so there was a look, after which nobody looked again.
    broke: bool,
    /// A handler did something while it was asked, and then said yes.
    interfered: bool,
    answered: bool,
    /// A handler did something while it was told that polling ends for it.
    acted: bool,
}

impl Model {
    /// `None`: do not wait. A poll that may wait goes on until there is progress, its time is over, or somebody has notified.
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
            if is_called && !progress && self.notified && at_most.is_some() {
                progress = self.iterate_once(None)? || self.nested_progress != nested;
                self.nested_progress = nested + u64::from(progress);
                if !progress && !self.notified {
                    self.calls_seen = self.calls;
                }
            }
            if progress || foreign || is_called || self.now >= end || stuck >= MOST_STUCK {
                self.note(What::Iterated);
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
        self.deciding = before;
        self.poll_mode = self.most_polling > 0;
        self.notified = false;
        progress |= self.run_bottom_halves()?;
        progress |= self.dispatch(found)?;
        progress |= self.run_timers()?;
        Ok(progress)
    }

    /// Rule T1.
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

    /// Who was found, and whether a registration was found invalid, which is progress.
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
        };
        self.poll_mode |= search.spin > 0;
        self.look_around(&mut search);
        for one in &mut search.seen {
            let found = self.registrations.iter().find(|other| other.id == one.id);
            one.unkicked = found
                .filter(|found| self.must_be_asked(found))
                .map(|found| found.handler);
        }
        while let Some(entry) = self.next()
            && self.follow(entry, &mut search)?
        {
            self.look_around(&mut search);
        }
        Ok((self.end_search(&search), search.broke))
    }

    /// Notes who is ready, and who has work that a question would find.
    fn look_around(&mut self, search: &mut Search) {
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

    /// What a look would report.
    fn ready(&mut self, place: usize) -> Readiness {
        let one = &self.registrations[place];
        if one.parked == Parked::Yes {
            return Readiness::empty();
        }
        let (fd, mask) = (one.fd, one.interest.mask());
        self.files.readiness(fd) & mask
    }

    /// Whether it may be asked now (rules A9, B5).
    fn may_be_asked(&self, one: &Registration) -> bool {
        one.polled && one.busy == 0 && !self.is_paused(one.group) && self.waiter != Waiter::Foreign
    }

    fn may_hit(&self, place: usize) -> bool {
        let one = &self.registrations[place];
        let device = self.devices[one.fd.place()];
        // An answer that an outer iteration has in its hand is asked for once more.
        let owed = one.owed || device.unkicked || one.pending.hit != Hit::No;
        let somebody_asks = self.most_polling > 0 || self.poll_mode || owed;
        device.work > 0 && somebody_asks && self.may_be_asked(one)
    }

    /// Whether it has work that nobody has kicked for: then it is asked in every iteration (rule A5).
    fn must_be_asked(&self, one: &Registration) -> bool {
        self.may_be_asked(one) && self.devices[one.fd.place()].unkicked
    }

    /// Follows the real context in what it may do before it waits; false if the next thing is none of that.
    fn follow(&mut self, entry: Entry, search: &mut Search) -> Flow<bool> {
        let (label, side) = match entry.what {
            What::Called(Callback::Of(label, side)) => (label, side),
            What::EndedGone(label) => (label, Side::Broken),
            _ => return Ok(false),
        };
        let Some(place) = self.who_may(label, side) else {
            return Ok(false);
        };
        let end = search.started + search.timeout;
        // The poll may go on with another iteration, in which the rest belongs.
        let is_begin = side == Side::Begin;
        let is_next_iteration = if is_begin {
            entry.at != search.started
        } else {
            entry.at > search.started + search.spin
        };
        if is_next_iteration && self.waiter != Waiter::Foreign {
            return Ok(false);
        }
        // A foreign loop hears of closed numbers only when the context itself looks, after the wait.
        let is_late = self.waiter == Waiter::Foreign && side == Side::Broken && entry.at == end;
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
                }
                ended?;
            }
            Side::Broken => {
                search.broke = true;
                let told = self.give_up(place);
                if told.is_err() {
                    self.park_perhaps();
                }
                told?;
            }
            _ => {
                search.interfered = true;
                let callback = Callback::Of(label, side);
                let script = self.scripts.take(callback);
                self.note(What::Called(callback));
                self.run_script(script.as_deref().unwrap_or_default())?;
                // It may have been paused or removed meanwhile: that is an answer all the same.
                search.answered |= self.devices[fd.place()].work > 0;
            }
        }
        Ok(true)
    }

    /// A handler is told that polling is over, and is asked once more.
    fn end(&mut self, place: usize, search: &mut Search) -> Flow {
        let one = &mut self.registrations[place];
        let callback = Callback::Of(one.label, Side::End);
        (one.begun, one.owed) = (false, true);
        self.devices[one.fd.place()].is_polled = false;
        search.acted |= self.scripts.has(callback);
        self.called(callback, &[])
    }

    /// A handler panicked when it was told that polling is over. If the loop is about to sleep, all others hear it all the
    /// same; if that one handler was idle and left, none do.
    fn end_others(&mut self, search: &mut Search) {
        let mut others = 0;
        while let Some(Callback::Of(label, Side::End)) = self.next_call() {
            let Some(place) = self.who_may(label, Side::End) else {
                break;
            };
            // The first panic goes on.
            let _ = self.end(place, search);
            others += 1;
        }
        let is_polled = |one: &Registration| one.begun && !self.is_paused(one.group);
        if others > 0 && self.registrations.iter().any(is_polled) {
            self.note(What::Illegal(
                "D9: a panic in `poll_end` kept another one from its own",
            ));
        }
    }

    /// A look was broken off: whoever is paused has perhaps been silenced.
    fn park_perhaps(&mut self) {
        for place in 0..self.registrations.len() {
            let is_found = !self.ready(place).is_empty() && self.is_paused(self.registrations[place].group);
            let one = &mut self.registrations[place];
            if is_found && one.parked == Parked::No {
                one.parked = Parked::Perhaps;
            }
        }
    }

    /// Whose callback this can be before the wait.
    fn who_may(&self, label: Name, side: Side) -> Option<usize> {
        let may = |one: &Registration| match side {
            Side::Begin => one.polled && !one.begun && !self.is_paused(one.group) && self.most_polling > 0,
            Side::End => one.begun,
            Side::Broken => !self.files.is_open(one.fd),
            Side::Poll => self.may_be_asked(one) && self.scripts.has(Callback::Of(label, side)),
            Side::Readable | Side::Writable | Side::PollReady => false,
        };
        self.registrations
            .iter()
            .position(|one| one.label == label && may(one))
    }

    /// What the search and the wait found, and when they ended.
    fn end_search(&mut self, search: &Search) -> Vec<Found> {
        // A hit ends polling, and perhaps nobody looks at the descriptors then; so does a notification.
        let asked = |seen: &Seen| seen.work;
        let is_hit = search.answered || search.seen.iter().any(asked);
        let ends_early = search.spin > 0 && (self.notified || is_hit);
        let looks = !ends_early && !search.broke;
        if looks && self.waiter.hears_closes() && self.is_any_close_unheard() {
            self.note(What::Illegal("R4: a closed number was not reported"));
        }
        let outcomes: Vec<_> = search
            .seen
            .iter()
            .filter_map(|seen| self.outcome(seen, search, looks))
            .collect();
        let (mut is_sure, mut is_possible) = (self.notified || search.broke, is_hit);
        is_possible |= self.haunted && self.waiter == Waiter::Foreign;
        // Whoever has work that nobody kicks for keeps the loop awake, even if it is not called yet.
        is_sure |= self.registrations.iter().any(|one| self.must_be_asked(one));
        for one in &outcomes {
            is_sure |= one.hit == Hit::Yes || !one.sure.is_empty();
            is_possible |= one.hit == Hit::Perhaps || !one.perhaps.is_empty();
        }
        let slept = self.pass(search, is_sure, is_possible);
        let mut found = Vec::new();
        for place in 0..self.registrations.len() {
            let was_asked = self.may_be_asked(&self.registrations[place]);
            self.registrations[place].owed &= !was_asked;
        }
        for one in outcomes {
            self.take_in(&one, slept, &mut found);
        }
        found
    }

    fn outcome(&mut self, seen: &Seen, search: &Search, looks: bool) -> Option<Outcome> {
        let place = self.registrations.iter().position(|one| one.id == seen.id)?;
        let now = self.ready(place);
        let one = &self.registrations[place];
        let is_overdue = one.passed_over > MOST_PASSED_OVER;
        let is_sure = self.files.is_open(one.fd) && one.parked == Parked::No && (looks || is_overdue);
        let mut outcome = Outcome {
            id: one.id,
            paused: self.is_paused(one.group),
            hit: self.hit(place, seen, search),
            sure: Readiness::empty(),
            perhaps: seen.ready | now,
        };
        if is_sure {
            outcome.sure = now;
        }
        let one = &mut self.registrations[place];
        if looks && one.parked == Parked::Perhaps && !now.is_empty() {
            one.parked = Parked::Yes;
        }
        if outcome.perhaps.is_empty() {
            one.passed_over = 0;
        }
        Some(outcome)
    }

    /// Takes what was found to a registration; nothing but silence if the loop slept: what was perhaps there was not.
    fn take_in(&mut self, outcome: &Outcome, slept: bool, found: &mut Vec<Found>) {
        let Some(one) = self.registrations.iter_mut().find(|one| one.id == outcome.id) else {
            return;
        };
        let left = one.pending;
        let mut push = |is_hit, is_sure| {
            found.push(Found {
                id: outcome.id,
                is_hit,
                is_sure,
                was_deaf: false,
                left,
            });
        };
        if outcome.paused && !outcome.perhaps.is_empty() {
            if !outcome.sure.is_empty() || slept {
                one.parked = Parked::Yes;
                one.pending.perhaps = Readiness::empty();
            } else if one.parked == Parked::No {
                one.parked = Parked::Perhaps;
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

    fn is_any_close_unheard(&self) -> bool {
        self.registrations.iter().any(|one| {
            let is_asked = one.interest != aio_context::Interest::NONE && one.parked == Parked::No;
            is_asked && !self.files.is_open(one.fd)
        })
    }

    fn hit(&self, place: usize, seen: &Seen, search: &Search) -> Hit {
        let one = &self.registrations[place];
        if !self.may_be_asked(one) {
            return Hit::No;
        }
        let from_the_start = seen.unkicked == Some(one.handler) && !search.interfered;
        // Who cools down may bring work to others, after they have been asked; a hit ends the search before they are asked again.
        let others = || search.seen.iter().any(|other| other.id != seen.id && other.work);
        let is_overtaken = search.acted && others();
        let undisturbed = !search.broke && !search.interfered && !is_overtaken && self.must_be_asked(one);
        if self.devices[one.fd.place()].unkicked && (from_the_start || undisturbed) {
            Hit::Yes
        } else if seen.work || self.may_hit(place) {
            Hit::Perhaps
        } else {
            Hit::No
        }
    }

    /// Lets as much time pass as the rules say, and where they leave it open, as much as passed. True if the loop slept.
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
        // One that is paused is asked after the pause.
        let waits_in_vain = |one: &Registration| one.begun && !self.is_paused(one.group);
        if slept && self.registrations.iter().any(waits_in_vain) {
            self.note(What::Illegal("A5: asleep, and peers believe that it polls"));
        }
        slept
    }
}
