//! What operators ask: start, cancel, and what is refused.

use dirigent_contracts::{
    api::{
        CancelRequest, ErrorCode, ListRequest, Operation as _, RetryRequest, SignalRequest,
        StartAnswer, StartRequest,
    },
    header,
    outcome::SagaStatus,
    subject,
};
use dirigent_tests::{
    crew::Crew,
    stage::{PATIENCE, Refused, Stage, address},
};
use serde_json::json;
use std::time::{Duration, Instant};

const SLEEPER: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Reserve
States:
  Reserve: { Type: Task, Resource: 'task:reserve', Compensate: { Resource: 'task:release' }, Next: Sleep }
  Sleep: { Type: Wait, Seconds: 3600, End: true }
";

const QUICK: &str = "{StartAt: P, States: {P: {Type: Pass, End: true}}}";

fn refusal(error: &anyhow::Error) -> ErrorCode {
    match error.downcast_ref::<Refused>() {
        Some(refused) => refused.code,
        None => panic!("not refused, but {error:#}"),
    }
}

#[tokio::test]
async fn a_canceled_saga_undoes_what_it_did() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("sleeper", SLEEPER).await?;
    let crew = Crew::new(stage.client.clone())
        .echoes(&["reserve", "release"])
        .start()?;
    stage.begin("sleeper", "k", json!({})).await?;
    stage
        .until("sleeper", "k", |saga| !saga.undo.is_empty())
        .await?;
    let cancel = CancelRequest {
        saga: address("sleeper", "k")?,
        reason: "changed my mind".to_owned(),
    };
    stage.request(&cancel).await?;
    let saga = stage.ended("sleeper", "k").await?;
    assert_eq!(saga.status, SagaStatus::Canceled);
    assert_eq!(crew.calls.tasks(), ["reserve", "release"]);
    let again = stage.request(&cancel).await.unwrap_err();
    assert_eq!(refusal(&again), ErrorCode::Conflict);
    Ok(())
}

#[tokio::test]
async fn a_start_that_is_repeated_under_its_id_is_told_that_it_has_started() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("sleeper", SLEEPER).await?;
    let start = |id: &str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(header::MESSAGE_ID, id);
        let body = json!({"definition": "sleeper", "key": "k"}).to_string();
        let client = stage.client.clone();
        async move {
            let subject = subject::api(StartRequest::NAME);
            let answer = client.request_with_headers(subject, headers, body.into());
            let answer: StartAnswer = serde_json::from_slice(&answer.await?.payload)?;
            anyhow::Ok(answer.started)
        }
    };
    assert!(start("a").await?);
    // Its acknowledgement was lost, say.
    assert!(start("a").await?);
    assert!(!start("b").await?);
    Ok(())
}

#[tokio::test]
async fn a_key_starts_one_saga() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("sleeper", SLEEPER).await?;
    let crew = Crew::new(stage.client.clone())
        .echoes(&["reserve", "release"])
        .start()?;
    let first = stage.begin("sleeper", "k", json!({"n": 1})).await?;
    let second = stage.begin("sleeper", "k", json!({"n": 2})).await?;
    assert!(first.started);
    assert!(!second.started);
    stage
        .until("sleeper", "k", |saga| !saga.undo.is_empty())
        .await?;
    assert_eq!(stage.describe("sleeper", "k").await?.input, json!({"n": 1}));
    assert_eq!(crew.calls.tasks(), ["reserve"]);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_a_reason() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let unknown = stage.begin("nobody", "k", json!({})).await.unwrap_err();
    assert_eq!(refusal(&unknown), ErrorCode::NotFound);
    let unknown = stage.describe("nobody", "k").await.unwrap_err();
    assert_eq!(refusal(&unknown), ErrorCode::NotFound);
    let garbage = stage.request_raw("start", b"{".to_vec()).await.unwrap_err();
    assert_eq!(refusal(&garbage), ErrorCode::BadRequest);
    let typo = br#"{"definition":"a","inptu":1}"#.to_vec();
    let typo = stage.request_raw("start", typo).await.unwrap_err();
    assert!(typo.to_string().contains("inptu"), "{typo}");
    let broken = stage
        .deploy("broken", "StartAt: A\nStates: { B: { Type: Pass } }")
        .await;
    let broken = broken.unwrap_err();
    assert_eq!(refusal(&broken), ErrorCode::BadRequest);
    stage.deploy("sleeper", SLEEPER).await?;
    stage.begin("sleeper", "k", json!({})).await?;
    let retry = RetryRequest {
        saga: address("sleeper", "k")?,
        skip: false,
        reason: String::new(),
    };
    let early = stage.request(&retry).await.unwrap_err();
    assert_eq!(refusal(&early), ErrorCode::Conflict);
    let large = json!("x".repeat(262_145));
    let large = stage.begin("sleeper", "large", large).await.unwrap_err();
    assert_eq!(refusal(&large), ErrorCode::TooLarge);
    Ok(())
}

