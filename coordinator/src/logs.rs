//! Lines of the log that are about a saga.
//!
//! Each carries `definition`, `key`, `partition` and `trace_id`. While all goes well there is none above
//! `debug`; a saga that needs a person is an `error`. Payloads, and words that may quote one, are written
//! only if the operator has asked for that.

use crate::engine::{Effect, Effects, Record, Run, Saga};
use dirigent_contracts::{
    history::Happening,
    id::{PartitionId, SagaAddress},
    trace::trace_of,
};
use serde_json::Value;
use std::fmt;

/// What may quote a payload, and whether it may be logged.
pub(crate) struct Payload<T>(pub(crate) bool, pub(crate) T);

impl<T: fmt::Display> fmt::Display for Payload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 {
            self.1.fmt(f)
        } else {
            f.write_str("(not logged)")
        }
    }
}

/// The id of a run's trace, as tracing backends write it.
pub(crate) struct TraceId<'a>(pub(crate) Option<&'a Run>);

impl fmt::Display for TraceId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(run) => write!(f, "{:032x}", trace_of(run.id(), run.trace())),
            None => Ok(()),
        }
    }
}

/// Tells what came of an entry. `payloads`: whether they may be logged.
pub(crate) fn tell(record: &Record, state: Option<&Saga>, effects: &Effects, payloads: bool) {
    let run = state.and_then(Saga::run);
    macro_rules! line {
        ($level:ident, $($rest:tt)+) => {
            tracing::$level!(
                definition = %record.address.definition,
                key = %record.address.key,
                partition = record.partition.0,
                trace_id = %TraceId(run),
                seq = record.seq.0,
                $($rest)+
            )
        };
    }
    if let Some(why) = effects.ignored {
        line!(debug, why = why.as_str(), "the entry changes nothing");
    }
    for event in &effects.history {
        match &event.what {
            Happening::SagaStarted { input, .. } => {
                line!(debug, input = %Payload(payloads, input), "the saga begins");
            }
            Happening::TaskFailed {
                state,
                command,
                failure,
                ..
            }
            | Happening::TaskTimedOut {
                state,
                command,
                failure,
                ..
            } => line!(
                debug,
                state,
                %command,
                error = failure.error,
                cause = %Payload(payloads, &failure.cause),
                "an attempt failed"
            ),
            Happening::CompensationStarted { failure, steps, .. } => line!(
                debug,
                steps,
                error = failure.error,
                cause = %Payload(payloads, &failure.cause),
                "the saga turns back"
            ),
            Happening::Stuck { state, failure } => line!(
                error,
                state,
                error = failure.error,
                cause = %Payload(payloads, &failure.cause),
                "the saga is stuck: it needs a person"
            ),
            Happening::SagaEnded { outcome } => {
                let output = outcome.output.as_deref().unwrap_or(&Value::Null);
                line!(debug, status = %outcome.status, output = %Payload(payloads, output), "the saga ended");
            }
            _ => {}
        }
    }
}

/// A span whose lines are about a saga.
pub(crate) fn span(
    partition: PartitionId,
    saga: &SagaAddress,
    state: Option<&Saga>,
) -> tracing::Span {
    tracing::error_span!(
        "saga",
        definition = %saga.definition,
        key = %saga.key,
        partition = partition.0,
        trace_id = %TraceId(state.and_then(Saga::run)),
    )
}

/// What an effect asks for, in a word.
pub(crate) fn kind(effect: Option<&Effect>) -> &'static str {
    match effect {
        Some(Effect::Command { .. }) => "command",
        Some(Effect::DomainEvent(_)) => "event",
        Some(Effect::StartChild { .. } | Effect::StartItem { .. }) => "start",
        Some(Effect::CancelChild { .. } | Effect::UndoItem { .. } | Effect::ReleaseItem { .. }) => {
            "control"
        }
        Some(Effect::Store { .. }) => "store",
        Some(Effect::Withdraw { .. }) => "withdrawal",
        Some(Effect::TellParent { .. }) => "answer to the parent",
        Some(Effect::Ended { .. } | Effect::Incident { .. }) => "announcement",
        None => "substitute",
    }
}
