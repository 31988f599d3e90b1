//! A saga without a broker: the real fold, answers from a script, and time that is skipped.

use super::script::Case;
use dirigent_contracts::{
    history::{Happening, HistoryEvent},
    id::{CommandId, DefinitionDigest, JournalSeq, PartitionId, SagaAddress},
    journal::{Child, Entry, EventEntry, Start, Timer},
    outcome::{Failure, Outcome, SagaStatus},
    task::{Command, Direction, Reply, TaskResult},
    time::Timestamp,
};
use dirigent_coordinator::engine::{Effect, Program, Record, Saga, fold};
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// A saga that takes more entries than this goes in circles.
const MOST_ENTRIES: u64 = 100_000;
/// When every rehearsal begins: 2030-01-01T00:00:00Z.
const BEGIN: Timestamp = Timestamp(1_893_456_000_000_000);

/// What came of a case.
pub(super) struct Played {
    /// How it ended; `None` if it waits for something that never comes.
    pub(super) outcome: Option<Outcome>,
    pub(super) history: Vec<HistoryEvent>,
    /// States that asked for an answer that the script does not have.
    pub(super) unanswered: Vec<String>,
}

pub(super) struct Stage<'a> {
    program: &'a Program,
    case: &'a Case,
    address: SagaAddress,
    saga: Option<Saga>,
    now: Timestamp,
    seq: u64,
    inbox: VecDeque<Entry>,
    /// How many answers each state has had.
    given: BTreeMap<String, usize>,
    played: Played,
}

impl<'a> Stage<'a> {
    pub(super) fn play(
        program: &'a Program,
        case: &'a Case,
        address: SagaAddress,
        digest: DefinitionDigest,
    ) -> Played {
        let mut stage = Self {
            program,
            case,
            address,
            saga: None,
            now: BEGIN,
            seq: 0,
            inbox: VecDeque::new(),
            given: BTreeMap::new(),
            played: Played {
                outcome: None,
                history: Vec::new(),
                unanswered: Vec::new(),
            },
        };
        stage.inbox.push_back(Entry::Start(Start {
            digest,
            input: Arc::new(case.input.clone()),
            trigger: None,
            parent: None,
        }));
        while stage.played.outcome.is_none() && stage.seq < MOST_ENTRIES {
            let deadline = stage
                .saga
                .as_ref()
                .map_or(Timestamp::NEVER, Saga::next_deadline);
            let entry = match stage.inbox.pop_front() {
                Some(entry) => entry,
                None if deadline == Timestamp::NEVER => break,
                None => {
                    stage.now = stage.now.max(deadline);
                    Entry::Timer(Timer { due: deadline })
                }
            };
            stage.now = stage.now + Duration::from_millis(1);
            stage.take(entry);
        }
        stage.played
    }

    fn take(&mut self, entry: Entry) {
        self.seq += 1;
        let record = Record {
            partition: PartitionId(0),
            seq: JournalSeq(self.seq),
            at: self.now,
            address: self.address.clone(),
            trace: None,
            entry,
        };
        let effects = fold(&mut self.saga, Some(self.program), &record);
        for event in effects.history {
            // Where one state is rehearsed, what follows it is not.
            if self.played.outcome.is_some() {
                return;
            }
            match &event.what {
                Happening::EventAwaited { state, name, .. } => self.event(state, name),
                Happening::StateExited { state, output, .. }
                    if event.scope == 0 && self.case.state.as_ref() == Some(state) =>
                {
                    self.played.outcome.get_or_insert(Outcome {
                        status: SagaStatus::Succeeded,
                        output: Some(Arc::clone(output)),
                        failure: None,
                    });
                }
                Happening::ChildStarted { state, command, .. } => self.child(state, *command),
                Happening::Stuck { failure, .. } => {
                    self.played.outcome.get_or_insert(Outcome {
                        status: SagaStatus::Stuck,
                        output: None,
                        failure: Some(failure.clone()),
                    });
                }
                _ => {}
            }
            self.played.history.push(event);
        }
        for effect in effects.effects {
            match effect {
                Effect::Command { .. } if self.played.outcome.is_some() => return,
                Effect::Command { command, .. } => self.work(&command),
                Effect::Ended { outcome, .. } => {
                    self.played.outcome.get_or_insert(outcome);
                }
                _ => {}
            }
        }
    }

    /// The next answer for a state; `None` if nobody answers.
    fn answer(&mut self, name: &str) -> Option<TaskResult> {
        let given = self.given.entry(name.to_owned()).or_default();
        let answer = self.case.answers.get(name).and_then(|all| all.at(*given));
        *given += 1;
        if answer.is_none() && !name.ends_with("/undo") {
            self.played.unanswered.push(name.to_owned());
        }
        match answer {
            Some(answer) => answer.result(),
            // Undoing succeeds unless the script says otherwise.
            None if name.ends_with("/undo") => Some(TaskResult::Succeeded {
                output: Arc::new(Value::Null),
            }),
            None => Some(TaskResult::Failed {
                failure: Failure::new("Unanswered", format!("the script has no answer for {name}")),
                retryable: false,
            }),
        }
    }

    fn work(&mut self, command: &Command) {
        let name = match command.direction {
            Direction::Do => command.state.clone(),
            Direction::Undo => format!("{}/undo", command.state),
        };
        let Some(result) = self.answer(&name) else {
            return;
        };
        if command.token.is_some() {
            let output = Arc::new(Value::Null);
            self.reply(command.command, TaskResult::Succeeded { output }, false);
        }
        self.reply(command.command, result, command.token.is_some());
    }

    fn reply(&mut self, command: CommandId, result: TaskResult, callback: bool) {
        self.inbox.push_back(Entry::Reply(Reply {
            command,
            result,
            callback,
            worker: String::new(),
        }));
    }

    fn child(&mut self, state: &str, command: CommandId) {
        let outcome = match self.answer(state) {
            Some(TaskResult::Succeeded { output }) => Outcome {
                status: SagaStatus::Succeeded,
                output: Some(output),
                failure: None,
            },
            Some(TaskResult::Failed { failure, .. }) => Outcome {
                status: SagaStatus::Compensated,
                output: None,
                failure: Some(failure),
            },
            Some(TaskResult::Heartbeat) | None => return,
        };
        self.inbox
            .push_back(Entry::Child(Child { command, outcome }));
    }

    fn event(&mut self, state: &str, name: &str) {
        if let Some(TaskResult::Succeeded { output }) = self.answer(state) {
            self.inbox.push_back(Entry::Event(EventEntry {
                name: name.to_owned(),
                id: format!("{state}-{}", self.seq),
                data: output,
            }));
        }
    }
}
