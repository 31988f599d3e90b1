//! Undoing: tracks are driven until each waits for an answer, a pause, or a person.

use super::{
    attempt::{COMPENSATE, backoff, leaves_doubt, seen_by_undo, undo_input},
    effect::{Effect, Ignored},
    evaluation::{EXECUTION, template_failure},
    program::{Action, Compensation, Kind, State},
    saga::Activity,
    transition::{after_last_attempt, is_last_attempt, matches},
    turn::{Turn, Work},
    undo::{Current, Doubt, Track, Undo, UndoPhase, UndoStep, Undoing, doubtful_in, steps_of},
};
use crate::expression::{Environment, Scope};
use dirigent_contracts::{
    error_name,
    history::{Attempted, Happening},
    id::{CommandId, SagaAddress, SagaKey},
    outcome::Failure,
    task::{Command, Direction, TaskResult, Timing},
    time::Timestamp,
};
use serde_json::Value;
use std::sync::Arc;

impl<'a> Turn<'a> {
    /// A scope begins to undo what is on the track.
    pub(super) fn begin_undoing(&mut self, scope: u32, track: Track, failure: Failure) {
        let steps = u32::try_from(steps_of(&track.stack).len()).unwrap_or(u32::MAX);
        if steps > 0 {
            let is_of_saga = self.is_turning_back(scope);
            let told = Happening::CompensationStarted {
                failure,
                steps,
                is_of_saga,
            };
            self.tell(scope, told);
        }
        self.set_activity(scope, Activity::Undoing(Box::new(track)));
        self.drive(scope, |_, _| {});
    }

    /// Changes a scope's track, then drives it as far as it goes, and moves the scope on if all is
    /// undone.
    pub(super) fn drive(&mut self, number: u32, change: impl FnOnce(&mut Self, &mut Track)) {
        let Some(scope) = self.scope_mut(number) else {
            return;
        };
        let activity = std::mem::replace(&mut scope.activity, Activity::Moving);
        let Activity::Undoing(mut track) = activity else {
            scope.activity = activity;
            return;
        };
        let has_steps = !track.is_done();
        change(self, &mut track);
        self.advance_track(number, &mut track);
        if !track.is_done() {
            self.set_activity(number, Activity::Undoing(track));
            return;
        }
        if has_steps {
            let told = Happening::CompensationEnded {
                since: self.entered_at(number),
                is_of_saga: self.is_turning_back(number),
            };
            self.tell(number, told);
        }
        if self.is_turning_back(number) {
            self.end_backward();
        } else {
            let input = self.scope(number).map(|scope| Arc::clone(&scope.input));
            self.work.push_back(Work::Finish {
                scope: number,
                result: input.unwrap_or_default(),
            });
        }
    }

    /// Whether what a scope undoes is the whole saga, not just what an explicit state undoes.
    fn is_turning_back(&self, scope: u32) -> bool {
        scope == 0 && self.run.ending.is_some()
    }

    fn advance_track(&mut self, scope: u32, track: &mut Track) {
        loop {
            match &mut track.current {
                None => match track.stack.pop() {
                    None => return,
                    Some(Undo::Branches(stacks)) => {
                        let tracks = stacks.into_iter().map(Track::new).collect();
                        track.current = Some(Current::Branches(tracks));
                    }
                    Some(Undo::Step(step)) => track.current = Some(Current::Settling(step)),
                    Some(Undo::Items(items)) => track.current = Some(Current::Items(items)),
                },
                Some(Current::Settling(step)) => match &step.doubt {
                    Some(doubt) if doubt.attempts.is_empty() => track.current = None,
                    Some(doubt) if doubt.settles_at > self.now => return,
                    _ => {
                        let step = UndoStep::clone(step);
                        track.current = self
                            .begin_undo(scope, step)
                            .map(|undoing| Current::Undoing(Box::new(undoing)));
                    }
                },
                Some(Current::Undoing(_)) => return,
                Some(Current::Items(items)) => {
                    self.undo_items(items);
                    if !items.closing.is_empty() {
                        return;
                    }
                    track.current = None;
                }
                Some(Current::Branches(tracks)) => {
                    let mut tracks = std::mem::take(tracks);
                    for track in &mut tracks {
                        self.advance_track(scope, track);
                    }
                    tracks.retain(|track| !track.is_done());
                    let is_done = tracks.is_empty();
                    track.current = (!is_done).then_some(Current::Branches(tracks));
                    if !is_done {
                        return;
                    }
                }
            }
        }
    }

