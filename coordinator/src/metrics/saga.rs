//! What one partition's owner counts: told from the history that the fold gives, entry by entry.
//!
//! Entries that are read while catching up count too, or what came while a partition had no owner would
//! never be counted. What the former owner had folded and not saved when it died is counted twice: at
//! most what came in one snapshot interval.

use super::{
    Metrics,
    labels::{self, OTHER},
    observed::Owned,
};
use crate::{
    engine::{Effects, Ignored, Record, Run, Saga},
    partition::snapshot::Outline,
};
use dirigent_contracts::{
    history::{Attempted, Happening},
    id::{DefinitionName, JournalSeq, PartitionId, SagaAddress},
    journal::Entry,
    outcome::SagaStatus,
    task::{Direction, Timing},
    time::Timestamp,
    token,
};
use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram},
};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

/// Counts for the owner of a partition, for as long as it owns it.
pub(crate) struct PartitionMeter {
    metrics: Metrics,
    partition: PartitionId,
    owned: Arc<Owned>,
    definitions: HashMap<DefinitionName, OfDefinition>,
    other_definitions: OfDefinition,
    /// By the token that stands in the subject of a reply.
    tasks: HashMap<String, OfTask>,
    other_tasks: OfTask,
    entries: [BoundCounter<u64>; KINDS.len()],
    fold_duration: BoundHistogram<f64>,
    /// The sagas that wait for a person.
    stuck: HashSet<SagaAddress>,
}

impl fmt::Debug for PartitionMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionMeter")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

/// The words for kinds of entries, in the order of [`kind`].
const KINDS: [&str; 6] = ["start", "reply", "event", "timer", "control", "child"];

fn kind(entry: &Entry) -> usize {
    match entry {
        Entry::Start(_) => 0,
        Entry::Reply(_) => 1,
        Entry::Event(_) => 2,
        Entry::Timer(_) => 3,
        Entry::Control(_) => 4,
        Entry::Child(_) => 5,
    }
}

/// Series of one definition.
struct OfDefinition {
    label: KeyValue,
    started: BoundCounter<u64>,
    duration: BoundHistogram<f64>,
    compensations: BoundCounter<u64>,
    compensation_failures: BoundCounter<u64>,
    retries: BoundCounter<u64>,
    incidents: BoundCounter<u64>,
    replies_late: BoundCounter<u64>,
    live: i64,
    stuck: i64,
}

impl OfDefinition {
    fn new(metrics: &Metrics, label: KeyValue) -> Self {
        let labels = std::slice::from_ref(&label);
        Self {
            started: metrics.instruments().sagas_started.bind(labels),
            duration: metrics.instruments().saga_duration.bind(labels),
            compensations: metrics.instruments().compensations.bind(labels),
            compensation_failures: metrics.instruments().compensation_failures.bind(labels),
            retries: metrics.instruments().retries.bind(labels),
            incidents: metrics.instruments().sagas_incidents.bind(labels),
            replies_late: metrics.instruments().replies_late.bind(labels),
            label,
            live: 0,
            stuck: 0,
        }
    }

    fn live(&mut self, metrics: &Metrics, change: i64) {
        self.live += change;
        metrics
            .instruments()
            .sagas_live
            .add(change, std::slice::from_ref(&self.label));
    }

    fn stuck(&mut self, metrics: &Metrics, change: i64) {
        self.stuck += change;
        metrics
            .instruments()
            .sagas_stuck
            .add(change, std::slice::from_ref(&self.label));
    }
}

/// Series of one task.
struct OfTask {
    succeeded: BoundCounter<u64>,
    failed: BoundCounter<u64>,
    timed_out: BoundCounter<u64>,
    transition: BoundHistogram<f64>,
    queue: BoundHistogram<f64>,
    run: BoundHistogram<f64>,
}

impl OfTask {
    fn new(metrics: &Metrics, label: &KeyValue) -> Self {
        let attempts = |outcome| {
            let labels = [label.clone(), KeyValue::new("outcome", outcome)];
            metrics.instruments().attempts.bind(&labels)
        };
        let phase = |phase| {
            let labels = [label.clone(), KeyValue::new("phase", phase)];
            metrics.instruments().attempt_duration.bind(&labels)
        };
        Self {
            succeeded: attempts("succeeded"),
            failed: attempts("failed"),
            timed_out: attempts("timed-out"),
            transition: phase("transition"),
            queue: phase("queue"),
            run: phase("run"),
        }
    }

