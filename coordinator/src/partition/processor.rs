//! The owner of one partition: reads, folds, publishes, saves.
//!
//! One task, no locks. What it waits for stands in one `select!`: entries, acknowledgements, saves,
//! deadlines, ticks, questions and the signal to stop.

use super::{
    live::{Save, Table},
    messages,
};
use crate::{
    broker::{
        journal::{Delivered, JournalReader},
        objects::Objects,
        publisher::{Outgoing, Published, Publisher},
        snapshots::{SaveError, Snapshots},
    },
    definitions::Definitions,
    engine::{self, Effect, Effects, Record, Saga},
    settings::Settings,
    spans::Spans,
};
use dirigent_contracts::{
    api::SagaSummary,
    error_name,
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::{Entry, Start},
    outcome::{Failure, Outcome, SagaStatus},
    subject::{self, EntryKind, JournalSubject},
    task::TaskResult,
    time::Timestamp,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{sync::Arc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Most effects that may be unacknowledged before the journal is read on: back-pressure.
const MOST_OWED: usize = 8_192;

/// Why a partition's owner gave up; another turn at it begins from the snapshots.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessorError {
    /// Somebody else writes this partition's snapshots.
    #[error("the snapshots of partition {0} are written by another owner")]
    Displaced(PartitionId),
    /// The broker did not do its part.
    #[error("partition {partition}: {message}")]
    Broker {
        /// The partition.
        partition: PartitionId,
        /// What went wrong.
        message: String,
    },
}

/// What a processor works with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) client: async_nats::Client,
    pub(crate) publisher: Publisher,
    pub(crate) snapshots: Snapshots,
    pub(crate) objects: Objects,
    pub(crate) definitions: Definitions,
    pub(crate) spans: Spans,
    pub(crate) settings: Arc<Settings>,
    /// How many partitions the installation has.
    pub(crate) partitions: u16,
}

/// One acknowledgement: the saga and entry that it is for, and what became of the message.
type Ack = BoxFuture<'static, (SagaAddress, JournalSeq, Result<(), Refusal>)>;

/// An effect that the broker will never take.
struct Refusal {
    effect: Effect,
    reason: String,
}

/// One finished write to the bucket.
enum Saved {
    Put(SagaAddress, JournalSeq, u64),
    Removed(SagaAddress),
    Checkpoint(JournalSeq),
}

/// The owner of one partition.
pub(crate) struct Processor {
    partition: PartitionId,
    tools: Tools,
    table: Table,
    acks: FuturesUnordered<Ack>,
    saves: FuturesUnordered<BoxFuture<'static, Result<Saved, SaveError>>>,
    /// Effects of entries that were read while catching up: published once that is done.
    held: Option<Vec<(SagaAddress, JournalSeq, String, Effect)>>,
    checkpoint: JournalSeq,
    is_saving_checkpoint: bool,
}

impl Processor {
    pub(crate) fn new(partition: PartitionId, tools: Tools) -> Self {
        Self {
            partition,
            tools,
            table: Table::default(),
            acks: FuturesUnordered::new(),
            saves: FuturesUnordered::new(),
            held: None,
            checkpoint: JournalSeq(0),
            is_saving_checkpoint: false,
        }
    }

