//! One recorded run through the real fold, with a worker that answers as recorded, in virtual time.

use crate::cases::{Case, Recording, Task};
use dirigent_contracts::{
    history::HistoryEvent,
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::{Entry, Start, Timer},
    outcome::Outcome,
    task::{Command, Reply, TaskResult},
    time::Timestamp,
};
use dirigent_coordinator::engine::{Effect, Program, Record, Saga, fold};
use serde_json::Value;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// More entries than any recording needs.
const MOST_ENTRIES: u64 = 2_000;

/// What the run has to bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every entry is folded twice.
    Doubled,
    /// The state goes through its stored form after every entry.
    Rebuilt,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Played {
    /// How it ended; `None` if it still waits.
    pub(crate) outcome: Option<Outcome>,
    /// The payloads that were sent, each with the recorded one.
    pub(crate) payloads: Vec<(Value, Value)>,
    /// Calls that were not recorded, and recorded calls that did not come.
    pub(crate) strays: Vec<String>,
    pub(crate) history: Vec<HistoryEvent>,
    /// How long it took, in virtual time.
    pub(crate) elapsed: Duration,
}

pub(crate) struct Player<'a> {
    program: Program,
    saga: Option<Saga>,
    now: Timestamp,
    seq: u64,
    fault: Fault,
    recording: &'a Recording,
    answers: Vec<Option<&'a Task>>,
    inbox: VecDeque<Entry>,
    played: Played,
}

impl<'a> Player<'a> {
    /// Plays a run to its end; the reason if its definition is refused.
    pub(crate) fn play(
        case: &Case,
        recording: &'a Recording,
        fault: Fault,
    ) -> Result<Played, String> {
        let document = case.machines[&recording.machine].to_string();
        let (parsed, program) = dirigent_coordinator::compile("recorded.json", &document)
            .map_err(|report| format!("refused: {:?}", report.diagnostics()))?;
        let mut player = Self {
            program,
            saga: None,
            now: Timestamp::from_millis(1_700_000_000_000),
            seq: 0,
            fault,
            recording,
            answers: recording.tasks.iter().map(Some).collect(),
            inbox: VecDeque::new(),
            played: Played {
                outcome: None,
                payloads: Vec::new(),
                strays: Vec::new(),
                history: Vec::new(),
                elapsed: Duration::ZERO,
            },
        };
        player.inbox.push_back(Entry::Start(Start {
            digest: parsed.digest,
            input: Arc::new(recording.input.clone()),
            trigger: None,
            parent: None,
        }));
        let began = player.now;
        player.run();
        player.played.elapsed = player.now.since(began);
        for left in player.answers.iter().flatten() {
            let stray = format!("{:?} was called in the recording, and not here", left.state);
            player.played.strays.push(stray);
        }
        Ok(player.played)
    }

    fn run(&mut self) {
        while self.played.outcome.is_none() && self.seq < MOST_ENTRIES {
            let deadline = self
                .saga
                .as_ref()
                .map_or(Timestamp::NEVER, Saga::next_deadline);
            let entry = match self.inbox.pop_front() {
                Some(entry) => entry,
                None if deadline == Timestamp::NEVER => return,
                None => {
                    self.now = self.now.max(deadline);
                    Entry::Timer(Timer { due: deadline })
                }
            };
            self.now = self.now + Duration::from_millis(1);
            self.take(entry.clone());
            if self.fault == Fault::Doubled {
                self.take(entry);
            }
        }
    }

    fn take(&mut self, entry: Entry) {
        self.seq += 1;
        let record = Record {
            partition: PartitionId(0),
            seq: JournalSeq(self.seq),
            at: self.now,
            address: SagaAddress {
                definition: "recorded".parse().unwrap_or_else(|error| panic!("{error}")),
                key: "run".parse().unwrap_or_else(|error| panic!("{error}")),
            },
            trace: None,
            entry,
        };
        let effects = fold(&mut self.saga, Some(&self.program), &record);
        if self.fault == Fault::Rebuilt {
            let stored = rmp_serde::to_vec_named(&self.saga);
            let stored = stored.unwrap_or_else(|error| panic!("a state cannot be stored: {error}"));
            self.saga = rmp_serde::from_slice(&stored)
                .unwrap_or_else(|error| panic!("a stored state cannot be read: {error}"));
        }
        self.played.history.extend(effects.history);
        for effect in effects.effects {
            match effect {
                Effect::Command { command, .. } => self.work(&command),
                Effect::Ended { outcome, .. } => self.played.outcome = Some(outcome),
                other => self.played.strays.push(format!("{other:?}")),
            }
        }
    }

    /// Answers a command as the next recorded call of its state was answered.
    fn work(&mut self, command: &Command) {
        let recorded = self
            .answers
            .iter_mut()
            .filter(|answer| is_of(**answer, command));
        // Where branches race, the one that sent the same payload.
        let mut recorded: Vec<_> = recorded.collect();
        let same = recorded.iter().position(|answer| {
            answer.is_some_and(|task| crate::compare::agree(&task.payload, &command.input))
        });
        let Some(task) = (!recorded.is_empty())
            .then(|| recorded.swap_remove(same.unwrap_or(0)).take())
            .flatten()
        else {
            if self.recording.has_unrecorded() {
                // An item of a distributed Map is an execution of its own, which is not recorded.
                let output = Arc::clone(&command.input);
                self.reply(command, TaskResult::Succeeded { output }, false);
            } else {
                let stray = format!("{} is called here, and not in the recording", command.state);
                self.played.strays.push(stray);
            }
            return;
        };
        let sent = Value::clone(&command.input);
        self.played.payloads.push((task.payload.clone(), sent));
        let unknown = || {
            // What ran side by side is recorded without its answers.
            let is_done = task.outcome == "none" && self.recording.unordered;
            (is_done && self.recording.status == "SUCCEEDED").then(|| TaskResult::Succeeded {
                output: Arc::new(Value::Null),
            })
        };
        let result = task.result().or_else(unknown);
        self.submit(command);
        let Some(result) = result else {
            return;
        };
        self.reply(command, result, command.token.is_some());
    }

    /// Passes the request on, if somebody else is to complete the step.
    fn submit(&mut self, command: &Command) {
        if command.token.is_some() {
            let output = Arc::new(Value::Null);
            self.reply(command, TaskResult::Succeeded { output }, false);
        }
    }

    fn reply(&mut self, command: &Command, result: TaskResult, callback: bool) {
        self.inbox.push_back(Entry::Reply(Reply {
            command: command.command,
            result,
            callback,
            worker: String::new(),
        }));
    }
}

fn is_of(answer: Option<&Task>, command: &Command) -> bool {
    answer.is_some_and(|task| {
        let state = task.state.as_ref();
        state.is_none_or(|state| *state == command.state)
    })
}
