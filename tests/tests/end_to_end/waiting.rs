//! Time, events, children and callbacks: what a saga waits for without holding anything up.

use dirigent_contracts::{
    api::{CallbackRequest, SignalRequest},
    outcome::SagaStatus,
    task::TaskResult,
};
use dirigent_tests::{
    crew::Crew,
    stage::{Refused, Stage, address},
};
use dirigent_worker::TaskError;
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn a_wait_of_two_seconds_is_kept_to_the_millisecond() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
QueryLanguage: JSONata
StartAt: W
States:
  W: { Type: Wait, Seconds: 2, End: true }
";
    stage.deploy("waits", document).await?;
    let saga = stage.run("waits", "k", json!({"kept": true})).await?;
    assert_eq!(saga.output, Some(json!({"kept": true})));
    let took = saga.updated_at.since(saga.started_at);
    assert!(took.as_millis() >= 2_000, "never early: {took:?}");
    Ok(())
}

#[tokio::test]
async fn a_child_saga_is_run_and_undone_by_its_parent() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let child = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Inner
States:
  Inner: { Type: Task, Resource: 'task:inner', Compensate: { Resource: 'task:uninner' }, End: true }
";
    let parent = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Child
States:
  Child:
    Type: Task
    Resource: saga:child
    Arguments: { n: 1 }
    Compensate: { Resource: 'task:unchild', Arguments: '{% $states.result %}' }
    Next: Last
  Last: { Type: Task, Resource: 'task:last', End: true }
";
    stage.deploy("child", child).await?;
    stage.deploy("parent", parent).await?;
    let crew = Crew::new(stage.client.clone())
        .echoes(&["uninner", "unchild"])
        .does("inner", |call| async move {
            match call.input["n"].as_i64() {
                Some(1) => Ok(json!({"inner": "done"})),
                _ => Err(TaskError::new("Wrong", "").permanent()),
            }
        })
        .does("last", |call| async move {
            match call.key.as_str() {
                "good" => Ok(call.input),
                _ => Err(TaskError::new("Late", "").permanent()),
            }
        });
    let crew = crew.start()?;
    let saga = stage.run("parent", "good", json!({})).await?;
    assert_eq!(saga.output, Some(json!({"inner": "done"})));
    let saga = stage.run("parent", "bad", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Compensated);
    assert_eq!(crew.calls.of("unchild")[0].input, json!({"inner": "done"}));
    assert!(
        crew.calls.of("uninner").is_empty(),
        "a child that succeeded is its parent's to undo"
    );
    Ok(())
}

#[tokio::test]
async fn a_child_that_does_not_exist_fails_its_step() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let parent = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Child
States:
  Child: { Type: Task, Resource: 'saga:nobody', End: true }
";
    stage.deploy("parent", parent).await?;
    let saga = stage.run("parent", "k", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Failed);
    assert!(
        saga.failure
            .is_some_and(|failure| failure.cause.contains("nobody"))
    );
    Ok(())
}

const AWAITS: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: First
States:
  First: { Type: Task, Resource: 'task:first', Next: Paid }
  Paid:
    Type: Task
    Resource: event:payments.received.await
    TimeoutSeconds: 30
    End: true
";

#[tokio::test]
async fn an_event_is_awaited_whether_it_comes_before_or_after() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("awaits", AWAITS).await?;
    let go = Arc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let crew = Crew::new(stage.client.clone()).does("first", move |call| {
        let wait = wait.clone();
        async move {
            if call.key == "early" {
                wait.notified().await;
            }
            Ok(json!(null))
        }
    });
    let _crew = crew.start()?;
    // Before: the saga is still at its first step.
    stage.begin("awaits", "early", json!({})).await?;
    let signal = SignalRequest {
        saga: address("awaits", "early")?,
        event: "payments.received".to_owned(),
        id: Some("e-1".to_owned()),
        data: json!({"sum": 1}),
    };
    stage.request(&signal).await?;
    go.notify_one();
    let saga = stage.ended("awaits", "early").await?;
    assert_eq!(saga.output, Some(json!({"sum": 1})));
    // After: it waits already. The event comes over the broker, with the key in a header.
    stage.begin("awaits", "late", json!({})).await?;
    let awaiting = |saga: &dirigent_contracts::api::SagaDescription| {
        saga.activities
            .iter()
            .any(|activity| activity.state == "Paid")
    };
    stage.until("awaits", "late", awaiting).await?;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(dirigent_contracts::header::KEY, "late");
    let body = br#"{"sum":2}"#.to_vec();
    let jetstream = async_nats::jetstream::new(stage.client.clone());
    let ack = jetstream
        .publish_with_headers("payments.received", headers, body.into())
        .await?;
    ack.await?;
    let saga = stage.ended("awaits", "late").await?;
    assert_eq!(saga.output, Some(json!({"sum": 2})));
    Ok(())
}

#[tokio::test]
async fn a_step_waits_for_a_callback_with_its_token() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
QueryLanguage: JSONata
StartAt: Ask
States:
  Ask: { Type: Task, Resource: 'task:ask.waitForTaskToken', End: true }
";
    stage.deploy("asks", document).await?;
    let crew = Crew::new(stage.client.clone()).echoes(&["ask"]).start()?;
    stage.begin("asks", "k", json!({})).await?;
    let until = std::time::Instant::now() + dirigent_tests::stage::PATIENCE;
    let token = loop {
        if let Some(token) = crew.calls.all().first().and_then(|call| call.token.clone()) {
            break token;
        }
        assert!(std::time::Instant::now() < until, "no call with a token");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(
        stage.describe("asks", "k").await?.status,
        SagaStatus::Running
    );
    let output = Arc::new(json!({"approved": true}));
    let callback = CallbackRequest {
        token,
        result: TaskResult::Succeeded { output },
    };
    stage.request(&callback).await?;
    let saga = stage.ended("asks", "k").await?;
    assert_eq!(saga.output, Some(json!({"approved": true})));
    let again = stage.request(&callback).await.unwrap_err();
    assert!(again.downcast_ref::<Refused>().is_some(), "{again}");
    Ok(())
}

#[tokio::test]
async fn an_event_starts_a_saga_and_the_saga_tells_its_own() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers:
  - Event: shop.orders.placed
    Key: '{% $event.data.order %}'
StartAt: Tell
States:
  Tell: { Type: Task, Resource: 'event:shop.orders.accepted', Arguments: { order: '{% $states.input.order %}' }, End: true }
";
    let follower = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers:
  - Event: shop.orders.accepted
    Key: '{% $event.data.order %}'
StartAt: Follow
States:
  Follow: { Type: Pass, End: true }
";
    stage.deploy("teller", document).await?;
    stage.deploy("follower", follower).await?;
    let jetstream = async_nats::jetstream::new(stage.client.clone());
    jetstream
        .publish("shop.orders.placed", r#"{"order":"o-7"}"#.into())
        .await?
        .await?;
    let saga = stage.ended("teller", "o-7").await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    assert!(
        saga.trigger
            .is_some_and(|trigger| trigger.subject == "shop.orders.placed")
    );
    let saga = stage.ended("follower", "o-7").await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    Ok(())
}
