//! How a scope moves: it enters a state, gets its result, fails, or ends.

use super::{
    effect::Effect,
    evaluation::{Subject, failure},
    program::{Condition, Kind, State, Target, Until},
    saga::{Activity, Ending},
    turn::{Turn, Work},
    undo::Track,
};
use dirigent_contracts::{
    definition::model::QueryLanguage,
    error_name,
    history::Happening,
    outcome::{Failure, Outcome, SagaStatus},
    time::Timestamp,
};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};

/// The error of a saga that turns back in a state of that type.
const COMPENSATE: &str = "Compensate";
/// The longest Wait: 68 years, that of Step Functions.
const LONGEST_WAIT: Duration = Duration::from_secs(i32::MAX as u64);

impl<'a> Turn<'a> {
    pub(super) fn enter(&mut self, number: u32, state: u32, input: Arc<Value>) {
        let now = self.now;
        let Some(scope) = self.scope_mut(number) else {
            return;
        };
        scope.state = state;
        scope.input = Arc::clone(&input);
        scope.entered_at = now;
        scope.visits += 1;
        scope.retries.clear();
        scope.activity = Activity::Moving;
        let Some(state) = self.state_of(number) else {
            return;
        };
        self.tell(
            number,
            Happening::StateEntered {
                state: state.name.to_string(),
                kind: state.kind_name.to_owned(),
                input,
            },
        );
        self.begin(number, state);
    }

    /// Does what the state is for; also when it is tried again.
    pub(super) fn begin(&mut self, scope: u32, state: &'a State) {
        let Err(failure) = self.try_begin(scope, state) else {
            return;
        };
        match (&state.kind, state.language) {
            // As Step Functions tells it: in JSONata mode the Map has failed as well.
            (Kind::Map(_), QueryLanguage::Jsonata) => {
                self.tell_evaluation_failed(scope, state, &failure);
                self.fail_members(scope, failure);
            }
            _ => self.fail_evaluation(scope, state, failure),
        }
    }

