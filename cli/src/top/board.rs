//! Two readings as the rates, latencies and backlogs between them.

use super::reading::Reading;
use crate::render;
use dirigent_contracts::{
    api::SagaSummary,
    metric::{Measured, Metric, Sample},
    outcome::SagaStatus,
};
use dirigent_coordinator::metrics::reference as of;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What an installation does.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Board {
    /// What rates and latencies are of, in seconds.
    pub(super) window_s: f64,
    pub(super) coordinators: usize,
    pub(super) dead_letters: u64,
    /// By name.
    pub(super) definitions: Vec<OfDefinition>,
    /// The slowest first.
    pub(super) tasks: Vec<OfTask>,
    pub(super) partitions: Vec<OfPartition>,
    pub(super) stuck: Vec<SagaSummary>,
}

/// What the sagas of one definition do. Rates are per second.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OfDefinition {
    pub(super) definition: String,
    pub(super) live: u64,
    pub(super) stuck: u64,
    pub(super) started: f64,
    pub(super) succeeded: f64,
    /// Ended in another way.
    pub(super) failed: f64,
    pub(super) retries: f64,
    /// From start to end.
    pub(super) duration: Latency,
}

/// How the work of one task goes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OfTask {
    pub(super) task: String,
    /// Attempts that were answered or given up, per second.
    pub(super) attempts: f64,
    /// Of those, the ones that did not succeed.
    pub(super) failed: f64,
    /// Commands that no worker has been given.
    pub(super) backlog: u64,
    /// Commands that a worker has.
    pub(super) in_progress: u64,
    /// Age of the oldest command, in seconds.
    pub(super) oldest_s: f64,
    pub(super) queue: Latency,
    pub(super) run: Latency,
}

/// How a partition stands.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OfPartition {
    pub(super) partition: usize,
    /// Empty if nobody owns it.
    pub(super) owner: String,
    /// Entries that are stored and not folded.
    pub(super) lag: u64,
    /// For how long it has been owned, in seconds.
    pub(super) lease_age_s: f64,
}

/// Quantiles, in seconds; `None` if nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// A table of the board.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [&'static str],
    /// The cells of each row, and whether somebody should look at it.
    pub(crate) rows: Vec<(Vec<String>, bool)>,
}

impl Board {
    /// What happened between two readings, and how it stands at the later one.
    pub(super) fn between(before: &Reading, after: &Reading) -> Self {
        let change = Change::new(before, after);
        let definitions = change.values("definition").into_iter();
        let tasks = change.values("task").into_iter();
        let mut tasks: Vec<OfTask> = tasks.map(|task| change.task(task)).collect();
        // A task without a measurement is not slow.
        let slowness = |task: &OfTask| task.run.p99.unwrap_or(0.0) + task.queue.p99.unwrap_or(0.0);
        tasks.sort_by(|a, b| slowness(b).total_cmp(&slowness(a)));
        let partitions = after.owners.iter().zip(0..).map(|(owner, partition)| {
            let at = [("partition", partition.to_string())];
            OfPartition {
                partition,
                owner: owner.clone(),
                lag: change.count(of::PARTITION_LAG, &at),
                lease_age_s: change.now(of::PARTITION_LEASE_AGE, &at),
            }
        });
        Self {
            window_s: change.seconds,
            coordinators: after.snapshots.len(),
            dead_letters: after.dead_letters,
            definitions: definitions.map(|name| change.definition(name)).collect(),
            tasks,
            partitions: partitions.collect(),
            stuck: after.stuck.clone(),
        }
    }

    /// The line above all.
    pub(super) fn headline(&self) -> String {
        let sum = |of: fn(&OfDefinition) -> f64| self.definitions.iter().map(of).sum::<f64>();
        let count = |of: fn(&OfDefinition) -> u64| self.definitions.iter().map(of).sum::<u64>();
        format!(
            "coordinators {}, partitions {} · live {}, stuck {}, dead letters {} · started {}/s, ended {}/s, \
             of the last {:.0} s",
            self.coordinators,
            self.partitions.len(),
            count(|of| of.live),
            count(|of| of.stuck),
            self.dead_letters,
            rate(sum(|of| of.started)),
            rate(sum(|of| of.succeeded + of.failed)),
            self.window_s,
        )
    }

