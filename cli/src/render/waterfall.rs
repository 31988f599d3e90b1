//! A saga's spans as bars below each other, on a scale as wide as the terminal.

use super::{brief, span as duration, visible};
use crate::waterfall::{Ending, Row, Waterfall};
use clap::builder::styling::{AnsiColor, Style};
use std::{fmt::Write as _, time::Duration};

/// Most columns that names take.
const NAMES: usize = 44;
/// Least columns that bars take, however narrow the terminal is.
const LEAST_BARS: usize = 16;
/// Columns of durations and of the mark, and the spaces between.
const REST: usize = 14;
/// How much of a failure is shown.
const FAILURE_LIMIT: usize = 80;

const CRITICAL: Style = Style::new().bold();
const BAD: Style = AnsiColor::Red.on_default();
const BUSY: Style = AnsiColor::Green.on_default();
const IDLE: Style = AnsiColor::Yellow.on_default();
const AROUND: Style = AnsiColor::Blue.on_default();
const DIM: Style = Style::new().dimmed();

/// Draws it for a terminal of so many columns.
pub(crate) fn waterfall(waterfall: &Waterfall, columns: usize) -> String {
    let total = Duration::from_micros(waterfall.duration_us);
    let how = match waterfall.status {
        Some(status) => format!("{status} in {}", duration(total)),
        None => format!("runs for {}", duration(total)),
    };
    let label = |row: &Row| 2 * row.depth + visible(&row.name).chars().count();
    let names = waterfall.spans.iter().map(label).max().unwrap_or(0);
    let names = names.min(NAMES);
    let bars = columns.saturating_sub(names + REST).max(LEAST_BARS);
    let mut text = format!(
        "{}  {how}\ntrace {}\n\n",
        visible(&waterfall.saga),
        visible(&waterfall.trace_id)
    );
    for row in &waterfall.spans {
        let mark = if row.is_critical { '●' } else { ' ' };
        let name = brief(&format!("{}{}", "  ".repeat(row.depth), row.name), names);
        let style = if row.is_critical {
            CRITICAL
        } else {
            Style::new()
        };
        let took = duration(Duration::from_micros(row.duration_us));
        let took = if row.ending == Ending::Open {
            format!("{took}…")
        } else {
            took
        };
        let bar = bar(row, waterfall.duration_us, bars);
        let _ = writeln!(
            text,
            "{style}{mark} {name:names$}{style:#} {bar} {took:>9}{}",
            remark(row)
        );
    }
    let _ = write!(
        text,
        "\n{DIM}● the critical path{DIM:#}  {IDLE}░{IDLE:#} {DIM}queued{DIM:#}  {BUSY}█{BUSY:#} \
         {DIM}running{DIM:#}  {IDLE}┄{IDLE:#} {DIM}pausing{DIM:#}\n"
    );
    text
}

/// What the bar does not say.
fn remark(row: &Row) -> String {
    match (&row.failure, row.ending) {
        (Some(failure), _) => format!("  {BAD}{}{BAD:#}", brief(failure, FAILURE_LIMIT)),
        (None, Ending::BrokenOff) => format!("  {DIM}broken off{DIM:#}"),
        (None, _) => String::new(),
    }
}

