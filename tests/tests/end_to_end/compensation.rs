//! What was done is undone: in reverse, only what has to be, and until it is.

use dirigent_contracts::{
    api::RetryRequest, error_name, history::Happening, outcome::SagaStatus, task::Direction,
};
use dirigent_tests::{
    crew::Crew,
    stage::{Stage, address, story},
};
use dirigent_worker::TaskError;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const TRIP: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Flight
States:
  Flight:
    Type: Task
    Resource: task:book-flight
    Compensate: { Resource: 'task:cancel-flight', Arguments: { id: '{% $states.result.id %}' } }
    Next: Hotel
  Hotel:
    Type: Task
    Resource: task:book-hotel
    Compensate: { Resource: 'task:cancel-hotel', Arguments: { id: '{% $states.result.id %}' } }
    Next: Pay
  Pay: { Type: Task, Resource: 'task:pay', End: true }
";

fn declined() -> TaskError {
    TaskError::new("Declined", "no money").permanent()
}

fn booking(crew: Crew) -> Crew {
    crew.does("book-flight", |_| async { Ok(json!({"id": "F1"})) })
        .does("book-hotel", |_| async { Ok(json!({"id": "H1"})) })
        .fails("pay", declined())
}

#[tokio::test]
async fn a_failed_saga_is_undone_in_reverse() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("trip", TRIP).await?;
    let crew = booking(Crew::new(stage.client.clone())).echoes(&["cancel-flight", "cancel-hotel"]);
    let crew = crew.start()?;
    let saga = stage.run("trip", "t-1", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Compensated);
    assert_eq!(
        saga.failure.map(|failure| failure.error),
        Some("Declined".to_owned())
    );
    let calls = crew.calls.all();
    let tasks: Vec<_> = calls.iter().map(|call| call.task.as_str()).collect();
    assert_eq!(
        tasks,
        [
            "book-flight",
            "book-hotel",
            "pay",
            "cancel-hotel",
            "cancel-flight"
        ]
    );
    assert_eq!(calls[3].input, json!({"id": "H1"}));
    assert_eq!(calls[3].direction, Direction::Undo);
    assert_eq!(calls[3].undoes.as_deref(), Some(calls[1].effect.as_str()));
    let history = stage.history("trip", "t-1").await?;
    let end = ["undone Hotel", "undone Flight", "compensated"];
    assert_eq!(story(&history)[story(&history).len() - 3..], end);
    Ok(())
}

#[tokio::test]
async fn a_saga_with_nothing_to_undo_has_just_failed() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("trip", TRIP).await?;
    let _crew = Crew::new(stage.client.clone())
        .fails("book-flight", declined())
        .start()?;
    let saga = stage.run("trip", "t-1", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Failed);
    Ok(())
}

#[tokio::test]
async fn a_failing_branch_undoes_the_others() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Both
States:
  Both:
    Type: Parallel
    Branches:
      - StartAt: Reserve
        States:
          Reserve: { Type: Task, Resource: 'task:reserve', Compensate: { Resource: 'task:release' }, End: true }
      - StartAt: First
        States:
          First: { Type: Task, Resource: 'task:first', Compensate: { Resource: 'task:unfirst' }, Next: Second }
          Second: { Type: Task, Resource: 'task:second', End: true }
    End: true
";
    stage.deploy("both", document).await?;
    let crew = Crew::new(stage.client.clone())
        .echoes(&["reserve", "first", "release", "unfirst"])
        .does("second", |_| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Err(declined())
        });
    let crew = crew.start()?;
    let saga = stage.run("both", "k", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Compensated);
    let mut undone: Vec<_> = crew.calls.tasks().split_off(3);
    undone.sort();
    assert_eq!(undone, ["release", "unfirst"]);
    Ok(())
}

#[tokio::test]
async fn a_step_that_timed_out_is_undone_and_its_late_success_is_recorded() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Slow
States:
  Slow:
    Type: Task
    Resource: task:slow
    TimeoutSeconds: 1
    Compensate: { Resource: 'task:unslow' }
    End: true
