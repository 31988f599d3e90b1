//! Spans: a saga's history as intervals that lie within each other.
//!
//! A coordinator tells them to a tracing backend, entry by entry, as they end; `dirigent trace` lays
//! them out from the whole history, with those that have not ended. Everything that a span says follows
//! from one event of the history and from the start of its run, so that nobody has to remember anything,
//! and a history that is told twice gives the same spans. `docs/traces.md` lists them.

pub mod identity;

use crate::{
    header::TraceContext,
    history::{Attempted, Happening, HistoryEvent},
    id::{CommandId, EffectId, RunId, SagaAddress},
    outcome::{Failure, SagaStatus},
    task::{Direction, Timing},
    time::Timestamp,
};
use std::borrow::Cow;

/// The run whose history is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its identity.
    pub id: RunId,
    /// The trace context of whoever started it.
    pub caller: Option<TraceContext>,
    /// When it started.
    pub started_at: Timestamp,
}

/// One interval of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Span<'a> {
    /// Its id.
    pub id: u64,
    /// The span that it lies within; `None` if that is not known.
    pub parent: Option<u64>,
    /// When it began.
    pub start: Timestamp,
    /// When it ended; `None` while it lasts.
    pub end: Option<Timestamp>,
    /// What it is.
    pub what: What<'a>,
    /// Why it failed, if it did.
    pub failure: Option<&'a Failure>,
    /// Whether it was broken off: nobody knows, or asks, how it would have ended.
    pub is_broken_off: bool,
    /// A span that it has to do with without lying within it: the attempt before, or the publisher of
    /// the event.
    pub link: Option<TraceContext>,
}

/// What a span is.
#[derive(Clone, Debug, PartialEq)]
pub enum What<'a> {
    /// A whole run.
    Saga {
        /// How it ended; `None` while it lasts.
        status: Option<SagaStatus>,
    },
    /// A stay in a state.
    State {
        /// Its name.
        state: &'a str,
        /// Its `Type`.
        kind: &'a str,
    },
    /// A branch of a Parallel, or an iteration of a Map.
    Member {
        /// The Parallel or the Map.
        state: &'a str,
        /// Its index.
        index: u64,
        /// Whether it is an iteration.
        is_iteration: bool,
    },
    /// An attempt at a task, a child saga, or an event that is awaited.
    Attempt {
        /// The state that asks.
        state: &'a str,
        /// What is tried.
        of: Option<Cow<'a, Attempted>>,
        /// The attempt.
        command: CommandId,
        /// Do or undo.
        direction: Direction,
        /// What the worker knows of the time that it took.
        timing: Option<Timing>,
        /// Who did it, or tried.
        worker: &'a str,
        /// Id of the event that was awaited and came.
        event: Option<&'a str>,
    },
    /// The publication of a domain event, which takes no time.
    Publication {
        /// The state that publishes.
        state: &'a str,
        /// The event's subject.
        subject: &'a str,
        /// Its id.
        id: EffectId,
    },
    /// A Wait, or the pause before another attempt.
    Pause {
        /// The state.
        state: &'a str,
        /// When it is to end.
        due: Timestamp,
        /// The number of the attempt that follows; `None` for a Wait.
        attempt: Option<u32>,
    },
    /// The saga undoes what it did.
    Compensation,
}

impl What<'_> {
    /// The span's name: of few values, as the conventions ask. `saga` is whose span it is.
    #[must_use]
    pub fn name(&self, saga: &SagaAddress) -> Cow<'_, str> {
        match self {
            Self::Saga { .. } => Cow::Owned(saga.definition.to_string()),
            Self::State { state, .. } => Cow::Borrowed(state),
            Self::Member {
                state,
                is_iteration,
                ..
            } => {
                let what = if *is_iteration { "iteration" } else { "branch" };
                Cow::Owned(format!("{state} {what}"))
            }
            Self::Attempt { state, of, .. } => match of.as_deref() {
                Some(Attempted::Task(task)) => Cow::Owned(format!("ask {task}")),
                Some(Attempted::Saga(child)) => Cow::Owned(format!("saga {}", child.definition)),
                Some(Attempted::Event(name)) => Cow::Owned(format!("await {name}")),
                None => Cow::Owned(format!("ask {state}")),
            },
            Self::Publication { subject, .. } => Cow::Owned(format!("publish {subject}")),
            Self::Pause { attempt: None, .. } => Cow::Borrowed("wait"),
            Self::Pause { .. } => Cow::Borrowed("back off"),
            Self::Compensation => Cow::Borrowed("compensation"),
        }
    }
}

impl Run {
    /// The trace that the run belongs to: its caller's, or one that is named like the run.
    #[must_use]
    pub fn trace(&self) -> u128 {
        trace_of(self.id, self.caller)
    }

