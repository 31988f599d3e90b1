//! Pulling the commands of one task from its consumer.
//!
//! Invariant: what has been asked for and has not come never exceeds the capacity given to
//! [`Puller::next`], so a worker holds no command that another could run at once. What is asked for
//! is forgotten whenever it may be lost: after a reconnection, and when the broker falls silent.

use async_nats::{
    Client, Message as Raw, StatusCode, Subscriber,
    jetstream::{
        self,
        consumer::{PullConsumer, pull::BatchConfig},
        message::AckKind,
    },
};
use dirigent_contracts::{consumer::CommandConsumer, id::TaskName, subject::COMMANDS_STREAM};
use futures::{FutureExt as _, StreamExt as _};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tracing::{debug, warn};

/// How long a pull request waits at the broker.
const EXPIRY: Duration = Duration::from_secs(30);
/// How often the broker says that a waiting request still stands.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(5);
/// Silence after which a waiting request is taken as lost: two heartbeats and some.
const SILENCE_LIMIT: Duration = Duration::from_secs(12);
/// How often a reconnection is looked for.
const CONNECTION_POLL: Duration = Duration::from_millis(250);
/// How long the last messages of a subscription may take when it is closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Status of a pull request that the broker ended before it was filled, for many reasons.
const CONFLICT: u16 = 409;
/// Number of messages that an ended pull request still asked for.
const PENDING_MESSAGES: &str = "Nats-Pending-Messages";

/// Why pulling has to start anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// The consumer is not usable: deleted, or not reachable.
    #[error("the broker refused to deliver: {0}")]
    Refused(String),
    /// The connection does not take requests any more.
    #[error("the connection is closed: {0}")]
    Closed(String),
}

/// Why a task's consumer could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the consumer {consumer} of stream {COMMANDS_STREAM} cannot be opened: {reason}")]
pub(crate) struct OpenError {
    consumer: String,
    reason: String,
}

/// Finds the task's consumer, or creates it. One that exists is left as it is.
pub(crate) async fn open_consumer(
    jetstream: &jetstream::Context,
    task: &TaskName,
) -> Result<PullConsumer, OpenError> {
    let wanted = CommandConsumer::of(task);
    let fault = |reason: String| OpenError {
        consumer: wanted.name.clone(),
        reason,
    };
    match jetstream
        .get_consumer_from_stream(&wanted.name, COMMANDS_STREAM)
        .await
    {
        Ok(consumer) => return Ok(consumer),
        Err(error) if !is_not_found(&error) => return Err(fault(error.to_string())),
        Err(_) => {}
    }
    let config = jetstream::consumer::pull::Config {
        durable_name: Some(wanted.name.clone()),
        filter_subject: wanted.filter_subject.clone(),
        ack_policy: jetstream::consumer::AckPolicy::Explicit,
        ack_wait: wanted.ack_wait,
        max_deliver: wanted.max_deliver,
        max_ack_pending: wanted.max_ack_pending,
        max_waiting: wanted.max_waiting,
        ..Default::default()
    };
    // Strict: one that somebody else has created since is not overwritten, the next try finds it.
    jetstream
        .create_consumer_strict_on_stream(config, COMMANDS_STREAM)
        .await
        .map_err(|error| fault(error.to_string()))
}

