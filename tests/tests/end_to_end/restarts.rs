//! Processes that die: whatever is killed, every saga ends once and the ledger balances.

use crate::node::{Node, pull_config};
use anyhow::ensure;
use dirigent_contracts::{api::StartRequest, outcome::SagaStatus, subject};
use dirigent_tests::{
    crew::Crew,
    ledger::{Account, Ledger},
    stage::{PATIENCE, Stage},
};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

const DOCUMENT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:do-a', Compensate: { Resource: 'task:undo-a' }, Next: Nap }
  Nap: { Type: Wait, Seconds: 1, Next: B }
  B: { Type: Task, Resource: 'task:do-b', Compensate: { Resource: 'task:undo-b' }, Next: C }
  C: { Type: Task, Resource: 'task:do-c', End: true }
";

/// Starts sagas, every third of which is refused at its last step.
async fn begin(stage: &Stage, keys: std::ops::Range<usize>) -> anyhow::Result<()> {
    let starts = keys.map(|n| async move {
        let refuse = if n % 3 == 0 {
            json!("do-c")
        } else {
            Value::Null
        };
        let request = StartRequest {
            definition: "faults".parse()?,
            key: Some(format!("k-{n}").parse()?),
            input: json!({ "refuse": refuse }),
            digest: None,
        };
        stage.request(&request).await
    });
    futures::stream::iter(starts)
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(())
}

