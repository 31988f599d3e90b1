//! A real broker with a coordinator on it, and the requests that a test makes of them.

pub use crate::request::Refused;
use crate::{nats::NatsServer, request::request_raw};
use anyhow::{Context as _, bail};
use async_nats::{Client, client::RequestError};
use dirigent_contracts::{
    api::{
        DeployAnswer, DeployRequest, DescribeRequest, ErrorCode, HistoryRequest, Operation,
        SagaDescription, StartAnswer, StartRequest,
    },
    header,
    history::HistoryEvent,
    id::SagaAddress,
    outcome::SagaStatus,
};
use dirigent_coordinator::{Coordinator, Settings, telemetry::Telemetry};
use futures::StreamExt;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long a test waits for what must come; generous, so that a slow machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A broker, a coordinator, and a connection.
#[derive(Debug)]
pub struct Stage {
    /// The broker.
    pub nats: NatsServer,
    /// A connection to it.
    pub client: Client,
    /// The coordinator, if one runs in this process.
    pub coordinator: Option<Coordinator>,
}

/// Settings that suit tests: small, and quick to save.
pub fn settings(name: &str) -> Settings {
    Settings {
        name: name.to_owned(),
        partitions: Some(2),
        snapshot_interval: Duration::from_millis(200),
        ..Settings::default()
    }
}

