//! Cases 12 to 15 of the original's suites: tasks that wake each other, and that move between threads. `aio-glib` runs them in GLib.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as Lock, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use aio_context::{Context, Remote};
use aio_executor::{ContextExt, JoinHandle, Mutex, RemoteExt, current, hop, spawn, yield_now};

use crate::common::{Bench, everywhere};

everywhere! {
    case_12_e1_two_tasks_wake_each_other
    case_13_e1_a_worker_thread_wakes_a_task
    case_14_e2_tasks_hop_between_contexts
    case_15_e2_a_contended_mutex_between_contexts
    case_15_e2_hand_off_round_the_contexts
}

const HOMES: usize = 5;

/// Polls until the task is done, and returns its result.
fn joined<T>(bench: Bench, cx: &Context, task: JoinHandle<T>) -> T {
    while !task.is_finished() {
        bench.block(cx);
    }
    task.wait().unwrap()
}

/// Returns an approximate position on the stack of the caller.
fn stack_position() -> usize {
    let here = 0u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}

fn case_12_e1_two_tasks_wake_each_other(bench: Bench) {
    const TIMES: u32 = 25_000;
    #[derive(Default)]
    struct Game {
        turn: Cell<usize>,
        sleeping: [RefCell<Option<Waker>>; 2],
        stack: RefCell<Vec<usize>>,
    }
    async fn player(game: Rc<Game>, me: usize) -> u32 {
        let mut played = 0;
        while played < TIMES {
            poll_fn(|polling| {
                if game.turn.get() == me {
                    return Poll::Ready(());
                }
                game.sleeping[me].replace(Some(polling.waker().clone()));
                Poll::Pending
            })
            .await;
            let here = stack_position();
            let mut stack = game.stack.borrow_mut();
            stack.extend([here, here]);
            let (lowest, highest) = (stack.iter().min().copied(), stack.iter().max().copied());
            stack.clear();
            stack.extend(lowest);
            stack.extend(highest);
            drop(stack);
            played += 1;
            game.turn.set(1 - me);
            if let Some(waker) = game.sleeping[1 - me].take() {
                waker.wake();
            }
        }
        played
    }
    let cx = bench.context();
    let game = Rc::new(Game::default());
    let players = [0, 1].map(|me| cx.spawn(player(game.clone(), me)));
    for player in players {
        assert_eq!(joined(bench, &cx, player), TIMES);
    }
    let stack = game.stack.borrow();
    assert!(
        stack[1] - stack[0] < 4096,
        "the stack grew by {}",
        stack[1] - stack[0]
    );
    assert_eq!(Rc::strong_count(&game), 1, "the tasks are gone");
}

fn case_13_e1_a_worker_thread_wakes_a_task(bench: Bench) {
    #[derive(Default)]
    struct Mail {
        letter: Option<u64>,
        reader: Option<Waker>,
    }
    let (cx, home) = (bench.context(), thread::current().id());
    for number in 1..=200 {
        let mail = Arc::new(Lock::new(Mail::default()));
        let inbox = mail.clone();
        let task = cx.spawn(async move {
            let letter = poll_fn(|polling| {
                let mut mail = inbox.lock().unwrap();
                mail.reader = Some(polling.waker().clone());
                mail.letter.take().map_or(Poll::Pending, Poll::Ready)
            });
            let letter = letter.await;
            assert_eq!(thread::current().id(), home, "it runs at home");
            letter
        });
        let worker = thread::spawn(move || {
            let mut mail = mail.lock().unwrap();
            mail.letter = Some(number);
            let reader = mail.reader.take();
            drop(mail);
            reader.into_iter().for_each(Waker::wake);
        });
        assert_eq!(joined(bench, &cx, task), number);
        worker.join().unwrap();
    }
}

/// Starts threads with a context each, passes their remotes to `drive`, and ends the threads when it returns.
fn on_five_homes<R>(bench: Bench, drive: impl FnOnce(&[Remote]) -> R) -> R {
    let ends = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let (hand_over, remotes) = mpsc::channel();
        for _ in 0..HOMES {
            let (ends, hand_over) = (ends.clone(), hand_over.clone());
            scope.spawn(move || {
                let cx = bench.context();
                hand_over.send(cx.remote()).unwrap();
                while !ends.load(Ordering::Acquire) {
                    bench.block(&cx);
                }
            });
        }
        let homes = Homes {
            ends,
            remotes: remotes.iter().take(HOMES).collect(),
        };
        drive(&homes.remotes)
    })
}

/// Ends the threads when it is dropped, also if the test fails.
struct Homes {
    ends: Arc<AtomicBool>,
    remotes: Vec<Remote>,
}

impl Drop for Homes {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        for remote in &self.remotes {
            // A job ends a foreign loop's wait, too. A context that has seen the flag may be gone.
            let _ = remote.run(|_cx| {});
        }
    }
}

