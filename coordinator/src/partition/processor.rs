//! The loop of one partition: what its [`Owner`] decides is done here, on the broker.
//!
//! One task, no locks. What it waits for stands in one `select!`: entries, acknowledgements, saves,
//! deadlines, ticks, questions and the signal to stop.

use super::{
    messages,
    owner::{Action, Debt, Owner},
};
use crate::{
    api::live,
    broker::{
        journal::{Delivered, JournalReader},
        objects::Objects,
        publisher::{Outgoing, Published, Publisher},
        snapshots::{Fence, Loaded, SaveError, Snapshots},
    },
    definitions::Definitions,
    engine::{self, Effect, Program, Record},
    logs::{self, Payload},
    metrics::PartitionMeter,
    settings::Settings,
    spans::Spans,
};
use dirigent_contracts::{
    api::SagaSummary,
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::{Entry, Start},
    outcome::SagaStatus,
    subject::{self, EntryKind, JournalSubject},
    time::Timestamp,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Most effects that may be unacknowledged before the journal is read on: back-pressure.
const MOST_OWED: usize = 8_192;

/// How long the broker rests before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a partition's owner gave up; another turn at it begins from the snapshots.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessorError {
    /// Somebody else writes this partition's snapshots.
    #[error("another has taken over the snapshots of partition {0}")]
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

/// One effect that is settled: done, or never to be, and why.
type Ack = BoxFuture<'static, (Debt, Result<(), String>)>;

/// One finished write to the bucket.
enum Saved {
    Put(SagaAddress, JournalSeq),
    Removed(SagaAddress),
    Checkpoint(JournalSeq),
}

/// A partition's owner at work.
pub(crate) struct Processor {
    partition: PartitionId,
    tools: Tools,
    fence: Fence,
    owner: Owner,
    meter: PartitionMeter,
    acks: FuturesUnordered<Ack>,
    saves: FuturesUnordered<BoxFuture<'static, Result<Saved, SaveError>>>,
    began: Instant,
}

/// Owns a partition until `stop`, then leaves everything saved.
pub(super) async fn own(
    partition: PartitionId,
    tools: Tools,
    stop: CancellationToken,
) -> Result<(), ProcessorError> {
    let began = Instant::now();
    let mut meter = PartitionMeter::new(tools.settings.metrics.clone(), partition);
    let (fence, owner, reader) = recover(partition, &tools).await?;
    meter.recovered(owner.outlines(), owner.folded(), reader.end());
    let processor = Processor {
        partition,
        tools,
        fence,
        owner,
        meter,
        acks: FuturesUnordered::new(),
        saves: FuturesUnordered::new(),
        began,
    };
    processor.run(reader, stop).await
}

/// Loads the snapshots and opens the journal behind the checkpoint.
async fn recover(
    partition: PartitionId,
    tools: &Tools,
) -> Result<(Fence, Owner, JournalReader), ProcessorError> {
    let broker = |error: &dyn std::fmt::Display| ProcessorError::Broker {
        partition,
        message: error.to_string(),
    };
    let fence = tools.snapshots.take_over(partition).await;
    let fence = fence.map_err(|error| broker(&error))?;
    let loaded = tools.snapshots.load(&fence).await;
    let Loaded {
        checkpoint,
        snapshots,
    } = loaded.map_err(|error| broker(&error))?;
    let from = JournalSeq(checkpoint.0 + 1);
    let reader = tools.snapshots.journal(partition, from).await;
    let reader = reader.map_err(|error| broker(&error))?;
    let owner = Owner::new(partition, tools.partitions, checkpoint, reader.end());
    let mut owner = owner.with_sampling(tools.spans.sampling());
    for snapshot in snapshots {
        if let Err(error) = owner.load(&snapshot.key, snapshot.body) {
            // The journal may still hold the saga; a person must see this either way.
            let error = Payload(tools.settings.log_payloads, error);
            tracing::error!(snapshot = snapshot.key, %error, "a snapshot cannot be read");
        }
    }
    tracing::info!(
        partition = partition.0,
        live = owner.len(),
        from = checkpoint.0,
        to = reader.end().0,
        "owning the partition"
    );
    Ok((fence, owner, reader))
}

impl Processor {
    async fn run(
        mut self,
        mut reader: JournalReader,
        stop: CancellationToken,
    ) -> Result<(), ProcessorError> {
        let subject = live::subject(self.partition);
        let mut questions = self
            .tools
            .client
            .subscribe(subject)
            .await
            .map_err(|error| self.broker(&error))?;
        let interval = self.tools.settings.snapshot_interval;
        let mut tick = tokio::time::interval(interval / 4);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut was_catching_up = true;
        loop {
            self.act();
            if was_catching_up && !self.owner.is_catching_up() {
                was_catching_up = false;
                self.meter.caught_up();
                tracing::info!(
                    partition = self.partition.0,
                    live = self.owner.len(),
                    took_ms = self.began.elapsed().as_millis(),
                    "caught up"
                );
            }
            let deadline = self.owner.next_deadline();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((debt, result)) = self.acks.next(), if !self.acks.is_empty() => {
                    self.owner.settle(debt, result);
                }
                Some(saved) = self.saves.next(), if !self.saves.is_empty() => self.saved(saved)?,
                () = until(deadline), if deadline.is_some() => self.owner.fire_timers(now()),
                Some(question) = questions.next() => self.answer(question).await,
                delivered = reader.next(), if self.acks.len() < MOST_OWED => {
                    let delivered = delivered.map_err(|error| self.broker(&error))?;
                    self.take(delivered).await;
                }
                _ = tick.tick() => self.owner.save(interval, self.began.elapsed()),
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

    /// Takes in one entry of the journal.
    async fn take(&mut self, delivered: Delivered) {
        let Some(record) = self.decode(&delivered) else {
            // Nothing to fold, but the position moves.
            self.owner.pass(delivered.seq);
            self.meter.passed(delivered.seq);
            return;
        };
        let program = self.program(&record).await;
        let since = self.began.elapsed();
        let began = Instant::now();
        let effects = self.owner.take(&record, program.as_deref(), now(), since);
        let took = began.elapsed();
        let state = self.owner.state(&record.address);
        let payloads = self.tools.settings.log_payloads;
        logs::tell(&record, state, &effects, payloads);
        self.tools.spans.record(&record, state, &effects);
        let subject = &delivered.subject;
        self.meter.folded(subject, &record, state, &effects, took);
    }

    /// Reads an entry; what cannot be read is said and kept: it stays in the journal.
    fn decode(&self, delivered: &Delivered) -> Option<Record> {
        let refuse = |reason: &dyn std::fmt::Display| {
            tracing::warn!(
                partition = self.partition.0,
                seq = delivered.seq.0,
                subject = %delivered.subject,
                reason = %Payload(self.tools.settings.log_payloads, reason),
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
            self.tools.settings.metrics.dead_letter("journal");
        };
        decode_entry(self.partition, delivered)
            .map_err(|reason| refuse(&reason))
            .ok()
    }

    async fn program(&mut self, record: &Record) -> Option<Arc<Program>> {
        let digest = self.owner.digest(record)?.clone();
        self.tools
            .definitions
            .program(&record.address.definition, &digest)
            .await
    }

    /// Does what the owner has decided.
    fn act(&mut self) {
        for action in self.owner.actions() {
            match action {
                Action::Publish(message, debt) => {
                    let published = self.tools.publisher.publish(message);
                    let ack = async move { (debt, stored(published.await)) };
                    self.acks.push(ack.boxed());
                }
                Action::StartChild(debt) => {
                    let tools = self.tools.clone();
                    let ack = async move {
                        let result = start_child(&tools, debt.effect.as_ref()).await;
                        (debt, result)
                    };
                    self.acks.push(ack.boxed());
                }
                Action::Store(debt) => {
                    let tools = self.tools.clone();
                    let state = self.owner.state(&debt.saga);
                    let span = logs::span(self.partition, &debt.saga, state);
                    let ack = async move {
                        let result = ask_store(&tools, debt.effect.as_ref(), span).await;
                        (debt, result)
                    };
                    self.acks.push(ack.boxed());
                }
                Action::Announce(message) => drop(self.tools.publisher.publish(message)),
                Action::Put {
                    saga,
                    key,
                    body,
                    applied,
                } => {
                    let (snapshots, fence) = (self.tools.snapshots.clone(), self.fence.clone());
                    let save = async move {
                        snapshots.put(&fence, &key, body).await?;
                        Ok(Saved::Put(saga, applied))
                    };
                    self.saves.push(save.boxed());
                }
                Action::Remove { saga, key } => {
                    let (snapshots, fence) = (self.tools.snapshots.clone(), self.fence.clone());
                    let save = async move {
                        snapshots.remove(&fence, &key).await?;
                        Ok(Saved::Removed(saga))
                    };
                    self.saves.push(save.boxed());
                }
                Action::Checkpoint(checkpoint) => {
                    let (snapshots, fence) = (self.tools.snapshots.clone(), self.fence.clone());
                    let save = async move {
                        snapshots.set_checkpoint(&fence, checkpoint).await?;
                        Ok(Saved::Checkpoint(checkpoint))
                    };
                    self.saves.push(save.boxed());
                }
            }
        }
    }

    fn saved(&mut self, saved: Result<Saved, SaveError>) -> Result<(), ProcessorError> {
        match saved {
            Ok(Saved::Put(saga, applied)) => self.owner.saved(&saga, applied),
            Ok(Saved::Removed(saga)) => self.owner.removed(&saga),
            Ok(Saved::Checkpoint(checkpoint)) => self.owner.saved_checkpoint(checkpoint),
            Err(SaveError::Displaced) => return Err(ProcessorError::Displaced(self.partition)),
            Err(error) => return Err(self.broker(&error)),
        }
        Ok(())
    }

    /// Leaves everything saved, so that the next owner has nothing to fold again.
    async fn leave(mut self) -> Result<(), ProcessorError> {
        let give_up = tokio::time::sleep(self.tools.settings.drain_timeout);
        tokio::pin!(give_up);
        // While catching up nothing was published: the next owner begins where this one did.
        if self.owner.is_catching_up() {
            return Ok(());
        }
        loop {
            self.owner.save(Duration::ZERO, self.began.elapsed());
            self.act();
            if self.acks.is_empty() && self.saves.is_empty() && self.owner.is_saved() {
                tracing::info!(
                    partition = self.partition.0,
                    "left the partition, all is saved"
                );
                return Ok(());
            }
            tokio::select! {
                Some((debt, result)) = self.acks.next(), if !self.acks.is_empty() => {
                    self.owner.settle(debt, result);
                }
                Some(saved) = self.saves.next(), if !self.saves.is_empty() => self.saved(saved)?,
                () = &mut give_up => {
                    tracing::warn!(
                        partition = self.partition.0,
                        unsaved = self.owner.unsaved(),
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
        let latest = live::latest(&question.payload, self.owner.outlines());
        let sagas = latest.into_iter().filter_map(|address| {
            let saga = self.owner.read(address)?;
            let run = saga.run()?;
            let program = self
                .tools
                .definitions
                .cached(&address.definition, run.digest());
            let detail = match run.status() {
                SagaStatus::Running => engine::description::position(&saga, program.as_deref()),
                _ => run.failure().map(ToString::to_string).unwrap_or_default(),
            };
            Some(SagaSummary {
                saga: address.clone(),
                status: run.status(),
                started_at: Some(run.started_at()),
                updated_at: saga.updated_at(),
                detail,
            })
        });
        let body = serde_json::to_vec(&sagas.collect::<Vec<_>>()).unwrap_or_default();
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

fn stored(published: Published) -> Result<(), String> {
    match published {
        Published::Stored { .. } | Published::AlreadyExists => Ok(()),
        Published::Refused(reason) => Err(reason),
    }
}

/// Asks the object store, and stores its answer in the journal.
async fn ask_store(
    tools: &Tools,
    effect: Option<&Effect>,
    span: tracing::Span,
) -> Result<(), String> {
    let Some(Effect::Store {
        command,
        reply_to,
        request,
    }) = effect
    else {
        return Ok(());
    };
    let answer = tools.objects.answer(*command, request.clone());
    let answer = answer.instrument(span).await;
    let reply = messages::reply(*command, reply_to.clone(), answer);
    stored(tools.publisher.publish(reply).await)
}

/// Starts a child, or finds that this very parent has started it before.
async fn start_child(tools: &Tools, effect: Option<&Effect>) -> Result<(), String> {
    let Some(Effect::StartChild {
        child,
        input,
        parent,
        trace,
    }) = effect
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
        tools.spans.sampling().attempt(parent.command, *trace),
    );
    let subject = message.subject().to_owned();
    match tools.publisher.publish(message).await {
        Published::Stored { .. } => Ok(()),
        Published::Refused(reason) => Err(reason),
        Published::AlreadyExists => match first_start(tools, &subject).await {
            Some(Start {
                parent: Some(of), ..
            }) if of.command == parent.command => Ok(()),
            _ => Err(format!("the saga {child} was started by somebody else")),
        },
    }
}

/// The start that stands where another was to stand. There is one: a server that does not know it yet
/// is asked again.
async fn first_start(tools: &Tools, subject: &str) -> Option<Start> {
    loop {
        match tools.snapshots.first_start(subject).await {
            Ok(Some(start)) => return start,
            Ok(None) => {}
            Err(error) => tracing::warn!(subject, %error, "a start cannot be read; trying on"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The local clock. It decides only when a timer is *published*; the fold goes by the journal's.
pub(crate) fn now() -> Timestamp {
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