    fn compensation(&self, step: &UndoStep) -> Option<(&'a State, &'a Compensation)> {
        let state = self.program.state(step.machine, step.state)?;
        match &state.kind {
            Kind::Task(task) => task
                .compensate
                .as_ref()
                .map(|compensation| (state, compensation)),
            _ => None,
        }
    }

    /// Begins to undo a step; `None` if that was all there is to do.
    fn begin_undo(&mut self, scope: u32, of: UndoStep) -> Option<Undoing> {
        let (state, compensation) = self.compensation(&of)?;
        let step = self.next_step();
        let mut undoing = Undoing {
            of,
            step,
            attempt: 0,
            retries: Vec::new(),
            phase: UndoPhase::Until(self.now),
            rests_since: None,
        };
        self.run.has_undone = true;
        if let (Action::Publish { subject }, None) = (&compensation.action, &undoing.of.unfit) {
            let id = self.effect_id(step);
            self.publish(scope, subject, id, Arc::clone(&undoing.of.input));
            self.tell(
                scope,
                Happening::StepUndone {
                    state: state.name.to_string(),
                },
            );
            return None;
        }
        self.run.pending.insert(step, scope);
        self.attempt_undo(scope, &mut undoing);
        Some(undoing)
    }

    fn attempt_undo(&mut self, scope: u32, undoing: &mut Undoing) {
        let Some((state, compensation)) = self.compensation(&undoing.of) else {
            return;
        };
        if let Some(failure) = undoing.of.unfit.clone() {
            undoing.phase = UndoPhase::Stuck(failure.clone());
            self.stuck(scope, state.name.to_string(), failure);
            return;
        }
        undoing.attempt += 1;
        let command = self.effect_id(undoing.step).command(undoing.attempt);
        let deadline = self.now + compensation.timeout;
        let input = Arc::clone(&undoing.of.input);
        match &compensation.action {
            Action::Task { task, .. } => {
                self.tell(
                    scope,
                    Happening::TaskScheduled {
                        state: state.name.to_string(),
                        task: task.clone(),
                        resource: compensation.resource.to_string(),
                        command,
                        direction: Direction::Undo,
                        input: Arc::clone(&input),
                        deadline,
                    },
                );
                self.ask(Effect::Command {
                    command: Box::new(Command {
                        command,
                        effect: command.effect,
                        attempt: command.attempt,
                        task: task.clone(),
                        saga: self.address.clone(),
                        run: self.run.id,
                        partition: self.partition,
                        state: state.name.to_string(),
                        direction: Direction::Undo,
                        undoes: Some(self.effect_id(undoing.of.step)),
                        input,
                        deadline,
                        heartbeat_ms: None,
                        most_output: self.most_output(),
                        token: None,
                        reply_to: self.reply_subject(task),
                    }),
                    trace: self.run.trace,
                });
            }
            Action::Saga { definition, .. } => {
                // The text of a command id is always a valid key.
                if let Ok(key) = SagaKey::new(command.to_string()) {
                    let child = SagaAddress {
                        definition: definition.clone(),
                        key,
                    };
                    self.start_child(scope, state, &child, command, input);
                }
            }
            Action::Publish { .. } | Action::Await { .. } => {}
        }
        undoing.phase = UndoPhase::Attempt {
            since: self.now,
            deadline,
        };
    }

