//! How a saga stands, and how it ends.

use crate::limit;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{fmt, sync::Arc};

/// How a saga stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SagaStatus {
    /// Going forward.
    Running,
    /// Undoing its steps.
    Compensating,
    /// Waiting for a person: an incident.
    Stuck,
    /// Ended well.
    Succeeded,
    /// Ended with an error, and there was nothing to undo.
    Failed,
    /// Ended with an error, and everything that had to be undone is undone.
    Compensated,
    /// Ended because somebody asked for it; everything that had to be undone is undone.
    Canceled,
}

impl SagaStatus {
    /// All of them, in the order of their life.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Compensating,
        Self::Stuck,
        Self::Succeeded,
        Self::Failed,
        Self::Compensated,
        Self::Canceled,
    ];

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Compensated | Self::Canceled
        )
    }

    /// Its word, the same in subjects, in the CLI and in traces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Compensated => "compensated",
            Self::Canceled => "canceled",
        }
    }

    /// The status that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

impl fmt::Display for SagaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An error of the language: a name that rules match on, and a cause for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Error name, such as `Declined` or `States.Timeout`.
    pub error: String,
    /// What happened, for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
}

impl Failure {
    /// An error with a cause.
    pub fn new(error: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            cause: cause.into(),
        }
    }

    /// The same, with name and cause cut to what they may be: [`limit::ERROR_NAME_BYTES`] and
    /// [`limit::CAUSE_BYTES`].
    #[must_use]
    pub fn clipped(mut self) -> Self {
        clip(&mut self.error, limit::ERROR_NAME_BYTES);
        clip(&mut self.cause, limit::CAUSE_BYTES);
        self
    }
}

fn clip(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        if !self.cause.is_empty() {
            write!(f, ": {}", self.cause)?;
        }
        Ok(())
    }
}

/// How a saga ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// A terminal status.
    pub status: SagaStatus,
    /// The output, if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<Value>>,
    /// The error that ended it, if it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}
