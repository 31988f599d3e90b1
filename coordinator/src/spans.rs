//! One span a saga and one a step attempt, told from the history that the fold gives.
//!
//! Ids are derived from the run and the command, and times are the entries', so a replay tells the
//! same spans again and a tracing backend keeps one of each. A long saga shows its attempts while it
//! runs; its own span, their parent, comes at its end.

use crate::{
    engine::{Effects, Record, Saga},
    telemetry::{SpanRecord, Telemetry},
};
use dirigent_contracts::{
    header::TraceContext,
    history::Happening,
    id::{CommandId, RunId},
    outcome::Failure,
};
use opentelemetry::{
    KeyValue,
    trace::{SpanKind, Status},
};

/// Where the spans of a partition go; nowhere if no tracing backend is configured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(Telemetry);

/// Id of a saga's span: the first half of its run's.
pub(crate) fn saga_span(run: RunId) -> u64 {
    nonzero((run.0.as_u128() >> 64) as u64)
}

/// Id of an attempt's span.
pub(crate) fn attempt_span(command: CommandId) -> u64 {
    nonzero(xxhash_rust::xxh3::xxh3_64(command.to_string().as_bytes()))
}

/// The trace of a run: its caller's, or one that is named like the run.
pub(crate) fn trace_of(run: RunId, caller: Option<TraceContext>) -> TraceContext {
    TraceContext {
        trace: caller.map_or(run.0.as_u128(), |caller| caller.trace),
        span: saga_span(run),
        sampled: caller.is_none_or(|caller| caller.sampled),
    }
}

/// An id of zero means "none" in W3C trace context.
fn nonzero(id: u64) -> u64 {
    id.max(1)
}

impl Spans {
    pub(crate) fn new(telemetry: Telemetry) -> Self {
        Self(telemetry)
    }

    /// Tells the spans that ended with this entry.
    pub(crate) fn record(&self, record: &Record, state: Option<&Saga>, effects: &Effects) {
        let Some(run) = state.and_then(Saga::run).filter(|_| self.0.is_on()) else {
            return;
        };
        let trace = trace_of(run.id(), run.trace());
        if !trace.sampled {
            return;
        }
        let about = |more: Vec<(&'static str, String)>| {
            let common = [
                (
                    "dirigent.saga.definition",
                    record.address.definition.to_string(),
                ),
                ("dirigent.saga.key", record.address.key.to_string()),
                ("dirigent.partition", record.partition.to_string()),
            ];
            let all = common.into_iter().chain(more);
            all.map(|(name, value)| KeyValue::new(name, value))
                .collect::<Vec<_>>()
        };
        for event in &effects.history {
            let (name, start, command, outcome) = match &event.what {
                Happening::TaskSucceeded {
                    command,
                    state,
                    since,
                    ..
                } => (state, *since, *command, None),
                Happening::TaskFailed {
                    command,
                    state,
                    since,
                    failure,
                    ..
                }
                | Happening::TaskTimedOut {
                    command,
                    state,
                    since,
                    failure,
                    ..
                } => (state, *since, *command, Some(failure)),
                Happening::SagaEnded { outcome } => {
                    self.0.emit(SpanRecord {
                        trace: trace.trace,
                        span: trace.span,
                        parent: run.trace().map(|caller| caller.span),
                        name: record.address.definition.to_string(),
                        kind: SpanKind::Internal,
                        start: run.started_at(),
                        end: record.at,
                        attributes: about(vec![
                            ("dirigent.saga.run", run.id().to_string()),
                            ("dirigent.saga.status", outcome.status.to_string()),
                        ]),
                        status: status(outcome.failure.as_ref()),
                    });
                    continue;
                }
                _ => continue,
            };
            self.0.emit(SpanRecord {
                trace: trace.trace,
                span: attempt_span(command),
                parent: Some(trace.span),
                name: name.clone(),
                kind: SpanKind::Producer,
                start,
                end: record.at.max(start),
                attributes: about(vec![
                    ("dirigent.state", name.clone()),
                    ("dirigent.effect", command.effect.to_string()),
                    ("dirigent.command", command.to_string()),
                    ("dirigent.attempt", command.attempt.to_string()),
                ]),
                status: status(outcome),
            });
        }
    }
}

fn status(failure: Option<&Failure>) -> Status {
    failure.map_or(Status::Unset, |failure| Status::error(failure.to_string()))
}

/// The context that a command carries: its worker's span belongs under the attempt's.
pub(crate) fn command_context(command: CommandId, caller: Option<TraceContext>) -> TraceContext {
    TraceContext {
        span: attempt_span(command),
        ..trace_of(command.effect.run, caller)
    }
}
