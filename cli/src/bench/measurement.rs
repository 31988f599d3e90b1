//! The figures of a workload at one level, of all turns together, and their ratio to the floor's.

use super::{
    installation::Account,
    load::{GRAIN_MS, Pace, Run},
    workload::Workload,
};
use crate::trouble::Trouble;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

const MIB: f64 = 1_048_576.0;

/// All turns of one workload at one level.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    run: Run,
    cpu: BTreeMap<String, Duration>,
    resident: BTreeMap<String, u64>,
    messages: u64,
    snapshots: u64,
    bytes: u64,
    written: u64,
}

impl Turns {
    /// The first turn.
    pub(super) fn new(run: Run, before: &Account, after: &Account) -> Self {
        let mut turns = Self {
            run,
            cpu: BTreeMap::new(),
            resident: BTreeMap::new(),
            messages: 0,
            snapshots: 0,
            bytes: 0,
            written: 0,
        };
        turns.charge(before, after);
        turns
    }

    /// A further turn.
    pub(super) fn add(
        &mut self,
        run: Run,
        before: &Account,
        after: &Account,
    ) -> Result<(), Trouble> {
        let all = &mut self.run;
        all.ended += run.ended;
        all.astray += run.astray;
        all.unfinished += run.unfinished;
        all.refused += run.refused;
        all.left_out += run.left_out;
        all.elapsed += run.elapsed;
        all.latencies.add(run.latencies).map_err(Trouble::bench)?;
        all.throughput.extend(run.throughput);
        self.charge(before, after);
        Ok(())
    }

    fn charge(&mut self, before: &Account, after: &Account) {
        for (before, after) in before.usage.iter().zip(&after.usage) {
            let name = &after.name;
            let cpu = after.cpu.saturating_sub(before.cpu);
            *self.cpu.entry(name.clone()).or_default() += cpu;
            self.resident.insert(name.clone(), after.resident_bytes);
            if name.starts_with("broker") {
                self.written += after.written_bytes.saturating_sub(before.written_bytes);
            }
        }
        let (before, after) = (before.stored, after.stored);
        self.messages += after.messages.saturating_sub(before.messages);
        self.snapshots += after.snapshots.saturating_sub(before.snapshots);
        self.bytes += after.bytes.saturating_sub(before.bytes);
    }

    /// Whether a saga did not end as it should.
    pub(super) fn has_trouble(&self) -> bool {
        self.run.astray + self.run.unfinished > 0
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "figures for people: 53 bits are plenty"
    )]
    pub(super) fn figures(&self, workload: Workload) -> Figures {
        let run = &self.run;
        let sagas = (run.ended + run.astray).max(1) as f64;
        let per_second = run.ended as f64 / run.elapsed.as_secs_f64().max(1e-9);
        let per_saga = |count: u64| count as f64 / sagas;
        let milliseconds = |quantile| run.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let cpu: BTreeMap<String, f64> = self
            .cpu
            .iter()
            .map(|(name, cpu)| (name.clone(), cpu.as_secs_f64() / sagas * 1e3))
            .collect();
        let resident = self.resident.iter();
        Figures {
            sagas: run.ended,
            astray: run.astray,
            unfinished: run.unfinished,
            refused: run.refused,
            left_out: run.left_out,
            sagas_per_second: per_second,
            steps_per_second: per_second * workload.steps() as f64,
            latency_ms: Latency {
                p50: milliseconds(0.5),
                p90: milliseconds(0.9),
                p99: milliseconds(0.99),
                max: milliseconds(1.0),
            },
            cpu_seconds: cpu.values().sum(),
            cpu_seconds_of: cpu,
            resident_mib_of: resident
                .map(|(name, bytes)| (name.clone(), *bytes as f64 / MIB))
                .collect(),
            messages: per_saga(self.messages),
            snapshots: per_saga(self.snapshots),
            bytes: per_saga(self.bytes),
            written: per_saga(self.written),
            throughput: Throughput {
                grain_ms: GRAIN_MS,
                ended: run.throughput.clone(),
            },
            latencies: run.latencies.clone(),
        }
    }
}