    /// Parts an attempt, asked for by the entry of `since` and answered by that of `answered`.
    fn part(&self, since: Timestamp, timing: Timing, answered: Timestamp) {
        let run = Duration::from_micros(timing.ran_us);
        let waited = answered.since(timing.asked_at).saturating_sub(run);
        self.transition
            .record(timing.asked_at.since(since).as_secs_f64());
        self.queue.record(waited.as_secs_f64());
        self.run.record(run.as_secs_f64());
    }
}

impl PartitionMeter {
    /// Begins to count for an owner that has just taken the partition over.
    pub(crate) fn new(metrics: Metrics, partition: PartitionId) -> Self {
        let label = labels::partition(partition);
        metrics.instruments().partition_takeovers.add(1, &[label]);
        Self {
            owned: metrics.0.observed.own(partition),
            definitions: HashMap::new(),
            other_definitions: OfDefinition::new(&metrics, labels::definition(OTHER)),
            tasks: HashMap::new(),
            other_tasks: OfTask::new(&metrics, &labels::task(OTHER)),
            entries: KINDS.map(|kind| {
                metrics
                    .instruments()
                    .entries
                    .bind(&[KeyValue::new("kind", kind)])
            }),
            fold_duration: metrics.instruments().fold_duration.bind(&[]),
            stuck: HashSet::new(),
            metrics,
            partition,
        }
    }

    /// What was stored when the owner began: entries up to `folded` stand in the snapshots of `sagas`,
    /// those up to `end` are to be read.
    pub(crate) fn recovered<'a>(
        &mut self,
        sagas: impl Iterator<Item = (&'a SagaAddress, Outline)>,
        folded: JournalSeq,
        end: JournalSeq,
    ) {
        self.owned.set_folded(folded);
        self.owned.set_end(end.0);
        for (address, outline) in sagas {
            let Some(status) = outline.status.filter(|status| !status.is_terminal()) else {
                continue;
            };
            self.change_live(&address.definition, 1);
            if status == SagaStatus::Stuck {
                self.set_stuck(address, true);
            }
        }
    }

    /// All that was stored when the owner began is folded.
    pub(crate) fn caught_up(&self) {
        self.owned.set_caught_up();
        let took = self.owned.age().as_secs_f64();
        self.metrics
            .instruments()
            .partition_recovery
            .record(took, &[]);
    }

    /// An entry was read that cannot be folded.
    pub(crate) fn passed(&self, seq: JournalSeq) {
        self.owned.set_folded(seq);
    }

    /// An entry was folded: the subject it came on, the state it led to, what happened, and how long
    /// that took.
    pub(crate) fn folded(
        &mut self,
        subject: &str,
        record: &Record,
        state: Option<&Saga>,
        effects: &Effects,
        took: Duration,
    ) {
        self.owned.set_folded(record.seq);
        self.fold_duration.record(took.as_secs_f64());
        self.entries[kind(&record.entry)].add(1);
        match effects.ignored {
            // It stands in a snapshot: no duplicate, but read again from the checkpoint on.
            Some(Ignored::Repeated) if !self.owned.is_caught_up() => {}
            Some(why) => {
                let labels = [KeyValue::new("reason", why.as_str())];
                self.metrics.instruments().entries_ignored.add(1, &labels);
            }
            None => {}
        }
        let run = state.and_then(Saga::run);
        for event in &effects.history {
            self.happened(subject, record, run, &event.what);
        }
        if !self.stuck.is_empty() && self.stuck.contains(&record.address) {
            let is_stuck = run.is_some_and(|run| run.status() == SagaStatus::Stuck);
            self.set_stuck(&record.address, is_stuck);
        }
    }

