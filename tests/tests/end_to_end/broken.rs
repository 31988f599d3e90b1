//! Sagas that a build cannot fold: they wait for a person, and nobody waits for them.

use dirigent_contracts::{
    api::RetryRequest,
    error_name, header,
    journal::{Entry, Start},
    limits::SagaLimits,
    outcome::SagaStatus,
};
use dirigent_coordinator::{Coordinator, Settings, telemetry::Telemetry};
use dirigent_tests::{
    crew::Crew,
    stage::{Stage, address, settings},
};
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const ORDER: &str = "
Extensions: [saga/1]
StartAt: Reserve
States:
  Reserve: { Type: Task, Resource: 'task:reserve', Compensate: { Resource: 'task:release' }, Next: Charge }
  Charge: { Type: Task, Resource: 'task:charge', End: true }
";

/// A build with a mistake, which shows in the replies and in the starts of two sagas.
fn mistaken() -> Settings {
    Settings {
        // One partition: those sagas and all others have the same owner.
        partitions: Some(1),
        probe: Some(
            |record| match (record.address.key.as_str(), &record.entry) {
                ("reply", Entry::Reply(_)) | ("start", Entry::Start(_)) => panic!("a mistake"),
                _ => {}
            },
        ),
        ..settings("mistaken")
    }
}

#[tokio::test]
async fn a_missing_version_is_waited_for_once_and_found_when_it_comes() -> anyhow::Result<()> {
    let one = Settings {
        partitions: Some(1),
        ..settings("one")
    };
    let stage = Stage::start_with(one).await?;
    stage.deploy("other", ORDER).await?;
    // The digest is the document's, the same under each name; what was run once would be in memory.
    let document = format!("Comment: missing{ORDER}");
    let digest = stage.deploy("never-run", &document).await?.digest;
    let start = Entry::Start(Start {
        digest,
        input: Arc::default(),
        trigger: None,
        parent: None,
        part: None,
        limits: SagaLimits::default(),
    });
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    let context = async_nats::jetstream::new(stage.client.clone());
    for n in 0..10 {
        let subject = format!("dirigent.journal.0.order.k-{n}.start");
        let stored = context.publish_with_headers(subject, headers.clone(), start.encode().into());
        stored.await?.await?;
    }
    let _crew = Crew::new(stage.client.clone())
        .echoes(&["reserve", "release", "charge"])
        .start()?;
    let began = Instant::now();
    stage.run("other", "k", json!({})).await?;
    let took = began.elapsed();
    assert!(
        took.as_secs() < 20,
        "the partition stood still for {took:?}"
    );
    stage.stands("order", "k-9", SagaStatus::Stuck).await?;
    // Behind its snapshot it is not folded again with what is found now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    // What is there again is found at once.
    stage.deploy("order", &document).await?;
    let retry = RetryRequest {
        saga: address("order", "k-9")?,
        skip: false,
        reason: String::new(),
    };
    stage.request(&retry).await?;
    let saga = stage.ended("order", "k-9").await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    Ok(())
}

#[tokio::test]
async fn a_fold_that_breaks_off_makes_an_incident_and_never_stops_the_partition()
-> anyhow::Result<()> {
    let mut stage = Stage::start_without_coordinator().await?;
    let client = stage.nats.connect().await?;
    let coordinator = Coordinator::start(client, mistaken(), Telemetry::default()).await?;
    stage.coordinator = Some(coordinator);
    stage.deploy("order", ORDER).await?;
    let crew = Crew::new(stage.client.clone())
        .echoes(&["reserve", "release", "charge"])
        .start()?;
    for key in ["reply", "start"] {
        stage.begin("order", key, json!({"n": 1})).await?;
        let saga = stage.stands("order", key, SagaStatus::Stuck).await?;
        let failure = saga.failure.unwrap();
        assert_eq!(failure.error, error_name::BROKEN);
        assert!(failure.cause.contains("a mistake"), "{}", failure.cause);
    }
    let others = stage.run("order", "others", json!({"n": 2})).await?;
    assert_eq!(others.status, SagaStatus::Succeeded);
    let retry = |key: &str| RetryRequest {
        saga: address("order", key).unwrap(),
        skip: false,
        reason: String::new(),
    };
    // Another owner of the same build comes to the same; trying again is of no use yet.
    stage.coordinator.take().unwrap().stop().await;
    let client = stage.nats.connect().await?;
    let coordinator = Coordinator::start(client, mistaken(), Telemetry::default()).await?;
    stage.coordinator = Some(coordinator);
    stage.request(&retry("reply")).await?;
    stage.run("order", "behind", json!({"n": 3})).await?;
    stage.stands("order", "reply", SagaStatus::Stuck).await?;
    stage.stands("order", "start", SagaStatus::Stuck).await?;
    // The build that comes after it has missed nothing.
    stage.coordinator.take().unwrap().stop().await;
    let client = stage.nats.connect().await?;
    let mended = Settings {
        partitions: Some(1),
        ..settings("mended")
    };
    let coordinator = Coordinator::start(client, mended, Telemetry::default()).await?;
    stage.coordinator = Some(coordinator);
    for key in ["reply", "start"] {
        stage.request(&retry(key)).await?;
        let saga = stage.ended("order", key).await?;
        assert_eq!(saga.status, SagaStatus::Succeeded, "{key}");
    }
    for key in ["reply", "start"] {
        let calls = crew.calls.all();
        let calls = calls.iter().filter(|call| call.key == key);
        assert_eq!(calls.count(), 2, "each step was done once");
    }
    Ok(())
}
