//! [`Polling`]: the polling policy of a loop and its parameters, which can change while the loop runs.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{Context, HandlerMemory, Iteration, Policy, PollParams, PollPolicy, WakeCost};
use aio_sources::{CpuQuota, WakeCalibration, WakeRefinement};
use anyhow::{Context as _, anyhow, bail};

use crate::cli::Args;
use crate::control::PollChange;
use crate::duration::parse_poll_max;
use crate::recorder::Recorder;

/// The polling of one loop.
#[derive(Debug)]
pub(crate) struct Polling {
    settings: RefCell<Settings>,
    next: Rc<RefCell<Option<Policy>>>,
    /// Measures the cost of a sleep again.
    refinement: OnceCell<WakeRefinement>,
}

/// A policy's name and its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    policy: String,
    /// The given parameters. [`Settings::params`] returns them within the quota.
    params: PollParams,
    quota: Option<Quota>,
    /// The measurement at the start, if the cost of a sleep is not given. Each loop refines a copy.
    calibration: Option<WakeCalibration>,
}

/// The processor time that the control group allows, and the loops that share it.
#[derive(Clone, Copy, Debug)]
struct Quota {
    quota: CpuQuota,
    loops: usize,
}

impl Settings {
    /// Returns the settings of the command line, within the quota of the control group (rule A13). Measures
    /// the cost of a sleep unless it is given. It is measured even without polling, because it determines how
    /// long the loop checks its descriptors before it sleeps.
    ///
    /// # Errors
    /// If there is no such policy, or if the cost of a sleep cannot be measured.
    pub(crate) fn of(args: &Args) -> anyhow::Result<Self> {
        let quota = CpuQuota::here().unwrap_or_else(|error| {
            tracing::warn!(%error, "the quota of processor time is not known, so it does not limit polling from the start");
            None
        });
        Self::within(quota, args)
    }

    fn within(quota: Option<CpuQuota>, args: &Args) -> anyhow::Result<Self> {
        let loops = args.iothreads;
        let quota = quota.map(|quota| Quota { quota, loops });
        let params = PollParams::up_to(args.poll_max)
            .with_cpu_price(args.poll_cpu_price)
            .with_cpu_max(args.poll_cpu_max)
            .with_exclusive_core(args.poll_exclusive)
            .with_grow(args.poll_grow)
            .with_shrink(args.poll_shrink)
            .with_weight(args.poll_weight);
        let policy = args.policy.clone();
        let kick = args.poll_kick_ns.map(Duration::from_nanos);
        if let (Some(nanos), Some(kick)) = (args.poll_wake_ns, kick) {
            let params = params.with_wake(given(nanos).with_kick(kick));
            return Self::checked(policy, params, quota, None);
        }
        let mut calibration = WakeCalibration::start()
            .context("cannot measure the cost of a sleep; --poll-wake-ns and --poll-kick-ns set it")?;
        if let Some(kick) = kick {
            calibration = calibration.with_kick(kick);
        }
        let measured = calibration.cost();
        let params = match args.poll_wake_ns {
            Some(nanos) => params.with_wake(given(nanos).with_kick(measured.kick)),
            None => params.with_measured_wake(measured),
        };
        tracing::info!(
            "a sleep costs {measured:?}, as measured by {} batches that differ by {} %",
            calibration.batches(),
            calibration.spread_percent()
        );
        let calibration = params.wake_is_estimate.then_some(calibration);
        Self::checked(policy, params, quota, calibration)
    }

    fn checked(
        policy: String,
        params: PollParams,
        quota: Option<Quota>,
        calibration: Option<WakeCalibration>,
    ) -> anyhow::Result<Self> {
        let settings = Self {
            policy,
            params,
            quota,
            calibration,
        };
        settings.policy()?;
        if !params.max.is_zero() {
            tracing::info!("polling: {}", settings.describe());
        }
        Ok(settings)
    }

