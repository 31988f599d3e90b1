//! The figures as tables for people, and as JSON for programs.

use super::measurement::{Figures, Measurement, Ratio};
use crate::{arguments::Sync, render, trouble::Trouble};
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

/// The roles of processes, in the order of their columns.
const ROLES: [&str; 4] = ["broker", "coordinator", "worker", "load"];

/// All measurements, and what they were made with.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) nats_server: String,
    pub(super) partitions: u16,
    pub(super) coordinators: u16,
    pub(super) workers: u16,
    pub(super) replicas: u8,
    pub(super) sync: Sync,
    pub(super) live: usize,
    pub(super) finished: usize,
    pub(super) measurements: Vec<Measurement>,
}

impl Report {
    /// Two tables: what users see, and what it costs. Below them, what went wrong.
    pub(super) fn tables(&self) -> String {
        let mut speed = render::table(&[
            "workload", "load", "of", "sagas/s", "steps/s", "p50 ms", "p90 ms", "p99 ms", "max ms",
        ]);
        let mut cost = render::table(&[
            "workload",
            "load",
            "of",
            "messages",
            "snapshots",
            "bytes",
            "written",
            "CPU s/1,000",
            ROLES[0],
            ROLES[1],
            ROLES[2],
            ROLES[3],
            "MiB",
            ROLES[0],
            ROLES[1],
            ROLES[2],
            ROLES[3],
        ]);
        let mut remarks = String::new();
        for measurement in &self.measurements {
            let name = measurement.workload.word().to_owned();
            let load = measurement.load.to_string();
            let dirigent = measurement.dirigent.iter().map(|it| ("dirigent", it));
            for (of, figures) in dirigent.chain(measurement.floor.iter().map(|it| ("floor", it))) {
                let head = [name.clone(), load.clone(), of.to_owned()];
                add(&mut speed, &head, speed_cells(figures));
                add(&mut cost, &head, cost_cells(figures));
                remarks += &remark(&head, figures);
            }
            if let Some(ratio) = &measurement.ratio {
                let head = [name, load, "ratio".to_owned()];
                add(&mut speed, &head, speed_ratios(ratio));
                add(&mut cost, &head, cost_ratios(ratio));
            }
        }
        for table in [&mut speed, &mut cost] {
            for column in table.column_iter_mut().skip(1) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let tables = [&speed, &cost].map(render::lines);
        format!("{}\n{}{remarks}", tables[0], tables[1])
    }
}

/// A report as JSON for programs, or as `text` for people.
pub(super) fn show<T: Serialize>(
    report: &T,
    text: impl FnOnce(&T) -> String,
    is_json: bool,
) -> Result<(), Trouble> {
    let shown = if is_json {
        serde_json::to_string_pretty(report).map_err(Trouble::bench)? + "\n"
    } else {
        text(report)
    };
    render::print(&shown)
}

/// A table of single figures, each with what it is of and its unit.
pub(super) fn figures<const N: usize>(rows: [(&str, String, &str); N]) -> String {
    let mut table = render::table(&[]);
    for (what, figure, unit) in rows {
        table.add_row([what, &figure, unit]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    render::lines(&table)
}

fn add(table: &mut Table, head: &[String], cells: Vec<String>) {
    table.add_row(head.iter().cloned().chain(cells).map(Cell::new));
}

fn speed_cells(figures: &Figures) -> Vec<String> {
    let latency = figures.latency_ms;
    let milliseconds = [latency.p50, latency.p90, latency.p99, latency.max];
    [figures.sagas_per_second, figures.steps_per_second]
        .map(|rate| format!("{rate:.0}"))
        .into_iter()
        .chain(milliseconds.map(|time| format!("{time:.2}")))
        .collect()
}

fn speed_ratios(ratio: &Ratio) -> Vec<String> {
    let rate = format!("{:.2}", ratio.sagas_per_second);
    [rate.clone(), rate]
        .into_iter()
        .chain([ratio.p50, ratio.p90, ratio.p99, ratio.max].map(|it| format!("{it:.2}")))
        .collect()
}

fn cost_cells(figures: &Figures) -> Vec<String> {
    let mut cells = vec![
        format!("{:.2}", figures.messages),
        format!("{:.2}", figures.snapshots),
        format!("{:.0}", figures.bytes),
        format!("{:.0}", figures.written),
        format!("{:.3}", figures.cpu_seconds),
    ];
    let told = |figure: Option<f64>, decimals: usize| {
        figure.map_or_else(String::new, |figure| format!("{figure:.decimals$}"))
    };
    cells.extend(ROLES.map(|role| told(figures.cpu_of(role), 3)));
    cells.push(String::new());
    cells.extend(ROLES.map(|role| told(figures.resident_of(role), 0)));
    cells
}

fn cost_ratios(ratio: &Ratio) -> Vec<String> {
    vec![
        format!("{:.2}", ratio.messages),
        String::new(),
        format!("{:.2}", ratio.bytes),
        format!("{:.2}", ratio.written),
        format!("{:.2}", ratio.cpu_seconds),
    ]
}

/// What did not go as it should, if anything.
fn remark(head: &[String], figures: &Figures) -> String {
    let counts = [
        (figures.astray, "ended in another way than they should"),
        (figures.unfinished, "did not end"),
        (figures.refused, "starts were refused"),
        (figures.left_out, "starts were left out: too many under way"),
    ];
    let told: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if told.is_empty() {
        return String::new();
    }
    format!("{}: {}\n", head.join(" "), told.join(", "))
}
