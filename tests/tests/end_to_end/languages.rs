//! A worker in another language, written from docs/protocol.md.

use dirigent_contracts::{api::DeadLettersRequest, outcome::SagaStatus, subject::COMMANDS_STREAM};
use dirigent_coordinator::{Coordinator, telemetry::Telemetry};
use dirigent_tests::{
    python::{APPRAISE, python, worker},
    stage::{PATIENCE, Stage, settings},
};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_worker_in_python_does_its_steps() -> anyhow::Result<()> {
    let Some(python) = python() else {
        return Ok(());
    };
    let stage = Stage::start().await?;
    stage.deploy("appraise", APPRAISE).await?;
    let _worker = worker(python, &stage.nats.url())?;
    let known = stage
        .run("appraise", "known", json!({"item": "violin"}))
        .await?;
    assert_eq!(
        known.output,
        Some(json!({"item": "violin", "price": 900, "attempt": 1}))
    );
    let unknown = stage
        .run("appraise", "unknown", json!({"item": "kazoo"}))
        .await?;
    assert_eq!(unknown.status, SagaStatus::Failed);
    assert_eq!(
        unknown.failure.map(|failure| failure.error).as_deref(),
        Some("UnknownItem")
    );
    // Its command and its reply are too large for a message; its words are cut to what words may be.
    let item = "long".repeat(25_000);
    let large = stage
        .run("appraise", "large", json!({"item": item}))
        .await?;
    let failure = large.failure.unwrap();
    assert_eq!(failure.error, "UnknownItem");
    assert_eq!(failure.cause.len(), 32_768);
    assert!(failure.cause.contains("longlong"));
    Ok(())
}

/// MessagePack: a command of a format that is yet to come.
const OF_VERSION_2: &[u8] = b"\x81\xa1v\x02";

#[tokio::test]
async fn the_worker_in_python_waits_for_a_coordinator_and_lays_aside_what_it_cannot_read()
-> anyhow::Result<()> {
    let Some(python) = python() else {
        return Ok(());
    };
    let mut stage = Stage::start_without_coordinator().await?;
    let mut worker = worker(python, &stage.nats.url())?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!worker.has_ended()?, "it did not wait");
    let client = stage.nats.connect().await?;
    let coordinator = Coordinator::start(client, settings("test"), Telemetry::default()).await?;
    stage.coordinator = Some(coordinator);
    stage.deploy("appraise", APPRAISE).await?;
    let context = async_nats::jetstream::new(stage.client.clone());
    for (id, body) in [("1", &b"\xc1"[..]), ("2", OF_VERSION_2)] {
        let subject = format!("dirigent.command.appraise.{id}");
        context.publish(subject, body.into()).await?.await?;
    }
    let known = stage
        .run("appraise", "known", json!({"item": "violin"}))
        .await?;
    assert_eq!(known.status, SagaStatus::Succeeded);
    let until = Instant::now() + PATIENCE;
    while stage.messages(COMMANDS_STREAM).await? > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let letters = stage.request(&DeadLettersRequest { limit: None }).await?;
    let told: Vec<_> = letters
        .letters
        .iter()
        .map(|letter| (letter.subject.as_str(), letter.reason.as_str()))
        .collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!(told[0].0, "dirigent.command.appraise.2");
    assert!(told[0].1.contains("version 2"), "{told:#?}");
    assert!(told[1].1.contains("MessagePack"), "{told:#?}");
    Ok(())
}
