//! A saga's history as a timeline: when, what, how long, and why.
//!
//! Branches and iterations are indented under the state that began them. Entering and leaving a state
//! that tells more in events of its own is left out.

use super::{at, brief, cell, color_of, dimmed, lines, span, table};
use comfy_table::{Attribute, Cell, Color};
use dirigent_contracts::{
    history::{Happening, HistoryEvent, asl::AslEvent},
    id::CommandId,
    outcome::Outcome,
    task::Direction,
    time::Timestamp,
};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// How much of a cause is shown.
const CAUSE_LIMIT: usize = 100;

/// What happened to a saga.
pub(crate) fn timeline(events: &[HistoryEvent]) -> String {
    let Some(first) = events.first() else {
        return "its journal is forgotten; `dirigent describe` still tells how it ended\n".into();
    };
    let mut table = table(&[]);
    let mut scopes = Scopes::default();
    for event in events {
        if scopes.is_told(event) {
            continue;
        }
        scopes.learn(event);
        if let Some(line) = line(event, &scopes) {
            let indent = "  ".repeat(scopes.depth(event.scope));
            let mut what = cell(format!("{indent}{} {}", line.mark, line.what));
            if let Some(color) = line.color {
                what = what.fg(color);
            }
            if line.is_bold {
                what = what.add_attribute(Attribute::Bold);
            }
            table.add_row([
                dimmed(format!("{:.3}", event.at.since(first.at).as_secs_f64())),
                what,
                Cell::new(line.took.map(span).unwrap_or_default()),
                dimmed(line.detail),
            ]);
        }
    }
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    format!("seconds since {}\n{}", first.at, lines(&table))
}

/// A history in the words of Step Functions.
pub(crate) fn asl_events(events: &[AslEvent]) -> String {
    let mut table = table(&["ID", "TIME", "TYPE", "STATE"]);
    for (id, event) in (1..).zip(events) {
        table.add_row([
            Cell::new(id),
            dimmed(event.timestamp.to_rfc3339()),
            cell(&event.kind),
            cell(event.state.as_deref().unwrap_or_default()),
        ]);
    }
    lines(&table)
}

/// What a later event says only by reference.
#[derive(Default)]
struct Scopes {
    depths: HashMap<u32, usize>,
    commands: HashMap<CommandId, String>,
    undos: HashSet<CommandId>,
    /// The step whose undoing was told last.
    undone: Option<String>,
}

impl Scopes {
    fn depth(&self, scope: u32) -> usize {
        self.depths.get(&scope).copied().unwrap_or(0)
    }

    /// Whether an event only repeats the one before it.
    fn is_told(&self, event: &HistoryEvent) -> bool {
        matches!(&event.what, Happening::StepUndone { state } if self.undone.as_ref() == Some(state))
    }

    fn learn(&mut self, event: &HistoryEvent) {
        let below = self.depth(event.scope) + 1;
        self.undone = match &event.what {
            Happening::TaskSucceeded { command, state, .. } if self.undos.contains(command) => {
                Some(state.clone())
            }
            _ => None,
        };
        if let Happening::TaskScheduled {
            command,
            direction: Direction::Undo,
            ..
        } = &event.what
        {
            self.undos.insert(*command);
        }
        match &event.what {
            Happening::ParallelStarted { scopes, .. } => {
                self.depths
                    .extend(scopes.iter().map(|scope| (*scope, below)));
            }
            Happening::IterationStarted { iteration, .. } => {
                self.depths.insert(*iteration, below);
            }
            Happening::TaskScheduled { command, state, .. }
            | Happening::EventAwaited { command, state, .. }
            | Happening::ChildStarted { command, state, .. } => {
                self.commands.insert(*command, state.clone());
            }
            _ => {}
        }
    }

    fn state(&self, command: &CommandId) -> &str {
        self.commands
            .get(command)
            .map_or("an earlier step", String::as_str)
    }
}

