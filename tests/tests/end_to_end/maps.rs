//! Distributed Maps: items from the object store, as sagas all over the installation, and back.

use crate::node::Node;
use anyhow::{Context, ensure};
use async_nats::jetstream::{self, object_store};
use dirigent_contracts::{id::PartitionId, outcome::SagaStatus, subject};
use dirigent_coordinator::{Coordinator, telemetry::Telemetry};
use dirigent_tests::{
    crew::Crew,
    stage::{PATIENCE, Stage, settings},
};
use dirigent_worker::TaskError;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write, time::Duration};
use tokio::io::AsyncReadExt;

const IMPORT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Each
States:
  Each:
    Type: Map
    ItemReader:
      Resource: arn:aws:states:::s3:getObject
      ReaderConfig: { InputType: CSV, CSVHeaderLocation: FIRST_ROW }
      Arguments: { Bucket: import, Key: '{% $states.input.file %}' }
    ItemSelector: { id: '{% $number($states.context.Map.Item.Value.id) %}' }
    MaxConcurrency: 200
    ToleratedFailurePercentage: 1
    ItemProcessor:
      ProcessorConfig: { Mode: DISTRIBUTED, ExecutionType: STANDARD }
      StartAt: Book
      States:
        Book: { Type: Task, Resource: 'task:book', Compensate: { Resource: 'task:unbook' }, End: true }
    ResultWriter:
      Resource: arn:aws:states:::s3:putObject
      WriterConfig: { OutputType: JSONL, Transformation: COMPACT }
      Arguments: { Bucket: import, Prefix: done }
    Output: '{% $states.result.ResultWriterDetails.Key %}'
    Next: Close
  Close: { Type: Task, Resource: 'task:close', End: true }
";

async fn bucket(stage: &Stage) -> anyhow::Result<object_store::ObjectStore> {
    let context = jetstream::new(stage.client.clone());
    let config = object_store::Config {
        bucket: "import".to_owned(),
        ..object_store::Config::default()
    };
    Ok(context.create_object_store(config).await?)
}

async fn put_rows(store: &object_store::ObjectStore, rows: usize) -> anyhow::Result<()> {
    let mut text = "id,name\n".to_owned();
    for row in 0..rows {
        writeln!(text, "{row},\"name, of {row}\"")?;
    }
    store.put("rows.csv", &mut text.as_bytes()).await?;
    Ok(())
}

async fn get(store: &object_store::ObjectStore, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut object = store.get(name).await.context(name.to_owned())?;
    object.read_to_string(&mut text).await?;
    Ok(text)
}

/// The outputs of all items that the manifest tells of.
async fn results(store: &object_store::ObjectStore, manifest: &str) -> anyhow::Result<Vec<Value>> {
    let manifest: Value = serde_json::from_str(&get(store, manifest).await?)?;
    let mut all = Vec::new();
    for file in manifest["ResultFiles"]["SUCCEEDED"]
        .as_array()
        .context("no list of files")?
    {
        let text = get(store, file["Key"].as_str().unwrap_or_default()).await?;
        for line in text.lines() {
            all.push(serde_json::from_str(line)?);
        }
    }
    Ok(all)
}

fn ids(results: &[Value]) -> BTreeSet<u64> {
    let ids = results.iter().filter_map(|result| result["id"].as_u64());
    ids.collect()
}

#[tokio::test]
async fn ten_thousand_rows_are_read_worked_on_everywhere_and_written() -> anyhow::Result<()> {
    const ROWS: usize = 10_000;
    let stage = Stage::start().await?;
    stage.deploy("import", IMPORT).await?;
    let store = bucket(&stage).await?;
    put_rows(&store, ROWS).await?;
    let _crew = Crew::new(stage.client.clone())
        .does("book", |call| async move {
            match call.input["id"].as_u64() {
                Some(13) => Err(TaskError::new("Unlucky", "").permanent()),
                _ => Ok(call.input),
            }
        })
        .echoes(&["unbook", "close"])
        .start()?;
    let saga = stage
        .run("import", "i-1", json!({"file": "rows.csv"}))
        .await?;
    ensure!(saga.status == SagaStatus::Succeeded, "{saga:?}");
    let manifest = saga.output.unwrap_or_default();
    let manifest = manifest.as_str().context("no manifest")?;
    let results = results(&store, manifest).await?;
    assert_eq!(results.len(), ROWS - 1, "no item twice");
    let all: BTreeSet<u64> = (0..ROWS as u64).filter(|id| *id != 13).collect();
    assert_eq!(ids(&results), all);
    // The sagas of the items are spread over the partitions.
    for partition in 0..2 {
        let stream = subject::journal_stream(PartitionId(partition));
        let entries = stage.messages(&stream).await?;
        assert!(entries > 1_000, "{stream} has {entries} entries");
    }
    Ok(())
}

