//! The durable pull consumer that the workers of one task share.
//!
//! Whoever comes first creates it, a coordinator at a deployment or a worker at its start; so both
//! take its settings from here. One that exists is left as it is: an operator may have changed it.

use crate::{id::TaskName, subject};
use std::time::Duration;

/// How long a delivered command may stay without a sign of life before it is delivered again.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// How often a command is delivered before the broker gives up on it.
pub const MAX_DELIVERIES: i64 = 20;
/// Commands of one task that may be out at workers at one time: its global concurrency.
pub const MAX_ACK_PENDING: i64 = 1_000;
/// Pull requests that may wait at one time: a few of each worker process.
pub const MAX_WAITING: i64 = 4_096;

/// Settings of a task's consumer on [`subject::COMMANDS_STREAM`]. The ack policy is explicit, the
/// deliver policy is all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandConsumer {
    /// Durable name.
    pub name: String,
    /// The commands that it delivers.
    pub filter_subject: String,
    /// See [`ACK_WAIT`].
    pub ack_wait: Duration,
    /// See [`MAX_DELIVERIES`].
    pub max_deliver: i64,
    /// See [`MAX_ACK_PENDING`].
    pub max_ack_pending: i64,
    /// See [`MAX_WAITING`].
    pub max_waiting: i64,
}

impl CommandConsumer {
    /// The consumer of this task.
    #[must_use]
    pub fn of(task: &TaskName) -> Self {
        Self {
            name: subject::command_consumer(task),
            filter_subject: subject::command_filter(task),
            ack_wait: ACK_WAIT,
            max_deliver: MAX_DELIVERIES,
            max_ack_pending: MAX_ACK_PENDING,
            max_waiting: MAX_WAITING,
        }
    }
}
