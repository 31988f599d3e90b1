//! Requests to `dirigent.api.<operation>` and their answers.
//!
//! Bodies are JSON: this is the edge at which people and scripts speak to Dirigent (`nats req` is
//! enough). The endpoints are a NATS service (<https://github.com/nats-io/nats-architecture-and-design>,
//! ADR-32), so `nats service ls` finds them; an error is told in the headers that it defines.

use crate::{
    history::HistoryEvent,
    id::{
        DefinitionDigest, DefinitionName, DigestPrefix, JournalSeq, PartitionId, RunId,
        SagaAddress, SagaKey,
    },
    journal::{Parent, Trigger},
    outcome::{Failure, SagaStatus},
    task::TaskResult,
    time::Timestamp,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeMap;

/// A request that the coordinators answer.
pub trait Operation: Serialize + DeserializeOwned {
    /// Last token of the subject.
    const NAME: &'static str;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned;
}

macro_rules! operation {
    ($request:ident, $name:literal, $answer:ty) => {
        impl Operation for $request {
            const NAME: &'static str = $name;
            type Answer = $answer;
        }
    };
}

/// Why a request was not carried out. Nothing has happened then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is not what it should be (400).
    BadRequest,
    /// There is no such saga, definition or letter (404).
    NotFound,
    /// It is too late for that, or too early (409).
    Conflict,
    /// It is larger than the limit (413).
    TooLarge,
    /// There is too much to do already (429); the header `Retry-After` says when to try again.
    Overloaded,
    /// The broker did not do its part; try again (503).
    Unavailable,
    /// The answer is larger than a message of this broker can be (507).
    AnswerTooLarge,
}

impl ErrorCode {
    /// The number in the service error header.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Overloaded => 429,
            Self::Unavailable => 503,
            Self::AnswerTooLarge => 507,
        }
    }

    /// The code with this number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        [
            Self::BadRequest,
            Self::NotFound,
            Self::Conflict,
            Self::TooLarge,
            Self::Overloaded,
            Self::Unavailable,
            Self::AnswerTooLarge,
        ]
        .into_iter()
        .find(|code| code.number() == number)
    }
}

/// Start a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The definition to run.
    pub definition: DefinitionName,
    /// The business key; a UUIDv7 is made if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SagaKey>,
    /// The input.
    #[serde(default)]
    pub input: Value,
    /// The version to run; the newest if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DigestPrefix>,
}
operation!(StartRequest, "start", StartAnswer);

/// A saga was started, or had been started before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartAnswer {
    /// Its address.
    #[serde(flatten)]
    pub saga: SagaAddress,
    /// The partition that it lives in.
    pub partition: PartitionId,
    /// False if a saga with this address had been started before; nothing has happened then.
    pub started: bool,
}

/// Names one saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DescribeRequest {
    /// Its address.
    #[serde(flatten)]
    pub saga: SagaAddress,
}
operation!(DescribeRequest, "describe", SagaDescription);

/// How one saga stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SagaDescription {
    /// Its address.
    #[serde(flatten)]
    pub saga: SagaAddress,
    /// The partition that it lives in.
    pub partition: PartitionId,
    /// The run's identity.
    pub run: RunId,
    /// The id of its trace, 32 hexadecimal digits: its caller's, or the run's.
    #[serde(default)]
    pub trace_id: String,
    /// The version that it runs.
    pub digest: DefinitionDigest,
    /// How it stands.
    pub status: SagaStatus,
    /// When it started.
    pub started_at: Timestamp,
    /// When something last happened to it.
    pub updated_at: Timestamp,
    /// Its input.
    pub input: Value,
    /// Its output, if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// The error that ended it or turned it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What it is doing: a line for each scope that is in a state.
    #[serde(default)]
    pub activities: Vec<Activity>,
    /// The steps that would be undone if it failed now, the next to be undone first.
    #[serde(default)]
    pub undo: Vec<String>,
    /// The event that triggered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// The saga that waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// What a saga does in one of its scopes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// The scope; 0 is the saga itself.
    pub scope: u32,
    /// The state.
    pub state: String,
    /// What it waits for, in words: `task charge-card, attempt 2`.
    pub waits_for: String,
    /// Until when, if it does not wait for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// List sagas, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Only those of this definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<DefinitionName>,
    /// Only those that stand so; any if empty.
    #[serde(default)]
    pub status: Vec<SagaStatus>,
    /// At most so many; 50 if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}
operation!(ListRequest, "list", ListAnswer);

/// A page of sagas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// The sagas, the latest first.
    pub sagas: Vec<SagaSummary>,
    /// Whether there are more.
    pub more: bool,
    /// Partitions that nobody answered for: their live sagas are missing above.
    #[serde(default)]
    pub silent: Vec<PartitionId>,
}

/// One saga in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SagaSummary {
    /// Its address.
    #[serde(flatten)]
    pub saga: SagaAddress,
    /// How it stands.
    pub status: SagaStatus,
    /// When it started, where that is known without reading its journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When something last happened to it.
    pub updated_at: Timestamp,
    /// The state that it is in, or the error that ended it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Tell what happened to a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryRequest {
    /// Its address.
    #[serde(flatten)]
    pub saga: SagaAddress,
    /// From where on. An asker who says so takes a part, as much as fits into a message; one who does
    /// not gets the whole, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<HistoryPlace>,
}
operation!(HistoryRequest, "history", HistoryAnswer);