#[tokio::test]
async fn a_map_outlives_its_coordinators_and_no_item_runs_twice() -> anyhow::Result<()> {
    const ROWS: usize = 1_500;
    let stage = Stage::start_without_coordinator().await?;
    let url = stage.nats.url();
    let mut coordinator = Node::start("coordinator", "c-1", &url)?;
    stage.deploy("import", IMPORT).await?;
    let store = bucket(&stage).await?;
    put_rows(&store, ROWS).await?;
    let crew = Crew::new(stage.client.clone())
        .idempotent()
        .does("book", |call| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(call.input)
        })
        .echoes(&["unbook", "close"])
        .start()?;
    stage
        .begin("import", "i-1", json!({"file": "rows.csv"}))
        .await?;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        coordinator.kill()?;
        coordinator = Node::start("coordinator", "c-1", &url)?;
    }
    let saga = tokio::time::timeout(2 * PATIENCE, stage.ended("import", "i-1")).await??;
    ensure!(saga.status == SagaStatus::Succeeded, "{saga:?}");
    let manifest = saga.output.unwrap_or_default();
    let results = results(&store, manifest.as_str().context("no manifest")?).await?;
    assert_eq!(results.len(), ROWS);
    assert_eq!(ids(&results).len(), ROWS);
    let booked = crew.calls.of("book");
    let effects: BTreeSet<_> = booked.iter().map(|call| &call.effect).collect();
    assert_eq!((booked.len(), effects.len()), (ROWS, ROWS));
    Ok(())
}

#[tokio::test]
async fn a_listing_goes_on_behind_its_last_name_with_another_coordinator() -> anyhow::Result<()> {
    const LISTING: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Each
States:
  Each:
    Type: Map
    ItemReader: { Resource: 'arn:aws:states:::s3:listObjectsV2', Arguments: { Bucket: import } }
    ItemSelector: '{% $states.context.Map.Item.Value.Key %}'
    MaxConcurrency: 10
    ItemProcessor:
      ProcessorConfig: { Mode: DISTRIBUTED, ExecutionType: STANDARD }
      StartAt: Book
      States: { Book: { Type: Task, Resource: 'task:book', End: true } }
    End: true
";
    let mut stage = Stage::start().await?;
    stage.deploy("listing", LISTING).await?;
    let store = bucket(&stage).await?;
    let names: Vec<String> = (0..600).map(|n| format!("k-{n:03}")).collect();
    for name in &names {
        store.put(name.as_str(), &mut &b"x"[..]).await?;
    }
    let (open, gate) = tokio::sync::watch::channel(false);
    let crew = Crew::new(stage.client.clone())
        .idempotent()
        .does("book", move |call| {
            let mut gate = gate.clone();
            async move {
                let opened = gate.wait_for(|is_open| *is_open).await;
                drop(opened.map_err(|error| TaskError::new("Gate", error.to_string()))?);
                Ok(call.input)
            }
        })
        .start()?;
    stage.begin("listing", "l-1", json!({})).await?;
    stage
        .until("listing", "l-1", |_| crew.calls.all().len() >= 10)
        .await?;
    stage.coordinator.take().context("it runs")?.stop().await;
    // Counting would tell two names a second time.
    for name in ["a-1", "a-2"] {
        store.put(name, &mut &b"x"[..]).await?;
    }
    let client = stage.nats.connect().await?;
    let again = Coordinator::start(client, settings("again"), Telemetry::default()).await?;
    stage.coordinator = Some(again);
    open.send(true)?;
    let saga = stage.ended("listing", "l-1").await?;
    ensure!(saga.status == SagaStatus::Succeeded, "{saga:?}");
    let output = saga.output.unwrap_or_default();
    assert_eq!(output, json!(names));
    Ok(())
}

#[tokio::test]
async fn items_undo_what_they_did_when_a_later_step_fails() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("import", IMPORT).await?;
    let store = bucket(&stage).await?;
    put_rows(&store, 150).await?;
    let crew = Crew::new(stage.client.clone())
        .echoes(&["book", "unbook"])
        .fails("close", TaskError::new("Closed", "").permanent())
        .start()?;
    let saga = stage
        .run("import", "i-1", json!({"file": "rows.csv"}))
        .await?;
    assert_eq!(saga.status, SagaStatus::Compensated);
    assert_eq!(crew.calls.of("unbook").len(), 150);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_read_is_said() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    stage.deploy("import", IMPORT).await?;
    let error = async |key: &str| {
        let saga = stage.run("import", key, json!({"file": "no.csv"})).await?;
        anyhow::Ok(saga.failure.context("it failed")?.to_string())
    };
    let no_bucket = error("i-1").await?;
    assert!(no_bucket.contains("States.ItemReaderFailed"), "{no_bucket}");
    assert!(no_bucket.contains("nats object add import"), "{no_bucket}");
    let _store = bucket(&stage).await?;
    let no_object = error("i-2").await?;
    assert!(no_object.contains("no object import/no.csv"), "{no_object}");
    Ok(())
}
