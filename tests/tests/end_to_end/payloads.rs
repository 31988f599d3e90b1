//! Bodies that are too large for a message: they stand in the object store, and nobody notices.

use async_nats::jetstream::{self, stream::Stream};
use dirigent_contracts::{
    api::{DeadLettersRequest, ReplayRequest},
    header,
    outcome::SagaStatus,
};
use dirigent_coordinator::{Coordinator, telemetry::Telemetry};
use dirigent_payloads::{PayloadError, PayloadName, Payloads};
use dirigent_tests::{
    crew::Crew,
    stage::{PATIENCE, Stage, settings},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const GROW: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Grow
States:
  Grow: { Type: Task, Resource: 'task:grow', Compensate: { Resource: 'task:shrink' }, Next: Child }
  Child: { Type: Task, Resource: 'saga:same', Arguments: '{% $states.input %}', Next: Check }
  Check: { Type: Task, Resource: 'task:check', End: true }
";

/// Text that no compression makes small.
fn noise(bytes: usize) -> Value {
    let mut random = fastrand::Rng::with_seed(bytes as u64);
    (0..bytes)
        .map(|_| random.alphanumeric())
        .collect::<String>()
        .into()
}

async fn stream(stage: &Stage, name: &str) -> anyhow::Result<Stream> {
    let context = jetstream::new(stage.client.clone());
    Ok(context.get_stream(name).await?)
}

/// The largest message of a stream, and how many name a body.
async fn messages(stage: &Stage, name: &str) -> anyhow::Result<(usize, usize)> {
    let stream = stream(stage, name).await?;
    let state = &stream.cached_info().state;
    let (mut largest, mut naming) = (0, 0);
    for seq in state.first_sequence..=state.last_sequence {
        // Commands that were answered are gone.
        let Ok(message) = stream.get_raw_message(seq).await else {
            continue;
        };
        largest = largest.max(message.payload.len());
        naming += usize::from(message.headers.get(header::PAYLOAD).is_some());
    }
    Ok((largest, naming))
}

#[tokio::test]
async fn large_inputs_and_outputs_travel_by_reference_and_arrive_whole() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage
        .deploy("same", "{StartAt: P, States: {P: {Type: Pass, End: true}}}")
        .await?;
    stage.deploy("grow", GROW).await?;
    let crew = Crew::new(stage.client.clone())
        .echoes(&["check", "shrink"])
        .does(
            "grow",
            |call| async move { Ok(json!([call.input, call.input])) },
        )
        .start()?;
    // Everything twice: what is named twice is there for both.
    let doubling = stage.double_everything().await?;
    let input = noise(100_000);
    let saga = stage.run("grow", "large", input.clone()).await?;
    doubling.abort();
    assert_eq!(saga.status, SagaStatus::Succeeded);
    assert_eq!(saga.output, Some(json!([input, input])));
    assert_eq!(crew.calls.of("grow")[0].input, input);
    let (mut largest, mut naming) = (0, 0);
    for partition in 0..2 {
        let (size, count) = messages(&stage, &format!("DIRIGENT_JOURNAL_{partition}")).await?;
        largest = largest.max(size);
        naming += count;
    }
    assert!(largest <= 65_536, "an entry of {largest} bytes");
    // The start, both replies, the child's start and its end.
    assert!(naming >= 5, "{naming}");
    assert_eq!(stage.messages("DIRIGENT_DEAD_LETTERS").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_saga_that_is_too_large_for_a_message_survives_its_coordinator() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    // Each of its branches holds what it got: two megabytes that no compression makes small.
    let branches: Vec<Value> = (0..10)
        .map(|n| {
            let task = format!("t-{n}");
            let work = json!({"Type": "Task", "Resource": format!("task:{task}"), "ResultPath": "$.r", "End": true});
            json!({"StartAt": task, "States": {task.clone(): work}})
        })
        .collect();
    let document = json!({"StartAt": "Each", "States": {"Each": {
        "Type": "Parallel", "Branches": branches, "ResultSelector": {"first.$": "$[0].r"}, "Next": "W"},
        "W": {"Type": "Wait", "Seconds": 1, "Next": "Last"},
        "Last": {"Type": "Task", "Resource": "task:last", "End": true}}});
    stage.deploy("wide", &document.to_string()).await?;
    let names: Vec<String> = (0..9).map(|n| format!("t-{n}")).collect();
    let mut crew = Crew::new(stage.client.clone());
    for (n, name) in (0..).zip(&names) {
        crew = crew.does(name, move |_| async move { Ok(noise(200_000 + n)) });
    }
    let crew = crew.start()?;
    stage.begin("wide", "k", json!({"in": 1})).await?;
    // The last branch has nobody who works on it: all others are held.
    stage
        .until("wide", "k", |_| crew.calls.all().len() >= 9)
        .await?;
    stage.coordinator.take().unwrap().stop().await;
    assert!(stage.messages("OBJ_dirigent-payloads").await? > 0);
    let (largest, _) = messages(&stage, "KV_dirigent-sagas").await?;
    assert!(largest < 2_000, "a snapshot of {largest} bytes");
    let client = stage.nats.connect().await?;
    let again = Coordinator::start(client, settings("again"), Telemetry::default()).await?;
    stage.coordinator = Some(again);
    let _rest = Crew::new(stage.client.clone())
        .echoes(&["t-9", "last"])
        .start()?;
    let saga = stage.ended("wide", "k").await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    assert_eq!(saga.output.unwrap()["first"], noise(200_000));
    Ok(())
}

#[tokio::test]
async fn a_body_is_what_was_put_or_is_said_to_be_missing() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let payloads = Payloads::new(jetstream::new(stage.client.clone()));
    let body = noise(700_000).to_string().into_bytes();
    let name = payloads.put(&body).await?;
    assert_eq!(payloads.put(&body).await?, name);
    assert_eq!(payloads.get(name, body.len()).await?, body);
    let error = payloads.get(name, body.len() - 1).await.unwrap_err();
    assert!(matches!(error, PayloadError::TooLarge { .. }), "{error}");
    let other = PayloadName::of(b"never put");
    let error = payloads.get(other, 1).await.unwrap_err();
    assert!(matches!(error, PayloadError::Missing(name) if name == other));
    assert!(!error.is_passing());
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_behind_does_not_make_a_body_missing() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let context = jetstream::new(stage.client.clone());
    let payloads = Payloads::new(context.clone());
    let body = noise(100_000).to_string().into_bytes();
    let name = payloads.put(&body).await?;
    // A mirror that answers for the bucket, and has nothing of it: a replica far behind.
    let source = jetstream::stream::Source {
        name: "OBJ_dirigent-payloads".to_owned(),
        filter_subject: Some("$O.dirigent-payloads.none".to_owned()),
        ..Default::default()
    };
    let config = jetstream::stream::Config {
        name: "BEHIND".to_owned(),
        mirror: Some(source),
        mirror_direct: true,
        allow_direct: true,
        ..Default::default()
    };
    context.create_stream(config).await?;
    let (mut whole, mut behind) = (0, 0);
    let until = Instant::now() + PATIENCE;
    while whole < 5 || behind < 5 {
        match payloads.get(name, body.len()).await {
            Ok(found) => whole += usize::from(found == body),
            Err(error) => {
                assert!(error.is_passing(), "{error}");
                behind += 1;
            }
        }
        anyhow::ensure!(Instant::now() < until, "{whole} whole, {behind} behind");
    }
    Ok(())
}