#[tokio::test]
async fn a_list_shows_the_living_and_the_ended() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("sleeper", SLEEPER).await?;
    stage.deploy("quick", QUICK).await?;
    let _crew = Crew::new(stage.client.clone())
        .echoes(&["reserve", "release"])
        .start()?;
    for n in 0..3 {
        stage.begin("sleeper", &format!("s-{n}"), json!({})).await?;
        stage.run("quick", &format!("q-{n}"), json!({})).await?;
    }
    let all = stage.request(&ListRequest::default()).await?;
    assert_eq!(all.sagas.len(), 6, "{all:#?}");
    assert_eq!(all.silent, []);
    let ended = ListRequest {
        status: vec![SagaStatus::Succeeded],
        ..ListRequest::default()
    };
    let ended = stage.request(&ended).await?;
    assert_eq!(ended.sagas.len(), 3);
    assert!(
        ended
            .sagas
            .iter()
            .all(|saga| saga.saga.definition.as_str() == "quick")
    );
    let two = ListRequest {
        limit: Some(2),
        ..ListRequest::default()
    };
    let two = stage.request(&two).await?;
    assert_eq!((two.sagas.len(), two.more), (2, true));
    let too_many = ListRequest {
        limit: Some(1_001),
        ..ListRequest::default()
    };
    let refused = stage.request(&too_many).await.unwrap_err();
    assert_eq!(refusal(&refused), ErrorCode::BadRequest);
    Ok(())
}

#[tokio::test]
async fn a_list_finds_sagas_however_many_others_have_ended_since() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("quick", QUICK).await?;
    for n in 0..3 {
        stage.run("quick", &format!("q-{n}"), json!({})).await?;
    }
    let context = async_nats::jetstream::new(stage.client.clone());
    for n in 0..2_300 {
        let subject = subject::event(&address("typo", &format!("t-{n}"))?, "failed");
        drop(context.publish(subject, "{}".into()).await?);
    }
    let last = subject::event(&address("typo", "last")?, "failed");
    context.publish(last, "{}".into()).await?.await?;
    let list = async |definition: Option<&str>, status: &[SagaStatus], limit| {
        let request = ListRequest {
            definition: definition.map(str::parse).transpose()?,
            status: status.to_vec(),
            limit: Some(limit),
        };
        let answer = stage.request(&request).await?;
        anyhow::Ok((answer.sagas.len(), answer.more))
    };
    assert_eq!(list(Some("quick"), &[], 50).await?, (3, false));
    assert_eq!(list(None, &[SagaStatus::Succeeded], 2).await?, (2, true));
    assert_eq!(list(Some("typo"), &[], 1_000).await?, (1_000, true));
    assert_eq!(
        list(Some("typo"), &[SagaStatus::Succeeded], 50).await?,
        (0, false)
    );
    Ok(())
}

