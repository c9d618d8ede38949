//! Rule T6: the wall clock is set while a loop waits for one of its timers. The wall clocks here are simulated. The reports of the
//! system's clock are tested beside their code.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aio_backend::conformance::disturb::once_asleep;
use aio_context::{Clock, ClockId, Context, ManualClock, Moment, Timer, Wait};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::common::{Bench, Count, everywhere, is_readable};

const HOUR: Duration = Duration::from_secs(3600);

everywhere! {
    t6_a_jump_past_the_deadline_ends_a_blocked_wait
    t6_a_jump_that_passes_no_deadline_is_no_progress_and_fires_nothing
    t6_a_jump_while_the_loop_is_awake_is_not_missed
    t6_a_cancelled_timer_is_not_fired_by_a_jump_and_the_descriptor_goes
    t6_the_descriptor_is_opened_once_by_the_first_wait_for_a_wall_timer
    t6_the_descriptor_is_closed_with_the_context
    t6_while_changes_are_not_reported_waits_are_capped
    t6_a_paused_default_group_does_not_silence_the_clock
}

/// A wall clock that stands still until it is set. It reports each change to every context through a pipe.
#[derive(Clone, Default)]
struct WallClock {
    clock: Arc<ManualClock>,
    /// The writing ends of all pipes that were opened.
    reports: Arc<Mutex<Vec<OwnedFd>>>,
}

impl WallClock {
    fn new() -> Self {
        let wall = Self::default();
        wall.clock.set(Moment::from_nanos(1 << 60));
        wall
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        self.reports.lock().unwrap().push(writer);
        Ok(reader)
    }

    fn context(&self, bench: Bench) -> Context {
        let wall = self.clone();
        let builder = bench
            .builder()
            .wall_clock(self.clock.clone(), move || wall.open());
        builder.build().unwrap()
    }

    fn set(&self, moment: Moment) {
        self.clock.set(moment);
        for writer in &*self.reports.lock().unwrap() {
            // A closed pipe needs no report.
            let _ = rustix::io::write(writer, &[0; 8]);
        }
    }

    fn jump(&self, duration: Duration) {
        self.set(self.clock.now().saturating_add(duration));
    }

    fn jump_back(&self, duration: Duration) {
        self.set(self.clock.now().saturating_sub(duration));
    }

    fn opened(&self) -> usize {
        self.reports.lock().unwrap().len()
    }

    /// Returns the number of contexts whose reading end is open.
    fn watchers(&self) -> usize {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let is_open = |writer: &&OwnedFd| {
            let mut fds = [PollFd::new(*writer, PollFlags::empty())];
            poll(&mut fds, Some(&Timespec::default())).unwrap() == 0
        };
        self.reports.lock().unwrap().iter().filter(is_open).count()
    }
}

/// Makes a test fail whose wait lasts until this timer fires.
fn watchdog(cx: &Context) -> Timer {
    let bark = |_: &Context, _: &Timer| panic!("a change of the clock has not ended the wait");
    cx.timer(ClockId::Monotonic, bark)
        .armed_after(Duration::from_secs(60))
}

/// Returns a timer of the wall clock, armed for `delay` from now, and the number of times that it has fired. It asserts that it is
/// not early.
fn armed(cx: &Context, delay: Duration) -> (Timer, Count) {
    let (count, deadline) = (Count::default(), cx.now(ClockId::Wall).saturating_add(delay));
    let counted = count.clone();
    let fire = move |cx: &Context, _: &Timer| {
        assert!(cx.now(ClockId::Wall) >= deadline, "early");
        counted.up();
    };
    (cx.timer(ClockId::Wall, fire).armed_at(deadline), count)
}

fn t6_a_jump_past_the_deadline_ends_a_blocked_wait(bench: Bench) {
    let wall = WallClock::new();
    let cx = wall.context(bench);
    let _watchdog = watchdog(&cx);
    for _ in 0..5 {
        let (_timer, count) = armed(&cx, 2 * HOUR);
        let progress = once_asleep(|| wall.jump(2 * HOUR), || bench.block(&cx));
        assert_eq!((progress, count.get()), (true, 1));
        assert!(!bench.check(&cx) && count.get() == 1, "once");
    }
}

