//! Cases 12, 13 and 15: an executor for futures, built on the public face alone. A task is a bottom half, and waking it is
//! scheduling that.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread;

use aio_context::{BottomHalf, Context};

use crate::common::{Bench, everywhere};

everywhere! {
    case_12_h1_two_tasks_wake_each_other
    case_13_n1_a_worker_thread_wakes_a_task
    case_15_w2_a_contended_mutex_between_contexts
    case_15_w2_hand_off_round_the_contexts
    tasks_that_never_end_are_dropped_with_their_context
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// A future, and the bottom half that polls it. Both are gone when it is done.
struct Task {
    work: RefCell<Option<Work>>,
    poller: RefCell<Option<BottomHalf>>,
}

/// Wakes a task from any thread.
struct Alarm(BottomHalf);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.schedule();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.schedule();
    }
}

impl Task {
    fn poll(&self, waker: &Waker) {
        // No task polls the context, so this function is not entered twice.
        let mut work = self.work.borrow_mut();
        let Some(future) = &mut *work else { return };
        let polled = future.as_mut().poll(&mut std::task::Context::from_waker(waker));
        if polled.is_ready() {
            *work = None;
            self.poller.take();
        }
    }
}

/// Has `work` run on `cx`.
fn spawn(cx: &Context, work: impl Future<Output = ()> + 'static) {
    let task = Rc::new(Task {
        work: RefCell::new(Some(Box::pin(work))),
        poller: RefCell::new(None),
    });
    let polled = task.clone();
    let poller = cx.bottom_half("task", move |_| {
        let alarm = polled
            .poller
            .borrow()
            .clone()
            .map(|poller| Arc::new(Alarm(poller)));
        if let Some(alarm) = alarm {
            polled.poll(&Waker::from(alarm));
        }
    });
    poller.schedule();
    *task.poller.borrow_mut() = Some(poller);
}

/// Lets others have their turn.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Where on the stack this is called, more or less.
fn stack_position() -> usize {
    let here = 0u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}

fn case_12_h1_two_tasks_wake_each_other(bench: Bench) {
    const TIMES: u32 = 25_000;
    struct Game {
        turn: Cell<usize>,
        played: [Cell<u32>; 2],
        sleeping: [RefCell<Option<Waker>>; 2],
        stack: RefCell<(usize, usize)>,
    }
    async fn player(game: Rc<Game>, me: usize) {
        for _ in 0..TIMES {
            poll_fn(|cx| {
                if game.turn.get() == me {
                    return Poll::Ready(());
                }
                *game.sleeping[me].borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            let here = stack_position();
            let mut stack = game.stack.borrow_mut();
            *stack = (stack.0.min(here), stack.1.max(here));
            drop(stack);
            game.played[me].set(game.played[me].get() + 1);
            game.turn.set(1 - me);
            if let Some(waker) = game.sleeping[1 - me].take() {
                waker.wake();
            }
        }
    }
    let cx = bench.context();
    let game = Rc::new(Game {
        turn: Cell::new(0),
        played: Default::default(),
        sleeping: Default::default(),
        stack: RefCell::new((usize::MAX, 0)),
    });
    spawn(&cx, player(game.clone(), 0));
    spawn(&cx, player(game.clone(), 1));
    while game.played[1].get() < TIMES {
        assert!(bench.block(&cx));
    }
    while bench.check(&cx) {}
    assert_eq!(game.played[0].get(), TIMES);
    let (lowest, highest) = *game.stack.borrow();
    assert!(highest - lowest < 4096, "the stack grew by {}", highest - lowest);
    assert_eq!(Rc::strong_count(&game), 1, "the tasks are gone");
}

fn case_13_n1_a_worker_thread_wakes_a_task(bench: Bench) {
    #[derive(Default)]
    struct Mail {
        letter: Option<u64>,
        reader: Option<Waker>,
    }
    let (cx, home) = (bench.context(), thread::current().id());
    let sum = Rc::new(Cell::new(0));
    for number in 1..=200 {
        let mail = Arc::new(Mutex::new(Mail::default()));
        let (inbox, total) = (mail.clone(), sum.clone());
        spawn(&cx, async move {
            let letter = poll_fn(|cx| {
                let mut mail = inbox.lock().unwrap();
                mail.reader = Some(cx.waker().clone());
                mail.letter.take().map_or(Poll::Pending, Poll::Ready)
            });
            total.set(total.get() + letter.await);
            assert_eq!(thread::current().id(), home, "it runs at home");
        });
        let before = sum.get();
        let worker = thread::spawn(move || {
            let mut mail = mail.lock().unwrap();
            mail.letter = Some(number);
            let reader = mail.reader.take();
            drop(mail);
            reader.into_iter().for_each(Waker::wake);
        });
        while sum.get() == before {
            bench.block(&cx);
        }
        worker.join().unwrap();
    }
    assert_eq!(sum.get(), 200 * 201 / 2);
}

/// A mutex for tasks: an unlock hands it to the task that has waited longest, in whatever context that task lives.
#[derive(Default)]
struct Baton(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    taken: bool,
    /// Each with a mark that is set when the baton is handed over.
    waiting: VecDeque<(Waker, Arc<AtomicBool>)>,
}

impl Baton {
    async fn lock(&self) {
        let mut mark = None::<Arc<AtomicBool>>;
        poll_fn(|cx| {
            let mut queue = self.0.lock().unwrap();
            if let Some(mark) = &mark {
                return if mark.load(Ordering::Acquire) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                };
            }
            if !std::mem::replace(&mut queue.taken, true) {
                return Poll::Ready(());
            }
            let new = mark.insert(Arc::default()).clone();
            queue.waiting.push_back((cx.waker().clone(), new));
            Poll::Pending
        })
        .await;
    }

    fn unlock(&self) {
        let mut queue = self.0.lock().unwrap();
        let next = queue.waiting.pop_front();
        queue.taken = next.is_some();
        drop(queue);
        if let Some((waker, mark)) = next {
            mark.store(true, Ordering::Release);
            waker.wake();
        }
    }
}

const HOMES: usize = 5;

/// Starts threads with a context each, has `populate` spawn tasks on them, and waits until as many have ended as it
/// says in sum.
fn on_five_homes(bench: Bench, tasks: usize, populate: impl Fn(usize, &Context, &Arc<AtomicUsize>) + Sync) {
    let ended = Arc::new(AtomicUsize::new(0));
    let remotes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for home in 0..HOMES {
            let (ended, remotes, populate) = (&ended, &remotes, &populate);
            scope.spawn(move || {
                let cx = bench.context();
                remotes.lock().unwrap().push(cx.remote());
                populate(home, &cx, ended);
                while ended.load(Ordering::Acquire) < tasks {
                    bench.block(&cx);
                }
                // Who ends the last task is awake; the others may be asleep.
                let sleepers = remotes.lock().unwrap().clone();
                sleepers.iter().for_each(aio_context::Remote::notify);
            });
        }
    });
    assert_eq!(ended.load(Ordering::Acquire), tasks);
}

