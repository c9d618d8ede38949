//! Cases 69, 70, 73 to 77 and 84: wake-ups and other threads. (67, 68, 71 and 82 are of `aio-notify`; 81 is a check of the
//! sources, `it/tidy.rs`.)

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use aio_backend::conformance::disturb::once_asleep;
use aio_context::{BottomHalf, ClockId, Context, Remote, WeakContext};

use crate::common::{Bench, Count, Kick, everywhere, open_descriptors, watch};
use crate::counting;
use crate::fixtures::{MOMENT, disturbed, keeps, scaled};
use crate::process::each_in_a_process;

everywhere! {
    case_69_a_wait_inside_a_wait
    case_73_notified_while_it_goes_away
    case_75_handles_cloned_and_dropped_everywhere
    case_84_spurious_wake_ups
}

/// Rules N2 and D6: both are woken, each by its own event.
fn case_69_a_wait_inside_a_wait(bench: Bench) {
    let cx = bench.context();
    let nested = Kick::with(move |kick, cx| {
        let remote = cx.remote();
        let progress = once_asleep(move || remote.run(|_| ()).unwrap(), || bench.block(cx));
        assert!(progress && kick.count.get() == 1);
        let remote = cx.remote();
        assert!(!once_asleep(move || remote.notify(), || bench.block(cx)));
    });
    let _registration = watch(&cx, &nested);
    let writer = nested.writer();
    let kick = move || assert_eq!(rustix::io::write(&writer, &1u64.to_ne_bytes()), Ok(8));
    assert!(once_asleep(kick, || bench.block(&cx)));
    let remote = cx.remote();
    assert!(!once_asleep(move || remote.notify(), || bench.block(&cx)));
    assert!(!bench.check(&cx));
}