    fn try_begin(&mut self, scope: u32, state: &'a State) -> Result<(), Failure> {
        match &state.kind {
            Kind::Task(task) => self.begin_attempt(scope, state, task),
            Kind::Pass { result } => {
                let input = self.effective_input(scope, state)?;
                let result = match result {
                    Some(result) => Arc::clone(result),
                    None => self.arguments(scope, state, &input, Subject::default())?,
                };
                self.work.push_back(Work::Finish { scope, result });
                Ok(())
            }
            Kind::Choice { rules, default } => {
                let input = self.effective_input(scope, state)?;
                for rule in rules {
                    if self.applies(scope, state, &rule.condition, &input)? {
                        let output = (rule.output.as_ref(), rule.assign.as_ref());
                        return self.choose(scope, state, rule.next, output, &input);
                    }
                }
                let output = (state.data.output.as_ref(), state.data.assign.as_ref());
                match default {
                    Some(next) => self.choose(scope, state, *next, output, &input),
                    None => Err(failure(
                        state,
                        error_name::NO_CHOICE_MATCHED,
                        "no rule of the Choice applies and it has no Default",
                    )),
                }
            }
            Kind::Wait(until) => {
                let input = self.effective_input(scope, state)?;
                let until = self.wait_until(scope, state, until, &input)?;
                if until <= self.now {
                    self.work.push_back(Work::Finish {
                        scope,
                        result: input,
                    });
                } else {
                    let name = state.name.to_string();
                    self.tell(scope, Happening::WaitStarted { state: name, until });
                    self.set_activity(scope, Activity::Until(until));
                }
                Ok(())
            }
            Kind::Succeed => {
                let input = self.effective_input(scope, state)?;
                self.work.push_back(Work::Finish {
                    scope,
                    result: input,
                });
                Ok(())
            }
            Kind::Fail { error, cause } => {
                let input = self.effective_input(scope, state)?;
                let mut text = |text: &'a Option<_>, field| match text {
                    Some(text) => self.text(scope, state, text, &input, field),
                    None => Ok(String::new()),
                };
                let failure = Failure::new(text(error, "Error")?, text(cause, "Cause")?);
                self.fail_scope(scope, failure);
                Ok(())
            }
            Kind::Parallel { branches } => self.begin_branches(scope, state, branches),
            Kind::Map(map) => self.begin_iterations(scope, state, map),
            Kind::Compensate => {
                let stack = self
                    .scope_mut(scope)
                    .map(|scope| std::mem::take(&mut scope.undo));
                let track = Track::new(stack.unwrap_or_default());
                let reason = Failure::new(COMPENSATE, format!("the state '{}'", state.name));
                self.begin_undoing(scope, track, reason);
                Ok(())
            }
        }
    }

    pub(super) fn set_activity(&mut self, scope: u32, activity: Activity) {
        if let Some(scope) = self.scope_mut(scope) {
            scope.activity = activity;
        }
    }

    fn applies(
        &mut self,
        scope: u32,
        state: &'a State,
        condition: &'a Condition,
        input: &Arc<Value>,
    ) -> Result<bool, Failure> {
        match condition {
            Condition::Constant(value) => Ok(*value),
            Condition::Test(test) => self.passes(scope, state, test, input),
            Condition::Expression(expression) => {
                match self.expression(scope, state, expression, input, "Condition")? {
                    Value::Bool(value) => Ok(value),
                    other => Err(failure(
                        state,
                        error_name::QUERY_EVALUATION_ERROR,
                        &format!(
                            "The JSONata expression '{}' specified for the field 'Condition' \
                             returned an unexpected result: expected a boolean, got {other}",
                            expression.source()
                        ),
                    )),
                }
            }
        }
    }

    fn choose(
        &mut self,
        scope: u32,
        state: &'a State,
        next: u32,
        (output, assign): (
            Option<&'a crate::expression::Template>,
            Option<&'a crate::expression::Template>,
        ),
        input: &Arc<Value>,
    ) -> Result<(), Failure> {
        let assigned = self.assign(scope, state, assign, input, Subject::default())?;
        let output = match (state.language, output) {
            (QueryLanguage::JsonPath, _) => self.output_path(scope, state, Arc::clone(input))?,
            (QueryLanguage::Jsonata, None) => Arc::clone(input),
            (QueryLanguage::Jsonata, Some(template)) => {
                let output =
                    self.template(scope, state, template, input, Subject::default(), "Output")?;
                Arc::new(output)
            }
        };
        self.exit(scope, state, output, assigned, Target::State(next));
        Ok(())
    }

    fn wait_until(
        &mut self,
        scope: u32,
        state: &'a State,
        until: &'a Until,
        input: &Arc<Value>,
    ) -> Result<Timestamp, Failure> {
        let until = match until {
            Until::Seconds(seconds) => {
                let seconds = self.count(scope, state, seconds, input, "Seconds")?;
                self.now + Duration::from_secs(seconds)
            }
            Until::Timestamp(text) => self.instant(scope, state, text, input)?,
        };
        if until > self.now + LONGEST_WAIT {
            return Err(failure(
                state,
                error_name::RUNTIME,
                "Wait state delay is too long.",
            ));
        }
        Ok(until)
    }

    /// The state has its result: what it did is remembered, and the scope moves on.
    pub(super) fn finish(&mut self, scope: u32, result: &Arc<Value>) {
        let Some(state) = self.state_of(scope) else {
            return;
        };
        // Whatever happens to the output, the step has succeeded and is to be undone.
        self.leave_step(scope, state, Some(result));
        match self.output(scope, state, result) {
            Ok((output, assigned)) => self.exit(scope, state, output, assigned, state.target),
            Err(failure) => self.fail_evaluation(scope, state, failure),
        }
    }

    fn exit(
        &mut self,
        number: u32,
        state: &State,
        output: Arc<Value>,
        assigned: Map<String, Value>,
        target: Target,
    ) {
        let since = self.entered_at(number);
        self.tell(
            number,
            Happening::StateExited {
                state: state.name.to_string(),
                kind: state.kind_name.to_owned(),
                output: Arc::clone(&output),
                since,
            },
        );
        if !assigned.is_empty() {
            self.set_variables(number, assigned);
        }
        self.work.push_back(match target {
            Target::State(next) => Work::Enter {
                scope: number,
                state: next,
                input: output,
            },
            Target::End => Work::End {
                scope: number,
                output,
            },
        });
    }

    pub(super) fn entered_at(&self, scope: u32) -> Timestamp {
        self.scope(scope).map_or(self.now, |scope| scope.entered_at)
    }

    fn fail_evaluation(&mut self, scope: u32, state: &State, failure: Failure) {
        self.tell_evaluation_failed(scope, state, &failure);
        self.fail(scope, failure, true);
    }

    pub(super) fn tell_evaluation_failed(&mut self, scope: u32, state: &State, failure: &Failure) {
        self.tell(
            scope,
            Happening::EvaluationFailed {
                state: state.name.to_string(),
                failure: failure.clone(),
            },
        );
    }

    /// The members of a Parallel or a Map have failed it, or its items could not be told.
    pub(super) fn fail_members(&mut self, number: u32, failure: Failure) {
        let Some(state) = self.state_of(number) else {
            return;
        };
        let Err(failure) = self.retry(number, state, failure) else {
            return;
        };
        let (name, told) = (state.name.to_string(), failure.clone());
        match &state.kind {
            Kind::Parallel { .. } => self.tell(
                number,
                Happening::ParallelFailed {
                    state: name,
                    failure: told,
                },
            ),
            Kind::Map(_) => self.tell(
                number,
                Happening::MapFailed {
                    state: name,
                    failure: told,
                },
            ),
            _ => {}
        }
        self.fail(number, failure, false);
    }

    /// The state has failed: Retry, then Catch, then the scope around it.
    pub(super) fn fail(&mut self, number: u32, failure: Failure, is_retryable: bool) {
        let Some(state) = self.state_of(number) else {
            return;
        };
        let failure = if is_retryable {
            match self.retry(number, state, failure) {
                Ok(()) => return,
                Err(failure) => failure,
            }
        } else {
            failure
        };
        // The attempt was answered, or given up and noted as unknown: it is not in flight any more.
        if let Some(scope) = self.scope_mut(number) {
            scope.activity = Activity::Moving;
        }
        self.leave_step(number, state, None);
        let rule = state
            .catch
            .iter()
            .find(|rule| matches(&rule.error_equals, &failure));
        let Some(rule) = rule else {
            self.fail_scope(number, failure);
            return;
        };
        let next = self
            .scope(number)
            .and_then(|scope| self.program.state(scope.machine, rule.next))
            .map_or_else(String::new, |next| next.name.to_string());
        self.tell(
            number,
            Happening::ErrorCaught {
                state: state.name.to_string(),
                failure: failure.clone(),
                next,
            },
        );
        match self.caught(number, state, rule, &failure) {
            Ok((output, assigned)) => {
                self.exit(number, state, output, assigned, Target::State(rule.next));
            }
            // A Catch that cannot be evaluated catches nothing.
            Err(failure) => self.fail_scope(number, failure),
        }
    }

    fn caught(
        &mut self,
        scope: u32,
        state: &State,
        rule: &super::program::Catcher,
        failure: &Failure,
    ) -> Result<(Arc<Value>, Map<String, Value>), Failure> {
        let raw = self
            .scope(scope)
            .map(|scope| Arc::clone(&scope.input))
            .unwrap_or_default();
        let error = Arc::new(json!({ "Error": failure.error, "Cause": failure.cause }));
        let subject = Subject {
            error_output: Some(&error),
            ..Subject::default()
        };
        match state.language {
            QueryLanguage::JsonPath => {
                let assigned = self.assign(scope, state, rule.assign.as_ref(), &error, subject)?;
                let output = super::evaluation::combine(&rule.result_path, &raw, &error)?;
                Ok((output, assigned))
            }
            QueryLanguage::Jsonata => {
                let assigned = self.assign(scope, state, rule.assign.as_ref(), &raw, subject)?;
                let output = match &rule.output {
                    None => Arc::clone(&error),
                    Some(template) => {
                        Arc::new(self.template(scope, state, template, &raw, subject, "Output")?)
                    }
                };
                Ok((output, assigned))
            }
        }
    }

    /// Lets a Retry rule take the failure: then the pause before the next attempt has begun. Gives it back
    /// if none does.
    fn retry(&mut self, number: u32, state: &State, failure: Failure) -> Result<(), Failure> {
        let Some(at) = state
            .retry
            .iter()
            .position(|rule| matches(&rule.error_equals, &failure))
        else {
            return Err(failure);
        };
        let rule = &state.retry[at];
        let most = self.run.limits.attempts;
        let Some(scope) = self.run.scopes.get_mut(&number) else {
            return Err(failure);
        };
        scope.retries.resize(state.retry.len(), 0);
        if scope.retries[at] >= rule.max_attempts {
            return Err(failure);
        }
        if is_last_attempt(&scope.retries, most) {
            return Err(after_last_attempt(failure, most));
        }
        let delay = super::attempt::backoff(rule, scope.retries[at], &mut self.environment);
        scope.retries[at] += 1;
        let until = self.now + delay;
        let attempt = scope.retries.iter().sum::<u32>() + 1;
        scope.activity = Activity::Until(until);
        scope.rests_since = Some(self.now);
        let command = scope
            .step
            .map(|step| self.run.id.effect(step).command(scope.attempt + 1));
        let state = state.name.to_string();
        self.tell(
            number,
            Happening::RetryScheduled {
                state,
                until,
                attempt,
                failure,
                command,
            },
        );
        Ok(())
    }

    /// The scope has failed: what it did goes to the scope around it, and the error with it.
    pub(super) fn fail_scope(&mut self, number: u32, failure: Failure) {
        if let Some(state) = self.state_of(number) {
            let told = Happening::StateFailed {
                state: state.name.to_string(),
                kind: state.kind_name.to_owned(),
                since: self.entered_at(number),
                failure: failure.clone(),
            };
            self.tell(number, told);
        }
        match self.scope(number).and_then(|scope| scope.parent) {
            None => self.end_forward(failure, false),
            Some(slot) => self.fail_member(number, slot, failure),
        }
    }

    pub(super) fn end_scope(&mut self, number: u32, output: Arc<Value>) {
        let Some(scope) = self.scope(number) else {
            return;
        };
        match scope.parent {
            None => {
                let is_undone = matches!(
                    self.state_of(number).map(|state| &state.kind),
                    Some(Kind::Compensate)
                );
                let status = match (is_undone, self.run.stands_in_part()) {
                    (false, _) => SagaStatus::Succeeded,
                    (true, false) => SagaStatus::Compensated,
                    (true, true) => {
                        let state = self.state_name(number);
                        self.end_saga(undone_in_part(&state));
                        return;
                    }
                };
                if self.run.part.is_some() && !scope.undo.is_empty() {
                    self.hold(output);
                    return;
                }
                self.end_saga(Outcome {
                    status,
                    output: Some(output),
                    failure: None,
                });
            }
            Some(slot) => self.end_member(number, slot, output),
        }
    }

    /// The saga turns back: everything that is going on is aborted, then what was done is undone.
    pub(super) fn end_forward(&mut self, failure: Failure, is_canceled: bool) {
        self.run.ending = Some(Ending {
            failure: failure.clone(),
            is_canceled,
        });
        let stack = self.abort(0);
        self.work.clear();
        let now = self.now;
        if let Some(scope) = self.scope_mut(0) {
            scope.visits += 1;
            scope.entered_at = now;
        }
        let track = Track::new(stack);
        self.begin_undoing(0, track, failure);
    }

    /// Everything is undone: the saga ends as it was going to.
    pub(super) fn end_backward(&mut self) {
        let Some(ending) = self.run.ending.clone() else {
            return;
        };
        // What was done up to the pivot stands.
        let is_all_undone = self.run.has_undone && !self.run.stands_in_part();
        let status = match (ending.is_canceled, is_all_undone) {
            (true, _) => SagaStatus::Canceled,
            (false, true) => SagaStatus::Compensated,
            (false, false) => SagaStatus::Failed,
        };
        self.end_saga(Outcome {
            status,
            output: None,
            failure: Some(ending.failure),
        });
    }

    /// Whether what this item of a distributed Map did cannot all be undone.
    fn is_past_pivot_as_item(&self) -> bool {
        self.run.part.is_some() && self.run.stands_in_part()
    }

    /// The saga has ended; whoever waits for it, and everybody else, is told.
    fn end_saga(&mut self, outcome: Outcome) {
        if let Some(parent) = self.run.parent.clone() {
            self.ask(Effect::TellParent {
                parent,
                outcome: outcome.clone(),
                holds: false,
                past_pivot: self.is_past_pivot_as_item(),
            });
        }
        self.close(outcome);
    }

    /// An item of a distributed Map has succeeded, but what it did may have to be undone: it waits
    /// for how the saga that it is part of ends.
    fn hold(&mut self, output: Arc<Value>) {
        if let Some(parent) = self.run.parent.clone() {
            self.ask(Effect::TellParent {
                parent,
                outcome: succeeded(Arc::clone(&output)),
                holds: true,
                past_pivot: self.is_past_pivot_as_item(),
            });
        }
        self.tell(0, Happening::Held);
        self.set_activity(0, Activity::Held(output));
    }

    /// A held item will not be undone. Its parent knows how it ended.
    pub(super) fn end_released(&mut self, output: Arc<Value>) {
        self.close(succeeded(output));
    }

    fn close(&mut self, outcome: Outcome) {
        self.forget_undo();
        self.tell(
            0,
            Happening::SagaEnded {
                outcome: outcome.clone(),
            },
        );
        // How an item ended stands in the journal of the saga that it is part of.
        if self.run.part.is_none() {
            self.ask(Effect::Ended {
                run: self.run.id,
                outcome: outcome.clone(),
                started_at: self.run.started_at,
                ended_at: self.now,
                trace: self.run.trace,
            });
        }
        self.run.scopes.clear();
        self.run.pending.clear();
        self.buffered.clear();
        self.work.clear();
        self.run.outcome = Some(outcome);
    }
}

