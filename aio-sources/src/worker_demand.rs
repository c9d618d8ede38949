//! [`Demand`]: the number of threads that the work of a pool needs, and when its results are announced.
//!
//! Each long job gets a thread, and each of its results is announced at once. A short job, such as a write to
//! the page cache, takes less time than waking a thread for it and the loop for its result. Therefore one
//! thread runs short jobs, one after the other, and announces results together. A second thread watches the
//! first: if a job takes long all the same, the second thread announces the results so far and takes over the
//! remaining jobs, and the work counts as long from then on.

use std::time::{Duration, Instant};

/// The mean time below which jobs are short: about the time to wake a thread and then the loop.
const SHORT: Duration = Duration::from_micros(50);
/// The time for which a longer job counts. After it some twenty short jobs make the work short again.
const LONGEST_COUNTED: Duration = Duration::from_micros(500);
/// The longest time until a result is announced, while others follow.
const LONGEST_QUIET: Duration = Duration::from_micros(50);
/// The time between two checks of the thread that runs short jobs, by the watching thread.
pub(crate) const WATCH: Duration = Duration::from_micros(200);

/// The next action of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs a job.
    Run,
    /// Waits for [`WATCH`], and then [finds out](Demand::end_watch) whether jobs were begun meanwhile.
    Watch,
    /// Waits until it is called.
    Park,
}

/// Counts threads and measures jobs. The parameter `jobs` is the number of those that no thread has begun.
#[derive(Debug)]
pub(crate) struct Demand {
    /// The mean time of the last few jobs.
    typical: Duration,
    /// The number of threads that run a job.
    running: usize,
    /// The number of these that do not count as running, because a job takes long.
    stalled: usize,
    /// The number of threads that were woken or started, and have not got their role yet.
    called: usize,
    is_watched: bool,
    /// The number of jobs that were begun.
    begun: u64,
    /// The number of results that were not announced, and the time of the first of them.
    quiet: usize,
    quiet_since: Option<Instant>,
}

impl Demand {
    /// Makes the state before the first job. The work counts as long at first.
    pub(crate) fn new() -> Self {
        Self {
            typical: SHORT,
            running: 0,
            stalled: 0,
            called: 0,
            is_watched: false,
            begun: 0,
            quiet: 0,
            quiet_since: None,
        }
    }

    fn is_short(&self) -> bool {
        self.typical < SHORT
    }

    /// Returns whether a thread runs short jobs.
    fn is_run(&self) -> bool {
        self.running > self.stalled
    }

    /// Returns whether to call another thread.
    pub(crate) fn needs_more(&self, jobs: usize) -> bool {
        if jobs == 0 {
            false
        } else if self.is_short() {
            let watches = !self.is_watched && (jobs > 1 || self.is_run());
            self.called < usize::from(!self.is_run()) + usize::from(watches)
        } else {
            self.called < jobs
        }
    }

    /// Records that a thread was called.
    pub(crate) fn call(&mut self) {
        self.called += 1;
    }

    /// Records that a called thread gets its role next.
    pub(crate) fn arrive(&mut self) {
        self.called = self.called.saturating_sub(1);
    }

    /// Returns the role of a thread that has none.
    pub(crate) fn role(&self, jobs: usize) -> Role {
        let is_run = self.is_short() && self.is_run();
        if jobs > 0 && !is_run {
            Role::Run
        } else if is_run && !self.is_watched && (jobs > 0 || self.quiet > 0) {
            Role::Watch
        } else {
            Role::Park
        }
    }

    /// Records that a thread begins a job.
    pub(crate) fn begin(&mut self) {
        self.running += 1;
        self.begun += 1;
    }

    /// Records that a thread has ended a job, which took `took`. Returns whether to announce its result, and
    /// those before it.
    pub(crate) fn end(&mut self, took: Duration, now: Instant, jobs: usize) -> bool {
        self.running -= 1;
        self.stalled = self.stalled.min(self.running);
        self.typical = (self.typical * 7 + took.min(LONGEST_COUNTED)) / 8;
        self.quiet += 1;
        let since = *self.quiet_since.get_or_insert(now);
        // Half of the outstanding jobs: the client can work on their results while the other half is
        // executed.
        let may_wait = self.is_short() && self.is_watched && self.quiet < jobs;
        if may_wait && now.duration_since(since) < LONGEST_QUIET {
            return false;
        }
        self.announced();
        true
    }

    /// Records that all results were announced.
    pub(crate) fn announced(&mut self) {
        self.quiet = 0;
        self.quiet_since = None;
    }

