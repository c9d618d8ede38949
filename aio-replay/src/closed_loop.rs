//! [`ClosedLoop`]: a client that sends its next request when it has the answer to an earlier one, and pays for its kicks.
//!
//! A trace of waits cannot express that: whether the server sleeps decides when the next request comes (rule A11).

use std::collections::VecDeque;
use std::time::Duration;

use aio_pollctl::{Policy, PollParams, PollPolicy, WakeCost};

use crate::decider::{Decider, Pacing, Search};
use crate::{Random, to_ns};

/// A client, a server, and what their sleeps cost.
///
/// The client keeps `depth` requests under way. It takes one answer after the other, thinks, and sends the next request. The server
/// serves all requests it finds, one after the other, then polls for as long as its policy says, then sleeps. A request to a sleeping
/// server costs the client a kick, and the server wakes up a while later. A client that has nothing to do spins or sleeps; the server
/// pays for waking it.
///
/// # Examples
/// ```
/// use aio_replay::{ClosedLoop, Deciding};
///
/// // One request at a time; the client needs a microsecond between an answer and the next request.
/// let quick = ClosedLoop { think_ns: 1_000, ..ClosedLoop::default() };
/// let polling = quick.run(Deciding::Policy("always"), 10_000, 1).expect("a policy of that name");
/// let sleeping = quick.run(Deciding::Policy("never"), 10_000, 1).expect("a policy of that name");
/// assert_eq!((polling.kicks, sleeping.kicks), (0, 9_999));
/// assert!(polling.cost_ns() < sleeping.cost_ns());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClosedLoop {
    /// The number of requests under way; at least 1.
    pub depth: usize,
    /// The mean time in nanoseconds that the client computes before each request.
    pub think_ns: u64,
    /// How much that varies: the standard deviation as a share of the mean.
    pub think_spread: f64,
    /// Whether the client sleeps when it has nothing to do.
    pub client_sleeps: bool,
    /// The time that the server needs for a request.
    pub service_ns: u64,
    /// The cost of a sleep of the server, and of a kick.
    pub wake: WakeCost,
    /// The time that the server needs to wake a sleeping client, and that the client needs to wake up.
    pub call_ns: u64,
    /// See [`call_ns`](Self::call_ns). Both begin with the call.
    pub client_wake_ns: u64,
    /// The client kicks after it has dealt with all answers that it has, and the server calls after its batch if the rest of that takes less
    /// time than a call. Otherwise each request is a kick, and each answer a call.
    pub is_batched: bool,
    /// How long a client that sleeps looks for answers before it is asleep.
    pub client_stays_ns: u64,
    /// The time for a kick or a call if the other side is awake, and does not poll: a system call that wakes no thread.
    pub idle_call_ns: u64,
    /// How much longer a wake-up takes if the other side slept meanwhile: nothing kept the processor from falling idle.
    pub both_asleep_ns: u64,
    /// One request in so many is followed by a [pause](Self::pause_ns) of the client instead of a think time; 0 is none.
    pub pause_every: u64,
    /// See [`pause_every`](Self::pause_every).
    pub pause_ns: u64,
    /// The client runs on the server's core, and so only while the server sleeps.
    pub one_core: bool,
}

impl Default for ClosedLoop {
    /// A spinning client that does not think, one request at a time, on a usual machine.
    fn default() -> Self {
        Self {
            depth: 1,
            think_ns: 0,
            think_spread: 0.1,
            client_sleeps: false,
            service_ns: 200,
            wake: WakeCost::ASSUMED.with_kick(Duration::from_micros(3)),
            call_ns: 3_000,
            client_wake_ns: 8_000,
            is_batched: false,
            client_stays_ns: 0,
            idle_call_ns: 0,
            both_asleep_ns: 0,
            pause_every: 0,
            pause_ns: 0,
            one_core: false,
        }
    }
}

