//! Arguments of the commands that keep running: `dev` and `coordinator`.

use super::operator::duration;
use clap::Args;
use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};

#[derive(Clone, Debug, Args)]
pub(crate) struct DevArguments {
    /// Where the broker keeps its data; it is made if it is not there
    #[arg(long, value_name = "DIR", default_value = ".dirigent")]
    pub(crate) data_dir: PathBuf,
    /// Port of the broker on 127.0.0.1; 4222 if that is free, else any, if it is not said
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Run no example workers and deploy no example definitions
    #[arg(long)]
    pub(crate) no_examples: bool,
    /// Play four sagas, tell how each went, and end
    #[arg(long, conflicts_with = "no_examples")]
    pub(crate) demo: bool,
    /// The nats-server program; looked for in PATH and .venv/bin if it is not said
    #[arg(
        long,
        value_name = "FILE",
        env = "DIRIGENT_NATS_SERVER",
        hide_env_values = true
    )]
    pub(crate) nats_server: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CoordinatorArguments {
    /// How many partitions the installation gets: only when it is created, and then for ever
    #[arg(long, value_name = "N")]
    pub(crate) partitions: Option<NonZeroU16>,
    /// What this coordinator is called in `dirigent status`; its host and process id if not said
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// On how many brokers of a cluster each stream is kept
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) replicas: u8,
    /// How long journals and outcomes are kept, such as 72h; 168h, a week, if it is not said. Only when the
    /// installation is created; `nats stream edit` changes it afterwards
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub(crate) retention: Option<Duration>,
    /// Refuse new sagas, or leave their events in the stream, while more commands than this wait for the
    /// workers of one of their tasks, or more entries than this wait in their partition
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub(crate) start_backlog: u64,
    /// Most commands that wait for the workers of one task; steps that would be more fail with Dirigent.QueueFull
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) queue_limit: u64,
    /// How often a command is delivered to workers that die of it before its saga is stuck; for the consumers
    /// of tasks that no operator has changed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_deliveries: u16,
    /// How long a worker may give no sign of life before its command is delivered again
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub(crate) ack_wait: Duration,
    /// Serve metrics to Prometheus here, such as 127.0.0.1:9464; /healthz and /readyz too
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "DIRIGENT_METRICS_LISTEN",
        hide_env_values = true
    )]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

/// At least a minute: a shorter one would take entries from under the coordinators' hands.
fn retention(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < Duration::from_mins(1) => Err("at least a minute".to_owned()),
        time => Ok(time),
    }
}
