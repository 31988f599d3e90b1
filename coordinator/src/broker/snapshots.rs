//! What an owner keeps of a partition between two lives: snapshots, the checkpoint, the journal.

use super::{
    BrokerError,
    journal::{Delivered, JournalReader},
    listing,
};
use crate::metrics::Metrics;
use async_nats::{
    HeaderMap,
    jetstream::{
        Context,
        consumer::DeliverPolicy,
        context::{PublishError, PublishErrorKind},
        kv::{Operation, Store},
        stream::DirectGetErrorKind,
    },
};
use bytes::Bytes;
use dirigent_contracts::{
    envelope, header,
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::Start,
    subject,
};
use opentelemetry::KeyValue;
use std::time::{Duration, Instant};

/// How long the broker remembers that a snapshot was removed: longer than a displaced owner needs to
/// find out that it is one.
pub(super) const REMOVAL_MARKER: Duration = Duration::from_mins(10);

/// How often a reader that is behind is asked again, and after which pause.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// A saga's stored state.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) key: String,
    pub(crate) body: Bytes,
}

/// What stands in the bucket of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The last entry that needs no folding again; 0 if there is none.
    pub(crate) checkpoint: JournalSeq,
    pub(crate) snapshots: Vec<Snapshot>,
}

/// What tells an owner's writes from those of an earlier one: the revision of its name in the bucket.
///
/// The broker takes a write only while that is still the last word on who owns the partition. So one
/// that was displaced without noticing, or that stood still meanwhile, changes nothing any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fence {
    partition: PartitionId,
    revision: u64,
}

/// Why a snapshot was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    /// Somebody else has taken over.
    #[error("another owner has taken over the partition")]
    Displaced,
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
    metrics: Metrics,
}

impl Snapshots {
    pub(super) fn new(context: Context, sagas: Store, partitions: Store, metrics: Metrics) -> Self {
        Self {
            context,
            sagas,
            partitions,
            metrics,
        }
    }

    /// Makes the caller the only one who may write a partition's snapshots and checkpoint.
    pub(crate) async fn take_over(&self, partition: PartitionId) -> Result<Fence, BrokerError> {
        let key = owner_key(partition);
        let mut revision = 0;
        // Twice, because a replicated stream compares a write with what it has applied, not with what
        // is on its way. Whatever was let in before the first was applied comes before the second.
        for _ in 0..2 {
            let put = self.sagas.put(key.as_str(), Bytes::new()).await;
            revision = put.map_err(|error| BrokerError::request(key.clone(), &error))?;
        }
        Ok(Fence {
            partition,
            revision,
        })
    }

