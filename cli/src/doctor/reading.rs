//! What the doctor reads: the broker's own account of itself, and what a coordinator says.

use crate::{connection::Connection, trouble::Trouble};
use async_nats::jetstream::{Context, consumer, context::ContextBuilder, stream};
use dirigent_contracts::{
    api::{ListAnswer, ListRequest, StatusAnswer, StatusRequest},
    id::{JournalSeq, PartitionId},
    limit,
    outcome::SagaStatus,
    subject,
    time::Timestamp,
};
use futures::TryStreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that was read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Version of the server, as it says.
    pub(super) server: String,
    /// Whether that is one that coordinators accept.
    pub(super) is_new_enough: bool,
    pub(super) is_clustered: bool,
    pub(super) account: Account,
    /// Our streams, by name.
    pub(super) streams: BTreeMap<String, stream::Info>,
    /// Consumers of the stream of commands.
    pub(super) tasks: Vec<consumer::Info>,
    /// Whether the router's consumer is there, by stream; of the streams on which it has to be.
    pub(super) routers: BTreeMap<String, bool>,
    /// Up to where each partition's entries need no folding; of those that have a checkpoint.
    pub(super) checkpoints: BTreeMap<PartitionId, JournalSeq>,
    /// What a coordinator says; `None` if there is none.
    pub(super) status: Option<StatusAnswer>,
    /// Sagas that wait for a person; `None` if no coordinator tells.
    pub(super) stuck: Option<ListAnswer>,
    /// Sagas that go on; `None` if no coordinator tells.
    pub(super) living: Option<ListAnswer>,
    /// How far this machine's clock is ahead of the broker's, in microseconds; negative if behind. `None`
    /// if the broker does not tell its time.
    pub(super) clock_ahead: Option<i64>,
    pub(super) now: Timestamp,
    /// What the monitoring port says, if it was asked.
    pub(super) disk: Option<Disk>,
}

/// What of the account's storage is used.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Account {
    /// Bytes on disk.
    #[serde(default)]
    pub(super) storage: u64,
    #[serde(default)]
    pub(super) limits: Limits,
}

/// What the account may use.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Limits {
    /// Bytes on disk; not above 0: as many as there are.
    #[serde(default)]
    pub(super) max_storage: i64,
}

/// When a server writes to its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Disk {
    /// Nanoseconds between two.
    #[serde(default)]
    pub(super) sync_interval: u64,
    /// Before each acknowledgement.
    #[serde(default)]
    pub(super) sync_always: bool,
}

/// Reads everything.
pub(super) async fn take(
    connection: &Connection,
    monitor: Option<&str>,
) -> Result<Reading, Trouble> {
    let client = &connection.client;
    let context = ContextBuilder::new()
        .timeout(PATIENCE)
        .build(client.clone());
    let server = client.server_info();
    let account = match request(&context, "INFO").await? {
        answer if answer["error"].is_object() => {
            return Err(unreadable(
                "JetStream",
                &answer["error"]["description"].to_string(),
            ));
        }
        answer => serde_json::from_value(answer)
            .map_err(|error| unreadable("the account", &error.to_string()))?,
    };
    let streams = streams(&context).await?;
    let status = match connection.ask(&StatusRequest {}).await {
        Ok(status) => Some(status),
        Err(Trouble::NoCoordinator { .. } | Trouble::NoAnswer { .. }) => None,
        Err(trouble) => return Err(trouble),
    };
    let (mut stuck, mut living) = (None, None);
    if status.is_some() {
        stuck = Some(sagas(connection, vec![SagaStatus::Stuck]).await?);
        let going_on = vec![SagaStatus::Running, SagaStatus::Compensating];
        living = Some(sagas(connection, going_on).await?);
    }
    let mut routers = BTreeMap::new();
    for stream in [subject::ADVISORIES_STREAM, subject::INBOX_STREAM] {
        if streams.contains_key(stream) {
            let names = consumers(&context, stream).await?;
            let ours = [subject::ROUTER_CONSUMER, subject::AWAITED_CONSUMER];
            let is_there = names.iter().any(|info| ours.contains(&info.name.as_str()));
            routers.insert(stream.to_owned(), is_there);
        }
    }
    let tasks = match streams.get(subject::COMMANDS_STREAM) {
        Some(_) => consumers(&context, subject::COMMANDS_STREAM).await?,
        None => Vec::new(),
    };
    let (now, clock_ahead) = clock(&context, &streams).await?;
    Ok(Reading {
        is_new_enough: dirigent_coordinator::broker::is_new_enough(client),
        is_clustered: server.cluster.is_some(),
        server: server.version,
        account,
        checkpoints: checkpoints(&context, &streams).await?,
        streams,
        tasks,
        routers,
        status,
        stuck,
        living,
        clock_ahead,
        now,
        disk: match monitor {
            Some(url) => Some(disk(url).await?),
            None => None,
        },
    })
}

