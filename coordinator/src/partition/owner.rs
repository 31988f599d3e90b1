//! What the owner of a partition decides: a value without I/O and without a clock.
//!
//! Entries, acknowledgements, finished saves and times go in; [`Action`]s come out. Whoever holds the
//! owner does them: [`super::processor`] on a real broker, the simulation on a model of one.
//!
//! The order of commits, per entry: it is stored (the journal) -> folded -> its effects are published
//! and acknowledged -> the saga's snapshot is written -> the checkpoint moves. So an effect is never
//! acted on before its cause is stored, and never skipped: whatever is lost with an owner is folded
//! again from the checkpoint by the next.

use super::{
    live::{Save, Table},
    messages,
    snapshot::Outline,
};
use crate::{
    broker::publisher::Outgoing,
    containment::{self, Probe},
    engine::{self, Effect, Effects, Program, Record, Saga},
    logs,
    spans::Sampling,
};
use bytes::Bytes;
use dirigent_contracts::{
    error_name,
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::{Child, Entry},
    outcome::{Failure, Outcome, SagaStatus},
    subject,
    task::{Command, Direction, TaskResult},
    time::Timestamp,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// Something that is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Publish a message, and tell how that went ([`Owner::settle`]).
    Publish(Outgoing, Debt),
    /// Start the child of an effect, which needs a look at the world; then settle.
    StartChild(Debt),
    /// Ask the object store what an effect asks, publish the answer, and settle.
    Store(Debt),
    /// Take a command out of its queue, if it is still there, and settle.
    Withdraw(Debt),
    /// Publish a message that nobody waits for: if it is lost, a later one takes its place.
    Announce(Outgoing),
    /// Write a snapshot; then [`Owner::saved`].
    Put {
        saga: SagaAddress,
        key: String,
        body: Bytes,
        applied: JournalSeq,
    },
    /// Remove a snapshot; then [`Owner::removed`].
    Remove { saga: SagaAddress, key: String },
    /// Write the checkpoint; then [`Owner::saved_checkpoint`].
    Checkpoint(JournalSeq),
}

/// An effect that is owed: of which saga, and of which of its entries.
#[derive(Clone, Debug)]
pub(crate) struct Debt {
    pub(crate) saga: SagaAddress,
    seq: JournalSeq,
    /// `None` for what was published in an effect's place.
    pub(crate) effect: Option<Effect>,
}

/// Why an effect will never be done.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The broker will not take it, or what it is for is not ours to ask.
    #[error("{0}")]
    Never(String),
    /// Too many commands wait for the workers of its task.
    #[error("{0}")]
    QueueFull(String),
}

impl Debt {
    /// The command that is owed.
    pub(crate) fn command(&self) -> Option<&Command> {
        match &self.effect {
            Some(Effect::Command { command, .. }) => Some(command),
            _ => None,
        }
    }
}

/// The owner of one partition.
#[derive(Debug)]
pub(crate) struct Owner {
    partition: PartitionId,
    /// How many partitions the installation has.
    partitions: u16,
    table: Table,
    /// The journal's end when it was opened: up to there the owner catches up.
    end: JournalSeq,
    /// Effects of entries that were read while catching up: published once that is done.
    held: Option<Vec<(Debt, String)>>,
    /// Children whose start is not acknowledged, with what they are to be told behind that: a start
    /// that is repeated could else be stored after a request that is for it, and never hear of it.
    starting: HashMap<SagaAddress, Vec<(Debt, String)>>,
    /// What withdraws a command, by its entry: done when all that was asked for before is stored, or it could
    /// overtake the command.
    withdrawing: BTreeMap<JournalSeq, Vec<Debt>>,
    checkpoint: JournalSeq,
    is_saving_checkpoint: bool,
    /// How far the local clock is ahead of the journal's, as far as is known; negative if it is behind.
    clock_ahead: i64,
    sampling: Sampling,
    actions: Vec<Action>,
    probe: Option<Probe>,
}

impl Owner {
    /// The owner as it begins: what is stored up to the checkpoint stands in the snapshots; the
    /// journal is to be handed in from the entry after it.
    pub(crate) fn new(
        partition: PartitionId,
        partitions: u16,
        checkpoint: JournalSeq,
        end: JournalSeq,
    ) -> Self {
        let mut table = Table::default();
        table.resume_at(checkpoint);
        Self {
            partition,
            partitions,
            held: (checkpoint < end).then(Vec::new),
            starting: HashMap::new(),
            withdrawing: BTreeMap::new(),
            table,
            end,
            checkpoint,
            is_saving_checkpoint: false,
            clock_ahead: 0,
            sampling: Sampling::default(),
            actions: Vec::new(),
            probe: None,
        }
    }