fn t6_a_jump_that_passes_no_deadline_is_no_progress_and_fires_nothing(bench: Bench) {
    let wall = WallClock::new();
    let cx = wall.context(bench);
    let (_timer, count) = armed(&cx, HOUR);
    let _watchdog = watchdog(&cx);
    let one = Duration::from_nanos(1);
    // A poll continues after a jump that is no progress, until it is notified (D4).
    let (remote, back) = (cx.remote(), wall.clone());
    let is_progress = |jump: &(dyn Fn() + Sync)| {
        let ends = || {
            jump();
            remote.notify();
        };
        once_asleep(ends, || bench.block(&cx))
    };
    // The first jump is back by two hours, so the deadline is three hours ahead.
    let jumps: [&(dyn Fn() + Sync); 3] = [&|| back.jump_back(2 * HOUR), &|| wall.jump(HOUR), &|| {
        wall.jump(HOUR)
    }];
    for jump in jumps {
        assert!(!is_progress(jump), "no progress");
        assert!(!bench.check(&cx) && count.get() == 0);
    }
    assert!(!is_progress(&|| wall.jump(HOUR - one)));
    assert_eq!(count.get(), 0, "a nanosecond is left");
    wall.jump(one);
    assert!(bench.check(&cx) && count.get() == 1);
}

/// Several contexts on threads of their own, whose clock is set at any time, also right before they wait.
fn t6_a_jump_while_the_loop_is_awake_is_not_missed(bench: Bench) {
    const ROUNDS: u32 = 30;
    let wall = WallClock::new();
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let cx = wall.context(bench);
                let _watchdog = watchdog(&cx);
                for _ in 0..ROUNDS {
                    start.wait();
                    let (_timer, count) = armed(&cx, HOUR);
                    start.wait();
                    while count.get() == 0 {
                        bench.block(&cx);
                    }
                }
            });
        }
        for _ in 0..ROUNDS {
            start.wait();
            start.wait();
            wall.jump(HOUR);
        }
    });
    assert_eq!(wall.opened(), 3);
}

fn t6_a_cancelled_timer_is_not_fired_by_a_jump_and_the_descriptor_goes(bench: Bench) {
    let wall = WallClock::new();
    let cx = wall.context(bench);
    let (timer, count) = armed(&cx, HOUR);
    assert!(!bench.poll(&cx, Wait::AtMost(Duration::from_millis(1))));
    assert_eq!(wall.watchers(), 1);
    timer.cancel();
    assert!(
        !bench.check(&cx) && wall.watchers() == 1,
        "an idle descriptor costs nothing"
    );
    wall.jump(2 * HOUR);
    assert!(!bench.check(&cx) && !bench.check(&cx));
    assert_eq!(
        (count.get(), wall.watchers()),
        (0, 0),
        "not watched without a timer"
    );
    // And again.
    let _watchdog = watchdog(&cx);
    timer.arm_at(cx.now(ClockId::Wall).saturating_add(HOUR));
    assert!(once_asleep(|| wall.jump(HOUR), || bench.block(&cx)));
    assert_eq!((count.get(), wall.opened()), (1, 2));
}

fn t6_the_descriptor_is_opened_once_by_the_first_wait_for_a_wall_timer(bench: Bench) {
    let wall = WallClock::new();
    let cx = wall.context(bench);
    let millisecond = Wait::AtMost(Duration::from_millis(1));
    let others =
        [ClockId::Monotonic, ClockId::Virtual].map(|clock| cx.timer(clock, |_, _| {}).armed_after(HOUR));
    let never = cx.timer(ClockId::Wall, |_, _| {}).armed_at(Moment::NEVER);
    assert!(!bench.poll(&cx, millisecond) && wall.opened() == 0);
    let (timer, _) = armed(&cx, HOUR);
    assert_eq!(wall.opened(), 0, "no wait has begun");
    for _ in 0..10 {
        assert!(!bench.poll(&cx, millisecond));
        timer.cancel();
        assert!(!bench.poll(&cx, millisecond));
        timer.arm_at(cx.now(ClockId::Wall).saturating_add(HOUR));
    }
    assert_eq!((wall.opened(), wall.watchers()), (1, 1));
    drop((others, never));
}

fn t6_the_descriptor_is_closed_with_the_context(bench: Bench) {
    let wall = WallClock::new();
    let cx = wall.context(bench);
    let (timer, _) = armed(&cx, HOUR);
    bench.poll(&cx, Wait::AtMost(Duration::from_millis(1)));
    assert_eq!(wall.watchers(), 1);
    drop(cx);
    assert_eq!((wall.watchers(), timer.deadline()), (0, None));
}

