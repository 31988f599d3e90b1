//! Workers that keep the rules: an effect once, an undo always, and nothing done after its undo. And
//! the client that publishes trigger events.

use super::{
    broker::Op,
    jetstream::Stored,
    schedule::{Plan, SECOND, StreamName},
    world::{Event, Node, Then, World},
};
use crate::{broker::publisher::Outgoing, partition::messages};
use dirigent_contracts::{
    envelope,
    id::{EffectId, PartitionId, SagaAddress},
    journal::Control,
    outcome::Failure,
    task::{Command, TaskResult},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

/// One worker process.
#[derive(Clone, Default)]
pub(super) struct Worker {
    pub(super) life: u32,
    pub(super) is_down: bool,
}

/// What the world remembers of an effect.
#[derive(Clone, Debug, Default)]
pub(super) struct Deed {
    pub(super) saga: Option<SagaAddress>,
    pub(super) task: String,
    pub(super) is_done: bool,
    pub(super) is_undone: bool,
}

/// Everything that was done and undone: the workers' own database.
pub(super) struct Ledger {
    seed: u64,
    pub(super) deeds: BTreeMap<EffectId, Deed>,
}

/// How an attempt goes.
enum Manner {
    Good,
    /// It fails, and may succeed another time.
    Failing,
    /// It fails for good.
    Refusing,
    /// It is done, and nobody hears of it.
    Mute,
    /// It is done after everybody has given up on it.
    Slow,
}

impl Ledger {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            deeds: BTreeMap::new(),
        }
    }

    fn rng(&self, command: &Command) -> fastrand::Rng {
        let Command {
            saga,
            state,
            attempt,
            direction,
            ..
        } = command;
        let text = format!(
            "{saga} {state} {attempt} {direction:?} {}",
            command.effect.step
        );
        fastrand::Rng::with_seed(xxhash_rust::xxh3::xxh3_64_with_seed(
            text.as_bytes(),
            self.seed,
        ))
    }

    fn manner(&self, command: &Command) -> Manner {
        let draw = self.rng(command).u32(..100);
        if command.undoes.is_some() {
            // Undoing is tried again a few times, but not for ever.
            return match draw {
                0..10 if command.attempt == 1 => Manner::Failing,
                10..14 if command.attempt == 1 => Manner::Mute,
                _ => Manner::Good,
            };
        }
        match draw {
            0..8 => Manner::Failing,
            8..12 => Manner::Refusing,
            12..15 => Manner::Mute,
            15..18 => Manner::Slow,
            _ => Manner::Good,
        }
    }

    /// Does what a command asks. `None` if nobody will hear of it.
    fn perform(&mut self, command: &Command) -> Option<TaskResult> {
        let manner = self.manner(command);
        let failed = |error: &str, retryable| TaskResult::Failed {
            failure: Failure::new(error, ""),
            retryable,
        };
        match manner {
            Manner::Failing => return Some(failed("Failing", true)),
            Manner::Refusing => return Some(failed("Refusing", false)),
            _ => {}
        }
        let effect = command.undoes.unwrap_or(command.effect);
        let deed = self.deeds.entry(effect).or_default();
        if command.undoes.is_some() {
            deed.is_undone = true;
        } else if deed.is_undone {
            return Some(failed("Undone", false));
        } else {
            deed.is_done = true;
            deed.saga = Some(command.saga.clone());
            command.task.as_str().clone_into(&mut deed.task);
        }
        let output = Arc::new(json!({ "by": command.attempt }));
        (!matches!(manner, Manner::Mute)).then_some(TaskResult::Succeeded { output })
    }
}

impl Plan {
    pub(super) fn address(&self) -> SagaAddress {
        SagaAddress {
            definition: self.definition.parse().unwrap(),
            key: format!("k{}", self.key).parse().unwrap(),
        }
    }
}

impl World {
    pub(super) fn begin_work(&mut self, at: usize, message: &Stored) {
        let command: Command = envelope::decode(&message.draft.body).unwrap();
        let mut rng = self.ledger.rng(&command);
        let takes = match self.ledger.manner(&command) {
            Manner::Slow => rng.i64(5 * SECOND..9 * SECOND),
            _ => rng.i64(1_000..60_000),
        };
        let (life, seq) = (self.workers[at].life, message.seq);
        let command = Box::new(command);
        self.after(
            takes,
            Event::Work {
                at,
                life,
                seq,
                command,
            },
        );
    }

    pub(super) fn end_work(&mut self, at: usize, seq: u64, command: &Command) {
        let result = self.ledger.perform(command);
        self.say(|| {
            format!(
                "w{at} did {} {} -> {result:?}",
                command.task, command.command
            )
        });
        let node = Node::Worker(at);
        match result {
            Some(result) => {
                let reply = messages::reply(command.command, command.reply_to.clone(), result);
                self.publish(node, &reply, Then::Replied { command: seq });
            }
            None => self.call(node, Op::Ack(StreamName::Commands, seq), Then::Nothing),
        }
    }

    pub(super) fn worker_answered(&mut self, at: usize, then: &Then) {
        if let Then::Replied { command } = then {
            let op = Op::Ack(StreamName::Commands, *command);
            self.call(Node::Worker(at), op, Then::Nothing);
        }
    }

    pub(super) fn trigger(&mut self, n: usize) {
        let plan = &self.schedule.plans[n];
        let subject = format!("sim.{}", plan.definition);
        self.publish_event(subject, n, format!("trigger-{n}"));
    }

    pub(super) fn paid(&mut self, n: usize) {
        self.publish_event("sim.paid".to_owned(), n, format!("paid-{n}"));
    }

    fn publish_event(&mut self, subject: String, n: usize, id: String) {
        let key = self.schedule.plans[n].address().key;
        let body = json!({ "key": key }).to_string().into_bytes();
        let message = Outgoing::new(subject, body).with_message_id(id);
        self.publish_as_client(&message);
    }

    pub(super) fn cancel(&mut self, n: usize) {
        let address = self.schedule.plans[n].address();
        let partition = PartitionId::of(&address.key, super::scenario::PARTITIONS);
        let reason = "asked".to_owned();
        let control = Control::Cancel { reason };
        let message = messages::control(partition, &address, control, format!("cancel-{n}"));
        self.publish_as_client(&message);
    }

    fn publish_as_client(&mut self, message: &Outgoing) {
        self.audit.expect(message);
        self.publish(Node::Client, message, Then::Nothing);
    }
}