    /// Returns the given parameters within the quota.
    pub(crate) fn params(&self) -> PollParams {
        self.quota.map_or(self.params, |Quota { quota, loops }| {
            quota.limit(self.params, loops)
        })
    }

    /// Describes the policy and its parameters, and the quota if that has changed them.
    fn describe(&self) -> String {
        let params = self.params();
        let policy = match self.policy() {
            Ok(policy) if !params.max.is_zero() => policy.effective().to_string(),
            Ok(_) => "off".to_owned(),
            Err(error) => error.to_string(),
        };
        match self.quota {
            Some(Quota { quota, .. }) if params != self.params => {
                let percent = quota.percent();
                format!("{policy}; limited by the control group's quota of {percent} % of a core")
            }
            _ => policy,
        }
    }

    fn changed(&self, change: &PollChange) -> anyhow::Result<Self> {
        let mut changed = self.clone();
        let params = &mut changed.params;
        if let Some(max) = &change.max {
            params.max = parse_poll_max(max).map_err(|error| anyhow!(error))?;
        }
        if let Some(nanos) = change.wake_ns {
            *params = params.with_wake(given(nanos).with_kick(params.wake.kick));
        }
        if let Some(nanos) = change.kick_ns {
            // A given cost is not measured any more.
            *params = params.with_wake(params.wake.with_kick(Duration::from_nanos(nanos)));
        }
        if let Some(exclusive) = change.exclusive {
            *params = params.with_exclusive_core(exclusive);
        }
        set(&mut params.cpu_price, "cpu-price", change.cpu_price, 1..=10_000)?;
        set(&mut params.cpu_max, "cpu-max", change.cpu_max, 1..=100)?;
        set(&mut params.grow, "grow", change.grow, 0..=u32::MAX)?;
        set(&mut params.shrink, "shrink", change.shrink, 0..=u32::MAX)?;
        set(&mut params.weight, "weight", change.weight, 0..=31)?;
        if let Some(policy) = &change.policy {
            changed.policy.clone_from(policy);
        }
        changed.policy()?;
        Ok(changed)
    }

    fn policy(&self) -> anyhow::Result<Policy> {
        Policy::by_name(&self.policy, self.params()).with_context(|| {
            format!(
                "there is no policy {:?}; there are {}",
                self.policy,
                Policy::NAMES.join(", ")
            )
        })
    }
}

fn set(value: &mut u32, name: &str, wanted: Option<u32>, range: RangeInclusive<u32>) -> anyhow::Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    if !range.contains(&wanted) {
        bail!(
            "{name} {wanted}: a number from {} to {}",
            range.start(),
            range.end()
        );
    }
    *value = wanted;
    Ok(())
}

fn given(nanos: u64) -> WakeCost {
    WakeCost::of_total(Duration::from_nanos(nanos))
}

impl Polling {
    /// Creates the polling of a loop, and the policy for it. Records the waits of the loop in a file, if one
    /// is named and the loop polls.
    ///
    /// # Errors
    /// If waits cannot be recorded.
    pub(crate) fn new(
        settings: Settings,
        record: Option<&Path>,
    ) -> anyhow::Result<(Self, Box<dyn PollPolicy>)> {
        let (policy, params) = (settings.policy()?, settings.params());
        let next = Rc::new(RefCell::new(None));
        let policy = Replaceable {
            policy,
            next: next.clone(),
        };
        let polling = Self {
            settings: RefCell::new(settings),
            next,
            refinement: OnceCell::new(),
        };
        let policy: Box<dyn PollPolicy> = match record {
            Some(path) if !params.max.is_zero() => {
                let recorder = Recorder::new(policy, params.wake_or_assumed().latency, path);
                Box::new(recorder.with_context(|| format!("cannot write waits to {}", path.display()))?)
            }
            _ => Box::new(policy),
        };
        Ok((polling, policy))
    }