    /// Lets messages say which traces are recorded.
    pub(crate) fn with_sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// The same, with a test's hand in it.
    pub(super) fn with_probe(self, probe: Option<Probe>) -> Self {
        Self { probe, ..self }
    }

    /// Takes in a stored snapshot. One that is newer than the checkpoint is fine: its entries are
    /// passed over when they come again.
    ///
    /// # Errors
    /// Why it cannot be read, for an operator.
    pub(crate) fn load(&mut self, key: &str, body: Bytes) -> Result<(), String> {
        let (_, address) = subject::parse_snapshot_key(key).map_err(|error| error.to_string())?;
        self.table.load(address, body, self.end)
    }

    /// What is to be done, in this order.
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// How many sagas are alive.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The last entry that was folded.
    pub(crate) fn folded(&self) -> JournalSeq {
        self.table.folded()
    }

    /// The state of a saga for which something has come since it was saved.
    pub(crate) fn state(&self, address: &SagaAddress) -> Option<&Saga> {
        self.table.state(address)
    }

    /// The state of any saga that is alive.
    pub(crate) fn read(&self, address: &SagaAddress) -> Option<Cow<'_, Saga>> {
        self.table.read(address)
    }

    /// All sagas that are alive, in outline.
    pub(crate) fn outlines(&self) -> impl Iterator<Item = (&SagaAddress, Outline)> {
        self.table.outlines()
    }

    /// Whether it still reads what was stored before it began.
    pub(crate) fn is_catching_up(&self) -> bool {
        self.held.is_some()
    }

    /// Takes in an entry. `now` is the local clock, `since` the time since this owner began; neither
    /// decides what becomes of a saga. Gives what happened; the effects are among the actions.
    ///
    /// # Errors
    /// Why the fold broke off. The saga's state is lost then: [`Owner::set_aside`] must follow.
    pub(crate) fn take(
        &mut self,
        record: &Record,
        program: Option<&Program>,
        now: Timestamp,
        since: Duration,
    ) -> Result<Effects, String> {
        let mut state = self.table.take(&record.address);
        let effects = containment::fold(self.probe, &mut state, program, record)?;
        if self.held.is_none() {
            self.compare_clocks(record, now);
        }
        Ok(self.deliver(state, record, effects, since))
    }

    /// Takes in an entry whose fold broke off, with the state of its saga before it.
    pub(crate) fn set_aside(
        &mut self,
        mut state: Option<Saga>,
        record: &Record,
        why: &str,
        since: Duration,
    ) -> Effects {
        let effects = engine::set_aside(&mut state, why, record);
        self.deliver(state, record, effects, since)
    }

    fn deliver(
        &mut self,
        state: Option<Saga>,
        record: &Record,
        mut effects: Effects,
        since: Duration,
    ) -> Effects {
        let asked = std::mem::take(&mut effects.effects);
        self.file(state, record, asked, effects.ignored.is_none(), since);
        self.catch_up();
        effects
    }

    /// An entry that cannot be read was passed over.
    pub(crate) fn pass(&mut self, seq: JournalSeq) {
        self.table.pass(seq);
        self.catch_up();
    }

    /// Whose program the fold of an entry needs.
    pub(crate) fn digest<'a>(
        &'a mut self,
        record: &'a Record,
    ) -> Option<&'a dirigent_contracts::id::DefinitionDigest> {
        self.table.wake(&record.address);
        let run = self.state(&record.address).and_then(Saga::run);
        match (run, &record.entry) {
            (Some(run), _) => Some(run.digest()),
            (None, Entry::Start(start)) => Some(&start.digest),
            (None, _) => None,
        }
    }

    /// The two clocks are compared with every entry. What an entry took to arrive makes the local
    /// clock seem ahead, so only the least difference counts, until a timer proves to be early.
    fn compare_clocks(&mut self, record: &Record, now: Timestamp) {
        let difference = now.0.saturating_sub(record.at.0);
        let is_early = matches!(&record.entry, Entry::Timer(timer) if timer.due > record.at);
        if difference < self.clock_ahead || is_early {
            self.clock_ahead = difference;
        }
    }

    /// Sends the effects of an entry on their way, and puts the state back.
    fn file(
        &mut self,
        state: Option<Saga>,
        record: &Record,
        effects: Vec<Effect>,
        changed: bool,
        since: Duration,
    ) {
        let Record { address, seq, .. } = record;
        let cause = messages::cause(state.as_ref(), *seq);
        let owed = effects.len();
        self.table
            .put_back(address, state, *seq, owed, changed, since);
        for effect in effects {
            let debt = Debt {
                saga: address.clone(),
                seq: *seq,
                effect: Some(effect),
            };
            match &mut self.held {
                Some(held) => held.push((debt, cause.clone())),
                None => self.send(debt, &cause),
            }
        }
    }

    /// Once all is read: publishes what was asked for meanwhile, but for the commands that were
    /// answered since.
    fn catch_up(&mut self) {
        if self.folded() < self.end {
            return;
        }
        for (debt, cause) in self.held.take().unwrap_or_default() {
            let is_settled = match &debt.effect {
                Some(Effect::Command { command, .. }) => {
                    let run = self.state(&debt.saga).and_then(Saga::run);
                    !run.is_some_and(|run| run.awaits(command.command))
                }
                _ => false,
            };
            if is_settled {
                self.table.acknowledge(&debt.saga, debt.seq);
            } else {
                self.send(debt, &cause);
            }
        }
    }

    fn send(&mut self, debt: Debt, cause: &str) {
        let Some(effect) = &debt.effect else { return };
        match effect {
            Effect::StartChild { child, .. } | Effect::StartItem { child, .. } => {
                self.starting.entry(child.clone()).or_default();
            }
            Effect::Withdraw { .. } if self.table.owes_before(debt.seq) => {
                self.withdrawing.entry(debt.seq).or_default().push(debt);
                return;
            }
            Effect::CancelChild { child, .. }
            | Effect::UndoItem { child, .. }
            | Effect::ReleaseItem { child } => {
                if let Some(waiting) = self.starting.get_mut(child) {
                    waiting.push((debt, cause.to_owned()));
                    return;
                }
            }
            _ => {}
        }
        let message = messages::message(self.partitions, &debt.saga, cause, effect, self.sampling);
        self.actions.push(match (message, effect) {
            (Some(message), _) => Action::Publish(message, debt),
            (None, Effect::Store { .. }) => Action::Store(debt),
            (None, Effect::Withdraw { .. }) => Action::Withdraw(debt),
            (None, _) => Action::StartChild(debt),
        });
    }

    /// Whether a command may be refused because its queue is full. A former owner may have published
    /// those of entries that were there before this one; and what is to be undone must be.
    pub(crate) fn may_refuse(&self, debt: &Debt) -> bool {
        let command = debt.command();
        debt.seq > self.end && command.is_some_and(|it| it.direction == Direction::Do)
    }

    /// What an action owed is done, or will never be, and why.
    pub(crate) fn settle(&mut self, debt: Debt, result: Result<(), Refused>) {
        if let Some(Effect::StartChild { child, .. } | Effect::StartItem { child, .. }) =
            &debt.effect
        {
            for (debt, cause) in self.starting.remove(child).unwrap_or_default() {
                if result.is_ok() {
                    self.send(debt, &cause);
                } else {
                    // Whoever bears that address is not this saga's child.
                    self.table.acknowledge(&debt.saga, debt.seq);
                }
            }
        }
        let Debt { saga, seq, effect } = debt;
        if let Err(refused) = result {
            let what = logs::kind(effect.as_ref());
            let span = logs::span(self.partition, &saga, self.state(&saga));
            span.in_scope(|| match &refused {
                Refused::Never(reason) => {
                    tracing::warn!(seq = seq.0, what, reason, "an effect was refused");
                }
                // There are many of them, and who looks at the queues has said it once.
                Refused::QueueFull(reason) => {
                    tracing::debug!(seq = seq.0, what, reason, "an effect was refused");
                }
            });
            let answer = effect
                .as_ref()
                .and_then(|effect| answer_refusal(effect, &refused));
            match answer {
                // What takes the effect's place is owed in its stead.
                Some(answer) => {
                    let debt = Debt {
                        saga,
                        seq,
                        effect: None,
                    };
                    self.actions.push(Action::Publish(answer, debt));
                    return;
                }
                None => {
                    span.in_scope(|| {
                        tracing::error!(
                            seq = seq.0,
                            what,
                            reason = %refused,
                            "an effect is lost: a person must act"
                        );
                    });
                }
            }
        }
        self.table.acknowledge(&saga, seq);
        while let Some(entry) = self.withdrawing.first_entry()
            && !self.table.owes_before(*entry.key())
        {
            let ready = entry.remove().into_iter().map(Action::Withdraw);
            self.actions.extend(ready);
        }
    }

    /// When the next deadline comes, by the local clock; `None` if there is none, or not yet.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let deadline = self.table.next_deadline().filter(|_| self.held.is_none())?;
        Some(Timestamp(deadline.0.saturating_add(self.clock_ahead)))
    }

    /// Announces the deadlines that have come. The journal's time decides whether they have.
    pub(crate) fn fire_timers(&mut self, now: Timestamp) {
        if self.held.is_some() {
            return;
        }
        let now = Timestamp(now.0.saturating_sub(self.clock_ahead));
        for (due, saga) in self.table.take_due(now) {
            let timer = messages::timer(self.partition, &saga, due, self.folded());
            self.actions.push(Action::Announce(timer));
        }
    }

    /// Writes the snapshots of what changed `age` ago or longer, and the checkpoint if it has moved.
    pub(crate) fn save(&mut self, age: Duration, since: Duration) {
        for (saga, save) in self.table.due_for_saving(age, since, self.checkpoint) {
            let key = subject::snapshot_key(self.partition, &saga);
            match save {
                Save::Put { body, applied } => self.actions.push(Action::Put {
                    saga,
                    key,
                    body,
                    applied,
                }),
                Save::Remove { has_snapshot: true } => {
                    self.actions.push(Action::Remove { saga, key });
                }
                Save::Remove {
                    has_snapshot: false,
                } => self.removed(&saga),
            }
        }
        let checkpoint = self.table.checkpoint();
        if self.held.is_none() && checkpoint > self.checkpoint && !self.is_saving_checkpoint {
            self.is_saving_checkpoint = true;
            self.actions.push(Action::Checkpoint(checkpoint));
        }
    }

    /// A snapshot is written.
    pub(crate) fn saved(&mut self, saga: &SagaAddress, applied: JournalSeq) {
        self.table.saved(saga, applied);
    }

    /// A snapshot is removed.
    pub(crate) fn removed(&mut self, saga: &SagaAddress) {
        self.table.removed(saga);
    }

    /// The checkpoint is written.
    pub(crate) fn saved_checkpoint(&mut self, checkpoint: JournalSeq) {
        self.is_saving_checkpoint = false;
        self.checkpoint = checkpoint;
    }

    /// How many sagas have entries that no snapshot holds.
    pub(crate) fn unsaved(&self) -> usize {
        self.table.unsaved()
    }

    /// Whether the next owner would have nothing to fold again.
    pub(crate) fn is_saved(&self) -> bool {
        self.table.unsaved() == 0 && self.checkpoint >= self.table.checkpoint()
    }
}

/// What a saga hears instead, when what it asked for will never be done.
fn answer_refusal(effect: &Effect, refused: &Refused) -> Option<Outgoing> {
    match effect {
        Effect::Command { command, .. } => {
            let (error, retryable) = match refused {
                Refused::Never(_) => (error_name::DATA_LIMIT_EXCEEDED, false),
                Refused::QueueFull(_) => (error_name::QUEUE_FULL, true),
            };
            let cause = format!("the command could not be published: {refused}");
            let result = TaskResult::Failed {
                failure: Failure::new(error, cause),
                retryable,
            };
            let reply_to = command.reply_to.clone();
            Some(messages::reply(command.command, reply_to, result))
        }
        Effect::StartChild { parent, .. } | Effect::StartItem { parent, .. } => {
            let not_started = Child {
                command: parent.command,
                outcome: Outcome {
                    status: SagaStatus::Failed,
                    output: None,
                    failure: Some(Failure::new(
                        error_name::CHILD_NOT_STARTED,
                        refused.to_string(),
                    )),
                },
                holds: false,
                past_pivot: false,
            };
            Some(messages::tell_parent(parent, not_started))
        }
        _ => None,
    }
}