/// What is reported of one workload at one level. Costs are per saga unless it says otherwise.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    /// Sagas that ended as they should.
    pub(super) sagas: usize,
    /// Sagas that ended in another way.
    pub(super) astray: usize,
    /// Sagas that did not end.
    pub(super) unfinished: usize,
    /// Starts that were refused because there was too much to do.
    pub(super) refused: usize,
    /// Starts that an open loop left out.
    pub(super) left_out: usize,
    pub(super) sagas_per_second: f64,
    pub(super) steps_per_second: f64,
    pub(super) latency_ms: Latency,
    /// CPU seconds of all processes per 1,000 sagas.
    pub(super) cpu_seconds: f64,
    /// CPU seconds of each process per 1,000 sagas.
    pub(super) cpu_seconds_of: BTreeMap<String, f64>,
    pub(super) resident_mib_of: BTreeMap<String, f64>,
    /// Messages that were stored, buckets aside.
    pub(super) messages: f64,
    /// Writes to the bucket of snapshots.
    pub(super) snapshots: f64,
    /// Bytes that the streams kept: commands are removed when they are done.
    pub(super) bytes: f64,
    /// Bytes that the brokers had the operating system write.
    pub(super) written: f64,
    pub(super) throughput: Throughput,
    #[serde(skip)]
    pub(super) latencies: Histogram<u64>,
}

impl Figures {
    /// CPU seconds per 1,000 sagas of the processes that do the same; none if they are not ours.
    pub(super) fn cpu_of(&self, role: &str) -> Option<f64> {
        sum_of(&self.cpu_seconds_of, role)
    }

    /// Resident memory of the processes that do the same.
    pub(super) fn resident_of(&self, role: &str) -> Option<f64> {
        sum_of(&self.resident_mib_of, role)
    }
}

fn sum_of(figures: &BTreeMap<String, f64>, role: &str) -> Option<f64> {
    let of_role = figures.iter().filter(|(name, _)| name.starts_with(role));
    of_role.map(|(_, figure)| *figure).reduce(|a, b| a + b)
}

/// From the start of a saga to the arrival of its outcome.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// Sagas that ended in each grain of time, turn after turn.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Throughput {
    pub(super) grain_ms: u32,
    pub(super) ended: Vec<u32>,
}

/// One workload at one level.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measurement {
    pub(super) workload: Workload,
    /// Sagas in flight, or starts a second.
    pub(super) load: Pace,
    pub(super) dirigent: Option<Figures>,
    pub(super) floor: Option<Figures>,
    /// How the two compare, if both were measured.
    pub(super) ratio: Option<Ratio>,
}

/// Figures as ratios to the floor's.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Ratio {
    pub(super) sagas_per_second: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    pub(super) cpu_seconds: f64,
    pub(super) messages: f64,
    pub(super) bytes: f64,
    pub(super) written: f64,
}

impl Measurement {
    pub(super) fn new(
        workload: Workload,
        load: Pace,
        dirigent: Option<Figures>,
        floor: Option<Figures>,
    ) -> Self {
        let both = dirigent.as_ref().zip(floor.as_ref());
        Self {
            workload,
            load,
            ratio: both.map(|(ours, floor)| Ratio::new(ours, floor)),
            dirigent,
            floor,
        }
    }
}

impl Ratio {
    fn new(ours: &Figures, floor: &Figures) -> Self {
        let (latency, least) = (ours.latency_ms, floor.latency_ms);
        Self {
            sagas_per_second: ours.sagas_per_second / floor.sagas_per_second,
            p50: latency.p50 / least.p50,
            p90: latency.p90 / least.p90,
            p99: latency.p99 / least.p99,
            max: latency.max / least.max,
            cpu_seconds: ours.cpu_seconds / floor.cpu_seconds,
            messages: ours.messages / floor.messages,
            bytes: ours.bytes / floor.bytes,
            written: ours.written / floor.written,
        }
    }
}
