//! What the process's exit code says. The one place that knows the numbers: `--help` and the
//! README's table are made from it.

use dirigent_contracts::outcome::SagaStatus;
use std::process::ExitCode;

/// How a command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// The answer is no.
    No = 1,
    /// The command line, or a file that it names, is not right. The number that clap uses.
    Usage = 2,
    /// Nobody there, or nobody who has the time.
    Unreachable = 3,
    /// No such thing.
    NotFound = 4,
    /// Too late, or too early.
    Conflict = 5,
    /// Patience ended.
    Timeout = 6,
    /// A person is needed.
    Stuck = 7,
}

impl Exit {
    const ALL: [Self; 8] = [
        Self::Done,
        Self::No,
        Self::Usage,
        Self::Unreachable,
        Self::NotFound,
        Self::Conflict,
        Self::Timeout,
        Self::Stuck,
    ];

    fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; of `run`: the saga succeeded",
            Self::No => {
                "the saga failed or was undone, `check` or `doctor` found a problem, an answer did not fit a message, or a service ended by itself"
            }
            Self::Usage => "the command line, or a file that it names, is not right",
            Self::Unreachable => {
                "no broker, or no coordinator, answers, or there is too much to do"
            }
            Self::NotFound => "there is no such saga, definition or letter",
            Self::Conflict => "too late or too early: already started, already ended, not stuck",
            Self::Timeout => "the saga goes on, but --timeout has passed",
            Self::Stuck => "the saga is stuck and waits for a person",
        }
    }

    /// How `run` ends when the saga stands so; `None` while it still goes on.
    pub(crate) fn of(status: SagaStatus) -> Option<Self> {
        match status {
            SagaStatus::Running | SagaStatus::Compensating => None,
            SagaStatus::Succeeded => Some(Self::Done),
            SagaStatus::Failed | SagaStatus::Compensated | SagaStatus::Canceled => Some(Self::No),
            SagaStatus::Stuck => Some(Self::Stuck),
        }
    }

    /// All codes with their meanings, a line each.
    pub(crate) fn table() -> String {
        Self::ALL
            .iter()
            .map(|exit| format!("  {}  {}", *exit as u8, exit.meaning()))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_a_promise() {
        insta::assert_snapshot!(Exit::table());
    }

    #[test]
    fn only_a_saga_that_goes_on_has_no_exit_code() {
        for status in SagaStatus::ALL {
            let goes_on = matches!(status, SagaStatus::Running | SagaStatus::Compensating);
            assert_eq!(Exit::of(status).is_none(), goes_on, "{status}");
        }
    }
}
