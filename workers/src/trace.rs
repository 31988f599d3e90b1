//! The span of an execution, and the trace context that goes from a command into its reply.
//!
//! Spans are made with the process's global tracer provider, which does nothing until
//! [`crate::telemetry`], or the program itself, has set one.

use async_nats::HeaderMap;
use dirigent_contracts::{
    header::{self, TraceContext},
    subject,
    task::{Command, TaskResult},
};
use opentelemetry::{
    Context, KeyValue, SpanId, StringValue, TraceFlags, TraceId, Value, global,
    trace::{
        Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _,
    },
};

use std::sync::Arc;

/// Name of the instrumentation scope.
const SCOPE: &str = "dirigent-worker";

/// The trace context that a message carries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parentage {
    pub(crate) parent: Option<TraceContext>,
    /// Vendor part, carried on unread.
    state: Option<String>,
}

impl Parentage {
    pub(crate) fn read(headers: Option<&HeaderMap>) -> Self {
        let text = |name| {
            headers
                .and_then(|headers| headers.get(name))
                .map(async_nats::HeaderValue::as_str)
        };
        let parent = text(header::TRACE_PARENT).and_then(TraceContext::parse);
        let state = text(header::TRACE_STATE)
            .filter(|_| parent.is_some())
            .map(str::to_owned);
        Self { parent, state }
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Some(parent) = self.parent {
            headers.insert(header::TRACE_PARENT, parent.to_header());
        }
        if let Some(state) = &self.state {
            headers.insert(header::TRACE_STATE, state.as_str());
        }
    }
}

/// The span of one execution.
pub(crate) struct ExecutionSpan {
    context: Context,
    parentage: Parentage,
}

impl ExecutionSpan {
    pub(crate) fn start(command: &Command, from: &Parentage) -> Self {
        let tracer = global::tracer(SCOPE);
        let builder = tracer
            .span_builder(format!("run {}", command.task))
            .with_kind(SpanKind::Consumer);
        let parent = remote(from);
        let mut span = builder.start_with_context(&tracer, &parent);
        if span.is_recording() {
            span.set_attributes([
                KeyValue::new("messaging.system", "nats"),
                KeyValue::new("messaging.operation.name", "run"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new(
                    "messaging.destination.name",
                    subject::command_destination(&command.task),
                ),
                KeyValue::new("messaging.message.id", command.command.to_string()),
                KeyValue::new(
                    "dirigent.saga.definition",
                    shared((&command.saga.definition).into()),
                ),
                KeyValue::new("dirigent.saga.key", shared((&command.saga.key).into())),
                KeyValue::new("dirigent.effect", command.effect.to_string()),
                KeyValue::new("dirigent.attempt", i64::from(command.attempt)),
            ]);
        }
        let context = parent.with_span(span);
        // Without a tracer provider there is no span; then the command's own context goes on.
        let own = own_context(&context).or(from.parent);
        Self {
            context,
            parentage: Parentage {
                parent: own,
                state: from.state.clone(),
            },
        }
    }

    /// The context in which the handler runs.
    pub(crate) fn context(&self) -> Context {
        self.context.clone()
    }

    /// What the reply carries.
    pub(crate) fn parentage(&self) -> &Parentage {
        &self.parentage
    }

    pub(crate) fn end(self, result: &TaskResult) {
        let span = self.context.span();
        if let TaskResult::Failed { failure, .. } = result {
            span.set_attribute(KeyValue::new("error.type", failure.error.clone()));
            span.set_status(Status::error(failure.to_string()));
        }
        span.end();
    }
}

fn shared(text: Arc<str>) -> Value {
    Value::String(StringValue::from(text))
}

fn remote(from: &Parentage) -> Context {
    let Some(parent) = from.parent else {
        return Context::new();
    };
    let flags = if parent.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    let state = from
        .state
        .as_deref()
        .and_then(|state| state.parse::<TraceState>().ok());
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(parent.trace),
        SpanId::from(parent.span),
        flags,
        true,
        state.unwrap_or_default(),
    ))
}

fn own_context(context: &Context) -> Option<TraceContext> {
    let span = context.span();
    let own = span.span_context();
    own.is_valid().then(|| TraceContext {
        trace: u128::from_be_bytes(own.trace_id().to_bytes()),
        span: u64::from_be_bytes(own.span_id().to_bytes()),
        sampled: own.is_sampled(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_trace_goes_on_only_with_its_parent() {
        let mut headers = HeaderMap::new();
        headers.insert(header::TRACE_STATE, "a=1");
        let mut onward = HeaderMap::new();
        Parentage::read(Some(&headers)).write(&mut onward);
        assert!(onward.is_empty());

        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert(header::TRACE_PARENT, parent);
        Parentage::read(Some(&headers)).write(&mut onward);
        assert_eq!(onward.get(header::TRACE_PARENT).unwrap().as_str(), parent);
        assert_eq!(onward.get(header::TRACE_STATE).unwrap().as_str(), "a=1");
    }
}
