//! The pictures beside the figures.

use crate::Result;
use crate::samples::Row;
use plotters::coord::CoordTranslate;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 540);
/// Told apart by people who see colours differently (Okabe and Ito's set).
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    RGBColor(150, 120, 0),
];

/// Peers in the order they first appear.
fn peers(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.peer.as_str()) {
            names.push(&row.peer);
        }
    }
    names
}

/// The median start over concurrency, a line for each peer, both axes logarithmic.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn starts(rows: &[Row], path: &Path) -> Result<()> {
    let warm: Vec<Row> =
        rows.iter().filter(|row| row.condition == "warm" && row.samples_count > 0).cloned().collect();
    let most = warm.iter().map(|row| row.p50_us).max().unwrap_or(1_000) as f64 / 1000.0 * 2.0;
    let least = warm.iter().map(|row| row.p50_us).min().unwrap_or(1_000) as f64 / 1000.0 / 2.0;
    let widest = warm.iter().map(|row| row.concurrency).max().unwrap_or(1) as f64;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("median start of a present image, ms", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d((0.9..widest * 1.2).log_scale(), (least..most).log_scale())?;
    chart.configure_mesh().x_desc("started at once").y_desc("ms").draw()?;
    let points = |peer| -> Vec<_> {
        let rows = warm.iter().filter(|row| row.peer == peer);
        rows.map(|row| (row.concurrency as f64, row.p50_us as f64 / 1000.0)).collect()
    };
    let lines = peers(&warm).into_iter().map(|peer| (peer, points(peer)));
    draw_lines(&mut chart, lines, SeriesLabelPosition::UpperLeft)?;
    area.present()?;
    Ok(())
}

/// Draws a line for each name, and says which is whose at `position`.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn draw_lines<'a, C>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, C>,
    lines: impl IntoIterator<Item = (&'a str, Vec<(f64, f64)>)>,
    position: SeriesLabelPosition,
) -> Result<()>
where
    C: CoordTranslate<From = (f64, f64)>,
{
    for (number, (name, points)) in lines.into_iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    let mut labels = chart.configure_series_labels();
    labels.position(position).background_style(WHITE.mix(0.8)).draw()?;
    Ok(())
}

/// Median seconds from an empty store to a running process, a bar for each peer and image.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn pulls(rows: &[Row], path: &Path) -> Result<()> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.samples_count > 0).collect();
    let most = rows.iter().map(|row| row.p50_us).max().unwrap_or(1) as f64 / 1e6 * 1.3;
    let area = SVGBackend::new(path, (SIZE.0, 80 + 22 * u32::try_from(rows.len())?)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("from an empty store to a running process, median seconds", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .build_cartesian_2d(-most * 0.75..most, 0.0..rows.len() as f64)?;
    let owned: Vec<Row> = rows.iter().map(|row| (*row).clone()).collect();
    let names = peers(&owned);
    for (number, row) in rows.iter().enumerate() {
        let colour = COLOURS[names.iter().position(|name| *name == row.peer).unwrap_or(0) % COLOURS.len()];
        let (top, seconds) = ((rows.len() - number) as f64, row.p50_us as f64 / 1e6);
        let text = |at, words: String| Text::new(words, (at, top - 0.25), ("sans-serif", 12));
        chart.draw_series([Rectangle::new([(0.0, top - 0.85), (seconds, top - 0.15)], colour.filled())])?;
        chart.draw_series([text(-most * 0.74, format!("{}: {}", row.condition, row.peer))])?;
        chart.draw_series([text(seconds + most * 0.01, format!("{seconds:.2}"))])?;
    }
    area.present()?;
    Ok(())
}
