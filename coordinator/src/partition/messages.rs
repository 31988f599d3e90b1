//! Effects as messages: which subject, which id, which body.
//!
//! Every id is derived from the journal, so a message that is published twice is one message.

use crate::{
    broker::publisher::Outgoing,
    engine::{DomainEvent, Effect, Saga},
    spans::Sampling,
};
use dirigent_contracts::{
    envelope,
    event::CloudEvent,
    header::TraceContext,
    id::{CommandId, JournalSeq, PartitionId, SagaAddress},
    journal::{Child, Control, Entry, Parent, Start, Timer},
    subject::{self, EntryKind, JournalSubject},
    task::{Reply, TaskResult},
    time::Timestamp,
    trace::identity,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// The entry of another saga's journal, or of the same one's.
fn entry(
    partition: PartitionId,
    address: &SagaAddress,
    kind: EntryKind,
    body: &Entry,
    message_id: String,
) -> Outgoing {
    let subject = JournalSubject {
        partition,
        address: address.clone(),
        kind,
    }
    .to_string();
    Outgoing::new(subject, body.encode()).with_message_id(message_id)
}

/// The start of a saga: stored only if no other start of it is.
pub(crate) fn start(
    partition: PartitionId,
    address: &SagaAddress,
    start: Start,
    message_id: String,
    trace: Option<TraceContext>,
) -> Outgoing {
    entry(
        partition,
        address,
        EntryKind::Start,
        &Entry::Start(start),
        message_id,
    )
    .with_expected_last_subject_sequence(0)
    .with_trace(trace)
}

/// The start of a child saga, which is an attempt of its parent's step.
pub(crate) fn start_child(
    partitions: u16,
    child: &SagaAddress,
    command: CommandId,
    body: Start,
    trace: TraceContext,
) -> Outgoing {
    let partition = PartitionId::of(&child.key, partitions);
    start(partition, child, body, format!("{command}.c"), Some(trace))
}

/// What tells a saga that its child has ended.
///
/// An item of a Map that is undone after it has succeeded tells twice, once of each.
pub(crate) fn tell_parent(parent: &Parent, child: Child) -> Outgoing {
    let message_id = format!("{}.{}", parent.command, child.outcome.status);
    let body = Entry::Child(child);
    entry(
        parent.partition,
        &parent.saga,
        EntryKind::Child,
        &body,
        message_id,
    )
}

/// The answer to a command, by the coordinator itself.
pub(crate) fn reply(command: CommandId, reply_to: String, result: TaskResult) -> Outgoing {
    let reply = Reply {
        command,
        result,
        callback: false,
        worker: String::new(),
        timing: None,
    };
    Outgoing::new(reply_to, envelope::encode(&reply)).with_message_id(format!("{command}.r"))
}

/// A deadline of a saga.
///
/// `folded` is the last entry that its owner has folded, of any saga: a timer that came too early must
/// not make its repetition seem a duplicate, neither by this owner nor by the next.
pub(crate) fn timer(
    partition: PartitionId,
    address: &SagaAddress,
    due: Timestamp,
    folded: JournalSeq,
) -> Outgoing {
    let key = subject::snapshot_key(partition, address);
    let message_id = format!("{key}.t.{}.{folded}", due.0);
    entry(
        partition,
        address,
        EntryKind::Timer,
        &Entry::Timer(Timer { due }),
        message_id,
    )
}

/// What an operator, or the broker, asks of a saga.
pub(crate) fn control(
    partition: PartitionId,
    address: &SagaAddress,
    control: Control,
    message_id: String,
) -> Outgoing {
    entry(
        partition,
        address,
        EntryKind::Control,
        &Entry::Control(control),
        message_id,
    )
}

/// One entry may ask the same of children whose keys are equal and whose definitions are not.
fn child_control(
    partitions: u16,
    child: &SagaAddress,
    what: Control,
    cause: &str,
    kind: &str,
) -> Outgoing {
    let partition = PartitionId::of(&child.key, partitions);
    let key = subject::snapshot_key(partition, child);
    control(partition, child, what, format!("{cause}.{key}.{kind}"))
}

/// The run and the entry that ask for something: part of the ids of announcements.
pub(crate) fn cause(state: Option<&Saga>, seq: JournalSeq) -> String {
    let run = state.and_then(Saga::run);
    let run = run.map(|run| run.id().to_string()).unwrap_or_default();
    format!("{run}.{seq}")
}

/// The message of an effect; `None` for one that needs a look at the world first.
///
/// `cause` is the run and entry that asked, for the ids of announcements.
pub(crate) fn message(
    partitions: u16,
    address: &SagaAddress,
    cause: &str,
    effect: &Effect,
    sampling: Sampling,
) -> Option<Outgoing> {
    let context = |run, caller, span| sampling.context(run, caller, span);
    Some(match effect {
        Effect::StartChild { .. } | Effect::Store { .. } | Effect::Withdraw { .. } => {
            return None;
        }
        Effect::StartItem {
            child,
            digest,
            input,
            parent,
            part,
            limits,
            place: (scope, visit),
            trace,
        } => {
            let run = parent.command.effect.run;
            let body = Start {
                digest: digest.clone(),
                input: Arc::clone(input),
                trigger: None,
                parent: Some(parent.clone()),
                part: Some(*part),
                limits: *limits,
            };
            let trace = context(run, *trace, identity::of_state(run, *scope, *visit));
            start_child(partitions, child, parent.command, body, trace)
        }
        Effect::Command { command, trace } => {
            let subject = subject::command(&command.task, command.command);
            Outgoing::new(subject, envelope::encode(&**command))
                .with_message_id(command.command.to_string())
                .with_trace(Some(context(
                    command.run,
                    *trace,
                    identity::of_attempt(command.command),
                )))
        }
        Effect::DomainEvent(event) => domain_event(sampling, event),
        Effect::CancelChild { child, reason } => {
            let reason = reason.clone();
            child_control(partitions, child, Control::Cancel { reason }, cause, "x")
        }
        Effect::UndoItem { child, reason } => {
            let reason = reason.clone();
            child_control(partitions, child, Control::Undo { reason }, cause, "u")
        }
        Effect::ReleaseItem { child } => {
            child_control(partitions, child, Control::Release, cause, "r")
        }
        Effect::TellParent {
            parent,
            outcome,
            holds,
            past_pivot,
        } => {
            let child = Child {
                command: parent.command,
                outcome: outcome.clone(),
                holds: *holds,
                past_pivot: *past_pivot,
            };
            tell_parent(parent, child)
        }
        Effect::Ended {
            run,
            outcome,
            started_at,
            ended_at,
            trace,
        } => {
            let data = json!({
                "definition": address.definition,
                "key": address.key,
                "status": outcome.status,
                "output": outcome.output,
                "failure": outcome.failure,
                "started_at": started_at.to_rfc3339(),
            });
            announcement(address, outcome.status.as_str(), cause, *ended_at, data)
                .with_trace(Some(context(*run, *trace, identity::of_saga(*run))))
        }
        Effect::Incident { state, failure, at } => {
            let data = json!({
                "definition": address.definition,
                "key": address.key,
                "status": "stuck",
                "state": state,
                "failure": failure,
            });
            announcement(address, "incident", cause, *at, data)
        }
    })
}

fn announcement(
    address: &SagaAddress,
    what: &str,
    cause: &str,
    time: Timestamp,
    data: Value,
) -> Outgoing {
    let id = format!("{cause}.{what}");
    let event = CloudEvent {
        id: id.clone(),
        source: source(address),
        kind: format!("dirigent.saga.{what}"),
        subject: address.to_string(),
        time,
        partition_key: address.key.to_string(),
        data: Arc::new(data),
    };
    cloud_event(subject::event(address, what), &event)
}

fn domain_event(sampling: Sampling, event: &DomainEvent) -> Outgoing {
    let body = CloudEvent {
        id: event.id.to_string(),
        source: source(&event.saga),
        kind: event.subject.to_string(),
        subject: event.saga.key.to_string(),
        time: event.time,
        partition_key: event.saga.key.to_string(),
        data: Arc::clone(&event.data),
    };
    let span = identity::of_publication(event.id);
    let trace = sampling.context(event.id.run, event.trace, span);
    cloud_event(event.subject.to_string(), &body).with_trace(Some(trace))
}

fn cloud_event(subject: String, event: &CloudEvent) -> Outgoing {
    Outgoing::new(subject, event.to_json())
        .with_message_id(event.id.clone())
        .with_content_type(CloudEvent::CONTENT_TYPE)
}

fn source(address: &SagaAddress) -> String {
    format!("/dirigent/{}", address.definition)
}
