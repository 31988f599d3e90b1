//! `bench --overload`: what becomes of sagas when more are asked for than can be done.
//!
//! A closed loop finds the capacity. Then an open loop offers that many starts a second and several
//! times as many, in turns, so that a machine that is busy with other things is so for both. Goodput is
//! what ended as it should *while it was offered*: what had to wait longer does not count.

use super::{
    installation::Installation,
    load::{self, GRAIN_MS, Keys, Pace, Run},
    workload::Workload,
};
use crate::{
    arguments::{BenchArguments, BrokerArguments},
    render,
    trouble::Trouble,
};
use comfy_table::CellAlignment;
use serde::Serialize;
use std::{num::NonZeroU32, path::Path, time::Duration};

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Overload {
    workload: Workload,
    /// How many times over.
    factor: u32,
    /// Sagas a second of a closed loop, and how many it had under way.
    capacity: f64,
    in_flight: usize,
    duration_s: f64,
    rounds: Vec<Round>,
    /// The median of the rounds' ratios.
    ratio: f64,
}

/// One turn of both.
#[derive(Debug, Serialize)]
struct Round {
    once: Offer,
    over: Offer,
    /// Goodput of the second to that of the first.
    ratio: f64,
}

/// What was offered, and what came of it.
#[derive(Debug, Serialize)]
struct Offer {
    /// Starts a second.
    rate: u32,
    /// Sagas a second that ended as they should while it was offered.
    goodput: f64,
    /// Sagas that ended as they should, afterwards too.
    ended: usize,
    /// Starts that were refused.
    refused: usize,
    /// Starts that were left out because too many were under way.
    left_out: usize,
    /// Sagas that ended in another way, or did not end.
    astray: usize,
    unfinished: usize,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures it.
pub(super) async fn measure(
    broker: &BrokerArguments,
    arguments: &BenchArguments,
    factor: NonZeroU32,
    directory: &Path,
) -> Result<Overload, Trouble> {
    let [workload] = arguments.workloads[..] else {
        return Err(Trouble::bench("--overload measures one workload at a time"));
    };
    let most = arguments.in_flight.iter().max();
    let in_flight = most.map_or(1, |most| most.get());
    let installation = Installation::dirigent(broker, arguments, directory).await?;
    let mut keys = Keys::new();
    installation.prepare(arguments, &mut keys).await?;
    let closed = Pace::Closed {
        in_flight,
        sagas: arguments.sagas.unwrap_or_else(|| workload.sagas(in_flight)),
    };
    let target = &installation.target;
    load::run(target, workload, closed.warm_up(), &mut keys).await?;
    let run = load::run(target, workload, closed, &mut keys).await?;
    let capacity = per_second(run.ended, run.elapsed);
    render::say(&format!("capacity: {capacity:.0} sagas/s\n"));
    let mut rounds = Vec::new();
    for _ in 0..arguments.turns.get() {
        let mut offers = Vec::new();
        for times in [1, factor.get()] {
            let pace = Pace::Open {
                rate: rate(capacity * f64::from(times)),
                duration: arguments.duration,
            };
            let run = load::run(target, workload, pace, &mut keys).await?;
            let offer = Offer::new(pace, &run);
            render::say(&format!(
                "{pace}: {:.0} sagas/s ended well\n",
                offer.goodput
            ));
            offers.push(offer);
        }
        rounds.extend(Round::of(offers));
    }
    installation.stop().await;
    let mut ratios: Vec<f64> = rounds.iter().map(|round| round.ratio).collect();
    ratios.sort_by(f64::total_cmp);
    Ok(Overload {
        workload,
        factor: factor.get(),
        capacity,
        in_flight,
        duration_s: arguments.duration.as_secs_f64(),
        ratio: ratios.get(ratios.len() / 2).copied().unwrap_or_default(),
        rounds,
    })
}

impl Overload {
    /// Whether every saga that began ended as it should.
    pub(super) fn is_well(&self) -> bool {
        let offers = self.rounds.iter().flat_map(|it| [&it.once, &it.over]);
        offers.map(|it| it.astray + it.unfinished).sum::<usize>() == 0
    }

    pub(super) fn table(&self) -> String {
        let mut table = render::table(&[
            "offered/s",
            "goodput/s",
            "refused",
            "p50 ms",
            "p99 ms",
            "ratio",
        ]);
        for round in &self.rounds {
            for (offer, ratio) in [(&round.once, None), (&round.over, Some(round.ratio))] {
                table.add_row([
                    offer.rate.to_string(),
                    format!("{:.0}", offer.goodput),
                    offer.refused.to_string(),
                    format!("{:.0}", offer.p50_ms),
                    format!("{:.0}", offer.p99_ms),
                    ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                ]);
            }
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!(
            "{}: {:.0} sagas/s with {} under way; goodput at {} times that is {:.2} of that at once\n{}",
            self.workload.word(),
            self.capacity,
            self.in_flight,
            self.factor,
            self.ratio,
            render::lines(&table)
        );
        if !self.is_well() {
            text += "some sagas ended in another way than they should, or did not end\n";
        }
        text
    }
}

impl Round {
    fn of(offers: Vec<Offer>) -> Option<Self> {
        let [once, over] = <[Offer; 2]>::try_from(offers).ok()?;
        Some(Self {
            ratio: over.goodput / once.goodput.max(f64::MIN_POSITIVE),
            once,
            over,
        })
    }
}

impl Offer {
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures for people: 53 bits are plenty"
    )]
    fn new(pace: Pace, run: &Run) -> Self {
        let (rate, duration) = match pace {
            Pace::Open { rate, duration } => (rate, duration),
            Pace::Closed { .. } => (0, run.elapsed),
        };
        let milliseconds = |quantile| run.latencies.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            rate,
            goodput: per_second(ended_within(run, duration), duration),
            ended: run.ended,
            refused: run.refused,
            left_out: run.left_out,
            astray: run.astray,
            unfinished: run.unfinished,
            p50_ms: milliseconds(0.5),
            p99_ms: milliseconds(0.99),
        }
    }
}

/// Sagas that ended as they should before so much time had passed.
fn ended_within(run: &Run, duration: Duration) -> usize {
    let grains = duration.as_millis() / u128::from(GRAIN_MS);
    let grains = usize::try_from(grains).unwrap_or(usize::MAX);
    let within = run.throughput.iter().take(grains);
    within.map(|ended| *ended as usize).sum()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 53 bits are plenty"
)]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates of starts are small and positive"
)]
fn rate(per_second: f64) -> u32 {
    per_second.round().max(1.0) as u32
}
