//! Too much, and what cannot be done: poison, tasks without workers, and floods of starts.

use anyhow::Context as _;
use dirigent_contracts::{
    api::{ErrorCode, Operation as _, RetryRequest, SignalRequest, StartRequest},
    error_name, header,
    outcome::SagaStatus,
    subject,
};
use dirigent_coordinator::Settings;
use dirigent_tests::{
    crew::Crew,
    process::Process,
    stage::{PATIENCE, Refused, Stage, address, settings, story},
};
use serde_json::{Value, json};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A saga of one step that asks for `work`, with these fields.
fn one_step(fields: &str) -> String {
    format!(
        "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Work
States:
  Work: {{ Type: Task, Resource: 'task:work', {fields} End: true }}
"
    )
}

/// Waits until as many commands stand in the stream as are wanted.
async fn commands(stage: &Stage, wanted: impl Fn(u64) -> bool) -> anyhow::Result<u64> {
    let until = Instant::now() + PATIENCE;
    loop {
        let count = stage.messages(subject::COMMANDS_STREAM).await?;
        if wanted(count) {
            return Ok(count);
        }
        anyhow::ensure!(Instant::now() < until, "{count} commands wait");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Starts sagas until one is refused. Gives how many were not, and why that one was.
async fn start_until_refused(stage: &Stage, name: &str) -> anyhow::Result<(usize, Refused)> {
    for n in 0..1_000 {
        if let Err(error) = stage.begin(name, &format!("k-{n}"), json!({})).await {
            return Ok((n, error.downcast()?));
        }
    }
    anyhow::bail!("none was refused")
}

#[tokio::test]
async fn a_command_that_kills_its_worker_each_time_is_an_incident_until_it_is_retried()
-> anyhow::Result<()> {
    const DELIVERIES: i64 = 3;
    let stage = Stage::start_with(Settings {
        max_deliveries: DELIVERIES,
        ack_wait: Duration::from_millis(500),
        ..settings("test")
    })
    .await?;
    let document = one_step("").replace("task:work", "task:do-a");
    stage.deploy("one", &document).await?;
    stage.begin("one", "k", json!({"deadly": true})).await?;
    let ledger = tempfile::tempdir()?;
    for _ in 0..DELIVERIES {
        let mut worker = Process::start(
            Command::new(env!("CARGO_BIN_EXE_node"))
                .arg("worker")
                .arg(ledger.path())
                .args([stage.nats.url().as_str(), "do-a"])
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )?;
        let until = Instant::now() + PATIENCE;
        while !worker.has_ended()? {
            anyhow::ensure!(Instant::now() < until, "the worker survived");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
    // No worker is there any more; the incident does not wait for one.
    let saga = stage.stands("one", "k", SagaStatus::Stuck).await?;
    let failure = saga.failure.context("no failure")?;
    assert_eq!(failure.error, error_name::POISON_COMMAND);
    assert!(failure.cause.contains("3 times"), "{}", failure.cause);
    assert!(failure.cause.contains("retry"), "{}", failure.cause);
    // Somebody mends the worker, and lets the saga go on.
    let mended = Crew::new(stage.client.clone()).echoes(&["do-a"]).start()?;
    stage
        .request(&RetryRequest {
            saga: saga.saga,
            skip: false,
            reason: String::new(),
        })
        .await?;
    assert_eq!(stage.ended("one", "k").await?.status, SagaStatus::Succeeded);
    assert_eq!(mended.calls.all().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_task_without_workers_times_out_by_its_own_rule() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    for (name, fields, error) in [
        ("slow", "TimeoutSeconds: 1,", error_name::TIMEOUT),
        (
            "silent",
            "HeartbeatSeconds: 1, TimeoutSeconds: 3600,",
            error_name::HEARTBEAT_TIMEOUT,
        ),
    ] {
        stage.deploy(name, &one_step(fields)).await?;
        let saga = stage.run(name, "k", json!({})).await?;
        assert_eq!(saga.status, SagaStatus::Failed);
        assert_eq!(saga.failure.context("no failure")?.error, error);
    }
    Ok(())
}

#[tokio::test]
async fn a_task_without_workers_queues_to_its_limit_and_further_steps_hear_of_it()
-> anyhow::Result<()> {
    let stage = Stage::start_with(Settings {
        queue_limit: 5,
        ..settings("test")
    })
    .await?;
    let retry = "Retry: [{ ErrorEquals: [Dirigent.QueueFull], IntervalSeconds: 1, \
                 BackoffRate: 1, MaxAttempts: 99999999 }],";
    stage.deploy("patient", &one_step(retry)).await?;
    stage.deploy("impatient", &one_step("")).await?;
    for n in 0..12 {
        stage.begin("patient", &format!("k-{n}"), json!({})).await?;
    }
    commands(&stage, |count| count >= 5).await?;
    let failed = stage.run("impatient", "k", json!({})).await?;
    assert_eq!(failed.status, SagaStatus::Failed);
    let failure = failed.failure.context("no failure")?;
    assert_eq!(failure.error, error_name::QUEUE_FULL);
    assert!(failure.cause.contains("5 commands"), "{}", failure.cause);
    // What waits was not lost, and what was turned away comes again.
    let crew = Crew::new(stage.client.clone()).echoes(&["work"]).start()?;
    let mut retried = 0;
    for n in 0..12 {
        let key = format!("k-{n}");
        let saga = stage.ended("patient", &key).await?;
        assert_eq!(saga.status, SagaStatus::Succeeded);
        let story = story(&stage.history("patient", &key).await?);
        retried += usize::from(story.contains(&"retry Work".to_owned()));
    }
    assert!((1..=7).contains(&retried), "{retried} were turned away");
    assert_eq!(crew.calls.all().len(), 12);
    Ok(())
}

#[tokio::test]
async fn a_stream_of_commands_that_is_full_holds_up_nothing_else() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let retry = "Retry: [{ ErrorEquals: [Dirigent.QueueFull], IntervalSeconds: 1, \
                 BackoffRate: 1, MaxAttempts: 99999999 }],";
    stage.deploy("one", &one_step(retry)).await?;
    let nap = "
StartAt: Nap
States:
  Nap: { Type: Wait, Seconds: 1, End: true }
";
    stage.deploy("nap", nap).await?;
    let context = async_nats::jetstream::new(stage.client.clone());
    let stream = context.get_stream(subject::COMMANDS_STREAM).await?;
    let mut config = stream.cached_info().config.clone();
    config.max_messages = 3;
    context.update_stream(config).await?;
    for n in 0..10 {
        stage.begin("one", &format!("k-{n}"), json!({})).await?;
    }
    commands(&stage, |count| count == 3).await?;
    let nap = stage.run("nap", "k", json!({})).await?;
    assert_eq!(nap.status, SagaStatus::Succeeded);
    let crew = Crew::new(stage.client.clone()).echoes(&["work"]).start()?;
    for n in 0..10 {
        let saga = stage.ended("one", &format!("k-{n}")).await?;
        assert_eq!(saga.status, SagaStatus::Succeeded);
    }
    assert_eq!(crew.calls.all().len(), 10);
    Ok(())
}

#[tokio::test]
async fn new_sagas_are_refused_while_too_much_waits_and_others_go_on() -> anyhow::Result<()> {
    let stage = Stage::start_with(Settings {
        start_backlog: 5,
        ..settings("test")
    })
    .await?;
    stage.deploy("one", &one_step("")).await?;
    let waiter = "
Extensions: [saga/1]
StartAt: Hear
States:
  Hear: { Type: Task, Resource: 'event:told.await', TimeoutSeconds: 3600, Next: Nap }
  Nap: { Type: Wait, Seconds: 1, End: true }
";
    stage.deploy("waiter", waiter).await?;
    let (begun, refused) = start_until_refused(&stage, "one").await?;
    assert!(begun > 5, "{begun} were begun");
    assert_eq!(refused.code, ErrorCode::Overloaded);
    for part in ["workers of work", "try again in 1 s"] {
        assert!(refused.message.contains(part), "{}", refused.message);
    }
    // The same for programs.
    let start = StartRequest {
        definition: "one".parse()?,
        key: None,
        input: Value::Null,
        digest: None,
    };
    let (api, body) = (
        subject::api(StartRequest::NAME),
        serde_json::to_vec(&start)?,
    );
    let answer = stage.client.request(api, body.into()).await?;
    let headers = answer.headers.unwrap_or_default();
    assert_eq!(
        headers
            .get(header::RETRY_AFTER)
            .map(async_nats::HeaderValue::as_str),
        Some("1")
    );
    // A definition that does not need the task, signals and timers are not held up.
    stage.begin("waiter", "k", json!({})).await?;
    stage
        .request(&SignalRequest {
            saga: address("waiter", "k")?,
            event: "told".to_owned(),
            id: None,
            data: json!({}),
        })
        .await?;
    let waiter = stage.ended("waiter", "k").await?;
    assert_eq!(waiter.status, SagaStatus::Succeeded);
    // The door opens by itself.
    let _crew = Crew::new(stage.client.clone()).echoes(&["work"]).start()?;
    let until = Instant::now() + PATIENCE;
    while stage.begin("one", "late", json!({})).await.is_err() {
        anyhow::ensure!(Instant::now() < until, "the door stays shut");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let begun = (0..begun).map(|n| format!("k-{n}"));
    for key in begun.chain(["late".to_owned()]) {
        let saga = stage.ended("one", &key).await?;
        assert_eq!(saga.status, SagaStatus::Succeeded);
    }
    Ok(())
}

#[tokio::test]
async fn events_that_start_sagas_wait_while_too_much_waits_and_awaited_ones_come_through()
-> anyhow::Result<()> {
    let stage = Stage::start_with(Settings {
        start_backlog: 5,
        ..settings("test")
    })
    .await?;
    let triggered = one_step("").replace(
        "QueryLanguage",
        "Triggers: [{ Event: shop.placed, Key: '{% $event.data.order %}' }]\nQueryLanguage",
    );
    stage.deploy("one", &triggered).await?;
    let waiter = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Hear
States:
  Hear: { Type: Task, Resource: 'event:shop.paid.await', Key: '{% $event.data.order %}',
          TimeoutSeconds: 3600, End: true }
";
    stage.deploy("waiter", waiter).await?;
    stage.begin("waiter", "w", json!({})).await?;
    let context = async_nats::jetstream::new(stage.client.clone());
    let publish = async |subject: &'static str, order: String| -> anyhow::Result<()> {
        let body = json!({ "order": order }).to_string();
        context.publish(subject, body.into()).await?.await?;
        Ok(())
    };
    for n in 0..8 {
        publish("shop.placed", format!("o-{n}")).await?;
    }
    let waiting = commands(&stage, |count| count >= 6).await?;
    start_until_refused(&stage, "one").await?;
    let refused = stage.messages(subject::COMMANDS_STREAM).await?;
    for n in 8..600 {
        publish("shop.placed", format!("o-{n}")).await?;
    }
    publish("shop.paid", "w".to_owned()).await?;
    let waiter = stage.ended("waiter", "w").await?;
    assert_eq!(waiter.status, SagaStatus::Succeeded);
    let still = stage.messages(subject::COMMANDS_STREAM).await?;
    assert!(still <= refused.max(waiting) + 8, "{still} commands wait");
    let crew = Crew::new(stage.client.clone()).echoes(&["work"]).start()?;
    let until = Instant::now() + PATIENCE;
    while crew.calls.all().len() < 600 {
        anyhow::ensure!(Instant::now() < until, "some events start nothing");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    for n in [0, 8, 599] {
        let saga = stage.ended("one", &format!("o-{n}")).await?;
        assert_eq!(saga.status, SagaStatus::Succeeded);
    }
    Ok(())
}
