//! The worker SDK, on a real broker.

use dirigent_contracts::outcome::SagaStatus;
use dirigent_tests::{
    crew::Crew,
    stage::{PATIENCE, Stage},
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
