//! The doctor at a healthy and at a broken installation.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use dirigent_contracts::subject;
use dirigent_coordinator::{Coordinator, telemetry::Telemetry};
use dirigent_tests::{
    nats::NatsServer,
    stage::{Stage, settings},
};
use serde_json::{Value, json};
use std::{process::Command, time::Duration};

const WORK: &str = "
Extensions: [saga/1]
StartAt: Work
States:
  Work: { Type: Task, Resource: 'task:work', End: true }
";

/// The exit code, and the findings of the doctor: what was looked at, how grave, and in which words.
async fn examine(nats: &NatsServer, arguments: &[&str]) -> (i32, Vec<[String; 3]>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirigent"));
    command
        .args(["doctor", "-o", "json"])
        .args(arguments)
        .env("NATS_URL", nats.url());
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.unwrap().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let findings = report["findings"].as_array().unwrap();
    let word = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = findings
        .iter()
        .map(|finding| ["check", "level", "found"].map(|name| word(finding, name)));
    (output.status.code().unwrap(), findings.collect())
}

/// Where a server's monitoring port is, as it wrote down.
fn monitor(nats: &NatsServer) -> String {
    let ports = std::fs::read_dir(nats.directory().join("ports")).unwrap();
    let path = ports.last().unwrap().unwrap().path();
    let ports: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    ports["monitoring"][0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_healthy_installation_has_no_problems() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("nats.conf");
    std::fs::write(&config, "jetstream { sync_interval: always }\n").unwrap();
    let config = config.to_str().unwrap();
    let nats = NatsServer::start_with(&["-c", config, "-m", "-1"])
        .await
        .unwrap();
    let client = nats.connect().await.unwrap();
    let _coordinator = Coordinator::start(client.clone(), settings("one"), Telemetry::default())
        .await
        .unwrap();
    let mut stage = Stage {
        nats,
        client,
        coordinator: None,
    };
    stage.deploy("work", WORK).await.unwrap();
    let monitor = monitor(&stage.nats);
    // Partitions find their owners in a moment.
    let mut examined = examine(&stage.nats, &["--monitor", &monitor]).await;
    for _ in 0..100 {
        if examined.0 == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        examined = examine(&stage.nats, &["--monitor", &monitor]).await;
    }
    let (code, findings) = examined;
    assert_eq!(code, 0, "{findings:#?}");
    let level = |check: &str| {
        let found = findings.iter().find(|finding| finding[0] == check);
        found.unwrap()[1].clone()
    };
    for check in [
        "server",
        "account",
        "streams",
        "disk",
        "journals",
        "tasks",
        "router",
        "dead letters",
        "stuck sagas",
        "age",
        "clocks",
    ] {
        assert_eq!(level(check), "ok", "{findings:#?}");
    }
    // One server, and one coordinator: no problem, and worth a word.
    assert_eq!(level("replicas"), "warning", "{findings:#?}");
    assert_eq!(level("coordinators"), "warning", "{findings:#?}");
    stage.nats.kill().unwrap();
}

#[tokio::test]
async fn whatever_is_broken_is_a_problem_that_says_what_to_do() {
    let mut stage = Stage::start().await.unwrap();
    stage.deploy("work", WORK).await.unwrap();
    stage.begin("work", "k", json!({})).await.unwrap();
    while stage.messages(subject::COMMANDS_STREAM).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.coordinator.take().unwrap().stop().await;
    let context = async_nats::jetstream::new(stage.client.clone());
    let stream = context
        .get_stream(subject::DEAD_LETTERS_STREAM)
        .await
        .unwrap();
    let mut config = stream.cached_info().config.clone();
    context
        .delete_stream(subject::DEAD_LETTERS_STREAM)
        .await
        .unwrap();
    config.storage = async_nats::jetstream::stream::StorageType::Memory;
    context.create_stream(config).await.unwrap();
    context
        .delete_consumer_from_stream(subject::ROUTER_CONSUMER, subject::ADVISORIES_STREAM)
        .await
        .unwrap();
    let (code, findings) = examine(&stage.nats, &[]).await;
    assert_eq!(code, 1, "{findings:#?}");
    for (check, words) in [
        ("coordinators", "none answers"),
        ("streams", "kept in memory"),
        ("tasks", "work: 1 commands wait and no worker asks for them"),
        ("router", subject::ADVISORIES_STREAM),
    ] {
        let is_found = findings.iter().any(|[about, level, found]| {
            about == check && level == "problem" && found.contains(words)
        });
        assert!(is_found, "{check}: {findings:#?}");
    }
    let unknown = findings.iter().filter(|finding| finding[1] == "unknown");
    let unknown: Vec<_> = unknown.map(|finding| finding[0].as_str()).collect();
    assert_eq!(unknown, ["stuck sagas", "age"], "{findings:#?}");
}
