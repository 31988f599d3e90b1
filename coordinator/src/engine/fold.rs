//! The fold: `(state, entry) -> (state', effects)`.
//!
//! Everything about a saga is decided here, from its state, its program and one entry. An entry that
//! fits nothing changes nothing: whatever is delivered twice, late, or to the wrong saga is ignored,
//! and said to be.

use super::{
    bounds::within_limits,
    broken::Unfit,
    effect::{Effects, Ignored},
    program::{Kind, Program},
    saga::{Activity, AttemptKind, Buffered, Run, Saga, Scope},
    turn::Turn,
};
use dirigent_contracts::{
    error_name,
    header::TraceContext,
    history::{Happening, HistoryEvent},
    id::{JournalSeq, PartitionId, RunId, SagaAddress},
    journal::{Control, Entry, EventEntry, Start},
    limit,
    outcome::Failure,
    task::{Direction, Reply, TaskResult},
    time::Timestamp,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// An entry of the journal, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The partition whose journal it stands in.
    pub partition: PartitionId,
    /// Its position.
    pub seq: JournalSeq,
    /// Its time, given by `JetStream`: the fold's only clock.
    pub at: Timestamp,
    /// The saga that it is for.
    pub address: SagaAddress,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// The entry.
    pub entry: Entry,
}

/// Folds one entry into a saga's state.
///
/// `state` is `None` for a saga that is not known; it is `None` afterwards if there is nothing to be
/// remembered. A saga that has ended stays in `state` with its outcome; whoever keeps the states
/// may drop it once the effects are published. `program` is the saga's definition: of the version
/// that the state names, or for a start the entry; `None` if it cannot be run, which makes an
/// incident of the saga.
pub fn fold(state: &mut Option<Saga>, program: Option<&Program>, record: &Record) -> Effects {
    take_in(state, program.ok_or(Unfit::Missing), record)
}

/// Takes in an entry whose fold broke off, with the state that stood before it: the saga becomes an
/// incident, and the entry waits in it until a build that can fold it hears a Retry.
pub fn set_aside(state: &mut Option<Saga>, why: &str, record: &Record) -> Effects {
    take_in(state, Err(Unfit::Unsound(why)), record)
}

fn take_in(
    state: &mut Option<Saga>,
    program: Result<&Program, Unfit<'_>>,
    record: &Record,
) -> Effects {
    let saga = match state {
        Some(saga) => saga,
        None => match &record.entry {
            Entry::Start(_) | Entry::Event(_) => {
                state.insert(Saga::new(record.address.clone(), record.partition))
            }
            _ => return ignored(Ignored::NoSuchSaga),
        },
    };
    if record.seq <= saga.applied {
        return ignored(Ignored::Repeated);
    }
    saga.applied = record.seq;
    saga.updated_at = record.at;
    let effects = saga.fold(program, record);
    if saga.run.is_none() && saga.is_over() {
        *state = None;
    }
    effects
}

pub(super) fn ignored(why: Ignored) -> Effects {
    Effects {
        ignored: Some(why),
        ..Effects::default()
    }
}

impl Saga {
    pub(super) fn fold(
        &mut self,
        program: Result<&Program, Unfit<'_>>,
        record: &Record,
    ) -> Effects {
        if let Entry::Start(start) = &record.entry {
            return self.start(program, record, start);
        }
        if self.run.is_none() {
            return match &record.entry {
                Entry::Event(event) => self.keep(event, record),
                Entry::Timer(_) if record.at >= self.forget_at => {
                    self.buffered.clear();
                    Effects::default()
                }
                _ => ignored(Ignored::NotApplicable),
            };
        }
        if let Some(run) = &mut self.run {
            if run.outcome.is_some() {
                return run.hear_after_the_end(record);
            }
            if run.broken.is_some() {
                return self.mend(program, record);
            }
        }
        let program = match program {
            Ok(program) => program,
            Err(unfit) => return self.break_down(record, unfit),
        };
        if let Entry::Event(event) = &record.entry {
            if self.seen_events.contains(&event.id) {
                return ignored(Ignored::KnownEvent);
            }
            self.remember(event);
        }
        self.turn(program, record, |turn| {
            turn.take(record);
            turn.count_entry(&record.entry);
        })
    }

