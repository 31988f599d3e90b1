//! A saga's state in words, for people and for the API.

use super::{
    program::Program,
    saga::{Activity, AttemptKind, Run, Saga},
    undo::{Current, Track, UndoPhase, steps_of},
};
use dirigent_contracts::{
    api::{self, SagaDescription},
    time::Timestamp,
    trace::trace_of,
};

/// Describes a saga that has started; `None` for one that has not.
#[must_use]
pub fn describe(saga: &Saga, program: Option<&Program>) -> Option<SagaDescription> {
    let run = saga.run()?;
    let outcome = run.outcome();
    Some(SagaDescription {
        saga: saga.address().clone(),
        partition: saga.partition(),
        run: run.id(),
        trace_id: format!("{:032x}", trace_of(run.id(), run.trace())),
        digest: run.digest().clone(),
        status: run.status(),
        started_at: run.started_at(),
        updated_at: saga.updated_at(),
        input: (**run.input()).clone(),
        output: outcome.and_then(|outcome| outcome.output.as_deref().cloned()),
        failure: run.failure().cloned(),
        activities: activities(run, program),
        undo: undo(run, program),
        trigger: run.trigger().cloned(),
        parent: run.parent().cloned(),
    })
}

/// The name of the state that the saga is in, the innermost of its first branch.
#[must_use]
pub fn position(saga: &Saga, program: Option<&Program>) -> String {
    saga.run()
        .and_then(|run| activities(run, program).pop())
        .map_or_else(String::new, |activity| activity.state)
}

fn name(program: Option<&Program>, machine: u32, state: u32) -> String {
    program
        .and_then(|program| program.state(machine, state))
        .map_or_else(|| format!("#{state}"), |state| state.name.to_string())
}

fn activities(run: &Run, program: Option<&Program>) -> Vec<api::Activity> {
    run.scopes
        .iter()
        .filter_map(|(number, scope)| {
            let waits_for = match &scope.activity {
                Activity::Moving if run.broken.is_some() => {
                    "a person: the definition cannot be run".to_owned()
                }
                Activity::Moving => return None,
                Activity::Attempt(attempt) => match &attempt.kind {
                    AttemptKind::Task if attempt.is_submitted => {
                        format!("a callback with the token, attempt {}", scope.attempt)
                    }
                    AttemptKind::Task => format!("a worker's reply, attempt {}", scope.attempt),
                    AttemptKind::Event(name) => format!("the event {name}"),
                    AttemptKind::Child(child) => format!("the saga {child}"),
                },
                Activity::Until(_) if scope.attempt > 0 => {
                    format!("the next attempt, number {}", scope.attempt + 1)
                }
                Activity::Until(_) => "its time".to_owned(),
                Activity::Branches(branches) => format!("{} branches", branches.live.len()),
                Activity::Iterations(iterations) => {
                    let done = iterations.outputs.iter().flatten().count();
                    format!(
                        "{} of {} iterations",
                        iterations.items.len() - done,
                        iterations.items.len()
                    )
                }
                Activity::Distribution(distribution) => distribution.describe(),
                Activity::Held(_) => "the saga that it is part of".to_owned(),
                Activity::Undoing(track) => doing(track, program),
                Activity::Stuck(failure) => format!("a person: {failure}"),
            };
            let deadline = scope.activity.deadline();
            Some(api::Activity {
                scope: *number,
                state: name(program, scope.machine, scope.state),
                waits_for,
                until: (deadline < Timestamp::NEVER).then_some(deadline),
            })
        })
        .collect()
}

fn doing(track: &Track, program: Option<&Program>) -> String {
    match &track.current {
        None => "nothing".to_owned(),
        Some(Current::Settling(of)) => {
            format!(
                "word whether {} happened",
                name(program, of.machine, of.state)
            )
        }
        Some(Current::Undoing(undoing)) => {
            let state = name(program, undoing.of.machine, undoing.of.state);
            match &undoing.phase {
                UndoPhase::Stuck(failure) => {
                    format!("a person: {state} cannot be undone: {failure}")
                }
                UndoPhase::Attempt { .. } => {
                    format!("{state} to be undone, attempt {}", undoing.attempt)
                }
                UndoPhase::Closing(_) => {
                    format!("the saga that undoes {state} to end; it has timed out")
                }
                UndoPhase::Until(_) => {
                    format!(
                        "the next attempt to undo {state}, number {}",
                        undoing.attempt + 1
                    )
                }
            }
        }
        Some(Current::Items(items)) => format!(
            "{} items of {} to be undone",
            items.held.len() + items.closing.len(),
            name(program, items.machine, items.state)
        ),
        Some(Current::Branches(tracks)) => tracks
            .iter()
            .map(|track| doing(track, program))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

fn undo(run: &Run, program: Option<&Program>) -> Vec<String> {
    let mut steps = Vec::new();
    for scope in run.scopes.values().rev() {
        match &scope.activity {
            Activity::Undoing(track) => steps.extend(track.steps()),
            Activity::Branches(branches) => {
                branches
                    .undo
                    .iter()
                    .for_each(|stack| steps.extend(steps_of(stack)));
            }
            Activity::Iterations(iterations) => {
                iterations
                    .undo
                    .iter()
                    .for_each(|stack| steps.extend(steps_of(stack)));
            }
            _ => {}
        }
        steps.extend(steps_of(&scope.undo));
    }
    steps
        .into_iter()
        .map(|(machine, state)| name(program, machine, state))
        .collect()
}
