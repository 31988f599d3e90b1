//! A model of what `JetStream` keeps: streams with message ids and expectations, and durable pull
//! consumers. Time is handed in. `tests/model` holds it against a real nats-server.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A message as its publisher hands it over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) subject: String,
    /// `Nats-Msg-Id`.
    pub(crate) id: Option<String>,
    /// `Nats-Expected-Last-Subject-Sequence`.
    pub(crate) expected_last: Option<u64>,
    /// `Nats-Expected-Last-Subject-Sequence-Subject`: what the expectation is about, if it is not the
    /// message's own subject.
    pub(crate) expected_subject: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// A message as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    /// Microseconds.
    pub(crate) at: i64,
    pub(crate) draft: Draft,
}

/// The answer to a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is stored, under this sequence.
    Stored(u64),
    /// A message with its id had been stored, under this sequence.
    Duplicate(u64),
    /// The last message of its subject is another one than expected.
    WrongLast,
}

/// A durable pull consumer with explicit acknowledgements.
#[derive(Clone, Debug, Default)]
struct Consumer {
    /// Delivered and not acknowledged: until when, in microseconds.
    pending: BTreeMap<u64, i64>,
    /// Given back, to be delivered again.
    again: BTreeSet<u64>,
    /// The next sequence that it has not seen.
    next: u64,
    ack_wait: i64,
}

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// How long an id is recognised, in microseconds.
    window: i64,
    /// Only the last message of a subject is kept.
    is_last_only: bool,
    messages: BTreeMap<u64, Stored>,
    subjects: HashMap<String, BTreeSet<u64>>,
    ids: HashMap<String, (i64, u64)>,
    last: u64,
    consumers: BTreeMap<String, Consumer>,
}

impl Stream {
    pub(crate) fn new(window: i64, is_last_only: bool) -> Self {
        Self {
            window,
            is_last_only,
            messages: BTreeMap::new(),
            subjects: HashMap::new(),
            ids: HashMap::new(),
            last: 0,
            consumers: BTreeMap::new(),
        }
    }

    /// Stores a message, unless its expectation is wrong or its id is known; the expectation is looked at first.
    pub(crate) fn publish(&mut self, now: i64, draft: Draft) -> Answer {
        if let Some(expected) = draft.expected_last {
            let subject = draft.expected_subject.as_ref().unwrap_or(&draft.subject);
            let last = self.last_of(subject).map_or(0, |stored| stored.seq);
            if last != expected {
                return Answer::WrongLast;
            }
        }
        if let Some(id) = &draft.id {
            match self.ids.get(id) {
                Some((at, seq)) if now - at < self.window => return Answer::Duplicate(*seq),
                _ => {}
            }
        }
        self.last += 1;
        let seq = self.last;
        if let Some(id) = &draft.id {
            self.ids.insert(id.clone(), (now, seq));
        }
        let of_subject = self.subjects.entry(draft.subject.clone()).or_default();
        if self.is_last_only {
            for old in std::mem::take(of_subject) {
                self.messages.remove(&old);
            }
        }
        of_subject.insert(seq);
        let at = now;
        self.messages.insert(seq, Stored { seq, at, draft });
        Answer::Stored(seq)
    }

    /// The sequence of the last message that was ever stored.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Stored> {
        self.messages.get(&seq)
    }

    /// The messages from a sequence on.
    pub(crate) fn from(&self, seq: u64) -> impl Iterator<Item = &Stored> {
        self.messages.range(seq..).map(|(_, stored)| stored)
    }

    /// The last message of a subject.
    pub(crate) fn last_of(&self, subject: &str) -> Option<&Stored> {
        let seq = self.subjects.get(subject)?.last()?;
        self.messages.get(seq)
    }

    /// The first message of a subject.
    pub(crate) fn first_of(&self, subject: &str) -> Option<&Stored> {
        let seq = self.subjects.get(subject)?.first()?;
        self.messages.get(seq)
    }

    /// Removes all messages of a subject, but those from `keep_from` on. How many that were.
    pub(crate) fn purge(&mut self, subject: &str, keep_from: u64) -> u64 {
        let Some(of_subject) = self.subjects.get_mut(subject) else {
            return 0;
        };
        let kept = of_subject.split_off(&keep_from);
        let removed = std::mem::replace(of_subject, kept);
        for seq in &removed {
            self.messages.remove(seq);
            for consumer in self.consumers.values_mut() {
                consumer.pending.remove(seq);
                consumer.again.remove(seq);
            }
        }
        removed.len() as u64
    }

    /// The server starts again: it knows the ids of what it has kept, and consumers go on.
    pub(crate) fn restart(&mut self) {
        self.ids = self
            .messages
            .values()
            .filter_map(|stored| Some((stored.draft.id.clone()?, (stored.at, stored.seq))))
            .collect();
    }

    /// All ids are forgotten, as if their time had passed.
    pub(crate) fn forget_ids(&mut self) {
        self.ids.clear();
    }

    /// Makes sure of a consumer of all messages.
    pub(crate) fn consumer(&mut self, name: &str, ack_wait: i64) {
        self.consumers
            .entry(name.to_owned())
            .or_insert_with(|| Consumer {
                next: 1,
                ack_wait,
                ..Consumer::default()
            });
    }

    /// Hands out the next message: what was given back or waited for too long comes first.
    pub(crate) fn fetch(&mut self, name: &str, now: i64) -> Option<&Stored> {
        let consumer = self.consumers.get_mut(name)?;
        let overdue = consumer.pending.iter().find(|(_, until)| **until <= now);
        let again = overdue.map(|(seq, _)| *seq);
        let seq = if let Some(seq) = again.or_else(|| consumer.again.pop_first()) {
            seq
        } else {
            let (seq, _) = self.messages.range(consumer.next..).next()?;
            consumer.next = seq + 1;
            *seq
        };
        consumer.pending.insert(seq, now + consumer.ack_wait);
        self.messages.get(&seq)
    }

    /// A message is done with. Whether it was still waited for.
    pub(crate) fn ack(&mut self, name: &str, seq: u64) -> bool {
        let Some(consumer) = self.consumers.get_mut(name) else {
            return false;
        };
        let was_given_back = consumer.again.remove(&seq);
        consumer.pending.remove(&seq).is_some() || was_given_back
    }

    /// A message is to be delivered again.
    pub(crate) fn give_back(&mut self, name: &str, seq: u64) {
        if let Some(consumer) = self.consumers.get_mut(name)
            && consumer.pending.remove(&seq).is_some()
        {
            consumer.again.insert(seq);
        }
    }

    /// Whether all that was ever stored was delivered and acknowledged.
    pub(crate) fn is_done(&self, name: &str) -> bool {
        self.consumers.get(name).is_none_or(|consumer| {
            consumer.pending.is_empty() && consumer.again.is_empty() && consumer.next > self.last
        })
    }
}
