//! What the fold asks the world to do.
//!
//! Every effect is a message with an identity that depends on the journal alone, so publishing it
//! twice is harmless and a replay publishes the same ones.

use super::store::StoreRequest;
use dirigent_contracts::{
    header::TraceContext,
    history::HistoryEvent,
    id::{CommandId, DefinitionDigest, EffectId, RunId, SagaAddress, TaskName},
    journal::{Parent, Part},
    limits::SagaLimits,
    outcome::{Failure, Outcome},
    task::Command,
    time::Timestamp,
};
use serde_json::Value;
use std::sync::Arc;

/// What folding one entry asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// The effects, in the order of their causes.
    pub effects: Vec<Effect>,
    /// What happened, for histories, traces and metrics.
    pub history: Vec<HistoryEvent>,
    /// Why the entry changed nothing, if it did not.
    pub ignored: Option<Ignored>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Publish a command to the workers of its task.
    Command {
        /// The command.
        command: Box<Command>,
        /// The trace that it belongs to.
        trace: Option<TraceContext>,
    },
    /// Take a command back that nobody waits for any more, if no worker has it yet.
    Withdraw {
        /// Whose workers it waits for.
        task: TaskName,
        /// The command.
        command: CommandId,
    },
    /// Publish a domain event as CloudEvents.
    DomainEvent(DomainEvent),
    /// Start a child saga.
    StartChild {
        /// The child's address.
        child: SagaAddress,
        /// Its input.
        input: Arc<Value>,
        /// Who waits for it.
        parent: Parent,
        /// The trace that it belongs to.
        trace: Option<TraceContext>,
    },
    /// Ask a child saga to end.
    CancelChild {
        /// The child's address.
        child: SagaAddress,
        /// Why, for people.
        reason: String,
    },
    /// Start an item of a distributed Map, as a saga of the same version.
    StartItem {
        /// Its address.
        child: SagaAddress,
        /// The version.
        digest: DefinitionDigest,
        /// Its input.
        input: Arc<Value>,
        /// Who waits for it.
        parent: Parent,
        /// What of the definition it runs.
        part: Part,
        /// What it may use: the same as the saga.
        limits: SagaLimits,
        /// The scope of the Map, and which of its states the Map is.
        place: (u32, u32),
        /// The trace that it belongs to.
        trace: Option<TraceContext>,
    },
    /// Ask an item of a distributed Map to turn back, or to undo what it has done.
    UndoItem {
        /// Its address.
        child: SagaAddress,
        /// Why, for people.
        reason: String,
    },
    /// Tell an item of a distributed Map that it will not be undone.
    ReleaseItem {
        /// Its address.
        child: SagaAddress,
    },
    /// Ask the object store; the answer is a reply to `command`.
    Store {
        /// What the answer is to name.
        command: CommandId,
        /// The subject that it goes to.
        reply_to: String,
        /// What is asked.
        request: StoreRequest,
    },
    /// Tell the saga that waits for this one how it ended.
    TellParent {
        /// Who waits.
        parent: Parent,
        /// How it ended.
        outcome: Outcome,
        /// Whether it has done what may have to be undone, and waits to be told.
        holds: bool,
        /// Whether it is an item that has passed a pivot.
        past_pivot: bool,
    },
    /// Announce how the saga ended: its outcome record.
    Ended {
        /// The run that ended.
        run: RunId,
        /// How it ended.
        outcome: Outcome,
        /// When it had started.
        started_at: Timestamp,
        /// When it ended.
        ended_at: Timestamp,
        /// The trace that it belongs to.
        trace: Option<TraceContext>,
    },
    /// Announce that the saga needs a person.
    Incident {
        /// The state that it is stuck at.
        state: String,
        /// Why.
        failure: Failure,
        /// Since when.
        at: Timestamp,
    },
}

/// A domain event to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainEvent {
    /// Its NATS subject, and its CloudEvents type.
    pub subject: Arc<str>,
    /// Its CloudEvents id.
    pub id: EffectId,
    /// The saga that publishes it.
    pub saga: SagaAddress,
    /// When it happened.
    pub time: Timestamp,
    /// Its data.
    pub data: Arc<Value>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
}

/// Why an entry changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It had been folded before.
    Repeated,
    /// The saga had been started before.
    AlreadyStarted,
    /// There is no such saga, or it has ended.
    NoSuchSaga,
    /// Nobody waits for this answer any more.
    NotPending,
    /// The event had come before.
    KnownEvent,
    /// Nothing was due.
    NothingDue,
    /// The saga is not in a condition for that request.
    NotApplicable,
}

impl Ignored {
    /// A word for metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::AlreadyStarted => "already-started",
            Self::NoSuchSaga => "no-such-saga",
            Self::NotPending => "not-pending",
            Self::KnownEvent => "known-event",
            Self::NothingDue => "nothing-due",
            Self::NotApplicable => "not-applicable",
        }
    }
}
