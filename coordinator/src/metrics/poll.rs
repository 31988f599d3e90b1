//! A look at the broker every now and then: how far journals have grown, what waits for workers, and
//! how long the broker takes to answer.
//!
//! A coordinator looks at the journals of its own partitions. What belongs to nobody, the tasks and the
//! dead letters, is told by the owner of partition 0 alone, so that sums over coordinators are right.

use super::{
    Metrics,
    observed::{self, Task},
    reference::MOST_TASKS,
};
use crate::{
    broker::{Broker, BrokerError, journal},
    partition::now,
};
use async_nats::jetstream::{
    consumer::Info,
    stream::{DirectGetErrorKind, Stream},
};
use dirigent_contracts::{id::PartitionId, subject, token};
use futures::TryStreamExt;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Looks until `stop`.
pub(crate) async fn poll(broker: Arc<Broker>, metrics: Metrics, stop: CancellationToken) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = tokio::time::timeout(LIMIT, look(&broker, &metrics)) => looked,
        };
        match looked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => unanswered(&metrics, &error),
            Err(elapsed) => unanswered(&metrics, &elapsed),
        }
    }
}

fn unanswered(metrics: &Metrics, error: &dyn std::fmt::Display) {
    tracing::debug!(%error, "the broker could not be looked at");
    metrics.instruments().broker_unanswered.add(1, &[]);
}

async fn look(broker: &Broker, metrics: &Metrics) -> Result<(), BrokerError> {
    let asked = Instant::now();
    let account = broker.context.query_account().await;
    account.map_err(|error| BrokerError::request("the account".to_owned(), &error))?;
    metrics
        .instruments()
        .broker_round_trip
        .record(asked.elapsed().as_secs_f64(), &[]);
    let partitions = metrics.0.observed.partitions();
    for (partition, owned) in &partitions {
        let journal = stream(broker, &subject::journal_stream(*partition)).await?;
        owned.set_end(journal.cached_info().state.last_sequence);
    }
    let everybodys = if partitions.contains_key(&PartitionId(0)) {
        Some(look_at_tasks(broker).await?)
    } else {
        None
    };
    metrics.0.observed.set_broker(everybodys);
    Ok(())
}

async fn look_at_tasks(broker: &Broker) -> Result<observed::Broker, BrokerError> {
    let commands = stream(broker, subject::COMMANDS_STREAM).await?;
    let mut seen = observed::Broker {
        dead_letters: stream(broker, subject::DEAD_LETTERS_STREAM)
            .await?
            .cached_info()
            .state
            .messages,
        ..observed::Broker::default()
    };
    let mut consumers = commands.consumers();
    while seen.tasks.len() < MOST_TASKS {
        let next = consumers.try_next().await;
        let failed =
            |error: &_| BrokerError::request("the consumers of commands".to_owned(), error);
        let Some(consumer) = next.map_err(|error| failed(&error))? else {
            break;
        };
        let Ok(name) = token::decode(&consumer.name) else {
            continue;
        };
        let task = task(&commands, &consumer).await?;
        seen.tasks.insert(name, task);
    }
    Ok(seen)
}

async fn task(commands: &Stream, consumer: &Info) -> Result<Task, BrokerError> {
    let mut task = Task {
        backlog: consumer.num_pending,
        in_progress: consumer.num_ack_pending as u64,
        pulls: consumer.num_waiting as u64,
        oldest: Duration::ZERO,
    };
    if task.backlog + task.in_progress > 0 {
        // What is answered leaves the stream, so the first that stands there is the oldest.
        let filter = consumer.config.filter_subject.as_str();
        match commands.direct_get_first_for_subject(filter).await {
            Ok(first) => task.oldest = now().since(journal::timestamp(first.time)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {}
            Err(error) => return Err(BrokerError::request(filter.to_owned(), &error)),
        }
    }
    Ok(task)
}

async fn stream(broker: &Broker, name: &str) -> Result<Stream, BrokerError> {
    let stream = broker.context.get_stream(name).await;
    stream.map_err(|error| BrokerError::request(format!("the stream {name}"), &error))
}