/// What decides how long the server polls.
///
/// # Examples
/// ```
/// use aio_replay::{ClosedLoop, Deciding};
///
/// let what = ClosedLoop { think_ns: 5_000, ..ClosedLoop::default() };
/// let cost = |deciding| what.run(deciding, 1000, 1).map(|outcome| outcome.wait_cost_ns());
/// assert!(cost(Deciding::Clairvoyant) <= cost(Deciding::Policy("learned")));
/// assert!(cost(Deciding::Policy("learned")) < cost(Deciding::Fixed(0)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deciding {
    /// The policy of this name.
    Policy(&'static str),
    /// The policy of this name in a loop as `aio-context` has it: it checks its descriptors before it sleeps ([`PreSleepSpin`](aio_pollctl::PreSleepSpin)) if it has not
    /// polled, and seldom polls after many polls in vain ([`Contention`](aio_pollctl::Contention)). With `never` this is a loop with polling off.
    Loop(&'static str),
    /// The same time, in nanoseconds, before each sleep.
    Fixed(u64),
    /// Knowledge of the moment of the next request: poll until then if that is cheaper than a sleep, else sleep at once.
    Clairvoyant,
}

/// What a run took.
///
/// # Examples
/// ```
/// use aio_replay::{ClosedLoop, Deciding};
///
/// let outcome = ClosedLoop::default().run(Deciding::Policy("always"), 1000, 1).unwrap_or_default();
/// assert_eq!((outcome.requests, outcome.kicks), (1000, 0));
/// assert!(outcome.throughput() > 1e6 && outcome.wait_cost_ns() < outcome.cost_ns());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClosedOutcome {
    /// Requests that were answered.
    pub requests: u64,
    /// The time until all were answered.
    pub elapsed_ns: u64,
    /// The time that the server polled.
    pub spin_ns: u64,
    /// The kicks: each ends a sleep of the server, or the checks before one.
    pub kicks: u64,
    /// What sleeps and kicks cost: latency, processor time, and the client's time for the kick.
    pub sleep_cost_ns: u64,
    /// The sum of all latencies, each until the client takes the answer.
    pub latency_ns: u64,
    /// The processor time of the server.
    pub cpu_ns: u64,
    /// The client's time for kicks.
    pub kick_ns: u64,
}

impl ClosedOutcome {
    /// What a request cost: processor time of the server, latency, and the client's time for kicks (P14).
    #[must_use]
    pub fn cost_ns(&self) -> f64 {
        (self.cpu_ns + self.latency_ns + self.kick_ns) as f64 / self.requests.max(1) as f64
    }

    /// What waiting cost for each request: polling and sleeps. The rest of the cost does not depend on the policy.
    #[must_use]
    pub fn wait_cost_ns(&self) -> f64 {
        (self.spin_ns + self.sleep_cost_ns) as f64 / self.requests.max(1) as f64
    }

    /// Requests per second.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        self.requests as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }
}

impl ClosedLoop {
    /// The parameters of a policy that knows the costs.
    #[must_use]
    pub fn params(&self) -> PollParams {
        PollParams::unlimited().with_wake(self.wake)
    }

    /// Runs until so many requests are answered. Returns `None` if there is no policy of that name.
    #[must_use]
    pub fn run(&self, deciding: Deciding, requests: u64, seed: u64) -> Option<ClosedOutcome> {
        let mut policy;
        let decider = match deciding {
            Deciding::Policy(name) => {
                policy = Policy::by_name(name, self.params())?;
                Decider::Policy(&mut policy)
            }
            Deciding::Loop(name) => {
                policy = Policy::by_name(name, self.params())?;
                Decider::Loop(Pacing::new(&mut policy, self.params()))
            }
            Deciding::Fixed(ns) => Decider::Fixed(ns),
            Deciding::Clairvoyant => Decider::Clairvoyant(self.params().break_even_ns()),
        };
        Some(self.run_by(decider, requests, seed))
    }

    /// As [`run`](Self::run), with a policy of any parameters.
    #[must_use]
    pub fn run_policy(&self, policy: &mut dyn PollPolicy, requests: u64, seed: u64) -> ClosedOutcome {
        self.run_by(Decider::Policy(policy), requests, seed)
    }

    fn run_by(&self, mut decider: Decider<'_>, requests: u64, seed: u64) -> ClosedOutcome {
        let mut world = World::new(*self, seed);
        let mut outcome = ClosedOutcome::default();
        loop {
            world.serve(requests, &mut outcome);
            if outcome.requests >= requests {
                break;
            }
            world.wait(&mut decider, &mut outcome);
        }
        (outcome.elapsed_ns, outcome.latency_ns) = (world.now_ns, world.latency_ns);
        outcome
    }

    /// The least cost of waiting with one polling time for all waits, among `times_ns`.
    #[must_use]
    pub fn best_fixed(&self, times_ns: &[u64], requests: u64, seed: u64) -> f64 {
        times_ns
            .iter()
            .filter_map(|time| self.run(Deciding::Fixed(*time), requests, seed))
            .map(|outcome| outcome.wait_cost_ns())
            .fold(f64::INFINITY, f64::min)
    }
}

