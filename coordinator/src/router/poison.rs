//! Commands that the broker has given up on: it delivered them as often as it may, and got no answer.
//!
//! The broker only tells of it once, in an advisory; a stream of ours keeps those, so that none is
//! missed while no coordinator listens. Each becomes an entry of the saga that asked.

use super::{capture::Captures, listener};
use crate::{
    broker::{Broker, assets, journal, publisher::Published},
    partition::messages,
};
use async_nats::jetstream::{self, stream::Config};
use dirigent_contracts::{
    envelope,
    header::{self, TraceContext},
    journal::Control,
    subject,
    task::Command,
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How long they are kept.
const RETENTION: Duration = Duration::from_hours(7 * 24);

/// What we read of an advisory (`io.nats.jetstream.advisory.v1.max_deliver`).
#[derive(Debug, Deserialize)]
struct Advisory {
    stream_seq: u64,
    deliveries: u64,
}

/// Listens until `stop`.
pub(super) async fn listen(broker: Arc<Broker>, captures: Captures, stop: CancellationToken) {
    let subject = format!(
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{}.*",
        subject::COMMANDS_STREAM
    );
    while !stop.is_cancelled() {
        let config = Config {
            name: subject::ADVISORIES_STREAM.to_owned(),
            subjects: vec![subject.clone()],
            description: Some("Commands that were delivered too often".to_owned()),
            max_age: RETENTION,
            num_replicas: captures.replicas(),
            ..Config::default()
        };
        let prepared = async {
            assets::ensure_stream_exists(&broker.context, config).await?;
            let consumer = subject::ROUTER_CONSUMER;
            captures
                .listen(subject::ADVISORIES_STREAM, &subject, consumer)
                .await
        };
        match prepared.await {
            Ok(()) => {
                let (context, broker) = (broker.context.clone(), broker.clone());
                let act = move |message| {
                    let broker = broker.clone();
                    async move { take(&broker, message).await }
                };
                let (stream, consumer) = (subject::ADVISORIES_STREAM, subject::ROUTER_CONSUMER);
                listener::listen(context, stream.to_owned(), consumer, stop.clone(), act).await;
            }
            Err(error) => {
                tracing::warn!(%error, "poison commands cannot be listened for; trying on");
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(listener::LOOK_INTERVAL) => {}
        }
    }
}

async fn take(broker: &Broker, message: jetstream::Message) -> bool {
    let Ok(advisory) = serde_json::from_slice::<Advisory>(&message.payload) else {
        tracing::error!(subject = %message.subject, "an advisory of the broker cannot be read");
        return true;
    };
    let Ok(stream) = broker
        .context
        .get_stream_no_info(subject::COMMANDS_STREAM)
        .await
    else {
        return false;
    };
    let stored = match stream.direct_get(advisory.stream_seq).await {
        Ok(stored) => stored,
        // It was answered after all, and is gone.
        Err(error) if error.kind() == jetstream::stream::DirectGetErrorKind::NotFound => {
            return true;
        }
        Err(_) => return false,
    };
    let body = journal::whole(
        &broker.payloads,
        Some(&stored.headers),
        stored.payload.clone(),
    )
    .await;
    let Ok(command) = envelope::decode::<Command>(&body) else {
        tracing::error!(subject = %stored.subject, "a command that nobody can read was delivered in vain");
        return true;
    };
    let trace = stored.headers.get(header::TRACE_PARENT);
    let trace = trace.and_then(|value| TraceContext::parse(value.as_str()));
    tracing::error!(
        definition = %command.saga.definition,
        key = %command.saga.key,
        partition = command.partition.0,
        trace_id = trace.map(|trace| format!("{:032x}", trace.trace)),
        task = %command.task,
        command = %command.command,
        deliveries = advisory.deliveries,
        "a command was delivered in vain: its saga needs a person"
    );
    let poison = Control::Poison {
        command: command.command,
        deliveries: advisory.deliveries,
    };
    let message_id = format!("{}.p", command.command);
    let entry = messages::control(command.partition, &command.saga, poison, message_id);
    if !matches!(
        broker.publisher.publish(entry).await,
        Published::Stored { .. }
    ) {
        return false;
    }
    // Nobody will be given it again; a Retry asks with a new command.
    if let Err(error) = stream.delete_message(advisory.stream_seq).await {
        tracing::debug!(%error, "a poison command stays where it is");
    }
    true
}
