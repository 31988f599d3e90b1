//! Export of spans by OTLP (http/protobuf), off unless an endpoint is configured.
//!
//! The standard environment variables rule: `OTEL_EXPORTER_OTLP_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` switches it on; `OTEL_SERVICE_NAME`,
//! `OTEL_EXPORTER_OTLP_HEADERS` and the `OTEL_BSP_...` family shape it. Which traces are recorded stands in
//! `spans/sampling.rs`.

use dirigent_contracts::{header::TraceContext, time::Timestamp};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Event, Link, SpanContext, SpanKind, TraceState},
};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    runtime::Tokio,
    trace::{
        BatchConfig, BatchConfigBuilder, SpanData, SpanEvents, SpanLinks, SpanProcessor as _,
        span_processor_with_async_runtime::BatchSpanProcessor,
    },
};
use std::{
    env,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Variables that name an endpoint.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// Variable that names the service.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported to the endpoint in {ENDPOINTS:?}: {0}")]
pub struct TelemetryError(#[from] ExporterBuildError);

/// Where spans go: nowhere, unless an endpoint is configured. Clones share one export.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Option<Arc<BatchSpanProcessor<Tokio>>>);

/// One finished span, with an id that its maker chose.
#[derive(Clone, Debug)]
pub(crate) struct SpanRecord {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) attributes: Vec<KeyValue>,
    /// What happened within it, and when.
    pub(crate) moments: Vec<(&'static str, Timestamp)>,
    /// A span that it has to do with without lying within it.
    pub(crate) link: Option<TraceContext>,
    pub(crate) status: opentelemetry::trace::Status,
}

impl Telemetry {
    /// Starts the export if an endpoint is configured. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the endpoint is not usable, such as an address that is none.
    pub fn from_environment(service: &str) -> Result<Self, TelemetryError> {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        if !ENDPOINTS.into_iter().any(is_set) {
            return Ok(Self(None));
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary);
        let name = (!is_set(SERVICE_NAME)).then_some(service);
        Ok(Self::exporting(exporter.build()?, name))
    }

    /// Exports to this OTLP endpoint (the full address of its traces), whatever the environment says.
    ///
    /// # Errors
    /// If the endpoint is not usable.
    pub fn to_endpoint(service: &str, endpoint: &str) -> Result<Self, TelemetryError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary);
        Ok(Self::exporting(
            exporter.with_endpoint(endpoint).build()?,
            Some(service),
        ))
    }

    fn exporting(exporter: SpanExporter, name: Option<&str>) -> Self {
        let mut resource = Resource::builder();
        if let Some(name) = name {
            resource = resource.with_service_name(name.to_owned());
        }
        let processor = BatchSpanProcessor::builder(exporter, Tokio);
        let mut processor = processor.with_batch_config(batches()).build();
        processor.set_resource(&resource.build());
        Self(Some(Arc::new(processor)))
    }

    /// Whether spans are exported.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands a span over. If the export cannot keep up, spans are dropped and that is logged; work
    /// never waits for it.
    pub(crate) fn emit(&self, span: SpanRecord) {
        let Some(processor) = &self.0 else { return };
        let mut events = SpanEvents::default();
        events.events.extend(
            span.moments
                .into_iter()
                .map(|(name, at)| Event::new(name, system_time(at), Vec::new(), 0)),
        );
        let mut links = SpanLinks::default();
        links.links.extend(span.link.map(|link| {
            let context = context(link.trace, link.span, link.sampled, true);
            Link::new(context, Vec::new(), 0)
        }));
        processor.on_end(SpanData {
            span_context: context(span.trace, span.span, true, false),
            parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| {
                SpanId::from_bytes(parent.to_be_bytes())
            }),
            parent_span_is_remote: false,
            span_kind: span.kind,
            name: span.name.into(),
            start_time: system_time(span.start),
            end_time: system_time(span.end),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events,
            links,
            status: span.status,
            instrumentation_scope: InstrumentationScope::builder("dirigent")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        });
    }

    /// Exports what is left, and ends.
    pub async fn shutdown(self) {
        let Some(processor) = self.0 else { return };
        // The call blocks until the exporter, which runs on this runtime, has finished.
        let ended = tokio::task::spawn_blocking(move || {
            processor.shutdown_with_timeout(Duration::from_secs(5))
        });
        match ended.await {
            Ok(Ok(()) | Err(OTelSdkError::AlreadyShutdown)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not exported"),
            Err(error) => tracing::warn!(%error, "the export of spans did not end well"),
        }
    }
}

/// Larger batches than usual, sooner: a busy coordinator tells thousands of spans a second, and one that
/// dies takes with it what it has not sent. The variables of the `OTEL_BSP_...` family go before.
fn batches() -> BatchConfig {
    let is_set = |name: &str| env::var_os(name).is_some();
    let mut batches = BatchConfigBuilder::default();
    if !is_set("OTEL_BSP_SCHEDULE_DELAY") {
        batches = batches.with_scheduled_delay(Duration::from_secs(1));
    }
    if !is_set("OTEL_BSP_MAX_QUEUE_SIZE") {
        batches = batches.with_max_queue_size(65_536);
    }
    if !is_set("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") {
        batches = batches.with_max_export_batch_size(2_048);
    }
    batches.build()
}

fn context(trace: u128, span: u64, sampled: bool, is_remote: bool) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(sampled);
    SpanContext::new(
        TraceId::from_bytes(trace.to_be_bytes()),
        SpanId::from_bytes(span.to_be_bytes()),
        flags,
        is_remote,
        TraceState::default(),
    )
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}