    /// Somebody answers the command of an undo. Any attempt's success is the undo's.
    pub(super) fn hear_undo(
        &mut self,
        scope: u32,
        command: CommandId,
        result: TaskResult,
        worker: String,
        timing: Option<Timing>,
    ) {
        self.drive(scope, |turn, track| {
            let Some(undoing) = track.undoing_mut(command.effect.step) else {
                turn.effects.ignored = Some(Ignored::NotPending);
                return;
            };
            match result {
                TaskResult::Succeeded { output } => {
                    let (state, since) = (turn.undone_state(undoing), undoing.since(turn.now));
                    let of = turn.attempted_undo(undoing);
                    let is_late = !undoing.awaits(command.attempt);
                    if is_late {
                        turn.tell_undo_abandoned(scope, undoing);
                    }
                    turn.tell(
                        scope,
                        Happening::TaskSucceeded {
                            command,
                            state,
                            since,
                            output,
                            worker,
                            direction: Direction::Undo,
                            of,
                            timing,
                            is_late,
                        },
                    );
                    turn.undone(scope, track, command.effect.step);
                }
                TaskResult::Failed { failure, .. } if undoing.awaits(command.attempt) => {
                    let (state, since) = (turn.undone_state(undoing), undoing.since(turn.now));
                    let told = failure.clone();
                    let of = turn.attempted_undo(undoing);
                    turn.tell(
                        scope,
                        Happening::TaskFailed {
                            command,
                            state,
                            since,
                            failure: told,
                            direction: Direction::Undo,
                            worker,
                            of,
                            timing,
                        },
                    );
                    turn.undo_failed(scope, undoing, failure);
                }
                TaskResult::Heartbeat => turn.tell(scope, Happening::TaskHeartbeat { command }),
                TaskResult::Failed { .. } if undoing.closes(command.attempt).is_some() => {
                    let succeeded = false;
                    turn.tell(scope, Happening::LateReply { command, succeeded });
                    if let Some(failure) = undoing.closes(command.attempt).cloned() {
                        turn.undo_failed(scope, undoing, failure);
                    }
                }
                TaskResult::Failed { .. } => turn.effects.ignored = Some(Ignored::NotPending),
            }
        });
    }

    fn attempted_undo(&self, undoing: &Undoing) -> Option<Attempted> {
        match &self.compensation(&undoing.of)?.1.action {
            Action::Task { task, .. } => Some(Attempted::Task(task.clone())),
            Action::Saga { definition, .. } => {
                let command = self.effect_id(undoing.step).command(undoing.attempt);
                let key = SagaKey::new(command.to_string()).ok()?;
                let definition = definition.clone();
                Some(Attempted::Saga(SagaAddress { definition, key }))
            }
            Action::Publish { .. } | Action::Await { .. } => None,
        }
    }

    /// Ends the saga that undoes a step, if one does and is not being ended yet. Whether one does.
    fn cancel_undoing(&mut self, undoing: &Undoing, reason: &str) -> bool {
        let is_out = matches!(undoing.phase, UndoPhase::Attempt { .. });
        let Some(Attempted::Saga(child)) = self.attempted_undo(undoing).filter(|_| is_out) else {
            return false;
        };
        let reason = reason.to_owned();
        self.ask(Effect::CancelChild { child, reason });
        true
    }

    /// Nobody waits for the answer to an attempt of an undo any more, if one is out.
    fn tell_undo_abandoned(&mut self, scope: u32, undoing: &Undoing) {
        let UndoPhase::Attempt { since, .. } = undoing.phase else {
            return;
        };
        let command = self.effect_id(undoing.step).command(undoing.attempt);
        let of = self.attempted_undo(undoing);
        self.withdraw(of.as_ref(), command);
        let told = Happening::TaskAbandoned {
            command,
            state: self.undone_state(undoing),
            since,
            of,
            direction: Direction::Undo,
        };
        self.tell(scope, told);
    }

    fn undone_state(&self, undoing: &Undoing) -> String {
        let state = self.program.state(undoing.of.machine, undoing.of.state);
        state.map_or_else(String::new, |state| state.name.to_string())
    }

    fn undone(&mut self, scope: u32, track: &mut Track, step: u32) {
        let Some(undoing) = track.undoing_mut(step) else {
            return;
        };
        let state = self
            .compensation(&undoing.of)
            .map(|(state, _)| state.name.to_string());
        self.tell(
            scope,
            Happening::StepUndone {
                state: state.unwrap_or_default(),
            },
        );
        let of = &undoing.of;
        let effect = self.run.id.effect(of.step);
        let doubted = of.doubt.iter().flat_map(|doubt| &doubt.attempts);
        self.run
            .unresolved
            .extend(doubted.map(|attempt| effect.command(*attempt)));
        self.run.pending.remove(&step);
        track.clear(step);
    }

