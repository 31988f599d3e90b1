//! Export of spans by OTLP (http/protobuf), off unless an endpoint is configured.
//!
//! The standard environment variables rule: `OTEL_EXPORTER_OTLP_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` switches it on, `OTEL_SERVICE_NAME`,
//! `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER` and the `OTEL_BSP_...` family shape it.

use opentelemetry::global;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    runtime::Tokio,
    trace::{SdkTracerProvider, span_processor_with_async_runtime::BatchSpanProcessor},
};
use std::env;
use tracing::warn;

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

/// The running export.
#[derive(Debug)]
#[must_use = "spans that are not exported yet are lost unless it is shut down"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Starts the export and makes it the process's tracer provider, if an endpoint is configured. Must
/// be called within a tokio runtime.
///
/// # Errors
/// If the endpoint is not usable, such as an address that is none.
pub fn init(service: &str) -> Result<Telemetry, TelemetryError> {
    if !ENDPOINTS.iter().any(|name| is_set(name)) {
        return Ok(Telemetry { provider: None });
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .build()?;
    let mut resource = Resource::builder();
    if !is_set(SERVICE_NAME) {
        resource = resource.with_service_name(service.to_owned());
    }
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter, Tokio).build())
        .with_resource(resource.build())
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(Telemetry {
        provider: Some(provider),
    })
}

impl Telemetry {
    /// Whether spans are exported.
    pub fn is_on(&self) -> bool {
        self.provider.is_some()
    }

    /// Exports what is left, and ends.
    pub async fn shutdown(self) {
        let Some(provider) = self.provider else {
            return;
        };
        // The call blocks until the exporter, which runs on this runtime, has finished.
        match tokio::task::spawn_blocking(move || provider.shutdown()).await {
            Ok(Ok(()) | Err(OTelSdkError::AlreadyShutdown)) => {}
            Ok(Err(error)) => warn!(%error, "the last spans were not exported"),
            Err(error) => warn!(%error, "the export of spans did not end well"),
        }
    }
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}