/// Rules N1, N4 and N6: to notify a loop that is awake costs no write. To notify a loop that sleeps costs one write for each sleep.
/// (A thread that notifies it while another one is writing writes, too.)
#[test]
fn case_70_a_storm_of_notifications() {
    let name = concat!(module_path!(), "::case_70_a_storm_of_notifications");
    each_in_a_process(name, |bench| {
        const THREADS: usize = 4;
        let each = scaled(20_000, 2_500_000);
        let cx = bench.context();
        let hammer = move |remote: Remote, bh: BottomHalf| {
            for _ in 0..each {
                remote.notify();
                bh.schedule();
            }
        };
        let (bh, runs) = (cx.bottom_half("hammered", |_| {}), Count::default());
        let (remote, hammered) = (cx.remote(), bh.clone());
        let awake = Kick::with(move |_, _| {
            let threads = [(); THREADS].map(|()| {
                let (remote, bh) = (remote.clone(), hammered.clone());
                thread::spawn(move || hammer(remote, bh))
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let _registration = watch(&cx, &awake);
        awake.kick();
        assert!(bench.block(&cx));
        assert_eq!(cx.remote().wakeups().0, 0, "no loop was asleep");
        while bench.check(&cx) {}

        // A thread that waits for an answer each time.
        let (polls, answers) = (std::cell::Cell::new(0), each / 50);
        let remote = cx.remote();
        let asking = thread::spawn(move || {
            for _ in 0..answers {
                let (tell, hear) = mpsc::sync_channel(1);
                remote.run(move |_| tell.send(()).unwrap()).unwrap();
                hear.recv().unwrap();
            }
        });
        while !asking.is_finished() {
            bench.poll(&cx, MOMENT);
            polls.set(polls.get() + 1);
        }
        asking.join().unwrap();
        let writes = cx.remote().wakeups().0;
        assert!(writes <= polls.get() + 1, "{writes} in {} polls", polls.get());

        // All threads at once, while the loop goes to sleep and is woken all the time: the last notification is not lost.
        counting::observe_this_thread(true);
        bench.check(&cx);
        let before = counting::live().blocks;
        let last = runs.clone();
        let heard = cx.bottom_half("the last one", move |_| {
            last.up();
        });
        let threads = [(); THREADS].map(|()| {
            let (remote, bh) = (cx.remote(), bh.clone());
            thread::spawn(move || hammer(remote, bh))
        });
        let teller = thread::spawn(move || {
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            heard.schedule();
            heard
        });
        while runs.get() == 0 {
            bench.block(&cx);
        }
        drop(teller.join().unwrap());
        bench.check(&cx);
        let left = counting::live().blocks - before;
        // The handles of the threads were made on this thread and dropped on the others.
        assert!(
            left.unsigned_abs() <= 64,
            "{left} blocks for {each} notifications"
        );
    });
}

/// Rule H1 and invariant 2: a handle that outlives its context never writes to the descriptor of another owner.
fn case_73_notified_while_it_goes_away(bench: Bench) {
    for round in 0..scaled(20, 1_500) {
        let (cx, over) = (bench.context(), Arc::new(AtomicBool::new(false)));
        let bh = cx.bottom_half("hammered", |_| {});
        let threads = [(); 3].map(|()| {
            let (remote, bh, over) = (cx.remote(), bh.clone(), over.clone());
            thread::spawn(move || {
                let mut refused = false;
                while !over.load(Ordering::Relaxed) {
                    remote.notify();
                    bh.schedule();
                    remote.kick();
                    refused |= remote.run(|_| ()).is_err();
                }
                assert!(refused | remote.run(|_| ()).is_err(), "gone is gone");
            })
        });
        drop(bh);
        for _ in 0..round % 4 {
            bench.poll(&cx, MOMENT);
        }
        drop(cx);
        // These descriptors get the free numbers.
        let fresh = [(); 8].map(|()| Kick::new());
        thread::yield_now();
        assert!(fresh.iter().all(|kick| !kick.is_set()));
        over.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(fresh.iter().all(|kick| !kick.is_set()));
    }
}

/// Rules H1 and B7: such a handle has no effect, and keeps the descriptor open.
#[test]
fn case_74_handles_that_outlive_their_context() {
    let name = concat!(module_path!(), "::case_74_handles_that_outlive_their_context");
    each_in_a_process(name, |bench| {
        let before = open_descriptors();
        let cx = bench.context();
        bench.poll(&cx, MOMENT);
        let (remote, bh) = (cx.remote(), cx.bottom_half("outlives", |_| unreachable!()));
        let (weak, clock) = (cx.downgrade(), cx.virtual_clock());
        drop(cx);
        assert_eq!(open_descriptors(), before + 1, "the eventfd alone");
        let (remote, bh) = thread::spawn(move || {
            bh.schedule();
            bh.schedule_idle();
            bh.cancel();
            remote.notify();
            remote.kick();
            remote.set_poll_params(aio_context::PollParams::default());
            assert!(remote.run(|_| ()).is_err() && remote.run_and_wait(|_| ()).is_err());
            (remote, bh)
        })
        .join()
        .unwrap();
        assert!(remote.run_and_wait(|_| ()).is_err() && weak.upgrade().is_none());
        clock.warp(Duration::from_secs(1));
        let elsewhere = bench.context();
        assert!(elsewhere.run_on(&remote, |_| ()).is_err());
        drop(elsewhere);
        drop(remote);
        assert_eq!(open_descriptors(), before + 1, "the bottom half has a share");
        drop(bh);
        assert_eq!(
            open_descriptors(),
            before,
            "a clock that is kept keeps no context"
        );
        // One clock for many, such as the time of a virtual machine.
        for _ in 0..100 {
            let builder = bench.builder().virtual_clock(clock.clone());
            drop(builder.build().unwrap());
        }
        clock.warp(Duration::from_secs(1));
        assert_eq!(open_descriptors(), before);
    });
}

/// Rule H6: a bottom half is freed once, on the home thread, whichever thread drops the last handle.
fn case_75_handles_cloned_and_dropped_everywhere(bench: Bench) {
    struct Tells(Arc<AtomicU64>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (cx, freed) = (bench.context(), Arc::new(AtomicU64::new(0)));
    let rounds = scaled(20, 2_000);
    for _ in 0..rounds {
        let tells = Tells(freed.clone());
        let bh = cx.bottom_half("shared", move |_| {
            keeps(&tells);
        });
        let threads = [(); 4].map(|()| {
            let (remote, bh) = (cx.remote(), bh.clone());
            thread::spawn(move || {
                for _ in 0..100 {
                    let clones = (remote.clone(), bh.clone());
                    clones.1.schedule();
                    drop(clones);
                }
            })
        });
        drop(bh);
        bench.check(&cx);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        while bench.check(&cx) {}
    }
    assert_eq!(freed.load(Ordering::Relaxed), rounds);
}

/// Tests at compile time whether a type may move to another thread, or be shared with one.
struct May<T>(PhantomData<T>);

trait MayNot {
    const GO: bool = false;
    const BE_SHARED: bool = false;
}

impl<T> MayNot for May<T> {}

/// An inherent constant takes precedence over that of the trait.
#[allow(dead_code, reason = "for types that may not, it is unused")]
impl<T: Send> May<T> {
    const GO: bool = true;
}

#[allow(dead_code, reason = "for types that may not, it is unused")]
impl<T: Sync> May<T> {
    const BE_SHARED: bool = true;
}

/// Rule D7: such a program does not compile. (The page of `Context` has an example.)
#[test]
fn case_76_polled_by_another_thread() {
    const { assert!(!May::<Context>::GO && !May::<WeakContext>::GO) };
    const { assert!(!May::<aio_context::Registration>::GO && !May::<aio_context::Timer>::GO) };
    const { assert!(!May::<aio_context::Paused>::GO && !May::<aio_context::Embedded>::GO) };
    const { assert!(May::<Remote>::GO && May::<BottomHalf>::GO && May::<aio_context::SourceWaker>::GO) };
}

/// Rule D7: this program does not compile either.
#[test]
fn case_77_polled_by_two_threads() {
    const { assert!(!May::<Context>::BE_SHARED && !May::<WeakContext>::BE_SHARED) };
    const { assert!(!May::<aio_context::Registration>::BE_SHARED && !May::<aio_context::Timer>::BE_SHARED) };
    const { assert!(May::<Remote>::BE_SHARED && May::<BottomHalf>::BE_SHARED) };
}

/// Fault F6: after a spurious wake-up no handler is called, and the loop waits for the rest of the time.
fn case_84_spurious_wake_ups(bench: Bench) {
    let (builder, calls) = disturbed(bench, |number, _| !number.is_multiple_of(3));
    let cx = builder.build().unwrap();
    let (kick, fired) = (Kick::new(), Count::default());
    let _registration = watch(&cx, &kick);
    let counted = fired.clone();
    let timer = cx
        .timer(ClockId::Monotonic, move |_, _| {
            counted.up();
        })
        .disarmed();
    let (start, before) = (Instant::now(), calls.waits());
    timer.arm_after(Duration::from_millis(3));
    let mut polls = 0;
    while fired.get() == 0 {
        bench.block(&cx);
        polls += 1;
    }
    assert!(start.elapsed() >= Duration::from_millis(3) && kick.count.get() == 0);
    if !bench.foreign {
        assert_eq!(polls, 1, "it goes on waiting");
        assert!((3..=9).contains(&(calls.waits() - before)));
    }
    kick.kick();
    let mut polls = 0;
    while kick.count.get() == 0 {
        bench.block(&cx);
        polls += 1;
    }
    assert!(polls <= 3 && kick.count.get() == 1);
    let remote = cx.remote();
    let other = thread::spawn(move || remote.run(|_| ()).unwrap());
    while !bench.block(&cx) {}
    other.join().unwrap();
}
