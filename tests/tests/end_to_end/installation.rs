//! What a coordinator finds on the broker when it starts, and what it says to that.

use anyhow::Context as _;
use async_nats::jetstream::{
    self,
    stream::{Config, RetentionPolicy},
};
use dirigent_contracts::{id::PartitionId, subject};
use dirigent_coordinator::{Coordinator, Settings, telemetry::Telemetry};
use dirigent_tests::stage::{Stage, settings};
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);

/// Starts another coordinator, and gives its objection.
async fn objection(stage: &Stage, settings: Settings) -> anyhow::Result<String> {
    let client = stage.nats.connect().await?;
    match Coordinator::start(client, settings, Telemetry::default()).await {
        Err(error) => Ok(error.to_string()),
        Ok(coordinator) => {
            coordinator.stop().await;
            anyhow::bail!("it started")
        }
    }
}

async fn config(stage: &Stage, name: &str) -> anyhow::Result<Config> {
    let context = jetstream::new(stage.client.clone());
    let stream = context.get_stream(name).await.context(name.to_owned())?;
    Ok(stream.cached_info().config.clone())
}

async fn edit(stage: &Stage, name: &str, change: impl FnOnce(&mut Config)) -> anyhow::Result<()> {
    let mut config = config(stage, name).await?;
    change(&mut config);
    let context = jetstream::new(stage.client.clone());
    context.update_stream(config).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_over_is_kept_as_long_as_asked_and_what_is_to_be_done_for_ever()
-> anyhow::Result<()> {
    let three_days = Settings {
        retention: Some(72 * HOUR),
        ..settings("test")
    };
    let mut stage = Stage::start_with(three_days.clone()).await?;
    let journal = subject::journal_stream(PartitionId(1));
    let payloads = format!("OBJ_{}", subject::PAYLOADS_BUCKET);
    let inbox = format!("KV_{}", subject::INBOX_BUCKET);
    for (stream, kept) in [
        (journal.as_str(), 72 * HOUR),
        (subject::EVENTS_STREAM, 72 * HOUR),
        (subject::COMMANDS_STREAM, Duration::ZERO),
        (subject::DEAD_LETTERS_STREAM, Duration::ZERO),
        (payloads.as_str(), 144 * HOUR),
        (inbox.as_str(), 72 * HOUR),
    ] {
        assert_eq!(config(&stage, stream).await?.max_age, kept, "{stream}");
    }
    let coordinator = stage.coordinator.take().context("it runs")?;
    coordinator.stop().await;

    let a_day = Settings {
        retention: Some(24 * HOUR),
        ..settings("test")
    };
    let said = objection(&stage, a_day).await?;
    assert!(said.contains("DIRIGENT_JOURNAL_0"), "{said}");
    assert!(said.contains("nats stream edit --max-age"), "{said}");

    // Who asks for nothing takes it as it is, and so does who asks for the same.
    for settings in [settings("test"), three_days] {
        let client = stage.nats.connect().await?;
        let coordinator = Coordinator::start(client, settings, Telemetry::default()).await?;
        coordinator.stop().await;
    }

    // An operator keeps journals for longer, and forgets the bodies that their entries name.
    for kept in [145 * HOUR, Duration::ZERO] {
        edit(&stage, &journal, |it| it.max_age = kept).await?;
        let said = objection(&stage, settings("test")).await?;
        assert!(said.contains(&payloads), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn an_installation_that_will_not_do_is_refused_with_a_remedy() -> anyhow::Result<()> {
    let stage = Stage::start_without_coordinator().await?;
    let context = jetstream::new(stage.client.clone());
    let commands = Config {
        name: subject::COMMANDS_STREAM.to_owned(),
        subjects: vec!["dirigent.command.>".to_owned()],
        ..Config::default()
    };
    context.create_stream(commands.clone()).await?;
    let said = objection(&stage, settings("test")).await?;
    assert!(said.contains("its retention is Limits"), "{said}");
    assert!(said.contains("delete it when it is empty"), "{said}");

    context.delete_stream(&commands.name).await?;
    context
        .create_stream(Config {
            retention: RetentionPolicy::WorkQueue,
            storage: jetstream::stream::StorageType::Memory,
            ..commands
        })
        .await?;
    let said = objection(&stage, settings("test")).await?;
    assert!(said.contains("would not survive a restart"), "{said}");

    context.delete_stream(subject::COMMANDS_STREAM).await?;
    let client = stage.nats.connect().await?;
    let coordinator = Coordinator::start(client, settings("test"), Telemetry::default()).await?;
    coordinator.stop().await;
    let more = Settings {
        partitions: Some(3),
        ..settings("test")
    };
    let said = objection(&stage, more).await?;
    assert!(said.contains("has 2 partitions and 3"), "{said}");
    Ok(())
}