/// How a saga ends that has undone what it did since its pivot, because a state says so.
fn undone_in_part(state: &str) -> Outcome {
    let cause = format!(
        "the state '{state}' undid what could be undone; what was done up to a pivot stands"
    );
    Outcome {
        status: SagaStatus::Failed,
        output: None,
        failure: Some(Failure::new(COMPENSATE, cause)),
    }
}

fn succeeded(output: Arc<Value>) -> Outcome {
    Outcome {
        status: SagaStatus::Succeeded,
        output: Some(output),
        failure: None,
    }
}

/// Whether an `ErrorEquals` names the error.
///
/// `States.ALL` leaves out the two that end every saga; `States.TaskFailed` leaves out timeouts; a
/// missed heartbeat is a timeout too.
pub(super) fn matches(names: &[String], failure: &Failure) -> bool {
    let error = failure.error.as_str();
    if error == error_name::RUNTIME {
        return false;
    }
    let is_timeout = error == error_name::TIMEOUT || error == error_name::HEARTBEAT_TIMEOUT;
    names.iter().any(|name| match name.as_str() {
        error_name::ALL => error != error_name::DATA_LIMIT_EXCEEDED,
        error_name::TASK_FAILED => !is_timeout && error != error_name::DATA_LIMIT_EXCEEDED,
        error_name::TIMEOUT => is_timeout,
        name => name == error,
    })
}

/// Whether the attempt that has failed was the last that the limit `attempts` allows, of the retries
/// that each rule has been used for.
pub(super) fn is_last_attempt(retries: &[u32], most: u64) -> bool {
    retries.iter().map(|used| u64::from(*used)).sum::<u64>() + 1 >= most
}

/// The error of a step that would be tried again, if the limit `attempts` did not end it.
pub(super) fn after_last_attempt(failure: Failure, most: u64) -> Failure {
    let note = format!("given up after {most} attempts, which is the limit `attempts`");
    let cause = match failure.cause.as_str() {
        "" => note,
        cause => format!("{cause} ({note})"),
    };
    Failure::new(failure.error, cause)
}
