//! The instruments that measurements are taken with, one for each metric of [`super::reference`].

use super::reference as of;
use dirigent_contracts::metric::{Kind, Metric};
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

/// All that are recorded as things happen; what is looked at only when asked stands in
/// [`super::observed`].
#[derive(Debug)]
pub(crate) struct Instruments {
    pub(crate) sagas_started: Counter<u64>,
    pub(crate) sagas_ended: Counter<u64>,
    pub(crate) sagas_live: UpDownCounter<i64>,
    pub(crate) sagas_stuck: UpDownCounter<i64>,
    pub(crate) sagas_incidents: Counter<u64>,
    pub(crate) saga_duration: Histogram<f64>,
    pub(crate) compensations: Counter<u64>,
    pub(crate) compensation_failures: Counter<u64>,
    pub(crate) retries: Counter<u64>,
    pub(crate) attempts: Counter<u64>,
    pub(crate) attempt_duration: Histogram<f64>,
    pub(crate) replies_late: Counter<u64>,
    pub(crate) entries: Counter<u64>,
    pub(crate) entries_ignored: Counter<u64>,
    pub(crate) dead_letters: Counter<u64>,
    pub(crate) fold_duration: Histogram<f64>,
    pub(crate) publish_duration: Histogram<f64>,
    pub(crate) publish_repetitions: Counter<u64>,
    pub(crate) snapshot_duration: Histogram<f64>,
    pub(crate) starts_refused: Counter<u64>,
    pub(crate) commands_refused: Counter<u64>,
    pub(crate) partition_takeovers: Counter<u64>,
    pub(crate) partition_recovery: Histogram<f64>,
    pub(crate) broker_round_trip: Histogram<f64>,
    pub(crate) broker_unanswered: Counter<u64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = |metric| counter(meter, &metric);
        let gauge = |metric| up_down(meter, &metric);
        let histogram = |metric| histogram(meter, &metric);
        let instruments = Self {
            sagas_started: counter(of::SAGAS_STARTED),
            sagas_ended: counter(of::SAGAS_ENDED),
            sagas_live: gauge(of::SAGAS_LIVE),
            sagas_stuck: gauge(of::SAGAS_STUCK),
            sagas_incidents: counter(of::SAGAS_INCIDENTS),
            saga_duration: histogram(of::SAGA_DURATION),
            compensations: counter(of::COMPENSATIONS),
            compensation_failures: counter(of::COMPENSATION_FAILURES),
            retries: counter(of::RETRIES),
            attempts: counter(of::ATTEMPTS),
            attempt_duration: histogram(of::ATTEMPT_DURATION),
            replies_late: counter(of::REPLIES_LATE),
            entries: counter(of::ENTRIES),
            entries_ignored: counter(of::ENTRIES_IGNORED),
            dead_letters: counter(of::DEAD_LETTERS),
            fold_duration: histogram(of::FOLD_DURATION),
            publish_duration: histogram(of::PUBLISH_DURATION),
            publish_repetitions: counter(of::PUBLISH_REPETITIONS),
            snapshot_duration: histogram(of::SNAPSHOT_DURATION),
            starts_refused: counter(of::STARTS_REFUSED),
            commands_refused: counter(of::COMMANDS_REFUSED),
            partition_takeovers: counter(of::PARTITION_TAKEOVERS),
            partition_recovery: histogram(of::PARTITION_RECOVERY),
            broker_round_trip: histogram(of::BROKER_ROUND_TRIP),
            broker_unanswered: counter(of::BROKER_UNANSWERED),
        };
        // What has no labels is 0 until something happens, not unknown.
        instruments.publish_repetitions.add(0, &[]);
        instruments.starts_refused.add(0, &[]);
        instruments.commands_refused.add(0, &[]);
        instruments.broker_unanswered.add(0, &[]);
        instruments
    }
}

fn counter(meter: &Meter, metric: &Metric) -> Counter<u64> {
    let builder = meter.u64_counter(metric.name);
    let builder = builder.with_unit(metric.unit);
    builder.with_description(metric.help).build()
}

fn up_down(meter: &Meter, metric: &Metric) -> UpDownCounter<i64> {
    let builder = meter.i64_up_down_counter(metric.name);
    let builder = builder.with_unit(metric.unit);
    builder.with_description(metric.help).build()
}

fn histogram(meter: &Meter, metric: &Metric) -> Histogram<f64> {
    let mut builder = meter.f64_histogram(metric.name);
    if let Kind::Histogram(buckets) = metric.kind {
        builder = builder.with_boundaries(buckets.bounds());
    }
    let builder = builder.with_unit(metric.unit);
    builder.with_description(metric.help).build()
}
