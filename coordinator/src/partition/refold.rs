//! A saga's state and history, found by folding its entries again, as its owner did.

use super::snapshot;
use crate::{
    broker::{BrokerError, snapshots::Snapshots},
    containment::{self, Probe},
    definitions::Definitions,
    engine::{self, Record, Saga},
};
use dirigent_contracts::{
    history::HistoryEvent,
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::Entry,
};
use std::collections::BTreeMap;

/// What is folded again, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Refold {
    pub(crate) snapshots: Snapshots,
    pub(crate) definitions: Definitions,
    pub(crate) probe: Option<Probe>,
}

impl Refold {
    /// The state of a saga, as its owner has it: its snapshot, if there is one, with what has come since.
    pub(crate) async fn state(
        &self,
        partition: PartitionId,
        address: &SagaAddress,
    ) -> Result<Option<Saga>, BrokerError> {
        let (snapshot, records) = tokio::try_join!(
            self.snapshot(partition, address),
            self.records(partition, address),
        )?;
        Ok(self.fold(snapshot, &records).await.0)
    }

    /// What happened to a saga, as far back as its journal goes. It is what this build makes of the entries;
    /// one that folded them first may have made something else of them.
    pub(crate) async fn history(
        &self,
        partition: PartitionId,
        address: &SagaAddress,
    ) -> Result<(Option<Saga>, Vec<HistoryEvent>), BrokerError> {
        let records = self.records(partition, address).await?;
        let mut kinds = records.iter().map(|record| &record.entry);
        let before = if kinds.any(|entry| matches!(entry, Entry::Start(_))) {
            None
        } else {
            self.snapshot(partition, address).await?
        };
        Ok(self.fold(before, &records).await)
    }

    /// The state of a saga before an entry, as its owner had it: the snapshot, and what came since.
    pub(super) async fn state_before(&self, record: &Record) -> Result<Option<Saga>, BrokerError> {
        let (partition, address) = (record.partition, &record.address);
        let snapshot = self.snapshot(partition, address).await?;
        let mut records = self.records(partition, address).await?;
        records.retain(|earlier| earlier.seq < record.seq);
        Ok(self.fold(snapshot, &records).await.0)
    }

    async fn records(
        &self,
        partition: PartitionId,
        address: &SagaAddress,
    ) -> Result<Vec<Record>, BrokerError> {
        let entries = self.snapshots.saga_entries(partition, address).await?;
        let records = entries.iter();
        Ok(records
            .filter_map(|delivered| super::decode(partition, delivered).ok())
            .collect())
    }

    async fn snapshot(
        &self,
        partition: PartitionId,
        address: &SagaAddress,
    ) -> Result<Option<Saga>, BrokerError> {
        let body = self.snapshots.snapshot(partition, address).await?;
        Ok(body.and_then(|body| snapshot::decode(&body).ok()))
    }

    /// Folds entries that come after a state. One whose fold breaks off is set aside, as its owner did; then the
    /// fold begins anew, so that entries which are sound, nearly all, cost no copy of the state.
    async fn fold(
        &self,
        before: Option<Saga>,
        records: &[Record],
    ) -> (Option<Saga>, Vec<HistoryEvent>) {
        let mut unsound = BTreeMap::new();
        loop {
            match self.fold_but(before.clone(), records, &unsound).await {
                Ok(folded) => return folded,
                Err((seq, why)) => drop(unsound.insert(seq, why)),
            }
        }
    }

    async fn fold_but(
        &self,
        mut state: Option<Saga>,
        records: &[Record],
        unsound: &BTreeMap<JournalSeq, String>,
    ) -> Result<(Option<Saga>, Vec<HistoryEvent>), (JournalSeq, String)> {
        let mut history = Vec::new();
        let applied = state.as_ref().map_or(JournalSeq(0), Saga::applied);
        for record in records.iter().filter(|record| record.seq > applied) {
            if let Some(why) = unsound.get(&record.seq) {
                let effects = engine::set_aside(&mut state, why, record);
                history.extend(effects.history);
                continue;
            }
            let digest = match (state.as_ref().and_then(Saga::run), &record.entry) {
                (Some(run), _) => Some(run.digest()),
                (None, Entry::Start(start)) => Some(&start.digest),
                (None, _) => None,
            };
            let name = &record.address.definition;
            let program = match digest {
                Some(digest) => self.definitions.program(name, digest).await,
                None => None,
            };
            let effects = containment::fold(self.probe, &mut state, program.as_deref(), record);
            history.extend(effects.map_err(|why| (record.seq, why))?.history);
        }
        Ok((state, history))
    }
}
