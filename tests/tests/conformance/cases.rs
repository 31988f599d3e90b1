//! The recordings, as they stand in `runs.jsonl`.

use dirigent_contracts::{outcome::Failure, task::TaskResult};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

/// What a case needs besides the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    Pure,
    Lambda,
    Activity,
    Aws,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) class: Class,
    pub(crate) machines: BTreeMap<String, Value>,
    pub(crate) runs: Vec<Recording>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Recording {
    pub(crate) machine: String,
    #[serde(default)]
    pub(crate) input: Value,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) output: Option<Value>,
    #[serde(default)]
    pub(crate) error: Option<String>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) events: Vec<Vec<String>>,
    pub(crate) unordered: bool,
}

/// One call of a task, and its recorded answer.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Task {
    /// The state that called; not known where branches ran at the same time.
    pub(crate) state: Option<String>,
    #[serde(default)]
    pub(crate) payload: Value,
    pub(crate) outcome: String,
    #[serde(default)]
    pub(crate) output: Value,
    #[serde(default)]
    pub(crate) error: Option<String>,
    #[serde(default)]
    pub(crate) cause: Value,
}

impl Recording {
    /// Whether a distributed Map ran: its items are executions of their own, whose calls were not
    /// recorded.
    pub(crate) fn has_unrecorded(&self) -> bool {
        self.events.iter().any(|event| event[0] == "MapRunStarted")
    }

    /// Whether parts of it ran side by side.
    pub(crate) fn is_concurrent(&self) -> bool {
        let starts = ["ParallelStateStarted", "MapStateStarted"];
        self.events
            .iter()
            .any(|event| starts.contains(&event[0].as_str()))
    }
}

impl Task {
    /// The recorded answer; `None` if nobody answered, or nobody knows what.
    pub(crate) fn result(&self) -> Option<TaskResult> {
        match self.outcome.as_str() {
            "Succeeded" => Some(TaskResult::Succeeded {
                output: Arc::new(crate::compare::said(&self.output)),
            }),
            "Failed" => Some(TaskResult::Failed {
                failure: Failure::new(self.error.clone().unwrap_or_default(), text(&self.cause)),
                retryable: true,
            }),
            _ => None,
        }
    }
}

/// A cause is a text; the recordings show one that is JSON as that JSON.
fn text(cause: &Value) -> String {
    match cause {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Reads them; `None`, loudly, if they are not there.
pub(crate) fn read() -> Option<Vec<Case>> {
    let folder = std::env::var_os("DIRIGENT_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    let path = folder.join("runs.jsonl");
    match fs::read_to_string(&path) {
        Ok(text) => Some(
            text.lines()
                .enumerate()
                .map(|(number, line)| {
                    serde_json::from_str(line).unwrap_or_else(|error| {
                        panic!("{}:{}: {error}", path.display(), number + 1)
                    })
                })
                .collect(),
        ),
        Err(error) => {
            eprintln!("SKIPPED: {} cannot be read: {error}", path.display());
            None
        }
    }
}
