//! A saga's state and history, found by folding its entries again, as its owner did.

use super::snapshot;
use crate::{
    broker::{BrokerError, snapshots::Snapshots},
    containment::{self, Probe},
    definitions::Definitions,
    engine::{Record, Saga},
};
use dirigent_contracts::{
    history::HistoryEvent,
    id::{PartitionId, SagaAddress},
    journal::Entry,
};

/// What is folded again, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Refold {
    pub(crate) snapshots: Snapshots,
    pub(crate) definitions: Definitions,
    pub(crate) probe: Option<Probe>,
}

impl Refold {
    /// The state of a saga, and what happened to it, as far back as its journal goes.
    ///
    /// The state is that of its owner: its snapshot, if there is one, with what has come since. Another build
    /// than the one that folded the entries first may make something else of them; so the history is what
    /// this one makes of them.
    pub(crate) async fn saga(
        &self,
        partition: PartitionId,
        address: &SagaAddress,
    ) -> Result<(Option<Saga>, Vec<HistoryEvent>), BrokerError> {
        let (records, snapshot) = tokio::join!(
            self.records(partition, address),
            self.snapshot(partition, address),
        );
        let (records, snapshot) = (records?, snapshot?);
        let mut kinds = records.iter().map(|record| &record.entry);
        let has_start = kinds.any(|entry| matches!(entry, Entry::Start(_)));
        if snapshot.is_none() || !has_start {
            return Ok(self.fold(snapshot, &records).await);
        }
        let (_, history) = self.fold(None, &records).await;
        let (state, _) = self.fold(snapshot, &records).await;
        Ok((state, history))
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

    async fn fold(
        &self,
        mut state: Option<Saga>,
        records: &[Record],
    ) -> (Option<Saga>, Vec<HistoryEvent>) {
        let mut history = Vec::new();
        for record in records {
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
            let program = program.as_deref();
            let effects = containment::fold_or_set_aside(self.probe, &mut state, program, record);
            history.extend(effects.history);
        }
        (state, history)
    }
}