    /// An attempt of an undo has failed: another follows, or a person is needed.
    fn undo_failed(&mut self, scope: u32, undoing: &mut Undoing, failure: Failure) {
        let Some((state, compensation)) = self.compensation(&undoing.of) else {
            return;
        };
        let rules = &compensation.retry;
        undoing.retries.resize(rules.len(), 0);
        let rule = rules
            .iter()
            .position(|rule| matches(&rule.error_equals, &failure));
        let rule = rule.filter(|at| undoing.retries[*at] < rules[*at].max_attempts);
        let most = self.run.limits.attempts;
        let (rule, failure) = match rule {
            Some(_) if is_last_attempt(&undoing.retries, most) => {
                (None, after_last_attempt(failure, most))
            }
            rule => (rule, failure),
        };
        let Some(at) = rule else {
            undoing.phase = UndoPhase::Stuck(failure.clone());
            self.stuck(scope, state.name.to_string(), failure);
            return;
        };
        let delay = backoff(&rules[at], undoing.retries[at], &mut self.environment);
        undoing.retries[at] += 1;
        let until = self.now + delay;
        undoing.phase = UndoPhase::Until(until);
        undoing.rests_since = Some(self.now);
        let command = self.effect_id(undoing.step).command(undoing.attempt + 1);
        let state = state.name.to_string();
        let attempt = undoing.attempt + 1;
        self.tell(
            scope,
            Happening::RetryScheduled {
                state,
                until,
                attempt,
                failure,
                command: Some(command),
            },
        );
    }

    pub(super) fn stuck(&mut self, scope: u32, state: String, failure: Failure) {
        let told = Happening::Stuck {
            state: state.clone(),
            failure: failure.clone(),
        };
        self.tell(scope, told);
        self.ask(Effect::Incident {
            state,
            failure,
            at: self.now,
        });
    }

    /// A deadline of a track has come.
    pub(super) fn undo_due(&mut self, scope: u32, due: Timestamp) {
        self.drive(scope, |turn, track| {
            for undoing in track.undoings_mut() {
                match undoing.phase {
                    UndoPhase::Attempt { since, deadline } if deadline <= due => {
                        let command = turn.effect_id(undoing.step).command(undoing.attempt);
                        let failure = Failure::new(error_name::TIMEOUT, "");
                        let state = turn.undone_state(undoing);
                        let of = turn.attempted_undo(undoing);
                        turn.withdraw(of.as_ref(), command);
                        let told = Happening::TaskTimedOut {
                            command,
                            state,
                            since,
                            failure: failure.clone(),
                            of,
                            direction: Direction::Undo,
                        };
                        turn.tell(scope, told);
                        let reason = "the undo that waits for it has timed out";
                        if turn.cancel_undoing(undoing, reason) {
                            undoing.phase = UndoPhase::Closing(failure);
                        } else {
                            turn.undo_failed(scope, undoing, failure);
                        }
                    }
                    UndoPhase::Until(at) if at <= due => {
                        let attempt = undoing.attempt + 1;
                        let told = Happening::PauseEnded {
                            state: turn.undone_state(undoing),
                            since: undoing.rests_since.take(),
                            due: at,
                            attempt: Some(attempt),
                            command: Some(turn.effect_id(undoing.step).command(attempt)),
                        };
                        turn.tell(scope, told);
                        turn.attempt_undo(scope, undoing);
                    }
                    _ => {}
                }
            }
        });
    }

    /// A person lets the stuck undos of a scope go on, or takes them as done.
    pub(super) fn resume_undo(&mut self, scope: u32, is_skipped: bool) {
        self.drive(scope, |turn, track| {
            let mut skipped = Vec::new();
            for undoing in track.undoings_mut() {
                if matches!(undoing.phase, UndoPhase::Stuck(_)) {
                    if is_skipped {
                        skipped.push(undoing.step);
                    } else {
                        undoing.retries.clear();
                        turn.attempt_undo(scope, undoing);
                    }
                }
            }
            for step in skipped {
                turn.undone(scope, track, step);
            }
        });
    }

