//! What follows from an event: entries for the journals of the sagas that it starts or goes on with.
//!
//! Decisions only. What is published has ids that follow from the event, so an event that is routed
//! twice has the same consequences as one.

use super::rule::{Decision, Feed, Owned, Wishes};
use crate::{broker::publisher::Outgoing, partition::messages};
use dirigent_contracts::{
    event::Event,
    id::{PartitionId, SagaAddress},
    journal::{Entry, EventEntry, Start, Trigger},
    limits::SagaLimits,
    subject::{EntryKind, JournalSubject},
};
use std::sync::Arc;

/// Where an event was stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Stream and sequence, as one text.
    pub(crate) source: &'a str,
    /// When, in microseconds since 1970.
    pub(crate) at: i64,
    pub(crate) sequence: u64,
}

/// An entry that follows from an event.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) entry: Outgoing,
    /// If it starts a saga: where, and what its definition wishes.
    pub(crate) start: Option<(PartitionId, Arc<Wishes>)>,
}

/// The entries that follow from an event that was read for some purpose, and the reasons why some do not.
pub(crate) fn follow(
    rules: &[Owned],
    feed: Feed,
    event: &Event,
    place: Place<'_>,
    partitions: u16,
    limits: SagaLimits,
) -> (Vec<Following>, Vec<String>) {
    let value = event.to_expression_value();
    let id = event.id.clone();
    let id = id.unwrap_or_else(|| place.source.to_owned());
    let mut entries = Vec::new();
    let mut reasons = Vec::new();
    for owned in rules {
        let listening = owned.wishes.rules.iter();
        for rule in listening.filter(|it| it.is_read_as(feed) && it.listens_to(event)) {
            let address = |key| {
                let partition = PartitionId::of(&key, partitions);
                let definition = owned.definition.clone();
                (partition, SagaAddress { definition, key })
            };
            match rule.decide(event, &value, place.at, place.sequence) {
                Ok(Decision::NotMeant) => {}
                Ok(Decision::Start(key, input)) => {
                    let start = Start {
                        digest: owned.digest.clone(),
                        input,
                        trigger: Some(Trigger {
                            subject: event.nats_subject.clone(),
                            id: id.clone(),
                        }),
                        parent: None,
                        part: None,
                        limits,
                    };
                    let (partition, address) = address(key);
                    let message_id = format!("{}.{}", place.source, owned.definition);
                    let trace = event.trace();
                    entries.push(Following {
                        entry: messages::start(partition, &address, start, message_id, trace),
                        start: Some((partition, Arc::clone(&owned.wishes))),
                    });
                }
                Ok(Decision::Continue(key)) => {
                    let entry = Entry::Event(EventEntry {
                        name: rule.subject.clone(),
                        id: id.clone(),
                        data: Arc::clone(&event.data),
                    });
                    let (partition, address) = address(key);
                    let message_id =
                        format!("{}.{}.{}", place.source, owned.definition, rule.subject);
                    let entry = event_entry(partition, address, &entry, message_id);
                    entries.push(Following {
                        entry: entry.with_trace(event.trace()),
                        start: None,
                    });
                }
                Err(reason) => reasons.push(format!("{}: {reason}", owned.definition)),
            }
        }
    }
    if !is_listened_to(rules, event) {
        reasons.push("no deployed definition listens to it".to_owned());
    }
    (entries, reasons)
}

/// Whether a definition listens to an event, as far as is known.
pub(super) fn is_listened_to(rules: &[Owned], event: &Event) -> bool {
    let mut all = rules.iter().flat_map(|owned| &owned.wishes.rules);
    all.any(|rule| rule.listens_to(event))
}

/// An event as an entry of the journal of the saga that it is for.
pub(crate) fn event_entry(
    partition: PartitionId,
    address: SagaAddress,
    entry: &Entry,
    message_id: String,
) -> Outgoing {
    let subject = JournalSubject {
        partition,
        address,
        kind: EntryKind::Event,
    };
    Outgoing::new(subject.to_string(), entry.encode()).with_message_id(message_id)
}
