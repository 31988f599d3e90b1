//! One recorded run through the real fold, with a worker that answers as recorded, in virtual time.

use crate::cases::{Case, Recording, Task};
use dirigent_contracts::{
    history::HistoryEvent,
    id::SagaAddress,
    journal::{Entry, Start},
    limits::SagaLimits,
    outcome::Outcome,
    task::{Command, Reply, TaskResult},
    time::Timestamp,
};
use dirigent_coordinator::engine::{
    Effect,
    offline::{Offline, Step},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

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
    address: SagaAddress,
    world: Offline<'a>,
    fault: Fault,
    recording: &'a Recording,
    answers: Vec<Option<&'a Task>>,
    played: Played,
}

impl<'a> Player<'a> {
    /// Plays a run that begins at this instant to its end; the reason if its definition is refused.
    pub(crate) fn play(
        case: &Case,
        recording: &'a Recording,
        fault: Fault,
        began: Timestamp,
    ) -> Result<Played, String> {
        let document = case.machines[&recording.machine].to_string();
        let (parsed, program) = dirigent_coordinator::compile("recorded.json", &document)
            .map_err(|report| format!("refused: {:?}", report.diagnostics()))?;
        let mut player = Player {
            address: SagaAddress {
                definition: "recorded".parse().unwrap_or_else(|error| panic!("{error}")),
                key: "run".parse().unwrap_or_else(|error| panic!("{error}")),
            },
            world: Offline::new(&program, began),
            fault,
            recording,
            answers: recording.tasks.iter().map(Some).collect(),
            played: Played {
                outcome: None,
                payloads: Vec::new(),
                strays: Vec::new(),
                history: Vec::new(),
                elapsed: Duration::ZERO,
            },
        };
        let start = Start {
            digest: parsed.digest,
            input: Arc::new(recording.input.clone()),
            trigger: None,
            parent: None,
            part: None,
            limits: SagaLimits::default(),
        };
        let address = player.address.clone();
        player.world.push(address, Entry::Start(start));
        player.run();
        player.played.elapsed = player.world.now().since(began);
        for left in player.answers.iter().flatten() {
            let stray = format!("{:?} was called in the recording, and not here", left.state);
            player.played.strays.push(stray);
        }
        Ok(player.played)
    }

    fn run(&mut self) {
        while self.played.outcome.is_none() && self.world.entries() < MOST_ENTRIES {
            let Some(step) = self.world.step() else {
                return;
            };
            self.take(step);
            match self.fault {
                Fault::None => {}
                Fault::Doubled => {
                    if let Some(step) = self.world.repeat() {
                        self.take(step);
                    }
                }
                Fault::Rebuilt => {
                    if let Err(error) = self.world.rebuild() {
                        panic!("a state is lost: {error}");
                    }
                }
            }
        }
    }

    fn take(&mut self, step: Step) {
        if step.saga == self.address {
            self.played.history.extend(step.history);
        }
        for effect in step.effects {
            match effect {
                Effect::Command { command, .. } => self.work(&command),
                Effect::Ended { outcome, .. } => self.played.outcome = Some(outcome),
                Effect::Withdraw { .. } => {}
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
        let reply = Reply {
            command: command.command,
            result,
            callback,
            worker: String::new(),
            timing: None,
        };
        self.world.push(command.saga.clone(), Entry::Reply(reply));
    }
}

fn is_of(answer: Option<&Task>, command: &Command) -> bool {
    answer.is_some_and(|task| {
        let state = task.state.as_ref();
        state.is_none_or(|state| *state == command.state)
    })
}
