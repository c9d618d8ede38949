//! [`ClosedLoop`]: a client that sends its next request after the answer to an earlier one, and pays for its
//! kicks.
//!
//! A trace of waits cannot express that, because the next request comes later if the server sleeps (rule
//! A11).

use std::collections::VecDeque;
use std::time::Duration;

use aio_pollctl::{Policy, PollParams, PollPolicy, WakeCost};

use crate::decider::{Decider, Pacing, Search};
use crate::{Random, to_ns};

/// A client, a server, and the costs of their sleeps.
///
/// The client keeps `depth` requests under way. It takes one answer after the other, thinks, and sends the
/// next request. The server serves all pending requests, one after the other, then polls for the time that
/// its policy returns, then sleeps. A request to a sleeping server costs the client a kick, and the server
/// wakes up a while later. A client that has nothing to do spins or sleeps; the server pays for waking it.
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
    /// The variation of the think time: its standard deviation as a share of the mean.
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
    /// If set, the client kicks after it has dealt with all answers that it has, and the server calls after
    /// its batch if the rest of the batch takes less time than a call. Otherwise each request is a kick, and
    /// each answer a call.
    pub is_batched: bool,
    /// The time that a client that sleeps checks for answers before it is asleep.
    pub client_stays_ns: u64,
    /// The time for a kick or a call if the other side is awake and does not poll: a system call that wakes
    /// no thread.
    pub idle_call_ns: u64,
    /// The additional time of a wake-up if both sides slept, so that the processor fell idle.
    pub both_asleep_ns: u64,
    /// The client makes a [pause](Self::pause_ns) instead of a think time once in this number of requests; 0:
    /// never.
    pub pause_every: u64,
    /// See [`pause_every`](Self::pause_every).
    pub pause_ns: u64,
    /// If set, the client runs on the server's core, and so only while the server sleeps.
    pub one_core: bool,
}

impl Default for ClosedLoop {
    /// Returns a spinning client that does not think, with one request at a time, on a usual machine.
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

/// The rule that sets the server's polling time.
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
    /// The policy of this name in a loop as in `aio-context`. If the loop has not polled, it checks its
    /// descriptors before it sleeps ([`PreSleepSpin`](aio_pollctl::PreSleepSpin)); after many polls in vain
    /// it seldom polls ([`Contention`](aio_pollctl::Contention)). With `never` this is a loop with polling
    /// off.
    Loop(&'static str),
    /// The same time, in nanoseconds, before each sleep.
    Fixed(u64),
    /// The moment of the next request is known: poll until then if that is cheaper than a sleep, else sleep
    /// at once.
    Clairvoyant,
}

/// The costs of a run.
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
    /// The costs of sleeps and kicks: latency, processor time, and the client's time for the kick.
    pub sleep_cost_ns: u64,
    /// The sum of all latencies, each until the client takes the answer.
    pub latency_ns: u64,
    /// The processor time of the server.
    pub cpu_ns: u64,
    /// The client's time for kicks.
    pub kick_ns: u64,
}

impl ClosedOutcome {
    /// Returns the cost of a request: processor time of the server, latency, and the client's time for kicks
    /// (P14).
    #[must_use]
    pub fn cost_ns(&self) -> f64 {
        (self.cpu_ns + self.latency_ns + self.kick_ns) as f64 / self.requests.max(1) as f64
    }

    /// Returns the cost of waiting for a request: polling and sleeps. The rest of the cost does not depend on
    /// the policy.
    #[must_use]
    pub fn wait_cost_ns(&self) -> f64 {
        (self.spin_ns + self.sleep_cost_ns) as f64 / self.requests.max(1) as f64
    }

    /// Returns the requests per second.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        self.requests as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }
}

impl ClosedLoop {
    /// Returns parameters with the cost of a sleep of this server.
    #[must_use]
    pub fn params(&self) -> PollParams {
        PollParams::unlimited().with_wake(self.wake)
    }

    /// Runs until this number of requests is answered. Returns `None` if there is no policy of that name.
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

    /// Returns the least cost of waiting with one polling time for all waits, among `times_ns`.
    #[must_use]
    pub fn best_fixed(&self, times_ns: &[u64], requests: u64, seed: u64) -> f64 {
        times_ns
            .iter()
            .filter_map(|time| self.run(Deciding::Fixed(*time), requests, seed))
            .map(|outcome| outcome.wait_cost_ns())
            .fold(f64::INFINITY, f64::min)
    }
}

/// The client and the server at one moment of the server's time.
struct World {
    what: ClosedLoop,
    random: Random,
    now_ns: u64,
    /// The time until which the client is busy with earlier answers, a kick, or waking up.
    client_ns: u64,
    /// Set if the client slept before its last wake-up; `server_slept`: if the server slept before it served the
    /// last request.
    client_slept: bool,
    server_slept: bool,
    /// Answers that the client has not dealt with.
    answers: VecDeque<Answer>,
    /// The times at which the requests were sent that the server has not served.
    sent: VecDeque<u64>,
    /// The sum over the answers that the client has taken.
    latency_ns: u64,
}

/// The time of an answer for a client that sleeps and was not called yet.
const NOT_CALLED: u64 = u64::MAX;

/// The time that a thread runs without sleeping before another thread runs on its core.
const SLICE_NS: u64 = 3_000_000;

struct Answer {
    /// The time at which its request was sent.
    sent_ns: u64,
    /// The time at which the client can take it.
    at_ns: u64,
    /// The time that the client will think about it.
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

    /// Returns the time at which the client will send its next request.
    fn next_send(&self) -> Option<u64> {
        let answer = self.answers.front().filter(|answer| answer.at_ns != NOT_CALLED)?;
        Some(self.client_ns.max(answer.at_ns) + answer.think_ns)
    }

    /// Sends the client's requests up to this time, while the server runs.
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

    /// Serves all pending requests, up to `most` in all: a client that does not think sends one after the
    /// other.
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

    /// Answers a request. A sleeping client is called now, or after the other pending requests if they take
    /// less time than a call.
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

    /// Calls the client. Returns the time at which it takes its answers.
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

    /// Returns `true` if the client sleeps and has answers.
    fn is_call_owed(&self) -> bool {
        self.answers
            .front()
            .is_some_and(|answer| answer.at_ns == NOT_CALLED)
    }

    /// Calls a client that sleeps and has answers. Returns `false` if there is no such client.
    fn call_late(&mut self, outcome: &mut ClosedOutcome) -> bool {
        let is_owed = self.is_call_owed();
        if is_owed {
            self.call(true, outcome);
        }
        is_owed
    }

    /// Returns the additional time of a wake-up.
    fn deeper(&self, is_other_asleep: bool) -> u64 {
        if is_other_asleep {
            self.what.both_asleep_ns
        } else {
            0
        }
    }

    /// Waits for the client's next request: the server polls or checks, and then sleeps.
    fn wait(&mut self, decider: &mut Decider<'_>, outcome: &mut ClosedOutcome) {
        if self.what.one_core {
            // Until the server sleeps, or its time slice ends.
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

    /// Sends the client's next requests for all answers that it has, because its kick comes after the last of
    /// them.
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

    /// Adds the time of a kick to the client.
    fn kicked(&mut self, kick_ns: u64, outcome: &mut ClosedOutcome) {
        self.client_ns += kick_ns;
        outcome.kicks += 1;
        outcome.kick_ns += kick_ns;
        outcome.sleep_cost_ns += kick_ns;
    }

    /// Lets the server sleep until the request that the client has just sent. Returns the time that the
    /// server takes to wake up.
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