    pub(super) fn turn(
        &mut self,
        program: &Program,
        record: &Record,
        act: impl FnOnce(&mut Turn<'_>),
    ) -> Effects {
        let Self {
            address,
            partition,
            run,
            buffered,
            ..
        } = self;
        let Some(run) = run else {
            return Effects::default();
        };
        let mut turn = Turn::new(
            address, *partition, run, buffered, program, record.seq, record.at,
        );
        act(&mut turn);
        turn.complete()
    }

    fn start(
        &mut self,
        program: Result<&Program, Unfit<'_>>,
        record: &Record,
        start: &Start,
    ) -> Effects {
        if self.run.is_some() {
            return ignored(Ignored::AlreadyStarted);
        }
        self.forget_at = Timestamp::NEVER;
        // A part that the version does not have is like a version that is missing.
        let machine = start.part.map_or(0, |part| part.machine);
        let program = program.and_then(|program| match program.machine(machine) {
            Some(_) => Ok(program),
            None => Err(Unfit::Missing),
        });
        let run = self.run.insert(Run {
            id: RunId::derive(&self.address, record.seq, record.at),
            digest: start.digest.clone(),
            input: Arc::clone(&start.input),
            started_at: record.at,
            deadline: Timestamp::NEVER,
            trace: record.trace,
            trigger: start.trigger.clone(),
            parent: start.parent.clone(),
            part: start.part,
            scopes: BTreeMap::from([(0, Scope::new(machine, None, None, record.at))]),
            next_scope: 1,
            next_step: 1,
            pending: BTreeMap::new(),
            ending: None,
            is_past_pivot: false,
            has_pivoted_items: false,
            has_undone: false,
            unresolved: BTreeSet::new(),
            broken: None,
            missed: Vec::new(),
            has_begun: program.is_ok(),
            limits: start.limits,
            entries: 1,
            variable_bytes: 0,
            outcome: None,
        });
        if let Ok(program) = program {
            run.set_deadline(program, record.at);
        }
        let told = HistoryEvent {
            seq: record.seq,
            at: record.at,
            scope: 0,
            visit: 0,
            what: Happening::SagaStarted {
                run: run.id,
                digest: run.digest.clone(),
                input: Arc::clone(&run.input),
                trigger: run.trigger.clone(),
                parent: run.parent.clone(),
                caller: run.trace.map(TraceContext::to_header),
            },
        };
        let input = Arc::clone(&run.input);
        let mut effects = match program {
            Err(unfit) => self.break_down(record, unfit),
            Ok(program) => self.turn(program, record, |turn| turn.start(0, machine, input)),
        };
        effects.history.insert(0, told);
        effects
    }

    /// An event came before the saga: it is kept for a while.
    fn keep(&mut self, event: &EventEntry, record: &Record) -> Effects {
        if self.seen_events.contains(&event.id) {
            return ignored(Ignored::KnownEvent);
        }
        if self.buffered.is_empty() {
            self.forget_at = record.at + limit::EARLY_EVENT_RETENTION;
        }
        self.remember(event);
        buffer(&mut self.buffered, event, record.trace);
        Effects::default()
    }

    fn remember(&mut self, event: &EventEntry) {
        self.seen_events.push_back(event.id.clone());
        while self.seen_events.len() > limit::BUFFERED_EVENTS {
            self.seen_events.pop_front();
        }
    }
}

/// Keeps an event for a state that will await it; the oldest make room.
fn buffer(buffered: &mut VecDeque<Buffered>, event: &EventEntry, publisher: Option<TraceContext>) {
    buffered.push_back(Buffered {
        event: event.clone(),
        publisher: publisher.map(TraceContext::to_header),
    });
    while buffered.len() > limit::BUFFERED_EVENTS {
        buffered.pop_front();
    }
}

impl Run {
    /// The answer of a step that was undone without knowing whether it had succeeded is recorded
    /// even now; nothing else is heard any more.
    fn hear_after_the_end(&mut self, record: &Record) -> Effects {
        let Entry::Reply(Reply {
            command, result, ..
        }) = &record.entry
        else {
            return ignored(Ignored::NoSuchSaga);
        };
        let succeeded = match result {
            TaskResult::Succeeded { .. } => true,
            TaskResult::Failed { .. } => false,
            TaskResult::Heartbeat => return ignored(Ignored::NotPending),
        };
        if !self.unresolved.remove(command) {
            return ignored(Ignored::NotPending);
        }
        let what = Happening::LateReply {
            command: *command,
            succeeded,
        };
        let told = HistoryEvent {
            seq: record.seq,
            at: record.at,
            scope: 0,
            visit: 0,
            what,
        };
        Effects {
            history: vec![told],
            ..Effects::default()
        }
    }
}

impl Turn<'_> {
    fn take(&mut self, record: &Record) {
        match &record.entry {
            Entry::Start(_) => self.effects.ignored = Some(Ignored::AlreadyStarted),
            Entry::Reply(reply) => self.hear(
                reply.command,
                within_limits(&reply.result),
                reply.callback,
                reply.worker.clone(),
                reply.timing,
            ),
            Entry::Child(child) => self.hear_child(child),
            Entry::Event(event) => self.take_event(event, record.trace),
            Entry::Timer(timer) => self.take_timer(timer.due),
            Entry::Control(control) => self.take_control(control),
        }
    }

