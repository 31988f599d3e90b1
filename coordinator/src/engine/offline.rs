//! Sagas without a broker and in virtual time: a saga and the items of its distributed Maps, which are
//! sagas too, folded by the same engine. For rehearsals and for tests.

use super::{Effect, Effects, Program, Record, Saga, fold};
use dirigent_contracts::{
    history::HistoryEvent,
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::{Child, Control, Entry, Start, Timer},
    time::Timestamp,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// A saga, its items, and the entries that they have not taken in yet.
#[derive(Debug)]
pub struct Offline<'a> {
    program: &'a Program,
    sagas: BTreeMap<SagaAddress, Option<Saga>>,
    inbox: VecDeque<(SagaAddress, Entry)>,
    now: Timestamp,
    seq: u64,
    last: Option<(SagaAddress, Entry)>,
}

/// What one entry brought.
#[derive(Debug)]
pub struct Step {
    /// The saga that took it in.
    pub saga: SagaAddress,
    /// What happened.
    pub history: Vec<HistoryEvent>,
    /// What is left to be done: all but what passes between a Map and its items.
    pub effects: Vec<Effect>,
}

impl<'a> Offline<'a> {
    /// A world in which nothing has happened yet.
    #[must_use]
    pub fn new(program: &'a Program, now: Timestamp) -> Self {
        Self {
            program,
            sagas: BTreeMap::new(),
            inbox: VecDeque::new(),
            now,
            seq: 0,
            last: None,
        }
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// How many entries were taken in.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.seq
    }

    /// An entry comes, behind those that are waiting.
    pub fn push(&mut self, saga: SagaAddress, entry: Entry) {
        self.inbox.push_back((saga, entry));
    }

    /// Takes in the next entry; if there is none, time is skipped to the next deadline. `None` if
    /// nothing is waited for.
    pub fn step(&mut self) -> Option<Step> {
        let (saga, entry) = match self.inbox.pop_front() {
            Some(next) => next,
            None => self.timer()?,
        };
        self.last = Some((saga.clone(), entry.clone()));
        Some(self.fold(saga, entry))
    }

    /// The last entry is delivered once more. `None` if there was none.
    pub fn repeat(&mut self) -> Option<Step> {
        let (saga, entry) = self.last.clone()?;
        Some(self.fold(saga, entry))
    }

    /// The state that changed last goes through its stored form. Gives the saga and the form's bytes.
    ///
    /// # Errors
    /// If it cannot be stored, or read again.
    pub fn rebuild(&mut self) -> Result<Option<(&SagaAddress, usize)>, String> {
        let changed = self.last.as_ref().map(|(address, _)| address);
        let Some((address, saga)) = changed.and_then(|address| {
            let saga = self.sagas.get_mut(address)?;
            Some((address, saga))
        }) else {
            return Ok(None);
        };
        let stored = rmp_serde::to_vec_named(saga).map_err(|error| error.to_string())?;
        *saga = rmp_serde::from_slice(&stored).map_err(|error| error.to_string())?;
        Ok(Some((address, stored.len())))
    }

    fn timer(&mut self) -> Option<(SagaAddress, Entry)> {
        let due = |saga: &Option<Saga>| saga.as_ref().map(Saga::next_deadline);
        let (due, address) = self
            .sagas
            .iter()
            .filter_map(|(address, saga)| Some((due(saga)?, address)))
            .filter(|(due, _)| *due < Timestamp::NEVER)
            .min()?;
        self.now = self.now.max(due);
        Some((address.clone(), Entry::Timer(Timer { due })))
    }

    fn fold(&mut self, address: SagaAddress, entry: Entry) -> Step {
        self.seq += 1;
        self.now = self.now + Duration::from_millis(1);
        let record = Record {
            partition: PartitionId(0),
            seq: JournalSeq(self.seq),
            at: self.now,
            address: address.clone(),
            trace: None,
            entry,
        };
        let state = self.sagas.entry(address.clone()).or_default();
        let Effects {
            effects, history, ..
        } = fold(state, Some(self.program), &record);
        let effects = effects.into_iter();
        Step {
            saga: address,
            history,
            effects: effects.filter_map(|effect| self.route(effect)).collect(),
        }
    }

    /// Carries what passes between a Map and its items; gives back everything else.
    fn route(&mut self, effect: Effect) -> Option<Effect> {
        match effect {
            Effect::StartItem {
                child,
                digest,
                input,
                parent,
                part,
                limits,
                ..
            } => {
                let start = Start {
                    digest,
                    input,
                    trigger: None,
                    parent: Some(parent),
                    part: Some(part),
                    limits,
                };
                self.push(child, Entry::Start(start));
            }
            Effect::TellParent {
                parent,
                outcome,
                holds,
                past_pivot,
            } => {
                let child = Child {
                    command: parent.command,
                    outcome,
                    holds,
                    past_pivot,
                };
                self.push(parent.saga, Entry::Child(child));
            }
            Effect::UndoItem { child, reason } => {
                self.push(child, Entry::Control(Control::Undo { reason }));
            }
            Effect::ReleaseItem { child } => self.push(child, Entry::Control(Control::Release)),
            other => return Some(other),
        }
        None
    }
}
