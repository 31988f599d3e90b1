//! What an owner keeps of a partition between two lives: snapshots, the checkpoint, the journal.

use super::{
    BrokerError, MOST_IN_FLIGHT,
    journal::{self, Delivered, JournalReader},
    listing,
};
use crate::metrics::Metrics;
use async_nats::{
    HeaderMap,
    jetstream::{
        self, Context, ErrorCode,
        consumer::DeliverPolicy,
        context::{PublishError, PublishErrorKind},
        kv::{Operation, Store},
        stream::DirectGetErrorKind,
    },
};
use bytes::Bytes;
use dirigent_contracts::{
    header,
    id::{JournalSeq, PartitionId, SagaAddress},
    limit, subject,
};
use dirigent_payloads::{PayloadName, Payloads};
use opentelemetry::KeyValue;
use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// How long the broker remembers that a snapshot was removed: longer than a displaced owner needs to
/// find out that it is one.
pub(super) const REMOVAL_MARKER: Duration = Duration::from_mins(10);

/// First byte of what stands in the bucket for a snapshot that stands in the object store. No version of a
/// snapshot has this number.
const REFERENCE: u8 = 0xFF;

/// How often a reader that is behind is asked again, and after which pause.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Pause before a write is repeated that another one under the same fence has kept out.
const OVERLAP_PAUSE: Duration = Duration::from_millis(10);

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

/// The first entry with its subject.
#[derive(Clone, Debug)]
pub(crate) struct First {
    pub(crate) message_id: Option<String>,
    pub(crate) body: Bytes,
}

/// What tells an owner's writes from those of an earlier one: the revision of its name in the bucket.
///
/// The broker takes a write only while that is still the last word on who owns the partition. So one
/// that was displaced without noticing, or that stood still meanwhile, changes nothing any more.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    partition: PartitionId,
    revision: u64,
    /// Held while a write is on its way to a replicated stream: it lets in one at a time that refers to
    /// the same fence, and refuses the others.
    turn: Arc<Semaphore>,
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
    sagas: Arc<Store>,
    partitions: Arc<Store>,
    payloads: Payloads,
    metrics: Metrics,
}

