//! P5, P11: bottom halves, closures and notifications.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::JoinHandle;

use aio_context::{BottomHalf, Context, Remote, Wait};
use aio_notify::Notifier;
use crossbeam_queue::SegQueue;

use crate::case::{Case, Run, timed};
use crate::peers;

const BATCH: u64 = 1000;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        peers::home_batch(home_batch(), BATCH),
        peers::home_single(home_single()),
        oneshot(),
        cross_stream(),
        cross_asleep(),
        elided(),
    ]
}

/// Makes bottom halves that count their runs.
fn counting(cx: &Context, how_many: u64) -> (Vec<BottomHalf>, Rc<Cell<u64>>) {
    let count = Rc::new(Cell::new(0));
    let bottom_half = || {
        let count = count.clone();
        cx.bottom_half("counts", move |_| count.set(count.get() + 1))
    };
    ((0..how_many).map(|_| bottom_half()).collect(), count)
}

/// The floor: a bare lock-free queue of shared pointers that are pushed, popped and called.
fn queue_of(batch: u64) -> Run {
    let queue: SegQueue<Arc<AtomicU64>> = SegQueue::new();
    let nodes: Vec<Arc<AtomicU64>> = (0..batch).map(|_| Arc::default()).collect();
    Box::new(move |times| {
        timed(times, || {
            for node in &nodes {
                queue.push(node.clone());
            }
            while let Some(node) = queue.pop() {
                node.store(node.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
        })
    })
}

fn ours(batch: u64) -> anyhow::Result<Run> {
    let cx = Context::new()?;
    let (halves, count) = counting(&cx, batch);
    Ok(Box::new(move |times| {
        let before = count.get();
        let took = timed(times, || {
            for half in &halves {
                half.schedule();
            }
            let _ = cx.poll(Wait::Block);
        });
        assert_eq!(count.get() - before, times * batch);
        took
    }))
}

fn home_batch() -> Case {
    Case::new("P5", "home batch", BATCH)
        .operations(BATCH)
        .by("floor", || Ok(queue_of(BATCH)))
        .by("aio", || ours(BATCH))
}

fn home_single() -> Case {
    Case::new("P5", "home single", 1)
        .by("floor", || Ok(queue_of(1)))
        .by("aio", || ours(1))
}

fn oneshot() -> Case {
    Case::new("P5", "oneshot", BATCH)
        .operations(BATCH)
        .by("floor", || {
            let queue: SegQueue<Box<dyn FnOnce() + Send>> = SegQueue::new();
            let count = Arc::new(AtomicU64::new(0));
            Ok(Box::new(move |times| {
                timed(times, || {
                    for _ in 0..BATCH {
                        let count = count.clone();
                        queue.push(Box::new(move || {
                            count.fetch_add(1, Ordering::Relaxed);
                        }));
                    }
                    while let Some(job) = queue.pop() {
                        job();
                    }
                })
            }))
        })
        .by("aio", || {
            let cx = Context::new()?;
            let remote = cx.remote();
            let count = Arc::new(AtomicU64::new(0));
            Ok(Box::new(move |times| {
                timed(times, || {
                    for _ in 0..BATCH {
                        let count = count.clone();
                        let _ = remote.run(move |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    let _ = cx.poll(Wait::NoBlock);
                })
            }))
        })
}

/// A thread that repeats its work on request, and is joined when dropped.
pub(crate) struct Producer {
    wanted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    /// `produce` receives the number of the message.
    pub(crate) fn new(mut produce: impl FnMut(u64) + Send + 'static) -> Self {
        let (wanted, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (goal, ends) = (wanted.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut done = 0;
            while !ends.load(Ordering::Acquire) {
                if done < goal.load(Ordering::Acquire) {
                    done += 1;
                    produce(done);
                } else {
                    std::thread::park_timeout(std::time::Duration::from_millis(1));
                }
            }
        });
        Self {
            wanted,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn ask_for(&self, more: u64) {
        self.wanted.fetch_add(more, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Another thread sends as fast as it can to a loop that is awake.
fn cross_stream() -> Case {
    const MESSAGES: u64 = 10_000;
    Case::new("P5", "cross stream", 1)
        .operations(MESSAGES)
        .by("floor", || {
            let queue = Arc::new(SegQueue::new());
            let nodes: Vec<Arc<AtomicU64>> = (0..MESSAGES).map(|_| Arc::default()).collect();
            let producer = Producer::new({
                let queue = queue.clone();
                move |number| queue.push(nodes[(number % MESSAGES) as usize].clone())
            });
            Ok(Box::new(move |times| {
                timed(times, || {
                    producer.ask_for(MESSAGES);
                    let mut got = 0;
                    while got < MESSAGES {
                        if let Some(node) = queue.pop() {
                            node.store(1, Ordering::Relaxed);
                            got += 1;
                        }
                    }
                })
            }))
        })
        .by("aio", || {
            let cx = Context::new()?;
            let (halves, count) = counting(&cx, MESSAGES);
            let producer = Producer::new(move |number| halves[(number % MESSAGES) as usize].schedule());
            Ok(Box::new(move |times| {
                timed(times, || {
                    let goal = count.get() + MESSAGES;
                    producer.ask_for(MESSAGES);
                    while count.get() < goal {
                        let _ = cx.poll(Wait::NoBlock);
                    }
                })
            }))
        })
}

/// Another thread wakes a sleeping loop: a round trip between two loops.
fn cross_asleep() -> Case {
    Case::new("P5", "cross asleep", 1)
        .by("floor", crate::ping_pong::blocking_floor)
        .by("aio", || {
            let cx = Context::new()?;
            let done = Rc::new(Cell::new(0u64));
            let pong = {
                let done = done.clone();
                cx.bottom_half("pong", move |_| done.set(done.get() + 1))
            };
            let (ready, far) = std::sync::mpsc::sync_channel::<(Remote, BottomHalf)>(1);
            let stop = Arc::new(AtomicBool::new(false));
            let thread = std::thread::spawn({
                let stop = stop.clone();
                move || {
                    let Ok(cx) = Context::new() else { return };
                    let ping = cx.bottom_half("ping", move |_| pong.schedule());
                    if ready.send((cx.remote(), ping)).is_err() {
                        return;
                    }
                    while !stop.load(Ordering::Acquire) {
                        let _ = cx.poll(Wait::Block);
                    }
                }
            });
            let (remote, ping) = far.recv()?;
            let far = Far {
                stop,
                remote,
                thread: Some(thread),
            };
            Ok(Box::new(move |times| {
                let _far = &far;
                timed(times, || {
                    let goal = done.get() + 1;
                    ping.schedule();
                    while done.get() < goal {
                        let _ = cx.poll(Wait::Block);
                    }
                })
            }))
        })
}

struct Far {
    stop: Arc<AtomicBool>,
    remote: Remote,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Far {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.remote.notify();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A notification of a loop that is awake; the floor is an atomic addition and a fence.
fn elided() -> Case {
    Case::new("P11", "elided", 1)
        .by("floor", || {
            let counter = AtomicU64::new(0);
            Ok(Box::new(move |times| {
                timed(times, || {
                    counter.fetch_add(1, Ordering::Relaxed);
                    fence(Ordering::SeqCst);
                })
            }))
        })
        .by("aio", || {
            let notifier = Notifier::new()?;
            Ok(Box::new(move |times| timed(times, || notifier.notify())))
        })
}
