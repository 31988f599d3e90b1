//! An upgrade: the data of an older build, with sagas of all shapes under way, on which this one goes on.
//!
//! `scripts/record-upgrade COMMIT` records the fixture: an older coordinator runs with workers that do
//! only some of the tasks, so that its sagas stand at different places when it is killed. Its streams
//! keep everything for ever, or the fixture would be empty after a week. The steps that wait for an
//! answer do so for three years (99,999,999 s), and fail after that: then record a new one.

use crate::{
    load,
    members::ledger,
    observe,
    shape::{PAID, Shape},
};
use anyhow::{Context as _, ensure};
use async_nats::Client;
use dirigent_contracts::{subject, time::Timestamp};
use dirigent_tests::{
    checker::{Asked, judge},
    ledger::Ledger,
    nats::NatsServer,
    process::Process,
    stage::PATIENCE,
};
use futures::TryStreamExt as _;
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The sagas of the fixture, one to a line: shape and key.
const MANIFEST: &str = "manifest";
/// The key of the saga whose event comes after the upgrade.
const LATE: &str = "awaits-late";
/// How long the older build's sagas may take to come to where they are to stand.
const SETTLING: Duration = Duration::from_secs(8);

#[tokio::test]
async fn the_sagas_of_an_older_build_end_as_they_should() -> anyhow::Result<()> {
    let mut nats = NatsServer::start().await?;
    nats.kill()?;
    let directory = nats.directory().to_owned();
    fs::remove_dir_all(directory.join("data"))?;
    tar(&["-xzf", &fixture().to_string_lossy()], &directory)?;
    nats.restart().await?;
    let client = nats.connect().await?;
    let _coordinator = node(&["coordinator", "new", &nats.url()])?;
    let ledger = ledger(&directory);
    let _worker = node(&["worker", &ledger.to_string_lossy(), &nats.url()])?;
    load::publish(&client, PAID, LATE, &Value::Null).await?;

    let mut asked = Vec::new();
    for line in fs::read_to_string(directory.join(MANIFEST))?.lines() {
        let (shape, key) = line.split_once(' ').context("a shape and a key")?;
        let shape = Shape::ALL.into_iter().find(|it| format!("{it:?}") == shape);
        for (saga, demand) in shape.context("a shape that is known")?.demands(key)? {
            let due = Timestamp(0);
            asked.push(Asked { saga, due, demand });
        }
    }
    let until = Instant::now() + PATIENCE;
    while observe::outcomes(&client).await?.len() < asked.len() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let seen = observe::seen(&client, Ledger::accounts(&ledger)?).await?;
    let verdict = judge(&asked, &seen);
    ensure!(verdict.is_clean(), "{verdict}");
    Ok(())
}

#[tokio::test]
#[ignore = "records the fixture of the test above: scripts/record-upgrade"]
async fn record() -> anyhow::Result<()> {
    let old = env::var("DIRIGENT_OLD").context("DIRIGENT_OLD names the older build's program")?;
    let mut nats = NatsServer::start().await?;
    let (directory, url) = (nats.directory().to_owned(), nats.url());
    let client = nats.connect().await?;
    let mut coordinator = Command::new(old);
    coordinator.args([
        "coordinator",
        "--name",
        "old",
        "--partitions",
        "2",
        "--nats-url",
        &url,
    ]);
    let mut coordinator = Process::start(coordinator.stdout(Stdio::null()))?;
    let until = Instant::now() + PATIENCE;
    while let Err(error) = load::deploy(&client).await {
        ensure!(Instant::now() < until, "{error:#}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    keep_everything(&client).await?;

    let ledger = ledger(&directory);
    let mut manifest = String::new();
    // What was undone waits for a worker; what has one step done; what has none.
    for (stage, tasks) in [
        ("undoing", "do-a,do-b,do-c"),
        ("begun", "do-a"),
        ("new", ""),
    ] {
        let worker = ["worker", &ledger.to_string_lossy(), &url, tasks];
        let worker = (!tasks.is_empty()).then(|| node(&worker)).transpose()?;
        for shape in Shape::ALL {
            let key = format!("{shape:?}-{stage}").to_lowercase();
            load::begin(&client, shape, &key).await?;
            manifest += &format!("{shape:?} {key}\n");
        }
        tokio::time::sleep(SETTLING).await;
        drop(worker);
    }
    load::start(&client, Shape::Awaits, LATE).await?;
    manifest += &format!("{:?} {LATE}\n", Shape::Awaits);
    tokio::time::sleep(SETTLING).await;
    coordinator.kill()?;
    // An event that it never saw.
    let unseen = "triggered-unseen";
    load::begin(&client, Shape::Triggered, unseen).await?;
    manifest += &format!("{:?} {unseen}\n", Shape::Triggered);
    fs::write(directory.join(MANIFEST), manifest)?;
    nats.kill()?;
    let to = fixture();
    fs::create_dir_all(to.parent().context("a directory")?)?;
    tar(
        &["-czf", &to.to_string_lossy(), "data", "ledger", MANIFEST],
        &directory,
    )
}

/// Makes all streams keep what they have: the fixture is to be read long after.
async fn keep_everything(client: &Client) -> anyhow::Result<()> {
    let context = async_nats::jetstream::new(client.clone());
    let names: Vec<String> = context.stream_names().try_collect().await?;
    let ours = names.iter().filter(|name| name.starts_with("DIRIGENT_"));
    for name in ours {
        let mut config = context.get_stream(name).await?.cached_info().config.clone();
        config.max_age = Duration::ZERO;
        context.update_stream(config).await?;
    }
    ensure!(names.iter().any(|name| name == subject::INBOX_STREAM));
    Ok(())
}

fn node(arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
    command.args(arguments);
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

fn tar(arguments: &[&str], directory: &Path) -> anyhow::Result<()> {
    let status = Command::new("tar")
        .args(arguments)
        .current_dir(directory)
        .status()?;
    ensure!(status.success(), "tar {arguments:?} failed");
    Ok(())
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/upgrade.tar.gz")
}
