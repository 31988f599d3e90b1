//! Sagas, for people.

use super::{at, brief, cell, dimmed, lines, span, status_cell, table, visible, visible_lines};
use comfy_table::Cell;
use dirigent_contracts::{
    api::{ListAnswer, SagaDescription, StartAnswer},
    limit,
};
use serde_json::Value;

/// A saga was started, or had been before.
pub(crate) fn started(answer: &StartAnswer) -> String {
    if answer.started {
        format!("{} started\n", visible(&answer.saga))
    } else {
        format!(
            "{} had been started before; nothing was done\n",
            visible(&answer.saga)
        )
    }
}

/// How one saga stands.
pub(crate) fn description(saga: &SagaDescription) -> String {
    let mut table = table(&[]);
    let mut row = |name: &str, value: Cell| {
        table.add_row([dimmed(name), value]);
    };
    row("saga", cell(&saga.saga));
    row("status", status_cell(saga.status));
    if let Some(failure) = &saga.failure {
        row("error", cell(failure));
    }
    for activity in &saga.activities {
        let until = activity
            .until
            .map_or_else(String::new, |until| format!(", until {}", at(until)));
        let doing = format!("{} — {}{until}", activity.state, activity.waits_for);
        row("doing", cell(doing));
    }
    if !saga.undo.is_empty() {
        row("to undo", cell(saga.undo.join(", ")));
    }
    row("started", Cell::new(at(saga.started_at)));
    let took = span(saga.updated_at.since(saga.started_at));
    if saga.status.is_terminal() {
        row("took", Cell::new(took));
    } else {
        row("last change", Cell::new(format!("{took} later")));
    }
    if let Some(trigger) = &saga.trigger {
        row(
            "trigger",
            cell(format!("{} (id {})", trigger.subject, trigger.id)),
        );
    }
    if let Some(parent) = &saga.parent {
        row("parent", cell(&parent.saga));
    }
    row("version", Cell::new(saga.digest.short()));
    row("trace", cell(&saga.trace_id));
    row("partition", Cell::new(saga.partition));
    row("input", Cell::new(pretty(&saga.input)));
    if let Some(output) = &saga.output {
        row("output", Cell::new(pretty(output)));
    }
    lines(&table)
}

/// A page of sagas.
pub(crate) fn sagas(answer: &ListAnswer) -> String {
    let mut text = if answer.sagas.is_empty() {
        "no sagas\n".to_owned()
    } else {
        let mut table = table(&["SAGA", "STATUS", "STARTED", "LAST CHANGE", "DETAIL"]);
        for one in &answer.sagas {
            table.add_row([
                cell(&one.saga),
                status_cell(one.status),
                dimmed(one.started_at.map_or_else(|| "-".to_owned(), at)),
                dimmed(at(one.updated_at)),
                Cell::new(brief(&one.detail, 80)),
            ]);
        }
        lines(&table)
    };
    if answer.more && answer.sagas.len() < limit::LISTED_SAGAS {
        text += "there are more; --limit shows them\n";
    } else if answer.more {
        text += "there are more, and this is the most that a list shows: a definition or --status \
                 makes it shorter\n";
    }
    if !answer.silent.is_empty() {
        let numbers: Vec<String> = answer.silent.iter().map(ToString::to_string).collect();
        text += &format!(
            "nobody answers for partitions {}: their live sagas are missing here\n",
            numbers.join(", ")
        );
    }
    text
}

/// Small values on one line, others indented.
fn pretty(value: &Value) -> String {
    let line = value.to_string();
    let text = if line.len() <= 80 {
        line
    } else {
        serde_json::to_string_pretty(value).unwrap_or(line)
    };
    visible_lines(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_saga_in_the_middle_tells_what_it_does_and_what_it_would_undo() {
        let saga: SagaDescription = serde_json::from_value(json!({
            "definition": "order", "key": "o-1", "partition": 3,
            "run": "0123456789abcdef0123456789abcdef",
            "trace_id": "0123456789abcdef0123456789abcdef",
            "digest": "a".repeat(64),
            "status": "running", "started_at": 1_700_000_000_000_000_i64,
            "updated_at": 1_700_000_001_250_000_i64,
            "input": {"order": "o-1"},
            "activities": [{"scope": 0, "state": "Charge", "waits_for": "task charge-card, attempt 2",
                "until": 1_700_000_030_000_000_i64}],
            "undo": ["Reserve"],
            "trigger": {"subject": "orders.placed", "id": "e-1"}
        }))
        .unwrap();
        insta::assert_snapshot!(plain(&description(&saga)));
    }

    #[test]
    fn a_list_tells_what_it_lacks() {
        let answer: ListAnswer = serde_json::from_value(json!({
            "sagas": [
                {"definition": "order", "key": "o-1", "status": "stuck",
                 "started_at": 1_700_000_000_000_000_i64, "updated_at": 1_700_000_001_000_000_i64,
                 "detail": "Release"},
                {"definition": "order", "key": "a longer key", "status": "succeeded",
                 "updated_at": 1_700_000_000_000_000_i64}
            ],
            "more": true, "silent": [2, 7]
        }))
        .unwrap();
        insta::assert_snapshot!(plain(&sagas(&answer)));
        let nothing = ListAnswer {
            sagas: Vec::new(),
            more: false,
            silent: Vec::new(),
        };
        assert_eq!(sagas(&nothing), "no sagas\n");
    }

    #[test]
    fn a_saga_cannot_add_rows_to_a_list_or_speak_to_the_terminal() {
        let answer: ListAnswer = serde_json::from_value(json!({
            "sagas": [{"definition": "order", "key": "x\nall/fine  succeeded\u{1b}]0;T\u{7}",
                "status": "failed", "updated_at": 0, "detail": "E: \u{9b}2J"}],
            "more": false
        }))
        .unwrap();
        let text = plain_with_escapes(&sagas(&answer));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.contains(r"x\nall/fine  succeeded\u{1b}]0;T\u{7}"),
            "{text}"
        );
        assert!(text.contains(r"E: \u{9b}2J"), "{text}");
    }

    /// Without colours, which are all that may begin with an escape.
    fn plain_with_escapes(text: &str) -> String {
        let colours = text.split('\u{1b}').enumerate().map(|(at, part)| match at {
            0 => part,
            _ => part.split_once('m').map_or("no colour", |(_, rest)| rest),
        });
        colours.collect()
    }
}
