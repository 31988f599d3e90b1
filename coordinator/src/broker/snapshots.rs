//! What an owner keeps of a partition between two lives: snapshots, the checkpoint, the journal.

use super::{
    BrokerError,
    journal::{Delivered, JournalReader},
    listing,
};
use async_nats::jetstream::{
    Context,
    consumer::DeliverPolicy,
    kv::{CreateErrorKind, Operation, Store, UpdateErrorKind},
};
use bytes::Bytes;
use dirigent_contracts::{
    envelope,
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::Start,
    subject,
};
use std::time::Duration;

/// How long the broker remembers that a snapshot was removed: longer than a displaced owner needs to
/// find out that it is one.
pub(super) const REMOVAL_MARKER: Duration = Duration::from_mins(10);

/// A saga's stored state.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) key: String,
    pub(crate) body: Bytes,
    pub(crate) revision: u64,
}

/// Why a snapshot was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    /// Somebody else has written it since.
    #[error("the snapshot was changed by somebody else")]
    Conflict,
    /// The broker did not do its part.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// The durable side of all partitions.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    context: Context,
    sagas: Store,
    partitions: Store,
}

impl Snapshots {
    pub(super) fn new(context: Context, sagas: Store, partitions: Store) -> Self {
        Self {
            context,
            sagas,
            partitions,
        }
    }

    /// The last entry that needs no folding again; 0 if there is none.
    pub(crate) async fn checkpoint(
        &self,
        partition: PartitionId,
    ) -> Result<JournalSeq, BrokerError> {
        let key = checkpoint_key(partition);
        let body = self.partitions.get(key.as_str()).await;
        let body = body.map_err(|error| BrokerError::request(key.clone(), &error))?;
        let Some(body) = body else {
            return Ok(JournalSeq(0));
        };
        let seq = std::str::from_utf8(&body)
            .ok()
            .and_then(|text| text.parse().ok());
        seq.map(JournalSeq)
            .ok_or(BrokerError::Unreadable { what: key })
    }

    pub(crate) async fn set_checkpoint(
        &self,
        partition: PartitionId,
        seq: JournalSeq,
    ) -> Result<(), BrokerError> {
        let key = checkpoint_key(partition);
        let put = self
            .partitions
            .put(key.as_str(), seq.to_string().into())
            .await;
        put.map(drop)
            .map_err(|error| BrokerError::request(key, &error))
    }

    /// All snapshots of a partition.
    pub(crate) async fn load(&self, partition: PartitionId) -> Result<Vec<Snapshot>, BrokerError> {
        let prefix = format!("$KV.{}.", subject::SAGAS_BUCKET);
        let filter = format!("{prefix}{partition}.>");
        let stream = format!("KV_{}", subject::SAGAS_BUCKET);
        let messages = listing::read(
            &self.context,
            &stream,
            &filter,
            DeliverPolicy::LastPerSubject,
        )
        .await?;
        let snapshots = messages
            .into_iter()
            .filter(|message| !message.is_removal)
            .map(|message| Snapshot {
                key: message
                    .subject
                    .strip_prefix(&prefix)
                    .unwrap_or_default()
                    .to_owned(),
                body: message.body,
                revision: message.seq,
            });
        Ok(snapshots.collect())
    }

    /// One saga's snapshot.
    pub(crate) async fn snapshot(
        &self,
        partition: PartitionId,
        address: &SagaAddress,
    ) -> Result<Option<Bytes>, BrokerError> {
        let key = subject::snapshot_key(partition, address);
        let entry = self.sagas.entry(key.as_str()).await;
        let entry = entry.map_err(|error| BrokerError::request(key, &error))?;
        Ok(entry
            .filter(|entry| entry.operation == Operation::Put)
            .map(|entry| entry.value))
    }

    /// Writes a snapshot over the one of this revision (0: there is none). Gives the new revision.
    pub(crate) async fn put(
        &self,
        key: &str,
        body: Vec<u8>,
        revision: u64,
    ) -> Result<u64, SaveError> {
        if revision == 0 {
            return self
                .sagas
                .create(key, body.into())
                .await
                .map_err(|error| match error.kind() {
                    CreateErrorKind::AlreadyExists => SaveError::Conflict,
                    _ => BrokerError::request(key.to_owned(), &error).into(),
                });
        }
        let updated = self.sagas.update(key, body.into(), revision).await;
        updated.map_err(|error| conflict_or(key, error.kind(), &error))
    }

    /// Removes the snapshot of this revision.
    pub(crate) async fn remove(&self, key: &str, revision: u64) -> Result<(), SaveError> {
        let removed = self
            .sagas
            .purge_expect_revision_with_ttl(key, revision, REMOVAL_MARKER)
            .await;
        removed.map_err(|error| conflict_or(key, error.kind(), &error))
    }

    /// Opens the journal at an entry.
    pub(crate) async fn journal(
        &self,
        partition: PartitionId,
        from: JournalSeq,
    ) -> Result<JournalReader, BrokerError> {
        JournalReader::open(self.context.clone(), partition, from).await
    }

    /// The entry that started a saga, by its subject; `None` if it is not there, or not readable.
    pub(crate) async fn first_start(&self, start: &str) -> Option<Start> {
        let partition = subject::JournalSubject::parse(start).ok()?.partition;
        let stream = self
            .context
            .get_stream_no_info(subject::journal_stream(partition))
            .await
            .ok()?;
        let message = stream.direct_get_first_for_subject(start).await.ok()?;
        envelope::decode(&message.payload).ok()
    }

    /// All entries of one saga that its journal still has, in order.
    pub(crate) async fn saga_entries(
        &self,
        partition: PartitionId,
        address: &SagaAddress,
    ) -> Result<Vec<Delivered>, BrokerError> {
        let stream = subject::journal_stream(partition);
        let filter = subject::saga_journal_filter(partition, address);
        let messages = listing::read(&self.context, &stream, &filter, DeliverPolicy::All).await?;
        let entries = messages.into_iter().map(|message| {
            Delivered::new(
                message.seq,
                message.at,
                message.subject,
                message.headers.as_ref(),
                message.body,
            )
        });
        Ok(entries.collect())
    }
}

fn checkpoint_key(partition: PartitionId) -> String {
    format!("checkpoint.{partition}")
}

fn conflict_or(key: &str, kind: UpdateErrorKind, error: &dyn std::error::Error) -> SaveError {
    match kind {
        UpdateErrorKind::WrongLastRevision => SaveError::Conflict,
        _ => BrokerError::request(key.to_owned(), error).into(),
    }
}
