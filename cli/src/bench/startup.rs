//! `bench --startup`: how fast it is there, and what it costs while nothing happens.

use super::{
    broker::Broker,
    installation::{coordinators, wait_until_owned},
    process::{Fleet, Usage},
    report,
};
use crate::{arguments::BenchArguments, trouble::Trouble};
use serde::Serialize;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How often `--help` is asked for, and how often a coordinator is started; the median counts.
const HELP_TRIES: usize = 21;
const START_TRIES: usize = 5;
/// How long the coordinator is watched while it has nothing to do, and how long it rests before.
const IDLE_TIME: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(2);
const MIB: f64 = 1_048_576.0;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Startup {
    /// `dirigent --help`, from its start to its end.
    help_ms: f64,
    binary_mib: f64,
    /// From the start of the coordinator's process, on a broker that holds nothing, until it owns
    /// all partitions.
    ready_ms: f64,
    /// Per cent of one core.
    idle_cpu_percent: f64,
    idle_resident_mib: f64,
}

/// Measures it.
pub(super) async fn measure(
    arguments: &BenchArguments,
    directory: &Path,
) -> Result<Startup, Trouble> {
    let program = std::env::current_exe().map_err(Trouble::bench)?;
    let mut helps = Vec::new();
    for _ in 0..HELP_TRIES {
        let began = Instant::now();
        Command::new(&program)
            .arg("--help")
            .stdout(Stdio::null())
            .status()
            .map_err(Trouble::bench)?;
        helps.push(began.elapsed());
    }
    let mut starts = Vec::new();
    let mut usage = None;
    for number in 0..START_TRIES {
        let home = directory.join(format!("start-{number}"));
        fs::create_dir_all(&home).map_err(Trouble::Write)?;
        let broker = Broker::start(arguments, &home).await?;
        let mut fleet = Fleet::new(&broker);
        let began = Instant::now();
        fleet.hire(&coordinators(arguments), &broker, &home)?;
        wait_until_owned(&broker.connection, arguments).await?;
        starts.push(began.elapsed());
        if number + 1 == START_TRIES {
            tokio::time::sleep(REST).await;
            let before = coordinator(&fleet)?;
            tokio::time::sleep(IDLE_TIME).await;
            usage = Some((before, coordinator(&fleet)?));
        }
        fleet.stop().await;
        broker.stop().await;
    }
    let (before, after) = usage.ok_or_else(|| Trouble::bench("no coordinator was started"))?;
    let idle = after.cpu.saturating_sub(before.cpu);
    let size = fs::metadata(&program).map_err(Trouble::bench)?.len();
    Ok(Startup {
        help_ms: median(helps),
        binary_mib: mib(size),
        ready_ms: median(starts),
        idle_cpu_percent: 100.0 * idle.as_secs_f64() / IDLE_TIME.as_secs_f64(),
        idle_resident_mib: mib(after.resident_bytes),
    })
}

impl Startup {
    pub(super) fn table(&self) -> String {
        let rows = [
            ("dirigent --help", self.help_ms, "ms"),
            ("the binary", self.binary_mib, "MiB"),
            (
                "from a coordinator's start on an empty broker until it owns all partitions",
                self.ready_ms,
                "ms",
            ),
            ("an idle coordinator", self.idle_cpu_percent, "% of a core"),
            ("", self.idle_resident_mib, "MiB resident"),
        ];
        report::figures(rows.map(|(what, figure, unit)| (what, format!("{figure:.1}"), unit)))
    }
}

fn coordinator(fleet: &Fleet) -> Result<Usage, Trouble> {
    let mut usage = fleet.usage().into_iter();
    let found = usage.find(|usage| usage.name.starts_with("coordinator"));
    found.ok_or_else(|| Trouble::bench("the coordinator is gone"))
}

/// The middle one, in milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    middle.as_secs_f64() * 1e3
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 53 bits are plenty"
)]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_counts() {
        let times = [9, 1, 5].map(Duration::from_millis);
        assert!((median(times.to_vec()) - 5.0).abs() < 1e-9);
    }
}