/// The client and the server at one moment: that of the server.
struct World {
    what: ClosedLoop,
    random: Random,
    now_ns: u64,
    /// Until then the client is busy with earlier answers, a kick, or waking up.
    client_ns: u64,
    /// The client slept before its last wake-up, and the server slept before it served the last request.
    client_slept: bool,
    server_slept: bool,
    /// Answers that the client has not dealt with.
    answers: VecDeque<Answer>,
    /// When the requests were sent that the server has not served.
    sent: VecDeque<u64>,
    /// Of the answers that the client has taken.
    latency_ns: u64,
}

/// The client sleeps, and was not called yet.
const NOT_CALLED: u64 = u64::MAX;

/// A thread that does not sleep runs for so long before another one runs on its core.
const SLICE_NS: u64 = 3_000_000;

struct Answer {
    /// When its request was sent.
    sent_ns: u64,
    /// When the client can take it.
    at_ns: u64,
    /// How long the client will think about it.
    think_ns: u64,
}

impl World {
    fn new(what: ClosedLoop, seed: u64) -> Self {
        Self {
            what,
            random: Random::named(seed, "closed loop"),
            now_ns: 0,
            client_ns: 0,
            client_slept: false,
            server_slept: false,
            answers: VecDeque::new(),
            sent: std::iter::repeat_n(0, what.depth.max(1)).collect(),
            latency_ns: 0,
        }
    }

    /// When the client will send its next request.
    fn next_send(&self) -> Option<u64> {
        let answer = self.answers.front().filter(|answer| answer.at_ns != NOT_CALLED)?;
        Some(self.client_ns.max(answer.at_ns) + answer.think_ns)
    }

    /// The client sends what it can until then, while the server runs.
    fn advance_client(&mut self, until_ns: u64) {
        if self.what.one_core {
            return;
        }
        while let Some(at_ns) = self.next_send().filter(|at_ns| *at_ns <= until_ns) {
            self.send(at_ns);
        }
    }

    fn send(&mut self, at_ns: u64) {
        if let Some(answer) = self.answers.pop_front() {
            self.latency_ns += at_ns - answer.think_ns - answer.sent_ns;
        }
        self.client_ns = at_ns;
        self.sent.push_back(at_ns);
    }

    /// The server serves all requests that it finds, up to `most` in all: a client that does not think sends one after the other.
    fn serve(&mut self, most: u64, outcome: &mut ClosedOutcome) {
        while outcome.requests < most {
            self.advance_client(self.now_ns);
            let Some(sent_ns) = self.sent.pop_front() else {
                if !self.call_late(outcome) {
                    return;
                }
                continue;
            };
            self.now_ns += self.what.service_ns;
            outcome.cpu_ns += self.what.service_ns;
            outcome.requests += 1;
            self.answer(sent_ns, outcome);
        }
    }

    /// Answers a request. A client that sleeps is called now, or after the other requests that are there if they take less time than a call.
    fn answer(&mut self, sent_ns: u64, outcome: &mut ClosedOutcome) {
        self.advance_client(self.now_ns);
        let spread = 1.0 + self.what.think_spread * self.random.normal();
        let mut think_ns = (self.what.think_ns as f64 * spread.clamp(0.2, 3.0)) as u64;
        if self.what.pause_every > 0 && outcome.requests.is_multiple_of(self.what.pause_every) {
            think_ns = self.what.pause_ns;
        }
        let is_idle = self.answers.is_empty() && self.client_ns <= self.now_ns;
        let mut at_ns = self.now_ns;
        if self.what.client_sleeps && (is_idle || self.is_call_owed()) {
            let others_ns = self.sent.len() as u64 * self.what.service_ns;
            let is_asleep = self.now_ns >= self.client_ns + self.what.client_stays_ns;
            if self.what.is_batched && is_asleep && (1..self.what.call_ns).contains(&others_ns) {
                at_ns = NOT_CALLED;
            } else {
                at_ns = self.call(is_asleep, outcome);
            }
        }
        self.answers.push_back(Answer {
            sent_ns,
            at_ns,
            think_ns,
        });
    }

    /// Calls the client. Returns when it takes its answers.
    fn call(&mut self, is_asleep: bool, outcome: &mut ClosedOutcome) -> u64 {
        let mut at_ns = self.now_ns;
        let mut call_ns = self.what.idle_call_ns;
        if is_asleep {
            call_ns = self.what.call_ns;
            at_ns += self.what.client_wake_ns.max(call_ns) + self.deeper(self.server_slept);
        }
        self.client_slept = is_asleep;
        self.now_ns += call_ns;
        outcome.cpu_ns += call_ns;
        for answer in &mut self.answers {
            answer.at_ns = answer.at_ns.min(at_ns);
        }
        at_ns
    }