/// What happened to a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryAnswer {
    /// The events in order. Those before the journal's oldest entry are forgotten.
    pub events: Vec<HistoryEvent>,
    /// Where it goes on, if there was no room for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<HistoryPlace>,
}

/// A place in a history. It stays the same when older entries are forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPlace {
    /// The journal entry.
    pub seq: JournalSeq,
    /// How many of the events that it caused come before.
    #[serde(default)]
    pub skip: usize,
}

/// Send an event to one saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalRequest {
    /// Its address.
    #[serde(flatten)]
    pub saga: SagaAddress,
    /// The event's name, as a state awaits it.
    pub event: String,
    /// Identity of the event; a UUIDv7 is made if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The event's data.
    #[serde(default)]
    pub data: Value,
}
operation!(SignalRequest, "signal", Accepted);

/// Complete a step that waits for a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallbackRequest {
    /// The token.
    pub token: String,
    /// What became of the step.
    #[serde(flatten)]
    pub result: TaskResult,
}
operation!(CallbackRequest, "callback", Accepted);

/// Cancel a saga: what it did is undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Its address.
    #[serde(flatten)]
    pub saga: SagaAddress,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}
operation!(CancelRequest, "cancel", Accepted);

/// Let a stuck saga go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryRequest {
    /// Its address.
    #[serde(flatten)]
    pub saga: SagaAddress,
    /// Take what it is stuck at as done by hand, instead of trying again.
    #[serde(default)]
    pub skip: bool,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}
operation!(RetryRequest, "retry", Accepted);

/// The request stands in the journal and will be acted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The saga that it is for.
    #[serde(flatten)]
    pub saga: SagaAddress,
}

/// Deploy a definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Its name.
    pub name: DefinitionName,
    /// The document, YAML or JSON.
    pub document: String,
}
operation!(DeployRequest, "deploy", DeployAnswer);

/// A definition was deployed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeployAnswer {
    /// Its name.
    pub name: DefinitionName,
    /// Its version.
    pub digest: DefinitionDigest,
    /// False if this very version was the newest already.
    pub changed: bool,
}

/// List the newest version of each definition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DefinitionsRequest {}
operation!(DefinitionsRequest, "definitions", DefinitionsAnswer);

/// The newest version of each definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DefinitionsAnswer {
    /// By name.
    pub definitions: Vec<DefinitionSummary>,
}

/// One definition in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DefinitionSummary {
    /// Its name.
    pub name: DefinitionName,
    /// Its newest version.
    pub digest: DefinitionDigest,
    /// When that was deployed.
    pub deployed_at: Timestamp,
    /// Its comment.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The events that trigger it.
    #[serde(default)]
    pub triggers: Vec<String>,
}

/// Fetch a definition's document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionRequest {
    /// Its name.
    pub name: DefinitionName,
    /// The version; the newest if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DigestPrefix>,
}
operation!(DefinitionRequest, "definition", DefinitionAnswer);

/// A definition's document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DefinitionAnswer {
    /// Its name.
    pub name: DefinitionName,
    /// The version.
    pub digest: DefinitionDigest,
    /// The document as it was deployed.
    pub document: String,
}

/// List messages that could not be understood, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLettersRequest {
    /// At most so many; 50 if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}
operation!(DeadLettersRequest, "dead-letters", DeadLettersAnswer);

/// Messages that could not be understood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLettersAnswer {
    /// The letters, the latest first.
    pub letters: Vec<DeadLetter>,
    /// How many there are in all.
    pub total: u64,
}

/// A message that could not be understood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number; `replay` takes it.
    pub number: u64,
    /// When it was laid aside.
    pub at: Timestamp,
    /// The subject on which it came.
    pub subject: String,
    /// What was wrong with it.
    pub reason: String,
    /// The beginning of its body, as text.
    pub body: String,
}

/// Publish a dead letter again on the subject on which it came, and forget it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The letter's number.
    pub number: u64,
}
operation!(ReplayRequest, "replay", ReplayAnswer);

/// A dead letter was published again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayAnswer {
    /// The subject on which it was published.
    pub subject: String,
}

/// Show the limits of the installation, and change some: all of these, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsRequest {
    /// New values by name, in the limit's unit; `null` for the default. Sagas keep the limits that they
    /// were started with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Option<u64>>,
}
operation!(LimitsRequest, "limits", LimitsAnswer);

/// The limits of the installation, after the change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitsAnswer {
    /// All of them.
    pub limits: Vec<LimitDescription>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitDescription {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// What the value counts: `bytes`, `seconds`, `milliseconds`; empty for things.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Its value if nobody sets another.
    pub default: u64,
    /// The least that it can be set to.
    pub least: u64,
    /// The most that it can be set to.
    pub most: u64,
    /// What it bounds, for people.
    pub what: String,
}

/// How the installation stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusRequest {}
operation!(StatusRequest, "status", StatusAnswer);

/// How the installation stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// Version of the nats-server that the answering coordinator is connected to.
    pub server: String,
    /// What an acknowledged write survives, in words.
    pub durability: String,
    /// How many partitions the installation has.
    pub partitions: u16,
    /// The owner of each partition, in order; empty if nobody owns it.
    pub owners: Vec<String>,
    /// How many dead letters wait.
    pub dead_letters: u64,
}
