//! The entries of a partition's journal: everything that ever happens to a saga comes in as one.
//!
//! The kind of an entry stands in its subject ([`crate::subject::JournalSubject`]), so that a NATS
//! permission can speak of it; the body is the type of that kind.

use crate::{
    envelope::{Body, DecodeError, decode, encode},
    id::{CommandId, DefinitionDigest, PartitionId, SagaAddress},
    limits::SagaLimits,
    outcome::Outcome,
    subject::EntryKind,
    task::Reply,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// The body of a journal entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// A saga is to start.
    Start(Start),
    /// A command was answered.
    Reply(Reply),
    /// An event that carries the saga's key.
    Event(EventEntry),
    /// A deadline has come.
    Timer(Timer),
    /// An operator, or the broker, asks for something.
    Control(Control),
    /// A child saga has ended.
    Child(Child),
}

impl Entry {
    /// Decodes the body of an entry of this kind.
    ///
    /// # Errors
    /// If the bytes are not such a body.
    pub fn decode(kind: &EntryKind, body: &[u8]) -> Result<Self, DecodeError> {
        Ok(match kind {
            EntryKind::Start => Self::Start(decode(body)?),
            EntryKind::Reply(_) => Self::Reply(decode(body)?),
            EntryKind::Event => Self::Event(decode(body)?),
            EntryKind::Timer => Self::Timer(decode(body)?),
            EntryKind::Control => Self::Control(decode(body)?),
            EntryKind::Child => Self::Child(decode(body)?),
        })
    }

    /// Encodes the body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start(body) => encode(body),
            Self::Reply(body) => encode(body),
            Self::Event(body) => encode(body),
            Self::Timer(body) => encode(body),
            Self::Control(body) => encode(body),
            Self::Child(body) => encode(body),
        }
    }
}

/// Starts a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Which version of the definition runs. Decided by whoever starts, so that a replay runs the
    /// same one.
    pub digest: DefinitionDigest,
    /// The saga's input.
    pub input: Arc<Value>,
    /// The event that triggered the start, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// The saga that waits for this one, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// What of the definition runs, if not the whole: an item of a distributed Map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// What it may use. Decided by whoever starts, as the version is.
    #[serde(default, skip_serializing_if = "SagaLimits::is_default")]
    pub limits: SagaLimits,
}

impl Body for Start {
    const WHAT: &'static str = "start entry";
}

/// The event that triggered a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The subject on which it came.
    pub subject: String,
    /// Its CloudEvents id, or the stream and sequence of a plain message.
    pub id: String,
}

/// One item of a distributed Map, which runs as a saga of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The number of the Map's item processor among the definition's machines.
    pub machine: u32,
    /// The index of the item, or of the batch of items.
    pub index: u32,
}

/// The saga that waits for a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The partition that it lives in.
    pub partition: PartitionId,
    /// Its address.
    #[serde(flatten)]
    pub saga: SagaAddress,
    /// The attempt that is the child.
    pub command: CommandId,
}

/// An event that carries a saga's key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventEntry {
    /// What a state awaits it by: its subject, or its CloudEvents type.
    pub name: String,
    /// Identity of the event; a second one with this id is passed over. The router's are of the name, the
    /// CloudEvents source and the CloudEvents id.
    pub id: String,
    /// Its data.
    pub data: Arc<Value>,
}

impl Body for EventEntry {
    const WHAT: &'static str = "event entry";
}

/// A deadline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// The deadline; every one of the saga's that is not later has come too.
    pub due: Timestamp,
}

impl Body for Timer {
    const WHAT: &'static str = "timer entry";
}