impl Stage {
    /// Starts all three.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_traced(Telemetry::default()).await
    }

    /// Starts all three; the coordinator's spans go where `telemetry` says.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start_traced(telemetry: Telemetry) -> anyhow::Result<Self> {
        Self::start_all(settings("test"), telemetry).await
    }

    /// Starts all three; the coordinator with these settings.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start_with(settings: Settings) -> anyhow::Result<Self> {
        Self::start_all(settings, Telemetry::default()).await
    }

    async fn start_all(settings: Settings, telemetry: Telemetry) -> anyhow::Result<Self> {
        let mut stage = Self::start_without_coordinator().await?;
        let client = stage.nats.connect().await?;
        stage.coordinator = Some(Coordinator::start(client, settings, telemetry).await?);
        Ok(stage)
    }

    /// Starts the broker alone.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_without_coordinator() -> anyhow::Result<Self> {
        let nats = NatsServer::start().await?;
        let client = nats.connect().await?;
        Ok(Self {
            nats,
            client,
            coordinator: None,
        })
    }

    /// Makes a request, and gives the answer or the refusal. Repeated while nobody answers.
    ///
    /// # Errors
    /// If it is refused, as [`Refused`]; if nobody answers for long.
    pub async fn request<O: Operation>(&self, request: &O) -> anyhow::Result<O::Answer> {
        let body = serde_json::to_vec(request)?;
        self.request_raw(O::NAME, body).await.and_then(|answer| {
            serde_json::from_slice(&answer).with_context(|| {
                format!(
                    "the answer to {} is {}",
                    O::NAME,
                    String::from_utf8_lossy(&answer)
                )
            })
        })
    }

    /// Makes a request with these bytes.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn request_raw(&self, operation: &str, body: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let error = match request_raw(&self.client, operation, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let is_final = match error.downcast_ref::<Refused>() {
                Some(refused) => refused.code != ErrorCode::Unavailable,
                None => error.downcast_ref::<RequestError>().is_none(),
            };
            if is_final || Instant::now() > until {
                return Err(error);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Deploys a document.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn deploy(&self, name: &str, document: &str) -> anyhow::Result<DeployAnswer> {
        let request = DeployRequest {
            name: name.parse()?,
            document: document.to_owned(),
        };
        self.request(&request).await
    }

    /// Starts a saga.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn begin(&self, name: &str, key: &str, input: Value) -> anyhow::Result<StartAnswer> {
        let SagaAddress { definition, key } = address(name, key)?;
        let request = StartRequest {
            definition,
            key: Some(key),
            input,
            digest: None,
        };
        self.request(&request).await
    }

    /// How a saga stands.
    ///
    /// # Errors
    /// If it is not known.
    pub async fn describe(&self, name: &str, key: &str) -> anyhow::Result<SagaDescription> {
        self.request(&DescribeRequest {
            saga: address(name, key)?,
        })
        .await
    }

    /// What happened to a saga.
    ///
    /// # Errors
    /// If it is not known.
    pub async fn history(&self, name: &str, key: &str) -> anyhow::Result<Vec<HistoryEvent>> {
        let request = HistoryRequest {
            saga: address(name, key)?,
            from: None,
        };
        Ok(self.request(&request).await?.events)
    }

    /// Waits until a saga, which may not have started yet, is as wanted.
    ///
    /// # Errors
    /// If it does not become so; tells its history.
    pub async fn until(
        &self,
        name: &str,
        key: &str,
        wanted: impl Fn(&SagaDescription) -> bool,
    ) -> anyhow::Result<SagaDescription> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.describe(name, key).await {
                Ok(description) if wanted(&description) => return Ok(description),
                Ok(description) if Instant::now() > until => {
                    let history = self.history(name, key).await?;
                    bail!("{name}/{key} stands at {description:#?} after {history:#?}");
                }
                Err(error) if Instant::now() > until => return Err(error),
                Err(error) => match error.downcast_ref::<Refused>() {
                    Some(Refused {
                        code: ErrorCode::NotFound,
                        ..
                    }) => {}
                    _ => return Err(error),
                },
                Ok(_) => {}
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until a saga is over.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub async fn ended(&self, name: &str, key: &str) -> anyhow::Result<SagaDescription> {
        self.until(name, key, |saga| saga.status.is_terminal())
            .await
    }

    /// Waits until a saga stands so.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub async fn stands(
        &self,
        name: &str,
        key: &str,
        status: SagaStatus,
    ) -> anyhow::Result<SagaDescription> {
        self.until(name, key, |saga| saga.status == status).await
    }

    /// Starts a saga and waits until it is over.
    ///
    /// # Errors
    /// As [`Self::begin`] and [`Self::ended`].
    pub async fn run(
        &self,
        name: &str,
        key: &str,
        input: Value,
    ) -> anyhow::Result<SagaDescription> {
        self.begin(name, key, input).await?;
        self.ended(name, key).await
    }

    /// From now on, stores every message of the journals and of the commands a second time, without
    /// the id that would reveal it, until the task that is given is aborted.
    ///
    /// # Errors
    /// If the broker cannot be reached.
    pub async fn double_everything(&self) -> anyhow::Result<tokio::task::JoinHandle<()>> {
        const DOUBLED: &str = "Doubled";
        let client = self.nats.connect().await?;
        let journals = client.subscribe("dirigent.journal.>").await?;
        let commands = client.subscribe("dirigent.command.>").await?;
        let mut messages = futures::stream::select(journals, commands);
        Ok(tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let headers = message.headers.clone().unwrap_or_default();
                if headers.get(DOUBLED).is_some() {
                    continue;
                }
                let mut doubled = async_nats::HeaderMap::new();
                doubled.insert(DOUBLED, "1");
                for kept in [header::EXPECTED_LAST_SUBJECT_SEQUENCE, header::PAYLOAD] {
                    if let Some(value) = headers.get(kept) {
                        doubled.insert(kept, value.clone());
                    }
                }
                let _ = client
                    .publish_with_headers(message.subject, doubled, message.payload)
                    .await;
            }
        }))
    }

    /// How many messages a stream holds.
    ///
    /// # Errors
    /// If there is no such stream.
    pub async fn messages(&self, stream: &str) -> anyhow::Result<u64> {
        let stream = async_nats::jetstream::new(self.client.clone())
            .get_stream(stream)
            .await?;
        Ok(stream.cached_info().state.messages)
    }
}

/// A saga's address, from words.
///
/// # Errors
/// If they are none.
pub fn address(name: &str, key: &str) -> anyhow::Result<SagaAddress> {
    Ok(SagaAddress {
        definition: name.parse()?,
        key: key.parse()?,
    })
}

/// The words of a history that matter to most tests, such as `done Charge` and `undone Reserve`.
pub fn story(history: &[HistoryEvent]) -> Vec<String> {
    use dirigent_contracts::history::Happening;
    let mut story = Vec::new();
    for event in history {
        story.push(match &event.what {
            Happening::StateExited { state, .. } => format!("done {state}"),
            Happening::StateAborted {
                state,
                has_members: false,
                ..
            } => format!("aborted {state}"),
            Happening::RetryScheduled { state, .. } => format!("retry {state}"),
            Happening::ErrorCaught { state, .. } => format!("caught {state}"),
            Happening::StepUndone { state } => format!("undone {state}"),
            Happening::Stuck { state, .. } => format!("stuck {state}"),
            Happening::SagaEnded { outcome } => outcome.status.to_string(),
            _ => continue,
        });
    }
    story
}
