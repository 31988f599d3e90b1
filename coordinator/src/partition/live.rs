//! The sagas of one partition that are alive, in memory, with what is still owed for them.
//!
//! Invariants: a saga is saved only when all effects of its entries are acknowledged; the checkpoint
//! never passes an entry whose effects are not acknowledged or whose state is not saved (unless the
//! saga is over); every saga with a deadline stands in the deadline index. A saga that was saved, and for
//! which nothing has come since, rests: it is held as its snapshot.
//!
//! Of a saga that is over the snapshot is removed, and what is folded again after that finds no saga to fold it
//! into. But a start would find none either, and the events that had come before it would be gone with the
//! snapshot that held them. So the end of a saga whose start lies behind the checkpoint is saved, and removed when the
//! checkpoint has passed it.

use super::snapshot::{self, Outline};
use crate::engine::Saga;
use bytes::Bytes;
use dirigent_contracts::{
    id::{JournalSeq, SagaAddress},
    limit,
    outcome::SagaStatus,
    time::Timestamp,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// How long a large snapshot lives before it is written again: well within the time for which its bucket
/// keeps it.
const RENEWAL: Duration = Duration::from_hours(12);

/// How a saga's state is held.
#[derive(Debug)]
enum Held {
    /// Not at all: nothing is left of it, or it is being folded.
    Nothing,
    /// As the fold needs it.
    Whole(Box<Saga>),
    /// As its snapshot.
    Resting(Outline, Bytes),
}

/// What is being written for a saga.
#[derive(Debug)]
enum Saving {
    Nothing,
    /// This snapshot.
    Put(Bytes),
    /// That it has none any more.
    Removal,
}

/// One saga, with what is owed for it.
#[derive(Debug)]
struct Live {
    held: Held,
    /// Whether there is a snapshot of it.
    has_snapshot: bool,
    /// The entry that started it, or a later one.
    started: Option<JournalSeq>,
    /// The first entry that no snapshot holds, and when it was folded, since the owner began.
    unsaved: Option<(JournalSeq, Duration)>,
    /// How many effects are not acknowledged.
    owed: usize,
    saving: Saving,
    deadline: Timestamp,
    /// When its snapshot is to be written again though nothing has come, since the owner began: if it is so
    /// large that it stands where things are forgotten by age.
    renewal: Option<Duration>,
}

impl Live {
    /// Whether to remove its snapshot would lose what came before its start, though the start may be folded again.
    fn loses_what_came_before(&self, checkpoint: JournalSeq) -> bool {
        self.has_snapshot && self.started.is_some_and(|seq| seq > checkpoint)
    }
}

impl Held {
    fn of(state: Option<Saga>) -> Self {
        state.map_or(Self::Nothing, |saga| Self::Whole(Box::new(saga)))
    }

    /// Whether nothing more can happen. What rests waits for something.
    fn is_over(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Whole(saga) => saga.is_over(),
            Self::Resting(..) => false,
        }
    }
}

/// What is to be written for a saga.
#[derive(Debug)]
pub(super) enum Save {
    /// Its snapshot, which holds all entries up to `applied`.
    Put {
        /// The snapshot.
        body: Bytes,
        /// Position of the last entry in it.
        applied: JournalSeq,
    },
    /// Nothing any more: its snapshot is to be removed, if there is one.
    Remove {
        /// Whether there is one.
        has_snapshot: bool,
    },
}

/// All live sagas of a partition.
#[derive(Debug, Default)]
pub(super) struct Table {
    sagas: HashMap<SagaAddress, Live>,
    /// Sagas with entries that no snapshot holds, by the first of them.
    unsaved: BTreeSet<(JournalSeq, SagaAddress)>,
    /// Entries with effects that are not acknowledged.
    owed: BTreeMap<JournalSeq, usize>,
    deadlines: BTreeSet<(Timestamp, SagaAddress)>,
    /// Sagas whose snapshots are to be written again, by when.
    renewals: BTreeSet<(Duration, SagaAddress)>,
    /// Sagas that are over and were saved so, by their last entries.
    ended: BTreeSet<(JournalSeq, SagaAddress)>,
    /// The last entry that was folded.
    folded: JournalSeq,
}

