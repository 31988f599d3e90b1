//! Failing on demand: an input may tell a task to fail, to show what Dirigent then does.

use dirigent_worker::{TaskContext, TaskError};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What to fail at: by the name of the task.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Simulate(BTreeMap<String, Fault>);

/// How to fail.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Fault {
    /// With this error, for good.
    Always(String),
    /// With this error, so often.
    Sometimes { error: String, attempts: u32 },
}

impl Simulate {
    /// Fails if that is what the input asks for.
    pub(crate) fn obey(&self, context: &TaskContext) -> Result<(), TaskError> {
        let cause = "the input asks for it";
        match self.0.get(context.task().as_str()) {
            Some(Fault::Always(error)) => Err(TaskError::new(error, cause).permanent()),
            Some(Fault::Sometimes { error, attempts }) if context.attempt() <= *attempts => {
                Err(TaskError::new(error, cause))
            }
            _ => Ok(()),
        }
    }
}
