//! Who watches: folds every journal as it is stored, once and in order, and compares with that what
//! the installation does.

use super::{
    coordinator::{following, record, start_of_child},
    jetstream::Stored,
    scenario::{Deployed, LASTING, PARTITIONS},
    schedule::StreamName,
    worker::{Deed, Ledger},
};
use crate::{
    broker::publisher::Outgoing,
    engine::{self, Effect, Record, Saga},
    partition::messages,
    spans::Sampling,
};
use dirigent_contracts::{
    error_name, header,
    id::{CommandId, EffectId, PartitionId, SagaAddress},
    journal::Entry,
    outcome::{Outcome, SagaStatus},
    task::{Command, Direction, TaskResult},
    time::Timestamp,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is known of a saga.
#[derive(Default)]
struct Watched {
    state: Option<Saga>,
    /// Commands that were asked for and are awaited, perhaps.
    commands: Vec<(CommandId, Timestamp)>,
    outcomes: Vec<Outcome>,
}

/// A message that may be published, and whether it was.
struct Expected {
    body: Vec<u8>,
    /// Whether it may be left out: an owner that catches up passes over answered commands.
    is_optional: bool,
    is_stored: bool,
}

#[derive(Default)]
pub(super) struct Audit {
    sagas: BTreeMap<SagaAddress, Watched>,
    /// By subject and message id.
    expected: BTreeMap<(String, String), Expected>,
    /// The attempts of each effect that were asked for.
    attempts: HashMap<EffectId, BTreeSet<CommandId>>,
    /// Those that were answered with a failure.
    failures: BTreeSet<CommandId>,
    wrong: Option<String>,
    live: usize,
}

impl Audit {
    /// Takes note of a message that somebody may publish.
    pub(super) fn expect(&mut self, message: &Outgoing) {
        self.expect_message(message, false);
    }

    fn expect_message(&mut self, message: &Outgoing, is_optional: bool) {
        let id = message.header(header::MESSAGE_ID).unwrap_or_default();
        let id = (message.subject().to_owned(), id.to_owned());
        let body = message.body().to_vec();
        self.expected.entry(id).or_insert(Expected {
            body,
            is_optional,
            is_stored: false,
        });
    }

    pub(super) fn accuse(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    pub(super) fn verdict(&mut self) -> Result<(), String> {
        self.wrong.take().map_or(Ok(()), Err)
    }

    /// A message was stored.
    pub(super) fn stored(&mut self, stream: StreamName, stored: &Stored) -> Result<(), String> {
        match stream {
            StreamName::Sagas | StreamName::Partitions => return Ok(()),
            StreamName::Journal(partition) => {
                let record = record(PartitionId(partition), stored)?;
                match &record.entry {
                    // Anybody may say that a time has come; the fold decides.
                    Entry::Timer(_) => {}
                    Entry::Reply(reply) => {
                        let known = self.attempts.get(&reply.command.effect);
                        if !known.is_some_and(|known| known.contains(&reply.command)) {
                            return Err(format!("{} was answered, and never asked", reply.command));
                        }
                    }
                    _ => self.check(stored)?,
                }
                return self.fold(&record);
            }
            StreamName::Commands | StreamName::Events => self.check(stored)?,
        }
        if stream == StreamName::Events {
            for message in following(stored) {
                self.expect_message(&message, false);
            }
        }
        Ok(())
    }

    /// A message must have its cause in a journal, and be what that cause asks for.
    fn check(&mut self, stored: &Stored) -> Result<(), String> {
        let subject = &stored.draft.subject;
        let id = stored.draft.id.clone().unwrap_or_default();
        let expected = self.expected.get_mut(&(subject.clone(), id.clone()));
        let Some(expected) = expected else {
            return Err(format!("{subject} {id} was published without a cause"));
        };
        expected.is_stored = true;
        if expected.body != stored.draft.body {
            return Err(format!("{subject} {id} is not what its cause asks for"));
        }
        Ok(())
    }

    fn fold(&mut self, record: &Record) -> Result<(), String> {
        let address = &record.address;
        let watched = self.sagas.entry(address.clone()).or_default();
        let was_live = is_live(watched.state.as_ref());
        let digest = match (watched.state.as_ref().and_then(Saga::run), &record.entry) {
            (Some(run), _) => Some(run.digest().clone()),
            (None, Entry::Start(start)) => Some(start.digest.clone()),
            (None, _) => None,
        };
        let program = digest.and_then(|digest| Deployed::get().program(&digest));
        if let Entry::Reply(reply) = &record.entry
            && let TaskResult::Failed { failure, .. } = &reply.result
            // What one owner finds no room for, another may have published.
            && failure.error != error_name::QUEUE_FULL
        {
            self.failures.insert(reply.command);
        }
        let effects = engine::fold(&mut watched.state, program, record).effects;
        let is_live = is_live(watched.state.as_ref());
        self.live = self.live + usize::from(is_live) - usize::from(was_live);
        let cause = messages::cause(watched.state.as_ref(), record.seq);
        for effect in &effects {
            match effect {
                Effect::Command { command, .. } => {
                    watched.commands.push((command.command, command.deadline));
                    let attempts = self.attempts.entry(command.effect).or_default();
                    attempts.insert(command.command);
                    judge_undo(command, &self.attempts, &self.failures)?;
                }
                Effect::Ended { outcome, .. } => watched.outcomes.push(outcome.clone()),
                _ => {}
            }
        }
        watched.check(address)?;
        for effect in effects {
            let message = match &effect {
                Effect::StartChild {
                    child,
                    input,
                    parent,
                    trace,
                } => {
                    let digest = Deployed::get().latest(&child.definition).unwrap();
                    let start = start_of_child(digest, input, parent);
                    let command = parent.command;
                    let trace = Sampling::default().attempt(command, *trace);
                    Some(messages::start_child(
                        PARTITIONS, child, command, start, trace,
                    ))
                }
                effect => {
                    messages::message(PARTITIONS, address, &cause, effect, Sampling::default())
                }
            };
            if let Some(message) = message {
                let is_command = matches!(effect, Effect::Command { .. });
                self.expect_message(&message, is_command);
            }
        }
        Ok(())
    }

    /// Whether no saga is alive.
    pub(super) fn is_over(&self) -> bool {
        self.live == 0
    }

    pub(super) fn why_not_ended(&self) -> String {
        let live = self.sagas.iter().filter_map(|(address, watched)| {
            let state = watched.state.as_ref().filter(|saga| is_live(Some(saga)))?;
            Some(format!("{address}: {:#?}", state.run()))
        });
        let live: Vec<String> = live.collect();
        format!("these have not ended: {}", live.join("\n"))
    }

    /// What must hold when all is over.
    pub(super) fn judge(
        &self,
        expected: impl Iterator<Item = SagaAddress>,
        ledger: &Ledger,
    ) -> Result<(), String> {
        for address in expected {
            let watched = self.sagas.get(&address);
            if watched.is_none_or(|watched| watched.outcomes.is_empty()) {
                return Err(format!("{address} never started, or never ended"));
            }
        }
        // Of several starts of a saga one is stored.
        let started: BTreeSet<&str> = self
            .expected
            .iter()
            .filter(|((subject, _), expected)| expected.is_stored && is_start(subject))
            .map(|((subject, _), _)| subject.as_str())
            .collect();
        let lost = self.expected.iter().find(|((subject, _), expected)| {
            !expected.is_stored && !expected.is_optional && !started.contains(subject.as_str())
        });
        if let Some(((subject, id), _)) = lost {
            return Err(format!("{subject} {id} was never published"));
        }
        for (effect, deed) in &ledger.deeds {
            self.judge_deed(*effect, deed)?;
        }
        Ok(())
    }

    /// The ledger balances: what a saga that has succeeded did is done, what another did is undone.
    fn judge_deed(&self, effect: EffectId, deed: &Deed) -> Result<(), String> {
        let Some(address) = &deed.saga else {
            return Ok(());
        };
        let run = self
            .sagas
            .get(address)
            .and_then(|watched| watched.state.as_ref()?.run());
        let Some(run) = run.filter(|run| run.id() == effect.run) else {
            return Err(format!(
                "{address} did {effect} in a run that is not its own"
            ));
        };
        let must_be_undone =
            run.status() != SagaStatus::Succeeded && !LASTING.contains(&deed.task.as_str());
        if deed.is_done && deed.is_undone != must_be_undone {
            let status = run.status();
            return Err(format!(
                "{address} is {status}, and of its step {effect}: {deed:?}"
            ));
        }
        Ok(())
    }
}

/// Whether a subject of a journal is that of a start.
fn is_start(subject: &str) -> bool {
    subject.rsplit('.').next() == Some("start")
}

fn is_live(state: Option<&Saga>) -> bool {
    state.is_some_and(|saga| saga.run().is_some() && !saga.is_over())
}

/// What is undone was done, or may have been.
fn judge_undo(
    command: &Command,
    attempts: &HashMap<EffectId, BTreeSet<CommandId>>,
    failures: &BTreeSet<CommandId>,
) -> Result<(), String> {
    let (Direction::Undo, Some(undone)) = (command.direction, command.undoes) else {
        return Ok(());
    };
    // Once begun, an undo goes on, whatever is learnt of the attempt meanwhile.
    if command.attempt > 1 {
        return Ok(());
    }
    // A step that is a child has no commands.
    let Some(attempts) = attempts.get(&undone) else {
        return Ok(());
    };
    if attempts.iter().all(|attempt| failures.contains(attempt)) {
        let saga = &command.saga;
        return Err(format!(
            "{saga} undoes {undone}, and every attempt of it had failed"
        ));
    }
    Ok(())
}

impl Watched {
    /// What holds between any two entries.
    fn check(&mut self, address: &SagaAddress) -> Result<(), String> {
        if self.outcomes.len() > 1 {
            return Err(format!("{address} has ended {} times", self.outcomes.len()));
        }
        let Some((saga, run)) = self
            .state
            .as_ref()
            .and_then(|saga| Some((saga, saga.run()?)))
        else {
            return Ok(());
        };
        if run.outcome().is_some() {
            if saga.next_deadline() != Timestamp::NEVER || !run.holds_nothing() {
                return Err(format!(
                    "{address} has ended, and holds something: {run:#?}"
                ));
            }
            return Ok(());
        }
        self.commands.retain(|(command, _)| run.awaits(*command));
        let first = self.commands.iter().map(|(_, deadline)| *deadline).min();
        if first.is_some_and(|first| saga.next_deadline() > first) {
            return Err(format!("{address} awaits an answer without a deadline"));
        }
        Ok(())
    }
}