fn case_15_w2_a_contended_mutex_between_contexts(bench: Bench) {
    const TASKS: usize = 4;
    const TIMES: u64 = 250;
    let baton = Arc::new(Baton::default());
    let (counter, moves, last) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicUsize::new(HOMES)),
    );
    on_five_homes(bench, HOMES * TASKS, |home, cx, ended| {
        for _ in 0..TASKS {
            let (baton, ended) = (baton.clone(), ended.clone());
            let (counter, moves, last) = (counter.clone(), moves.clone(), last.clone());
            spawn(cx, async move {
                for round in 0..TIMES {
                    baton.lock().await;
                    // Read, go away, write: only the lock keeps others from coming in between.
                    let seen = counter.load(Ordering::Relaxed);
                    if last.swap(home, Ordering::Relaxed) != home {
                        moves.fetch_add(1, Ordering::Relaxed);
                    }
                    if round % 8 == 0 {
                        yield_now().await;
                    }
                    counter.store(seen + 1, Ordering::Relaxed);
                    baton.unlock();
                }
                ended.fetch_add(1, Ordering::Release);
            });
        }
    });
    assert_eq!(counter.load(Ordering::Relaxed), (HOMES * TASKS) as u64 * TIMES);
    assert!(
        moves.load(Ordering::Relaxed) >= HOMES as u64,
        "it went from home to home"
    );
}

fn case_15_w2_hand_off_round_the_contexts(bench: Bench) {
    const ROUNDS: usize = 1_000;
    #[derive(Default)]
    struct Seat {
        rounds: AtomicUsize,
        sleeping: Mutex<Option<Waker>>,
    }
    let seats: Arc<[Seat; HOMES]> = Arc::default();
    let turn = Arc::new(AtomicUsize::new(0));
    on_five_homes(bench, HOMES, |home, cx, ended| {
        let (seats, turn, ended) = (seats.clone(), turn.clone(), ended.clone());
        spawn(cx, async move {
            let seat = &seats[home];
            for round in 0..ROUNDS {
                poll_fn(|cx| {
                    // Store the waker first, then check: a task that hands over reads the waker after its write.
                    *seat.sleeping.lock().unwrap() = Some(cx.waker().clone());
                    if turn.load(Ordering::Acquire) == round * HOMES + home {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
                seat.rounds.fetch_add(1, Ordering::Relaxed);
                turn.fetch_add(1, Ordering::Release);
                let next = seats[(home + 1) % HOMES].sleeping.lock().unwrap().take();
                next.into_iter().for_each(Waker::wake);
            }
            ended.fetch_add(1, Ordering::Release);
        });
    });
    assert_eq!(turn.load(Ordering::Relaxed), HOMES * ROUNDS);
    assert!(
        seats
            .iter()
            .all(|seat| seat.rounds.load(Ordering::Relaxed) == ROUNDS)
    );
}

fn tasks_that_never_end_are_dropped_with_their_context(bench: Bench) {
    let (cx, alive) = (bench.context(), Rc::new(()));
    let held = alive.clone();
    spawn(&cx, async move {
        let _held = held;
        std::future::pending::<()>().await;
    });
    assert!(bench.block(&cx) && !bench.check(&cx));
    assert_eq!(Rc::strong_count(&alive), 2);
    drop(cx);
    assert_eq!(Rc::strong_count(&alive), 1);
}
