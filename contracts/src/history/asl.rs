//! A history in the words of Step Functions: the types of `GetExecutionHistory`, in its order
//! (<https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html>).

use super::{Happening, HistoryEvent};
use crate::{error_name, id::CommandId, outcome::SagaStatus, task::Direction, time::Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AslEvent {
    /// When it happened.
    pub timestamp: Timestamp,
    /// Its type, such as `TaskStateEntered`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the state, for the types that carry one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Tells a history as Step Functions would. What it has no word for, such as compensations, is left
/// out; the items of a distributed Map are executions of their own there, and have their own history.
#[must_use]
pub fn project(history: &[HistoryEvent]) -> Vec<AslEvent> {
    let mut projection = Projection::default();
    for event in history {
        projection.take(event);
    }
    projection.events
}

/// How a resource is called, which decides the types of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Lambda,
    Activity,
    /// Any other; whether the step waits for the end of a job.
    Other {
        is_job: bool,
    },
}

impl Service {
    fn of(resource: &str) -> Self {
        if resource.contains(":lambda:") && resource.contains(":function:") {
            Self::Lambda
        } else if resource.contains(":activity:") {
            Self::Activity
        } else {
            let pattern = resource.rsplit_once('.').map(|(_, pattern)| pattern);
            Self::Other {
                is_job: matches!(pattern, Some("sync" | "sync:2")),
            }
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Lambda => "LambdaFunction",
            Self::Activity => "Activity",
            Self::Other { .. } => "Task",
        }
    }
}

#[derive(Default)]
struct Projection {
    events: Vec<AslEvent>,
    services: BTreeMap<CommandId, Service>,
    /// Distributed Maps that are under way, and those of them whose run has begun.
    distributed: BTreeSet<String>,
    runs: BTreeSet<String>,
}

impl Projection {
    fn take(&mut self, event: &HistoryEvent) {
        use Happening as H;
        let at = event.at;
        match &event.what {
            H::SagaStarted { .. } => self.say("ExecutionStarted", None, at),
            H::StateEntered { state, kind, .. } => {
                self.say(&format!("{kind}StateEntered"), Some(state), at);
            }
            H::StateExited { state, kind, .. } => {
                self.say(&format!("{kind}StateExited"), Some(state), at);
            }
            H::StateAborted {
                state,
                kind,
                has_members: false,
                ..
            } => {
                // The state is not named there.
                let _ = state;
                self.say(&format!("{kind}StateAborted"), None, at);
            }
            // Only JSONata has a word for it.
            H::EvaluationFailed { failure, .. }
                if failure.error == error_name::QUERY_EVALUATION_ERROR =>
            {
                self.say("EvaluationFailed", None, at);
            }
            H::TaskScheduled {
                command,
                resource,
                direction: Direction::Do,
                ..
            } => {
                let service = Service::of(resource);
                self.say(&format!("{}Scheduled", service.prefix()), None, at);
                self.say(&format!("{}Started", service.prefix()), None, at);
                if service == (Service::Other { is_job: true }) {
                    self.say("TaskSubmitted", None, at);
                }
                self.services.insert(*command, service);
            }
            H::TaskSubmitted { .. } => self.say("TaskSubmitted", None, at),
            H::TaskSucceeded { command, .. } => self.answered(*command, "Succeeded", at),
            H::TaskFailed { command, .. } => self.answered(*command, "Failed", at),
            H::TaskTimedOut { command, .. } => self.answered(*command, "TimedOut", at),
            H::ParallelStarted { .. } => self.say("ParallelStateStarted", None, at),
            H::MapStarted {
                state, distributed, ..
            } => {
                self.say("MapStateStarted", None, at);
                if *distributed {
                    self.distributed.insert(state.clone());
                }
            }
            H::ItemStarted { state, .. } | H::ItemsRead { state, .. } => self.start_run(state, at),
            H::IterationStarted { state, .. } => self.say("MapIterationStarted", Some(state), at),
            H::IterationSucceeded { state, .. } if !self.distributed.contains(state) => {
                self.say("MapIterationSucceeded", Some(state), at);
            }
            H::IterationFailed { state, .. } if !self.distributed.contains(state) => {
                self.say("MapIterationFailed", Some(state), at);
            }
            H::IterationAborted { state, .. } if !self.distributed.contains(state) => {
                self.say("MapIterationAborted", Some(state), at);
            }
            H::MapSucceeded { state } => {
                self.end_run(state, "MapRunSucceeded", at);
                self.say("MapStateSucceeded", None, at);
            }
            H::MapFailed { state, .. } => {
                if self.runs.contains(state) {
                    self.end_run(state, "MapRunFailed", at);
                }
                self.distributed.remove(state);
                self.say("MapStateFailed", None, at);
            }
            H::SagaEnded { outcome } => {
                let kind = match outcome.status {
                    SagaStatus::Succeeded => "ExecutionSucceeded",
                    SagaStatus::Canceled => "ExecutionAborted",
                    _ => "ExecutionFailed",
                };
                self.say(kind, None, at);
            }
            _ => {}
        }
    }

    fn say(&mut self, kind: &str, state: Option<&String>, at: Timestamp) {
        self.events.push(AslEvent {
            timestamp: at,
            kind: kind.to_owned(),
            state: state.cloned(),
        });
    }

    /// The run of a distributed Map begins with its first iteration.
    fn start_run(&mut self, state: &str, at: Timestamp) {
        if self.runs.insert(state.to_owned()) {
            self.say("MapRunStarted", None, at);
        }
    }

    fn end_run(&mut self, state: &str, how: &str, at: Timestamp) {
        if self.distributed.remove(state) {
            // One without any iteration has begun all the same.
            self.start_run(state, at);
            self.runs.remove(state);
            self.say(how, None, at);
        }
    }

    fn answered(&mut self, command: CommandId, how: &str, at: Timestamp) {
        // Undoing is not told, so neither is its answer.
        if let Some(service) = self.services.remove(&command) {
            self.say(&format!("{}{how}", service.prefix()), None, at);
        }
    }
}
