//! The worker SDK, on a real broker.

use async_nats::jetstream;
use dirigent_contracts::{id::PartitionId, outcome::SagaStatus, subject};
use dirigent_coordinator::Settings;
use dirigent_tests::{
    crew::Crew,
    stage::{PATIENCE, Stage, settings},
};
use dirigent_worker::{TaskContext, TaskError, Worker};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const ONE_STEP: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Work
States:
  Work: { Type: Task, Resource: 'task:work', HeartbeatSeconds: 1, End: true }
";

#[tokio::test]
async fn a_worker_takes_no_more_than_it_can_work_on() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("one", ONE_STEP).await?;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, peak) = (Arc::clone(&now), Arc::clone(&most));
    let worker = Worker::builder(stage.client.clone())
        .concurrency(3)
        .task("work", move |_, input: Value| {
            let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
            async move {
                peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(30)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, TaskError>(input)
            }
        })
        .build()?;
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.run(stop.clone()));
    for n in 0..12 {
        stage.begin("one", &format!("k-{n}"), json!({})).await?;
    }
    for n in 0..12 {
        stage.ended("one", &format!("k-{n}")).await?;
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    stop.cancel();
    working.await?;
    Ok(())
}

#[tokio::test]
async fn a_stopping_worker_finishes_what_it_has_begun_and_takes_nothing_new() -> anyhow::Result<()>
{
    let stage = Stage::start().await?;
    stage.deploy("one", ONE_STEP).await?;
    let crew = Crew::new(stage.client.clone()).does("work", |call| async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Ok(call.input)
    });
    let crew = crew.start()?;
    stage.begin("one", "begun", json!({})).await?;
    let until = Instant::now() + PATIENCE;
    while crew.calls.all().is_empty() {
        anyhow::ensure!(Instant::now() < until, "nobody took the command");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let calls = crew.calls.clone();
    crew.leave().await?;
    let begun = stage.ended("one", "begun").await?;
    assert_eq!(begun.status, SagaStatus::Succeeded);
    stage.begin("one", "new", json!({})).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(calls.all().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_command_stays_with_its_worker_until_the_reply_is_stored() -> anyhow::Result<()> {
    let stage = Stage::start_with(Settings {
        ack_wait: Duration::from_secs(1),
        max_deliveries: 2,
        ..settings("test")
    })
    .await?;
    let document =
        "{StartAt: Work, States: {Work: {Type: Task, Resource: 'task:work', End: true}}}";
    stage.deploy("one", document).await?;
    let jetstream = async_nats::jetstream::new(stage.client.clone());
    let journals = jetstream.clone();
    // The journals are full when the handler has ended, and stay so for several times `ack_wait`.
    let crew = Crew::new(stage.client.clone()).does("work", move |call| {
        let journals = journals.clone();
        async move {
            limit_journals(&journals, 1)
                .await
                .map_err(|error| TaskError::new("Broker", error.to_string()))?;
            Ok(call.input)
        }
    });
    let crew = crew.start()?;
    stage.begin("one", "k", json!({})).await?;
    stage
        .until("one", "k", |_| !crew.calls.all().is_empty())
        .await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    limit_journals(&jetstream, -1).await?;
    let saga = stage.ended("one", "k").await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    assert_eq!(crew.calls.all().len(), 1);
    Ok(())
}

/// Lets the journals have no more bytes than so many; -1: any number.
async fn limit_journals(jetstream: &jetstream::Context, bytes: i64) -> anyhow::Result<()> {
    for partition in 0..2 {
        let stream = subject::journal_stream(PartitionId(partition));
        let mut config = jetstream
            .get_stream(stream)
            .await?
            .cached_info()
            .config
            .clone();
        config.max_bytes = bytes;
        jetstream.update_stream(config).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_too_large_for_a_letter_takes_no_place() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("one", ONE_STEP).await?;
    let worker = Worker::builder(stage.client.clone())
        .concurrency(1)
        .task("work", |_: TaskContext, input: Value| async move {
            Ok::<_, TaskError>(input)
        })
        .build()?;
    let working = tokio::spawn(worker.run(CancellationToken::new()));
    let garbage = vec![b'x'; stage.client.max_payload()];
    jetstream::new(stage.client.clone())
        .publish("dirigent.command.work.x", garbage.into())
        .await?
        .await?;
    let saga = stage.run("one", "k", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    assert_eq!(stage.messages("DIRIGENT_DEAD_LETTERS").await?, 1);
    working.abort();
    Ok(())
}

#[tokio::test]
async fn an_input_of_another_shape_is_refused_with_its_place() -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Input {
        #[expect(dead_code, reason = "only its shape matters")]
        amount: u32,
    }
    let stage = Stage::start().await?;
    stage.deploy("one", ONE_STEP).await?;
    let worker = Worker::builder(stage.client.clone())
        .task("work", |_: TaskContext, _: Input| async {
            Ok::<_, TaskError>(json!({}))
        })
        .build()?;
    let working = tokio::spawn(worker.run(CancellationToken::new()));
    let saga = stage.run("one", "k", json!({"amount": "many"})).await?;
    let failure = saga.failure.map(|failure| failure.to_string());
    let text = failure.unwrap_or_default();
    assert!(text.contains("amount") && text.contains("many"), "{text}");
    working.abort();
    Ok(())
}

#[tokio::test]
async fn a_long_step_lives_by_its_heartbeats() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("one", ONE_STEP).await?;
    let crew = Crew::new(stage.client.clone()).does("work", |call| async move {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        Ok(call.input)
    });
    let _crew = crew.start()?;
    let saga = stage.run("one", "k", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    Ok(())
}
