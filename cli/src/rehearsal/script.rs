//! The file of a rehearsal: a definition, and cases with the answers of their steps.

use crate::{input, trouble::Trouble};
use dirigent_contracts::{
    definition,
    outcome::{Failure, SagaStatus},
    task::TaskResult,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    /// The definition's file, from the directory of this one.
    pub(super) definition: PathBuf,
    pub(super) cases: Vec<Case>,
}

/// One saga, or one state of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    /// Only this state of the topmost level runs.
    #[serde(default)]
    pub(super) state: Option<String>,
    #[serde(default = "empty")]
    pub(super) input: Value,
    /// By the state's name; `<state>/undo` for its compensation.
    #[serde(default)]
    pub(super) answers: BTreeMap<String, Answers>,
    #[serde(default)]
    pub(super) expect: Expectation,
}

/// The answers to one state's attempts in order; the last one is repeated.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Answers {
    Many(Vec<Answer>),
    One(Answer),
}

impl Answers {
    /// The answer to attempt number `at`, counted from 0.
    pub(super) fn at(&self, at: usize) -> Option<&Answer> {
        match self {
            Self::One(answer) => Some(answer),
            Self::Many(answers) => answers.get(at).or(answers.last()),
        }
    }
}

/// What a worker, a child saga or an event would bring.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    #[serde(default)]
    pub(super) output: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) cause: String,
    /// Whether the worker says that another attempt may succeed.
    #[serde(default = "yes")]
    pub(super) retryable: bool,
    /// Nobody answers.
    #[serde(default)]
    pub(super) silent: bool,
}

impl Answer {
    /// What became of the attempt; `None` if nobody answers.
    pub(super) fn result(&self) -> Option<TaskResult> {
        if self.silent {
            return None;
        }
        Some(match &self.error {
            Some(error) => TaskResult::Failed {
                failure: Failure::new(error, &self.cause),
                retryable: self.retryable,
            },
            None => TaskResult::Succeeded {
                output: Arc::new(self.output.clone().unwrap_or(Value::Null)),
            },
        })
    }
}

/// What is to come of it. What is not said is not looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    #[serde(default)]
    pub(super) status: Option<SagaStatus>,
    #[serde(default)]
    pub(super) output: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<String>,
    /// The states that are entered, in order; undone ones as `<state>/undo`.
    #[serde(default)]
    pub(super) states: Option<Vec<String>>,
}

fn empty() -> Value {
    Value::Object(Map::new())
}

fn yes() -> bool {
    true
}

impl Script {
    pub(super) fn read(path: &Path) -> Result<Self, Trouble> {
        let name = path.display().to_string();
        let value = definition::value(&name, &input::text(path)?).map_err(|report| {
            Trouble::NotTestable {
                path: path.to_owned(),
                reason: "it cannot be read".to_owned(),
                report: Some(Box::new(report)),
            }
        })?;
        serde_path_to_error::deserialize(value).map_err(|error| Trouble::NotTestable {
            path: path.to_owned(),
            reason: format!("at {}: {}", error.path(), error.inner()),
            report: None,
        })
    }
}
