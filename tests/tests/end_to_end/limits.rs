//! The limits of an installation: shown, changed, and kept at every door.

use dirigent_contracts::{
    api::{ErrorCode, LimitsRequest, SignalRequest},
    error_name,
    limits::{Limit, Limits, SagaLimits},
    outcome::SagaStatus,
};
use dirigent_coordinator::{Coordinator, telemetry::Telemetry};
use dirigent_tests::{
    crew::Crew,
    stage::{Refused, Stage, address, settings},
};
use serde_json::{Value, json};

const PASS: &str = "{StartAt: P, States: {P: {Type: Pass, End: true}}}";
const ASK: &str = "{StartAt: T, States: {T: {Type: Task, Resource: 'task:grow', End: true}}}";

async fn set(stage: &Stage, limit: Limit, value: Option<u64>) -> anyhow::Result<Limits> {
    let set = [(limit.as_str().to_owned(), value)].into();
    let answer = stage.request(&LimitsRequest { set }).await?;
    let mut limits = Limits::default();
    for one in answer.limits {
        limits.set(one.name.parse()?, one.value)?;
    }
    Ok(limits)
}

/// The words of a refusal that says that something is too large.
fn too_large<T>(result: anyhow::Result<T>) -> String {
    let Err(error) = result else {
        panic!("nothing was refused");
    };
    match error.downcast_ref::<Refused>() {
        Some(refused) if refused.code == ErrorCode::TooLarge => error.to_string(),
        _ => panic!("not refused as too large, but {error:#}"),
    }
}

#[tokio::test]
async fn limits_are_changed_for_all_coordinators_and_stay_so() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let other = stage.nats.connect().await?;
    let other = Coordinator::start(other, settings("other"), Telemetry::default()).await?;
    let changed = set(&stage, Limit::Attempts, Some(7)).await?;
    let expected = Limits {
        saga: SagaLimits {
            attempts: 7,
            ..SagaLimits::default()
        },
        ..Limits::default()
    };
    assert_eq!(changed, expected);
    // Nothing of a change that is not right is made.
    for (name, value) in [("attempts", 0), ("states", 0), ("attemps", 3)] {
        let set = [
            ("history".to_owned(), Some(20)),
            (name.to_owned(), Some(value)),
        ];
        let request = LimitsRequest { set: set.into() };
        let error = stage.request(&request).await.unwrap_err();
        let refused = error.downcast_ref::<Refused>().map(|refused| refused.code);
        assert_eq!(refused, Some(ErrorCode::BadRequest));
    }
    other.stop().await;
    stage.coordinator.take().unwrap().stop().await;
    let client = stage.nats.connect().await?;
    let again = Coordinator::start(client, settings("again"), Telemetry::default()).await?;
    stage.coordinator = Some(again);
    let answer = stage.request(&LimitsRequest::default()).await?;
    let attempts = answer.limits.iter().find(|limit| limit.name == "attempts");
    assert_eq!(attempts.map(|limit| limit.value), Some(7));
    assert_eq!(set(&stage, Limit::Attempts, None).await?, Limits::default());
    Ok(())
}