fn t6_while_changes_are_not_reported_waits_are_capped(bench: Bench) {
    let (attempts, wall) = (Arc::new(Mutex::new(0)), WallClock::new());
    let (tried, reported) = (attempts.clone(), wall.clone());
    // The first descriptor cannot be opened, later ones can.
    let open = move || {
        *tried.lock().unwrap() += 1;
        if *tried.lock().unwrap() == 1 {
            return Err(io::Error::other("none left"));
        }
        reported.open()
    };
    let (builder, clock) = bench.on_simulated_time();
    let cx = builder.wall_clock(wall.clock.clone(), open).build().unwrap();
    let (timer, count) = armed(&cx, HOUR);
    // The average length of the waits of a poll. A poll continues until its limit (D4); a foreign loop waits once.
    let each_wait = |limit| {
        let sleeps = || cx.remote().stats().blocked;
        let before = (clock.now(), sleeps());
        assert!(!bench.poll(&cx, Wait::AtMost(limit)));
        clock.now().since(before.0) / u32::try_from(sleeps() - before.1).unwrap().max(1)
    };
    let second = Duration::from_secs(1);
    assert_eq!(
        [each_wait(second * 10), each_wait(second / 2)],
        [second, second / 2]
    );
    wall.clock.advance(HOUR);
    assert!(bench.block(&cx) && count.get() == 1, "seen by the next iteration");
    assert_eq!(*attempts.lock().unwrap(), 1);
    // No timer is armed any more, so the next timer tries again.
    assert!(!bench.check(&cx));
    timer.arm_at(cx.now(ClockId::Wall).saturating_add(HOUR));
    assert_eq!(each_wait(second * 10), second * 10);
    assert_eq!((*attempts.lock().unwrap(), wall.watchers()), (2, 1));
}

fn t6_a_paused_default_group_does_not_silence_the_clock(bench: Bench) {
    let wall = WallClock::new();
    let cx = wall.context(bench);
    let (_timer, count) = armed(&cx, HOUR);
    let _watchdog = watchdog(&cx);
    let _paused = cx.pause(aio_context::GroupId::DEFAULT);
    assert!(once_asleep(|| wall.jump(HOUR), || bench.block(&cx)));
    assert_eq!(count.get(), 1);
}

/// Rule T6 in a foreign loop: the context's descriptor reports a change, and is silent after `check`.
#[test]
fn t6_a_foreign_loop_learns_of_a_jump_by_the_descriptor() {
    let bench = Bench::FOREIGN;
    let wall = WallClock::new();
    let cx = wall.context(bench);
    let (_timer, count) = armed(&cx, HOUR);
    let embedded = cx.embed().unwrap();
    assert_eq!(embedded.prepare(), Some(HOUR));
    assert!(!is_readable(embedded.as_fd()));
    wall.jump_back(HOUR);
    assert!(is_readable(&embedded) && !embedded.check().unwrap());
    assert_eq!(embedded.prepare(), Some(2 * HOUR));
    assert!(!is_readable(&embedded), "the change was accepted");
    wall.jump(2 * HOUR);
    assert!(is_readable(&embedded) && embedded.check().unwrap() && embedded.dispatch());
    assert_eq!((count.get(), embedded.prepare()), (1, None));
}

/// A context with a timer of the system's wall clock has a timerfd until it is dropped.
#[test]
fn t6_b7_contexts_with_wall_timers_leave_no_descriptor() {
    let descriptors = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        let is_timerfd = |entry: io::Result<std::fs::DirEntry>| {
            let target = std::fs::read_link(entry.unwrap().path());
            target.is_ok_and(|target| target.to_string_lossy().contains("timerfd"))
        };
        all.filter_map(|entry| is_timerfd(entry).then_some(())).count()
    };
    let before = descriptors();
    for _ in 0..100 {
        let cx = Context::new().unwrap();
        let _timer = cx.timer(ClockId::Wall, |_, _| {}).armed_after(HOUR);
        cx.poll(Wait::AtMost(Duration::from_micros(1))).unwrap();
        assert!(descriptors() >= 1, "the context has one");
    }
    // Tests that run at the same time may have some timerfds, but not a hundred.
    assert!(descriptors() < before + 50);
}
