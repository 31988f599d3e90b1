//! Attempts of a step: asking for one, hearing its answer, giving it up.
//!
//! A step keeps its number, and so its effect id, over all attempts. An attempt that was given up may
//! have happened: such a step is *unknown* and is undone like one that succeeded.

use super::{
    effect::{Effect, Ignored},
    evaluation::{Sight, Subject, failure, json_bytes},
    program::{Action, Compensation, Kind, State, Task},
    saga::{Activity, Attempt, AttemptKind, Buffered},
    turn::Turn,
    undo::{Doubt, Undo, UndoStep},
};
use crate::expression::Environment;
use dirigent_contracts::{
    definition::model::{QueryLanguage, Retrier},
    error_name,
    history::{Attempted, Happening},
    id::{CommandId, SagaAddress, SagaKey},
    journal::{Child, EventEntry, Parent},
    limit,
    limits::SagaLimits,
    outcome::{Failure, Outcome, SagaStatus},
    subject::{EntryKind, JournalSubject},
    task::{CallbackToken, Command, Direction, TaskResult, Timing},
    time::Timestamp,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// The field that the arguments of an undo stand in, for messages.
pub(super) const COMPENSATE: &str = "Compensate";

impl<'a> Turn<'a> {
    pub(super) fn begin_attempt(
        &mut self,
        number: u32,
        state: &'a State,
        task: &'a Task,
    ) -> Result<(), Failure> {
        let step = match self.scope(number).and_then(|scope| scope.step) {
            Some(step) => step,
            None => self.next_step(),
        };
        let Some(scope) = self.scope_mut(number) else {
            return Ok(());
        };
        scope.step = Some(step);
        scope.attempt += 1;
        let command = self
            .effect_id(step)
            .command(self.scope(number).map_or(1, |s| s.attempt));
        self.run.pending.insert(step, number);

        let token = match &task.action {
            Action::Task {
                task,
                waits_for_token: true,
            } => Some(self.token(task, command)),
            _ => None,
        };
        // A job knows its token too, though nobody waits for a callback.
        let token_of_job = match &task.action {
            Action::Task { task: name, .. } if task.is_job => Some(self.token(name, command)),
            _ => None,
        };
        let subject = Subject {
            token: token.as_deref().or(token_of_job.as_deref()),
            ..Subject::default()
        };
        let input = self.effective_input(number, state)?;
        let arguments = self.arguments(number, state, &input, subject)?;
        self.check_size(state, &arguments)?;
        if task.compensate.is_some()
            && state.data.arguments.is_some()
            && let Some(scope) = self.scope_mut(number)
        {
            scope.arguments = Some(Arc::clone(&arguments));
        }
        if let Some(credentials) = &task.credentials {
            self.template(number, state, credentials, &input, subject, "Credentials")?;
        }
        let timeout = match &task.timeout {
            None => limit::TASK_TIMEOUT,
            Some(timeout) => {
                Duration::from_secs(self.count(number, state, timeout, &input, "TimeoutSeconds")?)
            }
        };
        let heartbeat = match &task.heartbeat {
            None => None,
            Some(interval) => {
                let seconds = self.count(number, state, interval, &input, "HeartbeatSeconds")?;
                Some(Duration::from_secs(seconds))
            }
        };
        let deadline = self.now + timeout;
        let heartbeat_deadline = heartbeat.map_or(Timestamp::NEVER, |interval| self.now + interval);
        let kind = match &task.action {
            Action::Task { task: name, .. } => {
                self.tell(
                    number,
                    Happening::TaskScheduled {
                        state: state.name.to_string(),
                        task: name.clone(),
                        resource: task.resource.to_string(),
                        command,
                        direction: Direction::Do,
                        input: Arc::clone(&arguments),
                        deadline,
                    },
                );
                self.ask(Effect::Command {
                    command: Box::new(Command {
                        command,
                        effect: command.effect,
                        attempt: command.attempt,
                        task: name.clone(),
                        saga: self.address.clone(),
                        run: self.run.id,
                        partition: self.partition,
                        state: state.name.to_string(),
                        direction: Direction::Do,
                        undoes: None,
                        input: arguments,
                        deadline,
                        heartbeat_ms: heartbeat.map(|interval| {
                            u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)
                        }),
                        most_output: self.most_output(),
                        token,
                        reply_to: self.reply_subject(name),
                    }),
                    trace: self.run.trace,
                });
                AttemptKind::Task
            }
            Action::Publish { subject } => {
                self.publish(number, subject, command.effect, Arc::clone(&arguments));
                self.finish(number, &arguments);
                return Ok(());
            }
            Action::Await { subject } => {
                let known = self
                    .buffered
                    .iter()
                    .position(|kept| *kept.event.name == **subject);
                let name = subject.to_string();
                self.tell(
                    number,
                    Happening::EventAwaited {
                        state: state.name.to_string(),
                        name: name.clone(),
                        command,
                        deadline,
                    },
                );
                if let Some(Buffered { event, publisher }) =
                    known.and_then(|at| self.buffered.remove(at))
                {
                    self.tell_event_taken(number, &event, publisher);
                    self.finish(number, &event.data);
                    return Ok(());
                }
                AttemptKind::Event(name)
            }
            Action::Saga { definition, key } => {
                let key = match key {
                    None => command.to_string(),
                    Some(key) => match self.expression(number, state, key, &input, "Key")? {
                        Value::String(key) => key,
                        other => other.to_string(),
                    },
                };
                let key = SagaKey::new(key).map_err(|error| {
                    let message = format!("The field 'Key' is not a saga key: {error}");
                    failure(state, error_name::QUERY_EVALUATION_ERROR, &message)
                })?;
                let child = SagaAddress {
                    definition: definition.clone(),
                    key,
                };
                self.start_child(number, state, &child, command, arguments);
                AttemptKind::Child(child)
            }
        };
        self.set_activity(
            number,
            Activity::Attempt(Attempt {
                kind,
                since: self.now,
                deadline,
                heartbeat_deadline,
                heartbeat_interval: heartbeat.map_or(0, |span| {
                    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
                }),
                is_submitted: false,
            }),
        );
        Ok(())
    }

    /// A state has the event that it waits for, by its attempt that is under way or just begins.
    pub(super) fn tell_event_taken(
        &mut self,
        number: u32,
        event: &EventEntry,
        publisher: Option<String>,
    ) {
        let Some(scope) = self.scope(number) else {
            return;
        };
        let Some(step) = scope.step else { return };
        let told = Happening::EventTaken {
            state: self.state_name(number),
            name: event.name.clone(),
            id: event.id.clone(),
            command: self.effect_id(step).command(scope.attempt),
            since: match &scope.activity {
                Activity::Attempt(attempt) => attempt.since,
                _ => self.now,
            },
            publisher,
        };
        self.tell(number, told);
    }

    /// Nobody waits for the answer to the attempt of a scope any more.
    fn tell_abandoned(&mut self, number: u32) {
        let of = self.attempted(number);
        let Some(scope) = self.scope(number) else {
            return;
        };
        let (Some(step), Activity::Attempt(attempt)) = (scope.step, &scope.activity) else {
            return;
        };
        let command = self.effect_id(step).command(scope.attempt);
        let since = attempt.since;
        self.withdraw(of.as_ref(), command);
        let told = Happening::TaskAbandoned {
            command,
            state: self.state_name(number),
            since,
            of,
            direction: Direction::Do,
        };
        self.tell(number, told);
    }

    /// Nobody waits for the answer to a command any more: who has not begun need not.
    pub(super) fn withdraw(&mut self, of: Option<&Attempted>, command: CommandId) {
        let Some(Attempted::Task(task)) = of else {
            return;
        };
        let asked = self.effects.effects.iter().position(|effect| {
            matches!(effect, Effect::Command { command: asked, .. } if asked.command == command)
        });
        if let Some(at) = asked {
            self.effects.effects.remove(at);
        } else {
            let task = task.clone();
            self.ask(Effect::Withdraw { task, command });
        }
    }

    pub(super) fn start_child(
        &mut self,
        scope: u32,
        state: &State,
        child: &SagaAddress,
        command: CommandId,
        input: Arc<Value>,
    ) {
        self.tell(
            scope,
            Happening::ChildStarted {
                state: state.name.to_string(),
                child: child.clone(),
                command,
            },
        );
        self.ask(Effect::StartChild {
            child: child.clone(),
            input,
            parent: Parent {
                partition: self.partition,
                saga: self.address.clone(),
                command,
            },
            trace: self.run.trace,
        });
    }

    /// What a command says of how large its answer may be.
    pub(super) fn most_output(&self) -> Option<u64> {
        let most = self.run.limits.payload;
        (most != SagaLimits::default().payload).then_some(most)
    }

    pub(super) fn reply_subject(&self, task: &dirigent_contracts::id::TaskName) -> String {
        JournalSubject {
            partition: self.partition,
            address: self.address.clone(),
            kind: EntryKind::Reply(task.clone()),
        }
        .to_string()
    }

    fn token(&self, task: &dirigent_contracts::id::TaskName, command: CommandId) -> String {
        CallbackToken {
            partition: self.partition,
            saga: self.address.clone(),
            task: task.clone(),
            command,
        }
        .to_string()
    }

    /// Somebody answers a command.
    pub(super) fn hear(
        &mut self,
        command: CommandId,
        result: TaskResult,
        is_callback: bool,
        worker: String,
        timing: Option<Timing>,
    ) {
        if command.effect.run != self.run.id {
            self.effects.ignored = Some(Ignored::NotPending);
            return;
        }
        let Some(&number) = self.run.pending.get(&command.effect.step) else {
            self.hear_late(command, &result);
            return;
        };
        match self.scope(number).map(|scope| &scope.activity) {
            Some(Activity::Undoing(_)) => {
                return self.hear_undo(number, command, result, worker, timing);
            }
            Some(Activity::Distribution(_)) => return self.hear_store(number, command, result),
            _ => {}
        }
        let now = self.now;
        let Some(scope) = self.scope(number) else {
            return;
        };
        let is_current = scope.attempt == command.attempt;
        let waits_for_token = matches!(
            self.state_of(number).map(|state| &state.kind),
            Some(Kind::Task(task))
                if matches!(task.action, Action::Task { waits_for_token: true, .. })
        );
        let is_doubtful = leaves_doubt(self.state_of(number), &result);
        let name = self.state_name(number);
        let of = self.attempted(number);
        let Some(scope) = self.scope_mut(number) else {
            return;
        };
        let since = match &scope.activity {
            Activity::Attempt(attempt) if is_current => attempt.since,
            _ => scope.entered_at,
        };
        match (result, &mut scope.activity) {
            (TaskResult::Heartbeat, Activity::Attempt(attempt)) if is_current => {
                if attempt.heartbeat_interval > 0 {
                    let interval = attempt.heartbeat_interval;
                    attempt.heartbeat_deadline = Timestamp(now.0.saturating_add(interval));
                }
                self.tell(number, Happening::TaskHeartbeat { command });
            }
            (TaskResult::Succeeded { output }, Activity::Attempt(attempt))
                if is_current && waits_for_token && !is_callback =>
            {
                if attempt.is_submitted {
                    self.effects.ignored = Some(Ignored::NotPending);
                } else {
                    attempt.is_submitted = true;
                    self.tell(number, Happening::TaskSubmitted { command, output });
                }
            }
            // An earlier attempt that was given up may still say that it succeeded: the effect is
            // the same, so the step has succeeded.
            (TaskResult::Succeeded { output }, Activity::Attempt(_) | Activity::Until(_))
                if command.attempt <= scope.attempt && (is_callback || !waits_for_token) =>
            {
                if !is_current {
                    self.tell(
                        number,
                        Happening::LateReply {
                            command,
                            succeeded: true,
                        },
                    );
                    self.tell_abandoned(number);
                    self.cancel_child(number, "an earlier attempt has succeeded");
                }
                self.tell(
                    number,
                    Happening::TaskSucceeded {
                        command,
                        state: name,
                        since,
                        output: Arc::clone(&output),
                        worker,
                        direction: Direction::Do,
                        of,
                        timing,
                        is_late: !is_current,
                    },
                );
                self.finish(number, &output);
            }
            (TaskResult::Failed { failure, retryable }, Activity::Attempt(_)) if is_current => {
                if is_doubtful {
                    scope.unknown.insert(command.attempt);
                }
                let told = failure.clone();
                self.tell(
                    number,
                    Happening::TaskFailed {
                        command,
                        state: name,
                        since,
                        failure: told,
                        direction: Direction::Do,
                        worker,
                        of,
                        timing,
                    },
                );
                self.fail(number, failure, retryable);
            }
            (TaskResult::Failed { .. }, Activity::Attempt(_) | Activity::Until(_))
                if !is_doubtful && scope.unknown.remove(&command.attempt) =>
            {
                self.tell(
                    number,
                    Happening::LateReply {
                        command,
                        succeeded: false,
                    },
                );
            }
            _ => self.effects.ignored = Some(Ignored::NotPending),
        }
    }

    /// The child that a scope waits for, if it waits for one, is not needed any more.
    fn cancel_child(&mut self, number: u32, reason: &str) {
        if let Some(Activity::Attempt(Attempt {
            kind: AttemptKind::Child(child),
            ..
        })) = self.scope(number).map(|scope| &scope.activity)
        {
            let (child, reason) = (child.clone(), reason.to_owned());
            self.ask(Effect::CancelChild { child, reason });
        }
    }

    /// A child saga has ended.
    pub(super) fn hear_child(&mut self, child: &Child) {
        if self.hear_item(child) {
            return;
        }
        let result = match child.outcome.status {
            SagaStatus::Succeeded => TaskResult::Succeeded {
                output: child.outcome.output.clone().unwrap_or_default(),
            },
            _ => TaskResult::Failed {
                failure: failure_of(&child.outcome),
                retryable: true,
            },
        };
        self.hear(child.command, result, false, String::new(), None);
    }

    /// The attempt's time, or its heartbeat's, is over.
    pub(super) fn give_up(&mut self, number: u32, attempt: &Attempt) {
        let Some(scope) = self.scope_mut(number) else {
            return;
        };
        let Some(step) = scope.step else { return };
        let attempt_number = scope.attempt;
        scope.unknown.insert(attempt_number);
        let failure = if attempt.heartbeat_deadline < attempt.deadline {
            Failure::new(error_name::HEARTBEAT_TIMEOUT, "no heartbeat came in time")
        } else {
            Failure::new(error_name::TIMEOUT, "")
        };
        let command = self.effect_id(step).command(attempt_number);
        match &attempt.kind {
            AttemptKind::Task => {}
            // An event that did not come has no effect that could be undone.
            AttemptKind::Event(_) => {
                if let Some(scope) = self.scope_mut(number) {
                    scope.unknown.clear();
                }
            }
            AttemptKind::Child(child) => {
                let child = child.clone();
                let reason = "the step that waits for it has timed out".to_owned();
                self.ask(Effect::CancelChild { child, reason });
            }
        }
        let of = self.attempted(number);
        self.withdraw(of.as_ref(), command);
        let state = self.state_name(number);
        let told = failure.clone();
        let since = attempt.since;
        self.tell(
            number,
            Happening::TaskTimedOut {
                command,
                state,
                since,
                failure: told,
                of,
                direction: Direction::Do,
            },
        );
        self.fail(number, failure, true);
    }

    /// The state is left: what its step did, or may have done, goes onto the stack.
    ///
    /// `result` is the step's result if it succeeded.
    pub(super) fn leave_step(
        &mut self,
        number: u32,
        state: &'a State,
        result: Option<&Arc<Value>>,
    ) {
        if result.is_none() {
            self.tell_abandoned(number);
        }
        let Some(scope) = self.scope_mut(number) else {
            return;
        };
        let Some(step) = scope.step.take() else {
            return;
        };
        let in_flight = scope.attempt;
        scope.attempt = 0;
        let mut unknown = std::mem::take(&mut scope.unknown);
        let arguments = scope.arguments.take();
        let activity = std::mem::replace(&mut scope.activity, Activity::Moving);
        self.run.pending.remove(&step);
        let Kind::Task(task) = &state.kind else {
            return;
        };

        let mut settles_at = self.now;
        let mut is_child = false;
        match activity {
            Activity::Attempt(Attempt {
                kind: AttemptKind::Task,
                deadline,
                ..
            }) if result.is_none() => {
                unknown.insert(in_flight);
                settles_at = deadline.min(self.now + limit::SETTLE_TIME);
            }
            Activity::Attempt(Attempt {
                kind: AttemptKind::Child(child),
                ..
            }) if result.is_none() => {
                unknown.insert(in_flight);
                is_child = true;
                let reason = "the saga that waits for it has turned back".to_owned();
                self.ask(Effect::CancelChild { child, reason });
            }
            _ => {}
        }
        // A child undoes itself, and whoever undoes what came before it waits for that.
        is_child |= !unknown.is_empty() && matches!(task.action, Action::Saga { .. });
        if is_child {
            settles_at = Timestamp::NEVER;
        }
        let is_undoable = task.compensate.is_some() || is_child;
        if result.is_none() && !is_undoable {
            let effect = self.run.id.effect(step);
            self.run
                .unresolved
                .extend(unknown.iter().map(|attempt| effect.command(*attempt)));
        }
        let is_to_be_undone = match result {
            Some(_) => task.compensate.is_some(),
            None => is_undoable && !unknown.is_empty(),
        };
        if is_to_be_undone {
            let undo = self.undo_step(number, state, task, (step, arguments), result);
            let undo = match result {
                Some(_) => undo,
                None => UndoStep {
                    doubt: Some(self.doubt(number, state, task, unknown, settles_at)),
                    ..undo
                },
            };
            if let Some(scope) = self.scope_mut(number) {
                scope.undo.push(Undo::Step(Box::new(undo)));
            }
        }
        if result.is_some() && task.is_pivot {
            self.pass_pivot(number, state);
        }
    }

    /// How a step is to be undone, with the arguments that its last attempt got.
    fn undo_step(
        &mut self,
        number: u32,
        state: &State,
        task: &Task,
        (step, arguments): (u32, Option<Arc<Value>>),
        result: Option<&Arc<Value>>,
    ) -> UndoStep {
        let (machine, state_number) = self
            .scope(number)
            .map_or((0, 0), |scope| (scope.machine, scope.state));
        let mut undo = UndoStep {
            machine,
            state: state_number,
            step,
            input: Arc::new(Value::Null),
            unfit: None,
            doubt: None,
        };
        let Some(compensation) = &task.compensate else {
            return undo;
        };
        let input = self.effective_input(number, state).unwrap_or_default();
        let evaluated = compensation.arguments.as_ref().map(|template| {
            let subject = Subject {
                result: result.map(|value| &**value),
                ..Subject::default()
            };
            let seen = seen_by_undo(state, &input, result);
            self.template(number, state, template, &seen, subject, COMPENSATE)
        });
        match evaluated {
            // They may speak of a result that is not known: then it gets what the step got.
            None => undo.input = arguments.unwrap_or(input),
            Some(Err(_)) if result.is_none() => undo.input = arguments.unwrap_or(input),
            Some(evaluated) => {
                let most = self.run.limits.payload;
                match evaluated.and_then(|value| undo_input(state, value, most)) {
                    Ok(value) => undo.input = value,
                    Err(failure) => {
                        self.tell_evaluation_failed(number, state, &failure);
                        undo.unfit = Some(failure);
                    }
                }
            }
        }
        undo
    }

    /// What is kept of a step whose outcome is not known.
    fn doubt(
        &mut self,
        number: u32,
        state: &State,
        task: &Task,
        attempts: BTreeSet<u32>,
        settles_at: Timestamp,
    ) -> Doubt {
        let mut doubt = Doubt {
            attempts,
            settles_at,
            input: Arc::new(Value::Null),
            variables: Map::new(),
            context: Value::Null,
        };
        let has_arguments = |of: &Compensation| of.arguments.is_some();
        if task.compensate.as_ref().is_some_and(has_arguments) {
            doubt.input = self.effective_input(number, state).unwrap_or_default();
            let sight = Sight {
                run: self.run,
                scope: number,
            };
            doubt.variables = sight.flatten();
            doubt.context = self.context_without_input(number, state);
        }
        doubt
    }

    fn pass_pivot(&mut self, number: u32, state: &State) {
        self.run.is_past_pivot = true;
        self.forget_undo();
        self.tell(
            number,
            Happening::PivotPassed {
                state: state.name.to_string(),
            },
        );
    }
}