impl Snapshots {
    pub(super) fn new(
        context: Context,
        sagas: Store,
        partitions: Store,
        payloads: Payloads,
        metrics: Metrics,
    ) -> Self {
        Self {
            context,
            sagas: Arc::new(sagas),
            partitions: Arc::new(partitions),
            payloads,
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
        let replicas = self.sagas.stream.cached_info().config.num_replicas;
        let at_once = if replicas > 1 { 1 } else { MOST_IN_FLIGHT };
        Ok(Fence {
            partition,
            revision,
            turn: Arc::new(Semaphore::new(at_once)),
        })
    }

    /// The checkpoint and all snapshots of a partition, as its former owners left them.
    pub(crate) async fn load(&self, fence: &Fence) -> Result<Loaded, BrokerError> {
        let partition = fence.partition;
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
            for snapshot in &mut snapshots {
                let body = std::mem::take(&mut snapshot.body);
                snapshot.body = self.whole(&snapshot.key, body).await?;
            }
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
        let entry = entry.map_err(|error| BrokerError::request(key.clone(), &error))?;
        match entry.filter(|entry| entry.operation == Operation::Put) {
            Some(entry) => Ok(Some(self.whole(&key, entry.value).await?)),
            None => Ok(None),
        }
    }

    /// A snapshot, of what stands for it in the bucket. What is lost or is no snapshot is handed on as it
    /// is: whoever reads it says so.
    async fn whole(&self, key: &str, body: Bytes) -> Result<Bytes, BrokerError> {
        let Some(name) = reference(&body) else {
            return Ok(body);
        };
        match self.payloads.get(name, limit::LARGEST_SNAPSHOT_BYTES).await {
            Ok(whole) => Ok(whole),
            Err(error) if error.is_passing() => Err(BrokerError::request(key.to_owned(), &error)),
            Err(error) => {
                tracing::error!(snapshot = key, %error, "a snapshot is lost");
                Ok(body)
            }
        }
    }

    /// Writes a snapshot. A large one stands in the object store, and the bucket names it: first what is
    /// named, then the name.
    pub(crate) async fn put(&self, fence: &Fence, key: &str, body: Bytes) -> Result<(), SaveError> {
        let mut body = body;
        if body.len() > limit::INLINE_SNAPSHOT_BYTES {
            let put = self.payloads.put(&body).await;
            let name = put.map_err(|error| BrokerError::request(key.to_owned(), &error))?;
            let named = [&[REFERENCE][..], name.as_bytes()].concat();
            body = named.into();
        }
        self.write("put", fence, key, HeaderMap::new(), body).await
    }

    /// Writes the checkpoint.
    pub(crate) async fn set_checkpoint(
        &self,
        fence: &Fence,
        seq: JournalSeq,
    ) -> Result<(), SaveError> {
        let key = subject::checkpoint_key(fence.partition);
        let body = seq.to_string().into();
        self.write("checkpoint", fence, &key, HeaderMap::new(), body)
            .await
    }

    /// Removes a snapshot.
    pub(crate) async fn remove(&self, fence: &Fence, key: &str) -> Result<(), SaveError> {
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
        fence: &Fence,
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
        let began = Instant::now();
        loop {
            let turn = fence.turn.acquire().await;
            match self.publish(subject(key), &headers, &body).await {
                Ok(()) => break,
                // Not stored, and not for good: a former owner's write is still on its way. Only what
                // was refused may be repeated. What was not answered may come yet, after newer writes.
                Err(error) if is_overlap(&error) => {
                    drop(turn);
                    tokio::time::sleep(OVERLAP_PAUSE).await;
                }
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                    return Err(SaveError::Displaced);
                }
                Err(error) => return Err(BrokerError::request(key.to_owned(), &error).into()),
            }
        }
        let labels = [KeyValue::new("operation", operation)];
        let took = began.elapsed().as_secs_f64();
        self.metrics
            .instruments()
            .snapshot_duration
            .record(took, &labels);
        Ok(())
    }

    async fn publish(
        &self,
        subject: String,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<(), PublishError> {
        let sent = self
            .context
            .publish_with_headers(subject, headers.clone(), body.clone());
        sent.await?.await.map(drop)
    }

    /// Opens the journal at an entry.
    pub(crate) async fn journal(
        &self,
        partition: PartitionId,
        from: JournalSeq,
    ) -> Result<JournalReader, BrokerError> {
        let (context, payloads) = (self.context.clone(), self.payloads.clone());
        JournalReader::open(context, payloads, partition, from).await
    }

    /// The first entry of a journal with this subject: `None` if the server that answers has none.
    pub(crate) async fn first_of_subject(&self, entry: &str) -> Result<Option<First>, BrokerError> {
        let failed = |error: &dyn std::error::Error| BrokerError::request(entry.to_owned(), error);
        let parsed = subject::JournalSubject::parse(entry).map_err(|error| failed(&error))?;
        let stream = self
            .context
            .get_stream_no_info(subject::journal_stream(parsed.partition))
            .await
            .map_err(|error| failed(&error))?;
        match stream.direct_get_first_for_subject(entry).await {
            Ok(message) => {
                let headers = Some(&message.headers);
                let body = journal::whole(&self.payloads, headers, message.payload.clone()).await;
                let id = message.headers.get(header::MESSAGE_ID);
                Ok(Some(First {
                    message_id: id.map(ToString::to_string),
                    body,
                }))
            }
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
        let mut entries = Vec::with_capacity(messages.len());
        for message in messages {
            let headers = message.headers.as_ref();
            let body = journal::whole(&self.payloads, headers, message.body).await;
            let entry = Delivered::new(message.seq, message.at, message.subject, headers, body);
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// Whether a write was refused because another one under the same fence was on its way.
fn is_overlap(error: &PublishError) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .is_some_and(|error| error.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}

/// The name of a snapshot that stands in the object store.
fn reference(body: &[u8]) -> Option<PayloadName> {
    match body {
        [REFERENCE, name @ ..] => name.try_into().ok().map(PayloadName::from_bytes),
        _ => None,
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