    /// The spans that an event ended: at most one.
    #[must_use]
    pub fn ended<'a>(&self, event: &'a HistoryEvent) -> Option<Span<'a>> {
        use Happening as H;
        let ended = |id, parent, start: Timestamp, what| {
            let mut span = Span::new(id, parent, start, what);
            span.end = Some(event.at.max(start));
            span
        };
        let state = self.state(event);
        let around = Some(self.around(event));
        let attempt = |command: CommandId, since, what| {
            let mut span = ended(identity::of_attempt(command), Some(state), since, what);
            span.link = self.attempt_before(command);
            span
        };
        Some(match &event.what {
            H::SagaEnded { outcome } => {
                let what = What::Saga {
                    status: Some(outcome.status),
                };
                let caller = self.caller.map(|caller| caller.span);
                ended(identity::of_saga(self.id), caller, self.started_at, what)
                    .failed(outcome.failure.as_ref())
            }
            H::StateExited {
                state: name,
                kind,
                since,
                ..
            } => ended(state, around, *since, of_state(name, kind)),
            H::StateFailed {
                state: name,
                kind,
                since,
                failure,
            } => ended(state, around, *since, of_state(name, kind)).failed(Some(failure)),
            H::StateAborted {
                state: name,
                kind,
                since,
                ..
            } => ended(state, around, *since, of_state(name, kind)).broken_off(true),
            H::MemberEnded {
                state: name,
                index,
                member,
                is_iteration,
                since,
                failure,
                is_aborted,
            } => {
                let what = What::Member {
                    state: name,
                    index: *index,
                    is_iteration: *is_iteration,
                };
                let id = identity::of_member(self.id, *member);
                ended(id, Some(state), *since, what)
                    .failed(failure.as_ref())
                    .broken_off(*is_aborted)
            }
            // Its span ended when it was given up.
            H::TaskSucceeded { is_late: true, .. } => return None,
            H::TaskSucceeded {
                command,
                state,
                since,
                worker,
                direction,
                of,
                timing,
                ..
            } => {
                let what = of_attempt(state, of.as_ref(), *command, *direction);
                attempt(*command, *since, what.answered(*timing, worker))
            }
            H::TaskFailed {
                command,
                state,
                since,
                failure,
                direction,
                worker,
                of,
                timing,
            } => {
                let what = of_attempt(state, of.as_ref(), *command, *direction);
                attempt(*command, *since, what.answered(*timing, worker)).failed(Some(failure))
            }
            H::TaskTimedOut {
                command,
                state,
                since,
                failure,
                of,
                direction,
            } => attempt(
                *command,
                *since,
                of_attempt(state, of.as_ref(), *command, *direction),
            )
            .failed(Some(failure)),
            H::TaskAbandoned {
                command,
                state,
                since,
                of,
                direction,
            } => attempt(
                *command,
                *since,
                of_attempt(state, of.as_ref(), *command, *direction),
            )
            .broken_off(true),
            H::EventTaken {
                state,
                name,
                id,
                command,
                since,
                publisher,
            } => {
                let what = What::Attempt {
                    state,
                    of: Some(Cow::Owned(Attempted::Event(name.clone()))),
                    command: *command,
                    direction: Direction::Do,
                    timing: None,
                    worker: "",
                    event: Some(id),
                };
                let mut span = attempt(*command, *since, what);
                let publisher = publisher.as_deref().and_then(TraceContext::parse);
                span.link = publisher.or(span.link);
                span
            }
            H::EventPublished {
                state: name,
                subject,
                id,
            } => {
                let what = What::Publication {
                    state: name,
                    subject,
                    id: *id,
                };
                ended(identity::of_publication(*id), Some(state), event.at, what)
            }
            H::PauseEnded {
                state: name,
                since: Some(since),
                due,
                attempt,
                command,
            } => {
                let what = What::Pause {
                    state: name,
                    due: *due,
                    attempt: *attempt,
                };
                ended(self.pause(state, *due, *command), Some(state), *since, what)
            }
            H::CompensationEnded {
                since,
                is_of_saga: true,
            } => ended(state, around, *since, What::Compensation),
            _ => return None,
        })
    }

    /// The spans that an event began, without their ends.
    #[must_use]
    pub fn begun<'a>(&self, event: &'a HistoryEvent) -> Vec<Span<'a>> {
        use Happening as H;
        let state = self.state(event);
        let around = Some(self.around(event));
        let begun = |id, parent, what| Span::new(id, parent, event.at, what);
        let attempt = |command: CommandId, state_name: &'a str, of, direction| {
            let what = What::Attempt {
                state: state_name,
                of: Some(Cow::Owned(of)),
                command,
                direction,
                timing: None,
                worker: "",
                event: None,
            };
            vec![begun(identity::of_attempt(command), Some(state), what)]
        };
        let pause = |name: &'a str, due, attempt, command| {
            let what = What::Pause {
                state: name,
                due,
                attempt,
            };
            vec![begun(self.pause(state, due, command), Some(state), what)]
        };
        match &event.what {
            H::SagaStarted { .. } => {
                let caller = self.caller.map(|caller| caller.span);
                let what = What::Saga { status: None };
                vec![begun(identity::of_saga(self.id), caller, what)]
            }
            H::StateEntered {
                state: name, kind, ..
            } => vec![begun(state, around, of_state(name, kind))],
            H::ParallelStarted {
                state: name,
                scopes,
            } => {
                let members = scopes.iter().zip(0..).map(|(scope, index)| {
                    let what = What::Member {
                        state: name,
                        index,
                        is_iteration: false,
                    };
                    begun(identity::of_member(self.id, *scope), Some(state), what)
                });
                members.collect()
            }
            H::IterationStarted {
                state: name,
                index,
                iteration,
            } => {
                let what = What::Member {
                    state: name,
                    index: *index,
                    is_iteration: true,
                };
                let id = identity::of_member(self.id, *iteration);
                vec![begun(id, Some(state), what)]
            }
            H::TaskScheduled {
                state,
                task,
                command,
                direction,
                ..
            } => attempt(*command, state, Attempted::Task(task.clone()), *direction),
            H::ChildStarted {
                state,
                child,
                command,
            } => {
                let of = Attempted::Saga(child.clone());
                attempt(*command, state, of, Direction::Do)
            }
            H::EventAwaited {
                state,
                name,
                command,
                ..
            } => {
                let of = Attempted::Event(name.clone());
                attempt(*command, state, of, Direction::Do)
            }
            H::WaitStarted { state, until } => pause(state, *until, None, None),
            H::RetryScheduled {
                state,
                until,
                attempt,
                command,
                ..
            } => pause(state, *until, Some(*attempt), *command),
            H::CompensationStarted {
                is_of_saga: true, ..
            } => vec![begun(state, around, What::Compensation)],
            _ => Vec::new(),
        }
    }

    /// The span of the state in which an event happened.
    fn state(&self, event: &HistoryEvent) -> u64 {
        identity::of_state(self.id, event.scope, event.visit)
    }

    /// The span around that of the state: its branch's or iteration's, or the saga's.
    fn around(&self, event: &HistoryEvent) -> u64 {
        match event.scope {
            0 => identity::of_saga(self.id),
            scope => identity::of_member(self.id, scope),
        }
    }

    fn pause(&self, state: u64, due: Timestamp, command: Option<CommandId>) -> u64 {
        match command {
            Some(command) => identity::of_pause_before(command),
            None => identity::of_pause(self.id, state, due.0),
        }
    }

    fn attempt_before(&self, command: CommandId) -> Option<TraceContext> {
        let before = command
            .attempt
            .checked_sub(1)
            .filter(|&number| number > 0)?;
        Some(TraceContext {
            trace: self.trace(),
            span: identity::of_attempt(command.effect.command(before)),
            sampled: true,
        })
    }
}

