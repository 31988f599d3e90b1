//! Backups of a running installation, put back into another broker.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use async_nats::Client;
use dirigent_contracts::{id::PartitionId, outcome::SagaStatus, subject};
use dirigent_coordinator::{Coordinator, Settings, telemetry::Telemetry};
use dirigent_tests::{
    cluster::{Cluster, SERVERS},
    crew::{Call, Crew, Working},
    nats::NatsServer,
    stage::{PATIENCE, Stage, settings},
};
use dirigent_worker::TaskError;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const PARTITIONS: u16 = 4;
/// Sagas of each shape that are acknowledged before the backup begins.
const BEFORE: usize = 60;

/// Waits between its steps, so that every saga spends most of its life in the middle of something.
const LONG: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:do-a', Compensate: { Resource: 'task:undo-a' }, Next: Nap }
  Nap: { Type: Wait, Seconds: 2, Next: B }
  B: { Type: Task, Resource: 'task:do-b', Compensate: { Resource: 'task:undo-b' }, Next: C }
  C: { Type: Task, Resource: 'task:do-c', End: true }
";

/// Asks a child in another partition, beside a branch of its own.
const PARENT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Both
States:
  Both:
    Type: Parallel
    Branches:
      - StartAt: Child
        States:
          Child: { Type: Task, Resource: 'saga:child', End: true }
      - StartAt: Own
        States:
          Own: { Type: Task, Resource: 'task:do-a', Compensate: { Resource: 'task:undo-a' }, End: true }
    Next: Last
  Last: { Type: Task, Resource: 'task:do-c', Arguments: '{% $states.input[0] %}', End: true }
";

const CHILD: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Work
States:
  Work: { Type: Task, Resource: 'task:do-b', Compensate: { Resource: 'task:undo-b' }, End: true }
";

/// Is started by an event.
const TRIGGERED: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [{ Event: orders.placed, Key: '{% $event.data.id %}' }]
StartAt: A
States:
  A: { Type: Task, Resource: 'task:do-a', End: true }
";

/// What the services did, in databases that no backup of the broker touches: the saga's key, the task
/// and how often, by effect. A second doing of an effect is told from the first and answered alike.
#[derive(Clone, Default)]
struct Services(Arc<Mutex<BTreeMap<String, Done>>>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Done {
    key: String,
    task: String,
    is_done: bool,
    is_undone: bool,
}

impl Services {
    fn perform(&self, call: &Call, undo: bool) -> Result<Value, TaskError> {
        if call.input["refuse"] == json!(call.task) {
            return Err(TaskError::new("Refused", "as the input asks").permanent());
        }
        let effect = call.undoes.clone().unwrap_or_else(|| call.effect.clone());
        let mut all = self.0.lock().unwrap();
        let done = all.entry(effect).or_default();
        done.key.clone_from(&call.key);
        if undo {
            done.is_undone = true;
        } else {
            done.task.clone_from(&call.task);
            done.is_done = true;
        }
        Ok(call.input.clone())
    }

    /// Goes to work on a broker.
    fn at(&self, client: Client) -> Working {
        let mut crew = Crew::new(client);
        for (task, undo) in [
            ("do-a", false),
            ("do-b", false),
            ("do-c", false),
            ("undo-a", true),
            ("undo-b", true),
        ] {
            let services = self.clone();
            crew = crew.does(task, move |call| {
                let services = services.clone();
                async move { services.perform(&call, undo) }
            });
        }
        crew.start().unwrap()
    }

    /// The effects of one saga.
    fn of(&self, key: &str) -> Vec<Done> {
        let all = self.0.lock().unwrap();
        all.values()
            .filter(|done| done.key == key)
            .cloned()
            .collect()
    }
}

fn settings_of(name: &str) -> Settings {
    Settings {
        partitions: Some(PARTITIONS),
        ..settings(name)
    }
}

async fn coordinators(nats: &NatsServer, names: [&str; 2]) -> Vec<Coordinator> {
    let mut started = Vec::new();
    for name in names {
        let client = nats.connect().await.unwrap();
        let coordinator = Coordinator::start(client, settings_of(name), Telemetry::default()).await;
        started.push(coordinator.unwrap());
    }
    started
}

/// Types a command.
async fn dirigent(broker: &str, directory: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirigent"));
    command
        .args(line.split_whitespace())
        .current_dir(directory)
        .env("NATS_URL", broker)
        .env("NO_COLOR", "1");
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.unwrap().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    let err = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout);
    (output.status.code(), format!("{out}{err}"))
}

/// Starts the nth saga of each shape.
async fn begin(stage: &Stage, n: usize) {
    let refuse = if n.is_multiple_of(3) { "do-c" } else { "" };
    let input = json!({ "refuse": refuse, "id": format!("t-{n}") });
    stage
        .begin("long", &format!("l-{n}"), input.clone())
        .await
        .unwrap();
    stage
        .begin("parent", &format!("p-{n}"), input.clone())
        .await
        .unwrap();
    let context = async_nats::jetstream::new(stage.client.clone());
    let sent = context
        .publish("orders.placed", input.to_string().into())
        .await;
    sent.unwrap().await.unwrap();
}

