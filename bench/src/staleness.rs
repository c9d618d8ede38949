//! R10: the delay until a descriptor that cannot be polled is served, while a polled source always has work.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aio_context::{Context, Handler, Interest, PollParams, Polled, Wait};
use rustix::fd::{AsFd, BorrowedFd};

use crate::load::{doorbell, drain, ring};
use crate::ours::{Always, Flag, on_uring};
use crate::row::Row;

/// The number of times that the descriptor is made ready, at moments independent of the loop's.
const SAMPLES: usize = 4000;

/// A descriptor, and the time when it was served last.
struct Plain {
    fd: Rc<OwnedFd>,
    served: Cell<Option<Instant>>,
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Plain {
    fn readable(&self, _: &Context) {
        drain(&self.fd);
        self.served.set(Some(Instant::now()));
    }
}

pub(crate) fn rows(wanted: &impl Fn(&str) -> bool) -> anyhow::Result<Vec<Row>> {
    if !wanted("R10") {
        return Ok(Vec::new());
    }
    let builder = || {
        let builder = Context::builder().policy(Box::new(Always));
        builder.poll_params(PollParams::up_to(Duration::from_millis(1)))
    };
    let mut rows = figures("staleness", sample(builder().build()?)?);
    match on_uring(builder()) {
        Ok(cx) => rows.extend(figures("staleness on uring", sample(cx)?)),
        Err(why) => println!("skipped: R10 on io_uring: {why}"),
    }
    Ok(rows)
}

fn figures(name: &str, mut late: Vec<Duration>) -> Vec<Row> {
    late.sort_unstable();
    histogram(&late);
    let at = |quantile: f64| late[((late.len() - 1) as f64 * quantile) as usize].as_nanos() as f64 / 1e3;
    let row = |quantile, micros| Row::counted("R10", &format!("{name} {quantile}"), 1, micros, "us");
    vec![
        row("p50", at(0.5)),
        row("p90", at(0.9)),
        row("p99", at(0.99)),
        row("max", at(1.0)),
    ]
}

fn sample(cx: Context) -> anyhow::Result<Vec<Duration>> {
    let busy = Flag::new(doorbell()?, Rc::default());
    let plain = Rc::new(Plain {
        fd: doorbell()?,
        served: Cell::new(None),
    });
    let _busy = cx
        .watch(Polled(busy.clone()), Interest::READ)
        .map_err(std::io::Error::from)?;
    let _plain = cx
        .watch(plain.clone(), Interest::READ)
        .map_err(std::io::Error::from)?;
    let mut random = fastrand::Rng::with_seed(3);
    let mut late = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let quiet = Duration::from_nanos(random.u64(..100_000));
        let began = Instant::now();
        while began.elapsed() < quiet {
            busy.raised.set(true);
            cx.poll(Wait::Block)?;
        }
        plain.served.set(None);
        ring(&plain.fd);
        let rung = Instant::now();
        let served = loop {
            busy.raised.set(true);
            cx.poll(Wait::Block)?;
            if let Some(served) = plain.served.get() {
                break served;
            }
        };
        late.push(served.saturating_duration_since(rung));
    }
    Ok(late)
}

fn histogram(sorted: &[Duration]) {
    const WIDTH: usize = 50;
    println!(
        "R10: a descriptor becomes ready while a polled source always has work; served so many microseconds later"
    );
    let bounds = [1, 2, 5, 10, 20, 30, 40, 50, 60, 100, u64::MAX];
    let mut from = 0;
    for (place, bound) in bounds.iter().enumerate() {
        let to = sorted.partition_point(|late| late.as_nanos() < u128::from(*bound) * 1000);
        let count = to - from;
        from = to;
        let label = if *bound == u64::MAX {
            format!(">= {}", bounds[place - 1])
        } else {
            format!("< {bound}")
        };
        println!(
            "  {label:>7}  {:<WIDTH$} {count}",
            "#".repeat((count * WIDTH).div_ceil(sorted.len()))
        );
    }
}
