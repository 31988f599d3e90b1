//! What the doctor found, for people.

use super::{cell, dimmed, lines, table};
use crate::doctor::{Level, Report};
use comfy_table::{Cell, Color};

/// One line for each finding, and one for what to do about it.
pub(crate) fn examined(report: &Report) -> String {
    let mut table = table(&[]);
    for finding in &report.findings {
        let (word, color) = match finding.level {
            Level::Ok => ("ok", Color::Green),
            Level::Unknown => ("unknown", Color::Yellow),
            Level::Warning => ("warning", Color::Yellow),
            Level::Problem => ("problem", Color::Red),
        };
        table.add_row([
            Cell::new(word).fg(color),
            Cell::new(finding.check),
            cell(&finding.found),
        ]);
        if !finding.advice.is_empty() {
            table.add_row([Cell::new(""), Cell::new(""), dimmed(&finding.advice)]);
        }
    }
    lines(&table)
}
