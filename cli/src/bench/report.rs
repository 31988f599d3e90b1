//! The figures, as lines for people and as JSON for programs.

use super::{
    load::Outcome,
    process::{Stored, Usage},
    workload::Workload,
};
use crate::trouble::Trouble;
use serde::Serialize;
use std::collections::BTreeMap;

type Snapshot = (Vec<(&'static str, Usage)>, Stored);

/// One workload at one level.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measurement {
    workload: Workload,
    in_flight: usize,
    sagas: usize,
    sagas_per_second: f64,
    steps_per_second: f64,
    latency_ms: Latency,
    /// CPU seconds per 1,000 sagas, of each process.
    cpu: BTreeMap<&'static str, f64>,
    resident_mib: BTreeMap<&'static str, f64>,
    /// JetStream messages per saga, without snapshots.
    messages: f64,
    snapshots: f64,
    bytes: f64,
}

/// From the request that starts a saga to the arrival of its outcome.
#[derive(Clone, Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Measurement {
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures for people: 53 bits are plenty"
    )]
    pub(super) fn new(
        workload: Workload,
        in_flight: usize,
        outcome: &Outcome,
        before: &Snapshot,
        after: &Snapshot,
    ) -> Self {
        let sagas = outcome.sagas as f64;
        let per_second = sagas / outcome.elapsed.as_secs_f64();
        let milliseconds = |quantile| outcome.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let used = before.0.iter().zip(&after.0);
        let per_saga = |before: u64, after: u64| after.saturating_sub(before) as f64 / sagas;
        Self {
            workload,
            in_flight,
            sagas: outcome.sagas,
            sagas_per_second: per_second,
            steps_per_second: per_second * workload.steps() as f64,
            latency_ms: Latency {
                p50: milliseconds(0.5),
                p90: milliseconds(0.9),
                p99: milliseconds(0.99),
                max: milliseconds(1.0),
            },
            cpu: used
                .map(|((name, before), (_, after))| {
                    let cpu = after.cpu.saturating_sub(before.cpu);
                    (*name, cpu.as_secs_f64() / sagas * 1e3)
                })
                .collect(),
            resident_mib: after
                .0
                .iter()
                .map(|(name, usage)| (*name, usage.resident_bytes as f64 / 1_048_576.0))
                .collect(),
            messages: per_saga(before.1.messages, after.1.messages),
            snapshots: per_saga(before.1.snapshots, after.1.snapshots),
            bytes: per_saga(before.1.bytes, after.1.bytes),
        }
    }

    /// One line; the first one under a heading.
    pub(super) fn line(&self, is_first: bool) -> String {
        let mut text = String::new();
        if is_first {
            text += "workload  in flight   sagas/s   steps/s   p50 ms   p90 ms   p99 ms   max ms  \
                     messages  snapshots   bytes  CPU s per 1,000 sagas\n";
        }
        let total: f64 = self.cpu.values().sum();
        let each: Vec<String> = self
            .cpu
            .iter()
            .map(|(name, cpu)| format!("{name} {cpu:.3}"))
            .collect();
        let name = format!("{:?}", self.workload);
        text += &format!(
            "{name:<8} {:>10} {:>9.0} {:>9.0} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>9.2} {:>10.2} {:>7.0}  {total:.3} ({})\n",
            self.in_flight,
            self.sagas_per_second,
            self.steps_per_second,
            self.latency_ms.p50,
            self.latency_ms.p90,
            self.latency_ms.p99,
            self.latency_ms.max,
            self.messages,
            self.snapshots,
            self.bytes,
            each.join(", "),
        );
        text
    }
}

/// All of them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    version: &'static str,
    measurements: Vec<Measurement>,
}

impl Report {
    pub(super) fn is_empty(&self) -> bool {
        self.measurements.is_empty()
    }

    pub(super) fn add(&mut self, measurement: Measurement) {
        self.version = env!("CARGO_PKG_VERSION");
        self.measurements.push(measurement);
    }

    pub(super) fn json(&self) -> Result<String, Trouble> {
        let text =
            serde_json::to_string_pretty(self).map_err(|error| Trouble::Write(error.into()))?;
        Ok(text + "\n")
    }
}
