//! What each kind of user needs of the broker: the rows of docs/protocol.md (Permissions), and nothing else.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use dirigent_coordinator::{Coordinator, telemetry::Telemetry};
use dirigent_tests::{
    nats::NatsServer,
    python::{self, APPRAISE, python},
    stage::{PATIENCE, settings},
};
use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

/// A user for each row, who may do what the row says.
const USERS: &str = r#"
jetstream {}
authorization { users = [
  { user: coordinator, password: "p@ss", permissions: {
    publish: ["dirigent.>", "$JS.API.>", "$JS.ACK.>", "$JS.FC.>", "_INBOX.>", "$KV.dirigent-sagas.>",
      "$KV.dirigent-definitions.>", "$KV.dirigent-partitions.>", "$O.dirigent-payloads.>"],
    subscribe: ["_INBOX.>", "dirigent.api.>", "dirigent.internal.>", "$SRV.>"] } },
  { user: worker, password: pass, permissions: {
    publish: ["dirigent.journal.*.*.*.reply.appraise", "dirigent.dead.command",
      "$JS.API.CONSUMER.INFO.DIRIGENT_COMMANDS.appraise",
      "$JS.API.CONSUMER.MSG.NEXT.DIRIGENT_COMMANDS.appraise", "$JS.ACK.DIRIGENT_COMMANDS.appraise.>",
      "$O.dirigent-payloads.>", "$JS.API.*.*.OBJ_dirigent-payloads", "$JS.API.*.*.OBJ_dirigent-payloads.>",
      "$JS.API.STREAM.MSG.GET.OBJ_dirigent-payloads", "$JS.API.STREAM.NAMES",
      "$JS.FC.OBJ_dirigent-payloads.>"],
    subscribe: ["_INBOX.>"] } },
  { user: caller, password: pass, permissions: {
    publish: ["dirigent.api.start", "dirigent.api.describe"], subscribe: ["_INBOX.>"] } },
  { user: operator, password: pass, permissions: {
    publish: ["dirigent.api.>", "dirigent.internal.metrics", "$JS.API.INFO", "$JS.API.STREAM.LIST",
      "$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.LIST.*", "$JS.API.DIRECT.GET.KV_dirigent-sagas.>"],
    subscribe: ["_INBOX.>"] } }
] }
"#;

fn url(nats: &NatsServer, user: &str) -> String {
    format!("nats://{user}@127.0.0.1:{}", nats.port())
}

/// What the binary says to a user.
async fn types(nats: &NatsServer, user: &str, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirigent"));
    command
        .args(line.split_whitespace())
        .current_dir(nats.directory())
        .env("NATS_URL", url(nats, user));
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.unwrap().unwrap()
}

async fn server() -> NatsServer {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("nats.conf");
    std::fs::write(&config, USERS).unwrap();
    let nats = NatsServer::start_with(&["-c", config.to_str().unwrap()]).await;
    nats.unwrap()
}

#[tokio::test]
async fn each_kind_of_user_can_do_its_work_with_what_the_protocol_grants() {
    let nats = server().await;
    let client = dirigent_worker::connect(&url(&nats, "coordinator:p%40ss"))
        .await
        .unwrap();
    let coordinator = Coordinator::start(client, settings("one"), Telemetry::default());
    let _coordinator = coordinator.await.unwrap();
    std::fs::write(nats.directory().join("appraise.yaml"), APPRAISE).unwrap();
    let said = types(&nats, "operator:pass", "deploy appraise.yaml").await;
    assert!(said.status.success(), "{said:?}");
    // A command and a reply that are too large for a message.
    let input = format!("{{\"item\": \"{}\"}}", "x".repeat(100_000));
    std::fs::write(nats.directory().join("large.json"), input).unwrap();
    let mut worker = None;
    if let Some(python) = python() {
        let url = url(&nats, "worker:pass");
        worker = Some(python::worker(python, &url).unwrap());
        for (line, words) in [
            ("run appraise --input {\"item\":\"violin\"}", "900"),
            ("run appraise --input @large.json", "UnknownItem"),
        ] {
            let said = types(&nats, "caller:pass", line).await;
            let out = String::from_utf8_lossy(&said.stdout);
            assert!(out.contains(words), "{line}: {said:?}");
        }
    }
    drop(worker);
    for line in ["status", "list", "top --once --interval 100ms"] {
        let said = types(&nats, "operator:pass", line).await;
        assert!(said.status.success(), "{line}: {said:?}");
    }
    // Partitions find their owners in a moment.
    let until = Instant::now() + PATIENCE;
    while !types(&nats, "operator:pass", "doctor")
        .await
        .status
        .success()
    {
        assert!(
            Instant::now() < until,
            "{:?}",
            types(&nats, "operator:pass", "doctor").await
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let violations: Vec<String> = nats
        .log()
        .lines()
        .filter(|line| line.contains("Violation"))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(violations, Vec::<String>::new());
}

#[tokio::test]
async fn who_may_not_ask_is_told_so_at_once() {
    let nats = server().await;
    for (user, line, words) in [
        ("caller:pass", "list", "Permissions Violation"),
        ("caller:pass", "publish a.b {}", "Permissions Violation"),
        ("caller:pass", "doctor", "Permissions Violation"),
        ("caller:wrong", "list", "refuses these credentials"),
        ("caller:pass", "describe a b", "no coordinator is running"),
    ] {
        let began = Instant::now();
        let said = types(&nats, user, line).await;
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(error.contains(words), "{line}: {error}");
        assert_eq!(said.status.code(), Some(3), "{line}: {error}");
        assert!(began.elapsed() < Duration::from_secs(10), "{line}");
    }
    assert!(
        nats.log().contains("Violation"),
        "the other test looks for it"
    );
}

#[tokio::test]
async fn a_coordinator_that_may_not_start_says_why() {
    let nats = server().await;
    let said = types(&nats, "worker:pass", "coordinator").await;
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(error.contains("Permissions Violation"), "{error}");
}