/// Waits for so many outcomes; gives how often each saga ended, and how.
async fn outcomes(stage: &Stage, count: usize) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let until = Instant::now() + 2 * PATIENCE;
    let context = async_nats::jetstream::new(stage.client.clone());
    loop {
        let mut ended: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let stream = context.get_stream(subject::EVENTS_STREAM).await;
        if let Ok(stream) = stream {
            let mut subjects = stream
                .info_with_subjects("dirigent.event.faults.*.*")
                .await?;
            while let Some(Ok((subject, stored))) = subjects.next().await {
                let Ok((address, what)) = subject::parse_event(&subject) else {
                    continue;
                };
                let all = ended.entry(address.key.to_string()).or_default();
                all.extend(std::iter::repeat_n(what.to_owned(), stored));
            }
        }
        if ended.len() >= count {
            return Ok(ended);
        }
        ensure!(
            Instant::now() < until,
            "{} of {count} sagas ended",
            ended.len()
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Every saga ended once and as it should, and what was done stands or was undone.
fn check(ended: &BTreeMap<String, Vec<String>>, ledger: &Path) -> anyhow::Result<()> {
    for (key, outcomes) in ended {
        let n: usize = key.trim_start_matches("k-").parse()?;
        let expected = if n.is_multiple_of(3) {
            "compensated"
        } else {
            "succeeded"
        };
        ensure!(outcomes[..] == [expected], "{key} ended as {outcomes:?}");
    }
    let mut by_saga: BTreeMap<String, Vec<Account>> = BTreeMap::new();
    for account in Ledger::accounts(ledger)?.into_values() {
        by_saga
            .entry(account.key.clone())
            .or_default()
            .push(account);
    }
    for (key, accounts) in &by_saga {
        let n: usize = key.trim_start_matches("k-").parse()?;
        let undone = usize::from(n.is_multiple_of(3));
        let steps = if n.is_multiple_of(3) { 2 } else { 3 };
        ensure!(accounts.len() == steps, "{key}: {accounts:?}");
        for account in accounts {
            ensure!(
                (account.done, account.undone) == (1, undone),
                "{key}: {account:?}"
            );
        }
    }
    ensure!(
        by_saga.len() == ended.len(),
        "{} of {} in the ledger",
        by_saga.len(),
        ended.len()
    );
    Ok(())
}

#[tokio::test]
async fn a_coordinator_killed_twenty_times_loses_and_doubles_nothing() -> anyhow::Result<()> {
    const SAGAS: usize = 200;
    let stage = Stage::start_without_coordinator().await?;
    let url = stage.nats.url();
    let ledger = stage.nats.directory().join("ledger");
    let _worker = Node::start("worker", &ledger.to_string_lossy(), &url)?;
    let mut coordinator = Node::start("coordinator", "c-1", &url)?;
    stage.deploy("faults", DOCUMENT).await?;
    let killing = async {
        for round in 0..20_u64 {
            // Any moment: a spread of pauses that no phase of the work is in step with.
            tokio::time::sleep(Duration::from_millis(120 + (round * 137) % 400)).await;
            coordinator.kill()?;
            coordinator = Node::start("coordinator", "c-1", &url)?;
        }
        anyhow::Ok(())
    };
    let starting = async {
        for batch in 0..SAGAS / 10 {
            begin(&stage, batch * 10..(batch + 1) * 10).await?;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(killing, starting)?;
    let ended = outcomes(&stage, SAGAS).await?;
    check(&ended, &ledger)
}

#[tokio::test]
async fn a_killed_worker_is_replaced_by_another() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("faults", DOCUMENT).await?;
    // A short grace, so that the test is: the operator's own setting is left as it is.
    let context = async_nats::jetstream::new(stage.client.clone());
    let stream = context.get_stream(subject::COMMANDS_STREAM).await?;
    let consumer: async_nats::jetstream::consumer::PullConsumer = stream
        .get_consumer("do-a")
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut config = consumer.cached_info().config.clone();
    config.ack_wait = Duration::from_secs(1);
    context
        .update_consumer_on_stream(pull_config(config), subject::COMMANDS_STREAM)
        .await?;
    let ledger = stage.nats.directory().join("ledger");
    // The first takes the command and hangs; it dies with the command in its hands.
    let hung = Crew::new(stage.nats.connect().await?)
        .does("do-a", |_| std::future::pending())
        .start()?;
    begin(&stage, 1..2).await?;
    let until = Instant::now() + PATIENCE;
    while hung.calls.all().is_empty() {
        ensure!(Instant::now() < until, "nobody took the command");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(hung);
    let _worker = Node::start("worker", &ledger.to_string_lossy(), &stage.nats.url())?;
    let ended = outcomes(&stage, 1).await?;
    check(&ended, &ledger)
}

#[tokio::test]
async fn a_restarted_broker_is_taken_up_where_it_was_left() -> anyhow::Result<()> {
    const SAGAS: usize = 60;
    let mut stage = Stage::start_without_coordinator().await?;
    let url = stage.nats.url();
    let ledger = stage.nats.directory().join("ledger");
    let _worker = Node::start("worker", &ledger.to_string_lossy(), &url)?;
    let _coordinator = Node::start("coordinator", "c-1", &url)?;
    stage.deploy("faults", DOCUMENT).await?;
    begin(&stage, 0..SAGAS).await?;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        stage.nats.kill()?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.nats.restart().await?;
    }
    let ended = outcomes(&stage, SAGAS).await?;
    check(&ended, &ledger)
}

#[tokio::test]
async fn the_partitions_of_a_dead_coordinator_move_within_ten_seconds() -> anyhow::Result<()> {
    const SAGAS: usize = 40;
    let stage = Stage::start_without_coordinator().await?;
    let url = stage.nats.url();
    let ledger = stage.nats.directory().join("ledger");
    let _worker = Node::start("worker", &ledger.to_string_lossy(), &url)?;
    let mut first = Node::start("coordinator", "c-1", &url)?;
    let _second = Node::start("coordinator", "c-2", &url)?;
    stage.deploy("faults", DOCUMENT).await?;
    begin(&stage, 0..SAGAS).await?;
    first.kill()?;
    let killed = Instant::now();
    let ended = outcomes(&stage, SAGAS).await?;
    let took = killed.elapsed();
    ensure!(
        took < Duration::from_secs(10),
        "the partitions took {took:?} to move"
    );
    assert_eq!(ended.len(), SAGAS);
    check(&ended, &ledger)
}

#[tokio::test]
async fn a_coordinator_that_stops_leaves_nothing_to_fold_again() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let document = "
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:a', Next: W }
  W: { Type: Wait, Seconds: 3600, End: true }
";
    stage.deploy("sleeps", document).await?;
    let _crew = Crew::new(stage.client.clone()).echoes(&["a"]).start()?;
    stage.begin("sleeps", "k", json!({})).await?;
    stage
        .until("sleeps", "k", |saga| {
            saga.activities.iter().any(|a| a.state == "W")
        })
        .await?;
    if let Some(coordinator) = stage.coordinator.take() {
        coordinator.stop().await;
    }
    let context = async_nats::jetstream::new(stage.client.clone());
    let snapshots = context.get_key_value(subject::SAGAS_BUCKET).await?;
    let mut keys: Vec<String> = snapshots.keys().await?.try_collect().await?;
    keys.retain(|key| key.contains("sleeps"));
    assert_eq!(keys.len(), 1, "{keys:?}");
    let mut folded = 0;
    for partition in 0..2 {
        let journal = context
            .get_stream(format!("DIRIGENT_JOURNAL_{partition}"))
            .await?;
        let last = journal.cached_info().state.last_sequence;
        let checkpoint = snapshots.get(format!("{partition}.checkpoint")).await?;
        let checkpoint = checkpoint.map_or("0".into(), |body| {
            String::from_utf8_lossy(&body).into_owned()
        });
        assert_eq!(checkpoint, last.to_string(), "partition {partition}");
        folded += last;
    }
    assert!(folded > 0);
    // And the next one finds it as it was.
    let telemetry = dirigent_coordinator::telemetry::Telemetry::default();
    let settings = dirigent_tests::stage::settings("next");
    let client = stage.nats.connect().await?;
    let next = dirigent_coordinator::Coordinator::start(client, settings, telemetry).await?;
    stage.coordinator = Some(next);
    let saga = stage.describe("sleeps", "k").await?;
    assert_eq!(saga.status, SagaStatus::Running);
    Ok(())
}