/// How often each saga was told to have ended, and how, with the ids that told it.
async fn outcomes(stage: &Stage) -> BTreeMap<String, BTreeSet<String>> {
    let context = async_nats::jetstream::new(stage.client.clone());
    let stream = context.get_stream(subject::EVENTS_STREAM).await.unwrap();
    let last = stream.cached_info().state.last_sequence;
    let mut outcomes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for seq in 1..=last {
        let message = stream.get_raw_message(seq).await.unwrap();
        let (address, what) = subject::parse_event(&message.subject).unwrap();
        let id = message.headers.get("Nats-Msg-Id").unwrap();
        let told = outcomes.entry(address.to_string()).or_default();
        told.insert(format!("{what} {id}"));
    }
    outcomes
}

#[tokio::test]
async fn a_backup_taken_under_load_is_restored_and_every_saga_ends_once() {
    let files = tempfile::tempdir().unwrap();
    let services = Services::default();
    let mut stage = Stage::start_without_coordinator().await.unwrap();
    let conducting = coordinators(&stage.nats, ["a", "b"]).await;
    let working = services.at(stage.nats.connect().await.unwrap());
    for (name, document) in [
        ("long", LONG),
        ("child", CHILD),
        ("parent", PARENT),
        ("triggered", TRIGGERED),
    ] {
        stage.deploy(name, document).await.unwrap();
    }
    for n in 0..BEFORE {
        begin(&stage, n).await;
    }
    let stop = CancellationToken::new();
    let load = async {
        let mut n = BEFORE;
        while !stop.is_cancelled() {
            begin(&stage, n).await;
            n += 1;
        }
        n
    };
    let copying = async {
        let output = dirigent(&stage.nats.url(), files.path(), "backup live.tar -o json").await;
        stop.cancel();
        output
    };
    let (begun, output) = tokio::join!(load, copying);
    assert_eq!(output.status.code(), Some(0), "{:?}", said(&output));
    assert!(begun > BEFORE, "nothing was started while it was copied");

    // The broker and everything on it is lost.
    stage.nats.kill().unwrap();
    drop((working, conducting));

    let stage = Stage::start_without_coordinator().await.unwrap();
    let output = dirigent(&stage.nats.url(), files.path(), "restore live.tar").await;
    assert_eq!(output.status.code(), Some(0), "{:?}", said(&output));
    let _conducting = coordinators(&stage.nats, ["b", "c"]).await;
    let _working = services.at(stage.nats.connect().await.unwrap());
    for n in 0..BEFORE {
        let (long, parent) = if n.is_multiple_of(3) {
            (SagaStatus::Compensated, SagaStatus::Compensated)
        } else {
            (SagaStatus::Succeeded, SagaStatus::Succeeded)
        };
        for (name, key, status) in [
            ("long", format!("l-{n}"), long),
            ("parent", format!("p-{n}"), parent),
            ("triggered", format!("t-{n}"), SagaStatus::Succeeded),
        ] {
            let saga = stage.ended(name, &key).await.unwrap();
            assert_eq!(saga.status, status, "{name}/{key}: {saga:?}");
        }
        // One effect for each step, and what was undone is what was done: no second run did it again.
        let done = services.of(&format!("l-{n}"));
        let tasks: BTreeSet<&str> = done.iter().map(|done| done.task.as_str()).collect();
        assert_eq!(tasks.len(), done.len(), "{done:?}");
        let is_undone = long == SagaStatus::Compensated;
        assert_eq!(done.len(), if is_undone { 2 } else { 3 }, "{done:?}");
        for effect in done {
            assert_eq!((effect.is_done, effect.is_undone), (true, is_undone));
        }
    }
    for (saga, told) in outcomes(&stage).await {
        assert_eq!(told.len(), 1, "{saga} ended more than once: {told:?}");
    }
    // The restored installation takes new work, also on new subjects of the restored inbox.
    let began = Instant::now();
    let document = TRIGGERED.replace("orders.placed", "orders.moved");
    stage.deploy("moved", &document).await.unwrap();
    let context = async_nats::jetstream::new(stage.client.clone());
    let moved = json!({ "id": "m" }).to_string();
    // A coordinator that has not heard of the definition yet makes a dead letter of the event.
    while stage.describe("moved", "m").await.is_err() {
        let sent = context.publish("orders.moved", moved.clone().into()).await;
        sent.unwrap().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(
            began.elapsed() < PATIENCE,
            "nothing on a new subject is heard"
        );
    }
    let saga = stage.ended("moved", "m").await.unwrap();
    assert_eq!(saga.status, SagaStatus::Succeeded);
}

