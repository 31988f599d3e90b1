//! The load: starts sagas, and hears how they end.
//!
//! One task does both. A closed loop starts a saga as soon as another has ended; an open loop starts
//! them at their times, whatever becomes of the others, and counts each latency from the time at
//! which the saga *was to* start: a system that stalls cannot hide it by keeping the load waiting.

use super::{
    target::{Started, Target},
    workload::Workload,
};
use crate::trouble::Trouble;
use dirigent_contracts::{id::SagaKey, subject};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};
use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};
use tokio::time::MissedTickBehavior;

/// When nothing ends for so long, what is under way is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Precision of the latencies, in significant digits.
const DIGITS: u8 = 3;
/// Most sagas under way in an open loop: starts beyond that are left out, and counted.
const MOST_UNDER_WAY: usize = 65_536;
/// How long a closed loop rests when a start is refused.
const REST: Duration = Duration::from_millis(5);
/// The grain of the throughput over time, in milliseconds.
pub(super) const GRAIN_MS: u32 = 100;

/// When sagas are started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// So many under way at a time, until so many have been started.
    Closed {
        /// Sagas under way.
        in_flight: usize,
        /// Sagas in all.
        sagas: usize,
    },
    /// So many a second.
    Open {
        /// Starts a second.
        rate: u32,
        /// For how long.
        duration: Duration,
    },
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { in_flight, .. } => write!(f, "{in_flight}"),
            Self::Open { rate, .. } => write!(f, "{rate}/s"),
        }
    }
}

impl Serialize for Pace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// When the next saga starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    /// At this time, perhaps long past.
    At(Instant),
    /// When another has ended.
    WhenOneEnds,
    /// All have been started.
    Never,
}

impl Pace {
    /// A tenth of it.
    pub(super) fn warm_up(self) -> Self {
        match self {
            Self::Closed { in_flight, sagas } => Self::Closed {
                in_flight,
                sagas: sagas.div_ceil(10),
            },
            Self::Open { rate, duration } => Self::Open {
                rate,
                duration: duration / 10,
            },
        }
    }

    fn next(self, began: Instant, started: usize, under_way: usize) -> Next {
        match self {
            Self::Closed { sagas, .. } if started >= sagas => Next::Never,
            Self::Closed { in_flight, .. } if under_way >= in_flight => Next::WhenOneEnds,
            Self::Closed { .. } => Next::At(Instant::now()),
            Self::Open { rate, duration } => {
                let at = Duration::from_secs(started as u64) / rate;
                if at < duration {
                    Next::At(began + at)
                } else {
                    Next::Never
                }
            }
        }
    }
}

/// How one run of the load went.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Sagas that ended as they should.
    pub(super) ended: usize,
    /// Sagas that ended in another way.
    pub(super) astray: usize,
    /// Sagas that had not ended when nothing ended any more.
    pub(super) unfinished: usize,
    /// Starts that were refused because there was too much to do.
    pub(super) refused: usize,
    /// Starts that an open loop left out because too many were under way.
    pub(super) left_out: usize,
    /// Until the last one ended.
    pub(super) elapsed: Duration,
    /// From start to outcome, in microseconds.
    pub(super) latencies: Histogram<u64>,
    /// Sagas that ended in each [`GRAIN_MS`] of time.
    pub(super) throughput: Vec<u32>,
}

type Starting = BoxFuture<'static, (SagaKey, Result<Started, Trouble>)>;