    /// The client sleeps, and has answers.
    fn is_call_owed(&self) -> bool {
        self.answers
            .front()
            .is_some_and(|answer| answer.at_ns == NOT_CALLED)
    }

    /// Calls a client that sleeps and has answers; false if there is none.
    fn call_late(&mut self, outcome: &mut ClosedOutcome) -> bool {
        let is_owed = self.is_call_owed();
        if is_owed {
            self.call(true, outcome);
        }
        is_owed
    }

    /// How much longer a wake-up takes.
    fn deeper(&self, is_other_asleep: bool) -> u64 {
        if is_other_asleep {
            self.what.both_asleep_ns
        } else {
            0
        }
    }

    /// The server has nothing to do until the client sends: it polls or checks, and then sleeps.
    fn wait(&mut self, decider: &mut Decider<'_>, outcome: &mut ClosedOutcome) {
        if self.what.one_core {
            // Until the server sleeps, or its time slice is over.
            self.client_ns = self.client_ns.max(self.now_ns + SLICE_NS);
        }
        let Some(mut sent_ns) = self.next_send() else {
            return;
        };
        let wait_ns = sent_ns - self.now_ns;
        let Search { poll_ns, check_ns } = decider.search(wait_ns, self.now_ns);
        if self.what.one_core && wait_ns > poll_ns {
            let early_ns = SLICE_NS.saturating_sub(poll_ns.saturating_add(check_ns));
            self.client_ns -= early_ns;
            sent_ns -= early_ns;
        }
        self.send(sent_ns);
        if wait_ns <= poll_ns {
            self.searched(wait_ns, outcome);
            self.now_ns = sent_ns;
            self.server_slept = false;
            decider.observe(wait_ns, wait_ns, false);
            return;
        }
        if self.what.is_batched {
            self.finish_batch();
        }
        let wait_ns = self.client_ns - self.now_ns;
        let kicked_ns = wait_ns + self.what.idle_call_ns;
        if check_ns > 0 && kicked_ns <= check_ns {
            self.searched(kicked_ns, outcome);
            self.kicked(self.what.idle_call_ns, outcome);
            self.now_ns = self.client_ns;
            self.server_slept = false;
            decider.checked(Some(kicked_ns));
            decider.observe(kicked_ns, 0, false);
        } else {
            if check_ns > 0 {
                decider.checked(None);
            }
            self.searched(poll_ns + check_ns, outcome);
            let late_ns = self.sleep(outcome);
            decider.observe(wait_ns + late_ns, poll_ns, true);
        }
    }

    /// The client sends its next requests for all answers that it has, because its kick comes after the last of them.
    fn finish_batch(&mut self) {
        while let Some(answer) = self
            .answers
            .front()
            .filter(|answer| answer.at_ns <= self.client_ns)
        {
            self.send(self.client_ns + answer.think_ns);
        }
    }

    fn searched(&self, for_ns: u64, outcome: &mut ClosedOutcome) {
        outcome.spin_ns += for_ns;
        outcome.cpu_ns += for_ns;
    }

    /// The client spends so long on a kick.
    fn kicked(&mut self, kick_ns: u64, outcome: &mut ClosedOutcome) {
        self.client_ns += kick_ns;
        outcome.kicks += 1;
        outcome.kick_ns += kick_ns;
        outcome.sleep_cost_ns += kick_ns;
    }

    /// The server sleeps until the request that the client has just sent. Returns how long the server takes to wake up.
    fn sleep(&mut self, outcome: &mut ClosedOutcome) -> u64 {
        let [latency_ns, cpu_ns, kick_ns] =
            [self.what.wake.latency, self.what.wake.cpu, self.what.wake.kick].map(to_ns);
        let latency_ns = latency_ns + self.deeper(self.client_slept);
        let late_ns = latency_ns * (75 + self.random.below(51)) / 100;
        self.now_ns = self.client_ns + late_ns;
        self.kicked(kick_ns, outcome);
        self.server_slept = true;
        outcome.cpu_ns += cpu_ns;
        outcome.sleep_cost_ns += late_ns + cpu_ns;
        late_ns
    }
}

#[cfg(test)]
#[path = "closed_loop_tests.rs"]
mod tests;
