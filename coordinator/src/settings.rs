//! What a coordinator can be told when it starts.

use crate::{containment::Probe, metrics::Metrics};
use dirigent_contracts::consumer;
use std::{net::SocketAddr, time::Duration};

/// Settings of one coordinator. `Default` is right for most.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this coordinator among the others. A restarted coordinator that keeps its name takes
    /// its partitions back at once; two that run at a time must not share one.
    pub name: String,
    /// How many partitions the installation gets when it is created. `None`: 4 when it is created,
    /// else as many as it has. It can never be changed afterwards.
    pub partitions: Option<u16>,
    /// How many servers keep each stream and bucket that is created.
    pub replicas: usize,
    /// How long journals and outcomes are kept, if the installation is created. `None`: 7 days then, else
    /// as it is. An installation that keeps them for another time than asked for is an error.
    pub retention: Option<Duration>,
    /// A saga whose last change is older is saved; also how often the checkpoint moves.
    pub snapshot_interval: Duration,
    /// How long stopping waits for what is under way.
    pub drain_timeout: Duration,
    /// New sagas are refused, or wait as events, while more commands than this wait for the workers of
    /// one of their tasks, or more entries and effects than this wait in their partition.
    pub start_backlog: u64,
    /// Most commands that wait for the workers of one task. A step whose command would be one more
    /// fails with `Dirigent.QueueFull`; undos are always asked for.
    pub queue_limit: u64,
    /// How often a command is delivered to workers that do not answer, before its saga is stuck.
    pub max_deliveries: i64,
    /// How long a worker may give no sign of life before its command is delivered again.
    pub ack_wait: Duration,
    /// Whether payloads, and words that may quote them, are logged.
    pub log_payloads: bool,
    /// Where it counts what it does.
    pub metrics: Metrics,
    /// Called with every entry before it is folded: a test's way to break a fold off.
    #[doc(hidden)]
    pub probe: Option<Probe>,
    /// Where to serve the metrics to Prometheus, and `/healthz` and `/readyz`; nowhere if `None`.
    pub metrics_listen: Option<SocketAddr>,
}

/// How long journals and outcomes are kept unless it is said.
const DEFAULT_RETENTION: Duration = Duration::from_hours(7 * 24);

impl Settings {
    /// How long what is created keeps its messages.
    #[must_use]
    pub fn retention_of_new(&self) -> Duration {
        self.retention.unwrap_or(DEFAULT_RETENTION)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: format!(
                "coordinator-{}",
                &uuid::Uuid::now_v7().simple().to_string()[20..]
            ),
            partitions: None,
            replicas: 1,
            retention: None,
            snapshot_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(10),
            start_backlog: 2_000,
            queue_limit: 100_000,
            max_deliveries: consumer::MAX_DELIVERIES,
            ack_wait: consumer::ACK_WAIT,
            log_payloads: false,
            metrics: Metrics::default(),
            probe: None,
            metrics_listen: None,
        }
    }
}