    /// Measures the cost of a sleep again while the loop of `cx` runs, unless it is given.
    ///
    /// # Errors
    /// The error of the system when it starts a thread.
    pub(crate) fn refine(&self, cx: &Context) -> anyhow::Result<()> {
        let calibration = self.settings.borrow().calibration.clone();
        if let Some(calibration) = calibration {
            let refinement = WakeRefinement::start(calibration, &cx.remote());
            let refinement = refinement.context("cannot start a thread that measures the cost of a sleep")?;
            // The loop is new, and has no other refinement.
            let _ = self.refinement.set(refinement);
        }
        Ok(())
    }

    /// Changes the polling of the loop from its next iteration on.
    ///
    /// # Errors
    /// If a value is not allowed; with the allowed ones. Nothing has changed.
    pub(crate) fn change(&self, cx: &Context, change: &PollChange) -> anyhow::Result<()> {
        let mut settings = self.settings.borrow().clone();
        if settings.params.wake_is_estimate {
            // The cost may have been refined since then.
            settings.params.wake = cx.remote().poll_params().wake_or_assumed();
        }
        let changed = settings.changed(change)?;
        self.next.replace(Some(changed.policy()?));
        cx.set_poll_params(changed.params());
        self.settings.replace(changed);
        tracing::info!("polling: {}", self.describe());
        Ok(())
    }

    /// Describes the policy and its parameters.
    pub(crate) fn describe(&self) -> String {
        self.settings.borrow().describe()
    }

    /// Returns the longest busy polling, in nanoseconds.
    pub(crate) fn max_ns(&self) -> u64 {
        self.settings.borrow().params().max_ns()
    }
}

/// A policy that another one can replace when the loop sets new parameters.
struct Replaceable {
    policy: Policy,
    next: Rc<RefCell<Option<Policy>>>,
}

impl fmt::Debug for Replaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policy.fmt(f)
    }
}

impl PollPolicy for Replaceable {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn budget(&self) -> Duration {
        self.policy.budget()
    }

    fn budget_until(&self, deadline: Option<Duration>) -> Duration {
        self.policy.budget_until(deadline)
    }

    fn observe(&mut self, seen: Iteration) {
        self.policy.observe(seen);
    }

    fn is_per_handler(&self) -> bool {
        self.policy.is_per_handler()
    }

    fn observe_handler(&mut self, memory: &mut HandlerMemory, had_event: bool, seen: Iteration) {
        self.policy.observe_handler(memory, had_event, seen);
    }

    fn reprice(&mut self, params: PollParams) {
        self.policy.reprice(params);
    }

