//! [`ClosedLoop`]: a client that sends its next request when it has the answer to an earlier one, and pays for its kicks.
//!
//! A trace of waits cannot express that: whether the server sleeps decides when the next request comes (rule A11).

use std::collections::VecDeque;
use std::time::Duration;

use aio_pollctl::{Iteration, Policy, PollParams, PollPolicy, WakeCost};

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
    /// See [`call_ns`](Self::call_ns).
    pub client_wake_ns: u64,
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
    /// The sleeps of the server, each ended by a kick.
    pub kicks: u64,
    /// What these sleeps cost: latency, processor time, and the client's time for the kick.
    pub sleep_cost_ns: u64,
    /// The sum of all latencies.
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
        outcome.elapsed_ns = world.now_ns;
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

enum Decider<'a> {
    Policy(&'a mut dyn PollPolicy),
    Fixed(u64),
    /// The break-even time.
    Clairvoyant(u64),
}

impl Decider<'_> {
    /// How long to poll, if the next request comes after `wait_ns`.
    fn budget(&self, wait_ns: u64) -> u64 {
        match self {
            Self::Policy(policy) => to_ns(policy.budget()),
            Self::Fixed(ns) => *ns,
            Self::Clairvoyant(break_even) if wait_ns <= *break_even => wait_ns,
            Self::Clairvoyant(_) => 0,
        }
    }

    fn observe(&mut self, elapsed_ns: u64, spun_ns: u64, slept: bool) {
        if let Self::Policy(policy) = self {
            let [elapsed, spun] = [elapsed_ns, spun_ns].map(Duration::from_nanos);
            policy.observe(Iteration::new(elapsed, spun, slept, !slept).with_events(1));
        }
    }
}

/// The client and the server at one moment: that of the server.
struct World {
    what: ClosedLoop,
    random: Random,
    now_ns: u64,
    /// Until then the client is busy with earlier answers, a kick, or waking up.
    client_ns: u64,
    /// Answers that the client has not dealt with.
    answers: VecDeque<Answer>,
    /// When the requests were sent that the server has not served.
    sent: VecDeque<u64>,
}

