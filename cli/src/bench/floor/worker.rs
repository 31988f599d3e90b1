//! In the worker's place: stores a reply for each command, and then acknowledges the command.

use super::{
    check, parse,
    recording::{RUN_DIGITS, Recordings},
    tell_ready,
};
use crate::trouble::Trouble;
use async_nats::{
    Client, Message, Subject,
    jetstream::{self, AckKind, consumer::pull},
};
use dirigent_contracts::{consumer::CommandConsumer, subject};
use futures::{StreamExt as _, stream::SelectAll};
use std::collections::HashMap;

/// How many commands a pull request asks for.
const BATCH: usize = 1_000;

pub(super) async fn work(client: &Client, recordings: &Recordings) -> Result<(), Trouble> {
    let context = jetstream::new(client.clone());
    let mut commands = SelectAll::new();
    for task in recordings.tasks() {
        let CommandConsumer { name, .. } = CommandConsumer::of(task);
        // The real worker of the recording has created it.
        let consumer =
            context.get_consumer_from_stream::<pull::Config, _, _>(name, subject::COMMANDS_STREAM);
        let messages = consumer
            .await
            .map_err(Trouble::bench)?
            .stream()
            .max_messages_per_batch(BATCH)
            .messages()
            .await;
        commands.push(messages.map_err(Trouble::bench)?);
    }
    let inbox = client.new_inbox();
    let acknowledged = client.subscribe(format!("{inbox}.*")).await;
    let mut acknowledged = acknowledged.map_err(Trouble::bench)?;
    client.flush().await.map_err(Trouble::bench)?;
    tell_ready()?;
    let mut unacknowledged: HashMap<u64, Subject> = HashMap::new();
    let mut replies = 0;
    loop {
        tokio::select! {
            biased;
            Some(message) = acknowledged.next() => {
                check(&message)?;
                let number = message.subject.rsplit('.').next().and_then(|text| text.parse().ok());
                let command = number.and_then(|number: u64| unacknowledged.remove(&number));
                let command = command.ok_or_else(|| Trouble::bench("an answer for nobody"))?;
                let acknowledgement = bytes::Bytes::from(AckKind::Ack);
                client.publish(command, acknowledgement).await.map_err(Trouble::bench)?;
            }
            Some(command) = commands.next() => {
                let command = command.map_err(Trouble::bench)?;
                replies += 1;
                reply(client, &command.message, recordings, format!("{inbox}.{replies}")).await?;
                if let Some(subject) = command.message.reply {
                    unacknowledged.insert(replies, subject);
                }
            }
            else => return Ok(()),
        }
    }
}

/// Stores the reply to `dirigent.command.<task>.<run>-<step>-<attempt>`.
async fn reply(
    client: &Client,
    command: &Message,
    recordings: &Recordings,
    inbox: String,
) -> Result<(), Trouble> {
    let strange = || Trouble::bench(format!("{} was not expected", command.subject));
    let (step, reply_to) = parse(&command.payload)?;
    let definition = reply_to.split('.').nth(3).ok_or_else(strange)?;
    let steps = &recordings.of(definition)?.steps;
    let letter = &steps.get(usize::from(step)).ok_or_else(strange)?.reply;
    let id = command.subject.rsplit('.').next().unwrap_or_default();
    let run = id.get(..RUN_DIGITS).ok_or_else(strange)?;
    client
        .publish_with_reply_and_headers(
            reply_to.to_owned(),
            inbox,
            letter.headers(run),
            letter.body(step, ""),
        )
        .await
        .map_err(Trouble::bench)
}