    fn take_event(&mut self, event: &EventEntry, publisher: Option<TraceContext>) {
        let waiting = self
            .run
            .scopes
            .iter()
            .find_map(|(number, scope)| match &scope.activity {
                Activity::Attempt(attempt) => match &attempt.kind {
                    AttemptKind::Event(name) => (*name == event.name).then_some(*number),
                    _ => None,
                },
                _ => None,
            });
        self.tell(
            waiting.unwrap_or(0),
            Happening::EventReceived {
                name: event.name.clone(),
                id: event.id.clone(),
                awaited: waiting.is_some(),
            },
        );
        if let Some(scope) = waiting {
            self.tell_event_taken(scope, event, publisher.map(TraceContext::to_header));
            self.finish(scope, &event.data);
        } else {
            buffer(self.buffered, event, publisher);
        }
    }

    /// Whoever publishes timers goes by a clock of its own: the journal's decides what is due.
    fn take_timer(&mut self, due: Timestamp) {
        let due = due.min(self.now);
        if self.run.ending.is_none() && self.run.deadline <= due {
            let failure = self.too_late();
            self.end_forward(failure, false);
            return;
        }
        let mut scopes: Vec<(Timestamp, u32)> = self
            .run
            .scopes
            .iter()
            .map(|(number, scope)| (scope.activity.deadline(), *number))
            .filter(|(deadline, _)| *deadline <= due)
            .collect();
        scopes.sort_unstable();
        if scopes.is_empty() {
            self.effects.ignored = Some(Ignored::NothingDue);
        }
        for (_, number) in scopes {
            // A scope that failed before may have taken this one with it.
            let Some(scope) = self.scope(number) else {
                continue;
            };
            if scope.activity.deadline() > due {
                continue;
            }
            let Some(state) = self.state_of(number) else {
                continue;
            };
            match scope.activity.clone() {
                Activity::Attempt(attempt) => self.give_up(number, &attempt),
                Activity::Undoing(_) => self.undo_due(number, due),
                Activity::Until(due) if matches!(state.kind, Kind::Wait(_)) => {
                    let told = Happening::PauseEnded {
                        state: state.name.to_string(),
                        since: Some(self.entered_at(number)),
                        due,
                        attempt: None,
                        command: None,
                    };
                    self.tell(number, told);
                    match self.effective_input(number, state) {
                        Ok(input) => self.finish(number, &input),
                        Err(failure) => self.fail_later(number, failure),
                    }
                }
                Activity::Until(due) => {
                    self.tell_rested(number, state.name.to_string(), due);
                    self.begin(number, state);
                }
                _ => {}
            }
        }
    }

    /// The pause before another attempt is over.
    fn tell_rested(&mut self, number: u32, state: String, due: Timestamp) {
        let run = self.run.id;
        let Some(scope) = self.scope_mut(number) else {
            return;
        };
        let told = Happening::PauseEnded {
            state,
            since: scope.rests_since.take(),
            due,
            attempt: Some(scope.retries.iter().sum::<u32>() + 1),
            command: scope
                .step
                .map(|step| run.effect(step).command(scope.attempt + 1)),
        };
        self.tell(number, told);
    }