#[tokio::test]
async fn what_is_too_large_is_refused_at_the_door_and_told_how_to_raise_the_limit()
-> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("pass", PASS).await?;
    set(&stage, Limit::Payload, Some(2_000)).await?;
    let large = json!("x".repeat(2_000));
    let why = too_large(stage.begin("pass", "k", large.clone()).await);
    assert!(
        why.contains("the input has 2002 bytes, and the limit `payload` allows 2000"),
        "{why}"
    );
    assert!(
        why.contains("`dirigent limits payload=...` raises it"),
        "{why}"
    );
    let signal = |event: &str, id: &str, data: Value| SignalRequest {
        saga: address("pass", "k").unwrap(),
        event: event.to_owned(),
        id: Some(id.to_owned()),
        data,
    };
    let why = too_large(stage.request(&signal("e", "i", large)).await);
    assert!(why.contains("the data has 2002 bytes"), "{why}");
    let why = too_large(
        stage
            .request(&signal(&"e".repeat(257), "i", json!(1)))
            .await,
    );
    assert!(why.contains("the event's name has 257 bytes"), "{why}");
    let why = too_large(
        stage
            .request(&signal("e", &"i".repeat(1_025), json!(1)))
            .await,
    );
    assert!(why.contains("the event's id has 1025 bytes"), "{why}");
    assert_eq!(stage.messages("DIRIGENT_JOURNAL_0").await?, 0);
    assert_eq!(stage.messages("DIRIGENT_JOURNAL_1").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_definition_that_is_too_large_is_refused_by_the_limit_that_it_exceeds()
-> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let parallel = json!({
        "StartAt": "P",
        "States": {"P": {"Type": "Parallel", "End": true, "Branches": [
            {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": true}}},
            {"StartAt": "M", "States": {"M": {"Type": "Map", "End": true, "ItemProcessor":
                {"StartAt": "B", "States": {"B": {"Type": "Pass", "End": true}}}}}},
        ]}},
    });
    let parallel = parallel.to_string();
    for (limit, most, found) in [
        (Limit::Definition, 1_024, "the document has 2"),
        (Limit::States, 3, "the definition has 4"),
        (Limit::Branches, 1, "its widest Parallel has 2"),
        (
            Limit::Nesting,
            1,
            "the nesting of its Parallel and Map states has 2",
        ),
    ] {
        let document = match limit {
            Limit::Definition => format!("{parallel}{}", " ".repeat(2_000)),
            _ => parallel.clone(),
        };
        set(&stage, limit, Some(most)).await?;
        let why = too_large(stage.deploy("wide", &document).await);
        assert!(why.contains(found), "{why}");
        assert!(
            why.contains(&format!("the limit `{limit}` allows {most}")),
            "{why}"
        );
        set(&stage, limit, None).await?;
        stage.deploy("wide", &document).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_output_may_be_as_large_as_the_limit_of_the_saga_says() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("ask", ASK).await?;
    let crew = Crew::new(stage.client.clone());
    // Its output has as many bytes of JSON as its input says.
    let crew = crew.does("grow", |call| async move {
        let bytes = call.input.as_u64().unwrap_or_default();
        Ok(json!("x".repeat(usize::try_from(bytes)? - 2)))
    });
    let _crew = crew.start()?;
    for payload in [None, Some(300_000)] {
        set(&stage, Limit::Payload, payload).await?;
        let most = payload.unwrap_or(262_144);
        let saga = stage
            .run("ask", &format!("fits-{most}"), json!(most))
            .await?;
        assert_eq!(saga.status, SagaStatus::Succeeded);
        assert_eq!(saga.output.unwrap().to_string().len() as u64, most);
    }
    let saga = stage.run("ask", "more", json!(300_001)).await?;
    let failure = saga.failure.unwrap();
    assert_eq!(failure.error, error_name::DATA_LIMIT_EXCEEDED);
    assert!(
        failure.cause.contains("the limit `payload`"),
        "{}",
        failure.cause
    );
    Ok(())
}

#[tokio::test]
async fn a_saga_keeps_the_limits_that_it_was_started_with() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    stage
        .deploy(
            "poll",
            "{StartAt: W, States: {W: {Type: Wait, Seconds: 1, Next: W}}}",
        )
        .await?;
    set(&stage, Limit::SagaAge, Some(3)).await?;
    stage.begin("poll", "old", json!(1)).await?;
    set(&stage, Limit::SagaAge, None).await?;
    set(&stage, Limit::History, Some(10)).await?;
    stage.begin("poll", "long", json!(1)).await?;
    set(&stage, Limit::History, None).await?;
    // Another coordinator, which never knew other limits, goes on with them.
    stage.coordinator.take().unwrap().stop().await;
    let client = stage.nats.connect().await?;
    let again = Coordinator::start(client, settings("again"), Telemetry::default()).await?;
    stage.coordinator = Some(again);
    for (key, error) in [
        ("old", error_name::SAGA_TOO_OLD),
        ("long", error_name::HISTORY_TOO_LONG),
    ] {
        let saga = stage.ended("poll", key).await?;
        assert_eq!(
            saga.failure.map(|failure| failure.error).as_deref(),
            Some(error)
        );
    }
    Ok(())
}