    /// All as tables. Those without a row that matters are left out.
    pub(super) fn panels(&self) -> Vec<Panel> {
        let mut panels = vec![
            Panel {
                title: "Sagas",
                columns: &[
                    "DEFINITION",
                    "LIVE",
                    "STUCK",
                    "START/S",
                    "DONE/S",
                    "FAIL/S",
                    "RETRY/S",
                    "P50",
                    "P99",
                ],
                rows: self.definitions.iter().map(OfDefinition::row).collect(),
            },
            Panel {
                title: "Tasks, the slowest first",
                columns: &[
                    "TASK",
                    "DONE/S",
                    "FAIL/S",
                    "BACKLOG",
                    "RUNNING",
                    "OLDEST",
                    "QUEUE P50",
                    "QUEUE P99",
                    "RUN P50",
                    "RUN P99",
                ],
                rows: self.tasks.iter().map(OfTask::row).collect(),
            },
            Panel {
                title: "Partitions",
                columns: &["PARTITION", "OWNER", "LAG", "OWNED FOR"],
                rows: self.partitions.iter().map(OfPartition::row).collect(),
            },
        ];
        if !self.stuck.is_empty() {
            panels.push(Panel {
                title: "Stuck: each waits for a person",
                columns: &["SAGA", "SINCE", "WHY"],
                rows: self.stuck.iter().map(stuck_row).collect(),
            });
        }
        panels
    }
}

impl OfDefinition {
    fn row(&self) -> (Vec<String>, bool) {
        let cells = vec![
            self.definition.clone(),
            self.live.to_string(),
            self.stuck.to_string(),
            rate(self.started),
            rate(self.succeeded),
            rate(self.failed),
            rate(self.retries),
            time(self.duration.p50),
            time(self.duration.p99),
        ];
        (cells, self.stuck > 0)
    }
}

impl OfTask {
    fn row(&self) -> (Vec<String>, bool) {
        let cells = vec![
            render::visible(&self.task),
            rate(self.attempts),
            rate(self.failed),
            self.backlog.to_string(),
            self.in_progress.to_string(),
            time((self.oldest_s > 0.0).then_some(self.oldest_s)),
            time(self.queue.p50),
            time(self.queue.p99),
            time(self.run.p50),
            time(self.run.p99),
        ];
        // Commands that nobody is given: no worker offers the task.
        (cells, self.backlog > 0 && self.in_progress == 0)
    }
}

impl OfPartition {
    fn row(&self) -> (Vec<String>, bool) {
        let owner = if self.owner.is_empty() {
            "nobody"
        } else {
            &self.owner
        };
        let cells = vec![
            self.partition.to_string(),
            render::visible(owner),
            self.lag.to_string(),
            time((!self.owner.is_empty()).then_some(self.lease_age_s)),
        ];
        (cells, self.owner.is_empty())
    }
}

fn stuck_row(saga: &SagaSummary) -> (Vec<String>, bool) {
    let cells = vec![
        render::visible(&saga.saga),
        saga.updated_at.to_rfc3339(),
        render::visible(&saga.detail),
    ];
    (cells, true)
}

fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        // The sum of nothing is a negative zero.
        format!("{:.0}", per_second + 0.0)
    }
}

fn time(seconds: Option<f64>) -> String {
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map_or_else(|| "-".to_owned(), render::span)
}

/// The series of two readings. Counters are compared for each coordinator: one that was restarted begins
/// at zero, one that had not answered before has nothing to be compared with.
struct Change<'a> {
    seconds: f64,
    series: Vec<(Option<&'a Measured>, &'a Sample)>,
}

impl<'a> Change<'a> {
    fn new(before: &'a Reading, after: &'a Reading) -> Self {
        let mut known = BTreeMap::new();
        for snapshot in &before.snapshots {
            for sample in &snapshot.samples {
                let key = (&snapshot.coordinator, &sample.name, &sample.labels);
                known.insert(key, &sample.measured);
            }
        }
        let answered: BTreeSet<&String> = before
            .snapshots
            .iter()
            .map(|snapshot| &snapshot.coordinator)
            .collect();
        let mut series = Vec::new();
        for snapshot in &after.snapshots {
            for sample in &snapshot.samples {
                let key = (&snapshot.coordinator, &sample.name, &sample.labels);
                // What was not there before was zero, if its coordinator was there.
                let before = match known.get(&key) {
                    Some(measured) => Some(*measured),
                    None if answered.contains(&snapshot.coordinator) => None,
                    None => Some(&sample.measured),
                };
                series.push((before, sample));
            }
        }
        Self {
            seconds: after.at.duration_since(before.at).as_secs_f64(),
            series,
        }
    }