#[tokio::test]
async fn a_command_whose_body_was_missing_is_published_again_with_it() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let context = jetstream::new(stage.client.clone());
    let _crew = Crew::new(stage.client.clone()).echoes(&["work"]).start()?;
    let body = noise(100_000).to_string().into_bytes();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(header::PAYLOAD, PayloadName::of(&body).to_string());
    let stored = context
        .publish_with_headers("dirigent.command.work.x", headers, bytes::Bytes::new())
        .await?;
    stored.await?;
    let reason = async |number: u64| {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = stage.request(&DeadLettersRequest::default()).await?;
            if let Some(letter) = answer.letters.iter().find(|it| it.number == number) {
                return anyhow::Ok(letter.reason.clone());
            }
            anyhow::ensure!(Instant::now() < until, "the dead letters are {answer:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let first = reason(1).await?;
    assert!(first.contains("is not in the bucket"), "{first}");
    Payloads::new(context).put(&body).await?;
    stage.request(&ReplayRequest { number: 1 }).await?;
    // It is no command, but it is read.
    let second = reason(2).await?;
    assert!(!second.contains("is not in the bucket"), "{second}");
    let letters = stream(&stage, "DIRIGENT_DEAD_LETTERS").await?;
    let letter = letters.get_raw_message(2).await?;
    assert!(letter.headers.get(header::PAYLOAD).is_some(), "{second}");
    Ok(())
}

#[tokio::test]
async fn an_entry_whose_body_is_lost_is_a_dead_letter_and_stops_nobody() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage
        .deploy("same", "{StartAt: P, States: {P: {Type: Pass, End: true}}}")
        .await?;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(header::PAYLOAD, PayloadName::of(b"never put").to_string());
    headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    let context = jetstream::new(stage.client.clone());
    for partition in 0..2 {
        let subject = format!("dirigent.journal.{partition}.same.lost.start");
        let stored = context
            .publish_with_headers(subject, headers.clone(), bytes::Bytes::new())
            .await?;
        stored.await?;
    }
    for n in 0..4 {
        let saga = stage.run("same", &format!("k-{n}"), json!(n)).await?;
        assert_eq!(saga.status, SagaStatus::Succeeded);
    }
    assert_eq!(stage.messages("DIRIGENT_DEAD_LETTERS").await?, 2);
    Ok(())
}
