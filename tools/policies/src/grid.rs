//! Every policy on every trace at every wake-up cost, on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aio_pollctl::{Policy, PollParams};
use aio_replay::{self as replay, BestFixed, Outcome, Trace, params_for};
use indicatif::{ProgressBar, ProgressStyle};

use crate::row::Row;
use aio_tools::interrupt::Interrupt;

/// The longest polling time of the original's threads.
pub(crate) const ORIGINAL_MAX: Duration = Duration::from_nanos(32_768);
/// The longest polling time of KVM.
const KVM_MAX: Duration = Duration::from_micros(200);
/// The time after which a progress bar is shown.
const QUIET: Duration = Duration::from_secs(2);

/// The names to choose from: the policies, one of them twice, and the best fixed time.
pub(crate) const NAMES: [&str; 13] = [
    "never",
    "always",
    "fixed",
    "ski-rental",
    "qemu-2020",
    "qemu-2020-shrink2",
    "qemu-10",
    "qemu-weighted",
    "kvm",
    "ewma",
    "learned",
    "learned-2",
    "best-fixed",
];

/// A policy with its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// `None` for the best fixed time in hindsight.
    policy: Option<&'static str>,
    /// Returns the parameters for a wake-up cost.
    params: fn(u64) -> PollParams,
}

impl Contender {
    pub(crate) const fn new(name: &'static str, policy: &'static str, params: fn(u64) -> PollParams) -> Self {
        Self {
            name,
            policy: Some(policy),
            params,
        }
    }

    pub(crate) const fn hindsight() -> Self {
        Self {
            name: "best-fixed",
            policy: None,
            params: params_for,
        }
    }

    /// Returns the policy for sleeps that cost `wake` nanoseconds, and `kick` of the peer's time. Returns
    /// `None` for the best fixed time.
    pub(crate) fn policy(&self, wake: u64, kick: Duration) -> Option<Policy> {
        let mut params = (self.params)(wake);
        params.wake = params.wake.with_kick(kick);
        Policy::by_name(self.policy?, params)
    }

    fn replay(&self, trace: &Trace, wake: u64, best: &BestFixed) -> Outcome {
        match self.policy(wake, Duration::ZERO) {
            Some(mut policy) => replay::replay(trace, wake, &mut policy),
            None => replay::replay_best_fixed(trace, wake, best),
        }
    }
}

/// Returns all of [`NAMES`] with their usual parameters: QEMU's with a maximum of 32.768 us, KVM's with 200
/// us, those that use the cost of a wake-up without a maximum.
pub(crate) fn contenders() -> Vec<Contender> {
    let original = |_| PollParams::up_to(ORIGINAL_MAX);
    NAMES
        .into_iter()
        .map(|name| match name {
            "best-fixed" => Contender::hindsight(),
            "qemu-2020-shrink2" => Contender::new(name, "qemu-2020", |_| {
                PollParams::up_to(ORIGINAL_MAX).with_shrink(2)
            }),
            "kvm" => Contender::new(name, name, |_| PollParams::up_to(KVM_MAX).with_shrink(2)),
            "fixed" | "qemu-2020" | "qemu-10" | "qemu-weighted" => Contender::new(name, name, original),
            _ => Contender::new(name, name, params_for),
        })
        .collect()
}

/// Replays all traces with all contenders, in the order of the arguments. Shows progress if it takes long.
pub(crate) fn run(
    traces: &[Trace],
    wakes: &[u64],
    contenders: &[Contender],
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let done = Mutex::new(Vec::with_capacity(traces.len()));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(trace) = traces.get(index) else {
                return;
            };
            let rows = rows_of(trace, wakes, contenders);
            done.lock()
                .unwrap_or_else(|poison| poison.into_inner())
                .push((index, rows));
        }
    };
    let outcome = thread::scope(|scope| {
        let workers = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(traces.len());
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let outcome = watch(
            || threads.iter().all(thread::ScopedJoinHandle::is_finished),
            || done.lock().unwrap_or_else(|poison| poison.into_inner()).len(),
            traces.len(),
            interrupt,
        );
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    outcome?;
    let mut done = done.into_inner().unwrap_or_else(|poison| poison.into_inner());
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().flat_map(|(_, rows)| rows).collect())
}

/// Waits until the work is over, or until an interrupt.
fn watch(
    is_over: impl Fn() -> bool,
    progress: impl Fn() -> usize,
    all: usize,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    while !is_over() {
        interrupt.check()?;
        if bar.is_none() && began.elapsed() > QUIET {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} traces ({eta} left)")?;
            bar = Some(ProgressBar::new(all as u64).with_style(style));
        }
        if let Some(bar) = &bar {
            bar.set_position(progress() as u64);
        }
        thread::sleep(Duration::from_millis(20));
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(())
}

fn rows_of(trace: &Trace, wakes: &[u64], contenders: &[Contender]) -> Vec<Row> {
    let best = BestFixed::of(trace);
    let mut rows = Vec::with_capacity(wakes.len() * contenders.len());
    for wake in wakes {
        for contender in contenders {
            let outcome = contender.replay(trace, *wake, &best);
            rows.push(Row {
                trace: trace.name().to_owned(),
                family: trace.family(),
                wake_cost_ns: *wake,
                policy: contender.name,
                cost_over_clairvoyant: outcome.ratio(),
                spin_ns: outcome.spin_ns as f64,
                spin_share: outcome.spin_share(),
                waits: outcome.waits,
                wakeups: outcome.wakeups,
                p99_added_ns: outcome.p99_added_ns() as f64,
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_policy_and_every_policy_its_name() {
        for contender in contenders() {
            if let Some(policy) = contender.policy {
                assert!(Policy::by_name(policy, PollParams::OFF).is_some(), "{policy}");
            }
        }
        for name in Policy::NAMES {
            assert!(NAMES.contains(name), "{name}");
        }
    }
}