/// Returns a second for all kinds of contexts together, or ten seconds for each with `AIO_HOSTILE=long`.
fn duration() -> Duration {
    if std::env::var("AIO_HOSTILE").is_ok_and(|bounds| bounds == "long") {
        Duration::from_secs(10)
    } else {
        Duration::from_millis(60)
    }
}

/// Tasks hop between random contexts. Each carries its own number, which is found once at the end: no task is
/// lost or doubled. The task and its destination count each hop.
fn case_14_e2_tasks_hop_between_contexts(bench: Bench) {
    const TASKS: u64 = 50;
    let seed = aio_testing::seed();
    let end = Instant::now() + duration();
    on_five_homes(bench, |remotes| {
        let arrivals: Arc<[AtomicU64; HOMES]> = Arc::default();
        let tasks: Vec<JoinHandle<(u64, u64)>> = (0..TASKS)
            .map(|number| {
                let (remotes, arrivals) = (remotes.to_vec(), arrivals.clone());
                let mut random = fastrand::Rng::with_seed(seed ^ number);
                remotes[random.usize(..HOMES)].clone().spawn(async move {
                    let (mut hops, mut is_running) = (0, Some(()));
                    while Instant::now() < end {
                        assert!(is_running.take().is_some(), "it runs twice at a time");
                        let goal = random.usize(..HOMES);
                        is_running = Some(());
                        hop(&remotes[goal]).await.unwrap();
                        assert!(current().remote().is_same(&remotes[goal]));
                        arrivals[goal].fetch_add(1, Ordering::Relaxed);
                        hops += 1;
                        match random.u8(..8) {
                            0 => yield_now().await,
                            1 => spawn(yield_now()).await.unwrap(),
                            _ => {}
                        }
                    }
                    (number, hops)
                })
            })
            .collect();
        let mut total = 0;
        for (expected, task) in tasks.into_iter().enumerate() {
            let (number, hops) = task.wait().unwrap();
            assert_eq!(number, expected as u64);
            total += hops;
        }
        let arrived: Vec<u64> = arrivals
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        assert_eq!(arrived.iter().sum::<u64>(), total);
        assert!(arrived.iter().all(|count| *count > 0), "{arrived:?}");
        println!("{total} hops");
    });
}

fn case_15_e2_a_contended_mutex_between_contexts(bench: Bench) {
    const TASKS: usize = 4;
    const TIMES: u64 = 250;
    let (mutex, last) = (Arc::new(Mutex::new(0_u64)), Arc::new(AtomicUsize::new(HOMES)));
    let moves = on_five_homes(bench, |remotes| {
        let spawn_on = |(home, remote): (usize, &Remote)| {
            let (mutex, last, remote) = (mutex.clone(), last.clone(), remote.clone());
            remote.clone().spawn(async move {
                let mut moves = 0;
                for round in 0..TIMES {
                    let mut count = mutex.lock().await;
                    // Read, yield, write: only the mutex excludes other tasks in between.
                    let seen = *count;
                    if last.swap(home, Ordering::Relaxed) != home {
                        moves += 1;
                    }
                    match round % 16 {
                        0 => yield_now().await,
                        // Also while it holds the guard.
                        8 => hop(&remote).await.unwrap(),
                        _ => {}
                    }
                    *count = seen + 1;
                }
                moves
            })
        };
        let homes = remotes.iter().enumerate();
        let tasks: Vec<_> = homes.cycle().take(HOMES * TASKS).map(spawn_on).collect();
        tasks.into_iter().map(|task| task.wait().unwrap()).sum::<u64>()
    });
    assert!(moves >= HOMES as u64, "it went from home to home");
    let mutex = Arc::into_inner(mutex).expect("the tasks are gone");
    assert_eq!(mutex.into_inner(), (HOMES * TASKS) as u64 * TIMES);
}

fn case_15_e2_hand_off_round_the_contexts(bench: Bench) {
    const ROUNDS: usize = 1_000;
    #[derive(Default)]
    struct Seat {
        sleeping: Lock<Option<Waker>>,
    }
    let (seats, turn) = (Arc::<[Seat; HOMES]>::default(), Arc::new(AtomicUsize::new(0)));
    on_five_homes(bench, |remotes| {
        let tasks: Vec<_> = remotes
            .iter()
            .enumerate()
            .map(|(home, remote)| {
                let (seats, turn) = (seats.clone(), turn.clone());
                remote.spawn(async move {
                    for round in 0..ROUNDS {
                        poll_fn(|polling| {
                            // Store the waker first, then check: a task that hands over reads the waker after its write.
                            *seats[home].sleeping.lock().unwrap() = Some(polling.waker().clone());
                            if turn.load(Ordering::Acquire) == round * HOMES + home {
                                Poll::Ready(())
                            } else {
                                Poll::Pending
                            }
                        })
                        .await;
                        turn.fetch_add(1, Ordering::Release);
                        let next = seats[(home + 1) % HOMES].sleeping.lock().unwrap().take();
                        next.into_iter().for_each(Waker::wake);
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.wait().unwrap());
    });
    assert_eq!(turn.load(Ordering::Relaxed), HOMES * ROUNDS);
}
