//! What backends know spans by: OpenTelemetry's conventions for messaging, and attributes of our own.
//! `docs/traces.md` lists them.

use crate::engine::{Record, Run};
use dirigent_contracts::{
    history::Attempted,
    subject,
    task::Direction,
    time::Timestamp,
    trace::{Span, What},
};
use opentelemetry::{KeyValue, StringValue, Value, trace::SpanKind};
use std::{sync::Arc, time::Duration};

/// Most attributes that a span usually has.
const USUAL: usize = 10;

/// The kind of a span, as OpenTelemetry has them.
pub(super) fn kind(what: &What<'_>, run: &Run) -> SpanKind {
    match what {
        What::Saga { .. } if run.trigger().is_some() => SpanKind::Consumer,
        What::Attempt { of, .. } => match of.as_deref() {
            Some(Attempted::Event(_)) => SpanKind::Consumer,
            _ => SpanKind::Producer,
        },
        What::Publication { .. } => SpanKind::Producer,
        _ => SpanKind::Internal,
    }
}

/// What it says about itself.
pub(super) fn attributes(span: &Span<'_>, record: &Record, run: &Run) -> Vec<KeyValue> {
    let mut all = Vec::new();
    // A trace is found by any of its spans, so those that only lie around others do without.
    if matches!(
        span.what,
        What::Saga { .. } | What::Attempt { .. } | What::Publication { .. }
    ) {
        all.reserve_exact(USUAL);
        let shared = |text: Arc<str>| Value::String(StringValue::from(text));
        let (definition, key) = (&record.address.definition, &record.address.key);
        all.push(KeyValue::new(
            "dirigent.saga.definition",
            shared(definition.into()),
        ));
        all.push(KeyValue::new("dirigent.saga.key", shared(key.into())));
    }
    let mut say = |name: &'static str, value: String| all.push(KeyValue::new(name, value));
    match &span.what {
        What::Saga { status } => {
            say("dirigent.saga.run", run.id().to_string());
            say("dirigent.saga.version", run.digest().short().to_owned());
            if let Some(status) = status {
                say("dirigent.saga.status", status.to_string());
            }
            all.push(KeyValue::new(
                "dirigent.partition",
                i64::from(record.partition.0),
            ));
            if let Some(trigger) = run.trigger() {
                let (subject, id) = (trigger.subject.clone(), trigger.id.clone());
                messaging(&mut all, ("start", "process"), subject, id);
            }
        }
        What::State { kind, .. } => say("dirigent.state.type", (*kind).to_owned()),
        What::Member { index, .. } => {
            let index = i64::try_from(*index).unwrap_or(i64::MAX);
            all.push(KeyValue::new("dirigent.member.index", index));
        }
        What::Attempt {
            state,
            of,
            command,
            direction,
            worker,
            event,
            ..
        } => {
            say("dirigent.effect", command.effect.to_string());
            if *direction == Direction::Undo {
                say("dirigent.direction", "undo".to_owned());
                say("dirigent.state", (*state).to_owned());
            }
            if !worker.is_empty() {
                say("dirigent.worker", (*worker).to_owned());
            }
            match of.as_deref() {
                Some(Attempted::Task(task)) => {
                    let destination = subject::command_destination(task);
                    messaging(&mut all, ("ask", "send"), destination, command.to_string());
                }
                Some(Attempted::Saga(child)) => {
                    say("dirigent.child.definition", child.definition.to_string());
                    say("dirigent.child.key", child.key.to_string());
                }
                Some(Attempted::Event(name)) => {
                    let id = event.unwrap_or_default().to_owned();
                    messaging(&mut all, ("await", "receive"), name.clone(), id);
                }
                None => {}
            }
            all.push(KeyValue::new(
                "dirigent.attempt",
                i64::from(command.attempt),
            ));
        }
        What::Publication { subject, id, .. } => {
            let subject = (*subject).to_owned();
            messaging(&mut all, ("publish", "send"), subject, id.to_string());
        }
        What::Pause {
            state,
            due,
            attempt,
        } => {
            say("dirigent.state", (*state).to_owned());
            say("dirigent.timer.due", due.to_rfc3339());
            if let Some(attempt) = attempt {
                all.push(KeyValue::new("dirigent.attempt", i64::from(*attempt)));
            }
        }
        What::Compensation => {}
    }
    if span.is_broken_off {
        all.push(KeyValue::new("dirigent.broken_off", true));
    }
    if let Some(failure) = span.failure {
        all.push(KeyValue::new("error.type", failure.error.clone()));
    }
    all
}

/// The conventions for messaging; `id` is left out if it is not known.
fn messaging(
    all: &mut Vec<KeyValue>,
    (name, kind): (&'static str, &'static str),
    destination: String,
    id: String,
) {
    all.extend([
        KeyValue::new("messaging.system", "nats"),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.operation.type", kind),
        KeyValue::new("messaging.destination.name", destination),
    ]);
    if !id.is_empty() {
        all.push(KeyValue::new("messaging.message.id", id));
    }
}

/// When an attempt was queued and when a worker began with it, by the broker's clock.
pub(super) fn moments(span: &Span<'_>) -> Vec<(&'static str, Timestamp)> {
    let What::Attempt {
        timing: Some(timing),
        ..
    } = &span.what
    else {
        return Vec::new();
    };
    let Some(end) = span.end else {
        return Vec::new();
    };
    let began = end.before(Duration::from_micros(timing.ran_us));
    // What a clock that was set back would tell is kept within the span.
    let within = |at: Timestamp| at.clamp(span.start, end);
    vec![
        ("queued", within(timing.asked_at)),
        ("running", within(began.max(timing.asked_at))),
    ]
}