impl Turn<'_> {
    /// Nothing that was done will be undone: the stacks are emptied, and who waits for that is told.
    pub(super) fn forget_undo(&mut self) {
        let mut forgotten = Vec::new();
        for scope in self.run.scopes.values_mut() {
            forgotten.append(&mut scope.undo);
            match &mut scope.activity {
                Activity::Branches(branches) => {
                    forgotten.extend(branches.undo.iter_mut().flat_map(std::mem::take));
                }
                Activity::Iterations(iterations) => {
                    forgotten.extend(iterations.undo.iter_mut().flat_map(std::mem::take));
                }
                Activity::Distribution(distribution) => {
                    forgotten.extend(distribution.take_held());
                }
                _ => {}
            }
        }
        self.release(&forgotten);
    }
}

/// What the arguments of an undo are evaluated against: in `JSONPath` mode the step's input, with the
/// result beside it if there is one.
pub(super) fn seen_by_undo(
    state: &State,
    input: &Arc<Value>,
    result: Option<&Arc<Value>>,
) -> Arc<Value> {
    match (state.language, result) {
        (QueryLanguage::Jsonata, _) => Arc::clone(input),
        (QueryLanguage::JsonPath, None) => Arc::new(json!({ "input": input })),
        (QueryLanguage::JsonPath, Some(result)) => {
            Arc::new(json!({ "input": input, "result": result }))
        }
    }
}

