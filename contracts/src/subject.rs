//! Every subject, stream, bucket and consumer name that Dirigent uses, built and parsed in one place.
//!
//! The shapes are chosen so that a NATS permission can say what a worker may do: it publishes
//! `dirigent.journal.*.*.*.reply.<its task>` and pulls from the one consumer of its task.

use crate::{
    id::{CommandId, DefinitionName, PartitionId, SagaAddress, SagaKey, TaskName},
    token,
};
use std::fmt;

/// Stream of commands.
pub const COMMANDS_STREAM: &str = "DIRIGENT_COMMANDS";
/// Stream of outcomes and incidents.
pub const EVENTS_STREAM: &str = "DIRIGENT_EVENTS";
/// Stream that catches trigger events on subjects that no other stream keeps.
pub const INBOX_STREAM: &str = "DIRIGENT_INBOX";
/// Stream of what could not be understood, kept for an operator.
pub const DEAD_LETTERS_STREAM: &str = "DIRIGENT_DEAD_LETTERS";
/// Stream of the broker's advisories on commands that were delivered too often.
pub const ADVISORIES_STREAM: &str = "DIRIGENT_ADVISORIES";
/// Bucket of live saga snapshots.
pub const SAGAS_BUCKET: &str = "dirigent-sagas";
/// Bucket of definitions.
pub const DEFINITIONS_BUCKET: &str = "dirigent-definitions";
/// Bucket of leases, members, checkpoints and settings.
pub const PARTITIONS_BUCKET: &str = "dirigent-partitions";
/// Bucket in which workers remember the outcome of an effect.
pub const INBOX_BUCKET: &str = "dirigent-inbox";
/// Bucket of the object store that keeps bodies which are too large for a message.
pub const PAYLOADS_BUCKET: &str = "dirigent-payloads";
/// Durable consumer by which the coordinators read trigger events of a stream.
pub const ROUTER_CONSUMER: &str = "dirigent-router";
/// Durable consumer by which the coordinators read events that sagas await.
pub const AWAITED_CONSUMER: &str = "dirigent-awaited";
/// Prefix of the request subjects.
pub const API_PREFIX: &str = "dirigent.api";

/// Where every coordinator answers how its metrics stand ([`crate::metric::Snapshot`] as JSON).
pub const METRICS: &str = "dirigent.internal.metrics";

/// Why a subject is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject:?} is not a {what} subject: expected {expected}")]
pub struct SubjectError {
    /// The subject as it came.
    pub subject: String,
    /// What it should have been.
    pub what: &'static str,
    /// The form that it should have.
    pub expected: &'static str,
}

/// What a journal entry is, as its subject says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A saga is to start.
    Start,
    /// A worker, or whoever holds a token, answers a command of this task.
    Reply(TaskName),
    /// An event that carries this saga's key.
    Event,
    /// A deadline of this saga has come.
    Timer,
    /// An operator asks for something.
    Control,
    /// A child saga has ended.
    Child,
}

/// Subject of a journal entry: `dirigent.journal.<p>.<definition>.<key>.<kind>[.<task>]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JournalSubject {
    /// The partition whose journal it is.
    pub partition: PartitionId,
    /// The saga that it is for.
    pub address: SagaAddress,
    /// What it is.
    pub kind: EntryKind,
}

impl JournalSubject {
    /// Parses a subject of the journal.
    ///
    /// # Errors
    /// If it has another shape, or one of its tokens is not canonical.
    pub fn parse(subject: &str) -> Result<Self, SubjectError> {
        Self::try_parse(subject).ok_or_else(|| SubjectError {
            subject: subject.to_owned(),
            what: "journal",
            expected: "dirigent.journal.<partition>.<definition>.<key>.<kind>",
        })
    }

    fn try_parse(subject: &str) -> Option<Self> {
        let mut tokens = subject.strip_prefix("dirigent.journal.")?.split('.');
        let partition = parse_partition(tokens.next()?)?;
        let definition = DefinitionName::new(tokens.next()?).ok()?;
        let key = SagaKey::new(token::decode(tokens.next()?).ok()?).ok()?;
        let kind = match (tokens.next()?, tokens.next()) {
            ("start", None) => EntryKind::Start,
            ("reply", Some(task)) => {
                EntryKind::Reply(TaskName::new(token::decode(task).ok()?).ok()?)
            }
            ("event", None) => EntryKind::Event,
            ("timer", None) => EntryKind::Timer,
            ("control", None) => EntryKind::Control,
            ("child", None) => EntryKind::Child,
            _ => return None,
        };
        tokens.next().is_none().then_some(Self {
            partition,
            address: SagaAddress { definition, key },
            kind,
        })
    }
}