impl Table {
    /// Takes in a snapshot, and lets it rest. Nothing behind `end` is in it.
    ///
    /// # Errors
    /// Why it cannot be read, for an operator.
    pub(super) fn load(
        &mut self,
        address: SagaAddress,
        body: Bytes,
        end: JournalSeq,
    ) -> Result<(), String> {
        let outline = Outline::read(&body)?;
        let deadline = outline.deadline;
        if deadline < Timestamp::NEVER {
            self.deadlines.insert((deadline, address.clone()));
        }
        // How old one is that stands where things are forgotten by age, nobody knows.
        let is_large = body.len() > limit::INLINE_SNAPSHOT_BYTES;
        let renewal = is_large.then_some(Duration::ZERO);
        if let Some(at) = renewal {
            self.renewals.insert((at, address.clone()));
        }
        let is_over = outline.status.is_some_and(SagaStatus::is_terminal);
        let held = if is_over {
            let saga = snapshot::decode(&body)?;
            self.ended.insert((saga.applied(), address.clone()));
            Held::Whole(Box::new(saga))
        } else {
            Held::Resting(outline, body)
        };
        let live = Live {
            held,
            has_snapshot: true,
            started: outline.status.map(|_| end),
            unsaved: None,
            owed: 0,
            saving: Saving::Nothing,
            deadline,
            renewal,
        };
        self.sagas.insert(address, live);
        Ok(())
    }

    /// Entries up to here are in the snapshots.
    pub(super) fn resume_at(&mut self, checkpoint: JournalSeq) {
        self.folded = checkpoint;
    }

    pub(super) fn len(&self) -> usize {
        self.sagas.len()
    }

    pub(super) fn folded(&self) -> JournalSeq {
        self.folded
    }

    /// The state of a saga that does not rest.
    pub(super) fn state(&self, address: &SagaAddress) -> Option<&Saga> {
        match &self.sagas.get(address)?.held {
            Held::Whole(saga) => Some(saga),
            Held::Nothing | Held::Resting(..) => None,
        }
    }

