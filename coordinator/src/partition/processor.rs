//! The loop of one partition: what its [`Owner`] decides is done here, on the broker.
//!
//! One task, no locks. What it waits for stands in one `select!`: entries, acknowledgements, saves,
//! deadlines, ticks, questions and the signal to stop.

use super::{
    clock::Clock,
    errand::{ask_store, start_child, stored, withdraw},
    owner::{Action, Debt, Owner, Refused},
    refold::Refold,
};
use crate::{
    admission::Admission,
    api::live,
    broker::{
        installation::Installation,
        journal::{Delivered, JournalReader},
        letters::DeadLetter,
        objects::Objects,
        publisher::{IfFull, Outgoing, Publisher},
        snapshots::{Fence, Loaded, SaveError, Snapshots},
    },
    definitions::Definitions,
    engine::{self, Effects, Program, Record},
    logs::{self, Payload},
    metrics::PartitionMeter,
    settings::Settings,
    spans::Spans,
};
use async_nats::jetstream::Context;
use dirigent_contracts::{
    api::SagaSummary,
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::Entry,
    letter::Letter,
    outcome::SagaStatus,
    subject::{self, EntryKind, JournalSubject},
    time::Timestamp,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Most effects that may be unacknowledged before the journal is read on: back-pressure.
const MOST_OWED: usize = 8_192;
/// Most entries that are folded before anything else gets its turn.
const AT_ONCE: usize = 32;

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
    pub(crate) context: Context,
    pub(crate) publisher: Publisher,
    pub(crate) snapshots: Snapshots,
    pub(crate) objects: Objects,
    pub(crate) definitions: Definitions,
    pub(crate) installation: Installation,
    pub(crate) refold: Refold,
    pub(crate) spans: Spans,
    pub(crate) settings: Arc<Settings>,
    pub(crate) admission: Admission,
    /// How many partitions the installation has.
    pub(crate) partitions: u16,
}