impl fmt::Display for JournalSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            address,
            kind,
        } = self;
        let key = token::encode(address.key.as_str());
        write!(
            f,
            "dirigent.journal.{partition}.{}.{key}.",
            address.definition
        )?;
        match kind {
            EntryKind::Start => f.write_str("start"),
            EntryKind::Reply(task) => write!(f, "reply.{}", token::encode(task.as_str())),
            EntryKind::Event => f.write_str("event"),
            EntryKind::Timer => f.write_str("timer"),
            EntryKind::Control => f.write_str("control"),
            EntryKind::Child => f.write_str("child"),
        }
    }
}

fn parse_partition(token: &str) -> Option<PartitionId> {
    let index: u16 = token.parse().ok()?;
    (index.to_string() == token).then_some(PartitionId(index))
}

/// Name of a partition's journal stream.
#[must_use]
pub fn journal_stream(partition: PartitionId) -> String {
    format!("DIRIGENT_JOURNAL_{partition}")
}

/// All subjects of a partition's journal.
#[must_use]
pub fn journal_filter(partition: PartitionId) -> String {
    format!("dirigent.journal.{partition}.>")
}

/// All journal subjects of one saga.
#[must_use]
pub fn saga_journal_filter(partition: PartitionId, address: &SagaAddress) -> String {
    let key = token::encode(address.key.as_str());
    format!(
        "dirigent.journal.{partition}.{}.{key}.>",
        address.definition
    )
}

/// Subject of one command: `dirigent.command.<task>.<command id>`.
#[must_use]
pub fn command(task: &TaskName, command: CommandId) -> String {
    format!(
        "dirigent.command.{}.{command}",
        token::encode(task.as_str())
    )
}

/// Where commands of one task go, without their ids: the name of the destination in traces.
#[must_use]
pub fn command_destination(task: &TaskName) -> String {
    format!("dirigent.command.{}", token::encode(task.as_str()))
}

/// All commands of one task: what its consumer filters by.
#[must_use]
pub fn command_filter(task: &TaskName) -> String {
    format!("dirigent.command.{}.*", token::encode(task.as_str()))
}

/// Name of the durable pull consumer that the workers of one task share: the task's token.
#[must_use]
pub fn command_consumer(task: &TaskName) -> String {
    token::encode(task.as_str())
}

/// The token of the task in the subject of a command, which is also the name of its consumer; `None` if
/// it is no such subject.
#[must_use]
pub fn command_task(subject: &str) -> Option<&str> {
    let (task, _) = subject.strip_prefix("dirigent.command.")?.split_once('.')?;
    Some(task)
}

/// Parses `dirigent.command.<task>.<command id>`.
///
/// # Errors
/// If it has another shape.
pub fn parse_command(subject: &str) -> Result<(TaskName, CommandId), SubjectError> {
    let parsed = subject.strip_prefix("dirigent.command.").and_then(|rest| {
        let (task, command) = rest.split_once('.')?;
        Some((
            TaskName::new(token::decode(task).ok()?).ok()?,
            command.parse().ok()?,
        ))
    });
    parsed.ok_or_else(|| SubjectError {
        subject: subject.to_owned(),
        what: "command",
        expected: "dirigent.command.<task>.<command id>",
    })
}

/// Subject of a saga's own event: `dirigent.event.<definition>.<key>.<what>`.
#[must_use]
pub fn event(address: &SagaAddress, what: &str) -> String {
    format!(
        "dirigent.event.{}.{}.{what}",
        address.definition,
        token::encode(address.key.as_str())
    )
}

/// The events of this kind of all sagas of a definition, or of all definitions if it is `*`.
#[must_use]
pub fn event_filter(definition: &str, what: &str) -> String {
    format!("dirigent.event.{definition}.*.{what}")
}

/// Parses `dirigent.event.<definition>.<key>.<what>`.
///
/// # Errors
/// If it has another shape.
pub fn parse_event(subject: &str) -> Result<(SagaAddress, &str), SubjectError> {
    let parsed = subject.strip_prefix("dirigent.event.").and_then(|rest| {
        let mut tokens = rest.splitn(3, '.');
        let definition = DefinitionName::new(tokens.next()?).ok()?;
        let key = SagaKey::new(token::decode(tokens.next()?).ok()?).ok()?;
        Some((SagaAddress { definition, key }, tokens.next()?))
    });
    parsed.ok_or_else(|| SubjectError {
        subject: subject.to_owned(),
        what: "event",
        expected: "dirigent.event.<definition>.<key>.<what>",
    })
}

