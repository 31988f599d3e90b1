//! The sagas of one partition that are alive, in memory, with what is still owed for them.
//!
//! Invariants: a saga is saved only when all effects of its entries are acknowledged; the checkpoint
//! never passes an entry whose effects are not acknowledged or whose state is not saved (unless the
//! saga is over); every saga with a deadline stands in the deadline index.

use crate::engine::Saga;
use dirigent_contracts::{
    id::{JournalSeq, SagaAddress},
    time::Timestamp,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// One saga, with what is owed for it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) state: Option<Saga>,
    /// Whether there is a snapshot of it.
    has_snapshot: bool,
    /// The first entry that no snapshot holds, and when it was folded, since the owner began.
    unsaved: Option<(JournalSeq, Duration)>,
    /// How many effects are not acknowledged.
    owed: usize,
    /// Whether a save or a removal is under way.
    is_saving: bool,
    deadline: Timestamp,
}

/// What is to be written for a saga.
#[derive(Debug)]
pub(super) enum Save<'a> {
    /// Its snapshot.
    Put(&'a Saga),
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
    /// The last entry that was folded.
    folded: JournalSeq,
}

impl Table {
    /// Takes in a snapshot.
    pub(super) fn load(&mut self, saga: Saga) {
        let address = saga.address().clone();
        let deadline = saga.next_deadline();
        if deadline < Timestamp::NEVER {
            self.deadlines.insert((deadline, address.clone()));
        }
        let live = Live {
            state: Some(saga),
            has_snapshot: true,
            unsaved: None,
            owed: 0,
            is_saving: false,
            deadline,
        };
        self.sagas.insert(address, live);
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

    pub(super) fn state(&self, address: &SagaAddress) -> Option<&Saga> {
        self.sagas.get(address)?.state.as_ref()
    }

    pub(super) fn states(&self) -> impl Iterator<Item = &Saga> {
        self.sagas.values().filter_map(|live| live.state.as_ref())
    }

    /// Takes a saga's state out to be folded; [`Table::put_back`] must follow.
    pub(super) fn take(&mut self, address: &SagaAddress) -> Option<Saga> {
        self.sagas
            .get_mut(address)
            .and_then(|live| live.state.take())
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
        let live = self.sagas.entry(address.clone()).or_insert_with(|| Live {
            state: None,
            has_snapshot: false,
            unsaved: None,
            owed: 0,
            is_saving: false,
            deadline: Timestamp::NEVER,
        });
        live.state = state;
        live.owed += owed;
        if changed && live.unsaved.is_none() {
            live.unsaved = Some((seq, since));
            self.unsaved.insert((seq, address.clone()));
        }
        let deadline = live
            .state
            .as_ref()
            .map_or(Timestamp::NEVER, Saga::next_deadline);
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
        let is_over = live.state.as_ref().is_none_or(Saga::is_over);
        if is_over && live.owed == 0 && !live.has_snapshot && !live.is_saving {
            if let Some((seq, _)) = live.unsaved {
                self.unsaved.remove(&(seq, address.clone()));
            }
            self.deadlines.remove(&(live.deadline, address.clone()));
            self.sagas.remove(address);
        }
    }

    /// The sagas that are to be saved: those with an entry older than `age` that no snapshot holds,
    /// and whose effects are all acknowledged. Each is marked as being saved.
    pub(super) fn due_for_saving(&mut self, age: Duration, now: Duration) -> Vec<SagaAddress> {
        let mut due = Vec::new();
        for (_, address) in &self.unsaved {
            let Some(live) = self.sagas.get_mut(address) else {
                continue;
            };
            let Some((_, since)) = live.unsaved else {
                continue;
            };
            let is_over = live.state.as_ref().is_none_or(Saga::is_over);
            if live.owed == 0 && !live.is_saving && (is_over || now.saturating_sub(since) >= age) {
                live.is_saving = true;
                due.push(address.clone());
            }
        }
        due
    }

    /// What is to be written for a saga that is being saved.
    pub(super) fn save(&self, address: &SagaAddress) -> Option<Save<'_>> {
        let live = self.sagas.get(address)?;
        match &live.state {
            Some(saga) if !saga.is_over() => Some(Save::Put(saga)),
            _ => Some(Save::Remove {
                has_snapshot: live.has_snapshot,
            }),
        }
    }

    /// A save succeeded: the snapshot holds all entries up to `applied`.
    pub(super) fn saved(&mut self, address: &SagaAddress, applied: JournalSeq) {
        let Some(live) = self.sagas.get_mut(address) else {
            return;
        };
        live.is_saving = false;
        live.has_snapshot = true;
        if let Some((seq, since)) = live.unsaved.take() {
            self.unsaved.remove(&(seq, address.clone()));
            let newest = live.state.as_ref().map_or(JournalSeq(0), Saga::applied);
            // Entries came while the save was under way: the first of them is not known, but it is
            // later than what was saved.
            if newest > applied || live.state.is_none() {
                let next = JournalSeq(applied.0 + 1);
                live.unsaved = Some((next, since));
                self.unsaved.insert((next, address.clone()));
            }
        }
        self.forget_if_over(address);
    }

    /// A removal succeeded.
    pub(super) fn removed(&mut self, address: &SagaAddress) {
        let Some(live) = self.sagas.get_mut(address) else {
            return;
        };
        live.is_saving = false;
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