    /// The state of any saga.
    pub(super) fn read(&self, address: &SagaAddress) -> Option<Cow<'_, Saga>> {
        match &self.sagas.get(address)?.held {
            Held::Nothing => None,
            Held::Whole(saga) => Some(Cow::Borrowed(saga)),
            Held::Resting(_, body) => decode(address, body).map(Cow::Owned),
        }
    }

    /// All sagas that are alive, in outline.
    pub(super) fn outlines(&self) -> impl Iterator<Item = (&SagaAddress, Outline)> {
        self.sagas.iter().filter_map(|(address, live)| {
            let outline = match &live.held {
                Held::Nothing => return None,
                Held::Whole(saga) => Outline::of(saga),
                Held::Resting(outline, _) => *outline,
            };
            Some((address, outline))
        })
    }

    /// Ends a saga's rest: something has come for it.
    pub(super) fn wake(&mut self, address: &SagaAddress) {
        if let Some(live) = self.sagas.get_mut(address)
            && let Held::Resting(_, body) = &live.held
        {
            live.held = Held::of(decode(address, body));
        }
    }

    /// Takes a saga's state out to be folded; [`Table::put_back`] must follow.
    pub(super) fn take(&mut self, address: &SagaAddress) -> Option<Saga> {
        let live = self.sagas.get_mut(address)?;
        match std::mem::replace(&mut live.held, Held::Nothing) {
            Held::Nothing => None,
            Held::Whole(saga) => Some(*saga),
            Held::Resting(_, body) => decode(address, &body),
        }
    }

    /// Puts a folded state back. `owed` effects of the entry are yet to be acknowledged; `changed`
    /// says whether the entry changed anything.
    pub(super) fn put_back(
        &mut self,
        address: &SagaAddress,
        state: Option<Saga>,
        seq: JournalSeq,
        owed: usize,
        changed: bool,
        since: Duration,
    ) {
        self.folded = seq;
        if owed > 0 {
            *self.owed.entry(seq).or_default() += owed;
        }
        if state.is_none() && !self.sagas.contains_key(address) {
            return;
        }
        let deadline = state.as_ref().map_or(Timestamp::NEVER, Saga::next_deadline);
        let has_started = state.as_ref().is_some_and(|saga| saga.run().is_some());
        let live = self.sagas.entry(address.clone()).or_insert_with(|| Live {
            held: Held::Nothing,
            has_snapshot: false,
            started: None,
            unsaved: None,
            owed: 0,
            saving: Saving::Nothing,
            deadline: Timestamp::NEVER,
            renewal: None,
        });
        live.held = match state {
            // Nothing has come of what came: it rests on.
            Some(saga)
                if !changed && live.has_snapshot && live.unsaved.is_none() && !saga.is_over() =>
            {
                Held::Resting(Outline::of(&saga), snapshot::encode(&saga))
            }
            state => Held::of(state),
        };
        live.owed += owed;
        live.started = live.started.or(has_started.then_some(seq));
        if changed && live.unsaved.is_none() {
            live.unsaved = Some((seq, since));
            self.unsaved.insert((seq, address.clone()));
        }
        if live.deadline != deadline {
            self.deadlines.remove(&(live.deadline, address.clone()));
            live.deadline = deadline;
        }
        if deadline < Timestamp::NEVER {
            self.deadlines.insert((deadline, address.clone()));
        }
        self.forget_if_over(address);
    }

    /// An entry that is for no saga was passed over.
    pub(super) fn pass(&mut self, seq: JournalSeq) {
        self.folded = seq;
    }

    /// An effect of an entry was acknowledged.
    pub(super) fn acknowledge(&mut self, address: &SagaAddress, seq: JournalSeq) {
        if let Some(owed) = self.owed.get_mut(&seq) {
            *owed -= 1;
            if *owed == 0 {
                self.owed.remove(&seq);
            }
        }
        if let Some(live) = self.sagas.get_mut(address) {
            live.owed = live.owed.saturating_sub(1);
            self.forget_if_over(address);
        }
    }

    /// A saga that is over, owes nothing, and has no snapshot is forgotten.
    fn forget_if_over(&mut self, address: &SagaAddress) {
        let Some(live) = self.sagas.get(address) else {
            return;
        };
        let is_saving = !matches!(live.saving, Saving::Nothing);
        if live.held.is_over() && live.owed == 0 && !live.has_snapshot && !is_saving {
            if let Some((seq, _)) = live.unsaved {
                self.unsaved.remove(&(seq, address.clone()));
            }
            self.deadlines.remove(&(live.deadline, address.clone()));
            self.renew_at(address, None);
            self.sagas.remove(address);
        }
    }

    /// The sagas that are to be saved: those with an entry older than `age` that no snapshot holds,
    /// and whose effects are all acknowledged. With what is to be written for each. `checkpoint` is the one that is
    /// stored.
    pub(super) fn due_for_saving(
        &mut self,
        age: Duration,
        now: Duration,
        checkpoint: JournalSeq,
    ) -> Vec<(SagaAddress, Save)> {
        let mut due = Vec::new();
        let mut large = Vec::new();
        for (_, address) in &self.unsaved {
            let Some(live) = self.sagas.get_mut(address) else {
                continue;
            };
            let Some((_, since)) = live.unsaved else {
                continue;
            };
            let is_over = live.held.is_over();
            let is_due = is_over || now.saturating_sub(since) >= age;
            if live.owed > 0 || !matches!(live.saving, Saving::Nothing) || !is_due {
                continue;
            }
            let save = match &live.held {
                Held::Whole(saga) if !is_over || live.loses_what_came_before(checkpoint) => {
                    let body = snapshot::encode(saga);
                    live.saving = Saving::Put(body.clone());
                    if body.len() > limit::INLINE_SNAPSHOT_BYTES || live.renewal.is_some() {
                        large.push((address.clone(), body.len()));
                    }
                    let applied = saga.applied();
                    Save::Put { body, applied }
                }
                _ => {
                    live.saving = Saving::Removal;
                    let has_snapshot = live.has_snapshot;
                    Save::Remove { has_snapshot }
                }
            };
            due.push((address.clone(), save));
        }
        for (address, bytes) in large {
            let is_large = bytes > limit::INLINE_SNAPSHOT_BYTES;
            self.renew_at(&address, is_large.then_some(now + RENEWAL));
        }
        due.extend(self.due_for_renewal(now));
        while let Some((applied, _)) = self.ended.first()
            && *applied <= checkpoint
            && let Some((_, address)) = self.ended.pop_first()
        {
            if let Some(live) = self.sagas.get_mut(&address)
                && live.held.is_over()
                && live.unsaved.is_none()
            {
                live.saving = Saving::Removal;
                due.push((address, Save::Remove { has_snapshot: true }));
            }
        }
        due
    }

    /// The large snapshots that are to be written again, as they are.
    fn due_for_renewal(&mut self, now: Duration) -> Vec<(SagaAddress, Save)> {
        let mut due = Vec::new();
        while let Some((at, address)) = self.renewals.first().cloned() {
            if at > now {
                break;
            }
            self.renew_at(&address, Some(now + RENEWAL));
            let Some(live) = self.sagas.get_mut(&address) else {
                continue;
            };
            // One for which something has come is written anyhow.
            if let (Held::Resting(_, body), Saving::Nothing) = (&live.held, &live.saving)
                && let Some(saga) = decode(&address, body)
            {
                let (body, applied) = (body.clone(), saga.applied());
                live.saving = Saving::Put(body.clone());
                due.push((address, Save::Put { body, applied }));
            }
        }
        due
    }

    fn renew_at(&mut self, address: &SagaAddress, renewal: Option<Duration>) {
        let Some(live) = self.sagas.get_mut(address) else {
            return;
        };
        if let Some(at) = std::mem::replace(&mut live.renewal, renewal) {
            self.renewals.remove(&(at, address.clone()));
        }
        if let Some(at) = renewal {
            self.renewals.insert((at, address.clone()));
        }
    }

    /// A save succeeded: the snapshot holds all entries up to `applied`.
    pub(super) fn saved(&mut self, address: &SagaAddress, applied: JournalSeq) {
        let Some(live) = self.sagas.get_mut(address) else {
            return;
        };
        live.has_snapshot = true;
        let saving = std::mem::replace(&mut live.saving, Saving::Nothing);
        if let Some((seq, since)) = live.unsaved.take() {
            self.unsaved.remove(&(seq, address.clone()));
            match (&live.held, saving) {
                (Held::Whole(saga), Saving::Put(_))
                    if saga.applied() == applied && saga.is_over() =>
                {
                    self.ended.insert((applied, address.clone()));
                }
                (Held::Whole(saga), Saving::Put(body)) if saga.applied() == applied => {
                    live.held = Held::Resting(Outline::of(saga), body);
                }
                // Entries came while the save was under way: the first of them is not known, but it is
                // later than what was saved.
                _ => {
                    let next = JournalSeq(applied.0 + 1);
                    live.unsaved = Some((next, since));
                    self.unsaved.insert((next, address.clone()));
                }
            }
        }
        self.forget_if_over(address);
    }

    /// A removal succeeded.
    pub(super) fn removed(&mut self, address: &SagaAddress) {
        let Some(live) = self.sagas.get_mut(address) else {
            return;
        };
        live.saving = Saving::Nothing;
        live.has_snapshot = false;
        self.forget_if_over(address);
    }

    /// Up to where everything is done: folded, acknowledged, and saved where it has to be.
    pub(super) fn checkpoint(&self) -> JournalSeq {
        let before = |seq: JournalSeq| JournalSeq(seq.0.saturating_sub(1));
        let unsaved = self.unsaved.first().map(|(seq, _)| before(*seq));
        let owed = self.owed.keys().next().map(|seq| before(*seq));
        [Some(self.folded), unsaved, owed]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.folded)
    }

    /// Whether an effect of an entry before this one is not acknowledged.
    pub(super) fn owes_before(&self, seq: JournalSeq) -> bool {
        self.owed.keys().next().is_some_and(|first| *first < seq)
    }

    /// How many sagas have entries that no snapshot holds.
    pub(super) fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// The earliest deadline, if there is one.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes the deadlines that have come out of the index. Each comes back when the saga is folded.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<(Timestamp, SagaAddress)> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.deadlines.first() {
            if *at > now {
                break;
            }
            due.extend(self.deadlines.pop_first());
        }
        due
    }
}

