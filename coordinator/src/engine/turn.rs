//! One fold in progress: the saga, the program, and what has been asked for so far.
//!
//! A turn works through a queue of [`Work`] until every scope waits for something again. The queue
//! takes the place of recursion, so a long chain of states needs no stack.

use super::{
    effect::{DomainEvent, Effect, Effects},
    program::{Kind, Program, State},
    saga::{Activity, Attempt, AttemptKind, Buffered, Run, Scope},
};
use crate::expression::{self, Environment};
use dirigent_contracts::{
    error_name,
    history::{Attempted, Happening, HistoryEvent},
    id::{EffectId, JournalSeq, PartitionId, SagaAddress},
    limit,
    outcome::Failure,
    time::Timestamp,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// What is left to do in this turn.
#[derive(Debug)]
pub(super) enum Work {
    /// A scope enters a state.
    Enter {
        scope: u32,
        state: u32,
        input: Arc<Value>,
    },
    /// The state of a scope has its result.
    Finish { scope: u32, result: Arc<Value> },
    /// The state of a scope has failed.
    Fail {
        scope: u32,
        failure: Failure,
        is_retryable: bool,
    },
    /// The members of a Parallel or a Map have failed it.
    FailMembers { scope: u32, failure: Failure },
    /// A scope has reached its end.
    End { scope: u32, output: Arc<Value> },
}

/// Scopes whose states are yet to be left, and whether because their members have failed them.
pub(super) type Turns = BTreeMap<u32, bool>;

pub(super) struct Turn<'a> {
    pub(super) address: &'a SagaAddress,
    pub(super) partition: PartitionId,
    pub(super) run: &'a mut Run,
    pub(super) buffered: &'a mut VecDeque<Buffered>,
    pub(super) program: &'a Program,
    pub(super) seq: JournalSeq,
    pub(super) now: Timestamp,
    pub(super) environment: Environment,
    pub(super) effects: Effects,
    pub(super) work: VecDeque<Work>,
    /// What the context object tells of the saga, once a state has looked at it.
    pub(super) execution: Option<Value>,
    transitions: u64,
    /// How many scopes there were before the turn.
    scopes_before: u64,
    /// The number of the first scope that the turn begins.
    first_scope: u32,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        address: &'a SagaAddress,
        partition: PartitionId,
        run: &'a mut Run,
        buffered: &'a mut VecDeque<Buffered>,
        program: &'a Program,
        seq: JournalSeq,
        now: Timestamp,
    ) -> Self {
        let seed = seed(run, seq);
        let limits = expression::Limits {
            time: Duration::from_millis(run.limits.expression_time),
            ..expression::Limits::default()
        };
        let (scopes_before, first_scope) = (run.scopes.len() as u64, run.next_scope);
        Self {
            address,
            partition,
            run,
            buffered,
            program,
            seq,
            now,
            environment: Environment::new(now.0, seed).with_limits(limits),
            effects: Effects::default(),
            work: VecDeque::new(),
            execution: None,
            transitions: 0,
            scopes_before,
            first_scope,
        }
    }

    /// Works until every scope waits, and gives what was asked for.
    pub(super) fn complete(mut self) -> Effects {
        while let Some(work) = self.work.pop_front() {
            if self.run.outcome.is_some() {
                break;
            }
            match work {
                Work::Enter {
                    scope,
                    state,
                    input,
                } => {
                    self.transitions += 1;
                    let most = self.most_transitions();
                    if self.transitions > most {
                        self.end_forward(runaway(most), false);
                    } else {
                        self.enter(scope, state, input);
                    }
                }
                Work::Finish { scope, result } => self.finish(scope, &result),
                Work::Fail {
                    scope,
                    failure,
                    is_retryable,
                } => {
                    self.fail(scope, failure, is_retryable);
                }
                Work::FailMembers { scope, failure } => self.fail_members(scope, failure),
                Work::End { scope, output } => self.end_scope(scope, output),
            }
        }
        self.effects
    }

    /// How many transitions the turn may have: a loop passes one in each round. Each branch or iteration
    /// adds some, but not without end, as a loop may begin them.
    fn most_transitions(&self) -> u64 {
        let begun = u64::from(self.run.next_scope - self.first_scope);
        let scopes = (self.scopes_before + begun).min(self.run.limits.inline_map_items);
        limit::TRANSITIONS_PER_ENTRY + scopes * limit::TRANSITIONS_PER_SCOPE
    }

    pub(super) fn tell(&mut self, scope: u32, what: Happening) {
        let Self { seq, now, .. } = *self;
        let visit = self.scope(scope).map_or(0, |scope| scope.visits);
        self.effects.history.push(HistoryEvent {
            seq,
            at: now,
            scope,
            visit,
            what,
        });
    }

    pub(super) fn ask(&mut self, effect: Effect) {
        self.effects.effects.push(effect);
    }

    pub(super) fn fail_members_later(&mut self, scope: u32, failure: Failure) {
        self.work.push_back(Work::FailMembers { scope, failure });
    }

    pub(super) fn fail_later(&mut self, scope: u32, failure: Failure) {
        self.work.push_back(Work::Fail {
            scope,
            failure,
            is_retryable: true,
        });
    }

    /// Which scopes are in a state that has its result or its failure, and is yet to be left because of it.
    pub(super) fn turns(&self) -> Turns {
        let turns = self.work.iter().filter_map(|work| match work {
            Work::Finish { scope, .. } | Work::Fail { scope, .. } => Some((*scope, false)),
            Work::FailMembers { scope, .. } => Some((*scope, true)),
            Work::Enter { .. } | Work::End { .. } => None,
        });
        turns.collect()
    }

    pub(super) fn scope(&self, scope: u32) -> Option<&Scope> {
        self.run.scopes.get(&scope)
    }

    pub(super) fn scope_mut(&mut self, scope: u32) -> Option<&mut Scope> {
        self.run.scopes.get_mut(&scope)
    }

    /// The state that a scope is in. The program outlives the turn, so this borrows nothing of it.
    pub(super) fn state_of(&self, scope: u32) -> Option<&'a State> {
        let scope = self.scope(scope)?;
        self.program.state(scope.machine, scope.state)
    }

    pub(super) fn state_name(&self, scope: u32) -> String {
        self.state_of(scope)
            .map_or_else(String::new, |state| state.name.to_string())
    }

    /// What the attempt of a scope's state is of.
    pub(super) fn attempted(&self, scope: u32) -> Option<Attempted> {
        match (
            &self.scope(scope)?.activity,
            self.state_of(scope).map(|state| &state.kind),
        ) {
            (
                Activity::Attempt(Attempt {
                    kind: AttemptKind::Child(child),
                    ..
                }),
                _,
            ) => Some(Attempted::Saga(child.clone())),
            (
                Activity::Attempt(Attempt {
                    kind: AttemptKind::Event(name),
                    ..
                }),
                _,
            ) => Some(Attempted::Event(name.clone())),
            (_, Some(Kind::Task(task))) => task.action.task().cloned().map(Attempted::Task),
            _ => None,
        }
    }

    pub(super) fn next_step(&mut self) -> u32 {
        let step = self.run.next_step;
        self.run.next_step += 1;
        step
    }

    pub(super) fn effect_id(&self, step: u32) -> EffectId {
        self.run.id.effect(step)
    }

    pub(super) fn publish(
        &mut self,
        scope: u32,
        subject: &Arc<str>,
        id: EffectId,
        data: Arc<Value>,
    ) {
        let state = self.state_name(scope);
        self.tell(
            scope,
            Happening::EventPublished {
                state,
                subject: subject.to_string(),
                id,
            },
        );
        self.ask(Effect::DomainEvent(DomainEvent {
            subject: Arc::clone(subject),
            id,
            saga: self.address.clone(),
            time: self.now,
            data,
            trace: self.run.trace,
        }));
    }
}

/// The seed of this entry's randomness: the same whenever the entry is folded.
fn seed(run: &Run, seq: JournalSeq) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(run.id.0.as_bytes(), seq.0)
}

fn runaway(most: u64) -> Failure {
    Failure::new(
        error_name::RUNTIME,
        format!("{most} state transitions without waiting for anything: the states form a loop"),
    )
}
