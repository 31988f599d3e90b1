//! One process of an installation, for tests that kill it:
//! `node coordinator NAME URLS [REPLICAS]`, or `node worker LEDGER URLS [TASKS]`.
//!
//! The worker keeps the promise that an effect happens once by storing it in the ledger under its id,
//! as a real service would in its database. What it answers stands in the input: `refuse` names the
//! task that fails for good, `flaky` says how many attempts of each step fail before one succeeds, and
//! `deadly` kills the process.

use anyhow::{Context as _, bail};
use dirigent_coordinator::{Coordinator, Settings, metrics::Metrics, telemetry::Telemetry};
use dirigent_tests::{ledger::Ledger, stage::settings};
use dirigent_worker::{TaskContext, TaskError, Worker};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};

/// The tasks of a worker that is not told which.
const TASKS: &str = "do-a,do-b,do-c,undo-a,undo-b";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, name, urls, rest @ ..] = &arguments[..] else {
        bail!("expected: ROLE NAME URLS")
    };
    tracing_subscriber::fmt()
        .with_env_filter("info")
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let client = dirigent_worker::connect(urls).await?;
    match role.as_str() {
        "coordinator" => {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut settings = Settings {
                metrics: Metrics::from_environment("node", name)?,
                ..settings(name)
            };
            if let Some(replicas) = rest.first() {
                settings = Settings {
                    partitions: None,
                    replicas: replicas.parse()?,
                    ..settings
                };
            }
            let telemetry = Telemetry::from_environment("node")?;
            let started = Coordinator::start(client, settings, telemetry.clone()).await;
            let mut coordinator = started?;
            tokio::select! {
                how = coordinator.failed() => bail!("{how}"),
                _ = terminate.recv() => coordinator.stop().await,
            }
            telemetry.shutdown().await;
            Ok(())
        }
        "worker" => {
            let telemetry = dirigent_worker::telemetry::init("node")?;
            let ledger = Arc::new(Ledger::open(PathBuf::from(name))?);
            let tasks = rest.first().map_or(TASKS, String::as_str);
            let worker = tasks
                .split(',')
                .fold(Worker::builder(client), |builder, task| {
                    let ledger = Arc::clone(&ledger);
                    let undo = task.starts_with("undo-");
                    builder.task(task, move |context: TaskContext, input: Value| {
                        let ledger = Arc::clone(&ledger);
                        async move { perform(&ledger, &context, &input, undo) }
                    })
                });
            worker.build()?.run_until_signal().await?;
            telemetry.shutdown().await;
            Ok(())
        }
        other => Err(anyhow::anyhow!("there is no role '{other}'")).context("node"),
    }
}

fn perform(
    ledger: &Ledger,
    context: &TaskContext,
    input: &Value,
    undo: bool,
) -> Result<Value, TaskError> {
    let effect = context.undoes().unwrap_or(context.effect_id()).to_string();
    let (key, task) = (&context.saga().key, context.task());
    if undo {
        ledger.undo(key, &effect)?;
        return Ok(input.clone());
    }
    if input["deadly"] == json!(true) {
        std::process::abort();
    }
    if input["refuse"] == json!(task.as_str()) {
        return Err(TaskError::new("Refused", "as the input asks").permanent());
    }
    if input["flaky"]
        .as_u64()
        .is_some_and(|times| u64::from(context.attempt()) <= times)
    {
        return Err(TaskError::new("Flaky", "as the input asks"));
    }
    if !ledger.perform(key, task, &effect)? {
        return Err(TaskError::new("Undone", "it was undone before it was done").permanent());
    }
    Ok(input.clone())
}