struct Answer {
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
            answers: VecDeque::new(),
            sent: std::iter::repeat_n(0, what.depth.max(1)).collect(),
        }
    }

    /// When the client will send its next request.
    fn next_send(&self) -> Option<u64> {
        let answer = self.answers.front()?;
        Some(self.client_ns.max(answer.at_ns) + answer.think_ns)
    }

    /// The client sends what it can until then.
    fn advance_client(&mut self, until_ns: u64) {
        while let Some(at_ns) = self.next_send().filter(|at_ns| *at_ns <= until_ns) {
            self.send(at_ns);
        }
    }

    fn send(&mut self, at_ns: u64) {
        self.answers.pop_front();
        self.client_ns = at_ns;
        self.sent.push_back(at_ns);
    }

    /// The server serves all requests that it finds, up to `most` in all: a client that does not think sends one after the other.
    fn serve(&mut self, most: u64, outcome: &mut ClosedOutcome) {
        while outcome.requests < most {
            self.advance_client(self.now_ns);
            let Some(sent_ns) = self.sent.pop_front() else {
                return;
            };
            self.now_ns += self.what.service_ns;
            outcome.cpu_ns += self.what.service_ns;
            outcome.requests += 1;
            outcome.latency_ns += self.now_ns - sent_ns;
            self.answer(outcome);
        }
    }

    fn answer(&mut self, outcome: &mut ClosedOutcome) {
        self.advance_client(self.now_ns);
        let is_idle = self.answers.is_empty() && self.client_ns <= self.now_ns;
        let mut at_ns = self.now_ns;
        if is_idle && self.what.client_sleeps {
            self.now_ns += self.what.call_ns;
            outcome.cpu_ns += self.what.call_ns;
            at_ns = self.now_ns + self.what.client_wake_ns;
        }
        let spread = 1.0 + self.what.think_spread * self.random.normal();
        let think_ns = (self.what.think_ns as f64 * spread.clamp(0.2, 3.0)) as u64;
        self.answers.push_back(Answer { at_ns, think_ns });
    }

    /// The server has nothing to do until the client sends: it polls, and then sleeps.
    fn wait(&mut self, decider: &mut Decider<'_>, outcome: &mut ClosedOutcome) {
        let Some(sent_ns) = self.next_send() else { return };
        let wait_ns = sent_ns - self.now_ns;
        let budget_ns = decider.budget(wait_ns);
        let is_caught = wait_ns <= budget_ns;
        let spun_ns = wait_ns.min(budget_ns);
        outcome.spin_ns += spun_ns;
        outcome.cpu_ns += spun_ns;
        self.send(sent_ns);
        if is_caught {
            self.now_ns = sent_ns;
            decider.observe(wait_ns, spun_ns, false);
            return;
        }
        let [latency_ns, cpu_ns, kick_ns] =
            [self.what.wake.latency, self.what.wake.cpu, self.what.wake.kick].map(to_ns);
        let late_ns = latency_ns * (75 + self.random.below(51)) / 100;
        self.client_ns += kick_ns;
        self.now_ns = sent_ns + late_ns;
        outcome.kicks += 1;
        outcome.kick_ns += kick_ns;
        outcome.cpu_ns += cpu_ns;
        outcome.sleep_cost_ns += late_ns + cpu_ns + kick_ns;
        decider.observe(wait_ns + late_ns, spun_ns, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: u64 = 20_000;

    fn exact(depth: usize, think_ns: u64) -> ClosedLoop {
        ClosedLoop {
            depth,
            think_ns,
            think_spread: 0.0,
            ..ClosedLoop::default()
        }
    }

    #[test]
    fn a11_one_request_at_a_time_costs_what_the_model_says() {
        let what = exact(1, 5_000);
        let always = what.run(Deciding::Fixed(u64::MAX), REQUESTS, 1).unwrap();
        assert_eq!(
            (always.requests, always.kicks, always.spin_ns),
            (REQUESTS, 0, (REQUESTS - 1) * 5_000)
        );
        assert_eq!(always.elapsed_ns, REQUESTS * 5_200 - 5_000);
        assert!((always.cost_ns() - 5_400.0).abs() < 1.0, "{always:?}");
        let never = what.run(Deciding::Fixed(0), REQUESTS, 1).unwrap();
        assert_eq!(never.kicks, REQUESTS - 1, "all but the first");
        // A kick, a wake-up and the processor time of a sleep: 3, 8 and 2 us.
        assert!((never.wait_cost_ns() - 13_000.0).abs() < 50.0, "{never:?}");
    }

    #[test]
    fn a11_a_client_that_is_kept_busy_by_kicks_serves_itself_later() {
        // At depth 4 the client sends while the server wakes up, so not each request is a kick.
        let what = exact(4, 1_000);
        let never = what.run(Deciding::Fixed(0), REQUESTS, 1).unwrap();
        assert!(never.kicks < REQUESTS / 3, "{never:?}");
        let always = what.run(Deciding::Fixed(u64::MAX), REQUESTS, 1).unwrap();
        assert!(
            always.throughput() > 1.5 * never.throughput(),
            "{always:?} {never:?}"
        );
    }

    #[test]
    fn a_sleeping_client_is_called_once_for_a_batch() {
        let what = ClosedLoop {
            client_sleeps: true,
            ..exact(4, 0)
        };
        let outcome = what.run(Deciding::Fixed(u64::MAX), REQUESTS, 1).unwrap();
        let calls = (outcome.cpu_ns - outcome.spin_ns - REQUESTS * what.service_ns) / what.call_ns;
        assert!((REQUESTS / 5..=REQUESTS / 3).contains(&calls), "{calls}");
    }

    #[test]
    fn a11_the_price_of_a_kick_decides_whether_polling_pays() {
        // The wait of 11 us is dearer than a sleep (10 us), and cheaper than one with its kick (13 us).
        let what = exact(1, 11_000);
        let without = ClosedLoop {
            wake: WakeCost::ASSUMED,
            ..what
        };
        let polls = |what: ClosedLoop| what.run(Deciding::Clairvoyant, 100, 1).unwrap().kicks == 0;
        assert!(polls(what) && !polls(without));
        let learned = what.run(Deciding::Policy("learned"), REQUESTS, 1).unwrap();
        assert!(learned.kicks < REQUESTS / 20, "{learned:?}");
    }

    #[test]
    fn clairvoyance_is_not_beaten_by_much_and_policies_stay_within_their_bound() {
        for depth in [1, 4, 32] {
            for think_ns in [0, 1_000, 5_000, 12_000, 40_000] {
                for client_sleeps in [false, true] {
                    let what = ClosedLoop {
                        client_sleeps,
                        think_spread: 0.3,
                        ..exact(depth, think_ns)
                    };
                    let cost = |deciding| what.run(deciding, REQUESTS, 3).unwrap().wait_cost_ns();
                    let best = cost(Deciding::Clairvoyant);
                    let learned = cost(Deciding::Policy("learned"));
                    // Decisions change what comes, so that the greedy optimum is none; requests without a wait have no ratio.
                    assert!(learned <= 2.25 * best + 50.0, "{what:?}: {learned} of {best}");
                }
            }
        }
    }

    #[test]
    fn a_run_is_the_same_each_time() {
        let what = ClosedLoop::default();
        let run = || what.run(Deciding::Policy("learned"), 1000, 9);
        assert_eq!(run(), run());
        assert_eq!(what.run(Deciding::Policy("unknown"), 1, 1), None);
    }
}