    fn reset(&mut self, params: PollParams) {
        if let Some(next) = self.next.take() {
            self.policy = next;
        }
        self.policy.reset(params);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aio_context::Wait;
    use clap::Parser as _;

    fn polling(line: &str) -> (Polling, Context) {
        polling_within(None, line)
    }

    fn polling_within(quota: Option<CpuQuota>, line: &str) -> (Polling, Context) {
        let words = "blockd --export null=512,socket=a"
            .split(' ')
            .chain(line.split_whitespace());
        let args = Args::try_parse_from(words).unwrap();
        let settings = Settings::within(quota, &args).unwrap();
        let params = settings.params();
        let (polling, policy) = Polling::new(settings, None).unwrap();
        let cx = Context::builder()
            .poll_params(params)
            .policy(policy)
            .build()
            .unwrap();
        (polling, cx)
    }

    #[test]
    fn polling_begins_changes_and_ends_while_the_loop_runs() {
        let (polling, cx) = polling("");
        assert_eq!((polling.describe().as_str(), polling.max_ns()), ("off", 0));
        let change = |max: &str, policy: &str| PollChange {
            max: Some(max.into()),
            policy: Some(policy.into()),
            wake_ns: Some(10_000),
            ..PollChange::default()
        };
        let budget = || {
            cx.poll(Wait::NoBlock).unwrap();
            cx.remote().stats().budget
        };
        assert_eq!(budget(), Duration::ZERO);
        polling.change(&cx, &change("32us", "always")).unwrap();
        assert_eq!(budget(), Duration::from_micros(32));
        assert!(polling.describe().contains("always"));
        polling.change(&cx, &change("7us", "fixed")).unwrap();
        assert_eq!(budget(), Duration::from_micros(7));
        polling.change(&cx, &change("0", "fixed")).unwrap();
        assert_eq!(budget(), Duration::ZERO);
        assert_eq!(polling.describe(), "off");
    }

    #[test]
    fn a_change_that_is_not_allowed_changes_nothing() {
        let (polling, cx) = polling("--poll-max 32us --poll-wake-ns 10000");
        let before = polling.describe();
        for (change, remedy) in [
            (r#"{"max":"2s"}"#, "32us to 200us"),
            (r#"{"max":"5us","policy":"luck"}"#, "qemu-2020"),
            (r#"{"max":"5us","cpu-price":0}"#, "from 1 to 10000"),
            (r#"{"max":"5us","weight":32}"#, "from 0 to 31"),
        ] {
            let change = serde_json::from_str(change).unwrap();
            let error = polling.change(&cx, &change).unwrap_err().to_string();
            assert!(error.contains(remedy), "{error}");
            assert_eq!(polling.describe(), before);
        }
    }

    #[test]
    fn a11_the_cost_of_a_sleep_and_of_a_kick_can_be_set() {
        let (polling, cx) = polling("--poll-wake-ns 10000 --poll-kick-ns 500");
        let wake = || polling.settings.borrow().params.wake;
        assert_eq!(wake(), given(10_000).with_kick(Duration::from_nanos(500)));
        let change = |wake_ns, kick_ns| {
            let change = PollChange {
                wake_ns,
                kick_ns,
                ..PollChange::default()
            };
            polling.change(&cx, &change).unwrap();
        };
        change(None, Some(900));
        assert_eq!(wake(), given(10_000).with_kick(Duration::from_nanos(900)));
        change(Some(20_000), None);
        assert_eq!(wake(), given(20_000).with_kick(Duration::from_nanos(900)));
    }
    #[test]
    fn a13_a_quota_limits_polling_from_the_start_and_after_each_change() {
        let ms = Duration::from_millis;
        let quota = CpuQuota::new(ms(20), ms(100));
        let given = "--poll-max 100us --policy always --poll-wake-ns 10000 --poll-kick-ns 0";
        let (polling, _cx) = polling_within(quota, given);
        let shown = polling.describe();
        assert!(
            shown.contains("poll-cpu-max=5 ") && shown.ends_with("quota of 20 % of a core"),
            "{shown}"
        );
        let (polling, cx) = polling_within(quota, &format!("{given} --iothreads 2"));
        assert!(polling.describe().contains("poll-cpu-max=2 "), "two loops");
        let change = |json: &str| {
            polling.change(&cx, &serde_json::from_str(json).unwrap()).unwrap();
            polling.describe()
        };
        assert!(change(r#"{"cpu-max":90}"#).contains("poll-cpu-max=2 "));
        let less = change(r#"{"cpu-max":1}"#);
        assert!(
            less.contains("poll-cpu-max=1") && !less.contains("quota"),
            "{less}"
        );
        let exclusive = change(r#"{"cpu-max":90,"exclusive":true}"#);
        assert!(
            exclusive.contains("poll-cpu-max=90") && !exclusive.contains("quota"),
            "{exclusive}"
        );
        assert!(change(r#"{"exclusive":false}"#).contains("poll-cpu-max=2 "));
        // A quarter of this quota is less than a percent of a core.
        let (polling, _cx) = polling_within(CpuQuota::new(ms(3), ms(100)), given);
        assert!(
            polling.describe().starts_with("off; limited by") && polling.max_ns() == 0,
            "{}",
            polling.describe()
        );
    }
}
