//! One process of an installation, for tests that kill it: `node coordinator NAME URL`, or
//! `node worker LEDGER URL`.
//!
//! The worker writes every side effect as one line to the ledger file, and keeps the promise that an
//! effect happens once by looking it up there first, as a real service would in its database.

use anyhow::{Context as _, bail};
use async_nats::ConnectOptions;
use dirigent_coordinator::{Coordinator, telemetry::Telemetry};
use dirigent_tests::{ledger::Ledger, stage::settings};
use dirigent_worker::{TaskContext, TaskError, Worker};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, name, url] = &arguments[..] else {
        bail!("expected: ROLE NAME URL")
    };
    tracing_subscriber::fmt()
        .with_env_filter("info")
        .with_writer(std::io::stderr)
        .init();
    let client = ConnectOptions::new()
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|_| Duration::from_millis(100))
        .connect(url)
        .await?;
    match role.as_str() {
        "coordinator" => {
            let started = Coordinator::start(client, settings(name), Telemetry::default()).await;
            let mut coordinator = started?;
            bail!("{}", coordinator.failed().await)
        }
        "worker" => {
            let telemetry = dirigent_worker::telemetry::init("node")?;
            let ledger = Arc::new(Ledger::open(PathBuf::from(name))?);
            let effect = move |undo: bool| {
                let ledger = Arc::clone(&ledger);
                move |context: TaskContext, input: Value| {
                    let ledger = Arc::clone(&ledger);
                    async move { perform(&ledger, &context, &input, undo) }
                }
            };
            let worker = Worker::builder(client)
                .task("do-a", effect(false))
                .task("do-b", effect(false))
                .task("do-c", effect(false))
                .task("undo-a", effect(true))
                .task("undo-b", effect(true))
                .build()?;
            worker.run(CancellationToken::new()).await;
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
    if !undo && input["refuse"] == json!(context.task().as_str()) {
        return Err(TaskError::new("Refused", "as the input asks").permanent());
    }
    ledger.note(&context.saga().key, context.task(), &effect, undo)?;
    Ok(input.clone())
}
