//! What a worker counts: its places, its executions, and how long they waited and ran.
//!
//! Instruments are made with the process's global meter provider, which does nothing until
//! [`crate::telemetry`], or the program itself, has set one.

use dirigent_contracts::{
    id::TaskName,
    metric::{Buckets, Kind, Metric, SECONDS},
    metrics,
    task::TaskResult,
    time::Timestamp,
};
use opentelemetry::{
    KeyValue, global,
    metrics::{BoundCounter, BoundHistogram, Meter, UpDownCounter},
};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    metrics::{SdkMeterProvider, periodic_reader_with_async_runtime::PeriodicReader},
    runtime::Tokio,
};
use std::{env, time::Duration};

/// Name of the instrumentation scope.
const SCOPE: &str = "dirigent-worker";
/// Variables that name an endpoint.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// Variable that switches the export off if it says `none`.
const EXPORTER: &str = "OTEL_METRICS_EXPORTER";

/// 1 ms to 8.7 min.
const STEP: Kind = Kind::Histogram(Buckets {
    first: 0.001,
    count: 20,
});

metrics! {
    SLOTS = Kind::Gauge, "dirigent.worker.slots", "{slot}", ["task"],
        "Commands of the task that the worker works on at most at a time.";
    SLOTS_USED = Kind::Gauge, "dirigent.worker.slots.used", "{slot}", ["task"],
        "Commands of the task that it works on now.";
    EXECUTIONS = Kind::Counter, "dirigent.worker.executions", "{execution}", ["task", "outcome"],
        "Commands that it answered, by outcome: succeeded or failed.";
    RUN_DURATION = STEP, "dirigent.worker.run.duration", SECONDS, ["task"],
        "From beginning to work on a command until its outcome is known, by the worker's monotonic clock.";
    QUEUE_DURATION = STEP, "dirigent.worker.queue.duration", SECONDS, ["task"],
        "From the command's being stored, by the broker's clock, until the worker began, by its own: as wrong as the two differ, and never below 0.";
    DEAD_LETTERS = Kind::Counter, "dirigent.worker.dead_letters", "{letter}", ["task"],
        "Commands that it could not read and put aside.";
}

/// Starts the export, if an endpoint is configured, and makes it the process's meter provider.
pub(crate) fn export(resource: Resource) -> Result<Option<SdkMeterProvider>, ExporterBuildError> {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_off = env::var_os(EXPORTER).is_some_and(|value| value == "none");
    if is_off || !ENDPOINTS.into_iter().any(is_set) {
        return Ok(None);
    }
    let exporter = MetricExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .build()?;
    let provider = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter, Tokio).build())
        .with_resource(resource)
        .build();
    global::set_meter_provider(provider.clone());
    Ok(Some(provider))
}

/// Counts for one task of one worker, while the worker runs.
pub(crate) struct TaskMeter {
    label: [KeyValue; 1],
    places: i64,
    slots: UpDownCounter<i64>,
    slots_used: UpDownCounter<i64>,
    succeeded: BoundCounter<u64>,
    failed: BoundCounter<u64>,
    run: BoundHistogram<f64>,
    queue: BoundHistogram<f64>,
    dead_letters: BoundCounter<u64>,
}

impl TaskMeter {
    pub(crate) fn new(task: &TaskName, places: usize) -> Self {
        let meter = global::meter(SCOPE);
        let label = [KeyValue::new("task", task.as_str().to_owned())];
        let executions = |outcome| {
            let labels = [label[0].clone(), KeyValue::new("outcome", outcome)];
            counter(&meter, &EXECUTIONS, &labels)
        };
        let meter_of_task = Self {
            places: i64::try_from(places).unwrap_or(i64::MAX),
            slots: up_down(&meter, &SLOTS),
            slots_used: up_down(&meter, &SLOTS_USED),
            succeeded: executions("succeeded"),
            failed: executions("failed"),
            run: histogram(&meter, &RUN_DURATION, &label),
            queue: histogram(&meter, &QUEUE_DURATION, &label),
            dead_letters: counter(&meter, &DEAD_LETTERS, &label),
            label,
        };
        meter_of_task
            .slots
            .add(meter_of_task.places, &meter_of_task.label);
        meter_of_task.slots_used.add(0, &meter_of_task.label);
        meter_of_task
    }

    /// A place is taken until what this gives is dropped.
    pub(crate) fn occupy(&self) -> Occupied<'_> {
        self.slots_used.add(1, &self.label);
        Occupied(self)
    }

    /// A worker begins to work on a command that was stored then.
    pub(crate) fn began(&self, asked_at: Timestamp, now: Timestamp) {
        self.queue.record(now.since(asked_at).as_secs_f64());
    }

    /// It has an outcome.
    pub(crate) fn ended(&self, result: &TaskResult, ran: Duration) {
        match result {
            TaskResult::Succeeded { .. } => self.succeeded.add(1),
            TaskResult::Failed { .. } | TaskResult::Heartbeat => self.failed.add(1),
        }
        self.run.record(ran.as_secs_f64());
    }

    /// A command could not be read.
    pub(crate) fn dead_letter(&self) {
        self.dead_letters.add(1);
    }
}

impl Drop for TaskMeter {
    fn drop(&mut self) {
        self.slots.add(-self.places, &self.label);
    }
}

/// A place that is taken.
pub(crate) struct Occupied<'a>(&'a TaskMeter);

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        self.0.slots_used.add(-1, &self.0.label);
    }
}

fn counter(meter: &Meter, metric: &Metric, labels: &[KeyValue]) -> BoundCounter<u64> {
    let builder = meter.u64_counter(metric.name);
    let builder = builder.with_unit(metric.unit);
    builder.with_description(metric.help).build().bind(labels)
}

fn up_down(meter: &Meter, metric: &Metric) -> UpDownCounter<i64> {
    let builder = meter.i64_up_down_counter(metric.name);
    let builder = builder.with_unit(metric.unit);
    builder.with_description(metric.help).build()
}

fn histogram(meter: &Meter, metric: &Metric, labels: &[KeyValue]) -> BoundHistogram<f64> {
    let mut builder = meter.f64_histogram(metric.name);
    if let Kind::Histogram(buckets) = metric.kind {
        builder = builder.with_boundaries(buckets.bounds());
    }
    let builder = builder.with_unit(metric.unit);
    builder.with_description(metric.help).build().bind(labels)
}
