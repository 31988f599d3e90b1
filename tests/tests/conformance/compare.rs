//! What agrees with a recording. Recordings hide volatile texts behind masks, which match anything.

use crate::{cases::Recording, player::Played};
use dirigent_contracts::{history::asl, outcome::SagaStatus};
use serde_json::Value;
use std::fmt;

/// Words that stand for a text that differs from run to run.
const MASKS: [&str; 6] = [
    "timestamp",
    "start-time",
    "entered-time",
    "date",
    "generated-uuid",
    "RandomNumberGenerated",
];

/// Something that is not as recorded.
#[derive(Clone, Debug)]
pub(crate) enum Difference {
    /// The status, the output or the error.
    Outcome(String),
    /// What a task was sent, or whether it was called.
    Payload(String),
    /// The order of events.
    Events(String),
}

impl Difference {
    pub(crate) fn is_of_level_1(&self) -> bool {
        !matches!(self, Self::Events(_))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Outcome(text) | Self::Payload(text) | Self::Events(text)) = self;
        f.write_str(text)
    }
}

pub(crate) fn differences(recording: &Recording, played: &Played) -> Vec<Difference> {
    let mut found = Vec::new();
    let status = match &played.outcome {
        None => "RUNNING",
        Some(outcome) => match outcome.status {
            SagaStatus::Succeeded => "SUCCEEDED",
            SagaStatus::Canceled => "ABORTED",
            _ => "FAILED",
        },
    };
    if status != recording.status {
        let failure = played.outcome.as_ref().and_then(|it| it.failure.as_ref());
        let text = format!(
            "{} was recorded, {status} is here: {failure:?}",
            recording.status
        );
        found.push(Difference::Outcome(text));
    } else if let Some(outcome) = &played.outcome {
        let error = outcome
            .failure
            .as_ref()
            .map(|failure| failure.error.as_str());
        let is_same = match (&recording.error, error) {
            (Some(recorded), Some(error)) => is_mask(recorded) || recorded == error,
            // A Fail state without an error.
            (None, Some(error)) => error.is_empty() || recording.status == "SUCCEEDED",
            (Some(_), None) => false,
            (None, None) => true,
        };
        if !is_same {
            let recorded = &recording.error;
            let failure = &outcome.failure;
            let text = format!("the error {recorded:?} was recorded, {failure:?} is here");
            found.push(Difference::Outcome(text));
        }
        if let (Some(recorded), Some(output)) = (&recording.output, &outcome.output)
            && !agree(recorded, output)
            && !agree(&said(recorded), output)
        {
            let text = format!("the output {recorded} was recorded, {output} is here");
            found.push(Difference::Outcome(text));
        }
    }
    for (recorded, sent) in &played.payloads {
        if !agree(recorded, sent) && !agree(&said(recorded), sent) {
            let text = format!("the payload {recorded} was recorded, {sent} is here");
            found.push(Difference::Payload(text));
        }
    }
    found.extend(played.strays.iter().cloned().map(Difference::Payload));
    let mut recorded = recording.events.clone();
    let mut events: Vec<Vec<String>> = asl::project(&played.history)
        .into_iter()
        .map(|event| std::iter::once(event.kind).chain(event.state).collect())
        .collect();
    if recording.unordered {
        recorded.sort();
        events.sort();
    }
    if recorded != events {
        let show = |events: &[Vec<String>]| {
            let words: Vec<String> = events.iter().map(|event| event.join(" ")).collect();
            words.join(", ")
        };
        let same = recorded
            .iter()
            .zip(&events)
            .take_while(|(a, b)| a == b)
            .count();
        let text = format!(
            "after {same} events: recorded [{}], here [{}]",
            show(&recorded[same..]),
            show(&events[same..])
        );
        found.push(Difference::Events(text));
    }
    found
}

/// Whether a value is as recorded.
pub(crate) fn agree(recorded: &Value, value: &Value) -> bool {
    match (recorded, value) {
        (Value::String(recorded), Value::String(value)) if recorded == value => true,
        (Value::String(text), _) | (_, Value::String(text)) if is_mask(text) => true,
        (Value::String(_), Value::String(text)) if is_of_one_run(text) => true,
        (Value::Number(recorded), Value::Number(value)) => recorded.as_f64() == value.as_f64(),
        (Value::Array(recorded), Value::Array(values)) => {
            recorded.len() == values.len()
                && recorded
                    .iter()
                    .zip(values)
                    .all(|(recorded, value)| agree(recorded, value))
        }
        (Value::Object(recorded), Value::Object(values)) => {
            recorded.len() == values.len()
                && recorded.iter().all(|(name, recorded)| {
                    values.get(name).is_some_and(|value| agree(recorded, value))
                })
        }
        // A random number.
        (Value::String(text), _) if is_mask(text) => true,
        // A text that is JSON is recorded as that JSON.
        (Value::Object(_) | Value::Array(_), Value::String(text)) => {
            serde_json::from_str(text).is_ok_and(|value: Value| agree(recorded, &value))
        }
        _ => recorded == value,
    }
}

/// What a recorded output says: one that is not an object is recorded as the text of its JSON.
pub(crate) fn said(recorded: &Value) -> Value {
    recorded
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| recorded.clone())
}

/// Whether a name was made for one run, as in `table_uid0011`.
fn is_of_one_run(text: &str) -> bool {
    let ending = text.get(text.len().saturating_sub(7)..).unwrap_or_default();
    ending.starts_with("uid") && ending[3..].bytes().all(|byte| byte.is_ascii_digit())
}

fn is_mask(text: &str) -> bool {
    let has_placeholder = text
        .split_once('<')
        .is_some_and(|(_, rest)| rest.contains('>'));
    has_placeholder || MASKS.contains(&text) || text.contains("EventDetails.")
}
