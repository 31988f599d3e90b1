//! A running coordinator: what is started, in which order, and how it stops.

use crate::{
    admission::{self, Admission},
    api,
    broker::{Broker, BrokerError, publisher::Publisher},
    definitions::Definitions,
    metrics::{self, Readiness},
    partition::{Owners, Ownership, OwnershipError, Refold, Tools},
    router::Router,
    settings::Settings,
    spans::{Sampling, Spans},
    telemetry::Telemetry,
};
use async_nats::Client;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The broker is not fit for it, or did not do its part.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The request endpoints could not be opened.
    #[error("the endpoints of {prefix}.> cannot be opened: {reason}", prefix = dirigent_contracts::subject::API_PREFIX)]
    Api {
        /// Why not.
        reason: String,
    },
    /// The metrics cannot be served.
    #[error("metrics cannot be served on {address}: {error}; name another address")]
    Metrics {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
}

/// A coordinator at work.
#[derive(Debug)]
pub struct Coordinator {
    stop: CancellationToken,
    ownership: JoinHandle<Result<(), OwnershipError>>,
    router: JoinHandle<()>,
    api: JoinHandle<()>,
    /// What looks at queues and shows metrics. Nothing is lost when it ends.
    watches: JoinSet<()>,
    metrics_address: Option<SocketAddr>,
    publisher: Publisher,
    partitions: u16,
    durability: String,
}

impl Coordinator {
    /// Checks the broker, creates what is missing on it, and begins to work.
    ///
    /// # Errors
    /// If the broker is not fit, with what to do about it.
    pub async fn start(
        client: Client,
        settings: Settings,
        telemetry: Telemetry,
    ) -> Result<Self, StartError> {
        // Boxed: whoever awaits it need not have room for all that is made on the way.
        Box::pin(Self::begin(client, settings, telemetry)).await
    }

    async fn begin(
        client: Client,
        settings: Settings,
        telemetry: Telemetry,
    ) -> Result<Self, StartError> {
        let broker = Arc::new(Broker::open(client, &settings).await?);
        tracing::info!(
            name = settings.name,
            server = broker.server,
            partitions = broker.partitions,
            durability = broker.durability,
            "the coordinator starts"
        );
        let page = listen(settings.metrics_listen).await?;
        let metrics = settings.metrics.clone();
        let settings = Arc::new(settings);
        let definitions = Definitions::new(broker.definitions.clone());
        let owners = Owners::default();
        let admission = Admission::new(broker.partitions, &settings);
        let refold = Refold {
            snapshots: broker.snapshots.clone(),
            definitions: definitions.clone(),
            probe: settings.probe,
        };
        let tools = Tools {
            client: broker.client.clone(),
            context: broker.context.clone(),
            publisher: broker.publisher.clone(),
            snapshots: broker.snapshots.clone(),
            objects: broker.objects.clone(),
            definitions: definitions.clone(),
            installation: broker.installation.clone(),
            refold: refold.clone(),
            spans: Spans::new(telemetry, Sampling::from_environment()),
            settings: Arc::clone(&settings),
            admission: admission.clone(),
            partitions: broker.partitions,
        };
        let stop = CancellationToken::new();
        let router = Router::new(
            broker.clone(),
            definitions.clone(),
            admission.clone(),
            Arc::clone(&settings),
        );
        let api = api::Api {
            broker: broker.clone(),
            definitions,
            refold,
            router: router.clone(),
            owners: owners.clone(),
            admission: admission.clone(),
            settings: Arc::clone(&settings),
        };
        let api = api::serve(api, stop.clone());
        let api = api.await.map_err(|reason| StartError::Api { reason })?;
        let metrics_address = page.as_ref().and_then(|page| page.local_addr().ok());
        let mut watches = JoinSet::new();
        watches.spawn(admission::watch(broker.clone(), admission, stop.clone()));
        if let Some(page) = page {
            let readiness = Readiness {
                client: broker.client.clone(),
                owners: owners.clone(),
                metrics: metrics.clone(),
            };
            watches.spawn(metrics::serve(page, readiness, stop.clone()));
        }
        watches.spawn(metrics::poll(broker.clone(), metrics.clone(), stop.clone()));
        let (client, name) = (broker.client.clone(), settings.name.clone());
        watches.spawn(metrics::answer(client, name, metrics, stop.clone()));
        let ownership = Ownership::new(broker.bucket.clone(), tools, owners);
        Ok(Self {
            partitions: broker.partitions,
            durability: broker.durability.clone(),
            publisher: broker.publisher.clone(),
            ownership: tokio::spawn(ownership.run(stop.clone())),
            router: tokio::spawn(router.run(stop.clone())),
            api,
            watches,
            metrics_address,
            stop,
        })
    }

    /// How many partitions the installation has.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// What an acknowledged write survives, in words.
    pub fn durability(&self) -> &str {
        &self.durability
    }

    /// Where its metrics are served, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Waits until it cannot go on, and says why.
    pub async fn failed(&mut self) -> String {
        let ownership = tokio::select! {
            ended = &mut self.ownership => ended,
            () = self.publisher.ended() => {
                return "what publishes its messages broke off".to_owned();
            }
        };
        match ownership {
            Ok(Ok(())) => "it was stopped".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("the owner of its partitions broke off: {error}"),
        }
    }

    /// Stops: answers what was asked, saves everything, and gives the partitions back.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if !self.ownership.is_finished() {
            report("ownership", self.ownership.await.map(drop));
        }
        report("router", self.router.await);
        report("api", self.api.await);
        while let Some(ended) = self.watches.join_next().await {
            report("a watch", ended);
        }
    }
}

async fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| StartError::Metrics { address, error })?;
    Ok(Some(listener))
}

fn report(part: &str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(part, %error, "a part of the coordinator broke off");
    }
}