    /// The checkpoint and all snapshots of a partition, as its former owners left them.
    pub(crate) async fn load(&self, fence: Fence) -> Result<Loaded, BrokerError> {
        let Fence { partition, .. } = fence;
        let prefix = format!("$KV.{}.", subject::SAGAS_BUCKET);
        let filter = format!("{prefix}{partition}.>");
        let stream = format!("KV_{}", subject::SAGAS_BUCKET);
        for _ in 0..LOOKS {
            let mut is_current = false;
            let mut checkpoint = None;
            let mut snapshots = Vec::new();
            let policy = DeliverPolicy::LastPerSubject;
            listing::for_each(&self.context, &stream, &filter, policy, |message| {
                is_current |= message.seq >= fence.revision;
                let key = message.subject.strip_prefix(&prefix).unwrap_or_default();
                if key == subject::checkpoint_key(partition) {
                    checkpoint = Some(read_checkpoint(key, &message.body)?);
                } else if key != owner_key(partition) && !message.is_removal {
                    snapshots.push(Snapshot {
                        key: key.to_owned(),
                        // A copy: what comes over the wire would keep the whole of its buffer in memory.
                        body: Bytes::copy_from_slice(&message.body),
                    });
                }
                Ok(())
            })
            .await?;
            // A replica that is behind would give old snapshots, and lack new ones.
            if !is_current {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let checkpoint = match checkpoint {
                Some(checkpoint) => checkpoint,
                None => self.former_checkpoint(partition).await?,
            };
            return Ok(Loaded {
                checkpoint,
                snapshots,
            });
        }
        Err(BrokerError::Unreadable {
            what: format!("{stream}, whose replica is far behind,"),
        })
    }

    /// The checkpoint where 0.1.0 kept it until it was fenced.
    async fn former_checkpoint(&self, partition: PartitionId) -> Result<JournalSeq, BrokerError> {
        let key = format!("checkpoint.{partition}");
        let body = self.partitions.get(key.as_str()).await;
        let body = body.map_err(|error| BrokerError::request(key.clone(), &error))?;
        body.map_or(Ok(JournalSeq(0)), |body| read_checkpoint(&key, &body))
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

    /// Writes a snapshot.
    pub(crate) async fn put(&self, fence: Fence, key: &str, body: Bytes) -> Result<(), SaveError> {
        self.write("put", fence, key, HeaderMap::new(), body).await
    }

    /// Writes the checkpoint.
    pub(crate) async fn set_checkpoint(
        &self,
        fence: Fence,
        seq: JournalSeq,
    ) -> Result<(), SaveError> {
        let key = subject::checkpoint_key(fence.partition);
        let body = seq.to_string().into();
        self.write("checkpoint", fence, &key, HeaderMap::new(), body)
            .await
    }

    /// Removes a snapshot.
    pub(crate) async fn remove(&self, fence: Fence, key: &str) -> Result<(), SaveError> {
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "PURGE");
        headers.insert(async_nats::header::NATS_ROLLUP, "sub");
        headers.insert(
            async_nats::header::NATS_MESSAGE_TTL,
            REMOVAL_MARKER.as_secs().to_string(),
        );
        self.write("remove", fence, key, headers, Bytes::new())
            .await
    }

    /// Writes to the bucket, if its partition still belongs to the owner behind this fence.
    async fn write(
        &self,
        operation: &'static str,
        fence: Fence,
        key: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<(), SaveError> {
        let subject = |key: &str| format!("$KV.{}.{key}", subject::SAGAS_BUCKET);
        headers.insert(
            header::EXPECTED_LAST_SUBJECT_SEQUENCE,
            fence.revision.to_string(),
        );
        headers.insert(
            header::EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT,
            subject(&owner_key(fence.partition)),
        );
        let failed = |error: PublishError| match error.kind() {
            PublishErrorKind::WrongLastSequence => SaveError::Displaced,
            _ => BrokerError::request(key.to_owned(), &error).into(),
        };
        let began = Instant::now();
        let sent = self
            .context
            .publish_with_headers(subject(key), headers, body);
        sent.await.map_err(failed)?.await.map_err(failed)?;
        let labels = [KeyValue::new("operation", operation)];
        let took = began.elapsed().as_secs_f64();
        self.metrics
            .instruments()
            .snapshot_duration
            .record(took, &labels);
        Ok(())
    }

    /// Opens the journal at an entry.
    pub(crate) async fn journal(
        &self,
        partition: PartitionId,
        from: JournalSeq,
    ) -> Result<JournalReader, BrokerError> {
        JournalReader::open(self.context.clone(), partition, from).await
    }

    /// The entry that started a saga, by its subject: `None` if the server that answers has none,
    /// `Some(None)` if it is not readable.
    pub(crate) async fn first_start(
        &self,
        start: &str,
    ) -> Result<Option<Option<Start>>, BrokerError> {
        let failed = |error: &dyn std::error::Error| BrokerError::request(start.to_owned(), error);
        let Ok(parsed) = subject::JournalSubject::parse(start) else {
            return Ok(Some(None));
        };
        let stream = self
            .context
            .get_stream_no_info(subject::journal_stream(parsed.partition))
            .await
            .map_err(|error| failed(&error))?;
        match stream.direct_get_first_for_subject(start).await {
            Ok(message) => Ok(Some(envelope::decode(&message.payload).ok())),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&error)),
        }
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

fn owner_key(partition: PartitionId) -> String {
    format!("{partition}.owner")
}

fn read_checkpoint(key: &str, body: &[u8]) -> Result<JournalSeq, BrokerError> {
    let seq = std::str::from_utf8(body)
        .ok()
        .and_then(|text| text.parse().ok());
    seq.map(JournalSeq).ok_or_else(|| BrokerError::Unreadable {
        what: key.to_owned(),
    })
}
