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
/// out; so is what happens inside the iterations of a distributed Map, which are executions of their
/// own there.
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
    /// Scopes whose events are told elsewhere.
    hidden: BTreeSet<u32>,
    distributed: BTreeSet<String>,
}

impl Projection {
    fn take(&mut self, event: &HistoryEvent) {
        use Happening as H;
        let at = event.at;
        match &event.what {
            H::IterationStarted {
                state, iteration, ..
            } if self.hidden.contains(&event.scope) || self.distributed.contains(state) => {
                self.hidden.insert(*iteration);
                return;
            }
            H::ParallelStarted { scopes, .. } if self.hidden.contains(&event.scope) => {
                self.hidden.extend(scopes);
                return;
            }
            _ if self.hidden.contains(&event.scope) => return,
            _ => {}
        }
        let mut say = |kind: String, state: Option<&String>| {
            self.events.push(AslEvent {
                timestamp: at,
                kind,
                state: state.cloned(),
            });
        };
        match &event.what {
            H::SagaStarted { .. } => say("ExecutionStarted".into(), None),
            H::StateEntered { state, kind, .. } => say(format!("{kind}StateEntered"), Some(state)),
            H::StateExited { state, kind, .. } => say(format!("{kind}StateExited"), Some(state)),
            H::StateAborted { state, kind } => {
                // The state is not named there.
                let _ = state;
                say(format!("{kind}StateAborted"), None);
            }
            // Only JSONata has a word for it.
            H::EvaluationFailed { failure, .. }
                if failure.error == error_name::QUERY_EVALUATION_ERROR =>
            {
                say("EvaluationFailed".into(), None);
            }
            H::TaskScheduled {
                command,
                resource,
                direction: Direction::Do,
                ..
            } => {
                let service = Service::of(resource);
                say(format!("{}Scheduled", service.prefix()), None);
                say(format!("{}Started", service.prefix()), None);
                if service == (Service::Other { is_job: true }) {
                    say("TaskSubmitted".into(), None);
                }
                self.services.insert(*command, service);
            }
            H::TaskSubmitted { .. } => say("TaskSubmitted".into(), None),
            H::TaskSucceeded { command, .. } => self.answered(*command, "Succeeded", at),
            H::TaskFailed { command, .. } => self.answered(*command, "Failed", at),
            H::TaskTimedOut { command, .. } => self.answered(*command, "TimedOut", at),
            H::ParallelStarted { .. } => say("ParallelStateStarted".into(), None),
            H::MapStarted {
                state, distributed, ..
            } => {
                say("MapStateStarted".into(), None);
                if *distributed {
                    say("MapRunStarted".into(), None);
                    self.distributed.insert(state.clone());
                }
            }
            H::IterationStarted { state, .. } => say("MapIterationStarted".into(), Some(state)),
            H::IterationSucceeded { state, .. } if !self.distributed.contains(state) => {
                say("MapIterationSucceeded".into(), Some(state));
            }
            H::IterationFailed { state, .. } if !self.distributed.contains(state) => {
                say("MapIterationFailed".into(), Some(state));
            }
            H::IterationAborted { state, .. } if !self.distributed.contains(state) => {
                say("MapIterationAborted".into(), Some(state));
            }
            H::MapSucceeded { state } => {
                if self.distributed.remove(state) {
                    say("MapRunSucceeded".into(), None);
                }
                say("MapStateSucceeded".into(), None);
            }
            H::MapFailed { state, .. } => {
                if self.distributed.remove(state) {
                    say("MapRunFailed".into(), None);
                }
                say("MapStateFailed".into(), None);
            }
            H::SagaEnded { outcome } => {
                let kind = match outcome.status {
                    SagaStatus::Succeeded => "ExecutionSucceeded",
                    SagaStatus::Canceled => "ExecutionAborted",
                    _ => "ExecutionFailed",
                };
                say(kind.into(), None);
            }
            _ => {}
        }
    }

    fn answered(&mut self, command: CommandId, how: &str, at: Timestamp) {
        // Undoing is not told, so neither is its answer.
        if let Some(service) = self.services.remove(&command) {
            self.events.push(AslEvent {
                timestamp: at,
                kind: format!("{}{how}", service.prefix()),
                state: None,
            });
        }
    }
}