    /// The values of a label, in order.
    fn values(&self, label: &str) -> BTreeSet<&'a str> {
        // A series that has never counted anything is nobody's: that of all beyond the limit.
        let series = self.series.iter().filter(|(_, sample)| {
            !matches!(
                sample.measured,
                Measured::Number { value: 0.0 } | Measured::Distribution { count: 0, .. }
            )
        });
        let values = series.filter_map(|(_, sample)| sample.labels.get(label));
        values.map(String::as_str).collect()
    }

    fn of<'b>(
        &'b self,
        metric: Metric,
        labels: &'b [(&'b str, String)],
    ) -> impl Iterator<Item = (Option<&'a Measured>, &'a Measured)> + 'b {
        let name = metric.prometheus();
        let series = self.series.iter().filter(move |(_, sample)| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label) == Some(value))
        });
        series.map(|(before, sample)| (*before, &sample.measured))
    }

    /// The sum of a gauge's series.
    fn now(&self, metric: Metric, labels: &[(&str, String)]) -> f64 {
        self.of(metric, labels)
            .map(|(_, after)| number(Some(after)))
            .fold(0.0, std::ops::Add::add)
    }

    /// The sum of a gauge that counts things.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole numbers that are not below zero"
    )]
    fn count(&self, metric: Metric, labels: &[(&str, String)]) -> u64 {
        self.now(metric, labels).round() as u64
    }

    /// How much a counter grew, per second.
    fn rate(&self, metric: Metric, labels: &[(&str, String)]) -> f64 {
        let grown = self.of(metric, labels).map(|(before, after)| {
            let (before, after) = (number(before), number(Some(after)));
            if after < before {
                after
            } else {
                after - before
            }
        });
        grown.fold(0.0, std::ops::Add::add) / self.seconds.max(1e-9)
    }

    /// Quantiles of what was measured between the readings; if nothing was, of all before.
    fn latency(&self, metric: Metric, labels: &[(&str, String)]) -> Latency {
        let mut between = BTreeMap::new();
        let mut ever = BTreeMap::new();
        for (before, after) in self.of(metric, labels) {
            let before = buckets(before);
            for (bound, count) in buckets(Some(after)) {
                *ever.entry(bound).or_insert(0) += count;
                let known = before.get(&bound).copied().unwrap_or(0);
                *between.entry(bound).or_insert(0) += count.saturating_sub(known);
            }
        }
        let of = if between.values().any(|count| *count > 0) {
            between
        } else {
            ever
        };
        Latency {
            p50: quantile(&of, 0.5),
            p99: quantile(&of, 0.99),
        }
    }

    fn definition(&self, name: &str) -> OfDefinition {
        let labels = [("definition", name.to_owned())];
        let succeeded = [
            ("definition", name.to_owned()),
            ("outcome", SagaStatus::Succeeded.to_string()),
        ];
        let (ended, succeeded) = (
            self.rate(of::SAGAS_ENDED, &labels),
            self.rate(of::SAGAS_ENDED, &succeeded),
        );
        OfDefinition {
            definition: name.to_owned(),
            live: self.count(of::SAGAS_LIVE, &labels),
            stuck: self.count(of::SAGAS_STUCK, &labels),
            started: self.rate(of::SAGAS_STARTED, &labels),
            succeeded,
            failed: ended - succeeded,
            retries: self.rate(of::RETRIES, &labels),
            duration: self.latency(of::SAGA_DURATION, &labels),
        }
    }

    fn task(&self, name: &str) -> OfTask {
        let labels = [("task", name.to_owned())];
        let also = |label, value: &str| [("task", name.to_owned()), (label, value.to_owned())];
        let attempts = self.rate(of::ATTEMPTS, &labels);
        let succeeded = self.rate(of::ATTEMPTS, &also("outcome", "succeeded"));
        OfTask {
            task: name.to_owned(),
            attempts,
            failed: attempts - succeeded,
            backlog: self.count(of::TASK_BACKLOG, &labels),
            in_progress: self.count(of::TASK_IN_PROGRESS, &labels),
            oldest_s: self.now(of::TASK_OLDEST, &labels),
            queue: self.latency(of::ATTEMPT_DURATION, &also("phase", "queue")),
            run: self.latency(of::ATTEMPT_DURATION, &also("phase", "run")),
        }
    }
}

fn number(measured: Option<&Measured>) -> f64 {
    match measured {
        Some(Measured::Number { value }) => *value,
        _ => 0.0,
    }
}

