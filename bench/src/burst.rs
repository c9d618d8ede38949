//! P15: a burst of posts to a sleeping loop: the number of writes to its eventfd, and the cost of a post.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use aio_context::{BottomHalf, Context, Remote, Wait};
use anyhow::Context as _;

use crate::row::Row;

const POSTS: u64 = 10_000;
const ROUNDS: usize = 9;
/// The time after which a loop sleeps after its last work.
const SETTLE: Duration = Duration::from_millis(20);

/// The values that the loop's thread hands out: its remote, and the bottom halves to post.
type Posted = (Remote, Vec<BottomHalf>);

pub(crate) fn rows(wanted: &impl Fn(&str) -> bool) -> anyhow::Result<Vec<Row>> {
    if !wanted("P15") {
        return Ok(Vec::new());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (hand_out, handed) = sync_channel::<Posted>(1);
    let (answer, all_ran) = sync_channel::<()>(1);
    let sleeper = std::thread::spawn({
        let stop = stop.clone();
        move || -> std::io::Result<()> {
            let cx = Context::new()?;
            let count = Rc::new(Cell::new(0));
            let counting = |_| {
                let (count, answer) = (count.clone(), answer.clone());
                cx.bottom_half("burst", move |_| {
                    count.set(count.get() + 1);
                    if count.get() % POSTS == 0 {
                        // The measuring thread waits for this message.
                        let _ = answer.send(());
                    }
                })
            };
            let _ = hand_out.send((cx.remote(), (0..POSTS).map(counting).collect()));
            while !stop.load(Ordering::Acquire) {
                cx.poll(Wait::Block)?;
            }
            Ok(())
        }
    });
    let (remote, halves) = handed.recv().context("the loop did not start")?;
    let mut bursts = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        std::thread::sleep(SETTLE);
        let before = remote.wakeups().0;
        let began = Instant::now();
        halves.iter().for_each(BottomHalf::schedule);
        let took = began.elapsed();
        all_ran
            .recv()
            .context("the loop ended in the middle of a burst")?;
        bursts.push((took.as_nanos() as f64 / POSTS as f64, remote.wakeups().0 - before));
    }
    stop.store(true, Ordering::Release);
    remote.notify();
    sleeper
        .join()
        .map_err(|_| anyhow::anyhow!("the loop panicked"))??;
    let (mut costs, mut writes): (Vec<f64>, Vec<u64>) = bursts.into_iter().unzip();
    costs.sort_by(f64::total_cmp);
    writes.sort_unstable();
    // If the posting thread is interrupted for longer than a sleep costs, the loop is asleep again at the
    // next post.
    println!("P15: writes of each burst: {writes:?}");
    Ok(vec![
        Row::counted("P15", "burst writes", POSTS, writes[ROUNDS / 2] as f64, "writes"),
        Row::counted("P15", "burst", POSTS, costs[ROUNDS / 2], "ns per post"),
    ])
}
