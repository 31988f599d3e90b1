//! The state of one saga: what its snapshot holds, and what the fold changes.
//!
//! A saga is a tree of scopes: the saga itself, each branch of a Parallel, each iteration of a Map.
//! Every scope is in exactly one state, which either waits for something (an `Activity`) or is
//! being left within the same fold. Invariants: whatever waits has a deadline; `pending` names
//! exactly the steps that somebody may still answer; a saga that has ended holds nothing.

use super::{
    distribution::Distribution,
    undo::{Track, Undo},
};
use dirigent_contracts::{
    header::TraceContext,
    id::{CommandId, DefinitionDigest, JournalSeq, PartitionId, RunId, SagaAddress},
    journal::{Entry, EventEntry, Parent, Part, Trigger},
    limits::SagaLimits,
    outcome::{Failure, Outcome, SagaStatus},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Everything that is known of one saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    pub(super) address: SagaAddress,
    pub(super) partition: PartitionId,
    /// What became of it after it started; `None` while only events have come for it.
    pub(super) run: Option<Run>,
    /// Events that came before a state awaited them, the oldest first.
    pub(super) buffered: VecDeque<Buffered>,
    /// Ids of the events that came last, so that a second delivery is passed over.
    pub(super) seen_events: VecDeque<String>,
    /// When the events are given up if the saga has not started by then.
    pub(super) forget_at: Timestamp,
    /// Position of the last entry that was folded into this state.
    pub(super) applied: JournalSeq,
    /// Its time.
    pub(super) updated_at: Timestamp,
}

/// An event that came before a state awaited it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Buffered {
    #[serde(flatten)]
    pub(super) event: EventEntry,
    /// The trace context of its publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) publisher: Option<String>,
}

/// A saga that has started.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and all are stored by name"
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub(super) id: RunId,
    pub(super) digest: DefinitionDigest,
    pub(super) input: Arc<Value>,
    pub(super) started_at: Timestamp,
    /// When the whole saga is given up.
    pub(super) deadline: Timestamp,
    pub(super) trace: Option<TraceContext>,
    pub(super) trigger: Option<Trigger>,
    pub(super) parent: Option<Parent>,
    /// What of the definition it runs, if it is an item of a distributed Map.
    pub(super) part: Option<Part>,
    pub(super) scopes: BTreeMap<u32, Scope>,
    pub(super) next_scope: u32,
    pub(super) next_step: u32,
    /// Which scope a step that may still be answered belongs to.
    pub(super) pending: BTreeMap<u32, u32>,
    /// Set once the saga turns back: why, and whether somebody asked for it.
    pub(super) ending: Option<Ending>,
    /// Whether a step that only goes forward has succeeded.
    pub(super) is_past_pivot: bool,
    /// Whether one has in an item of a distributed Map.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_pivoted_items: bool,
    /// Whether anything was undone.
    pub(super) has_undone: bool,
    /// Attempts of steps that were undone before their outcome was known: a late answer is recorded.
    pub(super) unresolved: BTreeSet<CommandId>,
    /// Why this build cannot fold the saga, if it cannot: it waits for a person, and for one that can.
    pub(super) broken: Option<Failure>,
    /// What has come since and is to be folded then, the oldest first.
    #[serde(default)]
    pub(super) missed: Vec<Missed>,
    /// Whether its first state was entered. Snapshots of older builds do not say.
    #[serde(default)]
    pub(super) has_begun: bool,
    /// What it may use.
    #[serde(default)]
    pub(super) limits: SagaLimits,
    /// How many entries it has taken in that count.
    #[serde(default)]
    pub(super) entries: u64,
    /// How many bytes of JSON its variables have together.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) variable_bytes: u64,
    /// Set once the saga has ended.
    pub(super) outcome: Option<Outcome>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Why a saga turns back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ending {
    pub(super) failure: Failure,
    pub(super) is_canceled: bool,
}

/// An entry that could not be folded when it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Missed {
    pub(super) seq: JournalSeq,
    pub(super) entry: Entry,
}

/// One scope: the saga itself (number 0), a branch, or an iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Scope {
    pub(super) machine: u32,
    pub(super) parent: Option<Slot>,
    pub(super) state: u32,
    pub(super) input: Arc<Value>,
    pub(super) entered_at: Timestamp,
    /// How often each rule of the state's Retry has been used.
    pub(super) retries: Vec<u32>,
    /// The number of the state's step, once it has one: it stays over all attempts.
    pub(super) step: Option<u32>,
    /// Number of the last attempt; 0 before the first.
    pub(super) attempt: u32,
    /// Attempts whose outcome is unknown.
    pub(super) unknown: BTreeSet<u32>,
    /// The arguments that the last attempt got, if its undo may need them and they were computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<Arc<Value>>,
    pub(super) activity: Activity,
    /// Variables of this scope; those of the scopes around it are seen through it.
    pub(super) variables: Map<String, Value>,
    /// What there is to undo in this scope, the last done last.
    pub(super) undo: Vec<Undo>,
    /// The item of a Map's iteration: index and value, for the context object.
    pub(super) item: Option<Item>,
    /// When it was opened.
    #[serde(default)]
    pub(super) opened_at: Timestamp,
    /// How many states it has been in; a saga that turns back counts that as one more.
    #[serde(default)]
    pub(super) visits: u32,
    /// When the pause before another attempt began, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rests_since: Option<Timestamp>,
}