    /// Returns whether results wait to be announced.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet > 0
    }

    /// Records that a thread begins to watch. Returns the argument for [`end_watch`](Self::end_watch).
    pub(crate) fn watch(&mut self) -> u64 {
        self.is_watched = true;
        self.begun
    }

    /// Records that a thread stops watching, for which [`watch`](Self::watch) has returned `begun`. If no job
    /// was begun since then, although there are some and a thread is busy, the work counts as long. Returns
    /// whether that is the case.
    pub(crate) fn end_watch(&mut self, begun: u64, jobs: usize) -> bool {
        self.is_watched = false;
        let has_stalled = jobs > 0 && self.begun == begun && self.is_run();
        if has_stalled {
            self.stalled = self.running;
            self.typical = LONGEST_COUNTED;
        }
        has_stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEF: Duration = Duration::from_micros(5);

    /// Returns a state after short jobs.
    fn short() -> Demand {
        let mut demand = Demand::new();
        for _ in 0..8 {
            demand.begin();
            assert!(demand.end(BRIEF, Instant::now(), 0), "nothing follows");
        }
        demand
    }

    #[test]
    fn s2_long_work_has_a_thread_for_each_job() {
        let mut demand = Demand::new();
        for jobs in 1..5 {
            assert!(demand.needs_more(jobs));
            demand.call();
            assert!(!demand.needs_more(jobs));
        }
        for left in (0..4).rev() {
            demand.arrive();
            assert_eq!(demand.role(left + 1), Role::Run);
            demand.begin();
        }
        assert_eq!(demand.role(0), Role::Park);
        assert!(demand.end(Duration::from_millis(1), Instant::now(), 3));
    }

    #[test]
    fn s2_short_work_is_run_by_one_thread_that_another_one_watches() {
        let mut demand = short();
        assert!(demand.needs_more(1));
        demand.call();
        assert!(!demand.needs_more(1), "one is enough for one job");
        demand.arrive();
        demand.begin();
        assert!(demand.needs_more(1), "one that watches");
        demand.call();
        assert!(!demand.needs_more(20));
        demand.arrive();
        assert_eq!(demand.role(20), Role::Watch);
        demand.watch();
        assert!(!demand.needs_more(20));
        assert_eq!(demand.role(20), Role::Park, "for a third one");
    }

    #[test]
    fn s2_results_of_short_work_are_announced_when_half_is_done_or_after_a_time() {
        let (mut demand, now) = (short(), Instant::now());
        demand.watch();
        let mut announced = Vec::new();
        for jobs in (0..8).rev() {
            demand.begin();
            if demand.end(BRIEF, now, jobs) {
                announced.push(jobs);
            }
        }
        assert_eq!(announced, [4, 2, 1, 0]);
        for (after, expected) in [
            (Duration::ZERO, false),
            (LONGEST_QUIET, true),
            (LONGEST_QUIET, false),
        ] {
            demand.begin();
            assert_eq!(demand.end(BRIEF, now + after, 50), expected, "{after:?}");
        }
    }

    #[test]
    fn s2_without_a_watching_thread_each_result_is_announced() {
        let mut demand = short();
        demand.begin();
        assert!(demand.end(BRIEF, Instant::now(), 50));
        assert!(!demand.is_quiet());
    }

    #[test]
    fn s2_if_short_work_stalls_the_watching_thread_takes_over() {
        let mut demand = short();
        demand.begin();
        let begun = demand.watch();
        assert_eq!(demand.role(3), Role::Park);
        assert!(demand.end_watch(begun, 3));
        assert_eq!(demand.role(3), Role::Run);
        demand.begin();
        assert!(demand.needs_more(2), "each job has a thread again");
        // Even after the work is short again, the thread that hangs does not count.
        let now = Instant::now();
        for _ in 0..40 {
            demand.end(BRIEF, now, 0);
            demand.begin();
        }
        demand.end(BRIEF, now, 0);
        assert!(demand.is_short() && demand.needs_more(1));
        assert_eq!(demand.role(1), Role::Run);
    }

    #[test]
    fn s2_short_work_behind_threads_that_have_hung_for_long_is_watched() {
        let mut demand = Demand::new();
        (0..3).for_each(|_| demand.begin());
        for _ in 0..8 {
            demand.begin();
            demand.end(BRIEF, Instant::now(), 0);
        }
        assert!(demand.is_short() && demand.needs_more(1));
        demand.call();
        assert!(!demand.needs_more(2));
        demand.arrive();
        assert_eq!(demand.role(1), Role::Watch);
        let begun = demand.watch();
        assert!(demand.end_watch(begun, 1));
        assert_eq!(demand.role(1), Role::Run);
    }

    #[test]
    fn s2_a_watching_thread_leaves_work_alone_that_goes_on() {
        let mut demand = short();
        demand.begin();
        let begun = demand.watch();
        demand.end(BRIEF, Instant::now(), 3);
        demand.begin();
        assert!(!demand.end_watch(begun, 3));
        assert_eq!(demand.role(3), Role::Watch);
        assert!(!demand.end_watch(begun, 0), "nothing waits");
        demand.end(BRIEF, Instant::now(), 0);
        let begun = demand.watch();
        assert!(!demand.end_watch(begun, 3), "its thread is on the way");
        assert_eq!(demand.role(3), Role::Run);
    }
}
