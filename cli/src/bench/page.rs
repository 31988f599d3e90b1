//! The report as one page of HTML that needs nothing else: the tables, and two charts of each level.

use super::{
    measurement::{Figures, Measurement, Throughput},
    report::Report,
};
use crate::trouble::Trouble;
use anstream::adapter::strip_str;
use plotters::prelude::*;
use std::fmt::Write as _;

/// Width and height of a chart.
const SIZE: (u32, u32) = (620, 320);
/// The rarest latencies that are drawn, as one in so many.
const RAREST: f64 = 10_000.0;
/// Points of a curve of latencies.
const POINTS: u32 = 200;

/// A named curve.
struct Curve {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// The page.
pub(super) fn page(report: &Report) -> Result<String, Trouble> {
    let mut charts = String::new();
    for measurement in &report.measurements {
        // Writing to memory cannot fail.
        let _ = write!(
            charts,
            "<h2>{}, load {}</h2>\n<div>{}{}</div>\n",
            measurement.workload.word(),
            measurement.load,
            latencies(measurement)?,
            throughput(measurement)?
        );
    }
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <title>dirigent bench</title>\n\
         <style>body{{font:15px/1.5 sans-serif;max-width:1300px;margin:2em auto;padding:0 1em}}\
         pre{{overflow-x:auto;background:#f6f6f6;padding:1em}}</style>\n\
         <h1>dirigent bench</h1>\n\
         <p>Dirigent {version} on nats-server {server}; coordinators {coordinators}, workers {workers}, \
         partitions {partitions}, replicas {replicas}, sync {sync:?}, {live} other live sagas, \
         {finished} finished before. A latency runs from the start of a saga to the arrival of its outcome.</p>\n\
         <pre>{tables}</pre>\n{charts}</html>\n",
        version = report.version,
        server = report.nats_server,
        coordinators = report.coordinators,
        workers = report.workers,
        partitions = report.partitions,
        replicas = report.replicas,
        sync = report.sync,
        live = report.live,
        finished = report.finished,
        tables = strip_str(&report.tables()),
    ))
}

/// A page with a text alone.
pub(super) fn plain(title: &str, text: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <h1>{title}</h1>\n<pre>{}</pre>\n</html>\n",
        strip_str(text)
    )
}

/// How long one in so many takes: to the right the rarer, each mark ten times as rare.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 53 bits are plenty"
)]
fn latencies(measurement: &Measurement) -> Result<String, Trouble> {
    let curves = curves(measurement, |figures| {
        let rarest = (figures.sagas.max(1) as f64).min(RAREST).log10();
        let rarity = (0..=POINTS).map(|point| rarest * f64::from(point) / f64::from(POINTS));
        let at = |rarity: f64| {
            let micros = figures
                .latencies
                .value_at_quantile(1.0 - 10_f64.powf(-rarity));
            (rarity, micros as f64 / 1e3)
        };
        rarity.map(at).collect()
    });
    let percentile = |rarity: &f64| {
        // 99 %, 99.9 %, 99.99 %.
        let decimals = (2..6).take_while(|mark| f64::from(*mark) < *rarity).count();
        format!("{:.decimals$} %", 100.0 * (1.0 - 10_f64.powf(-rarity)))
    };
    draw("start to outcome, ms, by percentile", &curves, &percentile)
}

/// Sagas a second over the time of all turns.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 53 bits are plenty"
)]
fn throughput(measurement: &Measurement) -> Result<String, Trouble> {
    let curves = curves(measurement, |figures| {
        let Throughput { grain_ms, ended } = &figures.throughput;
        let grain = f64::from(*grain_ms) / 1e3;
        let point = |(at, count): (usize, &u32)| (at as f64 * grain, f64::from(*count) / grain);
        ended.iter().enumerate().map(point).collect()
    });
    draw("sagas ended a second, over seconds", &curves, &|seconds| {
        format!("{seconds:.1}")
    })
}

fn curves(measurement: &Measurement, of: impl Fn(&Figures) -> Vec<(f64, f64)>) -> Vec<Curve> {
    let both = [
        ("dirigent", &measurement.dirigent),
        ("floor", &measurement.floor),
    ];
    both.into_iter()
        .filter_map(|(name, figures)| {
            let points = of(figures.as_ref()?);
            Some(Curve { name, points })
        })
        .collect()
}

/// Draws curves from zero up, as SVG.
fn draw(
    caption: &str,
    curves: &[Curve],
    x_label: &dyn Fn(&f64) -> String,
) -> Result<String, Trouble> {
    let most = |pick: fn(&(f64, f64)) -> f64| {
        let points = curves.iter().flat_map(|curve| &curve.points);
        // An axis needs a length, whatever was measured.
        points.map(pick).fold(1e-3, f64::max)
    };
    let (width, height) = (most(|point| point.0), most(|point| point.1) * 1.05);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .caption(caption, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..width, 0.0..height)
            .map_err(Trouble::bench)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(6)
            .x_label_formatter(x_label)
            .draw()
            .map_err(Trouble::bench)?;
        for (curve, color) in curves.iter().zip([BLUE, BLACK]) {
            chart
                .draw_series(LineSeries::new(curve.points.iter().copied(), color))
                .map_err(Trouble::bench)?
                .label(curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(TRANSPARENT)
            .draw()
            .map_err(Trouble::bench)?;
        area.present().map_err(Trouble::bench)?;
    }
    Ok(svg)
}