/// Reads what rests. It was outlined when it was taken in, so only its state can be unreadable; then the
/// journal may still hold the saga, and a person must see this.
fn decode(address: &SagaAddress, body: &[u8]) -> Option<Saga> {
    snapshot::decode(body)
        // Why not might quote what stands in it.
        .inspect_err(|_| {
            tracing::error!(
                definition = %address.definition,
                key = %address.key,
                "a snapshot cannot be read"
            );
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Record, fold};
    use dirigent_contracts::{
        id::PartitionId,
        journal::{Entry, EventEntry},
    };
    use std::sync::Arc;

    /// The snapshot of a saga that holds so many bytes which no compression makes fewer.
    fn snapshot_of(bytes: usize) -> (SagaAddress, Bytes) {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: String = (0..bytes).map(|_| random.alphanumeric()).collect();
        let address = SagaAddress {
            definition: "test".parse().unwrap(),
            key: "k".parse().unwrap(),
        };
        let record = Record {
            partition: PartitionId(0),
            seq: JournalSeq(7),
            at: Timestamp(1),
            address: address.clone(),
            trace: None,
            entry: Entry::Event(EventEntry {
                name: "early".to_owned(),
                id: "e-1".to_owned(),
                data: Arc::new(noise.into()),
            }),
        };
        let mut saga = None;
        fold(&mut saga, None, &record);
        (address, snapshot::encode(&saga.unwrap()))
    }

    #[test]
    fn a_large_snapshot_is_written_again_after_a_takeover_and_from_time_to_time() {
        let (address, body) = snapshot_of(1_000_000);
        let mut table = Table::default();
        table
            .load(address.clone(), body.clone(), JournalSeq(7))
            .unwrap();
        let age = Duration::from_secs(1);
        for (now, is_due) in [
            (Duration::ZERO, true),
            (Duration::ZERO, false),
            (age, false),
            (RENEWAL, true),
            (RENEWAL + age, false),
            (RENEWAL * 2, true),
        ] {
            let due = table.due_for_saving(age, now, JournalSeq(7));
            assert_eq!(due.len(), usize::from(is_due), "{now:?}");
            for (_, save) in due {
                assert!(matches!(
                    save,
                    Save::Put { body: again, applied: JournalSeq(7) } if again == body
                ));
                table.saved(&address, JournalSeq(7));
            }
        }
        // One that is being written is not written a second time.
        assert_eq!(
            table.due_for_saving(age, RENEWAL * 3, JournalSeq(7)).len(),
            1
        );
        assert!(
            table
                .due_for_saving(age, RENEWAL * 4, JournalSeq(7))
                .is_empty()
        );
    }

    #[test]
    fn a_saga_rests_on_when_nothing_has_come_of_what_came() {
        let (address, body) = snapshot_of(1_000_000);
        let mut table = Table::default();
        table.load(address.clone(), body, JournalSeq(7)).unwrap();
        let age = Duration::from_secs(1);
        assert_eq!(
            table
                .due_for_saving(age, Duration::ZERO, JournalSeq(7))
                .len(),
            1
        );
        table.saved(&address, JournalSeq(7));
        table.wake(&address);
        let saga = table.take(&address);
        table.put_back(&address, saga, JournalSeq(8), 0, false, age);
        assert!(table.state(&address).is_none());
        assert_eq!(table.due_for_saving(age, RENEWAL, JournalSeq(7)).len(), 1);
    }

    #[test]
    fn a_snapshot_that_is_kept_for_ever_is_not_written_again() {
        let (address, body) = snapshot_of(1_000);
        let mut table = Table::default();
        table.load(address, body, JournalSeq(7)).unwrap();
        let due = table.due_for_saving(Duration::from_secs(1), RENEWAL * 9, JournalSeq(7));
        assert!(due.is_empty());
    }
}
