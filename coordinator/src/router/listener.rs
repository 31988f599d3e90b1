//! Reading a stream through a shared durable consumer: many messages at a time, each acknowledged
//! when what follows from it is stored, and given back when it is not.

use super::rule::Feed;
use async_nats::jetstream::{self, AckKind, Context, consumer::PullConsumer};
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

    /// Waits until all have ended.
    pub(super) async fn ended(self) {
        for ((stream, _), task) in self.0 {
            if let Err(error) = task.await {
                tracing::error!(stream, %error, "listening broke off");
            }
        }
    }
}

/// Listens until `stop`; works off what was begun.
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
        if let Err(error) = consume(&context, &stream, consumer, &stop, &act).await {
            tracing::warn!(stream, error, "events cannot be read; trying on");
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
) -> Result<(), String>
where
    F: Fn(jetstream::Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = bool> + Send + 'static,
{
    let consumer: PullConsumer = context
        .get_consumer_from_stream(consumer, stream)
        .await
        .map_err(|error| error.to_string())?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(MOST_AT_ONCE)
        .messages()
        .await
        .map_err(|error| error.to_string())?;
    let mut running = FuturesUnordered::new();
    let result = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(()) = running.next(), if !running.is_empty() => {}
            message = messages.next(), if running.len() < MOST_AT_ONCE => match message {
                Some(Ok(message)) => running.push(work(message, act)),
                Some(Err(error)) => break Err(error.to_string()),
                None => break Ok(()),
            },
        }
    };
    while running.next().await.is_some() {}
    result
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
