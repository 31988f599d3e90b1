//! Steps: done in order, tried again, failed for good.

use dirigent_contracts::{history::Happening, outcome::SagaStatus, subject};
use dirigent_tests::{
    crew::Crew,
    stage::{Stage, story},
};
use dirigent_worker::TaskError;
use futures::StreamExt as _;
use serde_json::json;

/// What the messages of one saga of `THREE` have, subjects and headers included; numbers and names of
/// processes vary a little.
const BYTES: usize = 3_375;
const MARGIN: usize = 40;

const THREE: &str = "
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:a', Arguments: { n: '{% $states.input.n + 1 %}' }, Next: B }
  B: { Type: Task, Resource: 'task:b', Arguments: { n: '{% $states.input.n + 1 %}' }, Next: C }
  C: { Type: Task, Resource: 'task:c', Arguments: { n: '{% $states.input.n + 1 %}' }, End: true }
";

#[tokio::test]
async fn a_saga_of_three_steps_costs_eight_messages() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("three", THREE).await?;
    let crew = Crew::new(stage.client.clone())
        .echoes(&["a", "b", "c"])
        .start()?;
    let saga = stage.run("three", "k-1", json!({"n": 0})).await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    assert_eq!(saga.output, Some(json!({"n": 3})));
    assert_eq!(crew.calls.tasks(), ["a", "b", "c"]);
    let history = stage.history("three", "k-1").await?;
    assert_eq!(story(&history), ["done A", "done B", "done C", "succeeded"]);

    // A second one, counted at the server, what was stored, wherever; and as it passes.
    let mut passing = stage.client.subscribe("dirigent.>").await?;
    stage.client.flush().await?;
    let before = stored(&stage).await?;
    stage.run("three", "k-2", json!({"n": 0})).await?;
    let after = stored(&stage).await?;
    assert_eq!(
        after - before,
        8,
        "1 start, 3 commands, 3 replies, 1 outcome"
    );
    passing.unsubscribe().await?;
    let mut bytes = 0;
    let mut messages = 0;
    while let Some(message) = passing.next().await {
        if !message.subject.starts_with("dirigent.api.") {
            bytes += message.length;
            messages += 1;
        }
    }
    assert_eq!(messages, 8);
    // Less is welcome too, and is to be written down here.
    assert!(
        (BYTES.saturating_sub(MARGIN)..=BYTES + MARGIN).contains(&bytes),
        "the messages of a saga have {bytes} bytes, subjects and headers included, and had {BYTES}"
    );
    Ok(())
}

/// Sequences that all message streams have given out. Buckets are left out: beats go there.
async fn stored(stage: &Stage) -> anyhow::Result<u64> {
    let context = async_nats::jetstream::new(stage.client.clone());
    let mut sum = 0;
    let mut names = vec![
        subject::COMMANDS_STREAM.to_owned(),
        subject::EVENTS_STREAM.to_owned(),
    ];
    names.extend([
        "DIRIGENT_JOURNAL_0".to_owned(),
        "DIRIGENT_JOURNAL_1".to_owned(),
    ]);
    for name in names {
        sum += context
            .get_stream(name)
            .await?
            .cached_info()
            .state
            .last_sequence;
    }
    Ok(sum)
}

#[tokio::test]
async fn a_failing_step_is_tried_again_with_growing_pauses() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
QueryLanguage: JSONata
StartAt: A
States:
  A:
    Type: Task
    Resource: task:a
    Retry: [ { ErrorEquals: [Flaky], IntervalSeconds: 1, BackoffRate: 2, MaxAttempts: 3 } ]
    End: true
";
    stage.deploy("retried", document).await?;
    let crew = Crew::new(stage.client.clone()).does("a", |call| async move {
        match call.attempt {
            3 => Ok(json!("at last")),
            attempt => Err(TaskError::new("Flaky", format!("attempt {attempt}"))),
        }
    });
    let crew = crew.start()?;
    let saga = stage.run("retried", "k", json!(null)).await?;
    assert_eq!(saga.output, Some(json!("at last")));
    let effects: Vec<_> = crew
        .calls
        .all()
        .into_iter()
        .map(|call| call.effect)
        .collect();
    assert_eq!(effects.len(), 3);
    assert!(
        effects.iter().all(|effect| *effect == effects[0]),
        "one effect id: {effects:?}"
    );
    let history = stage.history("retried", "k").await?;
    let pauses: Vec<f64> = history
        .iter()
        .filter_map(|event| match &event.what {
            Happening::RetryScheduled { until, .. } => Some(until.since(event.at).as_secs_f64()),
            _ => None,
        })
        .collect();
    assert_eq!(pauses, [1.0, 2.0]);
    Ok(())
}

#[tokio::test]
async fn an_error_that_no_attempt_can_mend_is_not_tried_again() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
QueryLanguage: JSONata
StartAt: A
States:
  A:
    Type: Task
    Resource: task:a
    Retry: [ { ErrorEquals: [States.ALL], MaxAttempts: 5 } ]
    Catch: [ { ErrorEquals: [Refused], Output: '{% $states.errorOutput %}', Next: B } ]
    End: true
  B: { Type: Pass, End: true }
";
    stage.deploy("caught", document).await?;
    let refused = TaskError::new("Refused", "never").permanent();
    let crew = Crew::new(stage.client.clone())
        .fails("a", refused)
        .start()?;
    let saga = stage.run("caught", "k", json!(null)).await?;
    assert_eq!(
        saga.output,
        Some(json!({"Error": "Refused", "Cause": "never"}))
    );
    assert_eq!(crew.calls.all().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_worker_that_panics_fails_its_step_and_goes_on() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("three", THREE).await?;
    let crew = Crew::new(stage.client.clone())
        .echoes(&["b", "c"])
        .does("a", |call| async move {
            assert!(call.key != "bad", "asked to panic");
            Ok(call.input)
        });
    let _crew = crew.start()?;
    let saga = stage.run("three", "bad", json!({"n": 0})).await?;
    assert_eq!(saga.status, SagaStatus::Failed);
    let cause = saga
        .failure
        .map(|failure| failure.cause)
        .unwrap_or_default();
    assert!(cause.contains("asked to panic"), "{cause}");
    let saga = stage.run("three", "good", json!({"n": 0})).await?;
    assert_eq!(saga.status, SagaStatus::Succeeded);
    Ok(())
}

#[tokio::test]
async fn a_map_keeps_its_order_and_its_concurrency() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
QueryLanguage: JSONata
StartAt: M
States:
  M:
    Type: Map
    MaxConcurrency: 2
    ItemProcessor:
      StartAt: A
      States: { A: { Type: Task, Resource: 'task:a', End: true } }
    End: true
";
    stage.deploy("mapped", document).await?;
    let running = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let most = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counter, peak) = (running.clone(), most.clone());
    let crew = Crew::new(stage.client.clone()).does("a", move |call| {
        let (counter, peak) = (counter.clone(), peak.clone());
        async move {
            use std::sync::atomic::Ordering::SeqCst;
            peak.fetch_max(counter.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            counter.fetch_sub(1, SeqCst);
            Ok(json!(call.input.as_i64().unwrap_or(0) * 10))
        }
    });
    let _crew = crew.start()?;
    let saga = stage.run("mapped", "k", json!([1, 2, 3, 4, 5])).await?;
    assert_eq!(saga.output, Some(json!([10, 20, 30, 40, 50])));
    assert!(most.load(std::sync::atomic::Ordering::SeqCst) <= 2);
    Ok(())
}