/// Counts by the bits of the bucket's upper bound, which sort like the bounds: none is negative.
fn buckets(measured: Option<&Measured>) -> BTreeMap<u64, u64> {
    match measured {
        Some(Measured::Distribution { buckets, .. }) => buckets
            .iter()
            .map(|(bound, count)| (bound.to_bits(), *count))
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// A quantile, as if the values of a bucket lay evenly between its bounds; the lower is half the upper.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 53 bits are plenty"
)]
fn quantile(buckets: &BTreeMap<u64, u64>, quantile: f64) -> Option<f64> {
    let total: u64 = buckets.values().sum();
    let wanted = total as f64 * quantile;
    let mut below = 0.0;
    for (bound, count) in buckets {
        let (bound, count) = (f64::from_bits(*bound), *count as f64);
        if count > 0.0 && below + count >= wanted {
            let share = (wanted - below) / count;
            return Some(bound / 2.0 * (1.0 + share));
        }
        below += count;
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::float_cmp, reason = "counts are whole numbers")]

    use super::*;
    use dirigent_contracts::metric::Snapshot;
    use serde_json::{Value, json};
    use std::time::Instant;

    pub(in crate::top) fn reading(at: Instant, coordinators: &[(&str, Value)]) -> Reading {
        let snapshots = coordinators.iter().map(|(name, samples)| Snapshot {
            coordinator: (*name).to_owned(),
            samples: serde_json::from_value(samples.clone()).unwrap(),
        });
        Reading {
            at,
            snapshots: snapshots.collect(),
            owners: vec!["one".to_owned(), String::new()],
            dead_letters: 2,
            stuck: serde_json::from_value(json!([{"definition": "order", "key": "o-7",
                "status": "stuck", "updated_at": 1_700_000_000_000_000_i64,
                "detail": "Gone: the carrier does not answer"}]))
            .unwrap(),
        }
    }

    pub(in crate::top) fn samples(started: u64, runs: u64) -> Value {
        json!([
            {"name": "dirigent_sagas_started_total", "labels": {"definition": "order"}, "value": started},
            {"name": "dirigent_sagas_live", "labels": {"definition": "order"}, "value": 12},
            {"name": "dirigent_sagas_stuck", "labels": {"definition": "order"}, "value": 1},
            {"name": "dirigent_sagas_ended_total",
                "labels": {"definition": "order", "outcome": "succeeded"}, "value": started},
            {"name": "dirigent_sagas_ended_total",
                "labels": {"definition": "order", "outcome": "failed"}, "value": started / 10},
            {"name": "dirigent_attempts_total",
                "labels": {"task": "charge", "outcome": "succeeded"}, "value": runs},
            {"name": "dirigent_attempt_duration_seconds", "labels": {"task": "charge", "phase": "run"},
                "count": runs + 100, "sum": 1.0, "buckets": [[0.001, 100], [0.064, runs]]},
            {"name": "dirigent_task_backlog", "labels": {"task": "ship"}, "value": 40},
            {"name": "dirigent_task_oldest_seconds", "labels": {"task": "ship"}, "value": 3.5},
            {"name": "dirigent_partition_lag", "labels": {"partition": "0"}, "value": 3},
            {"name": "dirigent_partition_lease_age_seconds", "labels": {"partition": "0"}, "value": 90}
        ])
    }

    pub(in crate::top) fn board() -> Board {
        let (began, two_seconds) = (Instant::now(), Duration::from_secs(2));
        let before = reading(began, &[("one", samples(100, 50))]);
        let after = [("one", samples(300, 150)), ("new", samples(40, 10))];
        Board::between(&before, &reading(began + two_seconds, &after))
    }

    #[test]
    fn rates_are_of_the_window_and_a_coordinator_that_is_new_does_not_count() {
        let board = board();
        let order = &board.definitions[0];
        assert_eq!((order.started, order.failed), (100.0, 10.0));
        assert_eq!(order.live, 24);
        // What has never been measured is zero, and has no sign.
        let json = serde_json::to_string(&board).unwrap();
        assert!(!json.contains("-0"), "{json}");
    }

    #[test]
    fn a_counter_that_began_again_counts_from_zero() {
        let began = Instant::now();
        let before = reading(began, &[("one", samples(1_000, 0))]);
        let after = reading(began + Duration::from_secs(1), &[("one", samples(30, 0))]);
        let board = Board::between(&before, &after);
        assert_eq!(board.definitions[0].started, 30.0);
    }

    #[test]
    fn latencies_are_of_the_window_and_of_all_before_if_nothing_came() {
        let board = board();
        let charge = board.tasks.iter().find(|of| of.task == "charge").unwrap();
        // All hundred runs of the window lie between 32 and 64 ms.
        assert_eq!(charge.run.p50, Some(0.048));
        let began = Instant::now();
        let still = reading(began, &[("one", samples(0, 100))]);
        let board = Board::between(&still, &reading(began, &[("one", samples(0, 100))]));
        let charge = board.tasks.iter().find(|of| of.task == "charge").unwrap();
        assert_eq!(charge.run.p50, Some(0.001));
        assert_eq!(charge.queue, Latency::default());
    }

    #[test]
    fn once_is_a_text() {
        let board = board();
        let text = render::board(&board.headline(), &board.panels());
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