/// Key of a saga's snapshot in its bucket: `<p>.<definition>.<key>`.
#[must_use]
pub fn snapshot_key(partition: PartitionId, address: &SagaAddress) -> String {
    format!(
        "{partition}.{}.{}",
        address.definition,
        token::encode(address.key.as_str())
    )
}

/// Parses `<p>.<definition>.<key>`.
///
/// # Errors
/// If it has another shape.
pub fn parse_snapshot_key(text: &str) -> Result<(PartitionId, SagaAddress), SubjectError> {
    let parsed = || {
        let (partition, rest) = text.split_once('.')?;
        let (definition, key) = rest.split_once('.')?;
        let address = SagaAddress {
            definition: DefinitionName::new(definition).ok()?,
            key: SagaKey::new(token::decode(key).ok()?).ok()?,
        };
        Some((parse_partition(partition)?, address))
    };
    parsed().ok_or_else(|| SubjectError {
        subject: text.to_owned(),
        what: "snapshot",
        expected: "<p>.<definition>.<key>",
    })
}

/// Key of a partition's checkpoint in the same bucket: `<p>.checkpoint`.
#[must_use]
pub fn checkpoint_key(partition: PartitionId) -> String {
    format!("{partition}.checkpoint")
}

/// Whether the body of a message on this subject may stand in [`PAYLOADS_BUCKET`]: it is an entry of a
/// journal, or a command. Everything else is read by programs that know nothing of it.
#[must_use]
pub fn may_be_referred_to(subject: &str) -> bool {
    ["dirigent.journal.", "dirigent.command."]
        .iter()
        .any(|prefix| subject.starts_with(prefix))
}

/// Subject of a dead letter: `dirigent.dead.<reason>`.
#[must_use]
pub fn dead_letter(reason: &str) -> String {
    format!("dirigent.dead.{reason}")
}

/// Subject of a request to the coordinators: `dirigent.api.<operation>`.
#[must_use]
pub fn api(operation: &str) -> String {
    format!("{API_PREFIX}.{operation}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> SagaAddress {
        SagaAddress {
            definition: DefinitionName::new("order").unwrap(),
            key: SagaKey::new("anna@example.org").unwrap(),
        }
    }

    #[test]
    fn subjects_have_their_documented_shape() {
        let reply = JournalSubject {
            partition: PartitionId(3),
            address: address(),
            kind: EntryKind::Reply(TaskName::new("dynamodb.putItem").unwrap()),
        };
        let text = "dirigent.journal.3.order.anna=40example=2Eorg.reply.dynamodb=2EputItem";
        assert_eq!(reply.to_string(), text);
        assert_eq!(JournalSubject::parse(text), Ok(reply));
        assert_eq!(
            event(&address(), "succeeded"),
            "dirigent.event.order.anna=40example=2Eorg.succeeded"
        );
        assert_eq!(
            parse_event(&event(&address(), "succeeded")),
            Ok((address(), "succeeded"))
        );
        assert_eq!(
            saga_journal_filter(PartitionId(0), &address()),
            "dirigent.journal.0.order.anna=40example=2Eorg.>"
        );
        assert_eq!(
            snapshot_key(PartitionId(3), &address()),
            "3.order.anna=40example=2Eorg"
        );
        assert_eq!(
            parse_snapshot_key("3.order.anna=40example=2Eorg"),
            Ok((PartitionId(3), address()))
        );
        assert!(parse_snapshot_key("3.order").is_err());
    }

    #[test]
    fn a_foreign_journal_subject_is_refused() {
        for subject in [
            "",
            "dirigent.journal.",
            "dirigent.journal.0.order.k",
            "dirigent.journal.0.order.k.start.more",
            "dirigent.journal.0.order.k.reply",
            "dirigent.journal.00.order.k.start",
            "dirigent.journal.x.order.k.start",
            "dirigent.journal.0.or=64er.k.start",
            "dirigent.journal.0.order..start",
            "dirigent.command.0.order.k.start",
        ] {
            assert!(
                JournalSubject::parse(subject).is_err(),
                "{subject:?} was accepted"
            );
        }
    }

    proptest! {
        #[test]
        fn any_journal_subject_survives(partition in 0u16.., key in ".{1,64}", task in ".{1,32}") {
            let subject = JournalSubject {
                partition: PartitionId(partition),
                address: SagaAddress { key: SagaKey::new(key).unwrap(), ..address() },
                kind: EntryKind::Reply(TaskName::new(task).unwrap()),
            };
            prop_assert_eq!(JournalSubject::parse(&subject.to_string()), Ok(subject));
        }
    }
}