    fn take_control(&mut self, control: &Control) {
        match control {
            Control::Cancel { reason } => {
                if self.run.ending.is_some() || self.run.refuses_to_cancel().is_some() {
                    self.effects.ignored = Some(Ignored::NotApplicable);
                    return;
                }
                self.cancel(reason);
            }
            // Of what it did after its pivot, if it has passed one: before that there is nothing left.
            Control::Undo { reason } => {
                if self.run.ending.is_some() {
                    self.effects.ignored = Some(Ignored::NotApplicable);
                    return;
                }
                self.cancel(reason);
            }
            Control::Release => match self.run.held() {
                Some(output) => self.end_released(output),
                None => self.effects.ignored = Some(Ignored::NotApplicable),
            },
            Control::Retry { reason } => self.resume(false, reason),
            Control::Skip { reason } => self.resume(true, reason),
            Control::Poison {
                command,
                deliveries,
            } => {
                let failure = Failure::new(
                    error_name::POISON_COMMAND,
                    format!(
                        "the command was delivered {deliveries} times and never answered: it may end \
                         every worker that takes it; mend them, then retry the saga"
                    ),
                );
                self.poison(*command, failure);
            }
        }
    }

    fn cancel(&mut self, reason: &str) {
        let told = Happening::CancelRequested {
            reason: reason.to_owned(),
        };
        self.tell(0, told);
        self.end_forward(Failure::new(error_name::CANCELED, reason), true);
    }

    fn resume(&mut self, is_skipped: bool, reason: &str) {
        let stuck: Vec<u32> = self
            .run
            .scopes
            .iter()
            .filter(|(_, scope)| match &scope.activity {
                Activity::Stuck(_) => true,
                Activity::Undoing(track) => track.stuck_at().is_some(),
                _ => false,
            })
            .map(|(number, _)| *number)
            .collect();
        if stuck.is_empty() {
            self.effects.ignored = Some(Ignored::NotApplicable);
            return;
        }
        self.tell(
            0,
            Happening::Resumed {
                skipped: is_skipped,
                reason: reason.to_owned(),
            },
        );
        for number in stuck {
            let Some(state) = self.state_of(number) else {
                continue;
            };
            match self.scope(number).map(|scope| &scope.activity) {
                Some(Activity::Undoing(_)) => self.resume_undo(number, is_skipped),
                Some(Activity::Stuck(failure)) if is_skipped => {
                    let failure = failure.clone();
                    self.fail(number, failure, false);
                }
                Some(Activity::Stuck(_)) => self.begin(number, state),
                _ => {}
            }
        }
    }

    /// The broker gave up on a command: its step waits for a person.
    fn poison(&mut self, command: dirigent_contracts::id::CommandId, failure: Failure) {
        let step = command.effect.step;
        let number = self.run.pending.get(&step).copied();
        let Some(number) = number.filter(|_| command.effect.run == self.run.id) else {
            self.effects.ignored = Some(Ignored::NotPending);
            return;
        };
        let Some(scope) = self.scope_mut(number) else {
            return;
        };
        match &scope.activity {
            Activity::Undoing(_) => {
                let result = dirigent_contracts::task::TaskResult::Failed {
                    failure,
                    retryable: true,
                };
                self.hear_undo(number, command, result, String::new(), None);
            }
            Activity::Attempt(attempt) if scope.attempt == command.attempt => {
                let since = attempt.since;
                scope.unknown.insert(command.attempt);
                scope.activity = Activity::Stuck(failure.clone());
                let state = self.state_name(number);
                let of = self.attempted(number);
                self.tell(
                    number,
                    Happening::TaskFailed {
                        command,
                        state: state.clone(),
                        since,
                        failure: failure.clone(),
                        direction: Direction::Do,
                        worker: String::new(),
                        of,
                        timing: None,
                    },
                );
                self.stuck(number, state, failure);
            }
            _ => self.effects.ignored = Some(Ignored::NotPending),
        }
    }
}
