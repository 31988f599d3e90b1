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
    token,
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
                    let message_id = message_id(place, &address);
                    let trace = event.trace();
                    entries.push(Following {
                        entry: messages::start(partition, &address, start, message_id, trace),
                        start: Some((partition, Arc::clone(&owned.wishes))),
                    });
                }
                Ok(Decision::Continue(key)) => {
                    let entry = Entry::Event(EventEntry {
                        name: rule.subject.clone(),
                        id: identity(&rule.subject, event, &id),
                        data: Arc::clone(&event.data),
                    });
                    let (partition, address) = address(key);
                    let message_id = format!("{}.{}", message_id(place, &address), rule.subject);
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

/// What makes an entry that follows from an event the same one: one event may be for two sagas of a definition.
fn message_id(place: Place<'_>, saga: &SagaAddress) -> String {
    let key = token::encode(saga.key.as_str());
    format!("{}.{}.{key}", place.source, saga.definition)
}

/// What makes an awaited event the same one for its saga. A CloudEvents id is only its source's own (CloudEvents
/// 1.0, `id`), and one event that is awaited under two names comes under both. Subjects and sources have no
/// spaces.
fn identity(name: &str, event: &Event, id: &str) -> String {
    match &event.source {
        Some(source) => format!("{name} {source} {id}"),
        None => format!("{name} {id}"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_contracts::header;
    use serde_json::{Value, json};

    fn rules(document: &str) -> [Owned; 1] {
        let (parsed, _) = crate::compile("test.yaml", document).unwrap();
        [Owned {
            definition: "order".parse().unwrap(),
            digest: parsed.digest.clone(),
            wishes: Arc::new(Wishes::of(&parsed.definition).unwrap()),
        }]
    }

    /// The message ids and the entries that follow from an event in the only partition.
    fn followed(rules: &[Owned], subject: &str, body: &Value) -> Vec<(String, Entry)> {
        let event = Event::parse(subject, &[], body.to_string().as_bytes()).unwrap();
        let place = Place {
            source: "SHOP/7",
            at: 0,
            sequence: 7,
        };
        let limits = SagaLimits::default();
        let (following, reasons) = follow(rules, Feed::Triggers, &event, place, 1, limits);
        assert!(reasons.is_empty(), "{reasons:?}");
        let entries = following.into_iter().map(|it| {
            let parsed = JournalSubject::parse(it.entry.subject()).unwrap();
            let entry = Entry::decode(&parsed.kind, it.entry.body()).unwrap();
            (
                it.entry.header(header::MESSAGE_ID).unwrap().to_owned(),
                entry,
            )
        });
        entries.collect()
    }

    fn cloud_event(source: &str) -> Value {
        json!({"specversion": "1.0", "id": "7", "type": "t", "source": source,
            "data": {"a": "x y", "b": "z"}})
    }

    const TWO_AWAITS: &str = "
Extensions: [saga/1]
StartAt: One
States:
  One: { Type: Task, Resource: 'event:pay.ok.await', Key: '{% $event.data.a %}', Next: Two }
  Two: { Type: Task, Resource: 'event:pay.*.await', Key: '{% $event.data.a %}', Next: Three }
  Three: { Type: Task, Resource: 'event:pay.ok.await', Key: '{% $event.data.b %}', End: true }
";

    #[test]
    fn one_event_starts_two_sagas_of_a_definition() {
        let rules = rules(
            "
Extensions: [saga/1]
StartAt: P
Triggers:
  - { Event: pay.ok, Key: '{% $event.data.a %}' }
  - { Event: pay.ok, Key: '{% $event.data.b %}' }
States: { P: { Type: Pass, End: true } }
",
        );
        let started = followed(&rules, "pay.ok", &cloud_event("/till"));
        let ids: Vec<_> = started.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["SHOP/7.order.x=20y", "SHOP/7.order.z"]);
        let Entry::Start(start) = &started[0].1 else {
            panic!("{started:?}");
        };
        assert_eq!(start.trigger.as_ref().unwrap().id, "7");
    }

    #[test]
    fn an_event_is_the_same_by_name_source_and_id() {
        let rules = rules(TWO_AWAITS);
        let of = |body: &Value| {
            let entries = followed(&rules, "pay.ok", body).into_iter();
            entries
                .map(|(message, entry)| match entry {
                    Entry::Event(event) => (message, event.id),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        let expected = [
            ("SHOP/7.order.x=20y.pay.ok", "pay.ok /till 7"),
            ("SHOP/7.order.x=20y.pay.*", "pay.* /till 7"),
            ("SHOP/7.order.z.pay.ok", "pay.ok /till 7"),
        ];
        let expected = expected.map(|(message, id)| (message.to_owned(), id.to_owned()));
        assert_eq!(of(&cloud_event("/till")), expected);
        assert_eq!(of(&cloud_event("/web"))[0].1, "pay.ok /web 7");
        assert_eq!(of(&json!({"a": "x", "b": "z"}))[0].1, "pay.ok SHOP/7");
    }
}
