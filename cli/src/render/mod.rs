//! What people see: answers as tables and timelines, mistakes with their place, on stdout or stderr.
//!
//! Everything here is a text with colours; only [`print()`] and its two siblings write, and leave the
//! colours out where they are not wanted. What others wrote is made [`visible()`] before it becomes part of one.

mod backup;
mod board;
mod definition;
mod doctor;
mod operation;
mod rehearsal;
mod saga;
mod timeline;
mod visible;
mod waterfall;

pub(crate) use backup::{backed_up, restored};
pub(crate) use board::board;
pub(crate) use definition::{definitions, deployed};
pub(crate) use doctor::examined;
pub(crate) use operation::{letters, limits, status};
pub(crate) use rehearsal::rehearsed;
pub(crate) use saga::{description, sagas, started};
pub(crate) use timeline::{asl_events, timeline};
pub(crate) use visible::{quoted, visible};
pub(crate) use waterfall::waterfall;

use crate::{arguments::Output, trouble::Trouble};
use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use dirigent_contracts::{definition::Report, outcome::SagaStatus, time::Timestamp};
use miette::{GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;
use serde_json::json;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;
use visible::{cell, visible_json, visible_lines};

const BAD: Style = AnsiColor::Red.on_default().bold();
const ADVICE: Style = AnsiColor::Cyan.on_default();

/// Obeys `--color`; without one, a terminal gets colours unless `NO_COLOR` is set.
pub(crate) fn choose_color(choice: clap::ColorChoice) {
    match choice {
        clap::ColorChoice::Auto => ColorChoice::Auto,
        clap::ColorChoice::Always => ColorChoice::Always,
        clap::ColorChoice::Never => ColorChoice::Never,
    }
    .write_global();
}

/// An answer as JSON, for programs, and harmless to a terminal.
pub(crate) fn document(answer: &impl Serialize) -> Result<String, Trouble> {
    let json =
        serde_json::to_string_pretty(answer).map_err(|error| Trouble::Write(error.into()))?;
    Ok(visible_json(&json) + "\n")
}

/// Writes to stdout. A reader that has seen enough, such as `head`, is no trouble.
pub(crate) fn print(text: &str) -> Result<(), Trouble> {
    let mut stdout = AutoStream::auto(io::stdout().lock());
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Trouble::Write(error)),
        _ => Ok(()),
    }
}

/// How wide what is printed may be: as the terminal, or 100 if it goes elsewhere.
pub(crate) fn columns() -> usize {
    let is_terminal = io::stdout().is_terminal();
    let size = is_terminal.then(ratatui::crossterm::terminal::size);
    size.and_then(Result::ok)
        .map_or(100, |(columns, _)| usize::from(columns))
}

/// Writes to stderr what went wrong and what to do about it.
pub(crate) fn trouble(trouble: &Trouble, output: Output) {
    match output {
        Output::Json => say(&trouble_json(trouble)),
        Output::Table => {
            trouble.report().inspect(|about| report(about));
            say(&trouble_text(trouble));
        }
    }
}

fn trouble_json(trouble: &Trouble) -> String {
    let mut object = json!({"error": trouble.to_string(), "exit": trouble.exit() as u8});
    if let Some(help) = trouble.help() {
        object["help"] = help.into();
    }
    if let Some(report) = trouble.report() {
        object["diagnostics"] = json!(report.diagnostics());
    }
    visible_json(&object.to_string()) + "\n"
}

fn trouble_text(trouble: &Trouble) -> String {
    let what = visible_lines(&trouble.to_string());
    let mut text = format!("{BAD}error:{BAD:#} {what}\n");
    if let Some(help) = trouble.help() {
        let help = visible_lines(&help);
        text += &format!("{ADVICE}help:{ADVICE:#} {help}\n");
    }
    text
}

/// Writes to stderr what is wrong with a definition, each problem with an excerpt.
pub(crate) fn report(report: &Report) {
    say(&excerpts(report));
}

fn excerpts(report: &Report) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode()).with_width(100);
    let mut text = String::new();
    if handler.render_report(&mut text, report).is_err() {
        text = report.to_string();
    }
    text + "\n"
}

/// Writes to stderr, for people, what is going on.
pub(crate) fn say(text: &str) {
    // Whoever closed stderr does not want to know.
    let _ = AutoStream::auto(io::stderr().lock()).write_all(text.as_bytes());
}

/// A table without lines. Its cells are coloured always: `print` knows better who reads.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .enforce_styling()
        .style_text_only();
    if !header.is_empty() {
        let bold = |name: &&str| Cell::new(name).add_attribute(comfy_table::Attribute::Bold);
        table.set_header(header.iter().map(bold));
    }
    table
}

/// The table's lines, without the spaces that fill them up.
pub(crate) fn lines(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

fn dimmed(text: impl Into<String>) -> Cell {
    cell(text.into()).add_attribute(comfy_table::Attribute::Dim)
}

fn status_cell(status: SagaStatus) -> Cell {
    Cell::new(status).fg(color_of(status))
}

fn color_of(status: SagaStatus) -> Color {
    match status {
        SagaStatus::Running => Color::Cyan,
        SagaStatus::Compensating | SagaStatus::Compensated | SagaStatus::Canceled => Color::Yellow,
        SagaStatus::Stuck | SagaStatus::Failed => Color::Red,
        SagaStatus::Succeeded => Color::Green,
    }
}

/// An instant, to the second; UTC, so that all who read it talk of the same one.
fn at(time: Timestamp) -> String {
    time.to_rfc3339()
        .get(..19)
        .map_or_else(|| time.to_string(), |text| text.replace('T', " ") + "Z")
}

/// A duration, as short as it stays telling: `3.2 ms`, `1.50 s`, `2m 5s`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.000_95 {
        format!("{} µs", time.as_micros())
    } else if seconds < 0.095 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 0.95 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 60.0 {
        format!("{seconds:.2} s")
    } else {
        let whole = jiff::SignedDuration::from_secs(time.as_secs().try_into().unwrap_or(i64::MAX));
        format!("{whole:#}")
    }
}

/// The first line of a text, made visible, and not too much of it.
fn brief(text: &str, limit: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    let is_whole = line.len() == text.trim_end().len();
    let line = visible(line);
    if line.chars().count() <= limit && is_whole {
        line
    } else {
        line.chars().take(limit - 1).collect::<String>() + "…"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_telling() {
        let shown = [0, 960, 1_234, 95_000, 1_500_000, 59_990_000, 125_000_000]
            .map(|micros| span(Duration::from_micros(micros)));
        assert_eq!(
            shown,
            [
                "0 µs", "1.0 ms", "1.2 ms", "95 ms", "1.50 s", "59.99 s", "2m 5s"
            ]
        );
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(brief("short", 10), "short");
        assert_eq!(brief("short\n", 10), "short");
        assert_eq!(brief("first\nsecond", 10), "first…");
        assert_eq!(brief("ééééé", 4), "ééé…");
        assert_eq!(brief("\u{1b}[2J\nb", 12), "\\u{1b}[2J…");
    }

    #[test]
    fn a_mistake_is_shown_in_its_place() {
        let document =
            "StartAt: A\nStates:\n  A:\n    Type: Task\n    Resource: task:pay\n    Next: B\n";
        let report = dirigent_coordinator::compile("pay.yaml", document).unwrap_err();
        let plain = anstream::adapter::strip_str(&excerpts(&report)).to_string();
        insta::assert_snapshot!(plain);
    }
}
