//! Other threads that give work to the loop on request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread::{JoinHandle, spawn};

use aio_context::{BottomHalf, Remote};

use crate::handlers::Queue;
use crate::tally::Tally;

/// A task for a helper.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Send this number of jobs that run once.
    Jobs(u64),
    /// Schedule, and sometimes cancel, a bottom half this number of times. The last operation is a schedule.
    Schedules(u64),
    /// Send this number of notifications.
    Notifications(u64),
    /// Add this number of pieces of work to the queue that may be polled.
    Work(u64),
}

/// A thread that works for the loop.
#[derive(Debug)]
pub(crate) struct Helper {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    pub(crate) fn start(remote: Remote, half: BottomHalf, queue: Arc<Queue>, tally: Arc<Tally>) -> Self {
        let (orders, inbox) = channel();
        let work = move || {
            for order in inbox {
                obey(order, &remote, &half, &queue, &tally);
                tally.orders_done.fetch_add(1, Ordering::Release);
                remote.kick();
            }
        };
        Self {
            orders: Some(orders),
            thread: Some(spawn(work)),
        }
    }

    pub(crate) fn tell(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The helper receives orders until it is dropped.
            let _ = orders.send(order);
        }
    }
}

fn obey(order: Order, remote: &Remote, half: &BottomHalf, queue: &Queue, tally: &Arc<Tally>) {
    match order {
        Order::Jobs(count) => {
            for _ in 0..count {
                let tally = tally.clone();
                // The context outlives the helpers.
                let _ = remote.run(move |cx| {
                    tally.jobs_run.fetch_add(1, Ordering::Relaxed);
                    cx.remote().kick();
                });
            }
        }
        Order::Schedules(count) => {
            for number in 0..count {
                half.schedule();
                if number % 7 == 0 {
                    half.cancel();
                }
            }
            tally.schedules_last();
            half.schedule();
        }
        Order::Notifications(count) => (0..count).for_each(|_| remote.notify()),
        Order::Work(count) => (0..count).for_each(|_| queue.put()),
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A helper that panicked has printed the panic.
            let _ = thread.join();
        }
    }
}
