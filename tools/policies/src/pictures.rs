//! `--pictures`: the simulator's pictures of polling, for docs/polling.md.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use aio_pollctl::{Iteration, Policy, PollPolicy as _, WakeCost};
use aio_replay::{ClosedLoop, Deciding, families, geometric_mean, params_for};
use aio_tools::interrupt::Interrupt;
use anyhow::{Context as _, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

/// The cost of a sleep.
const WAKE_NS: u64 = 10_000;
const LATE_NS: u64 = WAKE_NS * 4 / 5;
const WAITS: usize = 20_000;
const REQUESTS: u64 = 100_000;

const POLL: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const SLEEP: RGBColor = RGBColor(0xc9, 0xce, 0xd6);
const WAKE: RGBColor = RGBColor(0xd6, 0x8a, 0x10);
const MARK: RGBColor = RGBColor(0xb0, 0x3a, 0x2e);

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;
/// The name of a file, its size in pixels, and the function that draws it.
type Picture<'a> = (&'static str, (u32, u32), &'a dyn Fn(&Root<'_>) -> Drawn);

/// Draws all pictures into this directory.
pub(crate) fn draw(directory: &Path, seed: u64, interrupt: &Interrupt) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let pictures: [Picture<'_>; 3] = [
        ("timeline.svg", (960, 330), &timeline),
        ("polling-time.svg", (960, 400), &|root| polling_time(root, seed)),
        ("closed-loop.svg", (960, 520), &|root| heat_map(root, seed)),
    ];
    for (name, size, picture) in pictures {
        interrupt.check()?;
        let file = directory.join(name);
        let root = SVGBackend::new(&file, size).into_drawing_area();
        let drawn = root
            .fill(&WHITE)
            .map_err(Into::into)
            .and_then(|()| picture(&root));
        drawn
            .and_then(|()| root.present().map_err(Into::into))
            .map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// A burst and a gap, repeated: the waits in nanoseconds.
const PATTERN: [u64; 6] = [4_000, 3_000, 5_000, 4_000, 14_000, 60_000];
const TIMELINES: [&str; 5] = ["never", "qemu-2020", "ski-rental", "learned", "always"];
const SHOWN_NS: u64 = 260_000;

/// Draws the polling and sleeping of each policy in the same waits, after many repetitions.
fn timeline(root: &Root<'_>) -> Drawn {
    let x = |ns: u64| 110 + (ns.min(SHOWN_NS) * 830 / SHOWN_NS) as i32;
    let font = ("sans-serif", 14);
    for (row, name) in (0..).zip(TIMELINES) {
        let y = 40 + row * 50;
        root.draw(&Text::new(name, (14, y + 8), font))?;
        let mut policy = Policy::by_name(name, params_for(WAKE_NS)).ok_or("no such policy")?;
        let bar = |from: u64, until: u64, colour: RGBColor| {
            root.draw(&Rectangle::new(
                [(x(from), y), (x(until), y + 28)],
                colour.filled(),
            ))
        };
        let mut now = 0;
        for (number, wait) in PATTERN.into_iter().cycle().enumerate() {
            if now >= SHOWN_NS {
                break;
            }
            let spun = wait.min(policy.budget().as_nanos() as u64);
            let slept = wait > spun;
            let late = if slept { LATE_NS } else { 0 };
            let [elapsed, polled] = [wait + late, spun].map(Duration::from_nanos);
            policy.observe(Iteration::new(elapsed, polled, slept, !slept).with_events(1));
            if number < 100 * PATTERN.len() {
                continue;
            }
            bar(now, now + spun, POLL)?;
            bar(now + spun, now + wait, SLEEP)?;
            bar(now + wait, now + wait + late, WAKE)?;
            bar(now + wait + late, now + wait + late + 600, MARK)?;
            now += wait + late + 600;
        }
    }
    for (column, (colour, what)) in (0..).zip([
        (POLL, "polls"),
        (SLEEP, "sleeps"),
        (WAKE, "wakes up"),
        (MARK, "serves an event"),
    ]) {
        let left = 110 + column * 140;
        root.draw(&Rectangle::new([(left, 300), (left + 14, 314)], colour.filled()))?;
        root.draw(&Text::new(what, (left + 20, 300), font))?;
    }
    root.draw(&Text::new("260 us; a sleep costs 10 us", (700, 300), font))?;
    Ok(())
}

/// Families with different best polling times.
const FAMILIES: [(&str, RGBColor); 5] = [
    ("poisson", RGBColor(0x8a, 0x8a, 0x8a)),
    ("pareto", RGBColor(0x7b, 0x4b, 0xa6)),
    ("pattern", RGBColor(0xb0, 0x3a, 0x2e)),
    ("bursts", RGBColor(0x0f, 0x9d, 0x58)),
    ("phase", RGBColor(0xd6, 0x8a, 0x10)),
];

/// Draws the cost of waits by the polling time used for all of them, and the cost with `learned`.
fn polling_time(root: &Root<'_>, seed: u64) -> Drawn {
    let traces = families::all(seed, WAITS);
    let times: Vec<u64> = (0..=40).map(|step| step * WAKE_NS / 10).collect();
    let mut chart = ChartBuilder::on(root)
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..4.2 * WAKE_NS as f64 / 1e3, (1.0f64..4.0).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("polling time before each sleep, us; dots on the right: learned")
        .y_desc("cost over the optimum")
        .y_label_formatter(&|ratio| format!("{ratio:.1}"))
        .draw()?;
    for (family, colour) in FAMILIES {
        let of: Vec<_> = traces.iter().filter(|trace| trace.family() == family).collect();
        if of.is_empty() {
            return Err(format!("there is no family {family}").into());
        }
        let cost = |make: &dyn Fn() -> Option<Policy>| -> Result<f64, Box<dyn Error>> {
            let mut ratios = Vec::new();
            for trace in &of {
                let mut policy = make().ok_or("no such policy")?;
                ratios.push(aio_replay::replay(trace, WAKE_NS, &mut policy).ratio());
            }
            Ok(geometric_mean(ratios).clamp(1.0, 4.0))
        };
        let mut line = Vec::new();
        for time in &times {
            let params = params_for(WAKE_NS).with_fixed(Duration::from_nanos((*time).max(1)));
            line.push((*time as f64 / 1e3, cost(&|| Policy::by_name("fixed", params))?));
        }
        let learned = cost(&|| Policy::by_name("learned", params_for(WAKE_NS)))?;
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(family)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series([Circle::new(
            (4.1 * WAKE_NS as f64 / 1e3, learned),
            5,
            colour.filled(),
        )])?;
    }
    let at = WAKE_NS as f64 / 1e3;
    chart.draw_series([PathElement::new([(at, 1.0), (at, 4.0)], BLACK.stroke_width(1))])?;
    let style = ("sans-serif", 14).into_font();
    chart.draw_series([Text::new(
        "break-even: a sleep costs 10 us",
        (at + 0.3, 3.8),
        style,
    )])?;
    aio_tools::plot::legend(&mut chart, SeriesLabelPosition::UpperMiddle)?;
    Ok(())
}

/// The columns of the heat map.
const COLUMNS: [(&str, Deciding); 6] = [
    ("off", Deciding::Loop("never")),
    ("learned", Deciding::Loop("learned")),
    ("ski-rental", Deciding::Loop("ski-rental")),
    ("qemu-2020", Deciding::Loop("qemu-2020")),
    ("kvm", Deciding::Loop("kvm")),
    ("always", Deciding::Policy("always")),
];

/// Draws the cost of a request relative to the cheapest of the row, with clients that wait for their answers.
fn heat_map(root: &Root<'_>, seed: u64) -> Drawn {
    let font = ("sans-serif", 14);
    let title = "cost of a request (processor time, latency, kicks) over the best of the row";
    root.draw(&Text::new(title, (14, 12), ("sans-serif", 16)))?;
    for (column, (name, _)) in (0..).zip(COLUMNS) {
        root.draw(&Text::new(name, (300 + column * 105, 44), font))?;
    }
    let mut row = 0;
    for client_sleeps in [false, true] {
        for depth in [1, 4, 32] {
            for think_ns in [0, 10_000, 100_000] {
                let y = 66 + row * 24;
                row += 1;
                let client = if client_sleeps { "sleeps" } else { "spins" };
                let name = format!("client {client}, depth {depth}, {} us", think_ns / 1000);
                root.draw(&Text::new(name, (14, y + 5), font))?;
                let what = client_at(depth, think_ns, client_sleeps);
                let mut costs = Vec::new();
                for (_, deciding) in COLUMNS {
                    let run = what.run(deciding, REQUESTS, seed).ok_or("no such policy")?;
                    costs.push(run.cost_ns());
                }
                let best = costs.iter().copied().fold(f64::INFINITY, f64::min);
                for (column, cost) in (0..).zip(costs) {
                    let (left, ratio) = (290 + column * 105, cost / best);
                    let corners = [(left, y), (left + 102, y + 22)];
                    root.draw(&Rectangle::new(corners, colour(ratio).filled()))?;
                    root.draw(&Text::new(format!("{ratio:.2}"), (left + 34, y + 5), font))?;
                }
            }
        }
    }
    Ok(())
}

fn client_at(depth: usize, think_ns: u64, client_sleeps: bool) -> ClosedLoop {
    let us = Duration::from_micros;
    ClosedLoop {
        depth,
        think_ns: 500 + think_ns,
        client_sleeps,
        is_batched: true,
        idle_call_ns: 400,
        both_asleep_ns: 6_000,
        wake: WakeCost {
            latency: us(7),
            cpu: us(3),
            kick: us(3),
        },
        client_wake_ns: 7_000,
        ..ClosedLoop::default()
    }
}

/// Returns a colour from green (the best) over yellow to red (four times the cost).
fn colour(ratio: f64) -> RGBColor {
    let dear = (ratio.log2() / 2.0).clamp(0.0, 1.0);
    let part = |from: f64, to: f64| (from + (to - from) * dear) as u8;
    RGBColor(part(127.0, 232.0), part(201.0, 106.0), part(127.0, 95.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_picture_has_its_policies_and_loads() {
        let directory = tempfile::tempdir().unwrap();
        let into = directory.path().join("new");
        draw(&into, 2, &Interrupt::catch().unwrap()).unwrap();
        for (name, words) in [
            ("timeline.svg", &["learned", "qemu-2020", "wakes up"][..]),
            ("polling-time.svg", &["break-even", "poisson", "phase"]),
            (
                "closed-loop.svg",
                &["client sleeps, depth 32, 100 us", "always", "1.00"],
            ),
        ] {
            let text = std::fs::read_to_string(into.join(name)).unwrap();
            for word in words {
                assert!(text.contains(word), "{name}: {word}");
            }
        }
    }

    #[test]
    fn colours_go_from_the_best_to_four_times_as_dear() {
        assert_eq!((colour(1.0), colour(4.0)), (colour(0.9), colour(400.0)));
        assert_ne!(colour(1.0), colour(2.0));
    }
}
