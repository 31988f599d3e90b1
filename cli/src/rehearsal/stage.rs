//! A saga without a broker: the real fold, answers from a script, and time that is skipped.

use super::script::Case;
use dirigent_contracts::{
    error_name,
    history::{Happening, HistoryEvent},
    id::{CommandId, DefinitionDigest, SagaAddress},
    journal::{Child, Entry, EventEntry, Start},
    limits::SagaLimits,
    outcome::{Failure, Outcome, SagaStatus},
    task::{Command, Direction, Reply, TaskResult},
    time::Timestamp,
};
use dirigent_coordinator::engine::{
    Effect, Program,
    offline::{Offline, Step},
    store::StoreRequest,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// A saga that takes more entries than this goes in circles.
const MOST_ENTRIES: u64 = 100_000;
/// When every rehearsal begins: 2030-01-01T00:00:00Z.
const BEGIN: Timestamp = Timestamp(1_893_456_000_000_000);

/// Scopes of a saga are fewer than this: the items of a Map are shown as if they were scopes.
const ITEM_SCOPES: u32 = 100_000;

/// What came of a case.
pub(super) struct Played {
    /// How it ended; `None` if it waits for something that never comes.
    pub(super) outcome: Option<Outcome>,
    pub(super) history: Vec<HistoryEvent>,
    /// States that asked for an answer that the script does not have.
    pub(super) unanswered: Vec<String>,
}

pub(super) struct Stage<'a> {
    case: &'a Case,
    address: SagaAddress,
    world: Offline<'a>,
    /// How many answers each state has had.
    given: BTreeMap<String, usize>,
    /// The children that were started; with who waits for it, while one has not ended.
    children: BTreeMap<SagaAddress, Option<(SagaAddress, CommandId)>>,
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
            case,
            address: address.clone(),
            world: Offline::new(program, BEGIN),
            given: BTreeMap::new(),
            children: BTreeMap::new(),
            played: Played {
                outcome: None,
                history: Vec::new(),
                unanswered: Vec::new(),
            },
        };
        let start = Start {
            digest,
            input: Arc::new(case.input.clone()),
            trigger: None,
            parent: None,
            part: None,
            limits: SagaLimits::default(),
        };
        stage.world.push(address, Entry::Start(start));
        while stage.played.outcome.is_none() && stage.world.entries() < MOST_ENTRIES {
            let Some(step) = stage.world.step() else {
                break;
            };
            stage.take(step);
        }
        stage.played
    }

    fn take(&mut self, step: Step) {
        let is_item = step.saga != self.address;
        for mut event in step.history {
            // Where one state is rehearsed, what follows it is not.
            if self.played.outcome.is_some() {
                return;
            }
            match &event.what {
                Happening::EventAwaited { state, name, .. } => {
                    self.event(step.saga.clone(), state, name);
                }
                Happening::StateExited { state, output, .. }
                    if event.scope == 0 && self.case.state.as_ref() == Some(state) && !is_item =>
                {
                    self.played.outcome.get_or_insert(Outcome {
                        status: SagaStatus::Succeeded,
                        output: Some(Arc::clone(output)),
                        failure: None,
                    });
                }
                Happening::ChildStarted {
                    state,
                    command,
                    child,
                } => {
                    self.child(step.saga.clone(), state, *command, child);
                }
                Happening::Stuck { failure, .. } => {
                    self.played.outcome.get_or_insert(Outcome {
                        status: SagaStatus::Stuck,
                        output: None,
                        failure: Some(failure.clone()),
                    });
                }
                Happening::SagaStarted { .. } | Happening::SagaEnded { .. } if is_item => continue,
                _ => {}
            }
            if is_item {
                event.scope = self.scope_of_item(&step.saga, event.scope);
            }
            self.played.history.push(event);
        }
        for effect in step.effects {
            match effect {
                Effect::Command { .. } if self.played.outcome.is_some() => return,
                Effect::Command { command, .. } => self.work(&command),
                Effect::Store {
                    command, request, ..
                } => self.store(step.saga.clone(), command, &request),
                Effect::CancelChild { child, .. } => self.cancel_child(&child),
                Effect::Ended { outcome, .. } => {
                    self.played.outcome.get_or_insert(outcome);
                }
                _ => {}
            }
        }
    }

    /// Tells the scopes of the items' sagas apart in the one history that is shown.
    fn scope_of_item(&self, item: &SagaAddress, scope: u32) -> u32 {
        let index = self
            .played
            .history
            .iter()
            .find_map(|event| match &event.what {
                Happening::ItemStarted { child, index, .. } if child == item => Some(*index),
                _ => None,
            });
        let index = u32::try_from(index.unwrap_or_default()).unwrap_or_default();
        ITEM_SCOPES
            .saturating_mul(index.saturating_add(1))
            .saturating_add(scope)
    }

    /// The items of a Map are what the script answers for it; what is written is passed over.
    fn store(&mut self, saga: SagaAddress, command: CommandId, request: &StoreRequest) {
        let result = match request {
            StoreRequest::Write(_) => TaskResult::Succeeded {
                output: Arc::new(Value::Null),
            },
            StoreRequest::Read { source, skip, .. } => {
                let name = source.name();
                match self.answer(&name) {
                    Some(TaskResult::Succeeded { output }) => {
                        let items = output.as_array().cloned().unwrap_or_default();
                        let skip = usize::try_from(*skip).unwrap_or(usize::MAX);
                        let items: Vec<Value> = items.into_iter().skip(skip).collect();
                        TaskResult::Succeeded {
                            output: Arc::new(json!({ "items": items, "last": true })),
                        }
                    }
                    Some(other) => other,
                    None => return,
                }
            }
        };
        self.reply(saga, command, result, false);
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
            let passed_on = TaskResult::Succeeded { output };
            self.reply(command.saga.clone(), command.command, passed_on, false);
        }
        let is_callback = command.token.is_some();
        self.reply(command.saga.clone(), command.command, result, is_callback);
    }

    fn reply(&mut self, saga: SagaAddress, command: CommandId, result: TaskResult, callback: bool) {
        let reply = Reply {
            command,
            result,
            callback,
            worker: String::new(),
            timing: None,
        };
        self.world.push(saga, Entry::Reply(reply));
    }

    fn child(&mut self, saga: SagaAddress, state: &str, command: CommandId, child: &SagaAddress) {
        if self.children.contains_key(child) {
            let cause = format!("the saga {child} was started before: a key can be used once");
            let failure = Failure::new(error_name::CHILD_NOT_STARTED, cause);
            return self.child_ends(saga, command, failed(SagaStatus::Failed, failure));
        }
        let outcome = match self.answer(state) {
            Some(TaskResult::Succeeded { output }) => Outcome {
                status: SagaStatus::Succeeded,
                output: Some(output),
                failure: None,
            },
            Some(TaskResult::Failed { failure, .. }) => failed(SagaStatus::Compensated, failure),
            Some(TaskResult::Heartbeat) | None => {
                self.children.insert(child.clone(), Some((saga, command)));
                return;
            }
        };
        self.children.insert(child.clone(), None);
        self.child_ends(saga, command, outcome);
    }

    /// A child that has not ended turns back at once.
    fn cancel_child(&mut self, child: &SagaAddress) {
        if let Some((saga, command)) = self.children.get_mut(child).and_then(Option::take) {
            let failure = Failure::new(error_name::CANCELED, "");
            self.child_ends(saga, command, failed(SagaStatus::Canceled, failure));
        }
    }

    fn child_ends(&mut self, saga: SagaAddress, command: CommandId, outcome: Outcome) {
        let child = Child {
            command,
            outcome,
            holds: false,
            past_pivot: false,
        };
        self.world.push(saga, Entry::Child(child));
    }

    fn event(&mut self, saga: SagaAddress, state: &str, name: &str) {
        if let Some(TaskResult::Succeeded { output }) = self.answer(state) {
            let event = EventEntry {
                name: name.to_owned(),
                id: format!("{state}-{}", self.world.entries()),
                data: output,
            };
            self.world.push(saga, Entry::Event(event));
        }
    }
}

fn failed(status: SagaStatus, failure: Failure) -> Outcome {
    Outcome {
        status,
        output: None,
        failure: Some(failure),
    }
}