struct Line {
    mark: char,
    what: String,
    took: Option<Duration>,
    detail: String,
    color: Option<Color>,
    is_bold: bool,
}

impl Line {
    fn new(mark: char, what: impl Into<String>) -> Self {
        Self {
            mark,
            what: what.into(),
            took: None,
            detail: String::new(),
            color: None,
            is_bold: false,
        }
    }

    fn took(mut self, since: Timestamp, until: Timestamp) -> Self {
        self.took = Some(until.since(since));
        self
    }

    fn detail(mut self, detail: impl AsRef<str>) -> Self {
        self.detail = brief(detail.as_ref(), CAUSE_LIMIT);
        self
    }

    fn color(mut self, color: Color) -> Self {
        self.color = Some(color);
        self
    }

    fn bold(mut self) -> Self {
        self.is_bold = true;
        self
    }
}

fn line(event: &HistoryEvent, scopes: &Scopes) -> Option<Line> {
    use Happening as H;
    let bad = |what: String| Line::new('✗', what).color(Color::Red);
    let good = |what: String| Line::new('✓', what).color(Color::Green);
    Some(match &event.what {
        H::SagaStarted {
            digest,
            trigger,
            parent,
            ..
        } => {
            let by = match (trigger, parent) {
                (Some(trigger), _) => format!(", triggered by {}", trigger.subject),
                (None, Some(parent)) => format!(", for {}", parent.saga),
                (None, None) => String::new(),
            };
            let detail = format!("version {}{by}", digest.short());
            Line::new('▶', "started").bold().detail(detail)
        }
        H::StateEntered { state, kind, .. } => match kind.as_str() {
            "Pass" | "Choice" | "Succeed" | "Fail" => Line::new('·', state).detail(kind),
            _ => return None,
        },
        H::StateExited { .. }
        | H::StateFailed { .. }
        | H::TaskHeartbeat { .. }
        | H::TaskAbandoned { .. }
        | H::PauseEnded { .. }
        | H::MemberEnded { .. }
        | H::EventTaken { .. }
        | H::StateAborted {
            has_members: true, ..
        } => return None,
        H::StateAborted {
            state,
            has_members: false,
            ..
        } => Line::new('✗', format!("{state} is broken off")),
        H::EvaluationFailed { state, failure } => bad(state.clone()).detail(failure.to_string()),
        H::TaskScheduled {
            state,
            task,
            command,
            direction,
            ..
        } => {
            let attempt = match command.attempt {
                1 => String::new(),
                attempt => format!(", attempt {attempt}"),
            };
            match direction {
                Direction::Do => Line::new('→', state).detail(format!("task {task}{attempt}")),
                Direction::Undo => Line::new('↶', state)
                    .color(Color::Yellow)
                    .detail(format!("undone by task {task}{attempt}")),
            }
        }
        H::TaskSubmitted { command, .. } => {
            Line::new('…', scopes.state(command)).detail("passed on; waits for its token")
        }
        H::TaskSucceeded {
            state,
            since,
            worker,
            ..
        } => {
            let by = if worker.is_empty() {
                String::new()
            } else {
                format!("by {worker}")
            };
            let line = match &scopes.undone {
                Some(state) => Line::new('✓', format!("{state} is undone")).color(Color::Yellow),
                None => good(state.clone()),
            };
            line.took(*since, event.at).detail(by)
        }
        H::TaskFailed {
            state,
            since,
            failure,
            ..
        } => bad(state.clone())
            .took(*since, event.at)
            .detail(failure.to_string()),
        H::TaskTimedOut {
            state,
            since,
            failure,
            ..
        } => bad(state.clone())
            .took(*since, event.at)
            .detail(format!("{failure}; its outcome is unknown")),
        H::RetryScheduled {
            state,
            until,
            attempt,
            ..
        } => Line::new('↻', state).color(Color::Yellow).detail(format!(
            "attempt {attempt} in {}",
            span(until.since(event.at))
        )),
        H::ErrorCaught {
            state,
            failure,
            next,
        } => Line::new('⤷', state)
            .color(Color::Yellow)
            .detail(format!("{} is caught, on to {next}", failure.error)),
        H::LateReply { command, succeeded } => {
            let how = if *succeeded { "succeeded" } else { "failed" };
            let what = format!("{} {how} after all", scopes.state(command));
            Line::new('!', what)
                .color(Color::Yellow)
                .detail("a late reply")
        }
        H::WaitStarted { state, until } => Line::new('⏳', state).detail(format!(
            "waits {}, until {}",
            span(until.since(event.at)),
            at(*until)
        )),
        H::ParallelStarted { state, scopes } => {
            Line::new('⇉', state).detail(format!("{} branches", scopes.len()))
        }
        H::MapStarted { state, length, .. } => {
            let items = length.map_or_else(
                || "items from the object store".to_owned(),
                |length| format!("{length} items"),
            );
            Line::new('⇉', state).detail(items)
        }
        H::ParallelSucceeded { state } | H::MapSucceeded { state } => good(state.clone()),
        H::ParallelFailed { state, failure } | H::MapFailed { state, failure } => {
            bad(state.clone()).detail(failure.to_string())
        }
        H::IterationStarted { state, index, .. } => Line::new('→', format!("{state} [{index}]")),
        H::IterationSucceeded { state, index } => good(format!("{state} [{index}]")),
        H::IterationFailed {
            state,
            index,
            failure,
        } => bad(format!("{state} [{index}]")).detail(failure.to_string()),
        H::IterationAborted { state, index } => {
            Line::new('✗', format!("{state} [{index}] is broken off"))
        }
        H::ItemsRead { state, items, last } => {
            let more = if *last { ", the last" } else { "" };
            Line::new('⇊', state).detail(format!("{items} items read{more}"))
        }
        H::ItemStarted {
            state,
            index,
            child,
        } => Line::new('→', format!("{state} [{index}]")).detail(format!("saga {child}")),
        H::ResultsWritten { state, objects } => {
            Line::new('⇢', state).detail(format!("wrote {}", objects.join(", ")))
        }
        H::ItemUndone { state, index } => {
            Line::new('✓', format!("{state} [{index}] is undone")).color(Color::Yellow)
        }
        H::Held => Line::new('⏳', "done").detail("waits for how the saga that it is part of ends"),
        H::EventPublished { state, subject, .. } => {
            Line::new('⇢', state).detail(format!("published {subject}"))
        }
        H::EventAwaited { state, name, .. } => {
            Line::new('⏳', state).detail(format!("waits for {name}"))
        }
        H::EventReceived { name, awaited, .. } => {
            let detail = if *awaited {
                ""
            } else {
                "kept for a state that will wait for it"
            };
            Line::new('⇠', format!("event {name}")).detail(detail)
        }
        H::ChildStarted { state, child, .. } => {
            Line::new('→', state).detail(format!("saga {child}"))
        }
        H::CompensationStarted { failure, steps, .. } => {
            let what = match steps {
                1 => "undoing 1 step".to_owned(),
                steps => format!("undoing {steps} steps"),
            };
            Line::new('⟲', what)
                .color(Color::Yellow)
                .bold()
                .detail(failure.to_string())
        }
        H::StepUndone { state } => {
            Line::new('✓', format!("{state} is undone")).color(Color::Yellow)
        }
        H::CompensationEnded { .. } => Line::new('⟲', "everything is undone").color(Color::Yellow),
        H::PivotPassed { state } => {
            Line::new('◆', state).detail("the pivot: from here it only goes forward")
        }
        H::CancelRequested { reason } => Line::new('!', "asked to end")
            .color(Color::Yellow)
            .detail(reason),
        H::Stuck { state, failure } => Line::new('!', format!("stuck at {state}"))
            .color(Color::Red)
            .bold()
            .detail(failure.to_string()),
        H::Resumed { skipped, reason } => {
            let mut how = if *skipped {
                "what it was stuck at is taken as done".to_owned()
            } else {
                "tries again".to_owned()
            };
            if !reason.is_empty() {
                how = format!("{how}: {reason}");
            }
            Line::new('▶', "resumed by a person").detail(how)
        }
        H::SagaEnded { outcome } => ended(outcome),
    })
}

