//! What must not hurt: duplicates, strangers' messages, garbage, and too much of anything.

use dirigent_contracts::{
    api::{CancelRequest, SignalRequest},
    envelope,
    id::{JournalSeq, PartitionId, RunId, TaskName},
    outcome::SagaStatus,
    subject::{EntryKind, JournalSubject},
    task::{Reply, TaskResult},
    time::Timestamp,
};
use dirigent_tests::{
    crew::Crew,
    stage::{PATIENCE, Stage, address},
};
use dirigent_worker::TaskError;
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const ORDER: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Reserve
States:
  Reserve: { Type: Task, Resource: 'task:reserve', Compensate: { Resource: 'task:release' }, Next: Both }
  Both:
    Type: Parallel
    Branches:
      - { StartAt: X, States: { X: { Type: Task, Resource: 'task:x', End: true } } }
      - { StartAt: Y, States: { Y: { Type: Task, Resource: 'task:y', End: true } } }
    Next: Nap
  Nap: { Type: Wait, Seconds: 1, Next: Charge }
  Charge: { Type: Task, Resource: 'task:charge', End: true }
";

#[tokio::test]
async fn every_message_may_come_twice() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("order", ORDER).await?;
    let doubler = stage.double_everything().await?;
    let crew = Crew::new(stage.client.clone())
        .idempotent()
        .echoes(&["reserve", "release", "x", "y"])
        .does("charge", |call| async move {
            match call.key.as_str() {
                "good" => Ok(call.input),
                _ => Err(TaskError::new("Declined", "").permanent()),
            }
        });
    let crew = crew.start()?;
    let good = stage.run("order", "good", json!({})).await?;
    assert_eq!(good.status, SagaStatus::Succeeded);
    let bad = stage.run("order", "bad", json!({})).await?;
    assert_eq!(bad.status, SagaStatus::Compensated);
    doubler.abort();
    // A refusal has no effect, so nothing forbids to refuse twice.
    let calls = crew.calls.all().into_iter();
    let calls = calls.filter(|call| (call.task.as_str(), call.key.as_str()) != ("charge", "bad"));
    let mut tasks: Vec<String> = calls.map(|call| call.task).collect();
    tasks.sort();
    let once = [
        "charge", "release", "reserve", "reserve", "x", "x", "y", "y",
    ];
    assert_eq!(tasks, once, "each effect of the two sagas once");
    let ends = stage.messages("DIRIGENT_EVENTS").await?;
    assert_eq!(ends, 2, "each saga ends once");
    Ok(())
}