";
    stage.deploy("slow", document).await?;
    let undone = Arc::new(tokio::sync::Notify::new());
    let (wait, tell) = (undone.clone(), undone);
    let crew = Crew::new(stage.client.clone())
        .does("slow", move |_| {
            let wait = wait.clone();
            async move {
                wait.notified().await;
                Ok(json!("late"))
            }
        })
        .does("unslow", move |_| {
            tell.notify_one();
            async { Ok(json!(null)) }
        });
    let crew = crew.start()?;
    let saga = stage.run("slow", "k", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Compensated);
    assert_eq!(
        saga.failure.map(|failure| failure.error).as_deref(),
        Some(error_name::TIMEOUT)
    );
    assert_eq!(crew.calls.tasks(), ["slow", "unslow"]);
    // The reply comes when the saga is over, or almost; it is told either way.
    let until = std::time::Instant::now() + dirigent_tests::stage::PATIENCE;
    loop {
        let history = stage.history("slow", "k").await?;
        let is_told = history.iter().any(|event| {
            matches!(
                event.what,
                Happening::LateReply {
                    succeeded: true,
                    ..
                }
            )
        });
        if is_told {
            return Ok(());
        }
        assert!(
            std::time::Instant::now() < until,
            "no late reply in {history:#?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_pivot_is_not_undone() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Reserve
States:
  Reserve: { Type: Task, Resource: 'task:reserve', Compensate: { Resource: 'task:release' }, Next: Charge }
  Charge: { Type: Task, Resource: 'task:charge', Pivot: true, Next: Ship }
  Ship: { Type: Task, Resource: 'task:ship', End: true }
";
    stage.deploy("pivot", document).await?;
    let crew = Crew::new(stage.client.clone()).echoes(&["reserve", "charge", "release"]);
    let crew = crew.fails("ship", declined()).start()?;
    let saga = stage.run("pivot", "k", json!({})).await?;
    assert_eq!(saga.status, SagaStatus::Failed);
    assert_eq!(crew.calls.tasks(), ["reserve", "charge", "ship"]);
    Ok(())
}

#[tokio::test]
async fn a_stuck_compensation_is_an_incident_until_it_is_retried() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let document = TRIP.replace(
        "'task:cancel-hotel', ",
        "'task:cancel-hotel', Retry: [ { ErrorEquals: [States.ALL], MaxAttempts: 1, IntervalSeconds: 1 } ], ",
    );
    stage.deploy("trip", &document).await?;
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = mended.clone();
    let crew = booking(Crew::new(stage.client.clone())).echoes(&["cancel-flight"]);
    let crew = crew.does("cancel-hotel", move |_| {
        let result = if is_mended.load(Ordering::SeqCst) {
            Ok(json!(null))
        } else {
            Err(TaskError::new("Down", "the hotel does not answer"))
        };
        std::future::ready(result)
    });
    let crew = crew.start()?;
    let mut incidents = stage
        .client
        .subscribe("dirigent.event.trip.*.incident")
        .await?;
    stage.begin("trip", "t", json!({})).await?;
    let saga = stage.stands("trip", "t", SagaStatus::Stuck).await?;
    assert_eq!(saga.undo.len(), 2, "nothing is forgotten: {:?}", saga.undo);
    let incident = futures::StreamExt::next(&mut incidents).await;
    assert!(incident.is_some());
    assert_eq!(crew.calls.of("cancel-hotel").len(), 2);
    assert!(crew.calls.of("cancel-flight").is_empty(), "the order holds");

    mended.store(true, Ordering::SeqCst);
    let retry = RetryRequest {
        saga: address("trip", "t")?,
        skip: false,
        reason: String::new(),
    };
    stage.request(&retry).await?;
    let saga = stage.ended("trip", "t").await?;
    assert_eq!(saga.status, SagaStatus::Compensated);
    assert_eq!(crew.calls.of("cancel-flight").len(), 1);
    Ok(())
}