#[tokio::test]
async fn a_new_version_does_not_touch_running_sagas() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let version = |answer: &str| {
        format!(
            "{{QueryLanguage: JSONata, StartAt: W, States: {{W: {{Type: Wait, Seconds: 1, Next: P}}, \
             P: {{Type: Pass, Output: {answer}, End: true}}}}}}"
        )
    };
    let first = stage.deploy("versions", &version("one")).await?;
    assert!(first.changed);
    assert!(!stage.deploy("versions", &version("one")).await?.changed);
    stage.begin("versions", "old", json!({})).await?;
    let second = stage.deploy("versions", &version("two")).await?;
    assert_ne!(first.digest, second.digest);
    stage.begin("versions", "new", json!({})).await?;
    assert_eq!(
        stage.ended("versions", "old").await?.output,
        Some(json!("one"))
    );
    assert_eq!(
        stage.ended("versions", "new").await?.output,
        Some(json!("two"))
    );
    Ok(())
}

#[tokio::test]
async fn nobody_is_told_that_something_will_happen_that_will_not() -> anyhow::Result<()> {
    const DECIDED: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Decide
States:
  Decide: { Type: Task, Resource: 'task:decide', Pivot: true, Next: Sleep }
  Sleep: { Type: Wait, Seconds: 3600, End: true }
";
    let stage = Stage::start().await?;
    stage.deploy("decided", DECIDED).await?;
    stage.deploy("quick", QUICK).await?;
    let _crew = Crew::new(stage.client.clone())
        .echoes(&["decide"])
        .start()?;
    stage.begin("decided", "k", json!({})).await?;
    stage
        .until("decided", "k", |saga| {
            saga.activities.iter().any(|it| it.state == "Sleep")
        })
        .await?;
    let cancel = CancelRequest {
        saga: address("decided", "k")?,
        reason: String::new(),
    };
    let late = stage.request(&cancel).await.unwrap_err();
    assert_eq!(refusal(&late), ErrorCode::Conflict);
    assert!(late.to_string().contains("past its pivot"), "{late}");

    stage.run("quick", "k", json!({})).await?;
    for (name, code) in [
        ("quick", ErrorCode::Conflict),
        ("nobody", ErrorCode::NotFound),
    ] {
        let signal = SignalRequest {
            saga: address(name, "k")?,
            event: "paid".to_owned(),
            id: None,
            data: json!({}),
        };
        let nobody_hears = stage.request(&signal).await.unwrap_err();
        assert_eq!(refusal(&nobody_hears), code, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn commands_that_nobody_waits_for_any_more_are_taken_back() -> anyhow::Result<()> {
    const SLOW: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Slow
States:
  Slow:
    Type: Task
    Resource: task:slow
    TimeoutSeconds: 1
    Retry: [{ ErrorEquals: [States.Timeout], MaxAttempts: 1, IntervalSeconds: 1 }]
    End: true
";
    let stage = Stage::start().await?;
    stage.deploy("slow", SLOW).await?;
    let patient = SLOW.replace("TimeoutSeconds: 1", "TimeoutSeconds: 3600");
    stage.deploy("patient", &patient).await?;
    let saga = stage.run("slow", "k", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Failed);
    stage.begin("patient", "k", json!({})).await?;
    stage
        .until("patient", "k", |saga| !saga.activities.is_empty())
        .await?;
    let cancel = CancelRequest {
        saga: address("patient", "k")?,
        reason: String::new(),
    };
    stage.request(&cancel).await?;
    stage.ended("patient", "k").await?;
    let until = Instant::now() + PATIENCE;
    while stage.messages(subject::COMMANDS_STREAM).await? > 0 {
        assert!(Instant::now() < until, "a command is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Whoever comes now has nothing to do.
    let crew = Crew::new(stage.client.clone()).echoes(&["slow"]).start()?;
    stage.run("slow", "next", json!({})).await?;
    let keys: Vec<String> = crew.calls.all().into_iter().map(|call| call.key).collect();
    assert_eq!(keys, ["next"]);
    Ok(())
}
