//! What happens to a simulated installation: which sagas are started, and what goes wrong when.
//!
//! A schedule is written out before it runs, so that it can be shortened part by part and printed.

use super::scenario::{PARTITIONS, STARTED};

/// A second of virtual time, in microseconds.
pub(super) const SECOND: i64 = 1_000_000;
/// Coordinators of the installation.
pub(super) const COORDINATORS: usize = 3;
/// Worker processes of the installation; each does every task.
pub(super) const WORKERS: usize = 2;
/// Nothing goes wrong any more after this time.
pub(super) const CALM: i64 = 40 * SECOND;

/// A stream of the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StreamName {
    Journal(u16),
    Commands,
    Events,
    Sagas,
    Partitions,
}

/// All streams.
pub(super) const STREAMS: [StreamName; 6] = [
    StreamName::Journal(0),
    StreamName::Journal(1),
    StreamName::Commands,
    StreamName::Events,
    StreamName::Sagas,
    StreamName::Partitions,
];

/// A saga that is started from outside, by a trigger event.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) at: i64,
    pub(super) definition: &'static str,
    pub(super) key: usize,
    /// When the event that it may await is published.
    pub(super) paid_at: i64,
    pub(super) canceled_at: Option<i64>,
}

/// For a while requests and answers are lost, late, or old, each with so many chances in a thousand.
#[derive(Clone, Debug)]
pub(super) struct Noise {
    pub(super) at: i64,
    pub(super) until: i64,
    pub(super) lost: u32,
    pub(super) unanswered: u32,
    pub(super) late: u32,
    pub(super) stale: u32,
}

/// Something that goes wrong. Times are microseconds since the beginning.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Noise(Noise),
    /// A coordinator dies, and begins anew.
    Crash {
        at: i64,
        coordinator: usize,
        down: i64,
    },
    /// A coordinator stands still.
    Pause {
        at: i64,
        coordinator: usize,
        still: i64,
    },
    /// A coordinator does not reach the broker.
    CutOff {
        at: i64,
        coordinator: usize,
        apart: i64,
    },
    /// A coordinator's clock jumps.
    Skew {
        at: i64,
        coordinator: usize,
        by: i64,
    },
    /// A stream forgets the ids of its messages.
    ForgetIds {
        at: i64,
        stream: StreamName,
    },
    /// A stream has no leader: it answers nothing, and the next leader's clock is off.
    LoseLeader {
        at: i64,
        stream: StreamName,
        down: i64,
        skew: i64,
    },
    /// A worker dies with what it has in hand, and begins anew.
    CrashWorker {
        at: i64,
        worker: usize,
        down: i64,
    },
}

/// A run, whole.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) plans: Vec<Plan>,
    pub(super) faults: Vec<Fault>,
}

impl Schedule {
    /// The schedule of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plans = (0..rng.usize(2..7)).map(|key| {
            let at = rng.i64(0..15 * SECOND);
            Plan {
                at,
                definition: STARTED[rng.usize(..STARTED.len())],
                key,
                paid_at: (at + rng.i64(-SECOND..14 * SECOND)).max(0),
                canceled_at: (rng.u8(..8) == 0).then(|| at + rng.i64(0..8 * SECOND)),
            }
        });
        let plans = plans.collect();
        let faults = (0..rng.usize(1..9)).map(|_| fault(&mut rng)).collect();
        Self {
            seed,
            plans,
            faults,
        }
    }
}

fn fault(rng: &mut fastrand::Rng) -> Fault {
    let at = rng.i64(0..25 * SECOND);
    let coordinator = rng.usize(..COORDINATORS);
    let for_a_while = rng.i64(SECOND / 10..12 * SECOND);
    let stream = STREAMS[rng.usize(..STREAMS.len())];
    match rng.u8(..10) {
        0 | 1 => Fault::Noise(Noise {
            at,
            until: at + for_a_while,
            lost: rng.u32(..200),
            unanswered: rng.u32(..300),
            late: rng.u32(..200),
            stale: rng.u32(..600),
        }),
        2 | 3 => Fault::Crash {
            at,
            coordinator,
            down: for_a_while,
        },
        4 => Fault::Pause {
            at,
            coordinator,
            still: for_a_while,
        },
        5 => Fault::CutOff {
            at,
            coordinator,
            apart: for_a_while,
        },
        6 => Fault::Skew {
            at,
            coordinator,
            by: rng.i64(-20 * SECOND..20 * SECOND),
        },
        7 => Fault::ForgetIds {
            at,
            stream: match rng.u16(..4) {
                0 => StreamName::Commands,
                1 => StreamName::Events,
                _ => StreamName::Journal(rng.u16(..PARTITIONS)),
            },
        },
        8 => Fault::LoseLeader {
            at,
            stream,
            down: for_a_while / 3,
            skew: rng.i64(-SECOND / 5..SECOND / 5),
        },
        _ => Fault::CrashWorker {
            at,
            worker: rng.usize(..WORKERS),
            down: for_a_while,
        },
    }
}

impl Fault {
    /// When it begins.
    pub(super) fn at(&self) -> i64 {
        match self {
            Self::Noise(Noise { at, .. })
            | Self::Crash { at, .. }
            | Self::Pause { at, .. }
            | Self::CutOff { at, .. }
            | Self::Skew { at, .. }
            | Self::ForgetIds { at, .. }
            | Self::LoseLeader { at, .. }
            | Self::CrashWorker { at, .. } => *at,
        }
    }
}
