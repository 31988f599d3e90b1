//! Reading a journal: every entry in order, without acknowledgements, from any place.
//!
//! An ordered consumer reads it (it makes itself anew when it missed something); our position is the
//! last entry that was handed on, so nothing is skipped and nothing comes twice.

use super::BrokerError;
use async_nats::{
    HeaderMap,
    datetime::DateTime,
    jetstream::{
        Context,
        consumer::{
            DeliverPolicy, ReplayPolicy,
            pull::{Ordered, OrderedConfig},
        },
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use dirigent_contracts::{
    header::{self, TraceContext},
    id::{JournalSeq, PartitionId},
    subject,
    time::Timestamp,
};
use dirigent_payloads::Payloads;
use futures::StreamExt;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};

/// How many entries are read ahead of the fold.
const READ_AHEAD: usize = 1_024;
/// How long a reader rests before it tries to reach the broker again.
const REST: Duration = Duration::from_millis(250);

/// One stored entry, undecoded.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) seq: JournalSeq,
    /// When the broker stored it.
    pub(crate) at: Timestamp,
    pub(crate) subject: String,
    /// Whether its publisher asked the broker to store it only as the first of its subject.
    pub(crate) is_first_of_subject: bool,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) body: Bytes,
}

impl Delivered {
    pub(super) fn new(
        seq: u64,
        at: DateTime,
        subject: String,
        headers: Option<&HeaderMap>,
        body: Bytes,
    ) -> Self {
        let value = |name: &str| {
            headers
                .and_then(|headers| headers.get(name))
                .map(async_nats::HeaderValue::as_str)
        };
        Self {
            seq: JournalSeq(seq),
            at: timestamp(at),
            subject,
            is_first_of_subject: value(header::EXPECTED_LAST_SUBJECT_SEQUENCE) == Some("0"),
            trace: value(header::TRACE_PARENT).and_then(TraceContext::parse),
            body,
        }
    }
}

/// The broker's time in ours.
pub(crate) fn timestamp(at: DateTime) -> Timestamp {
    Timestamp(i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX))
}

/// Reads one journal. Dropping it ends the reading.
#[derive(Debug)]
pub(crate) struct JournalReader {
    entries: mpsc::Receiver<Delivered>,
    /// Entries that the broker had not sent when it sent the last one.
    unsent: Arc<AtomicU64>,
    end: JournalSeq,
    task: JoinHandle<()>,
}

impl JournalReader {
    /// Opens a partition's journal at an entry.
    pub(super) async fn open(
        context: Context,
        payloads: Payloads,
        partition: PartitionId,
        from: JournalSeq,
    ) -> Result<Self, BrokerError> {
        let name = subject::journal_stream(partition);
        let stream = context
            .get_stream(&name)
            .await
            .map_err(|error| BrokerError::request(format!("the stream {name}"), &error))?;
        let state = &stream.cached_info().state;
        if state.first_sequence > from.0 && from.0 > 1 {
            tracing::error!(
                partition = partition.0,
                from = from.0,
                first = state.first_sequence,
                "entries of the journal are gone that were never folded: its retention is shorter \
                 than the coordinators' absence"
            );
        }
        let end = last_entry(&stream, partition).await?;
        let (sender, entries) = mpsc::channel(READ_AHEAD);
        let unsent = Arc::default();
        let reading = read(context, payloads, name, from.0, Arc::clone(&unsent), sender);
        let task = tokio::spawn(reading);
        Ok(Self {
            entries,
            unsent,
            end,
            task,
        })
    }

    /// The last entry that was stored when the journal was opened.
    pub(crate) fn end(&self) -> JournalSeq {
        self.end
    }

    /// How many stored entries were not handed on yet.
    pub(crate) fn behind(&self) -> usize {
        let unsent = usize::try_from(self.unsent.load(Relaxed)).unwrap_or(usize::MAX);
        self.entries.len().saturating_add(unsent)
    }

    /// The next entry. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Delivered, BrokerError> {
        self.entries.recv().await.ok_or(BrokerError::Closed)
    }

    /// The next entry, if it has come already.
    pub(crate) fn ready(&mut self) -> Option<Delivered> {
        self.entries.try_recv().ok()
    }
}

impl Drop for JournalReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The last entry that is there. The stream counts on past entries that were removed behind it, as a
/// restore does; nobody would ever read those.
async fn last_entry(stream: &Stream, partition: PartitionId) -> Result<JournalSeq, BrokerError> {
    let filter = subject::journal_filter(partition);
    match stream.get_last_raw_message_by_subject(&filter).await {
        Ok(message) => Ok(JournalSeq(message.sequence)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(JournalSeq(0)),
        Err(error) => Err(BrokerError::request(
            format!("the end of {}", subject::journal_stream(partition)),
            &error,
        )),
    }
}

/// Reads on for ever, whatever happens to the broker in between.
async fn read(
    context: Context,
    payloads: Payloads,
    stream: String,
    mut next: u64,
    unsent: Arc<AtomicU64>,
    entries: mpsc::Sender<Delivered>,
) {
    loop {
        match consume(&context, &stream, next).await {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    let delivered = match message {
                        Ok(message) => delivered(&payloads, &message).await,
                        Err(error) => {
                            tracing::debug!(stream, %error, "the journal's reader is made anew");
                            break;
                        }
                    };
                    let Some((delivered, pending)) = delivered else {
                        break;
                    };
                    unsent.store(pending, Relaxed);
                    if delivered.seq.0 < next {
                        continue;
                    }
                    next = delivered.seq.0 + 1;
                    if entries.send(delivered).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(stream, %error, "the journal cannot be read; trying on"),
        }
        tokio::time::sleep(REST).await;
    }
}

async fn consume(context: &Context, stream: &str, from: u64) -> Result<Ordered, BrokerError> {
    let config = OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: from.max(1),
        },
        replay_policy: ReplayPolicy::Instant,
        ..OrderedConfig::default()
    };
    let failed = |error: &dyn std::error::Error| {
        BrokerError::request(format!("a reader of {stream}"), error)
    };
    let consumer = context
        .create_consumer_on_stream(config, stream)
        .await
        .map_err(|error| failed(&error))?;
    consumer.messages().await.map_err(|error| failed(&error))
}

/// The entry, and how many the broker is yet to send.
async fn delivered(
    payloads: &Payloads,
    message: &async_nats::jetstream::Message,
) -> Option<(Delivered, u64)> {
    let info = message
        .info()
        .inspect_err(|error| tracing::warn!(%error, "a journal message without its sequence"))
        .ok()?;
    let delivered = Delivered::new(
        info.stream_sequence,
        info.published,
        message.subject.to_string(),
        message.headers.as_ref(),
        whole(payloads, message.headers.as_ref(), message.payload.clone()).await,
    );
    Some((delivered, info.pending))
}

/// The body of an entry, wherever it stands. One that is lost leaves an entry that cannot be read, which
/// becomes a dead letter; a broker that is away is waited for.
pub(crate) async fn whole(payloads: &Payloads, headers: Option<&HeaderMap>, body: Bytes) -> Bytes {
    loop {
        match payloads.unpack(headers, body.clone()).await {
            Ok(body) => return body,
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, "the body of an entry cannot be read; trying on");
                tokio::time::sleep(REST).await;
            }
            Err(error) => {
                tracing::error!(%error, "the body of an entry is lost");
                return Bytes::new();
            }
        }
    }
}
