//! What happened to a saga, told as typed events.
//!
//! A history is never stored: folding the saga's journal entries again gives it, entry by entry, so
//! it cannot disagree with what the engine did. Traces, timelines and projections into other forms
//! are all made from this one stream.

pub mod asl;

use crate::{
    id::{CommandId, DefinitionDigest, EffectId, JournalSeq, RunId, SagaAddress, TaskName},
    journal::{Parent, Trigger},
    outcome::{Failure, Outcome},
    task::{Direction, Timing},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// One thing that happened to a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// The journal entry that caused it.
    pub seq: JournalSeq,
    /// The time of that entry.
    pub at: Timestamp,
    /// The scope in which it happened: 0 is the saga itself, each branch of a Parallel and each
    /// iteration of a Map has one of its own.
    pub scope: u32,
    /// Which of the states that its scope has been in it happened in, counted from 1. Turning back is
    /// one more of the saga's own. 0 if that is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub visit: u32,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened. The names follow the events of Step Functions where there are such.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// The saga began.
    SagaStarted {
        /// The run's identity.
        run: RunId,
        /// The version that runs.
        digest: DefinitionDigest,
        /// Its input.
        input: Arc<Value>,
        /// The event that triggered it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trigger: Option<Trigger>,
        /// The saga that waits for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Parent>,
        /// The trace context of whoever started it, as the header `traceparent` has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caller: Option<String>,
    },
    /// A state was entered.
    StateEntered {
        /// Its name.
        state: String,
        /// Its `Type`.
        kind: String,
        /// Its raw input.
        input: Arc<Value>,
    },
    /// A state was left, for its next one or because it ends its scope.
    StateExited {
        /// Its name.
        state: String,
        /// Its `Type`.
        kind: String,
        /// Its output.
        output: Arc<Value>,
        /// When it was entered.
        #[serde(default)]
        since: Timestamp,
    },
    /// A state failed, and no Catch rule took the error: its scope has failed.
    StateFailed {
        /// Its name.
        state: String,
        /// Its `Type`.
        kind: String,
        /// When it was entered.
        since: Timestamp,
        /// Why.
        failure: Failure,
    },
    /// A state was left undone because its scope was aborted.
    StateAborted {
        /// Its name.
        state: String,
        /// Its `Type`.
        kind: String,
        /// When it was entered.
        #[serde(default)]
        since: Timestamp,
        /// Whether it waited for its members, which are told to have ended.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        has_members: bool,
    },
    /// An expression, a path or a template of a state could not be evaluated.
    EvaluationFailed {
        /// The state.
        state: String,
        /// What failed.
        failure: Failure,
    },
    /// A command asks workers for an attempt.
    TaskScheduled {
        /// The state that asks.
        state: String,
        /// The kind of work.
        task: TaskName,
        /// The resource as the definition writes it.
        resource: String,
        /// The attempt.
        command: CommandId,
        /// Do or undo.
        direction: Direction,
        /// The step's input.
        input: Arc<Value>,
        /// When the attempt is given up.
        deadline: Timestamp,
    },
    /// The worker passed on the request; the step now waits for somebody with the token.
    TaskSubmitted {
        /// The attempt.
        command: CommandId,
        /// What the worker answered.
        output: Arc<Value>,
    },
    /// A worker says that it is still at work.
    TaskHeartbeat {
        /// The attempt.
        command: CommandId,
    },
    /// The attempt succeeded.
    TaskSucceeded {
        /// The attempt.
        command: CommandId,
        /// The state that asked.
        state: String,
        /// When it asked.
        since: Timestamp,
        /// Its result.
        output: Arc<Value>,
        /// Who did it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        worker: String,
        /// Do or undo.
        #[serde(default, skip_serializing_if = "is_do")]
        direction: Direction,
        /// What was tried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Attempted>,
        /// What the worker knows of the time that it took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timing: Option<Timing>,
        /// Whether the attempt had been given up before it was answered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_late: bool,
    },
    /// The attempt failed.
    TaskFailed {
        /// The attempt.
        command: CommandId,
        /// The state that asked.
        state: String,
        /// When it asked.
        since: Timestamp,
        /// Why.
        failure: Failure,
        /// Do or undo.
        #[serde(default, skip_serializing_if = "is_do")]
        direction: Direction,
        /// Who tried.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        worker: String,
        /// What was tried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Attempted>,
        /// What the worker knows of the time that it took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timing: Option<Timing>,
    },
    /// The attempt was given up: no reply, or no heartbeat, in time. Its outcome is unknown.
    TaskTimedOut {
        /// The attempt.
        command: CommandId,
        /// The state that asked.
        state: String,
        /// When it asked.
        since: Timestamp,
        /// `States.Timeout` or `States.HeartbeatTimeout`.
        failure: Failure,
        /// What was tried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Attempted>,
        /// Do or undo.
        #[serde(default, skip_serializing_if = "is_do")]
        direction: Direction,
    },
    /// Nobody waits for the attempt's answer any more: its scope was aborted, or another attempt was
    /// answered.
    TaskAbandoned {
        /// The attempt.
        command: CommandId,
        /// The state that asked.
        state: String,
        /// When it asked.
        since: Timestamp,
        /// What was tried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Attempted>,
        /// Do or undo.
        #[serde(default, skip_serializing_if = "is_do")]
        direction: Direction,
    },
    /// Another attempt will follow.
    RetryScheduled {
        /// The state that is tried again.
        state: String,
        /// When.
        until: Timestamp,
        /// The number of the attempt that will follow.
        attempt: u32,
        /// What it follows on.
        failure: Failure,
        /// The attempt that will follow, if it is of a task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<CommandId>,
    },
    /// A Catch rule took the error.
    ErrorCaught {
        /// The state that failed.
        state: String,
        /// The error.
        failure: Failure,
        /// Where it goes on.
        next: String,
    },
    /// A reply came for an attempt that nobody waits for any more. Recorded, and acted on if the
    /// step is still to be undone.
    LateReply {
        /// The attempt.
        command: CommandId,
        /// Whether it says that the attempt succeeded.
        succeeded: bool,
    },
    /// The saga waits.
    WaitStarted {
        /// The state.
        state: String,
        /// Until when.
        until: Timestamp,
    },
    /// A Wait, or the pause before another attempt, is over.
    PauseEnded {
        /// The state.
        state: String,
        /// When it began; `None` if that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
        /// When it was to end. The time of the event tells how late its timer was.
        due: Timestamp,
        /// The number of the attempt that follows; `None` for a Wait.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// The attempt that follows, if it is of a task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<CommandId>,
    },
    /// The branches of a Parallel began.
    ParallelStarted {
        /// The state.
        state: String,
        /// The scopes of its branches.
        scopes: Vec<u32>,
    },
    /// All branches of a Parallel succeeded.
    ParallelSucceeded {
        /// The state.
        state: String,
    },
    /// A branch of a Parallel failed, and the state with it.
    ParallelFailed {
        /// The state.
        state: String,
        /// Why.
        failure: Failure,
    },
    /// A Map began.
    MapStarted {
        /// The state.
        state: String,
        /// How many items it has; not known if they are read from the object store.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<u64>,
        /// Whether it is a distributed Map.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        distributed: bool,
    },
    /// A branch of a Parallel, or an iteration of a Map, has ended.
    MemberEnded {
        /// The Parallel or the Map.
        state: String,
        /// Its index.
        index: u64,
        /// The scope it ran in.
        member: u32,
        /// Whether it is an iteration.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_iteration: bool,
        /// When it began.
        since: Timestamp,
        /// Why it failed, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
        /// Whether it was aborted because another had failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_aborted: bool,
    },
    /// An iteration of a Map began.
    IterationStarted {
        /// The Map.
        state: String,
        /// Its index.
        index: u64,
        /// The scope it runs in.
        iteration: u32,
    },
    /// An iteration of a Map succeeded.
    IterationSucceeded {
        /// The Map.
        state: String,
        /// Its index.
        index: u64,
    },
    /// An iteration of a Map failed.
    IterationFailed {
        /// The Map.
        state: String,
        /// Its index.
        index: u64,
        /// Why.
        failure: Failure,
    },
    /// An iteration of a Map was aborted because its Map failed.
    IterationAborted {
        /// The Map.
        state: String,
        /// Its index.
        index: u64,
    },
    /// Items of a distributed Map were read.
    ItemsRead {
        /// The Map.
        state: String,
        /// How many.
        items: u64,
        /// Whether there are no more.
        last: bool,
    },
    /// An item of a distributed Map, or a batch of them, began as a saga of its own.
    ItemStarted {
        /// The Map.
        state: String,
        /// Its index.
        index: u64,
        /// The saga.
        child: SagaAddress,
    },
    /// Results of a distributed Map were written.
    ResultsWritten {
        /// The Map.
        state: String,
        /// The objects.
        objects: Vec<String>,
    },
    /// An item of a distributed Map has undone what it had done.
    ItemUndone {
        /// The Map.
        state: String,
        /// Its index.
        index: u64,
    },
    /// This saga is an item of a Map: it has succeeded, and may still have to undo what it did.
    Held,
    /// A Map succeeded.
    MapSucceeded {
        /// The state.
        state: String,
    },
    /// A Map failed.
    MapFailed {
        /// The state.
        state: String,
        /// Why.
        failure: Failure,
    },
    /// A domain event was published.
    EventPublished {
        /// The state.
        state: String,
        /// Its subject.
        subject: String,
        /// Its CloudEvents id.
        id: EffectId,
    },
    /// The saga waits for an event.
    EventAwaited {
        /// The state.
        state: String,
        /// Its subject or CloudEvents type.
        name: String,
        /// The attempt that waits.
        command: CommandId,
        /// When the attempt is given up.
        deadline: Timestamp,
    },
    /// An event came; `awaited` if a state waited for it, else it is kept for one that will.
    EventReceived {
        /// Its subject or CloudEvents type.
        name: String,
        /// Its id.
        id: String,
        /// Whether a state waited for it.
        awaited: bool,
    },
    /// A state has the event that it waited for.
    EventTaken {
        /// The state.
        state: String,
        /// The event's subject or CloudEvents type.
        name: String,
        /// Its id.
        id: String,
        /// The attempt that waited.
        command: CommandId,
        /// Since when.
        since: Timestamp,
        /// The trace context of its publisher, as the header `traceparent` has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        publisher: Option<String>,
    },
    /// A child saga was started.
    ChildStarted {
        /// The state.
        state: String,
        /// The child.
        child: SagaAddress,
        /// The attempt that it is.
        command: CommandId,
    },
    /// Undoing began.
    CompensationStarted {
        /// Why: the error, or that somebody asked.
        failure: Failure,
        /// How many steps there are to undo.
        steps: u32,
        /// Whether the whole saga turned back, not just a state that undoes.
        #[serde(default)]
        is_of_saga: bool,
    },
    /// A step is undone.
    StepUndone {
        /// The state that was undone.
        state: String,
    },
    /// Undoing has ended.
    CompensationEnded {
        /// When it began.
        #[serde(default)]
        since: Timestamp,
        /// Whether the whole saga turned back, not just a state that undoes.
        #[serde(default)]
        is_of_saga: bool,
    },
    /// A step that only goes forward from here succeeded.
    PivotPassed {
        /// The state.
        state: String,
    },
    /// Somebody asked for the saga to end.
    CancelRequested {
        /// Why, for people.
        reason: String,
    },
    /// The saga needs a person.
    Stuck {
        /// What it is stuck at.
        state: String,
        /// Why.
        failure: Failure,
    },
    /// A person let the saga go on.
    Resumed {
        /// Whether what it was stuck at was taken as done.
        skipped: bool,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// The saga ended.
    SagaEnded {
        /// How.
        outcome: Outcome,
    },
}

/// What an attempt is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attempted {
    /// Work of this kind, by a worker.
    Task(TaskName),
    /// A child saga.
    Saga(SagaAddress),
    /// An event of this name.
    Event(String),
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
fn is_zero(visit: &u32) -> bool {
    *visit == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
fn is_do(direction: &Direction) -> bool {
    *direction == Direction::Do
}