/// The place of a scope in the state that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) scope: u32,
    pub(super) index: u32,
}

/// The item that an iteration of a Map works on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) index: u32,
    pub(super) value: Arc<Value>,
}

/// What a scope waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Activity {
    /// Nothing: it is being moved on within this fold.
    Moving,
    /// The answer to an attempt.
    Attempt(Attempt),
    /// The end of a Wait, or of the pause before another attempt.
    Until(Timestamp),
    /// The branches of a Parallel.
    Branches(Branches),
    /// The iterations of a Map.
    Iterations(Box<Iterations>),
    /// The items of a distributed Map.
    Distribution(Box<Distribution>),
    /// Whether this item of a distributed Map, which has ended with this output, is to be undone.
    Held(Arc<Value>),
    /// The undoing of what was done.
    Undoing(Box<Track>),
    /// A person: the step's command killed its workers.
    Stuck(Failure),
}

/// An attempt that somebody may answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Attempt {
    pub(super) kind: AttemptKind,
    /// When it was asked for.
    pub(super) since: Timestamp,
    /// When it is given up.
    pub(super) deadline: Timestamp,
    /// When it is given up if no heartbeat comes before.
    pub(super) heartbeat_deadline: Timestamp,
    /// The longest pause between two heartbeats, in microseconds; 0 if none are wanted.
    pub(super) heartbeat_interval: i64,
    /// Whether the worker has passed on the request, so that the token is awaited.
    pub(super) is_submitted: bool,
}

/// Who is to answer an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum AttemptKind {
    /// A worker.
    Task,
    /// An event of this name.
    Event(String),
    /// A child saga.
    Child(SagaAddress),
}

/// The branches of a Parallel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Branches {
    /// The outputs of those that have ended.
    pub(super) outputs: Vec<Option<Arc<Value>>>,
    /// What those that have ended did, by branch.
    pub(super) undo: Vec<Vec<Undo>>,
    /// The scopes of those that have not.
    pub(super) live: BTreeSet<u32>,
}

/// The iterations of a Map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Iterations {
    /// The items.
    pub(super) items: Vec<Arc<Value>>,
    /// The outputs of those that have ended; `None` also for those that failed.
    pub(super) outputs: Vec<Option<Arc<Value>>>,
    /// What those that have ended did, by iteration.
    pub(super) undo: Vec<Vec<Undo>>,
    /// The scopes of those that run.
    pub(super) live: BTreeSet<u32>,
    /// Index of the next item to be begun.
    pub(super) next: u32,
    /// How many may run at once.
    pub(super) concurrency: u32,
    /// How many have failed.
    pub(super) failed: u32,
    /// How many may fail before the Map does.
    pub(super) tolerated: u32,
    /// The state's effective input, which the items are selected from.
    pub(super) input: Arc<Value>,
}

impl Saga {
    pub(super) fn new(address: SagaAddress, partition: PartitionId) -> Self {
        Self {
            address,
            partition,
            run: None,
            buffered: VecDeque::new(),
            seen_events: VecDeque::new(),
            forget_at: Timestamp::NEVER,
            applied: JournalSeq(0),
            updated_at: Timestamp(0),
        }
    }

    /// Its address.
    pub fn address(&self) -> &SagaAddress {
        &self.address
    }

    /// The partition that it lives in.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Position of the last entry that was folded into this state.
    pub fn applied(&self) -> JournalSeq {
        self.applied
    }

    /// Time of that entry.
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// The run, if the saga has started.
    pub fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// Whether nothing more can happen, so that the state may be forgotten.
    pub fn is_over(&self) -> bool {
        match &self.run {
            Some(run) => run.outcome.is_some(),
            None => self.buffered.is_empty(),
        }
    }

    /// The next instant at which something is due; [`Timestamp::NEVER`] if nothing is.
    pub fn next_deadline(&self) -> Timestamp {
        match &self.run {
            Some(run) => run.next_deadline(),
            None => self.forget_at,
        }
    }
}

impl Run {
    /// Its identity.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// The version that it runs.
    pub fn digest(&self) -> &DefinitionDigest {
        &self.digest
    }

    /// When it started.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Its input.
    pub fn input(&self) -> &Arc<Value> {
        &self.input
    }