#[tokio::test]
async fn strangers_and_garbage_change_nothing() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("order", ORDER).await?;
    let crew = Crew::new(stage.client.clone()).echoes(&["reserve", "release", "x", "y", "charge"]);
    let _crew = crew.start()?;
    let jetstream = async_nats::jetstream::new(stage.client.clone());
    // A well-formed reply for a saga that never was.
    let saga = address("order", "ghost")?;
    let command = RunId::derive(&saga, JournalSeq(7), Timestamp(7))
        .effect(1)
        .command(1);
    let task: TaskName = "reserve".parse()?;
    let subject = JournalSubject {
        partition: PartitionId::of(&saga.key, 2),
        address: saga,
        kind: EntryKind::Reply(task),
    };
    let reply = Reply {
        command,
        result: TaskResult::Succeeded {
            output: Arc::new(json!(1)),
        },
        callback: false,
        worker: String::new(),
        timing: None,
    };
    let body = envelope::encode(&reply);
    jetstream
        .publish(subject.to_string(), body.into())
        .await?
        .await?;
    // Garbage on every subject that is read.
    let mut garbage = Vec::new();
    for partition in 0..2 {
        for kind in [
            "start",
            "reply.reserve",
            "event",
            "timer",
            "control",
            "child",
            "nonsense",
        ] {
            garbage.push(format!("dirigent.journal.{partition}.order.k.{kind}"));
        }
        garbage.push(format!("dirigent.journal.{partition}.x"));
    }
    garbage.push("dirigent.command.reserve.nonsense".to_owned());
    for subject in garbage {
        for body in [&b""[..], b"\xc1\xff\x00", b"{\"v\":1}", &[0x81; 4096]] {
            jetstream
                .publish(subject.clone(), body.to_vec().into())
                .await?
                .await?;
        }
    }
    for operation in [
        "start", "describe", "list", "history", "signal", "callback", "deploy",
    ] {
        assert!(
            stage
                .request_raw(operation, b"\xff\xfe".to_vec())
                .await
                .is_err(),
            "{operation}"
        );
    }
    let saga = stage.run("order", "k-2", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    // Nothing was dropped without a word: what could not be read is kept.
    let until = Instant::now() + PATIENCE;
    while stage.messages("DIRIGENT_DEAD_LETTERS").await? < 8 {
        assert!(Instant::now() < until, "dead letters are missing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn an_oversized_output_fails_its_step_and_nothing_else() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
QueryLanguage: JSONata
StartAt: Big
States:
  Big: { Type: Task, Resource: 'task:big', End: true }
";
    stage.deploy("big", document).await?;
    let crew = Crew::new(stage.client.clone()).does("big", |call| async move {
        Ok(json!("x".repeat(
            usize::try_from(call.input.as_u64().unwrap_or(0)).unwrap_or(0)
        )))
    });
    let _crew = crew.start()?;
    let saga = stage.run("big", "fits", json!(200_000)).await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    let saga = stage.run("big", "too-big", json!(4_000_000)).await?;
    assert_eq!(saga.status, SagaStatus::Failed);
    let error = saga.failure.map(|failure| failure.error);
    assert_eq!(
        error.as_deref(),
        Some(dirigent_contracts::error_name::DATA_LIMIT_EXCEEDED)
    );
    Ok(())
}

#[tokio::test]
async fn a_broker_without_jetstream_is_refused_with_a_remedy() -> anyhow::Result<()> {
    let nats = dirigent_tests::nats::NatsServer::start().await?;
    // An account without JetStream, on a server that has it.
    let accounts = nats.directory().join("accounts.conf");
    std::fs::write(
        &accounts,
        "accounts { A { users: [{user: a, password: a}] } }\n",
    )?;
    let path = accounts.to_string_lossy().into_owned();
    let bare = dirigent_tests::nats::NatsServer::start_with(&["-c", &path]).await?;
    let client = async_nats::ConnectOptions::with_user_and_password("a".into(), "a".into());
    let client = client.connect(bare.url()).await?;
    let telemetry = dirigent_coordinator::telemetry::Telemetry::default();
    let settings = dirigent_tests::stage::settings("refused");
    let refused = dirigent_coordinator::Coordinator::start(client, settings, telemetry).await;
    let reason = refused.map(|_| ()).unwrap_err().to_string();
    assert!(
        reason.contains("JetStream") && reason.contains("-js"),
        "{reason}"
    );
    Ok(())
}

#[tokio::test]
async fn any_text_may_be_a_key_or_the_id_of_an_event() -> anyhow::Result<()> {
    const WAITING: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Wait
States:
  Wait: { Type: Task, Resource: 'event:paid.await', End: true }
";
    // Two children that share a key, as those of one order do.
    const PARENT: &str = r#"
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Both
States:
  Both:
    Type: Parallel
    Branches:
      - StartAt: Pay
        States: { Pay: { Type: Task, Resource: 'saga:payment', Key: "{% 'two\nlines' %}", End: true } }
      - StartAt: Ship
        States: { Ship: { Type: Task, Resource: 'saga:shipping', Key: "{% 'two\nlines' %}", End: true } }
    End: true
"#;
    let stage = Stage::start().await?;
    stage.deploy("payment", WAITING).await?;
    stage.deploy("shipping", WAITING).await?;
    stage.deploy("parent", PARENT).await?;
    stage.begin("parent", "k", json!({})).await?;
    for child in ["payment", "shipping"] {
        stage
            .until(child, "two\nlines", |saga| !saga.activities.is_empty())
            .await?;
    }
    stage
        .request(&CancelRequest {
            saga: address("parent", "k")?,
            reason: "two\nlines".to_owned(),
        })
        .await?;
    for (name, key) in [
        ("payment", "two\nlines"),
        ("shipping", "two\nlines"),
        ("parent", "k"),
    ] {
        let saga = stage.ended(name, key).await?;
        assert_eq!(saga.status, SagaStatus::Canceled, "{name}");
    }

    stage.begin("payment", "k", json!({})).await?;
    stage
        .request(&SignalRequest {
            saga: address("payment", "k")?,
            event: "paid".to_owned(),
            id: Some("two\nlines".to_owned()),
            data: json!({}),
        })
        .await?;
    let saga = stage.ended("payment", "k").await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    Ok(())
}