    /// Owns the partition until `stop`, then leaves everything saved.
    ///
    /// The order of commits, per entry: it is stored (the journal) -> folded -> its effects are
    /// published and acknowledged -> the saga's snapshot is written -> the checkpoint moves. So an
    /// effect is never acted on before its cause is stored, and never skipped: whatever is lost
    /// here is folded again from the checkpoint by the next owner.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), ProcessorError> {
        let began = Instant::now();
        let (mut reader, end) = self.recover().await?;
        self.held = (self.table.folded() < end).then(Vec::new);
        let subject = crate::api::live::subject(self.partition);
        let mut questions = self
            .tools
            .client
            .subscribe(subject)
            .await
            .map_err(|error| self.broker(&error))?;
        tracing::info!(
            partition = self.partition.0,
            live = self.table.len(),
            from = self.table.folded().0,
            to = end.0,
            "owning the partition"
        );
        let mut tick = tokio::time::interval(self.tools.settings.snapshot_interval / 4);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.held.is_some() && self.table.folded() >= end {
                self.release_held();
                tracing::info!(
                    partition = self.partition.0,
                    live = self.table.len(),
                    took_ms = began.elapsed().as_millis(),
                    "caught up"
                );
            }
            let deadline = self.table.next_deadline().filter(|_| self.held.is_none());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ack) = self.acks.next(), if !self.acks.is_empty() => self.acknowledged(ack),
                Some(saved) = self.saves.next(), if !self.saves.is_empty() => self.saved(saved)?,
                () = until(deadline), if deadline.is_some() => self.fire_timers(),
                Some(question) = questions.next() => self.answer(question).await,
                delivered = reader.next(), if self.acks.len() < MOST_OWED => {
                    let delivered = delivered.map_err(|error| self.broker(&error))?;
                    self.take(delivered).await;
                }
                _ = tick.tick() => self.save(self.tools.settings.snapshot_interval),
            }
        }
        self.leave().await
    }

    fn broker(&self, error: &dyn std::fmt::Display) -> ProcessorError {
        ProcessorError::Broker {
            partition: self.partition,
            message: error.to_string(),
        }
    }

    /// Loads the snapshots and opens the journal behind the checkpoint. Gives the journal's end.
    async fn recover(&mut self) -> Result<(JournalReader, JournalSeq), ProcessorError> {
        // The checkpoint first: a snapshot that is newer than it is fine, one that is older is not.
        let checkpoint = self.tools.snapshots.checkpoint(self.partition).await;
        self.checkpoint = checkpoint.map_err(|error| self.broker(&error))?;
        self.table.resume_at(self.checkpoint);
        let snapshots = self.tools.snapshots.load(self.partition).await;
        for snapshot in snapshots.map_err(|error| self.broker(&error))? {
            match decode_snapshot(&snapshot.body) {
                Ok(saga) => self.table.load(saga, snapshot.revision),
                Err(error) => {
                    // The journal may still hold the saga; a person must see this either way.
                    tracing::error!(key = snapshot.key, %error, "a snapshot cannot be read");
                }
            }
        }
        let from = JournalSeq(self.checkpoint.0 + 1);
        let reader = self.tools.snapshots.journal(self.partition, from).await;
        let reader = reader.map_err(|error| self.broker(&error))?;
        let end = reader.end();
        Ok((reader, end))
    }

    /// Takes in one entry of the journal.
    async fn take(&mut self, delivered: Delivered) {
        let Some(record) = self.decode(&delivered) else {
            // Nothing to fold, but the position moves.
            let nobody = delivered.seq;
            self.table.pass(nobody);
            return;
        };
        let mut state = self.table.take(&record.address);
        let program = self.program(state.as_ref(), &record).await;
        let effects = engine::fold(&mut state, program.as_deref(), &record);
        self.tools.spans.record(&record, state.as_ref(), &effects);
        self.publish(state, &record, effects);
    }

    /// Reads an entry; what cannot be read is said and kept: it stays in the journal.
    fn decode(&self, delivered: &Delivered) -> Option<Record> {
        let refuse = |reason: &dyn std::fmt::Display| {
            tracing::warn!(
                partition = self.partition.0,
                seq = delivered.seq.0,
                subject = %delivered.subject,
                %reason,
                "an entry of the journal cannot be read"
            );
            let letter = Outgoing::new(subject::dead_letter("journal"), delivered.body.to_vec())
                .with_message_id(format!("journal-{}-{}", self.partition, delivered.seq))
                .with_dead_letter(
                    &delivered.subject,
                    &format!(
                        "{}/{}",
                        subject::journal_stream(self.partition),
                        delivered.seq
                    ),
                    &reason.to_string(),
                );
            drop(self.tools.publisher.publish(letter));
        };
        decode_entry(self.partition, delivered)
            .map_err(|reason| refuse(&reason))
            .ok()
    }

    async fn program(
        &mut self,
        state: Option<&Saga>,
        record: &Record,
    ) -> Option<Arc<engine::Program>> {
        let digest = match (state.and_then(Saga::run), &record.entry) {
            (Some(run), _) => run.digest(),
            (None, Entry::Start(Start { digest, .. })) => digest,
            (None, _) => return None,
        };
        self.tools
            .definitions
            .program(&record.address.definition, digest)
            .await
    }

    /// Sends the effects of an entry on their way, and puts the state back.
    fn publish(&mut self, state: Option<Saga>, record: &Record, effects: Effects) {
        let Record { address, seq, .. } = record;
        if let Some(why) = effects.ignored {
            tracing::debug!(
                saga = %address, seq = seq.0, why = why.as_str(), "the entry changes nothing"
            );
        }
        let changed = effects.ignored.is_none();
        // The id of an announcement names the run and the entry that caused it.
        let run = state
            .as_ref()
            .and_then(Saga::run)
            .map(|run| run.id().to_string());
        let cause = format!("{}.{seq}", run.unwrap_or_default());
        self.table
            .put_back(address, state, *seq, effects.effects.len(), changed);
        for effect in effects.effects {
            match &mut self.held {
                Some(held) => held.push((address.clone(), *seq, cause.clone(), effect)),
                None => self.send(address.clone(), *seq, &cause, effect),
            }
        }
    }

    /// Publishes what was asked for while catching up, but for the commands that were answered since.
    fn release_held(&mut self) {
        for (address, seq, cause, effect) in self.held.take().unwrap_or_default() {
            let is_settled = match &effect {
                Effect::Command { command, .. } => {
                    let run = self.table.state(&address).and_then(Saga::run);
                    !run.is_some_and(|run| run.awaits(command.command))
                }
                _ => false,
            };
            if is_settled {
                self.table.acknowledge(&address, seq);
            } else {
                self.send(address, seq, &cause, effect);
            }
        }
    }

    fn send(&mut self, address: SagaAddress, seq: JournalSeq, cause: &str, effect: Effect) {
        let message = messages::message(self.tools.partitions, &address, cause, &effect);
        let ack: Ack = if let Effect::Store {
            command,
            reply_to,
            request,
        } = effect
        {
            let tools = self.tools.clone();
            async move {
                let result = tools.objects.answer(command, request).await;
                let reply = messages::reply(command, reply_to, result);
                let published = tools.publisher.publish(reply).await;
                if let Published::Refused(reason) = published {
                    tracing::error!(saga = %address, reason, "an answer of the object store is lost");
                }
                (address, seq, Ok(()))
            }
            .boxed()
        } else if let Some(message) = message {
            let published = self.tools.publisher.publish(message);
            async move {
                let result = match published.await {
                    Published::Stored { .. } | Published::AlreadyExists => Ok(()),
                    Published::Refused(reason) => Err(Refusal { effect, reason }),
                };
                (address, seq, result)
            }
            .boxed()
        } else {
            let tools = self.tools.clone();
            async move {
                let result = start_child(&tools, &effect).await;
                (
                    address,
                    seq,
                    result.map_err(|reason| Refusal { effect, reason }),
                )
            }
            .boxed()
        };
        self.acks.push(ack);
    }

    fn acknowledged(
        &mut self,
        (address, seq, result): (SagaAddress, JournalSeq, Result<(), Refusal>),
    ) {
        if let Err(Refusal { effect, reason }) = result {
            tracing::warn!(saga = %address, seq = seq.0, reason, "an effect was refused");
            if let Some(answer) = Self::answer_refusal(&address, &effect, &reason) {
                // What takes the effect's place is owed in its stead.
                let published = self.tools.publisher.publish(answer);
                self.acks.push(
                    async move {
                        if let Published::Refused(reason) = published.await {
                            tracing::error!(saga = %address, reason, "a refusal cannot be told");
                        }
                        (address, seq, Ok(()))
                    }
                    .boxed(),
                );
                return;
            }
        }
        self.table.acknowledge(&address, seq);
    }

    /// What a saga hears instead, when the broker will never take what it asked for.
    fn answer_refusal(address: &SagaAddress, effect: &Effect, reason: &str) -> Option<Outgoing> {
        match effect {
            Effect::Command { command, .. } => {
                let result = TaskResult::Failed {
                    failure: Failure::new(
                        error_name::DATA_LIMIT_EXCEEDED,
                        format!("the command could not be published: {reason}"),
                    ),
                    retryable: false,
                };
                let reply_to = command.reply_to.clone();
                Some(messages::reply(command.command, reply_to, result))
            }
            Effect::StartChild { parent, .. } | Effect::StartItem { parent, .. } => {
                Some(messages::tell_parent(parent, not_started(reason), false))
            }
            _ => {
                tracing::error!(saga = %address, ?effect, reason, "an effect is lost: a person must act");
                None
            }
        }
    }

    fn fire_timers(&mut self) {
        for (due, address) in self.table.take_due(now()) {
            let message = messages::timer(self.partition, &address, due);
            // Not an effect: if it is lost, the next owner finds the deadline in the state again.
            let published = self.tools.publisher.publish(message);
            drop(published);
        }
    }

    /// Writes the snapshots that are due, and the checkpoint if it has moved.
    fn save(&mut self, age: std::time::Duration) {
        for address in self.table.due_for_saving(age, Instant::now()) {
            let snapshots = self.tools.snapshots.clone();
            let key = subject::snapshot_key(self.partition, &address);
            match self.table.save(&address) {
                Some(Save::Put(saga, revision)) => {
                    let applied = saga.applied();
                    let body = encode(saga);
                    self.saves.push(
                        async move {
                            let revision = snapshots.put(&key, body, revision).await?;
                            Ok(Saved::Put(address, applied, revision))
                        }
                        .boxed(),
                    );
                }
                Some(Save::Remove(revision)) => self.saves.push(
                    async move {
                        if revision > 0 {
                            snapshots.remove(&key, revision).await?;
                        }
                        Ok(Saved::Removed(address))
                    }
                    .boxed(),
                ),
                None => {}
            }
        }
        let checkpoint = self.table.checkpoint();
        if self.held.is_none() && checkpoint > self.checkpoint && !self.is_saving_checkpoint {
            self.is_saving_checkpoint = true;
            let (snapshots, partition) = (self.tools.snapshots.clone(), self.partition);
            self.saves.push(
                async move {
                    snapshots.set_checkpoint(partition, checkpoint).await?;
                    Ok(Saved::Checkpoint(checkpoint))
                }
                .boxed(),
            );
        }
    }

    fn saved(&mut self, saved: Result<Saved, SaveError>) -> Result<(), ProcessorError> {
        match saved {
            Ok(Saved::Put(address, applied, revision)) => {
                self.table.saved(&address, applied, revision);
            }
            Ok(Saved::Removed(address)) => self.table.removed(&address),
            Ok(Saved::Checkpoint(checkpoint)) => {
                self.is_saving_checkpoint = false;
                self.checkpoint = checkpoint;
            }
            Err(SaveError::Conflict) => return Err(ProcessorError::Displaced(self.partition)),
            Err(error) => return Err(self.broker(&error)),
        }
        Ok(())
    }

    /// Leaves everything saved, so that the next owner has nothing to fold again.
    async fn leave(mut self) -> Result<(), ProcessorError> {
        let give_up = tokio::time::sleep(self.tools.settings.drain_timeout);
        tokio::pin!(give_up);
        // While catching up nothing was published: the next owner begins where this one did.
        if self.held.is_some() {
            return Ok(());
        }
        loop {
            self.save(std::time::Duration::ZERO);
            let is_done = self.acks.is_empty()
                && self.saves.is_empty()
                && self.table.unsaved() == 0
                && self.checkpoint >= self.table.checkpoint();
            if is_done {
                tracing::info!(
                    partition = self.partition.0,
                    "left the partition, all is saved"
                );
                return Ok(());
            }
            tokio::select! {
                Some(ack) = self.acks.next(), if !self.acks.is_empty() => self.acknowledged(ack),
                Some(saved) = self.saves.next(), if !self.saves.is_empty() => self.saved(saved)?,
                () = &mut give_up => {
                    tracing::warn!(
                        partition = self.partition.0,
                        unsaved = self.table.unsaved(),
                        "left the partition; the next owner folds the rest again"
                    );
                    return Ok(());
                }
            }
        }
    }

    /// Answers which sagas are alive.
    async fn answer(&mut self, question: async_nats::Message) {
        let Some(reply) = question.reply else { return };
        let mut sagas = Vec::new();
        for saga in self.table.states() {
            let Some(run) = saga.run() else { continue };
            if run.outcome().is_some() {
                continue;
            }
            let definition = &saga.address().definition;
            let program = self.tools.definitions.cached(definition, run.digest());
            let detail = match run.status() {
                SagaStatus::Running => engine::description::position(saga, program.as_deref()),
                _ => run.failure().map(ToString::to_string).unwrap_or_default(),
            };
            sagas.push(SagaSummary {
                saga: saga.address().clone(),
                status: run.status(),
                started_at: Some(run.started_at()),
                updated_at: saga.updated_at(),
                detail,
            });
        }
        let body = crate::api::live::answer(&question.payload, sagas);
        if let Err(error) = self.tools.client.publish(reply, body.into()).await {
            tracing::debug!(%error, "a question went unanswered");
        }
    }
}

