//! The ranking as a picture: the mean and the worst of each policy, and the means by family.

use std::error::Error;
use std::path::Path;

use aio_tools::plot::legend;
use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::row::Row;
use crate::table::{families, mean_in, ranking};

const SIZE: (u32, u32) = (1280, 560);
/// The ratio at the edge of the picture. Worse ones are drawn there.
const WORST: f64 = 100.0;
/// The policies that have lines by family, and their colours. With all policies the picture would be
/// unreadable.
const LINES: [(&str, RGBColor); 6] = [
    ("never", RGBColor(0x8a, 0x8a, 0x8a)),
    ("ski-rental", RGBColor(0x7b, 0x4b, 0xa6)),
    ("qemu-2020", RGBColor(0xb0, 0x3a, 0x2e)),
    ("kvm", RGBColor(0xd6, 0x8a, 0x10)),
    ("best-fixed", RGBColor(0x0f, 0x9d, 0x58)),
    ("learned", RGBColor(0x1b, 0x6c, 0xa8)),
];

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the picture. Both panels show cost over the clairvoyant optimum on a logarithmic axis.
pub(crate) fn draw(file: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let failed = |error: Box<dyn Error>| anyhow!("cannot draw {}: {error}", file.display());
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(error.into()))?;
    if !rows.is_empty() {
        let (left, right) = root.split_horizontally(460);
        bars(&left, rows).map_err(failed)?;
        lines(&right, rows).map_err(failed)?;
    }
    root.present().map_err(|error| failed(error.into()))
}

/// Draws the mean and the worst of each policy, the best on top.
fn bars(panel: &Panel<'_>, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let mut ranks = ranking(rows);
    ranks.reverse();
    let mut chart = ChartBuilder::on(panel)
        .caption("mean (bar) and worst (line)", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(130)
        .build_cartesian_2d((1.0..WORST).log_scale(), 0.0..ranks.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc("cost over the clairvoyant optimum")
        .x_label_formatter(&|ratio| format!("{ratio:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (place, rank) in ranks.iter().enumerate() {
        let colour = LINES
            .iter()
            .find(|(name, _)| *name == rank.policy)
            .map_or(RGBColor(0x55, 0x66, 0x77), |(_, colour)| *colour);
        let (low, middle) = (place as f64 + 0.2, place as f64 + 0.5);
        let (mean, worst) = (rank.mean.clamp(1.004, WORST), rank.worst.clamp(1.004, WORST));
        let bar = Rectangle::new([(1.0, low), (mean, low + 0.6)], colour.mix(0.7).filled());
        let line = PathElement::new([(mean, middle), (worst, middle)], colour.stroke_width(1));
        let end = Circle::new((worst, middle), 3, colour.filled());
        chart.draw_series([bar])?;
        chart.draw_series([line])?;
        chart.draw_series([end])?;
        let (x, y) = chart.backend_coord(&(1.0, middle));
        let (left, top) = panel.get_base_pixel();
        let text = format!("{}  {:.2}", rank.policy, rank.mean);
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        panel.draw(&Text::new(text, (x - left - 136, y - top - 6), style))?;
    }
    Ok(())
}

/// Draws the means by family of some policies.
fn lines(panel: &Panel<'_>, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let families = families(rows);
    let last = families.len() as f64 - 0.5;
    let mut chart = ChartBuilder::on(panel)
        .caption("by family", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(110)
        .y_label_area_size(50)
        .build_cartesian_2d(-0.5..last, (0.98..8.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc("cost over the clairvoyant optimum")
        .y_label_formatter(&|ratio| format!("{ratio:.1}"))
        .light_line_style(WHITE)
        .draw()?;
    for (name, colour) in LINES {
        if !rows.iter().any(|row| row.policy == name) {
            continue;
        }
        let points = families.iter().enumerate().map(|(place, family)| {
            let mean = mean_in(rows, name, family).clamp(1.0, 8.0);
            (place as f64, mean)
        });
        let points: Vec<(f64, f64)> = points.collect();
        let width = if name == "learned" { 3 } else { 1 };
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(width),
            ))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(width)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    let (left, top) = panel.get_base_pixel();
    for (place, family) in families.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(place as f64, 0.98));
        let style = ("sans-serif", 12)
            .into_font()
            .transform(FontTransform::Rotate90)
            .color(&BLACK);
        panel.draw(&Text::new(*family, (x - left + 5, y - top + 6), style))?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_policies_and_families_and_survives_no_rows() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policies.svg");
        draw(&file, &[]).unwrap();
        let row = |policy, family, cost| Row {
            trace: "t".to_owned(),
            family,
            wake_cost_ns: 5000,
            policy,
            cost_over_clairvoyant: cost,
            spin_ns: 0.0,
            spin_share: 0.0,
            waits: 1,
            wakeups: 1,
            p99_added_ns: 0.0,
        };
        let rows = [
            row("learned", "poisson", 1.1),
            row("learned", "pareto", 1.2),
            row("always", "poisson", 1e6),
            row("always", "pareto", f64::INFINITY),
        ];
        draw(&file, &rows).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for word in ["learned", "always", "poisson", "pareto"] {
            assert!(text.contains(word), "{word}");
        }
    }
}