    fn happened(&mut self, subject: &str, record: &Record, run: Option<&Run>, what: &Happening) {
        let definition = &record.address.definition;
        match what {
            Happening::SagaStarted { .. } => {
                self.definition(definition).started.add(1);
                self.change_live(definition, 1);
            }
            Happening::SagaEnded { outcome } => {
                self.change_live(definition, -1);
                let of = self.definition(definition);
                let outcome = KeyValue::new("outcome", outcome.status.as_str());
                let labels = [of.label.clone(), outcome];
                if let Some(run) = run {
                    of.duration
                        .record(record.at.since(run.started_at()).as_secs_f64());
                }
                self.metrics.instruments().sagas_ended.add(1, &labels);
            }
            Happening::Stuck { .. } => {
                self.definition(definition).incidents.add(1);
                self.set_stuck(&record.address, true);
            }
            Happening::CompensationStarted { .. } => {
                self.definition(definition).compensations.add(1);
            }
            Happening::RetryScheduled { .. } => self.definition(definition).retries.add(1),
            Happening::LateReply { .. } => self.definition(definition).replies_late.add(1),
            Happening::TaskSucceeded { command, since, .. } => {
                let Entry::Reply(reply) = &record.entry else {
                    return;
                };
                let of = self.task_of_reply(subject);
                of.succeeded.add(1);
                if let Some(timing) = reply.timing.filter(|_| reply.command == *command) {
                    of.part(*since, timing, record.at);
                }
            }
            Happening::TaskFailed {
                since, direction, ..
            } => {
                if *direction == Direction::Undo {
                    self.definition(definition).compensation_failures.add(1);
                }
                let Entry::Reply(reply) = &record.entry else {
                    return;
                };
                let of = self.task_of_reply(subject);
                of.failed.add(1);
                if let Some(timing) = reply.timing {
                    of.part(*since, timing, record.at);
                }
            }
            Happening::TaskTimedOut { of, direction, .. } => {
                if *direction == Direction::Undo {
                    self.definition(definition).compensation_failures.add(1);
                }
                if let Some(Attempted::Task(task)) = of {
                    self.task(&token::encode(task.as_str())).timed_out.add(1);
                }
            }
            _ => {}
        }
    }

    fn change_live(&mut self, definition: &DefinitionName, change: i64) {
        let metrics = self.metrics.clone();
        self.definition(definition).live(&metrics, change);
    }

    fn set_stuck(&mut self, saga: &SagaAddress, is_stuck: bool) {
        let has_changed = if is_stuck {
            self.stuck.insert(saga.clone())
        } else {
            self.stuck.remove(saga)
        };
        if has_changed {
            let metrics = self.metrics.clone();
            let change = if is_stuck { 1 } else { -1 };
            self.definition(&saga.definition).stuck(&metrics, change);
        }
    }

    fn definition(&mut self, name: &DefinitionName) -> &mut OfDefinition {
        if !self.definitions.contains_key(name) {
            let Some(label) = self.metrics.0.labels.definition(name.as_str()) else {
                return &mut self.other_definitions;
            };
            let of = OfDefinition::new(&self.metrics, label);
            self.definitions.insert(name.clone(), of);
        }
        self.definitions
            .get_mut(name)
            .unwrap_or(&mut self.other_definitions)
    }

    /// The task of a reply is the last token of its subject.
    fn task_of_reply(&mut self, subject: &str) -> &OfTask {
        self.task(subject.rsplit('.').next().unwrap_or_default())
    }

    fn task(&mut self, token: &str) -> &OfTask {
        if !self.tasks.contains_key(token) {
            let name = token::decode(token).ok();
            let label = name.and_then(|name| self.metrics.0.labels.task(&name));
            let Some(label) = label else {
                return &self.other_tasks;
            };
            let of = OfTask::new(&self.metrics, &label);
            self.tasks.insert(token.to_owned(), of);
        }
        self.tasks.get(token).unwrap_or(&self.other_tasks)
    }
}

impl Drop for PartitionMeter {
    /// The next owner counts what lives.
    fn drop(&mut self) {
        let metrics = &self.metrics;
        for of in self
            .definitions
            .values_mut()
            .chain([&mut self.other_definitions])
        {
            let (live, stuck) = (of.live, of.stuck);
            of.live(metrics, -live);
            of.stuck(metrics, -stuck);
        }
        metrics.0.observed.disown(self.partition, &self.owned);
    }
}
