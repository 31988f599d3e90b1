//! Reading what stands in a stream now, by a filter, to its end.

use super::BrokerError;
use async_nats::{
    HeaderMap,
    datetime::DateTime,
    jetstream::{
        Context,
        consumer::{DeliverPolicy, ReplayPolicy, pull::OrderedConfig},
    },
};
use bytes::Bytes;
use futures::StreamExt;
use std::time::Duration;

/// How long the next message may take before the reading counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// One stored message.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) seq: u64,
    pub(crate) at: DateTime,
    pub(crate) subject: String,
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) body: Bytes,
    /// Whether it marks a key of a bucket as removed.
    pub(crate) is_removal: bool,
}

/// Reads all messages of a stream that match the filter and were stored before this call.
pub(crate) async fn read(
    context: &Context,
    stream: &str,
    filter: &str,
    deliver_policy: DeliverPolicy,
) -> Result<Vec<Listed>, BrokerError> {
    let mut listed = Vec::new();
    for_each(context, stream, filter, deliver_policy, |message| {
        listed.push(message);
        Ok(())
    })
    .await?;
    Ok(listed)
}

/// Hands on all messages of a stream that match the filter and were stored before this call, one by one.
pub(crate) async fn for_each(
    context: &Context,
    stream: &str,
    filter: &str,
    deliver_policy: DeliverPolicy,
    mut take: impl FnMut(Listed) -> Result<(), BrokerError> + Send,
) -> Result<(), BrokerError> {
    let failed =
        |error: &dyn std::error::Error| BrokerError::request(format!("reading {stream}"), error);
    let config = OrderedConfig {
        filter_subject: filter.to_owned(),
        deliver_policy,
        replay_policy: ReplayPolicy::Instant,
        ..OrderedConfig::default()
    };
    let consumer = context
        .create_consumer_on_stream(config, stream)
        .await
        .map_err(|error| failed(&error))?;
    let name = consumer.cached_info().name.clone();
    let mut missing = consumer.cached_info().num_pending;
    if missing > 0 {
        let mut messages = consumer.messages().await.map_err(|error| failed(&error))?;
        while missing > 0 {
            let message = tokio::time::timeout(PATIENCE, messages.next())
                .await
                .ok()
                .flatten()
                .ok_or_else(|| BrokerError::Unreadable {
                    what: format!("the rest of {stream}"),
                })?
                .map_err(|error| failed(&error))?;
            let info = message.info().map_err(|_| BrokerError::Unreadable {
                what: format!("a message of {stream}"),
            })?;
            missing = info.pending;
            let (seq, at) = (info.stream_sequence, info.published);
            let headers = message.headers.clone();
            let is_removal = headers.as_ref().is_some_and(|headers| {
                headers.get("KV-Operation").is_some() || headers.get("Nats-Marker-Reason").is_some()
            });
            take(Listed {
                seq,
                at,
                subject: message.subject.to_string(),
                headers,
                body: message.payload.clone(),
                is_removal,
            })?;
        }
    }
    // It would go by itself after a while; many listings should not add up.
    if let Err(error) = context.delete_consumer_from_stream(&name, stream).await {
        tracing::debug!(%error, stream, "a reader was left to expire");
    }
    Ok(())
}
