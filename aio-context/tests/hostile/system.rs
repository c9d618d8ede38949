//! Cases 72, 78 to 80 and 83: signals, processes, the end of a thread, and one processor for all.

use std::any::Any;
use std::cell::RefCell;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use aio_backend::conformance::disturb::in_a_storm;
use aio_context::{BottomHalf, ClockId, Context, Remote};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::common::{Bench, Count, Kick, everywhere, watch};
use crate::fixtures::{MOMENT, keeps, scaled};
use crate::process::each_in_a_process;

everywhere! {
    case_72_signals_all_the_time
}

/// Rules B1 and D4: each wait is interrupted, and then waits for the rest of its time. The system never restarts waits, so the
/// handler's `SA_RESTART` makes no difference.
fn case_72_signals_all_the_time(bench: Bench) {
    if bench.foreign {
        return; // its wait is not ours
    }
    let cx = bench.context();
    let (kick, fired) = (Kick::new(), Count::default());
    let _registration = watch(&cx, &kick);
    let counted = fired.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            counted.up();
        })
        .disarmed();
    in_a_storm(|| {
        let start = Instant::now();
        timer.arm_after(Duration::from_millis(20));
        assert!(bench.block(&cx), "one poll");
        assert!(fired.get() == 1 && start.elapsed() >= Duration::from_millis(20));
        for round in 1..=100 {
            let (remote, writer) = (cx.remote(), kick.writer());
            let ran = Arc::new(AtomicBool::new(false));
            let flag = ran.clone();
            let other = thread::spawn(move || {
                rustix::io::write(&writer, &1u64.to_ne_bytes()).unwrap();
                remote.run(move |_| flag.store(true, Ordering::Relaxed)).unwrap();
            });
            while kick.count.get() < round || !ran.load(Ordering::Relaxed) {
                bench.block(&cx);
            }
            other.join().unwrap();
        }
    });
    while bench.check(&cx) {}
    assert_eq!((kick.count.get(), fired.get()), (100, 1));
}

/// Rule N1: a signal handler may call only `notify`. The notification is not lost wherever it interrupts the home thread.
#[test]
fn case_78_notified_by_a_signal_handler() {
    let name = concat!(module_path!(), "::case_78_notified_by_a_signal_handler");
    each_in_a_process(name, |bench| {
        let (cx, wanted) = (bench.context(), scaled(5_000, 1_000_000));
        let handled = Arc::new(AtomicU64::new(0));
        let (count, remote) = (handled.clone(), cx.remote());
        let handler = move || {
            count.fetch_add(1, Ordering::Release);
            remote.notify();
        };
        // SAFETY: the handler touches atomics and writes to an eventfd; it takes no lock, allocates nothing, cannot panic.
        let registered = unsafe { signal_hook::low_level::register(signal_hook::consts::SIGALRM, handler) };
        let (home, seen) = (pthread_self(), handled.clone());
        let sender = thread::spawn(move || {
            // Signals are sent one by one, because two pending ones count as one.
            for number in 1..=wanted {
                pthread_kill(home, Signal::SIGALRM).unwrap();
                while seen.load(Ordering::Acquire) < number {
                    std::hint::spin_loop();
                }
            }
        });
        while handled.load(Ordering::Acquire) < wanted {
            if bench.foreign {
                // Its own wait is interrupted, too.
                let embedded = cx.embed().unwrap();
                let limit = if embedded.prepare() == Some(Duration::ZERO) {
                    0
                } else {
                    50
                };
                let timeout = rustix::event::Timespec {
                    tv_sec: 0,
                    tv_nsec: limit * 1_000_000,
                };
                let mut fds = [rustix::event::PollFd::new(
                    &embedded,
                    rustix::event::PollFlags::IN,
                )];
                let _interrupted = rustix::event::poll(&mut fds, Some(&timeout));
                assert!(!embedded.check().unwrap());
            } else {
                assert!(!bench.block(&cx), "woken, without work");
            }
        }
        sender.join().unwrap();
        signal_hook::low_level::unregister(registered.unwrap());
    });
}

/// Rule B7: a started program has none of our descriptors. (A child that continues without `exec` shares the kernel's side of a
/// context; the page of `aio-context` forbids its use.)
#[test]
fn case_79_child_processes_inherit_no_descriptor() {
    let contexts: Vec<_> = Bench::ALL
        .iter()
        .map(|bench| {
            let cx = bench.context();
            bench.poll(&cx, MOMENT);
            cx
        })
        .collect();
    let open = |process: &str| {
        let listed = Command::new("ls")
            .args(["-l", &format!("/proc/{process}/fd")])
            .output()
            .unwrap();
        String::from_utf8_lossy(&listed.stdout).into_owned()
    };
    let ours = open(&std::process::id().to_string());
    let theirs = open("self");
    for file in ["anon_inode:[eventfd]", "anon_inode:[eventpoll]"] {
        assert!(ours.contains(file) && !theirs.contains(file), "{ours}{theirs}");
    }
    drop(contexts);
}

