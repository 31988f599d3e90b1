//! Everything that is said to the broker: `JetStream` streams, buckets and consumers.
//!
//! What must hold: a publish is repeated under its id until it is acknowledged; a journal is read
//! without gaps; whatever the coordinator needs is created by itself, and checked.

pub(crate) mod assets;
pub(crate) mod definitions;
pub(crate) mod installation;
pub(crate) mod journal;
pub(crate) mod letters;
pub(crate) mod listing;
pub(crate) mod objects;
pub(crate) mod publisher;
pub(crate) mod snapshots;

pub use assets::{check, is_new_enough, streams};

use crate::{metrics::Metrics, settings::Settings};
use assets::Assets;
use async_nats::{
    Client,
    jetstream::{Context, ContextBuilder, kv::Store},
};
use definitions::DefinitionStore;
use dirigent_payloads::Payloads;
use installation::Installation;
use objects::Objects;
use publisher::Publisher;
use snapshots::Snapshots;
use std::{
    error::Error,
    time::{Duration, Instant},
};

/// How long the broker may take to answer a request before it is repeated.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long the broker may refuse, or not answer, what is asked of it at the start: a cluster that has just
/// started has no leaders yet, and places streams only on servers that have heard of each other.
const SETTLING_TIME: Duration = Duration::from_secs(30);
/// Pause between two tries meanwhile.
const SETTLING_PAUSE: Duration = Duration::from_millis(500);
/// Most publishes whose acknowledgement is awaited at a time.
const MOST_IN_FLIGHT: usize = 16_384;

/// What the broker did not do, or is not.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The server is too old.
    #[error(
        "nats-server {found} is too old: Dirigent needs {needed} or newer; upgrade the server, or \
         give the address of another with --nats-url"
    )]
    TooOld {
        /// The version that was found.
        found: String,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// The server, or the account, has no JetStream.
    #[error(
        "nats-server has no JetStream for this account ({reason}): start it with `-js -sd \
         <directory>`, or enable JetStream for the account"
    )]
    NoJetStream {
        /// What the server said.
        reason: String,
    },
    /// A stream or bucket is not as it has to be.
    #[error("the stream {stream} is unfit: {problem}; {remedy}")]
    Unfit {
        /// The stream.
        stream: String,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// The installation has another number of partitions than was asked for.
    #[error(
        "the installation has {found} partitions and {asked} were asked for: the number is fixed \
         when the installation is created; leave the setting out, or use another NATS account"
    )]
    Partitions {
        /// As many as it has.
        found: u16,
        /// As many as were asked for.
        asked: u16,
    },
    /// A request to the broker failed.
    #[error("{what}: {reason}")]
    Request {
        /// What it was about.
        what: String,
        /// What went wrong.
        reason: String,
    },
    /// Something stored by an earlier version, or by a stranger.
    #[error("{what} cannot be read")]
    Unreadable {
        /// What it is.
        what: String,
    },
    /// The connection was closed for good.
    #[error("the connection to the broker was closed")]
    Closed,
}

impl BrokerError {
    /// A failed request, with all that is known of why.
    pub(crate) fn request(what: String, error: &dyn Error) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !reason.contains(&cause_text) {
                reason = format!("{reason}: {cause_text}");
            }
            source = cause.source();
        }
        Self::Request { what, reason }
    }
}

/// Everything that a coordinator holds of the broker.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) client: Client,
    pub(crate) context: Context,
    pub(crate) publisher: Publisher,
    pub(crate) snapshots: Snapshots,
    pub(crate) objects: Objects,
    pub(crate) definitions: DefinitionStore,
    /// Leases, members and settings.
    pub(crate) bucket: Store,
    pub(crate) payloads: Payloads,
    pub(crate) installation: Installation,
    /// How many partitions the installation has.
    pub(crate) partitions: u16,
    /// Version of the server.
    pub(crate) server: String,
    /// What an acknowledged write survives, in words.
    pub(crate) durability: String,
    pub(crate) metrics: Metrics,
    /// Whether payloads, and words that may quote them, are logged.
    pub(crate) log_payloads: bool,
}

impl Broker {
    /// Checks the broker, and creates what is missing on it.
    pub(crate) async fn open(client: Client, settings: &Settings) -> Result<Self, BrokerError> {
        let context = ContextBuilder::new()
            .timeout(ANSWER_TIME)
            .max_ack_inflight(MOST_IN_FLIGHT)
            .backpressure_on_inflight(true)
            .build(client.clone());
        // A client may still be on its first attempt to connect; then nothing is known of the server.
        client.flush().await.map_err(|_| BrokerError::Closed)?;
        let assets = Self::prepare(&client, &context, settings).await?;
        let payloads = Payloads::new(context.clone());
        let metrics = settings.metrics.clone();
        Ok(Self {
            publisher: Publisher::start(client.clone(), payloads.clone(), metrics)
                .await
                .map_err(|_| BrokerError::Closed)?,
            snapshots: Snapshots::new(
                context.clone(),
                assets.sagas,
                assets.partitions_bucket.clone(),
                payloads.clone(),
                settings.metrics.clone(),
            ),
            payloads,
            objects: Objects::new(context.clone()),
            definitions: DefinitionStore::open(assets.definitions).await?,
            bucket: assets.partitions_bucket,
            partitions: assets.installation.partitions(),
            installation: assets.installation,
            server: client.server_info().version,
            durability: assets.durability,
            metrics: settings.metrics.clone(),
            log_payloads: settings.log_payloads,
            client,
            context,
        })
    }

    async fn prepare(
        client: &Client,
        context: &Context,
        settings: &Settings,
    ) -> Result<Assets, BrokerError> {
        let began = Instant::now();
        loop {
            match assets::prepare(client, context, settings).await {
                Err(error @ BrokerError::Request { .. }) if began.elapsed() < SETTLING_TIME => {
                    tracing::warn!(%error, "the broker is not ready; trying on");
                    tokio::time::sleep(SETTLING_PAUSE).await;
                }
                prepared => return prepared,
            }
        }
    }
}
