//! The figures as a picture: a row for each workload and size, with a mark for each implementation at its
//! ratio to the floor.

use std::error::Error;
use std::path::Path;

use aio_tools::plot::legend;
use anyhow::anyhow;
use plotters::prelude::*;

use crate::row::Row;

const WIDTH: u32 = 1280;
const LINE: u32 = 17;
/// Ratios beyond these are drawn at the edge.
const RANGE: (f64, f64) = (0.1, 30.0);

/// Draws ratios to the floor on a logarithmic axis. Workloads without a floor are left out.
pub(crate) fn draw(file: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let failed = |error: Box<dyn Error>| anyhow!("cannot draw {}: {error}", file.display());
    let mut labels: Vec<String> = Vec::new();
    for row in rows.iter().filter(|row| row.ratio().is_some()) {
        let label = label(row);
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    let height = 110 + LINE * labels.len() as u32;
    let root = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(error.into()))?;
    if !labels.is_empty() {
        panel(&root, rows, &labels).map_err(failed)?;
    }
    root.present().map_err(|error| failed(error.into()))
}

fn label(row: &Row) -> String {
    format!("{} {} {}", row.id, row.workload, row.n)
}

/// Returns one colour for ours, and a colour for each of the others.
fn colour(name: &str, peers: &[&str]) -> RGBColor {
    const OTHERS: [RGBColor; 9] = [
        RGBColor(0xb0, 0x3a, 0x2e),
        RGBColor(0xd6, 0x8a, 0x10),
        RGBColor(0x0f, 0x9d, 0x58),
        RGBColor(0x7b, 0x4b, 0xa6),
        RGBColor(0x55, 0x66, 0x77),
        RGBColor(0xc2, 0x18, 0x5b),
        RGBColor(0x00, 0x83, 0x8f),
        RGBColor(0x6d, 0x4c, 0x41),
        RGBColor(0x9e, 0x9d, 0x24),
    ];
    match name {
        "aio" => RGBColor(0x1b, 0x6c, 0xa8),
        "floor" => RGBColor(0, 0, 0),
        _ => {
            let place = peers.iter().position(|peer| *peer == name).unwrap_or(0);
            OTHERS[place % OTHERS.len()]
        }
    }
}

fn panel(
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    rows: &[Row],
    labels: &[String],
) -> Result<(), Box<dyn Error>> {
    let last = labels.len() as f64;
    let mut chart = ChartBuilder::on(root)
        .caption(
            "time per operation over a hand-written loop's",
            ("sans-serif", 18),
        )
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(250)
        .build_cartesian_2d((RANGE.0..RANGE.1).log_scale(), last..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|ratio| format!("{ratio}"))
        .light_line_style(WHITE)
        .draw()?;
    chart.draw_series([PathElement::new([(1.0, 0.0), (1.0, last)], BLACK.stroke_width(1))])?;
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if row.r#impl != "floor" && !names.contains(&row.r#impl.as_str()) {
            names.push(&row.r#impl);
        }
    }
    // Ours is drawn last, so that no other mark covers it.
    names.sort_by_key(|name| *name == "aio");
    for name in &names {
        let colour = colour(name, &names);
        let marks = rows.iter().filter(|row| row.r#impl == *name).filter_map(|row| {
            let ratio = row.ratio()?;
            let place = labels.iter().position(|other| *other == label(row))?;
            Some((
                ratio.median.clamp(RANGE.0, RANGE.1),
                ratio.low.clamp(RANGE.0, RANGE.1),
                ratio.high.clamp(RANGE.0, RANGE.1),
                place as f64 + 0.5,
            ))
        });
        let marks: Vec<_> = marks.collect();
        let is_ours = *name == "aio";
        let size = if is_ours { 5 } else { 3 };
        chart.draw_series(marks.iter().map(|(_, low, high, place)| {
            PathElement::new([(*low, *place), (*high, *place)], colour.mix(0.4).stroke_width(1))
        }))?;
        chart
            .draw_series(
                marks
                    .iter()
                    .map(|(median, _, _, place)| Circle::new((*median, *place), size, colour.filled())),
            )?
            .label((*name).to_owned())
            .legend(move |(x, y)| Circle::new((x + 8, y), size, colour.filled()));
    }
    let (left, top) = root.get_base_pixel();
    for (place, text) in labels.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(RANGE.0, place as f64 + 0.5));
        let style = ("sans-serif", 12).into_font().color(&BLACK);
        root.draw(&Text::new(text.as_str(), (x - left - 245, y - top - 6), style))?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_workloads_and_implementations_and_survives_no_rows() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bench.svg");
        draw(&file, &[]).unwrap();
        let row = |name, ratio| Row {
            ratio_to_floor: Some(ratio),
            ratio_min: Some(ratio),
            ratio_max: Some(f64::INFINITY),
            ..Row::new("P8", "empty", name, 1000)
        };
        draw(&file, &[row("floor", 1.0), row("aio", 1.2), row("tokio", 1e9)]).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for word in ["P8 empty 1000", "aio", "tokio"] {
            assert!(text.contains(word), "{word}");
        }
    }
}
