//! The engine on a stage of paper: records go in, effects come out, and a model worker answers.

mod behaviour;
mod bounds;
mod broken;
mod compensation;
mod distribution;
mod properties;

use super::{Effect, Effects, Ignored, Program, Record, Saga, fold, set_aside};
use dirigent_contracts::{
    history::{Happening, HistoryEvent},
    id::{CommandId, JournalSeq, PartitionId, SagaAddress},
    journal::{Control, Entry, EventEntry, Start, Timer},
    limits::SagaLimits,
    outcome::{Failure, SagaStatus},
    task::{Command, Reply, TaskResult},
    time::Timestamp,
};
use serde_json::Value;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// One saga, all that was folded, and all that was asked for.
struct Play {
    program: Program,
    saga: Option<Saga>,
    now: Timestamp,
    records: Vec<Record>,
    effects: Vec<Effect>,
    history: Vec<HistoryEvent>,
    /// Commands that nobody has looked at yet.
    commands: VecDeque<Command>,
    /// What the saga may use.
    limits: SagaLimits,
    /// Whether the state goes through its stored form after each record.
    is_stored: bool,
}

impl Play {
    fn new(document: &str) -> Self {
        let (_, program) = match crate::compile("test.yaml", document) {
            Ok(compiled) => compiled,
            Err(report) => panic!("{report}\n{:#?}\n{document}", report.diagnostics()),
        };
        Self {
            program,
            saga: None,
            now: Timestamp(1_000_000),
            records: Vec::new(),
            effects: Vec::new(),
            history: Vec::new(),
            commands: VecDeque::new(),
            limits: SagaLimits::default(),
            is_stored: false,
        }
    }

    fn started(document: &str, input: Value) -> Self {
        let mut play = Self::new(document);
        play.start(input);
        play
    }

    fn start(&mut self, input: Value) {
        let digest = "0".repeat(64).parse().unwrap();
        let start = Start {
            digest,
            input: Arc::new(input),
            trigger: None,
            parent: None,
            part: None,
            limits: self.limits,
        };
        self.take(Entry::Start(start));
    }

    /// A saga that may use so much.
    fn limited(document: &str, input: Value, limits: SagaLimits) -> Self {
        let mut play = Self::new(document);
        play.limits = limits;
        play.start(input);
        play
    }

    /// Folds one entry, a millisecond after the last.
    fn take(&mut self, entry: Entry) -> Option<Ignored> {
        self.take_with(entry, |saga, program, record| {
            fold(saga, Some(program), record)
        })
    }

    /// Takes in one entry whose fold breaks off.
    fn break_off(&mut self, entry: Entry) -> Option<Ignored> {
        self.take_with(entry, |saga, _, record| {
            set_aside(saga, "a mistake", record)
        })
    }

    fn take_with(
        &mut self,
        entry: Entry,
        fold: impl FnOnce(&mut Option<Saga>, &Program, &Record) -> Effects,
    ) -> Option<Ignored> {
        self.now = self.now + Duration::from_millis(1);
        let record = Record {
            partition: PartitionId(0),
            seq: JournalSeq(self.records.len() as u64 + 1),
            at: self.now,
            address: SagaAddress {
                definition: "test".parse().unwrap(),
                key: "key".parse().unwrap(),
            },
            trace: None,
            entry,
        };
        let effects = fold(&mut self.saga, &self.program, &record);
        self.records.push(record);
        if self.is_stored {
            let body = rmp_serde::to_vec_named(&self.saga).unwrap();
            self.saga = rmp_serde::from_slice(&body).unwrap();
        }
        let Effects {
            effects,
            history,
            ignored,
        } = effects;
        self.commands
            .extend(effects.iter().filter_map(|effect| match effect {
                Effect::Command { command, .. } => Some((**command).clone()),
                _ => None,
            }));
        self.effects.extend(effects);
        self.history.extend(history);
        self.check();
        ignored
    }

    /// What holds between any two entries.
    fn check(&self) {
        let Some(run) = self.saga.as_ref().and_then(Saga::run) else {
            return;
        };
        let deadline = self
            .saga
            .as_ref()
            .map_or(Timestamp::NEVER, Saga::next_deadline);
        let ends = self.count(|what| matches!(what, Happening::SagaEnded { .. }));
        assert_eq!(
            ends,
            usize::from(run.outcome().is_some()),
            "a saga ends once"
        );
        if run.outcome().is_some() {
            assert_eq!(
                deadline,
                Timestamp::NEVER,
                "a saga that has ended waits for nothing"
            );
            return;
        }
        for effect in &self.effects {
            if let Effect::Command { command, .. } = effect
                && run.awaits(command.command)
                && run.status() != SagaStatus::Stuck
            {
                assert!(
                    deadline <= command.deadline,
                    "a pending step has a deadline"
                );
            }
        }
    }

    fn reply(&mut self, command: CommandId, result: TaskResult) -> Option<Ignored> {
        self.take(Entry::Reply(Reply {
            command,
            result,
            callback: false,
            worker: String::new(),
            timing: None,
        }))
    }

    fn succeed(&mut self, command: CommandId, output: Value) -> Option<Ignored> {
        self.reply(
            command,
            TaskResult::Succeeded {
                output: Arc::new(output),
            },
        )
    }

    fn fail(&mut self, command: CommandId, error: &str) -> Option<Ignored> {
        let failure = Failure::new(error, "");
        self.reply(
            command,
            TaskResult::Failed {
                failure,
                retryable: true,
            },
        )
    }

    fn event(&mut self, name: &str, id: &str, data: Value) -> Option<Ignored> {
        let (name, id) = (name.to_owned(), id.to_owned());
        self.take(Entry::Event(EventEntry {
            name,
            id,
            data: Arc::new(data),
        }))
    }

    fn control(&mut self, control: Control) -> Option<Ignored> {
        self.take(Entry::Control(control))
    }

    /// Lets time pass until the next deadline, and folds its timer.
    fn wait(&mut self) -> Option<Ignored> {
        let due = self.saga.as_ref().unwrap().next_deadline();
        assert!(due < Timestamp::NEVER, "nothing is waited for");
        self.now = self.now.max(due);
        self.take(Entry::Timer(Timer { due }))
    }

    /// The next command, which must be for this task.
    fn command(&mut self, task: &str) -> CommandId {
        let command = self.commands.pop_front();
        let command = command.unwrap_or_else(|| panic!("no command, {task} was expected"));
        assert_eq!(command.task.as_str(), task);
        command.command
    }

    fn status(&self) -> SagaStatus {
        self.saga.as_ref().unwrap().run().unwrap().status()
    }

    fn outcome(&self) -> &dirigent_contracts::outcome::Outcome {
        self.saga
            .as_ref()
            .unwrap()
            .run()
            .unwrap()
            .outcome()
            .expect("the saga has ended")
    }

    fn output(&self) -> &Value {
        self.outcome()
            .output
            .as_deref()
            .expect("the saga has succeeded")
    }

    fn error(&self) -> &str {
        self.outcome()
            .failure
            .as_ref()
            .map_or("", |failure| &failure.error)
    }

    fn count(&self, what: impl Fn(&Happening) -> bool) -> usize {
        self.history
            .iter()
            .filter(|event| what(&event.what))
            .count()
    }

    /// The states that were undone, in order.
    fn undone(&self) -> Vec<&str> {
        let states = self.history.iter().filter_map(|event| match &event.what {
            Happening::StepUndone { state } => Some(state.as_str()),
            _ => None,
        });
        states.collect()
    }
}
