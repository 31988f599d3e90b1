//! Reading what stands in a stream now, by a filter, to its end: all of it, or the latest.

use super::BrokerError;
use async_nats::{
    HeaderMap,
    datetime::DateTime,
    jetstream::{
        Context,
        consumer::{Consumer, DeliverPolicy, ReplayPolicy, pull::OrderedConfig},
    },
};
use bytes::Bytes;
use futures::StreamExt;
use std::{collections::VecDeque, time::Duration};

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
    take: impl FnMut(Listed) -> Result<(), BrokerError> + Send,
) -> Result<(), BrokerError> {
    let config = OrderedConfig {
        filter_subject: filter.to_owned(),
        deliver_policy,
        ..OrderedConfig::default()
    };
    read_with(context, stream, config, take).await
}

/// Reads the latest messages of a stream that match one of the filters and were stored before this call,
/// at most `count`, the oldest first. How far back they reach is found by asking the broker how many match
/// from a place on, so that no others are read.
pub(crate) async fn read_latest(
    context: &Context,
    stream: &str,
    filters: Vec<String>,
    count: usize,
) -> Result<Vec<Listed>, BrokerError> {
    let failed =
        |error: &dyn std::error::Error| BrokerError::request(format!("reading {stream}"), error);
    let state = context.get_stream(stream).await;
    let state = state.map_err(|error| failed(&error))?;
    let state = &state.cached_info().state;
    let config = |start: u64| OrderedConfig {
        filter_subjects: filters.clone(),
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: start.max(1),
        },
        ..OrderedConfig::default()
    };
    let mut search = Search::new(state.first_sequence, state.last_sequence, count as u64);
    loop {
        let consumer = open(context, stream, config(search.start)).await?;
        let matching = consumer.cached_info().num_pending;
        close(context, stream, &consumer.cached_info().name).await;
        if !search.goes_on(matching) {
            break;
        }
    }
    let mut latest = VecDeque::new();
    read_with(context, stream, config(search.start), |message| {
        latest.push_back(message);
        if latest.len() > count {
            latest.pop_front();
        }
        Ok(())
    })
    .await?;
    Ok(latest.into())
}

/// Looks for a place from which on `count` messages match, or somewhat more: first back from the end in
/// steps that grow, then halfway between a place that is too early and one that is too late.
#[derive(Debug)]
struct Search {
    first: u64,
    last: u64,
    count: u64,
    /// The place to look at.
    start: u64,
    /// The latest place from which on enough match.
    enough: Option<u64>,
    /// The earliest place from which on too few do.
    too_late: u64,
}

impl Search {
    /// How many times as many may be read as are wanted.
    const SLACK: u64 = 2;
    /// By how much a step back is longer than the one before it.
    const GROWTH: u64 = 4;

    fn new(first: u64, last: u64, count: u64) -> Self {
        let start = (last + 1).saturating_sub(count).max(first);
        Self {
            first,
            last,
            count,
            start,
            enough: None,
            too_late: last + 1,
        }
    }

    /// Learns how many match from `start` on. False if that is where to read from.
    fn goes_on(&mut self, matching: u64) -> bool {
        if matching >= self.count {
            self.enough = Some(self.start);
            if matching <= self.count.saturating_mul(Self::SLACK) {
                return false;
            }
        } else if self.start <= self.first {
            return false;
        } else {
            self.too_late = self.start;
        }
        match self.enough {
            Some(enough) if self.too_late - enough <= 1 => {
                self.start = enough;
                return false;
            }
            Some(enough) => self.start = enough + (self.too_late - enough) / 2,
            None => {
                let width = (self.last + 1 - self.start).saturating_mul(Self::GROWTH);
                self.start = (self.last + 1).saturating_sub(width).max(self.first);
            }
        }
        true
    }
}

async fn open(
    context: &Context,
    stream: &str,
    config: OrderedConfig,
) -> Result<Consumer<OrderedConfig>, BrokerError> {
    let config = OrderedConfig {
        replay_policy: ReplayPolicy::Instant,
        ..config
    };
    context
        .create_consumer_on_stream(config, stream)
        .await
        .map_err(|error| BrokerError::request(format!("reading {stream}"), &error))
}

/// It would go by itself after a while; many listings should not add up.
async fn close(context: &Context, stream: &str, name: &str) {
    if let Err(error) = context.delete_consumer_from_stream(name, stream).await {
        tracing::debug!(%error, stream, "a reader was left to expire");
    }
}

async fn read_with(
    context: &Context,
    stream: &str,
    config: OrderedConfig,
    mut take: impl FnMut(Listed) -> Result<(), BrokerError> + Send,
) -> Result<(), BrokerError> {
    let failed =
        |error: &dyn std::error::Error| BrokerError::request(format!("reading {stream}"), error);
    let consumer = open(context, stream, config).await?;
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
    close(context, stream, &name).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the search ends, and how often it looked.
    fn found(first: u64, last: u64, count: u64, matching: &[u64]) -> (u64, u32) {
        let mut search = Search::new(first, last, count);
        let mut looks = 1;
        let from = |start| matching.iter().filter(|seq| **seq >= start).count() as u64;
        while search.goes_on(from(search.start)) {
            looks += 1;
        }
        (search.start, looks)
    }

    #[test]
    fn the_latest_that_match_are_found_however_far_back_they_are() {
        // Nothing at all, and fewer than are wanted.
        assert_eq!(found(0, 0, 51, &[]), (0, 1));
        assert_eq!(found(1, 40, 51, &[7, 8]), (1, 1));
        // All match: one look is enough.
        let all: Vec<u64> = (1..=100_000).collect();
        assert_eq!(found(1, 100_000, 51, &all), (99_950, 1));
        // Many others came since.
        let (start, looks) = found(1, 1_000_000, 51, &all);
        let read = 100_000 + 1 - start;
        assert!((51..=102).contains(&read), "{read} are read");
        assert!(looks < 30, "{looks} looks");
        // The oldest messages are gone.
        assert_eq!(found(500, 100_000, 51, &[600, 700]), (500, 7));
    }
}
