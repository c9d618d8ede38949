//! Eight producers fill a thousand queues; two I/O threads serve them. A ring costs a producer one atomic operation while the I/O
//! threads are awake, and the loop checks all bells of a board at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aio_context::{Context, PollParams};
use aio_sources::{Bell, DoorbellBoard, IoThread};

const QUEUES: usize = 1000;
const PRODUCERS: usize = 8;
const REQUESTS: u64 = 100_000;

/// The numbers of requests that were put into each queue and have not been served.
type Queues = Arc<Vec<AtomicU64>>;

fn start(number: usize, queues: Queues, served: Arc<AtomicU64>) -> io::Result<(IoThread, Vec<Bell>)> {
    let (hand_out, bells) = mpsc::channel();
    let polling = || {
        let params = PollParams::up_to(Duration::from_micros(32));
        Context::builder().poll_params(params).build()
    };
    let io = IoThread::builder()
        .name(format!("io-{number}"))
        .context(polling)
        .spawn(move |cx| {
            let board = DoorbellBoard::new(cx, QUEUES, move |_cx, queue| {
                let requests = queues[queue].swap(0, Ordering::Acquire);
                served.fetch_add(requests, Ordering::Release);
            });
            let _ = hand_out.send((0..QUEUES).map(|queue| board.bell(queue)).collect());
            Ok(board)
        })?;
    let bells = bells.recv().map_err(io::Error::other)?;
    Ok((io, bells))
}

fn main() -> io::Result<()> {
    let served = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for number in 0..2 {
        let queues: Queues = Arc::new((0..QUEUES).map(|_| AtomicU64::new(0)).collect());
        let (io, bells) = start(number, queues.clone(), served.clone())?;
        threads.push((io, queues, bells));
    }
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (_, queues, bells) = &threads[producer % threads.len()];
            scope.spawn(move || {
                for request in 0..REQUESTS {
                    let queue = (request as usize * 617 + producer) % QUEUES;
                    queues[queue].fetch_add(1, Ordering::Release);
                    bells[queue].ring();
                }
            });
        }
    });
    let all = PRODUCERS as u64 * REQUESTS;
    while served.load(Ordering::Acquire) < all {
        thread::yield_now();
    }
    for (io, ..) in threads {
        io.stop()?;
    }
    println!("served {all} requests of {PRODUCERS} producers");
    Ok(())
}