/// A bar on a scale of `columns` for `total` microseconds.
fn bar(row: &Row, total: u64, columns: usize) -> String {
    let column = |at: u64| {
        let scaled = u128::from(at) * columns as u128 / u128::from(total.max(1));
        usize::try_from(scaled).unwrap_or(columns).min(columns)
    };
    let start = column(row.start_us).min(columns - 1);
    let end = column(row.start_us + row.duration_us).max(start + 1);
    let began = row
        .queued_us
        .map_or(start, |queued| column(row.start_us + queued));
    let began = began.clamp(start, end);
    let (fill, style) = match row {
        Row { is_pause: true, .. } => ("┄", IDLE),
        Row {
            failure: Some(_), ..
        } => ("█", BAD),
        Row {
            queued_us: Some(_), ..
        } => ("█", BUSY),
        _ => ("━", AROUND),
    };
    format!(
        "{}{IDLE}{}{IDLE:#}{style}{}{style:#}{}",
        " ".repeat(start),
        "░".repeat(began - start),
        fill.repeat(end - began),
        " ".repeat(columns - end),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_contracts::{history::HistoryEvent, time::Timestamp};
    use serde_json::{Value, json};

    const RUN: &str = "0123456789abcdef0123456789abcdef";
    const START: i64 = 1_700_000_000_000_000;

    fn event(milliseconds: i64, scope: u32, visit: u32, mut what: Value) -> Value {
        what["seq"] = json!(1);
        what["at"] = json!(START + milliseconds * 1_000);
        what["scope"] = json!(scope);
        what["visit"] = json!(visit);
        what
    }

    fn entered(milliseconds: i64, scope: u32, visit: u32, state: &str, kind: &str) -> Value {
        let what = json!({"event": "state-entered", "state": state, "kind": kind, "input": {}});
        event(milliseconds, scope, visit, what)
    }

    fn exited(milliseconds: i64, scope: u32, visit: u32, state: &str, since: i64) -> Value {
        let what = json!({"event": "state-exited", "state": state, "kind": "Task", "output": {},
            "since": START + since * 1_000});
        event(milliseconds, scope, visit, what)
    }

    fn asked(milliseconds: i64, scope: u32, visit: u32, step: u32, task: &str) -> Value {
        let what = json!({"event": "task-scheduled", "state": task, "task": task,
            "resource": format!("task:{task}"), "command": format!("{RUN}-{step}-1"),
            "direction": "do", "input": {}, "deadline": START + 60_000_000});
        event(milliseconds, scope, visit, what)
    }

    fn answered(
        at: i64,
        scope: u32,
        visit: u32,
        step: u32,
        (task, since, ran): (&str, i64, i64),
    ) -> Value {
        let what = json!({"event": "task-succeeded", "state": task, "of": {"task": task},
            "command": format!("{RUN}-{step}-1"), "since": START + since * 1_000, "output": {},
            "timing": {"asked_at": START + since * 1_000, "ran_us": ran * 1_000}});
        event(at, scope, visit, what)
    }

    fn drawn(events: &Value, now: i64) -> String {
        let history: Vec<HistoryEvent> = serde_json::from_value(events.clone()).unwrap();
        let saga = serde_json::from_value(json!({"definition": "order", "key": "o-1"})).unwrap();
        let now = Timestamp(START + now * 1_000);
        let fall = Waterfall::of(saga, &history, now).unwrap();
        anstream::adapter::strip_str(&waterfall(&fall, 90)).to_string()
    }

    fn started() -> Value {
        let what =
            json!({"event": "saga-started", "run": RUN, "digest": "b".repeat(64), "input": {}});
        event(0, 0, 0, what)
    }

    #[test]
    fn the_slower_branch_is_the_critical_path() {
        let member_ended = |at, index: u32, member: u32| {
            let what = json!({"event": "member-ended", "state": "Both", "index": index,
                "member": member, "since": START});
            event(at, 0, 1, what)
        };
        let events = json!([
            started(),
            entered(0, 0, 1, "Both", "Parallel"),
            event(
                0,
                0,
                1,
                json!({"event": "parallel-started", "state": "Both", "scopes": [1, 2]})
            ),
            entered(0, 1, 1, "Fast", "Task"),
            asked(0, 1, 1, 1, "fast"),
            entered(0, 2, 1, "Slow", "Task"),
            asked(0, 2, 1, 2, "slow"),
            answered(40, 1, 1, 1, ("fast", 0, 30)),
            exited(40, 1, 1, "Fast", 0),
            member_ended(40, 0, 1),
            answered(150, 2, 1, 2, ("slow", 0, 50)),
            exited(150, 2, 1, "Slow", 0),
            member_ended(150, 1, 2),
            exited(150, 0, 1, "Both", 0),
            entered(150, 0, 2, "Ship", "Task"),
            asked(150, 0, 2, 3, "ship"),
            answered(200, 0, 2, 3, ("ship", 150, 45)),
            exited(200, 0, 2, "Ship", 150),
            event(
                200,
                0,
                2,
                json!({"event": "saga-ended", "outcome": {"status": "succeeded"}})
            ),
        ]);
        insta::assert_snapshot!(drawn(&events, 0));
    }

    #[test]
    fn a_retry_shows_its_failure_its_pause_and_what_still_lasts() {
        let events = json!([
            started(),
            entered(0, 0, 1, "Charge", "Task"),
            asked(0, 0, 1, 1, "charge"),
            event(
                100,
                0,
                1,
                json!({"event": "task-failed", "state": "Charge",
                "of": {"task": "charge"}, "command": format!("{RUN}-1-1"), "since": START,
                "failure": {"error": "Busy", "cause": "come back later"}})
            ),
            event(
                100,
                0,
                1,
                json!({"event": "retry-scheduled", "state": "Charge",
                "until": START + 1_100_000, "attempt": 2, "command": format!("{RUN}-1-2"),
                "failure": {"error": "Busy", "cause": "come back later"}})
            ),
        ]);
        insta::assert_snapshot!(drawn(&events, 600));
    }
}