#[tokio::test]
async fn a_restore_is_whole_or_nothing() {
    let files = tempfile::tempdir().unwrap();
    let mut stage = Stage::start().await.unwrap();
    let said_by = async |stage: &Stage, line: &str| {
        said(&dirigent(&stage.nats.url(), files.path(), line).await)
    };
    stage.deploy("child", CHILD).await.unwrap();
    stage.begin("child", "k", json!({})).await.unwrap();
    assert_eq!(said_by(&stage, "backup a.tar").await.0, Some(0));
    let (code, words) = said_by(&stage, "backup a.tar").await;
    assert!(
        code == Some(2) && words.contains("exists already"),
        "{words}"
    );
    let (code, words) = said_by(&stage, "restore a.tar").await;
    assert!(code == Some(5) && words.contains("not empty"), "{words}");
    let coordinator = stage.coordinator.take().unwrap();
    coordinator.stop().await;

    let empty = Stage::start_without_coordinator().await.unwrap();
    let (code, words) = said_by(&empty, "backup b.tar").await;
    assert!(
        code == Some(4) && words.contains("no installation"),
        "{words}"
    );
    let whole = std::fs::read(files.path().join("a.tar")).unwrap();
    let mut damaged = whole.clone();
    damaged[520] ^= 1;
    std::fs::write(files.path().join("damaged.tar"), damaged).unwrap();
    std::fs::write(files.path().join("short.tar"), &whole[..whole.len() / 2]).unwrap();
    for file in ["damaged.tar", "short.tar", "missing.tar"] {
        let (code, words) = said_by(&empty, &format!("restore {file}")).await;
        assert!(code == Some(2) && words.contains(file), "{words}");
    }
    // A stream of somebody else has a subject of ours: the restore fails when it comes to it.
    let context = async_nats::jetstream::new(empty.client.clone());
    let foreign = async_nats::jetstream::stream::Config {
        name: "FOREIGN".to_owned(),
        subjects: vec![subject::journal_filter(PartitionId(1))],
        ..Default::default()
    };
    context.create_stream(foreign).await.unwrap();
    let (code, words) = said_by(&empty, "restore a.tar").await;
    assert!(
        code == Some(1) && words.contains("nothing was restored"),
        "{words}"
    );
    let names: Vec<_> = context.stream_names().collect().await;
    assert_eq!(names.len(), 1, "{names:?}");
    context.delete_stream("FOREIGN").await.unwrap();

    let (code, words) = said_by(&empty, "restore a.tar -o json").await;
    assert_eq!(code, Some(0), "{words}");
    let restored: Value = serde_json::from_str(&words).unwrap();
    assert_eq!(restored["parts"][0]["stream"], "KV_dirigent-sagas");
    let began = Instant::now();
    let client = empty.nats.connect().await.unwrap();
    let _again = Coordinator::start(client, settings("other"), Telemetry::default())
        .await
        .unwrap();
    let _working = Services::default().at(empty.nats.connect().await.unwrap());
    empty.ended("child", "k").await.unwrap();
    // Nobody waits for the owners of old to be found dead.
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_backup_of_a_cluster_is_restored_into_a_cluster() {
    const SAGAS: usize = 10;
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("long.yaml"), LONG).unwrap();
    let conduct = async |cluster: &Cluster| {
        let replicated = Settings {
            replicas: SERVERS,
            ..settings_of("a")
        };
        let client = cluster.connect().await.unwrap();
        let coordinator = Coordinator::start(client, replicated, Telemetry::default()).await;
        coordinator.unwrap()
    };
    let well = async |cluster: &Cluster, line: &str| {
        let output = dirigent(&cluster.url(), files.path(), line).await;
        assert_eq!(output.status.code(), Some(0), "{line}: {:?}", said(&output));
    };
    {
        let cluster = Cluster::start(None).await.unwrap();
        let coordinator = conduct(&cluster).await;
        well(&cluster, "deploy long.yaml").await;
        for n in 0..SAGAS {
            let line = format!("start long --key l-{n} --input {{}}");
            well(&cluster, &line).await;
        }
        well(&cluster, "backup cluster.tar").await;
        coordinator.stop().await;
    }
    let cluster = Cluster::start(None).await.unwrap();
    well(&cluster, "restore cluster.tar").await;
    let _coordinator = conduct(&cluster).await;
    let _working = Services::default().at(cluster.connect().await.unwrap());
    for n in 0..SAGAS {
        // It has started, so its outcome is waited for.
        let line = format!("run long --key l-{n} --input {{}}");
        well(&cluster, &line).await;
    }
    let context = async_nats::jetstream::new(cluster.connect().await.unwrap());
    let streams: Vec<_> = context.streams().collect().await;
    for stream in streams {
        let config = stream.unwrap().config;
        assert_eq!(config.num_replicas, SERVERS, "{}", config.name);
    }
}