/// An operator, or the broker, asks for something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "lowercase")]
pub enum Control {
    /// Stop going forward, undo, and end as canceled.
    Cancel {
        /// Why, for people.
        #[serde(default)]
        reason: String,
    },
    /// Try again what a stuck saga is stuck at.
    Retry {
        /// Why, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Take what a stuck saga is stuck at as done by hand, and go on.
    Skip {
        /// Why, for people.
        #[serde(default)]
        reason: String,
    },
    /// The Map that this item belongs to turns back: so does the item, even if it has succeeded.
    Undo {
        /// Why, for people.
        #[serde(default)]
        reason: String,
    },
    /// What this item has done will not be undone any more: it ends as succeeded.
    Release,
    /// The broker gave up on a command: it was delivered as often as it may be, and never answered.
    Poison {
        /// The command.
        command: CommandId,
        /// How often it was delivered.
        deliveries: u64,
    },
}

impl Body for Control {
    const WHAT: &'static str = "control entry";
}

/// A child saga has ended, or could not be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// The attempt of the parent's step that the child was.
    pub command: CommandId,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Whether the child has done what may have to be undone, and waits to be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holds: bool,
    /// Whether the child is an item of a distributed Map that has passed a pivot: what it did until then
    /// cannot be undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub past_pivot: bool,
}

impl Body for Child {
    const WHAT: &'static str = "child entry";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{DefinitionName, JournalSeq, RunId, SagaKey, TaskName},
        outcome::{Failure, SagaStatus},
        task::TaskResult,
    };
    use serde_json::json;

    fn entries() -> Vec<(EntryKind, Entry)> {
        let saga = SagaAddress {
            definition: DefinitionName::new("order").unwrap(),
            key: SagaKey::new("o-1").unwrap(),
        };
        let command = RunId::derive(&saga, JournalSeq(1), Timestamp(1))
            .effect(2)
            .command(1);
        vec![
            (
                EntryKind::Start,
                Entry::Start(Start {
                    digest: DefinitionDigest::new("0".repeat(64)).unwrap(),
                    input: Arc::new(json!({"a": [1, 2.5, "x", null]})),
                    trigger: Some(Trigger {
                        subject: "orders.new".into(),
                        id: "e-1".into(),
                    }),
                    parent: Some(Parent {
                        partition: PartitionId(1),
                        saga,
                        command,
                    }),
                    part: None,
                    limits: SagaLimits::default(),
                }),
            ),
            (
                EntryKind::Reply(TaskName::new("t").unwrap()),
                Entry::Reply(Reply {
                    command,
                    result: TaskResult::Succeeded {
                        output: Arc::new(json!(null)),
                    },
                    callback: false,
                    worker: String::new(),
                    timing: None,
                }),
            ),
            (
                EntryKind::Event,
                Entry::Event(EventEntry {
                    name: "paid".into(),
                    id: "e-2".into(),
                    data: Arc::new(json!("data")),
                }),
            ),
            (EntryKind::Timer, Entry::Timer(Timer { due: Timestamp(99) })),
            (
                EntryKind::Control,
                Entry::Control(Control::Cancel {
                    reason: "asked".into(),
                }),
            ),
            (
                EntryKind::Control,
                Entry::Control(Control::Retry {
                    reason: String::new(),
                }),
            ),
            (
                EntryKind::Control,
                Entry::Control(Control::Undo {
                    reason: "the Map failed".into(),
                }),
            ),
            (EntryKind::Control, Entry::Control(Control::Release)),
            (
                EntryKind::Control,
                Entry::Control(Control::Skip {
                    reason: "by hand".into(),
                }),
            ),
            (
                EntryKind::Control,
                Entry::Control(Control::Poison {
                    command,
                    deliveries: 5,
                }),
            ),
            (
                EntryKind::Child,
                Entry::Child(Child {
                    command,
                    outcome: Outcome {
                        status: SagaStatus::Failed,
                        output: None,
                        failure: Some(Failure::new("E", "why")),
                    },
                    holds: false,
                    past_pivot: false,
                }),
            ),
        ]
    }

    #[test]
    fn every_entry_survives_the_wire() {
        for (kind, entry) in entries() {
            assert_eq!(Entry::decode(&kind, &entry.encode()).unwrap(), entry);
        }
    }

    #[test]
    fn the_bytes_of_every_entry_are_golden() {
        let lines: Vec<String> = entries()
            .iter()
            .map(|(_, entry)| entry.encode().iter().map(|b| format!("{b:02x}")).collect())
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
