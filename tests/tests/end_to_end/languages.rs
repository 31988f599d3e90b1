//! A worker in another language, written from docs/protocol.md.

use dirigent_contracts::outcome::SagaStatus;
use dirigent_tests::stage::Stage;
use serde_json::json;
use std::{
    env,
    path::Path,
    process::{Child, Command},
};

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // If it cannot be killed it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_worker_in_python_does_its_steps() -> anyhow::Result<()> {
    let Some(python) = env::var_os("DIRIGENT_PYTHON") else {
        assert!(
            env::var_os("DIRIGENT_TEST_REQUIRE_PYTHON").is_none(),
            "DIRIGENT_PYTHON names no Python"
        );
        eprintln!("SKIPPED: DIRIGENT_PYTHON names no Python with nats-py and msgpack");
        return Ok(());
    };
    let stage = Stage::start().await?;
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Appraise
States:
  Appraise: { Type: Task, Resource: 'task:appraise', End: true }
";
    stage.deploy("appraise", document).await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workers/examples/python/worker.py");
    let _worker = Process(
        Command::new(python)
            .arg(script)
            .arg(stage.nats.url())
            .spawn()?,
    );
    let known = stage
        .run("appraise", "known", json!({"item": "violin"}))
        .await?;
    assert_eq!(
        known.output,
        Some(json!({"item": "violin", "price": 900, "attempt": 1}))
    );
    let unknown = stage
        .run("appraise", "unknown", json!({"item": "kazoo"}))
        .await?;
    assert_eq!(unknown.status, SagaStatus::Failed);
    assert_eq!(
        unknown.failure.map(|failure| failure.error).as_deref(),
        Some("UnknownItem")
    );
    // Its command and its reply are too large for a message; its words are cut to what words may be.
    let item = "long".repeat(25_000);
    let large = stage
        .run("appraise", "large", json!({"item": item}))
        .await?;
    let failure = large.failure.unwrap();
    assert_eq!(failure.error, "UnknownItem");
    assert_eq!(failure.cause.len(), 32_768);
    assert!(failure.cause.contains("longlong"));
    Ok(())
}