    /// An answer for a step that the saga has left: it may settle whether there is anything to undo.
    pub(super) fn hear_late(&mut self, command: CommandId, result: &TaskResult) {
        let step = command.effect.step;
        let found = self.run.scopes.iter_mut().find_map(|(number, scope)| {
            let in_stack = doubtful_in(&mut scope.undo, step);
            let found = match (&mut scope.activity, in_stack) {
                (_, Some(found)) => Some(found),
                (Activity::Undoing(track), None) => track.doubtful_mut(step),
                (Activity::Branches(branches), None) => branches
                    .undo
                    .iter_mut()
                    .find_map(|stack| doubtful_in(stack, step)),
                (Activity::Iterations(iterations), None) => iterations
                    .undo
                    .iter_mut()
                    .find_map(|stack| doubtful_in(stack, step)),
                _ => None,
            };
            found.map(|found| (*number, found))
        });
        let Some((scope, found)) = found else {
            self.hear_unresolved(command, result);
            return;
        };
        let state = self.program.state(found.machine, found.state);
        let Some(doubt) = &mut found.doubt else {
            return;
        };
        match result {
            TaskResult::Heartbeat => {
                self.effects.ignored = Some(Ignored::NotPending);
                return;
            }
            TaskResult::Failed { .. } => {
                if leaves_doubt(state, result) || !doubt.attempts.remove(&command.attempt) {
                    self.effects.ignored = Some(Ignored::NotPending);
                    return;
                }
            }
            TaskResult::Succeeded { output } => {
                let most = self.run.limits.payload;
                let arguments = state.and_then(|state| {
                    let environment = &mut self.environment;
                    let value = late_arguments(state, doubt, &self.run.input, output, environment)?;
                    Some(value.and_then(|value| undo_input(state, value, most)))
                });
                match arguments {
                    None => {}
                    Some(Ok(input)) => found.input = input,
                    Some(Err(failure)) => found.unfit = Some(failure),
                }
                found.doubt = None;
            }
        }
        let unfit = found.unfit.clone();
        let succeeded = matches!(result, TaskResult::Succeeded { .. });
        self.tell(scope, Happening::LateReply { command, succeeded });
        if let (Some(state), Some(failure)) = (state, unfit) {
            self.tell_evaluation_failed(scope, state, &failure);
        }
        self.drive(scope, |_, _| {});
    }

    /// An answer for a step that has been undone without knowing whether it had succeeded.
    fn hear_unresolved(&mut self, command: CommandId, result: &TaskResult) {
        let is_final = !matches!(result, TaskResult::Heartbeat);
        if is_final && self.run.unresolved.remove(&command) {
            let succeeded = matches!(result, TaskResult::Succeeded { .. });
            self.tell(0, Happening::LateReply { command, succeeded });
        } else {
            self.effects.ignored = Some(Ignored::NotPending);
        }
    }

    /// Turns a track back into a stack. What is being undone is begun again: undoing is idempotent.
    pub(super) fn unwind(&mut self, scope: u32, track: Track) -> Vec<Undo> {
        let mut stack = track.stack;
        match track.current {
            None => {}
            Some(Current::Settling(step)) => stack.push(Undo::Step(step)),
            Some(Current::Undoing(undoing)) => {
                self.tell_undo_abandoned(scope, &undoing);
                self.cancel_undoing(&undoing, "the undo that waits for it is begun again");
                self.run.pending.remove(&undoing.step);
                stack.push(Undo::Step(Box::new(undoing.of)));
            }
            Some(Current::Branches(tracks)) => {
                let stacks = tracks
                    .into_iter()
                    .map(|track| self.unwind(scope, track))
                    .collect();
                stack.push(Undo::Branches(stacks));
            }
            Some(Current::Items(items)) => stack.push(Undo::Items(items)),
        }
        stack
    }
}

/// The arguments of an undo, evaluated with the result that was learned late; `None` if it has none of its own.
fn late_arguments(
    state: &State,
    doubt: &Doubt,
    input_of_saga: &Value,
    result: &Arc<Value>,
    environment: &mut Environment,
) -> Option<Result<Value, Failure>> {
    let Kind::Task(task) = &state.kind else {
        return None;
    };
    let template = task.compensate.as_ref()?.arguments.as_ref()?;
    let seen = seen_by_undo(state, &doubt.input, Some(result));
    let mut context = doubt.context.clone();
    if let Some(execution) = context.get_mut(EXECUTION) {
        execution["Input"] = input_of_saga.clone();
    }
    let scope = Scope::new(&seen, &context, &doubt.variables).with_result(result);
    let value = template.evaluate(&scope, environment);
    Some(value.map_err(|error| template_failure(state, COMPENSATE, &error)))
}
