//! In the coordinator's place: reads the journals, and publishes what comes next by a counter.

use super::{
    check, parse,
    recording::{Recording, Recordings, run_of},
    tell_ready,
};
use crate::{bench::workload::Order, trouble::Trouble};
use async_nats::{
    Client, Subject,
    jetstream::{
        self,
        consumer::{DeliverPolicy, pull::OrderedConfig},
    },
};
use dirigent_contracts::{id::PartitionId, subject};
use futures::{StreamExt as _, stream::SelectAll};
use std::collections::HashMap;

/// Most messages that are not acknowledged; then the journals wait.
const MOST_OWED: usize = 8_192;

pub(super) async fn coordinate(client: &Client, recordings: &Recordings) -> Result<(), Trouble> {
    let context = jetstream::new(client.clone());
    let mut journals = SelectAll::new();
    for partition in (0..recordings.partitions).map(PartitionId) {
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::New,
            ..OrderedConfig::default()
        };
        let stream = subject::journal_stream(partition);
        let consumer = context.create_consumer_on_stream(config, stream).await;
        let messages = consumer.map_err(Trouble::bench)?.messages().await;
        journals.push(messages.map_err(Trouble::bench)?);
    }
    let inbox = Subject::from(client.new_inbox());
    let acknowledged = client.subscribe(inbox.clone()).await;
    let mut acknowledged = acknowledged.map_err(Trouble::bench)?;
    client.flush().await.map_err(Trouble::bench)?;
    tell_ready()?;
    let mut conductor = Conductor {
        client,
        recordings,
        inbox,
        owed: 0,
        left: HashMap::new(),
    };
    loop {
        tokio::select! {
            biased;
            Some(message) = acknowledged.next() => {
                check(&message)?;
                conductor.owed -= 1;
            }
            Some(entry) = journals.next(), if conductor.owed < MOST_OWED => {
                let entry = entry.map_err(Trouble::bench)?;
                conductor.take(&entry.subject, &entry.payload).await?;
            }
            else => return Ok(()),
        }
    }
}

struct Conductor<'a> {
    client: &'a Client,
    recordings: &'a Recordings,
    inbox: Subject,
    /// Messages that are not acknowledged.
    owed: usize,
    /// How many replies each saga waits for whose steps run in parallel.
    left: HashMap<String, usize>,
}

impl Conductor<'_> {
    /// Takes in an entry: `dirigent.journal.<partition>.<definition>.<key>.<kind>...`.
    async fn take(&mut self, subject: &str, body: &[u8]) -> Result<(), Trouble> {
        let mut tokens = subject.split('.').skip(2);
        let mut token = || tokens.next().unwrap_or_default();
        let (partition, definition, key, kind) = (token(), token(), token(), token());
        let recording = self.recordings.of(definition)?;
        let saga = Saga {
            partition,
            definition,
            key,
            run: run_of(key),
        };
        let steps = recording.steps.len();
        match (recording.order, kind) {
            (Order::Sequence, "start") => self.command(&saga, recording, 0).await,
            (Order::Sequence, _) => {
                let next = usize::from(parse(body)?.0) + 1;
                if next < steps {
                    self.command(&saga, recording, next).await
                } else {
                    self.outcome(&saga, recording).await
                }
            }
            (Order::Parallel, "start") => {
                self.left.insert(key.to_owned(), steps);
                for step in 0..steps {
                    self.command(&saga, recording, step).await?;
                }
                Ok(())
            }
            (Order::Parallel, _) => {
                let left = self.left.get_mut(key);
                let left = left.ok_or_else(|| Trouble::bench("a reply for nobody"))?;
                *left -= 1;
                if *left > 0 {
                    return Ok(());
                }
                self.left.remove(key);
                self.outcome(&saga, recording).await
            }
        }
    }

    async fn command(
        &mut self,
        saga: &Saga<'_>,
        recording: &Recording,
        number: usize,
    ) -> Result<(), Trouble> {
        let step = &recording.steps[number];
        let number = u16::try_from(number).map_err(Trouble::bench)?;
        let Saga {
            partition,
            definition,
            key,
            run,
        } = saga;
        let task = dirigent_contracts::token::encode(step.task.as_str());
        let id = step.command.message_id(run);
        let reply_to = format!("dirigent.journal.{partition}.{definition}.{key}.reply.{task}");
        let body = step.command.body(number, &reply_to);
        let subject = format!("dirigent.command.{task}.{id}");
        self.publish(subject, step.command.headers(run), body).await
    }

    async fn outcome(&mut self, saga: &Saga<'_>, recording: &Recording) -> Result<(), Trouble> {
        let Saga {
            definition,
            key,
            run,
            ..
        } = saga;
        let subject = format!("dirigent.event.{definition}.{key}.{}", recording.status);
        let letter = &recording.outcome;
        self.publish(subject, letter.headers(run), letter.body(0, ""))
            .await
    }

    async fn publish(
        &mut self,
        subject: String,
        headers: async_nats::HeaderMap,
        body: bytes::Bytes,
    ) -> Result<(), Trouble> {
        self.owed += 1;
        self.client
            .publish_with_reply_and_headers(subject, self.inbox.clone(), headers, body)
            .await
            .map_err(Trouble::bench)
    }
}

struct Saga<'a> {
    partition: &'a str,
    definition: &'a str,
    key: &'a str,
    run: String,
}