fn is_not_found(error: &jetstream::stream::ConsumerError) -> bool {
    use jetstream::{ErrorCode, stream::ConsumerErrorKind};
    matches!(error.kind(), ConsumerErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

/// A flow of commands.
pub(crate) struct Puller {
    client: Client,
    jetstream: jetstream::Context,
    consumer: PullConsumer,
    subscriber: Subscriber,
    /// Where the broker delivers to; a new one whenever what was asked for may be lost.
    inbox: String,
    /// Messages asked for that have not come.
    asked: usize,
    heard: Instant,
    /// How often the client had connected when the inbox was opened.
    connects: u64,
}

impl Puller {
    pub(crate) async fn open(
        client: Client,
        jetstream: jetstream::Context,
        consumer: PullConsumer,
    ) -> Result<Self, PullError> {
        let connects = connects(&client);
        let inbox = client.new_inbox();
        let subscriber = subscribe(&client, &inbox).await?;
        let heard = Instant::now();
        Ok(Self {
            client,
            jetstream,
            consumer,
            subscriber,
            inbox,
            asked: 0,
            heard,
            connects,
        })
    }

    /// The next command. Safe to drop at any time.
    pub(crate) async fn next(&mut self, capacity: usize) -> Result<jetstream::Message, PullError> {
        loop {
            if self.is_lost() {
                // What has come before is not lost.
                if let Some(Some(raw)) = self.subscriber.next().now_or_never() {
                    match self.sort(raw)? {
                        Some(message) => return Ok(message),
                        None => continue,
                    }
                }
                self.start_anew().await?;
            }
            self.ask(capacity).await?;
            // What has come already needs no timer.
            let next = match self.subscriber.next().now_or_never() {
                Some(next) => Ok(next),
                None => tokio::time::timeout(CONNECTION_POLL, self.subscriber.next()).await,
            };
            match next {
                Err(_elapsed) => {}
                Ok(None) => return Err(PullError::Closed("the subscription ended".into())),
                Ok(Some(raw)) => {
                    self.heard = Instant::now();
                    if let Some(message) = self.sort(raw)? {
                        return Ok(message);
                    }
                }
            }
        }
    }

    /// Stops pulling, and gives back what has come and was not taken.
    pub(crate) async fn close(mut self) {
        if self.subscriber.drain().await.is_err() {
            return;
        }
        let give_back = async {
            while let Some(raw) = self.subscriber.next().await {
                if let Ok(Some(message)) = self.sort(raw)
                    && let Err(error) = message.ack_with(AckKind::Nak(None)).await
                {
                    debug!(%error, "a command could not be given back; it comes back by itself");
                }
            }
        };
        if tokio::time::timeout(CLOSE_LIMIT, give_back).await.is_err() {
            debug!("the broker does not answer; what it has sent comes back by itself");
        }
    }

    fn is_lost(&self) -> bool {
        let is_silent = self.asked > 0 && self.heard.elapsed() > SILENCE_LIMIT;
        is_silent || self.connects != connects(&self.client)
    }

    async fn start_anew(&mut self) -> Result<(), PullError> {
        let connects = connects(&self.client);
        let inbox = self.client.new_inbox();
        self.subscriber = subscribe(&self.client, &inbox).await?;
        debug!(consumer = self.consumer.cached_info().name, "asking anew");
        (self.inbox, self.connects, self.asked) = (inbox, connects, 0);
        Ok(())
    }

    /// Asks for more once half of what could be out is free, so that requests come in batches.
    async fn ask(&mut self, capacity: usize) -> Result<(), PullError> {
        let free = capacity.saturating_sub(self.asked);
        if free == 0 || free < self.asked {
            return Ok(());
        }
        let request = BatchConfig {
            batch: free,
            expires: Some(EXPIRY),
            idle_heartbeat: IDLE_HEARTBEAT,
            ..Default::default()
        };
        self.consumer
            .request_batch(request, self.inbox.as_str().into())
            .await
            .map_err(|error| PullError::Closed(error.to_string()))?;
        if self.asked == 0 {
            self.heard = Instant::now();
        }
        self.asked += free;
        Ok(())
    }

    /// Keeps the account of what is asked for; gives what is a command.
    fn sort(&mut self, raw: Raw) -> Result<Option<jetstream::Message>, PullError> {
        match raw.status {
            None | Some(StatusCode::OK) => {
                self.asked = self.asked.saturating_sub(1);
                let message = jetstream::Message {
                    message: raw,
                    context: self.jetstream.clone(),
                };
                if message.info().is_err() {
                    warn!(subject = %message.subject, "passed over what is no delivery of a stream");
                    return Ok(None);
                }
                Ok(Some(message))
            }
            Some(StatusCode::IDLE_HEARTBEAT) => Ok(None),
            Some(status) => {
                let rest = raw
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get(PENDING_MESSAGES));
                let rest = rest.and_then(|rest| rest.as_str().parse::<usize>().ok());
                match rest {
                    Some(rest) if status == StatusCode::TIMEOUT || status.as_u16() == CONFLICT => {
                        self.asked = self.asked.saturating_sub(rest);
                        Ok(None)
                    }
                    _ => {
                        let description = raw.description.unwrap_or_default();
                        Err(PullError::Refused(format!("{status} {description}")))
                    }
                }
            }
        }
    }
}

async fn subscribe(client: &Client, inbox: &str) -> Result<Subscriber, PullError> {
    client
        .subscribe(inbox.to_owned())
        .await
        .map_err(|error| PullError::Closed(error.to_string()))
}

fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}
