//! The broker's side of a request: what is stored, what is read, and who is told.

use super::{
    jetstream::{self, Draft, Stored, Stream},
    schedule::{COORDINATORS, SECOND, StreamName, WORKERS},
    world::{Event, Node, World},
};

/// The one consumer of a stream: the routers' of events, the workers' of commands.
pub(super) const CONSUMER: &str = "all";
/// How long a delivered message may stay unacknowledged.
const ACK_WAIT: i64 = 5 * SECOND;
/// How old an answer to a read may be at most.
const STALENESS: i64 = 3 * SECOND;

/// A request.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Store a message: an entry, a command, an event; a key's value, empty for none.
    Publish(StreamName, Draft),
    /// The first message of a subject.
    First(StreamName, String),
    /// The last message of each subject that begins so.
    List(StreamName, String),
    /// The sequence of the stream's last message.
    End(StreamName),
    /// Remove the messages of a subject.
    Purge(StreamName, String),
    /// A delivered message is done with.
    Ack(StreamName, u64),
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Published(jetstream::Answer),
    Message(Option<Stored>),
    Listing(Vec<Stored>),
    End(u64),
    Done,
}

impl Op {
    fn stream(&self) -> StreamName {
        match self {
            Self::Publish(stream, _)
            | Self::First(stream, _)
            | Self::List(stream, _)
            | Self::End(stream)
            | Self::Purge(stream, _)
            | Self::Ack(stream, _) => *stream,
        }
    }
}

impl StreamName {
    /// The stream that keeps a subject.
    pub(super) fn of(subject: &str) -> Self {
        if let Some(rest) = subject.strip_prefix("dirigent.journal.") {
            let partition = rest.split('.').next().and_then(|text| text.parse().ok());
            return Self::Journal(partition.unwrap());
        }
        match subject.split('.').take(2).collect::<Vec<_>>()[..] {
            ["dirigent", "command"] => Self::Commands,
            ["sagas", _] => Self::Sagas,
            ["partitions", _] => Self::Partitions,
            _ => Self::Events,
        }
    }
}

impl World {
    pub(super) fn prepare_consumers(&mut self) {
        for name in [StreamName::Events, StreamName::Commands] {
            if let Some(stream) = self.streams.get_mut(&name) {
                stream.consumer(CONSUMER, ACK_WAIT);
            }
        }
    }

    /// A request arrives.
    pub(super) fn arrive(&mut self, node: Node, call: u64, op: Op) {
        let name = op.stream();
        // Without a leader nothing is stored and nothing is said.
        if self.leaderless.contains(&name) {
            return;
        }
        let at = self.broker_time(name).0;
        // A read may be answered by a server that is behind.
        let is_stale =
            matches!(op, Op::First(..) | Op::List(..)) && self.is_unlucky(|noise| noise.stale);
        let until = if is_stale {
            at - self.rng.i64(0..STALENESS)
        } else {
            i64::MAX
        };
        let Some(stream) = self.streams.get_mut(&name) else {
            return;
        };
        let answer = match op {
            Op::Publish(_, draft) => {
                let answer = stream.publish(at, draft);
                if let jetstream::Answer::Stored(seq) = answer {
                    self.stored(name, seq);
                }
                Answer::Published(answer)
            }
            Op::First(_, subject) => {
                let first = stream.first_of(&subject);
                Answer::Message(first.filter(|stored| stored.at <= until).cloned())
            }
            Op::List(_, prefix) => Answer::Listing(list(stream, &prefix, until)),
            Op::End(_) => Answer::End(stream.last()),
            Op::Purge(_, subject) => {
                stream.purge(&subject, u64::MAX);
                Answer::Done
            }
            Op::Ack(_, seq) => {
                stream.ack(CONSUMER, seq);
                Answer::Done
            }
        };
        if !self.is_unlucky(|noise| noise.unanswered) && self.apart_until(node) <= self.now {
            let wait = self.latency();
            self.after(wait, Event::Answer { call, answer });
        }
    }

    /// A message is stored: whoever listens is told.
    fn stored(&mut self, name: StreamName, seq: u64) {
        let Some(stored) = self.streams.get(&name).and_then(|stream| stream.get(seq)) else {
            return;
        };
        let stored = stored.clone();
        if let Err(wrong) = self.audit.stored(name, &stored) {
            self.audit.accuse(wrong);
        }
        match name {
            StreamName::Journal(partition) => self.tell_owners(partition, &stored),
            StreamName::Partitions => {
                for at in 0..COORDINATORS {
                    self.tell_change(at, stored.clone());
                }
            }
            StreamName::Events | StreamName::Commands => self.dispatch(name),
            StreamName::Sagas => {}
        }
    }

    /// Hands out what there is to the members of the stream's consumer.
    pub(super) fn dispatch(&mut self, name: StreamName) {
        let members: Vec<Node> = match name {
            StreamName::Events => (0..COORDINATORS)
                .filter(|at| self.coordinators[*at].is_up)
                .map(Node::Coordinator)
                .collect(),
            _ => (0..WORKERS)
                .filter(|at| !self.workers[*at].is_down)
                .map(Node::Worker)
                .collect(),
        };
        if members.is_empty() {
            return;
        }
        while let Some(message) = self
            .streams
            .get_mut(&name)
            .and_then(|stream| stream.fetch(CONSUMER, self.now))
        {
            let message = message.clone();
            let node = members[self.rng.usize(..members.len())];
            let life = match node {
                Node::Coordinator(at) => self.coordinators[at].life,
                Node::Worker(at) => self.workers[at].life,
                Node::Client => 0,
            };
            self.after(ACK_WAIT, Event::Overdue { stream: name });
            if !self.is_unlucky(|noise| noise.lost) {
                let wait = self.latency();
                self.after(
                    wait,
                    Event::Handed {
                        node,
                        life,
                        message,
                    },
                );
            }
        }
    }
}

fn list(stream: &Stream, prefix: &str, until: i64) -> Vec<Stored> {
    let mut found = std::collections::BTreeMap::new();
    for stored in stream.from(1) {
        if stored.at <= until && stored.draft.subject.starts_with(prefix) {
            found.insert(&stored.draft.subject, stored);
        }
    }
    found.into_values().cloned().collect()
}
