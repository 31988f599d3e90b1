//! Reading a stream through a shared durable consumer: many messages at a time, each acknowledged
//! when what follows from it is stored, and given back when it is not.

use super::rule::Feed;
use async_nats::jetstream::{
    self, AckKind, Context, ErrorCode,
    consumer::PullConsumer,
    stream::{ConsumerError, ConsumerErrorKind},
};
use futures::{StreamExt, stream::FuturesUnordered};
use std::{collections::BTreeMap, future::Future, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Pause before the broker is tried again.
pub(super) const REST: Duration = Duration::from_millis(500);
/// How often rules and consumers are looked at when nothing is known to have changed.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Pause before a message that was given back comes again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Messages of a stream that one coordinator works on at a time.
const MOST_AT_ONCE: usize = 512;

/// One task for each consumer that is listened to.
#[derive(Debug, Default)]
pub(super) struct Listeners(BTreeMap<(String, Feed), JoinHandle<()>>);

impl Listeners {
    /// Listens to a consumer, if nobody does yet. `act` says whether a message is done with.
    pub(super) fn ensure<F, Fut>(
        &mut self,
        context: &Context,
        listened: (String, Feed),
        stop: &CancellationToken,
        act: F,
    ) where
        F: Fn(jetstream::Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = bool> + Send + 'static,
    {
        let known = self.0.get(&listened);
        if known.is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (stream, feed) = listened.clone();
        let task = tokio::spawn(listen(
            context.clone(),
            stream,
            feed.consumer(),
            stop.clone(),
            act,
        ));
        self.0.insert(listened, task);
    }

    /// The streams whose consumers are gone. They are not listened to any more.
    pub(super) fn gone(&mut self) -> Vec<String> {
        let ended = self.0.extract_if(.., |_, task| task.is_finished());
        ended.map(|((stream, _), _)| stream).collect()
    }

    /// Waits until all have ended.
    pub(super) async fn ended(self) {
        for ((stream, _), task) in self.0 {
            if let Err(error) = task.await {
                tracing::error!(stream, %error, "listening broke off");
            }
        }
    }
}

/// Why reading broke off.
enum Trouble {
    /// The consumer was deleted, or its stream.
    Gone,
    /// It can be tried again.
    Passing(String),
}

/// Listens until `stop`, or until the consumer is gone; works off what was begun.
pub(super) async fn listen<F, Fut>(
    context: Context,
    stream: String,
    consumer: &'static str,
    stop: CancellationToken,
    act: F,
) where
    F: Fn(jetstream::Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = bool> + Send + 'static,
{
    while !stop.is_cancelled() {
        match consume(&context, &stream, consumer, &stop, &act).await {
            Ok(()) => {}
            Err(Trouble::Passing(error)) => {
                tracing::warn!(stream, error, "events cannot be read; trying on");
            }
            Err(Trouble::Gone) => {
                tracing::warn!(
                    stream,
                    consumer,
                    "the consumer was deleted: a new one hears what comes from then on"
                );
                return;
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(REST) => {}
        }
    }
}

async fn consume<F, Fut>(
    context: &Context,
    stream: &str,
    consumer: &str,
    stop: &CancellationToken,
    act: &F,
) -> Result<(), Trouble>
where
    F: Fn(jetstream::Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = bool> + Send + 'static,
{
    let passing = |error: &dyn std::error::Error| Trouble::Passing(error.to_string());
    let found = context.get_consumer_from_stream(consumer, stream).await;
    let consumer: PullConsumer = found.map_err(|error| {
        if is_not_found(&error) {
            Trouble::Gone
        } else {
            passing(&error)
        }
    })?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(MOST_AT_ONCE)
        .messages()
        .await
        .map_err(|error| passing(&error))?;
    let mut running = FuturesUnordered::new();
    let result = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(()) = running.next(), if !running.is_empty() => {}
            message = messages.next(), if running.len() < MOST_AT_ONCE => match message {
                Some(Ok(message)) => running.push(work(message, act)),
                Some(Err(error)) => break Err(passing(&error)),
                None => break Ok(()),
            },
        }
    };
    while running.next().await.is_some() {}
    result
}

fn is_not_found(error: &ConsumerError) -> bool {
    let ConsumerErrorKind::JetStream(said) = error.kind() else {
        return false;
    };
    [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND].contains(&said.error_code())
}

async fn work<F, Fut>(message: jetstream::Message, act: &F)
where
    F: Fn(jetstream::Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = bool> + Send + 'static,
{
    let acker = message.clone();
    let kind = if act(message).await {
        AckKind::Ack
    } else {
        AckKind::Nak(Some(AGAIN_AFTER))
    };
    if let Err(error) = acker.ack_with(kind).await {
        // It comes again, and everything that follows from it has its id.
        tracing::debug!(%error, "an event was not acknowledged");
    }
}
