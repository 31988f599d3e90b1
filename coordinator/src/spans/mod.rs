//! Spans for a tracing backend, told from the history that the fold gives, as they end.
//!
//! What they are follows from the history alone ([`dirigent_contracts::trace`]); here they get the names
//! and attributes by which backends know them. A replay tells the same spans with the same ids, and a
//! backend keeps one of each. A long saga shows what has ended of it while it runs; its own span, around
//! all others, comes at its end.

mod attributes;
mod sampling;

pub(crate) use sampling::Sampling;

use crate::{
    engine::{Effects, Record, Saga},
    telemetry::{SpanRecord, Telemetry},
};
use attributes::{attributes, kind, moments};
use dirigent_contracts::trace::Run;
use opentelemetry::trace::Status;

/// Where the spans of a partition go; nowhere if no tracing backend is configured.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    telemetry: Telemetry,
    sampling: Sampling,
}

impl Spans {
    pub(crate) fn new(telemetry: Telemetry, sampling: Sampling) -> Self {
        Self {
            telemetry,
            sampling,
        }
    }

    /// Which traces are recorded.
    pub(crate) fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Tells the spans that ended with this entry.
    pub(crate) fn record(&self, record: &Record, state: Option<&Saga>, effects: &Effects) {
        if effects.history.is_empty() || !self.telemetry.is_on() {
            return;
        }
        let Some(of) = state.and_then(Saga::run) else {
            return;
        };
        if !self.sampling.admits(of.id(), of.trace()) {
            return;
        }
        let run = Run {
            id: of.id(),
            caller: of.trace(),
            started_at: of.started_at(),
        };
        for span in effects.history.iter().filter_map(|event| run.ended(event)) {
            self.telemetry.emit(SpanRecord {
                trace: run.trace(),
                span: span.id,
                parent: span.parent,
                name: span.what.name(&record.address).into_owned(),
                kind: kind(&span.what, of),
                start: span.start,
                end: span.end.unwrap_or(span.start),
                attributes: attributes(&span, record, of),
                moments: moments(&span),
                link: span.link,
                status: span
                    .failure
                    .map_or(Status::Unset, |failure| Status::error(failure.to_string())),
            });
        }
    }
}