    /// The trace that it belongs to, if whoever started it sent one.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// The event that triggered it.
    pub fn trigger(&self) -> Option<&Trigger> {
        self.trigger.as_ref()
    }

    /// The machine that it runs: the definition's own, or the item processor of a distributed Map.
    pub(super) fn machine(&self) -> u32 {
        self.part.map_or(0, |part| part.machine)
    }

    /// The saga that waits for it.
    pub fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Whether the answer to this very command is still waited for.
    pub fn awaits(&self, command: CommandId) -> bool {
        let scope = self
            .pending
            .get(&command.effect.step)
            .and_then(|at| self.scopes.get(at));
        command.effect.run == self.id
            && scope.is_some_and(|scope| match &scope.activity {
                Activity::Attempt(_) => scope.attempt == command.attempt,
                Activity::Undoing(track) => track.awaits(command.effect.step, command.attempt),
                _ => false,
            })
    }

    /// Whether some of what it did cannot be undone any more.
    pub(super) fn stands_in_part(&self) -> bool {
        self.is_past_pivot || self.has_pivoted_items
    }

    /// Whether it waits for nothing, and has nothing to undo.
    #[cfg(test)]
    pub(crate) fn holds_nothing(&self) -> bool {
        self.pending.is_empty() && self.scopes.is_empty()
    }

    /// The error that turned it back, or that it is stuck at.
    pub fn failure(&self) -> Option<&Failure> {
        self.outcome
            .as_ref()
            .and_then(|outcome| outcome.failure.as_ref())
            .or_else(|| self.stuck_at().map(|(_, failure)| failure))
            .or_else(|| self.ending.as_ref().map(|ending| &ending.failure))
    }

    /// The output of an item that is held.
    pub(super) fn held(&self) -> Option<Arc<Value>> {
        match &self.scopes.get(&0)?.activity {
            Activity::Held(output) => Some(Arc::clone(output)),
            _ => None,
        }
    }

    /// Why it cannot be canceled, if it cannot. One that is being canceled may be asked to again.
    #[must_use]
    pub fn refuses_to_cancel(&self) -> Option<&'static str> {
        let is_failing = self.ending.as_ref().is_some_and(|it| !it.is_canceled);
        if is_failing {
            Some("it is being undone already")
        } else if self.is_past_pivot {
            Some("it is past its pivot, and only goes forward")
        } else if self.held().is_some() {
            Some("it has succeeded, and waits for the Map that it is an item of")
        } else {
            None
        }
    }

    /// How it stands.
    pub fn status(&self) -> SagaStatus {
        if let Some(outcome) = &self.outcome {
            outcome.status
        } else if self.stuck_at().is_some() {
            SagaStatus::Stuck
        } else if self.ending.is_some() {
            SagaStatus::Compensating
        } else {
            SagaStatus::Running
        }
    }

    /// The scope that is stuck, and why, if one is.
    pub(super) fn stuck_at(&self) -> Option<(u32, &Failure)> {
        if let Some(failure) = &self.broken {
            return Some((0, failure));
        }
        self.scopes
            .iter()
            .find_map(|(number, scope)| match &scope.activity {
                Activity::Stuck(failure) => Some((*number, failure)),
                Activity::Undoing(track) => track.stuck_at().map(|failure| (*number, failure)),
                _ => None,
            })
    }

    fn next_deadline(&self) -> Timestamp {
        // What is broken hears no timer; its deadlines come when it is mended.
        if self.outcome.is_some() || self.broken.is_some() {
            return Timestamp::NEVER;
        }
        let of_saga = if self.ending.is_some() {
            Timestamp::NEVER
        } else {
            self.deadline
        };
        self.scopes
            .values()
            .map(|scope| scope.activity.deadline())
            .fold(of_saga, Timestamp::min)
    }
}

impl Activity {
    pub(super) fn deadline(&self) -> Timestamp {
        match self {
            Self::Attempt(attempt) => attempt.deadline.min(attempt.heartbeat_deadline),
            Self::Until(at) => *at,
            Self::Undoing(track) => track.next_deadline(),
            Self::Moving
            | Self::Branches(_)
            | Self::Iterations(_)
            | Self::Distribution(_)
            | Self::Held(_)
            | Self::Stuck(_) => Timestamp::NEVER,
        }
    }
}

impl Scope {
    pub(super) fn new(
        machine: u32,
        parent: Option<Slot>,
        item: Option<Item>,
        opened_at: Timestamp,
    ) -> Self {
        Self {
            machine,
            parent,
            state: 0,
            input: Arc::new(Value::Null),
            entered_at: Timestamp(0),
            retries: Vec::new(),
            step: None,
            attempt: 0,
            unknown: BTreeSet::new(),
            arguments: None,
            activity: Activity::Moving,
            variables: Map::new(),
            undo: Vec::new(),
            item,
            opened_at,
            visits: 0,
            rests_since: None,
        }
    }
}
