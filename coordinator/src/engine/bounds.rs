//! What a saga may use, kept by the fold: its age, the length of its history, the words of others.
//!
//! The limits stand in the saga's state, and came with its start entry. So every fold of it keeps the same.

use super::{
    program::Program,
    saga::{Activity, Run},
    turn::Turn,
};
use dirigent_contracts::{
    error_name,
    journal::{Child, Entry},
    outcome::Failure,
    task::TaskResult,
    time::Timestamp,
};
use std::time::Duration;

impl Run {
    /// Sets the instant at which the saga is given up. An item ends with the saga that it is part of, and
    /// has no time of its own.
    pub(super) fn set_deadline(&mut self, program: &Program, now: Timestamp) {
        self.deadline = match self.part {
            Some(_) => Timestamp::NEVER,
            None => {
                now + program
                    .timeout
                    .unwrap_or(Duration::MAX)
                    .min(self.age_limit())
            }
        };
    }

    pub(super) fn age_limit(&self) -> Duration {
        Duration::from_secs(self.limits.saga_age)
    }
}

impl Turn<'_> {
    /// Counts an entry that was taken in. A saga that has taken in too many turns back; what it has heard
    /// with the last of them counts, so that it is undone.
    pub(super) fn count_entry(&mut self, entry: &Entry) {
        let is_item = |child: &Child| {
            let scope = self.run.pending.get(&child.command.effect.step);
            let scope = scope.and_then(|number| self.scope(*number));
            scope.is_some_and(|scope| matches!(scope.activity, Activity::Distribution(_)))
        };
        let counts = match entry {
            Entry::Reply(reply) => reply.result != TaskResult::Heartbeat,
            Entry::Child(child) => !is_item(child),
            _ => true,
        };
        if !counts || self.run.ending.is_some() || self.run.outcome.is_some() {
            return;
        }
        self.run.entries += 1;
        let most = self.run.limits.history;
        if self.run.entries > most {
            let message = format!(
                "the saga has taken in more than {most} entries of its journal, which is the limit \
                 `history`"
            );
            self.end_forward(Failure::new(error_name::HISTORY_TOO_LONG, message), false);
        }
    }

    pub(super) fn too_late(&self) -> Failure {
        let age_limit = self.run.age_limit();
        if self
            .program
            .timeout
            .is_some_and(|timeout| timeout <= age_limit)
        {
            return Failure::new(error_name::TIMEOUT, "the saga's TimeoutSeconds are over");
        }
        let message = format!(
            "the saga has gone forward for {} seconds, which is the limit `saga-age`",
            self.run.limits.saga_age
        );
        Failure::new(error_name::SAGA_TOO_OLD, message)
    }
}

/// A worker of any origin may send an error with a name or a cause of any length.
pub(super) fn within_limits(result: &TaskResult) -> TaskResult {
    match result.clone() {
        TaskResult::Failed { failure, retryable } => TaskResult::Failed {
            failure: failure.clipped(),
            retryable,
        },
        other => other,
    }
}