/// Reads an entry of a journal.
///
/// # Errors
/// Why it cannot be read, for an operator.
pub(crate) fn decode_entry(
    partition: PartitionId,
    delivered: &Delivered,
) -> Result<Record, String> {
    let parsed = JournalSubject::parse(&delivered.subject).map_err(|error| error.to_string())?;
    if parsed.kind == EntryKind::Start && !delivered.is_first_of_subject {
        return Err("a start must expect to be the first of its subject".to_owned());
    }
    let entry = Entry::decode(&parsed.kind, &delivered.body).map_err(|error| error.to_string())?;
    Ok(Record {
        partition,
        seq: delivered.seq,
        at: delivered.at,
        address: parsed.address,
        trace: delivered.trace,
        entry,
    })
}

/// Starts a child, or finds that this very parent has started it before.
async fn start_child(tools: &Tools, effect: &Effect) -> Result<(), String> {
    let Effect::StartChild {
        child,
        input,
        parent,
        trace,
    } = effect
    else {
        return Ok(());
    };
    let Some(digest) = tools.definitions.latest(&child.definition).await else {
        return Err(format!(
            "there is no definition named '{}'",
            child.definition
        ));
    };
    let message = messages::start_child(
        tools.partitions,
        child,
        digest,
        Arc::clone(input),
        parent.clone(),
        None,
        *trace,
    );
    let subject = message.subject().to_owned();
    match tools.publisher.publish(message).await {
        Published::Stored { .. } => Ok(()),
        Published::Refused(reason) => Err(reason),
        Published::AlreadyExists => match tools.snapshots.first_start(&subject).await {
            Some(Start {
                parent: Some(of), ..
            }) if of.command == parent.command => Ok(()),
            _ => Err(format!("the saga {child} was started by somebody else")),
        },
    }
}

fn not_started(reason: &str) -> Outcome {
    Outcome {
        status: SagaStatus::Failed,
        output: None,
        failure: Some(Failure::new(error_name::CHILD_NOT_STARTED, reason)),
    }
}

fn encode(saga: &Saga) -> Vec<u8> {
    let mut body = vec![SNAPSHOT_VERSION];
    // Writing our own types to memory has no way to fail.
    if let Err(error) = rmp_serde::encode::write_named(&mut body, saga) {
        tracing::error!(%error, saga = %saga.address(), "a snapshot cannot be written");
    }
    body
}

/// First byte of a snapshot: the version of its format.
const SNAPSHOT_VERSION: u8 = 1;

pub(crate) fn decode_snapshot(body: &[u8]) -> Result<Saga, String> {
    match body.split_first() {
        Some((&SNAPSHOT_VERSION, body)) => {
            rmp_serde::from_slice(body).map_err(|error| error.to_string())
        }
        Some((version, _)) => Err(format!("unknown version {version}")),
        None => Err("empty".to_owned()),
    }
}

/// The local clock. It decides only when a timer is *published*; the fold goes by the journal's.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }))
}

async fn until(deadline: Option<Timestamp>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep(deadline.since(now())).await;
    }
}
