//! [`Decider`]: sets the time that a simulated server searches for a request, at run time.

use std::time::Duration;

use aio_pollctl::{Contention, Iteration, PollParams, PollPolicy, PreSleepSpin};

use crate::to_ns;

/// See [`Deciding`](crate::Deciding).
pub(crate) enum Decider<'a> {
    Policy(&'a mut dyn PollPolicy),
    Loop(Pacing<'a>),
    Fixed(u64),
    /// The break-even time.
    Clairvoyant(u64),
}

/// The parts of a loop besides its policy.
pub(crate) struct Pacing<'a> {
    policy: &'a mut dyn PollPolicy,
    contention: Contention,
    spin: PreSleepSpin,
}

impl<'a> Pacing<'a> {
    pub(crate) fn new(policy: &'a mut dyn PollPolicy, params: PollParams) -> Self {
        Self {
            policy,
            contention: Contention::new(),
            spin: PreSleepSpin::of(&params),
        }
    }
}

/// The times that the server searches for a request before it sleeps.
#[derive(Clone, Copy)]
pub(crate) struct Search {
    /// By polling, which spares the client its kick.
    pub(crate) poll_ns: u64,
    /// By checks of its descriptors, which a kick makes ready.
    pub(crate) check_ns: u64,
}

impl Decider<'_> {
    /// Returns the times to search, if the next request comes after `wait_ns`.
    pub(crate) fn search(&mut self, wait_ns: u64, now_ns: u64) -> Search {
        let polling = |poll_ns| Search { poll_ns, check_ns: 0 };
        match self {
            Self::Policy(policy) => polling(to_ns(policy.budget())),
            Self::Fixed(ns) => polling(*ns),
            Self::Clairvoyant(break_even) if wait_ns <= *break_even => polling(wait_ns),
            Self::Clairvoyant(_) => polling(0),
            Self::Loop(pacing) => {
                let mut budget_ns = to_ns(pacing.policy.budget());
                if budget_ns > 0 && pacing.contention.is_worth_it(now_ns) {
                    if pacing.contention.is_probe() {
                        budget_ns = budget_ns.max(to_ns(Contention::PROBE));
                    }
                    pacing.contention.found(wait_ns <= budget_ns);
                    return polling(budget_ns);
                }
                pacing.spin.served(true);
                let is_worth_it = pacing.spin.is_worth_it();
                Search {
                    poll_ns: 0,
                    check_ns: if is_worth_it {
                        to_ns(pacing.spin.longest())
                    } else {
                        0
                    },
                }
            }
        }
    }

    /// Records the time after which checks have found a request; `None` if they have found none.
    pub(crate) fn checked(&mut self, found_after_ns: Option<u64>) {
        if let Self::Loop(pacing) = self {
            match found_after_ns {
                Some(ns) => pacing.spin.found(Duration::from_nanos(ns)),
                None => pacing.spin.missed(),
            }
        }
    }

    pub(crate) fn observe(&mut self, elapsed_ns: u64, spun_ns: u64, slept: bool) {
        let [elapsed, spun] = [elapsed_ns, spun_ns].map(Duration::from_nanos);
        let mut seen = Iteration::new(elapsed, spun, slept, !slept).with_events(1);
        if slept {
            seen = seen.with_kicks(1);
        }
        match self {
            Self::Policy(policy) => policy.observe(seen),
            Self::Loop(pacing) => {
                pacing.contention.waited();
                pacing.policy.observe(seen);
            }
            Self::Fixed(_) | Self::Clairvoyant(_) => {}
        }
    }
}
