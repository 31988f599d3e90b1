//! What everybody can see of the sagas: their outcomes, and the events that they published.

use crate::shape::TOLD;
use anyhow::Context as _;
use async_nats::{
    Client,
    jetstream::{self, consumer::pull::OrderedConfig},
};
use dirigent_contracts::{subject, time::Timestamp};
use dirigent_tests::{
    checker::{Ended, Seen},
    ledger::Account,
};
use futures::StreamExt as _;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a message that is stored may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The outcomes so far, one for each message; incidents among them.
pub(crate) async fn outcomes(client: &Client) -> anyhow::Result<Vec<Ended>> {
    let mut ended = Vec::new();
    for message in read(client, subject::EVENTS_STREAM, "dirigent.event.>").await? {
        let (saga, status) = subject::parse_event(&message.subject)?;
        let at = message.info().map_err(|error| anyhow::anyhow!(error))?;
        ended.push(Ended {
            saga,
            status: status.to_owned(),
            at: Timestamp::from_nanos(at.published.unix_timestamp_nanos()),
        });
    }
    Ok(ended)
}

/// Everything that the checker wants to see.
pub(crate) async fn seen(
    client: &Client,
    ledger: BTreeMap<String, Account>,
) -> anyhow::Result<Seen> {
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for message in read(client, subject::INBOX_STREAM, TOLD).await? {
        let event: Value = serde_json::from_slice(&message.payload)?;
        let key = event["data"]["key"]
            .as_str()
            .context("an event has a key")?;
        let id = event["id"].as_str().context("an event has an id")?;
        told.entry(key.to_owned())
            .or_default()
            .insert(id.to_owned());
    }
    Ok(Seen {
        ended: outcomes(client).await?,
        told,
        accounts: ledger.into_values().collect(),
    })
}

/// All messages of a stream that match a filter.
async fn read(
    client: &Client,
    stream: &str,
    filter: &str,
) -> anyhow::Result<Vec<jetstream::Message>> {
    let config = OrderedConfig {
        filter_subject: filter.to_owned(),
        ..OrderedConfig::default()
    };
    let consumer = jetstream::new(client.clone())
        .create_consumer_on_stream(config, stream)
        .await?;
    let mut missing = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await?;
    let mut read = Vec::new();
    while missing > 0 {
        let message = tokio::time::timeout(PATIENCE, messages.next()).await?;
        let message = message.context("the stream ended")??;
        missing = message
            .info()
            .map_err(|error| anyhow::anyhow!(error))?
            .pending;
        read.push(message);
    }
    Ok(read)
}
