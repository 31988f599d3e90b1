//! Arguments of `bench`.

use super::operator::duration;
use crate::bench::Workload;
use clap::{Args, ValueEnum, builder::ArgPredicate};
use std::{
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

#[derive(Clone, Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "flags of a command line are what they are"
)]
pub(crate) struct BenchArguments {
    /// What one saga does; several with commas between
    #[arg(value_enum, value_delimiter = ',', default_value = "w3")]
    pub(crate) workloads: Vec<Workload>,
    /// Closed loop: sagas under way at a time; several levels with commas between
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,64")]
    pub(crate) in_flight: Vec<NonZeroUsize>,
    /// Sagas that are measured at each level; some seconds' worth if it is not said
    #[arg(long, value_name = "N")]
    pub(crate) sagas: Option<usize>,
    /// Open loop: so many starts a second, whatever becomes of them. A saga's latency counts from the
    /// moment at which it was to start
    #[arg(long, value_name = "N", group = "open_loop", conflicts_with_all = ["in_flight", "sagas"])]
    pub(crate) rate: Option<NonZeroU32>,
    /// Find the capacity by a closed loop, then offer it once and N times over by open loops in turns, and
    /// compare how many sagas end well meanwhile
    #[arg(long, value_name = "N", group = "open_loop", value_parser = clap::value_parser!(NonZeroU32), conflicts_with_all = ["floor", "compare_floor", "report"])]
    pub(crate) overload: Option<NonZeroU32>,
    /// How long the open loop goes on
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", requires = "open_loop")]
    pub(crate) duration: Duration,
    /// Measure the floor instead: the same messages, moved without any saga logic
    #[arg(long, conflicts_with_all = ["compare_floor", "join", "live", "finished"])]
    pub(crate) floor: bool,
    /// Measure the floor as well, in turns, and report each figure as a ratio to it
    #[arg(long, conflicts_with = "join")]
    pub(crate) compare_floor: bool,
    /// How often each level is measured; the figures are those of all turns together
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        default_value_ifs([
            ("compare_floor", ArgPredicate::Equals("true".into()), "4"),
            ("overload", ArgPredicate::IsPresent, "3"),
        ])
    )]
    pub(crate) turns: NonZeroU16,
    /// First start so many sagas that go on waiting, half for a timer and half for an event
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) live: usize,
    /// First run so many sagas of three steps to their end
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) finished: usize,
    /// Partitions of the installation, if it is created
    #[arg(long, value_name = "N")]
    pub(crate) partitions: Option<NonZeroU16>,
    /// Coordinator processes; 0 with --join if others run there already
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) coordinators: u16,
    /// Worker processes; 0 with --join if `dirigent bench-worker` runs elsewhere
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) workers: u16,
    /// Keep each stream on so many brokers: 3 starts a cluster of three
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) replicas: u8,
    /// When the broker writes through to the disk: `default` every two minutes, `always` before it acknowledges
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        conflicts_with = "join"
    )]
    pub(crate) sync: Sync,
    /// Use the broker at --nats-url, and leave there what was measured
    #[arg(long)]
    pub(crate) join: bool,
    /// Measure the start and the idling of the coordinator instead
    #[arg(long, conflicts_with_all = ["workloads", "in_flight", "rate", "floor", "compare_floor", "join", "overload", "live", "finished", "report"])]
    pub(crate) startup: bool,
    /// Measure how long a partition is without an owner that dies, with 100,000 waiting sagas or as many as
    /// --live says
    #[arg(long, conflicts_with_all = ["workloads", "in_flight", "rate", "floor", "compare_floor", "join", "startup", "overload", "finished", "report", "coordinators", "partitions"])]
    pub(crate) takeover: bool,
    /// Measure what tracing every saga costs instead: three steps, 256 in flight, in 5 turns or as many as
    /// --turns says
    #[arg(long, conflicts_with_all = ["workloads", "in_flight", "rate", "floor", "compare_floor", "join", "startup", "takeover", "live", "finished"])]
    pub(crate) compare_traced: bool,
    /// Also write a page with charts: latencies, and throughput over time
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// The nats-server program; looked for in PATH and .venv/bin if it is not said
    #[arg(
        long,
        value_name = "FILE",
        env = "DIRIGENT_NATS_SERVER",
        hide_env_values = true
    )]
    pub(crate) nats_server: Option<PathBuf>,
}

/// When the broker writes through to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sync {
    /// Every two minutes, as the server does unless told otherwise
    #[default]
    Default,
    /// Before a message is acknowledged
    Always,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BenchWorkerArguments {
    /// Commands of each task that it works on at a time
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) concurrency: usize,
}

/// A process of the floor.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchFloorArguments {
    /// Which one
    #[arg(value_enum)]
    pub(crate) part: FloorPart,
    /// The recorded sagas
    #[arg(long, value_name = "FILE")]
    pub(crate) recordings: PathBuf,
}

/// Whose place a process of the floor takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloorPart {
    /// The coordinator's
    Coordinator,
    /// The worker's
    Worker,
}
