//! The error that a handler answers with: a name that a saga's rules match on, and a cause.
//!
//! It is not a [`std::error::Error`] itself, so that `?` turns any error that is one into it.

use dirigent_contracts::{error_name, outcome::Failure, task::TaskResult};
use std::{error::Error, fmt};

/// Why a task was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    name: String,
    cause: String,
    is_retryable: bool,
}

impl TaskError {
    /// A business error, such as `Declined`: the `Retry` and `Catch` rules of the saga match on its
    /// name. Names that begin with `States.` or `Dirigent.` are reserved.
    ///
    /// Another attempt may succeed, unless [`TaskError::permanent`] says otherwise.
    pub fn new(name: impl Into<String>, cause: impl Into<String>) -> Self {
        let Failure { error, cause } = Failure::new(name, cause).clipped();
        Self {
            name: error,
            cause,
            is_retryable: true,
        }
    }

    /// No other attempt can succeed: the step's `Retry` rules are passed over.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.is_retryable = false;
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What happened, for people.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// Whether another attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        self.is_retryable
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.cause)
    }
}

/// An error without a name of its own is a `States.TaskFailed`, and another attempt may succeed. Its
/// cause tells the whole chain of sources.
impl<E: Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            // Some errors repeat their source in their own text.
            if !cause.contains(&text) {
                cause.push_str(": ");
                cause.push_str(&text);
            }
            source = inner.source();
        }
        Self::new(error_name::TASK_FAILED, cause)
    }
}

impl From<TaskError> for TaskResult {
    fn from(error: TaskError) -> Self {
        Self::Failed {
            failure: Failure::new(error.name, error.cause),
            retryable: error.is_retryable,
        }
    }
}

/// The beginning of a text, at most `limit` bytes.
#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_contracts::limit;

    #[test]
    fn the_question_mark_tells_the_whole_chain() {
        #[derive(Debug, thiserror::Error)]
        #[error("the store is closed")]
        struct Outer(#[source] std::io::Error);

        let error = TaskError::from(Outer(std::io::Error::other("disk full")));
        assert_eq!(
            error.to_string(),
            "States.TaskFailed: the store is closed: disk full"
        );
        assert!(error.is_retryable());
    }

    #[test]
    fn a_cause_is_cut_between_two_characters() {
        let error = TaskError::new("E", "é".repeat(limit::CAUSE_BYTES));
        assert_eq!(error.cause().len(), limit::CAUSE_BYTES);
        let error = TaskError::new("E", format!("x{}", "é".repeat(limit::CAUSE_BYTES)));
        assert_eq!(error.cause().len(), limit::CAUSE_BYTES - 1);
    }
}