/// Our streams.
async fn streams(context: &Context) -> Result<BTreeMap<String, stream::Info>, Trouble> {
    let streams: Vec<stream::Info> = context
        .streams()
        .try_collect()
        .await
        .map_err(|error| unreadable("the streams", &error.to_string()))?;
    let is_ours = |name: &str| {
        ["DIRIGENT_", "KV_dirigent-", "OBJ_dirigent"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let ours = streams
        .into_iter()
        .filter(|info| is_ours(&info.config.name));
    Ok(ours.map(|info| (info.config.name.clone(), info)).collect())
}

async fn consumers(context: &Context, stream: &str) -> Result<Vec<consumer::Info>, Trouble> {
    let failed = |error: &dyn std::error::Error| unreadable(stream, &error.to_string());
    let handle = context.get_stream_no_info(stream).await;
    let handle = handle.map_err(|error| failed(&error))?;
    let consumers = handle.consumers().try_collect().await;
    consumers.map_err(|error| failed(&error))
}

/// The sagas that stand so.
async fn sagas(connection: &Connection, status: Vec<SagaStatus>) -> Result<ListAnswer, Trouble> {
    let request = ListRequest {
        definition: None,
        status,
        limit: Some(limit::LISTED_SAGAS),
    };
    connection.ask(&request).await
}

/// The checkpoints of the partitions that have a journal.
async fn checkpoints(
    context: &Context,
    streams: &BTreeMap<String, stream::Info>,
) -> Result<BTreeMap<PartitionId, JournalSeq>, Trouble> {
    let mut checkpoints = BTreeMap::new();
    let Ok(bucket) = context.get_key_value(subject::SAGAS_BUCKET).await else {
        return Ok(checkpoints);
    };
    let partitions = (0..u16::MAX)
        .map(PartitionId)
        .take_while(|partition| streams.contains_key(&subject::journal_stream(*partition)));
    for partition in partitions {
        let key = subject::checkpoint_key(partition);
        let body = bucket.get(key.as_str()).await;
        let body = body.map_err(|error| unreadable(&key, &error.to_string()))?;
        let seq = body.and_then(|body| std::str::from_utf8(&body).ok()?.parse().ok());
        if let Some(seq) = seq {
            checkpoints.insert(partition, JournalSeq(seq));
        }
    }
    Ok(checkpoints)
}

/// The time here, and how far it is ahead of the broker's: an answer carries the broker's time, and
/// was on its way for half as long as the request took.
async fn clock(
    context: &Context,
    streams: &BTreeMap<String, stream::Info>,
) -> Result<(Timestamp, Option<i64>), Trouble> {
    let Some(stream) = streams.keys().next() else {
        return Ok((now(), None));
    };
    let before = now();
    let answer = request(context, &format!("STREAM.INFO.{stream}")).await?;
    let after = now();
    let told = answer["ts"].as_str().and_then(Timestamp::parse_rfc3339);
    let middle = before.0 + (after.0 - before.0) / 2;
    Ok((after, told.map(|told| middle - told.0)))
}

async fn request(context: &Context, subject: &str) -> Result<Value, Trouble> {
    let answer = context.request(subject.to_owned(), &json!({})).await;
    answer.map_err(|error| unreadable(subject, &error.to_string()))
}

/// What the monitoring port of a server says of its disk.
async fn disk(url: &str) -> Result<Disk, Trouble> {
    #[derive(Deserialize)]
    struct Varz {
        jetstream: JetStream,
    }
    #[derive(Deserialize)]
    struct JetStream {
        #[serde(default)]
        config: Disk,
    }
    let failed = |error: &dyn std::error::Error| unreadable(url, &error.to_string());
    let client = reqwest::Client::builder().timeout(PATIENCE).build();
    let client = client.map_err(|error| failed(&error))?;
    let answer = client
        .get(format!("{}/varz", url.trim_end_matches('/')))
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| failed(&error))?;
    let body = answer.bytes().await.map_err(|error| failed(&error))?;
    let varz: Varz = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
    Ok(varz.jetstream.config)
}

fn unreadable(what: &str, reason: &str) -> Trouble {
    Trouble::NotExamined {
        what: what.to_owned(),
        reason: reason.to_owned(),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }))
}
