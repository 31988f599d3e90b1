//! Metrics: recorded once, as OpenTelemetry instruments, and read in three ways.
//!
//! * `reference` says what each is called and means.
//! * `saga` tells them from the history that the fold gives, `poll` looks at the broker.
//! * They leave by OTLP if an endpoint is configured (`Metrics::from_environment`), on a scrape page
//!   for Prometheus (`page`), and as the answer to a question over NATS (`answer`).
//!
//! Invariants: nothing here decides anything or makes anybody wait; the number of series is bounded by
//! `labels`; what is counted twice or not at all after a crash is told in `docs/metrics.md`.

mod answer;
mod instruments;
mod labels;
mod observed;
mod page;
mod poll;
pub mod reference;
mod saga;

pub(crate) use answer::answer;
pub(crate) use page::{Readiness, serve};
pub(crate) use poll::poll;
pub use reference::REFERENCE;
pub(crate) use saga::PartitionMeter;

use dirigent_contracts::id::PartitionId;
use instruments::Instruments;
use labels::Labels;
use observed::Observed;
use opentelemetry::{KeyValue, metrics::MeterProvider as _};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkError,
    metrics::{
        MeterProviderBuilder, SdkMeterProvider, periodic_reader_with_async_runtime::PeriodicReader,
    },
    runtime::Tokio,
};
use prometheus::{Registry, TextEncoder, proto::MetricFamily};
use std::{env, sync::Arc};

/// Name of the instrumentation scope.
const SCOPE: &str = "dirigent";
/// Variables that name an endpoint.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// Variable that switches the export off if it says `none`.
const EXPORTER: &str = "OTEL_METRICS_EXPORTER";
/// Variable that names the service.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// Why metrics cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be exported to the endpoint in {ENDPOINTS:?}: {0}")]
pub struct MetricsError(#[from] ExporterBuildError);

/// The metrics of one coordinator. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instruments: Instruments,
    observed: Arc<Observed>,
    labels: Labels,
    registry: Registry,
    provider: SdkMeterProvider,
}

impl Default for Metrics {
    /// Metrics that are not exported; they can be scraped and asked for.
    fn default() -> Self {
        Self::new(SdkMeterProvider::builder())
    }
}

impl Metrics {
    /// Metrics that are exported by OTLP (http/protobuf) if an endpoint is configured. Must be called
    /// within a tokio runtime.
    ///
    /// The standard environment variables rule: `OTEL_EXPORTER_OTLP_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` switches it on, `OTEL_METRICS_EXPORTER=none` off;
    /// `OTEL_METRIC_EXPORT_INTERVAL` and the others shape it. `instance` tells this process from the
    /// others of its kind.
    ///
    /// # Errors
    /// If the endpoint is not usable, such as an address that is none.
    pub fn from_environment(service: &str, instance: &str) -> Result<Self, MetricsError> {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_off = env::var_os(EXPORTER).is_some_and(|value| value == "none");
        if is_off || !ENDPOINTS.into_iter().any(is_set) {
            return Ok(Self::default());
        }
        let exporter = MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .build()?;
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()));
        if !is_set(SERVICE_NAME) {
            resource = resource.with_service_name(service.to_owned());
        }
        let reader = PeriodicReader::builder(exporter, Tokio).build();
        let provider = SdkMeterProvider::builder().with_reader(reader);
        Ok(Self::new(provider.with_resource(resource.build())))
    }

    fn new(provider: MeterProviderBuilder) -> Self {
        let registry = Registry::new();
        let page = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build();
        let provider = match page {
            Ok(page) => provider.with_reader(page),
            // A registry refuses only what it knows already; this one is empty.
            Err(error) => {
                tracing::error!(%error, "metrics cannot be scraped");
                provider
            }
        };
        let provider = provider.build();
        let meter = provider.meter(SCOPE);
        let observed = Arc::new(Observed::default());
        observed.observe(&meter);
        Self(Arc::new(Inner {
            instruments: Instruments::new(&meter),
            observed,
            labels: Labels::default(),
            registry,
            provider,
        }))
    }

    /// What measurements are taken with.
    pub(crate) fn instruments(&self) -> &Instruments {
        &self.0.instruments
    }

    /// The scrape page as it stands: Prometheus's text format.
    ///
    /// # Errors
    /// If a metric breaks the format's rules, and which.
    pub fn text(&self) -> Result<String, String> {
        let text = TextEncoder::new().encode_to_string(&self.families());
        text.map_err(|error| error.to_string())
    }

    fn families(&self) -> Vec<MetricFamily> {
        self.0.registry.gather()
    }

    /// A message was put aside because it could not be understood.
    pub(crate) fn dead_letter(&self, source: &'static str) {
        self.instruments()
            .dead_letters
            .add(1, &[KeyValue::new("source", source)]);
    }

    /// The partitions that are owned and not caught up yet.
    pub(crate) fn catching_up(&self) -> Vec<PartitionId> {
        let partitions = self.0.observed.partitions().into_iter();
        partitions
            .filter(|(_, owned)| !owned.is_caught_up())
            .map(|(partition, _)| partition)
            .collect()
    }

    /// Exports what is left, and ends.
    pub async fn shutdown(self) {
        let provider = self.0.provider.clone();
        // The call blocks until the exporter, which runs on this runtime, has finished.
        match tokio::task::spawn_blocking(move || provider.shutdown()).await {
            Ok(Ok(()) | Err(OTelSdkError::AlreadyShutdown)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last metrics were not exported"),
            Err(error) => tracing::warn!(%error, "the export of metrics did not end well"),
        }
    }
}