/// Uses every handle when it is dropped.
struct Late<F: Fn() -> bool> {
    remote: Remote,
    bh: BottomHalf,
    /// Returns `true` while the context exists.
    is_there: F,
    said: mpsc::Sender<bool>,
}

impl<F: Fn() -> bool> Drop for Late<F> {
    fn drop(&mut self) {
        self.bh.schedule();
        let _ = self.remote.run(|_| ());
        self.remote.notify();
        // The job runs in place or is refused. It must not wait, because no other thread would run the job.
        let answer = self.remote.run_and_wait(|_| 7);
        self.said.send(answer.is_err() || (self.is_there)()).unwrap();
    }
}

/// Rule W2: a thread ends with a context and its handles in thread-local storage, in either order of destruction.
#[test]
fn case_80_a_thread_that_ends_with_its_context() {
    thread_local! {
        static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    }
    let name = concat!(module_path!(), "::case_80_a_thread_that_ends_with_its_context");
    each_in_a_process(name, |bench| {
        for (is_first, late_first) in [(true, true), (true, false), (false, true), (false, false)] {
            let (said, heard) = mpsc::channel();
            let ends = thread::spawn(move || {
                let keep = |what: Box<dyn Any>| KEPT.with_borrow_mut(|kept| kept.push(what));
                if is_first {
                    keep(Box::new(()));
                }
                let cx = bench.context();
                let late = || {
                    let weak = cx.downgrade();
                    Late {
                        remote: cx.remote(),
                        bh: cx.bottom_half("late", |_| {}),
                        is_there: move || weak.upgrade().is_some(),
                        said: said.clone(),
                    }
                };
                let in_timer = late();
                let timer = cx
                    .timer(ClockId::Monotonic, move |_, _| keeps(&in_timer))
                    .disarmed();
                let in_handler = late();
                let kick = Kick::with(move |_, _| keeps(&in_handler));
                let registration = watch(&cx, &kick);
                let in_bh = late();
                let bh = cx.bottom_half("kept", move |_| keeps(&in_bh));
                bh.schedule();
                let in_job = Late {
                    remote: cx.remote(),
                    bh: cx.bottom_half("late", |_| {}),
                    is_there: || false,
                    said: said.clone(),
                };
                cx.remote().run(move |_| drop(in_job)).unwrap();
                if late_first {
                    keep(Box::new(late()));
                }
                keep(Box::new((timer, registration, kick, bh)));
                keep(Box::new(cx.clone()));
                keep(Box::new(late()));
            });
            ends.join().unwrap();
            let said: Vec<_> = heard.iter().collect();
            assert_eq!(said.len(), 5 + usize::from(late_first));
            assert!(said.iter().all(|fine| *fine), "{said:?}");
        }
    });
}

/// Fault F2: four threads that never sleep share one processor with the loop, and all make progress.
#[test]
fn case_83_one_processor_for_all_threads() {
    let name = concat!(module_path!(), "::case_83_one_processor_for_all_threads");
    each_in_a_process(name, |bench| {
        const THREADS: u64 = 4;
        let jobs = scaled(3, 500);
        let allowed = sched_getaffinity(None).unwrap();
        let one = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
        let mut only = CpuSet::new();
        only.set(one);
        sched_setaffinity(None, &only).unwrap();
        let cx = bench.context();
        let done = Arc::new(AtomicU64::new(0));
        let spinners: Vec<_> = (0..THREADS)
            .map(|_| {
                let (remote, done) = (cx.remote(), done.clone());
                thread::spawn(move || {
                    for _ in 0..jobs {
                        let ran = Arc::new(AtomicBool::new(false));
                        let (flag, done) = (ran.clone(), done.clone());
                        let job = move |_: &Context| {
                            done.fetch_add(1, Ordering::Relaxed);
                            flag.store(true, Ordering::Release);
                        };
                        remote.run(job).unwrap();
                        while !ran.load(Ordering::Acquire) {
                            std::hint::spin_loop();
                        }
                    }
                })
            })
            .collect();
        while done.load(Ordering::Relaxed) < THREADS * jobs {
            bench.block(&cx);
        }
        spinners.into_iter().for_each(|spinner| spinner.join().unwrap());
    });
}
