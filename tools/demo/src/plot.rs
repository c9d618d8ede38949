//! The demo's rows as a picture: requests per second over idle queues, one panel for each kind of client.

use std::collections::BTreeMap;
use std::path::Path;

use aio_tools::plot::legend;
use aio_tools::report::{median, range};
use anyhow::anyhow;
use plotters::prelude::*;

use crate::row::Row;
use crate::server::{FLOOR, PEER_NULL};

const SIZE: (u32, u32) = (1100, 520);
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x1b, 0x6c, 0xa8),
    RGBColor(0x0f, 0x9d, 0x58),
    RGBColor(0xb0, 0x3a, 0x2e),
    RGBColor(0xd6, 0x8a, 0x10),
];

/// For each line of the plot: the requests per second of every round, by the number of idle queues.
type Lines = BTreeMap<String, BTreeMap<usize, Vec<f64>>>;

/// Draws the runs with one request at a time. Both axes are logarithmic, and the bars show the spread.
pub(crate) fn draw(file: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)
        .map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))?;
    let panels = root.split_evenly((1, 2));
    for (panel, client) in panels.iter().zip(["spin", "event"]) {
        let mut lines = Lines::new();
        for row in rows
            .iter()
            .filter(|row| row.client == client && row.queue_depth == 1 && row.think_us == 0.0)
            .filter(|row| row.server != PEER_NULL && row.server != FLOOR)
        {
            let name = format!("{}, polling {}", row.server, row.polling);
            lines
                .entry(name)
                .or_default()
                .entry(row.idle_queues)
                .or_default()
                .push(row.iops);
        }
        panel_of(panel, &format!("{client} client, depth 1"), &lines)
            .map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))?;
    }
    root.present()
        .map_err(|error| anyhow!("cannot write {}: {error}", file.display()))
}

/// Returns the position of a number of idle queues. Zero has no logarithm, so each number is drawn one
/// further to the right.
fn place(idle: usize) -> f64 {
    (idle + 1) as f64
}

fn panel_of(
    panel: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    lines: &Lines,
) -> Result<(), Box<dyn std::error::Error>> {
    let (_, most) = range(
        &lines
            .values()
            .flat_map(BTreeMap::values)
            .flatten()
            .copied()
            .collect::<Vec<_>>(),
    );
    let widest = lines
        .values()
        .flat_map(BTreeMap::keys)
        .max()
        .copied()
        .unwrap_or(0);
    if !most.is_finite() {
        return Ok(());
    }
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(
            (0.9..place(widest) * 1.6).log_scale(),
            (1000.0..most * 2.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("idle queues beside the busy one (+ 1)")
        .y_desc("requests per second")
        .x_label_formatter(&|idle| format!("{idle:.0}"))
        .y_label_formatter(&|iops| format!("{iops:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let middle: Vec<(f64, f64)> = points
            .iter()
            .map(|(idle, iops)| (place(*idle), median(iops)))
            .collect();
        chart
            .draw_series(LineSeries::new(middle.iter().copied(), colour.stroke_width(2)))?
            .label(name.as_str())
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(middle.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        chart.draw_series(points.iter().map(|(idle, iops)| {
            let (low, high) = range(iops);
            PathElement::new(
                [(place(*idle), low), (place(*idle), high)],
                colour.stroke_width(1),
            )
        }))?;
    }
    legend(&mut chart, SeriesLabelPosition::LowerLeft)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_every_line_and_survives_no_rows() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("demo.svg");
        draw(&file, &[]).unwrap();
        let row = |server, idle_queues, iops| crate::row::tests::row(server, "off", idle_queues, iops);
        let rows = [
            row("blockd", 0, 1e6),
            row("blockd", 3200, 9e5),
            row("other", 0, 3e5),
            row("other", 3200, 4e3),
        ];
        draw(&file, &rows).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("blockd, polling off") && text.contains("other, polling off"));
    }
}