fn ended(outcome: &Outcome) -> Line {
    let detail = match (&outcome.output, &outcome.failure) {
        (_, Some(failure)) => failure.to_string(),
        (Some(output), None) => output.to_string(),
        (None, None) => String::new(),
    };
    Line::new('■', outcome.status.as_str())
        .color(color_of(outcome.status))
        .bold()
        .detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn events(happenings: Value) -> Vec<HistoryEvent> {
        serde_json::from_value(happenings).unwrap()
    }

    #[test]
    fn waits_attempts_branches_and_compensations_are_told() {
        let run = "0123456789abcdef0123456789abcdef";
        let start = 1_700_000_000_000_000_i64;
        let event = |milliseconds: i64, scope: u32, mut what: Value| {
            let at = start + milliseconds * 1_000;
            for (name, value) in [
                ("seq", json!(1)),
                ("at", json!(at)),
                ("scope", json!(scope)),
            ] {
                what[name] = value;
            }
            what
        };
        let task = |state: &str, step: u32, attempt: u32, direction: &str| {
            json!({"event": "task-scheduled", "state": state, "task": state.to_lowercase(),
                "resource": format!("task:{}", state.to_lowercase()),
                "command": format!("{run}-{step}-{attempt}"),
                "direction": direction, "input": {}, "deadline": start + 60_000_000})
        };
        let history = events(json!([
            event(
                0,
                0,
                json!({"event": "saga-started", "run": run, "digest": "b".repeat(64),
                "input": {}, "trigger": {"subject": "orders.placed", "id": "e-1"}})
            ),
            event(
                1,
                0,
                json!({"event": "parallel-started", "state": "Prepare", "scopes": [1, 2]})
            ),
            event(1, 1, task("Reserve", 1, 1, "do")),
            event(
                9,
                1,
                json!({"event": "task-succeeded", "command": format!("{run}-1-1"),
                "state": "Reserve", "since": start + 1_000, "output": {}, "worker": "stock-1"})
            ),
            event(
                10,
                0,
                json!({"event": "parallel-succeeded", "state": "Prepare"})
            ),
            event(10, 0, task("Charge", 2, 1, "do")),
            event(
                15,
                0,
                json!({"event": "task-failed", "command": format!("{run}-2-1"),
                "state": "Charge", "since": start + 10_000,
                "failure": {"error": "Busy", "cause": "try later"}})
            ),
            event(
                15,
                0,
                json!({"event": "retry-scheduled", "state": "Charge",
                "until": start + 1_515_000, "attempt": 2, "failure": {"error": "Busy"}})
            ),
            event(1515, 0, task("Charge", 2, 2, "do")),
            event(
                31515,
                0,
                json!({"event": "task-timed-out", "command": format!("{run}-2-2"),
                "state": "Charge", "since": start + 1_515_000,
                "failure": {"error": "States.Timeout"}})
            ),
            event(
                31515,
                0,
                json!({"event": "compensation-started",
                "failure": {"error": "States.Timeout"}, "steps": 2})
            ),
            event(31515, 0, task("Reserve", 3, 1, "undo")),
            event(
                31520,
                0,
                json!({"event": "late-reply", "command": format!("{run}-2-2"),
                "succeeded": true})
            ),
            event(
                31525,
                0,
                json!({"event": "step-undone", "state": "Reserve"})
            ),
            event(
                31525,
                0,
                json!({"event": "saga-ended",
                "outcome": {"status": "compensated", "failure": {"error": "States.Timeout"}}})
            ),
        ]));
        let text = anstream::adapter::strip_str(&timeline(&history)).to_string();
        insta::assert_snapshot!(text);
    }
}
