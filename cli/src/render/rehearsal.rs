//! Rehearsals, for people.

use super::{BAD, brief, cell, dimmed, lines, table, timeline, visible};
use crate::rehearsal::Rehearsed;
use clap::builder::styling::{AnsiColor, Style};
use comfy_table::Cell;

const GOOD: Style = AnsiColor::Green.on_default().bold();
/// How much of a value is shown.
const VALUE_LIMIT: usize = 70;

/// One case: what went in and out of each state, and what is not as expected.
pub(crate) fn rehearsed(case: &Rehearsed, is_verbose: bool) -> String {
    let mut text = if case.differences.is_empty() {
        format!("\n{GOOD}✓{GOOD:#} {}\n", visible(&case.case))
    } else {
        format!("\n{BAD}✗{BAD:#} {}\n", visible(&case.case))
    };
    for difference in case.differences.iter().map(visible) {
        text += &format!("  {BAD}{difference}{BAD:#}\n");
    }
    let limit = if is_verbose { usize::MAX } else { VALUE_LIMIT };
    let mut table = table(&["  STATE", "INPUT", "OUTPUT"]);
    for passage in &case.states {
        let output = passage.output.as_ref().map(ToString::to_string);
        table.add_row([
            cell(format!("  {}", passage.state)),
            dimmed(brief(&passage.input.to_string(), limit)),
            Cell::new(brief(&output.unwrap_or_default(), limit)),
        ]);
    }
    text += &lines(&table);
    if is_verbose {
        text += &timeline(&case.history);
    }
    text
}