/// The trace that a run belongs to: its caller's, or one that is named like the run.
#[must_use]
pub fn trace_of(run: RunId, caller: Option<TraceContext>) -> u128 {
    caller.map_or(run.0.as_u128(), |caller| caller.trace)
}

impl<'a> Span<'a> {
    fn new(id: u64, parent: Option<u64>, start: Timestamp, what: What<'a>) -> Self {
        Self {
            id,
            parent,
            start,
            end: None,
            what,
            failure: None,
            is_broken_off: false,
            link: None,
        }
    }

    fn failed(mut self, failure: Option<&'a Failure>) -> Self {
        self.failure = failure;
        self
    }

    fn broken_off(mut self, is_broken_off: bool) -> Self {
        self.is_broken_off = is_broken_off;
        self
    }
}

impl<'a> What<'a> {
    fn answered(mut self, answer: Option<Timing>, by: &'a str) -> Self {
        if let Self::Attempt { timing, worker, .. } = &mut self {
            (*timing, *worker) = (answer, by);
        }
        self
    }
}

fn of_state<'a>(state: &'a str, kind: &'a str) -> What<'a> {
    What::State { state, kind }
}

fn of_attempt<'a>(
    state: &'a str,
    of: Option<&'a Attempted>,
    command: CommandId,
    direction: Direction,
) -> What<'a> {
    What::Attempt {
        state,
        of: of.map(Cow::Borrowed),
        command,
        direction,
        timing: None,
        worker: "",
        event: None,
    }
}
