//! Buckets, key by key: a listing that was read to its end is the bucket as it stood at one moment.

use super::{
    archive::{Archive, PartWriter},
    broker::{Broker, failed, settled},
    manifest::Part,
    order::is_kept,
};
use crate::trouble::Trouble;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, pull::OrderedConfig};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, time::Duration};

/// How long the next key may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Keys that are being written at a time.
const MOST_WRITES: usize = 256;

/// A line of a part: a key as it stood, or that it was removed.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    /// In base64.
    value: Option<String>,
}

/// Copies the keys of a bucket.
///
/// The broker delivers keys in the order of their last changes, and on while they change. When
/// nothing is pending, what was delivered is what stands there: a value that was replaced before its
/// turn has come as its replacement.
pub(super) async fn copy_out(
    broker: &Broker,
    stream: &str,
    part: &mut PartWriter<'_>,
) -> Result<(), Trouble> {
    let prefix = format!("$KV.{}.", bucket_name(stream));
    let config = OrderedConfig {
        filter_subject: format!("{prefix}>"),
        deliver_policy: DeliverPolicy::LastPerSubject,
        replay_policy: ReplayPolicy::Instant,
        ..OrderedConfig::default()
    };
    let consumer = broker
        .context
        .create_consumer_on_stream(config, stream)
        .await
        .map_err(|error| failed(stream, &error))?;
    let mut pending = consumer.cached_info().num_pending;
    let messages = consumer.messages().await;
    let mut messages = messages.map_err(|error| failed(stream, &error))?;
    while pending > 0 {
        let message = tokio::time::timeout(PATIENCE, messages.next()).await;
        let Ok(Some(message)) = message else {
            return Err(Trouble::NotCopied {
                what: stream.to_owned(),
                reason: "the broker stopped sending its keys".to_owned(),
            });
        };
        let message = message.map_err(|error| failed(stream, &error))?;
        let info = message.info().map_err(|error| Trouble::NotCopied {
            what: stream.to_owned(),
            reason: error.to_string(),
        })?;
        pending = info.pending;
        let Some(key) = message.subject.strip_prefix(&prefix) else {
            continue;
        };
        if !is_kept(stream, key) {
            continue;
        }
        let is_removal = message.headers.as_ref().is_some_and(|headers| {
            headers.get("KV-Operation").is_some() || headers.get("Nats-Marker-Reason").is_some()
        });
        let line = Line {
            key: key.to_owned(),
            value: (!is_removal).then(|| BASE64_STANDARD.encode(&message.payload)),
        };
        let mut line = serde_json::to_vec(&line).map_err(|error| failed(stream, &error))?;
        line.push(b'\n');
        part.write(&line)?;
    }
    Ok(())
}

/// Puts the keys of a bucket back; the bucket is there, and empty.
pub(super) async fn copy_in(
    broker: &Broker,
    archive: &Archive,
    part: &Part,
) -> Result<(), Trouble> {
    let store = broker
        .context
        .get_key_value(bucket_name(&part.stream))
        .await
        .map_err(|error| failed(&part.stream, &error))?;
    // A key that changed while it was copied comes more than once; its last line counts.
    let mut last = HashMap::new();
    let mut number = 0_u64;
    lines(archive, part, async |line: Line| {
        number += 1;
        last.insert(line.key, number);
        Ok(())
    })
    .await?;
    let mut number = 0_u64;
    let mut batch = Vec::new();
    let write = async |batch: Vec<(String, Vec<u8>)>| {
        futures::stream::iter(batch)
            .map(async |(key, value)| {
                let value = Bytes::from(value);
                // Our server may not have heard yet of a bucket that another one has made.
                let put = || store.put(&key, value.clone());
                settled(put, Result::is_err).await
            })
            .buffer_unordered(MOST_WRITES)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .map_err(|error| failed(&part.stream, &error))
    };
    lines(archive, part, async |line: Line| {
        number += 1;
        if let Some(value) = line.value
            && last.get(&line.key) == Some(&number)
        {
            let value = BASE64_STANDARD.decode(value);
            let value = value.map_err(|error| failed(&part.stream, &error))?;
            batch.push((line.key, value));
            if batch.len() == MOST_WRITES {
                write(std::mem::take(&mut batch)).await?;
            }
        }
        Ok(())
    })
    .await?;
    write(batch).await
}

/// Hands over the lines of a part.
async fn lines(
    archive: &Archive,
    part: &Part,
    mut take: impl AsyncFnMut(Line) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut rest = Vec::new();
    archive
        .read(part, async |piece| {
            rest.extend_from_slice(&piece);
            let end = rest.iter().rposition(|byte| *byte == b'\n');
            let whole: Vec<u8> = rest.drain(..end.map_or(0, |end| end + 1)).collect();
            for line in whole.split(|byte| *byte == b'\n') {
                if !line.is_empty() {
                    let line = serde_json::from_slice(line);
                    take(line.map_err(|error| failed(&part.stream, &error))?).await?;
                }
            }
            Ok(())
        })
        .await
}

fn bucket_name(stream: &str) -> &str {
    stream.strip_prefix("KV_").unwrap_or(stream)
}
