//! Export of spans by OTLP (http/protobuf), off unless an endpoint is configured.
//!
//! The standard environment variables rule: `OTEL_EXPORTER_OTLP_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` switches it on; `OTEL_SERVICE_NAME`,
//! `OTEL_EXPORTER_OTLP_HEADERS` and the `OTEL_BSP_...` family shape it.

use dirigent_contracts::time::Timestamp;
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, TraceState},
};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    runtime::Tokio,
    trace::{
        SpanData, SpanEvents, SpanLinks, SpanProcessor as _,
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
        let mut processor = BatchSpanProcessor::builder(exporter, Tokio).build();
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
        let context = SpanContext::new(
            TraceId::from_bytes(span.trace.to_be_bytes()),
            SpanId::from_bytes(span.span.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        processor.on_end(SpanData {
            span_context: context,
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
            events: SpanEvents::default(),
            links: SpanLinks::default(),
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

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}