/// One effect that is settled: done, or never to be, and why.
type Settled = (Debt, Result<(), Refused>);

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
    /// What was published is heard of here.
    settled: mpsc::UnboundedReceiver<Settled>,
    settles: mpsc::UnboundedSender<Settled>,
    /// How much was published and is not settled.
    published: usize,
    /// Effects that take more than a message.
    errands: FuturesUnordered<BoxFuture<'static, Settled>>,
    saves: FuturesUnordered<BoxFuture<'static, Result<Saved, SaveError>>>,
    began: Instant,
    clock: Clock,
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
    let (settles, settled) = mpsc::unbounded_channel();
    let processor = Processor {
        partition,
        tools,
        fence,
        owner,
        meter,
        settled,
        settles,
        published: 0,
        errands: FuturesUnordered::new(),
        saves: FuturesUnordered::new(),
        began,
        clock: Clock::new(now(), Instant::now()),
    };
    let admission = processor.tools.admission.clone();
    let left = processor.run(reader, stop).await;
    admission.set_load(partition, 0);
    left
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
    let mut owner = Owner::new(partition, tools.partitions, checkpoint, reader.end())
        .with_probe(tools.settings.probe)
        .with_sampling(tools.spans.sampling());
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
            let load = reader.behind() + self.owed();
            self.tools.admission.set_load(self.partition, load);
            let deadline = self.owner.next_deadline();
            let wait = deadline.map(|deadline| deadline.since(self.now()));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(settled) = self.settled.recv(), if self.published > 0 => self.settle(settled),
                Some((debt, result)) = self.errands.next(), if !self.errands.is_empty() => {
                    self.owner.settle(debt, result);
                }
                Some(saved) = self.saves.next(), if !self.saves.is_empty() => self.saved(saved)?,
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    let now = self.now();
                    self.owner.fire_timers(now);
                }
                Some(question) = questions.next() => self.answer(question).await,
                delivered = reader.next(), if self.owed() < MOST_OWED => {
                    let delivered = delivered.map_err(|error| self.broker(&error))?;
                    self.take(delivered).await?;
                    // What has come already needs no further look at everything else.
                    for _ in 1..AT_ONCE {
                        let Some(delivered) = reader.ready() else { break };
                        self.act();
                        self.take(delivered).await?;
                    }
                }
                _ = tick.tick() => self.owner.save(interval, self.began.elapsed()),
            }
        }
        self.leave().await
    }

    /// How many effects are not settled.
    fn owed(&self) -> usize {
        self.published + self.errands.len()
    }

    /// Takes in what became of a message, and of those that are known already.
    fn settle(&mut self, settled: Settled) {
        let mut next = Some(settled);
        while let Some((debt, result)) = next {
            self.published -= 1;
            self.owner.settle(debt, result);
            next = self.settled.try_recv().ok();
        }
    }

    fn broker(&self, error: &dyn std::fmt::Display) -> ProcessorError {
        ProcessorError::Broker {
            partition: self.partition,
            message: error.to_string(),
        }
    }

    fn now(&mut self) -> Timestamp {
        self.clock.read(now(), Instant::now())
    }

    /// Takes in one entry of the journal.
    async fn take(&mut self, delivered: Delivered) -> Result<(), ProcessorError> {
        let Some(record) = self.decode(&delivered) else {
            // Nothing to fold, but the position moves.
            self.owner.pass(delivered.seq);
            self.meter.passed(delivered.seq);
            return Ok(());
        };
        let program = self.program(&record).await;
        let since = self.began.elapsed();
        let (now, began) = (self.now(), Instant::now());
        let effects = self.owner.take(&record, program.as_deref(), now, since);
        let took = began.elapsed();
        let effects = match effects {
            Ok(effects) => effects,
            Err(why) => self.set_aside(&record, &why, since).await?,
        };
        let state = self.owner.state(&record.address);
        let payloads = self.tools.settings.log_payloads;
        logs::tell(&record, state, &effects, payloads);
        self.tools.spans.record(&record, state, &effects);
        let subject = &delivered.subject;
        self.meter.folded(subject, &record, state, &effects, took);
        if let Entry::Reply(reply) = &record.entry
            && reply.is_of_worker()
            && effects.ignored.is_none()
            && !self.owner.is_catching_up()
            && let Some(task) = subject.rsplit('.').next()
        {
            self.tools.admission.queue(task).answered();
        }
        Ok(())
    }

    /// The fold of an entry broke off half-way through its saga's state. Until then the saga was as its
    /// snapshot and its entries say; it goes on as an incident, and all others as if nothing had happened.
    async fn set_aside(
        &mut self,
        record: &Record,
        why: &str,
        since: Duration,
    ) -> Result<Effects, ProcessorError> {
        tracing::error!(
            partition = self.partition.0,
            seq = record.seq.0,
            definition = %record.address.definition,
            key = %record.address.key,
            reason = %Payload(self.tools.settings.log_payloads, why),
            "an entry cannot be folded: the saga waits for a person, and a build that can"
        );
        let before = self.tools.refold.state_before(record).await;
        let before = before.map_err(|error| self.broker(&error))?;
        Ok(self.owner.set_aside(before, record, why, since))
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
            let stream = subject::journal_stream(self.partition);
            let letter = DeadLetter {
                kind: "journal",
                id: format!("journal-{}-{}", self.partition, delivered.seq),
                letter: Letter {
                    subject: &delivered.subject,
                    source: &format!("{stream}/{}", delivered.seq),
                    reason: &reason.to_string(),
                },
                headers: Vec::new(),
                body: delivered.body.to_vec(),
            };
            drop(letter.keep(&self.tools.publisher));
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

    /// Does what the owner has decided, and what it decides because of that.
    fn act(&mut self) {
        loop {
            let actions = self.owner.actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Publish(message, debt) => self.publish(message, debt),
            Action::StartChild(debt) => {
                let tools = self.tools.clone();
                let errand = async move {
                    let result = start_child(&tools, debt.effect.as_ref()).await;
                    (debt, result)
                };
                self.errands.push(errand.boxed());
            }
            Action::Store(debt) => {
                let tools = self.tools.clone();
                let state = self.owner.state(&debt.saga);
                let span = logs::span(self.partition, &debt.saga, state);
                let errand = async move {
                    let result = ask_store(&tools, debt.effect.as_ref(), span).await;
                    (debt, result)
                };
                self.errands.push(errand.boxed());
            }
            Action::Withdraw(debt) => {
                let tools = self.tools.clone();
                let errand = async move {
                    withdraw(&tools, debt.effect.as_ref()).await;
                    (debt, Ok(()))
                };
                self.errands.push(errand.boxed());
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

    /// Publishes what is owed. A command for which its queue has no room is refused instead.
    fn publish(&mut self, message: Outgoing, debt: Debt) {
        let may_refuse = self.owner.may_refuse(&debt);
        if debt.command().is_some()
            && let Some(task) = subject::command_task(message.subject())
        {
            let queue = self.tools.admission.queue(task);
            if may_refuse && !queue.has_room() {
                let instruments = self.tools.settings.metrics.instruments();
                instruments.commands_refused.add(1, &[]);
                let most = queue.limit();
                let reason = format!("{most} commands wait already, the most that may");
                self.owner.settle(debt, Err(Refused::QueueFull(reason)));
                return;
            }
            queue.asked();
        }
        let if_full = if may_refuse {
            IfFull::Refuse
        } else {
            IfFull::Repeat
        };
        let settles = self.settles.clone();
        self.published += 1;
        self.tools
            .publisher
            .publish_then(message, if_full, move |published| {
                // Nobody hears it any more if the partition was left meanwhile.
                let _ = settles.send((debt, stored(published)));
            });
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
            if self.owed() == 0 && self.saves.is_empty() && self.owner.is_saved() {
                tracing::info!(
                    partition = self.partition.0,
                    "left the partition, all is saved"
                );
                return Ok(());
            }
            tokio::select! {
                Some(settled) = self.settled.recv(), if self.published > 0 => self.settle(settled),
                Some((debt, result)) = self.errands.next(), if !self.errands.is_empty() => {
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

/// The local clock as it stands.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }))
}
