//! The installation's settings: what was fixed when it was created, and the limits, which may change.
//!
//! They stand under one key of the bucket of partitions. Every coordinator watches it, so a limit that is
//! changed holds everywhere a moment later, for what is asked for from then on.

use super::BrokerError;
use async_nats::jetstream::kv::{Entry, Operation, Store, UpdateErrorKind, Watch};
use bytes::Bytes;
use dirigent_contracts::limits::{Limit, LimitError, Limits};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;

/// Where they stand.
const KEY: &str = "installation";
/// Partitions of a new installation, if nobody says how many.
const DEFAULT_PARTITIONS: u16 = 4;
/// How often they are looked at, and after which pause, before they count as not readable.
const LOOKS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);
/// How long the watch rests before it tries to reach the broker again.
const REST: Duration = Duration::from_secs(1);

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    partitions: u16,
    /// Those that nobody has set are left out: a later build may have others by default.
    #[serde(default, skip_serializing_if = "is_default")]
    limits: Limits,
}

fn is_default(limits: &Limits) -> bool {
    *limits == Limits::default()
}

/// Why a limit was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// It cannot be what was asked for.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The broker did not do its part.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// The installation. Clones share one watch, which ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    bucket: Store,
    partitions: u16,
    limits: Arc<RwLock<Limits>>,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl Installation {
    /// Reads the settings, or makes them: with as many partitions as `asked`.
    pub(super) async fn open(bucket: Store, asked: Option<u16>) -> Result<Self, BrokerError> {
        let Stored { partitions, limits } = read_or_create(&bucket, asked).await?;
        if let Some(asked) = asked.filter(|asked| *asked != partitions) {
            let found = partitions;
            return Err(BrokerError::Partitions { found, asked });
        }
        let limits = Arc::new(RwLock::new(limits));
        let watch = tokio::spawn(follow(bucket.clone(), Arc::clone(&limits)));
        Ok(Self {
            bucket,
            partitions,
            limits,
            _watch: Arc::new(AbortOnDropHandle::new(watch)),
        })
    }

    /// How many partitions it has.
    pub(crate) fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The limits, as far as this coordinator has heard.
    pub(crate) fn limits(&self) -> Limits {
        self.limits.read().map(|limits| *limits).unwrap_or_default()
    }

    /// Changes limits: all of these, or none.
    pub(crate) async fn change(&self, changes: &[(Limit, u64)]) -> Result<Limits, ChangeError> {
        loop {
            let failed = |error: &dyn std::error::Error| BrokerError::request(KEY.into(), error);
            let entry = self.bucket.entry(KEY).await;
            let entry = entry.map_err(|error| failed(&error))?;
            let Some(entry) = entry else {
                return Err(unreadable().into());
            };
            let mut stored = parse(&entry.value)?;
            for (limit, value) in changes {
                stored.limits.set(*limit, *value)?;
            }
            let body = body(&stored)?;
            match self.bucket.update(KEY, body, entry.revision).await {
                Ok(_) => {
                    take(&self.limits, stored.limits);
                    return Ok(stored.limits);
                }
                // Somebody else was faster, or this was a replica that is behind.
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(failed(&error).into()),
            }
        }
    }
}

async fn read_or_create(bucket: &Store, asked: Option<u16>) -> Result<Stored, BrokerError> {
    let wanted = Stored {
        partitions: asked.unwrap_or(DEFAULT_PARTITIONS),
        limits: Limits::default(),
    };
    let body = body(&wanted)?;
    let mut looks = 0;
    loop {
        // Whoever comes first decides.
        if bucket.create(KEY, body.clone()).await.is_ok() {
            return Ok(wanted);
        }
        looks += 1;
        match bucket.get(KEY).await {
            Ok(Some(found)) => return parse(&found),
            // A bucket that was made just now may have no leader yet, or a replica that is behind.
            _ if looks < LOOKS => tokio::time::sleep(PAUSE).await,
            Ok(None) => return Err(unreadable()),
            Err(error) => return Err(BrokerError::request(KEY.to_owned(), &error)),
        }
    }
}

async fn follow(bucket: Store, limits: Arc<RwLock<Limits>>) {
    loop {
        match watch(&bucket).await {
            Ok(mut entries) => {
                while let Some(Ok(entry)) = entries.next().await {
                    hear(&entry, &limits);
                }
            }
            Err(error) => tracing::warn!(%error, "the installation's settings cannot be watched"),
        }
        tokio::time::sleep(REST).await;
    }
}

async fn watch(bucket: &Store) -> Result<Watch, BrokerError> {
    // With what stands there now: a change may have passed by since it was read.
    let watch = bucket.watch_with_history(KEY).await;
    watch.map_err(|error| BrokerError::request(KEY.to_owned(), &error))
}

fn hear(entry: &Entry, limits: &RwLock<Limits>) {
    if entry.operation != Operation::Put {
        return;
    }
    match parse(&entry.value) {
        Ok(stored) => take(limits, stored.limits),
        Err(error) => tracing::error!(%error, "the limits stay as they were"),
    }
}

fn take(limits: &RwLock<Limits>, new: Limits) {
    if let Ok(mut limits) = limits.write() {
        *limits = new;
    }
}

fn parse(body: &[u8]) -> Result<Stored, BrokerError> {
    serde_json::from_slice(body).map_err(|_| unreadable())
}

fn body(stored: &Stored) -> Result<Bytes, BrokerError> {
    let body = serde_json::to_vec(stored);
    let body = body.map_err(|error| BrokerError::request(KEY.to_owned(), &error))?;
    Ok(body.into())
}

fn unreadable() -> BrokerError {
    BrokerError::Unreadable {
        what: "the installation's settings".to_owned(),
    }
}