/// What an undo gets, if that is not too large.
pub(super) fn undo_input(state: &State, value: Value, most: u64) -> Result<Arc<Value>, Failure> {
    let bytes = json_bytes(&value);
    if bytes as u64 <= most {
        return Ok(Arc::new(value));
    }
    let message = format!(
        "The arguments of the undo of the state '{}' have {bytes} bytes, and may have {most}: the \
         limit `payload`",
        state.name
    );
    Err(Failure::new(error_name::DATA_LIMIT_EXCEEDED, message))
}

/// Why a child did not succeed.
pub(super) fn failure_of(outcome: &Outcome) -> Failure {
    match (outcome.status, &outcome.failure) {
        (SagaStatus::Canceled, failure) => {
            let cause = failure.as_ref().map(ToString::to_string);
            Failure::new(error_name::CHILD_CANCELED, cause.unwrap_or_default())
        }
        (_, Some(failure)) => failure.clone(),
        (_, None) => Failure::new(error_name::TASK_FAILED, "the child failed"),
    }
}

/// Whether work may have been done although the attempt of a state failed. A command for which one owner
/// found no room may have been published by another, in the moment in which a partition has two. A child
/// tells how it ended, whatever the name of the error that ended it.
pub(super) fn leaves_doubt(state: Option<&State>, result: &TaskResult) -> bool {
    let TaskResult::Failed { failure, .. } = result else {
        return false;
    };
    let is_child = matches!(
        state.map(|state| &state.kind),
        Some(Kind::Task(task)) if matches!(task.action, Action::Saga { .. })
    );
    let names = [
        error_name::WORKER_PANIC,
        error_name::POISON_COMMAND,
        error_name::QUEUE_FULL,
    ];
    !is_child && names.contains(&failure.error.as_str())
}

/// The pause before another attempt: the interval, grown by the backoff rate for each retry so far,
/// at most the longest delay; with full jitter, a random part of it.
pub(super) fn backoff(rule: &Retrier, used: u32, environment: &mut Environment) -> Duration {
    const LONGEST: f64 = 31_622_400.0;
    #[expect(
        clippy::cast_precision_loss,
        reason = "intervals are far below 2^52 seconds"
    )]
    let (interval, longest) = (
        rule.interval_seconds as f64,
        rule.max_delay_seconds
            .map_or(LONGEST, |seconds| (seconds as f64).min(LONGEST)),
    );
    let exponent = i32::try_from(used).unwrap_or(i32::MAX);
    let delay = (interval * rule.backoff_rate.powi(exponent))
        .min(longest)
        .max(0.0);
    let part = if rule.has_full_jitter {
        environment.random().unit()
    } else {
        1.0
    };
    Duration::from_secs_f64(delay * part)
}
