//! Export of spans and metrics by OTLP (http/protobuf), off unless an endpoint is configured.
//!
//! The standard environment variables rule: `OTEL_EXPORTER_OTLP_ENDPOINT` switches both on,
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` one of them;
//! `OTEL_METRICS_EXPORTER=none` switches metrics off. `OTEL_SERVICE_NAME`, `OTEL_EXPORTER_OTLP_HEADERS`,
//! `OTEL_TRACES_SAMPLER`, `OTEL_METRIC_EXPORT_INTERVAL` and the `OTEL_BSP_...` family shape it.

use crate::metrics;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    metrics::SdkMeterProvider,
    runtime::Tokio,
    trace::{
        BatchConfig, BatchConfigBuilder, SdkTracerProvider,
        span_processor_with_async_runtime::BatchSpanProcessor,
    },
};
use std::{env, time::Duration};
use tokio::task::JoinError;
use tracing::warn;
use uuid::Uuid;

/// Variables that name an endpoint.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// Variable that names the service.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// Variable with further attributes of the process.
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// Attribute that tells this process from others of its service.
const INSTANCE: &str = "service.instance.id";

/// Why spans or metrics cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("spans and metrics cannot be exported to the endpoint in {ENDPOINTS:?}: {0}")]
pub struct TelemetryError(#[from] ExporterBuildError);

/// The running export.
#[derive(Debug)]
#[must_use = "what is not exported yet is lost unless it is shut down"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

/// Starts the export and makes it the process's tracer and meter provider, if an endpoint is
/// configured. Must be called within a tokio runtime, and before workers are run.
///
/// # Errors
/// If the endpoint is not usable, such as an address that is none.
pub fn init(service: &str) -> Result<Telemetry, TelemetryError> {
    let mut resource = Resource::builder();
    if !is_set(SERVICE_NAME) {
        resource = resource.with_service_name(service.to_owned());
    }
    if !env::var(RESOURCE).is_ok_and(|text| text.contains(INSTANCE)) {
        // Or two processes would count into the same series.
        let instance = Uuid::now_v7().to_string();
        resource = resource.with_attribute(KeyValue::new(INSTANCE, instance));
    }
    let resource = resource.build();
    let metrics = metrics::export(resource.clone())?;
    if !ENDPOINTS.iter().any(|name| is_set(name)) {
        return Ok(Telemetry {
            provider: None,
            metrics,
        });
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter, Tokio)
                .with_batch_config(batches())
                .build(),
        )
        .with_resource(resource)
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(Telemetry {
        provider: Some(provider),
        metrics,
    })
}

impl Telemetry {
    /// Whether spans are exported.
    pub fn is_on(&self) -> bool {
        self.provider.is_some()
    }

    /// Exports what is left, and ends.
    pub async fn shutdown(self) {
        // The calls block until the exporters, which run on this runtime, have finished.
        if let Some(provider) = self.provider {
            let ended = tokio::task::spawn_blocking(move || provider.shutdown());
            report("spans", ended.await);
        }
        if let Some(provider) = self.metrics {
            let ended = tokio::task::spawn_blocking(move || provider.shutdown());
            report("metrics", ended.await);
        }
    }
}

fn report(what: &str, ended: Result<Result<(), OTelSdkError>, JoinError>) {
    match ended {
        Ok(Ok(()) | Err(OTelSdkError::AlreadyShutdown)) => {}
        Ok(Err(error)) => warn!(what, %error, "the last of them were not exported"),
        Err(error) => warn!(what, %error, "their export did not end well"),
    }
}

/// Larger batches than usual, sooner, as the coordinators': a busy worker tells thousands of spans a
/// second. The variables of the `OTEL_BSP_...` family go before.
fn batches() -> BatchConfig {
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

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}
