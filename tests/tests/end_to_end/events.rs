//! Events at the door: every form of them, filters, and what cannot be understood.

use async_nats::{HeaderMap, jetstream};
use dirigent_contracts::api::{DeadLettersAnswer, DeadLettersRequest, ReplayRequest};
use dirigent_tests::stage::{PATIENCE, Stage};
use serde_json::json;
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

const BIG_ORDERS: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers:
  - Event: com.example.order.placed
    Subject: shop.orders
    Key: '{% $event.data.order %}'
    Filter: '{% $event.data.total > 100 %}'
    Input: { order: '{% $event.data.order %}', from: '{% $event.source %}' }
StartAt: Look
States:
  Look: { Type: Pass, End: true }
";

async fn publish(stage: &Stage, headers: &[(&str, &str)], body: &str) -> anyhow::Result<()> {
    let all: HeaderMap = headers
        .iter()
        .map(|(name, value)| Ok((name.parse()?, value.parse::<async_nats::HeaderValue>()?)))
        .collect::<anyhow::Result<_>>()?;
    jetstream::new(stage.client.clone())
        .publish_with_headers("shop.orders", all, body.to_owned().into())
        .await?
        .await?;
    Ok(())
}

async fn letters(stage: &Stage, count: u64) -> anyhow::Result<DeadLettersAnswer> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = stage.request(&DeadLettersRequest::default()).await?;
        if answer.total == count {
            return Ok(answer);
        }
        anyhow::ensure!(Instant::now() < until, "the dead letters are {answer:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn cloudevents_are_understood_in_both_modes_and_filtered() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("big-orders", BIG_ORDERS).await?;
    let structured = json!({
        "specversion": "1.0", "id": "e-1", "type": "com.example.order.placed", "source": "/till",
        "data": {"order": "o-1", "total": 900},
    });
    let media_type = ("content-type", "application/cloudevents+json");
    publish(&stage, &[media_type], &structured.to_string()).await?;
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "e-2"),
        ("ce-type", "com.example.order.placed"),
        ("ce-source", "/web"),
    ];
    publish(&stage, &binary, r#"{"order":"o-2","total":101}"#).await?;
    let first = stage.ended("big-orders", "o-1").await?;
    assert_eq!(first.output, Some(json!({"order": "o-1", "from": "/till"})));
    let second = stage.ended("big-orders", "o-2").await?;
    assert_eq!(second.output, Some(json!({"order": "o-2", "from": "/web"})));
    // A small one is nobody's: the filter has looked at it and does not want it.
    let small = [binary[0], ("ce-id", "e-3"), binary[2], binary[3]];
    publish(&stage, &small, r#"{"order":"o-3","total":7}"#).await?;
    // The same event once more, under its own id, starts nothing.
    publish(&stage, &binary, r#"{"order":"o-4","total":101}"#).await?;
    let last = [binary[0], ("ce-id", "e-5"), binary[2], binary[3]];
    publish(&stage, &last, r#"{"order":"o-5","total":500}"#).await?;
    stage.ended("big-orders", "o-5").await?;
    assert!(stage.describe("big-orders", "o-3").await.is_err());
    letters(&stage, 0).await?;
    Ok(())
}

/// A definition that is triggered by a subject; the event's `order` is the key.
fn triggered_by(subject: &str) -> String {
    format!(
        "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers:
  - {{ Event: '{subject}', Key: '{{% $event.data.order %}}' }}
StartAt: Look
States:
  Look: {{ Type: Pass, End: true }}
"
    )
}

#[tokio::test]
async fn a_router_whose_consumer_was_deleted_makes_another() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("orders", &triggered_by("shop.orders")).await?;
    publish(&stage, &[], r#"{"order":"o-1"}"#).await?;
    stage.ended("orders", "o-1").await?;
    let context = jetstream::new(stage.client.clone());
    let stream = context.get_stream("DIRIGENT_INBOX").await?;
    stream.delete_consumer("dirigent-router").await?;
    let until = Instant::now() + PATIENCE;
    while stream.consumer_info("dirigent-router").await.is_err() {
        anyhow::ensure!(Instant::now() < until, "nobody made the consumer anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    publish(&stage, &[], r#"{"order":"o-2"}"#).await?;
    stage.ended("orders", "o-2").await?;
    // And the whole stream, with all that is in it.
    context.delete_stream("DIRIGENT_INBOX").await?;
    while context.get_stream("DIRIGENT_INBOX").await.is_err() {
        anyhow::ensure!(Instant::now() < until, "nobody made the stream anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stream = context.get_stream("DIRIGENT_INBOX").await?;
    while stream.consumer_info("dirigent-router").await.is_err() {
        anyhow::ensure!(Instant::now() < until, "nobody made the consumer anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    publish(&stage, &[], r#"{"order":"o-3"}"#).await?;
    stage.ended("orders", "o-3").await?;
    Ok(())
}

#[tokio::test]
async fn a_subject_is_kept_whole_or_refused() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let context = jetstream::new(stage.client.clone());
    let config = jetstream::stream::Config {
        name: "EU".to_owned(),
        subjects: vec!["orders.eu.>".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await?;
    let refused = stage.deploy("orders", &triggered_by("orders.>")).await;
    let said = refused.unwrap_err().to_string();
    assert!(
        said.contains("EU") && said.contains("orders.eu.>"),
        "{said}"
    );
    stage.deploy("orders", &triggered_by("orders.eu.*")).await?;
    // Ours grows with what is listened to.
    stage.deploy("one", &triggered_by("shop.one")).await?;
    stage.deploy("all", &triggered_by("shop.*")).await?;
    publish(&stage, &[], r#"{"order":"o-1"}"#).await?;
    stage.ended("all", "o-1").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_hears_what_comes_when_it_is_deployed() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    // So many states that reading the rules takes longer than publishing an event.
    let mut document = triggered_by("shop.orders").replace("End: true", "Next: S0");
    for n in 0..500 {
        let next = n + 1;
        writeln!(
            document,
            "  S{n}: {{ Type: Pass, Output: '{{% $states.input %}}', Next: S{next} }}"
        )?;
    }
    writeln!(document, "  S500: {{ Type: Pass, End: true }}")?;
    // Each of them listens to all events: those before route what comes too early by their rules.
    for n in 0..5 {
        let name = format!("orders-{n}");
        stage
            .deploy(&name, &format!("{document}Comment: '{n}'\n"))
            .await?;
        let order = format!("o-{n}");
        let body = json!({ "order": order }).to_string();
        publish(&stage, &[], &body).await?;
        stage.ended(&name, &order).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_into_a_letter_is_kept_without_its_body() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers:
  - { Event: shop.orders, Key: '{% $event.data.order %}', Filter: '{% $event.data.text %}' }
StartAt: Look
States:
  Look: { Type: Pass, End: true }
";
    stage.deploy("orders", document).await?;
    // As large as a message may be, so that there is no room for a letter's headers.
    let largest = stage.client.max_payload();
    publish(&stage, &[], &" ".repeat(largest)).await?;
    let kept = letters(&stage, 1).await?.letters;
    assert!(kept[0].reason.contains("DIRIGENT_INBOX/1"), "{kept:#?}");
    assert_eq!(kept[0].body, "");
    let number = kept[0].number;
    let refused = stage.request(&ReplayRequest { number }).await.unwrap_err();
    assert!(
        refused.to_string().contains("without its body"),
        "{refused}"
    );
    // Its reason quotes what the filter gives, more than headers may have.
    let text = json!({"order": "o-1", "text": "x".repeat(100_000)}).to_string();
    publish(&stage, &[], &text).await?;
    let kept = letters(&stage, 2).await?.letters;
    assert!(kept[0].reason.contains("not true or false") || kept[0].reason.ends_with('…'));
    assert!(kept[0].reason.len() < 2_000 && !kept[0].body.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_fits_no_rule_is_kept_and_can_be_replayed() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = |key: &str| {
        format!(
            "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers:
  - Event: shop.orders
    Key: '{{% {key} %}}'
StartAt: Look
States:
  Look: {{ Type: Pass, End: true }}
"
        )
    };
    stage
        .deploy("orders", &document("$event.data.order"))
        .await?;
    publish(&stage, &[], r#"{"number":"o-1"}"#).await?;
    publish(&stage, &[], "not json").await?;
    let kept = letters(&stage, 2).await?.letters;
    let reasons: Vec<&str> = kept.iter().map(|letter| letter.reason.as_str()).collect();
    assert!(reasons[0].contains("not JSON"), "{reasons:?}");
    assert!(reasons[1].contains("orders"), "{reasons:?}");
    assert_eq!(kept[1].subject, "shop.orders");
    assert_eq!(kept[1].body, r#"{"number":"o-1"}"#);
    // The definition learns of the other spelling, and the operator replays what was kept.
    stage
        .deploy("orders", &document("$event.data.number"))
        .await?;
    let number = kept[1].number;
    stage.request(&ReplayRequest { number }).await?;
    stage.ended("orders", "o-1").await?;
    letters(&stage, 1).await?;
    Ok(())
}