/// Runs sagas to their end. The keys that `keys` gives are new ones.
pub(super) async fn run(
    target: &Target,
    workload: Workload,
    pace: Pace,
    keys: &mut Keys,
) -> Result<Run, Trouble> {
    let client = target.client();
    let outcomes = format!("dirigent.event.{}.*.*", workload.name());
    let mut outcomes = client.subscribe(outcomes).await.map_err(Trouble::bench)?;
    client.flush().await.map_err(Trouble::bench)?;
    let mut run = Run {
        ended: 0,
        astray: 0,
        unfinished: 0,
        refused: 0,
        left_out: 0,
        elapsed: Duration::ZERO,
        latencies: Histogram::new(DIGITS).map_err(Trouble::bench)?,
        throughput: Vec::new(),
    };
    let mut starting: FuturesUnordered<Starting> = FuturesUnordered::new();
    let mut under_way: HashMap<SagaKey, Instant> = HashMap::new();
    let mut look = tokio::time::interval(Duration::from_secs(1));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    let (mut started, mut last_end, mut not_before) = (0, began, began);
    loop {
        let next = pace.next(began, started, under_way.len());
        if next == Next::Never && under_way.is_empty() && starting.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            outcome = outcomes.next() => {
                let outcome = outcome.ok_or_else(|| Trouble::bench("the connection is closed"))?;
                let Ok((saga, status)) = subject::parse_event(&outcome.subject) else {
                    continue;
                };
                let Some(since) = under_way.remove(&saga.key) else {
                    continue;
                };
                last_end = Instant::now();
                if status == workload.outcome().as_str() {
                    run.note(began, since, last_end)?;
                } else {
                    run.astray += 1;
                }
            }
            Some((key, result)) = starting.next(), if !starting.is_empty() => {
                if matches!(result?, Started::Refused) {
                    run.refused += 1;
                    under_way.remove(&key);
                    if matches!(pace, Pace::Closed { .. }) {
                        not_before = Instant::now() + REST;
                    }
                }
            }
            intended = until(next, not_before) => {
                started += 1;
                if under_way.len() >= MOST_UNDER_WAY {
                    run.left_out += 1;
                    continue;
                }
                let key = keys.next()?;
                under_way.insert(key.clone(), intended);
                let start = target.start(workload, key.clone())?;
                starting.push(async move { (key, start.await) }.boxed());
            }
            _ = look.tick() => {
                let is_over = under_way.is_empty() || last_end.elapsed() < PATIENCE;
                if !is_over {
                    run.unfinished = under_way.len();
                    break;
                }
            }
        }
    }
    run.elapsed = last_end.duration_since(began);
    Ok(run)
}

/// Gives the time at which the next saga was to start, when that has come.
async fn until(next: Next, not_before: Instant) -> Instant {
    let Next::At(intended) = next else {
        return std::future::pending().await;
    };
    let at = intended.max(not_before);
    if at > Instant::now() {
        tokio::time::sleep_until(at.into()).await;
    }
    intended
}

impl Run {
    fn note(&mut self, began: Instant, since: Instant, end: Instant) -> Result<(), Trouble> {
        self.ended += 1;
        let latency = end.duration_since(since).as_micros();
        self.latencies
            .record(u64::try_from(latency).unwrap_or(u64::MAX))
            .map_err(Trouble::bench)?;
        let grain = end.duration_since(began).as_millis() / u128::from(GRAIN_MS);
        let grain = usize::try_from(grain).unwrap_or(usize::MAX);
        if self.throughput.len() <= grain {
            self.throughput.resize(grain + 1, 0);
        }
        self.throughput[grain] += 1;
        Ok(())
    }
}

/// Gives keys that no saga has had, all of one length.
#[derive(Debug)]
pub(super) struct Keys {
    session: u32,
    given: u32,
}

impl Keys {
    /// Keys of a new measurement.
    pub(super) fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // The lower 32 bits of milliseconds come again after 50 days; a journal is kept for 7.
        let session = now.map_or(0, |now| now.as_millis() & u128::from(u32::MAX));
        Self {
            session: u32::try_from(session).unwrap_or_default(),
            given: 0,
        }
    }

    pub(super) fn next(&mut self) -> Result<SagaKey, Trouble> {
        self.given += 1;
        let Self { session, given } = self;
        SagaKey::new(format!("{session:08x}-{given:08x}")).map_err(Trouble::bench)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_keeps_to_its_times_however_many_are_under_way() {
        let pace = Pace::Open {
            rate: 4,
            duration: Duration::from_secs(1),
        };
        let began = Instant::now();
        let times: Vec<Next> = (0..5).map(|n| pace.next(began, n, 1_000)).collect();
        let at = |millis| Next::At(began + Duration::from_millis(millis));
        assert_eq!(times, [at(0), at(250), at(500), at(750), Next::Never]);
    }

    #[test]
    fn a_closed_loop_waits_for_a_place() {
        let pace = Pace::Closed {
            in_flight: 2,
            sagas: 3,
        };
        let now = Instant::now();
        assert!(matches!(pace.next(now, 0, 0), Next::At(_)));
        assert_eq!(pace.next(now, 2, 2), Next::WhenOneEnds);
        assert_eq!(pace.next(now, 3, 2), Next::Never);
    }

    #[test]
    fn no_key_is_given_twice() {
        let mut keys = Keys::new();
        let (first, second) = (keys.next().unwrap(), keys.next().unwrap());
        assert_ne!(first, second);
        assert_eq!(first.as_str().len(), second.as_str().len());
    }
}
