//! `bench --compare-traced`: what it costs to trace every saga.
//!
//! Two installations on brokers of their own take turns, one with tracing off, the other exporting every
//! span to a process that counts them and throws them away. That it counts as many as there were is part
//! of the report: what is dropped on the way costs nothing.

mod receiver;

pub(super) use receiver::receive;

use super::{
    installation::Installation,
    load::{self, Keys, Pace},
    measurement::{Figures, Turns},
    report,
    workload::Workload,
};
use crate::{arguments::BenchArguments, render, trouble::Trouble};
use receiver::Receiver;
use serde::Serialize;
use std::{fs, path::Path, time::Duration};

/// Sagas in flight.
const IN_FLIGHT: usize = 256;
/// Sagas of each turn, if their number is not said.
const SAGAS: usize = 5_000;
/// How often each is measured, if that is not said.
const ROUNDS: u16 = 5;
/// Most of the ratios that we allow ourselves.
const BAR: f64 = 1.15;
/// For how long no span arrives when all have.
const SILENCE: Duration = Duration::from_secs(2);

/// What tracing everything costs.
#[derive(Debug, Serialize)]
pub(super) struct Traced {
    version: &'static str,
    workload: Workload,
    in_flight: usize,
    off: Figures,
    on: Figures,
    /// Spans that arrived, for each saga.
    spans_per_saga: f64,
    /// Sagas a second without tracing, for each one with it; of all turns together.
    slowdown: f64,
    /// The same of each round.
    slowdown_of_rounds: Vec<f64>,
    /// CPU time with tracing, for that without; the receiver's is not counted.
    cpu: f64,
    /// What both ratios should stay below.
    bar: f64,
}

/// Measures it.
pub(super) async fn measure(
    arguments: &BenchArguments,
    directory: &Path,
) -> Result<Traced, Trouble> {
    let workload = Workload::W3;
    let arguments = BenchArguments {
        workloads: vec![workload],
        ..arguments.clone()
    };
    let rounds = match arguments.turns.get() {
        1 => ROUNDS,
        rounds => rounds,
    };
    let pace = Pace::Closed {
        in_flight: IN_FLIGHT,
        sagas: arguments.sagas.unwrap_or(SAGAS),
    };
    let receiver = Receiver::start(directory).await?;
    let mut keys = Keys::new();
    let mut sides = Vec::new();
    for (name, endpoint) in [("off", None), ("on", Some(receiver.endpoint()))] {
        let directory = directory.join(name);
        fs::create_dir_all(&directory).map_err(Trouble::Write)?;
        let installation = Installation::traced(&arguments, &directory, endpoint).await?;
        // The first ones find cold caches and consumers that are not there yet.
        load::run(&installation.target, workload, pace.warm_up(), &mut keys).await?;
        sides.push((installation, None::<Turns>, Vec::new()));
    }
    let warm = receiver.settled(SILENCE).await?;
    for round in 1..=rounds {
        for (installation, turns, rates) in &mut sides {
            let before = installation.account().await?;
            let run = load::run(&installation.target, workload, pace, &mut keys).await?;
            let after = installation.account().await?;
            rates.push(rate(run.ended, run.elapsed));
            match turns {
                Some(turns) => turns.add(run, &before, &after)?,
                None => *turns = Some(Turns::new(run, &before, &after)),
            }
        }
        let rates = sides.iter().filter_map(|(_, _, rates)| rates.last());
        let rates: Vec<String> = rates.map(|rate| format!("{rate:.0}")).collect();
        render::say(&format!(
            "round {round}: {} sagas/s\n",
            rates.join(" off, on ")
        ));
    }
    let spans = receiver.settled(SILENCE).await?.saturating_sub(warm);
    let mut figures = Vec::new();
    let mut rates_of_sides = Vec::new();
    for (installation, turns, rates) in sides {
        installation.stop().await;
        figures.extend(turns.map(|turns| turns.figures(workload)));
        rates_of_sides.push(rates);
    }
    receiver.stop().await;
    let (Some(on), Some(off)) = (figures.pop(), figures.pop()) else {
        return Err(Trouble::bench("nothing was measured"));
    };
    let rounds = rates_of_sides[0].iter().zip(&rates_of_sides[1]);
    Ok(Traced {
        version: env!("CARGO_PKG_VERSION"),
        workload,
        in_flight: IN_FLIGHT,
        spans_per_saga: rate(
            usize::try_from(spans).unwrap_or(usize::MAX),
            Duration::from_secs(u64::try_from(on.sagas.max(1)).unwrap_or(u64::MAX)),
        ),
        slowdown: off.sagas_per_second / on.sagas_per_second,
        slowdown_of_rounds: rounds.map(|(off, on)| off / on).collect(),
        cpu: on.cpu_seconds / off.cpu_seconds,
        bar: BAR,
        off,
        on,
    })
}

impl Traced {
    pub(super) fn table(&self) -> String {
        let mut table = render::table(&["tracing", "sagas/s", "p50 ms", "p99 ms", "CPU s/1,000"]);
        for (name, figures) in [("off", &self.off), ("every saga", &self.on)] {
            table.add_row([
                name.to_owned(),
                format!("{:.0}", figures.sagas_per_second),
                format!("{:.2}", figures.latency_ms.p50),
                format!("{:.2}", figures.latency_ms.p99),
                format!("{:.3}", figures.cpu_seconds),
            ]);
        }
        let rounds = self.slowdown_of_rounds.iter();
        let rounds: Vec<String> = rounds.map(|ratio| format!("{ratio:.2}")).collect();
        let ratios = report::figures([
            (
                "slower by a factor of",
                format!("{:.3}", self.slowdown),
                &format!("rounds: {}", rounds.join(" ")),
            ),
            (
                "CPU time by a factor of",
                format!("{:.3}", self.cpu),
                "the receiver's not counted",
            ),
            ("the bar of both", format!("{:.2}", self.bar), ""),
            (
                "spans for each saga",
                format!("{:.2}", self.spans_per_saga),
                "that arrived",
            ),
        ]);
        format!(
            "{} at {} in flight\n{}\n{ratios}",
            self.workload.word(),
            self.in_flight,
            render::lines(&table)
        )
    }

    /// Whether every saga ended as it should.
    pub(super) fn is_well(&self) -> bool {
        let figures = [&self.off, &self.on];
        figures
            .iter()
            .all(|figures| figures.astray + figures.unfinished == 0)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 53 bits are plenty"
)]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}
