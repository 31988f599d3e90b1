//! What a handler knows about the command that it works on.

use dirigent_contracts::{
    header::TraceContext,
    id::{CommandId, EffectId, RunId, SagaAddress, TaskName},
    limits::Limit,
    task::{Command, Direction},
    time::Timestamp,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a handler knows about the command that it works on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TaskContext {
    pub(crate) command: Arc<Command>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) cancellation: CancellationToken,
    pub(crate) pulse: Arc<Notify>,
}

impl TaskContext {
    /// The idempotency key: the same in every attempt and every delivery of one step, and never
    /// shared by two steps. Store it with whatever the step changes.
    pub fn effect_id(&self) -> EffectId {
        self.command.effect
    }

    /// Identity of this attempt.
    pub fn command_id(&self) -> CommandId {
        self.command.command
    }

    /// Which attempt this is; the first is 1.
    pub fn attempt(&self) -> u32 {
        self.command.attempt
    }

    /// The task.
    pub fn task(&self) -> &TaskName {
        &self.command.task
    }

    /// Definition and key of the saga that asks.
    pub fn saga(&self) -> &SagaAddress {
        &self.command.saga
    }

    /// The run of that saga.
    pub fn run(&self) -> RunId {
        self.command.run
    }

    /// Name of the state that asks.
    pub fn state(&self) -> &str {
        &self.command.state
    }

    /// Do or undo.
    pub fn direction(&self) -> Direction {
        self.command.direction
    }

    /// The effect that is to be undone, if this is an undo. It may never have happened; then undoing
    /// it succeeds by doing nothing.
    pub fn undoes(&self) -> Option<EffectId> {
        self.command.undoes
    }

    /// The token with which somebody completes the step later, if the step waits for one. The answer
    /// of the handler then only says whether the request was passed on.
    pub fn token(&self) -> Option<&str> {
        self.command.token.as_deref()
    }

    /// When the coordinator gives up on this attempt. A handler that is late is not interrupted, and
    /// its answer is still recorded.
    pub fn deadline(&self) -> Timestamp {
        self.command.deadline
    }

    /// Largest output that the saga takes, in bytes of JSON.
    pub fn most_output(&self) -> u64 {
        let default = Limit::Payload.default();
        self.command.most_output.unwrap_or(default)
    }

    /// Time until the deadline by the local clock; zero once it has passed.
    pub fn remaining(&self) -> Duration {
        self.command.deadline.since(now())
    }

    /// Cancelled when the worker is asked to stop. A handler that takes long may then end early with
    /// an error; one that does not end within the drain limit is dropped, and its command goes to
    /// another worker.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Sends a heartbeat now, if the step wants heartbeats. They are sent by themselves as well, for
    /// as long as the handler runs.
    pub fn heartbeat(&self) {
        self.pulse.notify_one();
    }

    /// The trace in which the handler runs, for calls to services that know W3C trace context.
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.trace
    }
}

/// The local clock.
pub(crate) fn now() -> Timestamp {
    // A clock before 1970 is taken as 1970.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
