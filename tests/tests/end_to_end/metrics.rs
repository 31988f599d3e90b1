//! Metrics, as a Prometheus server scrapes them: a real run, read by a parser of the text format.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use anyhow::{Context as _, ensure};
use dirigent_contracts::{
    api::RetryRequest,
    metric::{Measured, Metric, Snapshot},
    outcome::SagaStatus,
    subject,
};
use dirigent_coordinator::{Coordinator, Settings, metrics::REFERENCE, telemetry::Telemetry};
use dirigent_tests::{
    crew::Crew,
    stage::{PATIENCE, Stage, address, settings},
};
use dirigent_worker::TaskError;
use prometheus_parse::{Sample, Scrape, Value};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Retries, times out, undoes, gets stuck while undoing, and is let go.
const ORDER: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Reserve
States:
  Reserve:
    Type: Task
    Resource: task:reserve
    Compensate:
      Resource: task:release
      Retry: [{ ErrorEquals: [States.ALL], MaxAttempts: 1, IntervalSeconds: 1 }]
    Next: Charge
  Charge:
    Type: Task
    Resource: task:charge
    Retry: [{ ErrorEquals: [Busy], MaxAttempts: 3, IntervalSeconds: 1 }]
    Next: Ship
  Ship:
    Type: Task
    Resource: task:ship
    TimeoutSeconds: 1
    Compensate: { Resource: 'task:recall' }
    End: true
";

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let (head, body) = response.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The samples of a page; every line of it must be understood.
async fn scrape(address: SocketAddr) -> anyhow::Result<Vec<Sample>> {
    let (status, page) = get(address, "/metrics").await?;
    ensure!(status == 200, "{status}: {page}");
    let scraped = Scrape::parse(page.lines().map(|line| Ok(line.to_owned())))?;
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let read: usize = scraped
        .samples
        .iter()
        .map(|sample| match &sample.value {
            // Each bucket, and the sum and the count, which the parser tells as samples of their own.
            Value::Histogram(buckets) => buckets.len(),
            _ => 1,
        })
        .sum();
    assert_eq!(read, lines.count(), "all of {page}");
    Ok(scraped.samples)
}

/// The sum over all series of a metric that have these labels.
fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let of = samples.iter().filter(|sample| sample.metric == name);
    let of = of.filter(|sample| {
        labels
            .iter()
            .all(|(label, value)| sample.labels.get(label) == Some(value))
    });
    of.map(|sample| match &sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
        Value::Histogram(_) | Value::Summary(_) => 0.0,
    })
    .sum()
}

async fn observed_stage(settings: Settings) -> anyhow::Result<(Stage, SocketAddr)> {
    let mut stage = Stage::start_without_coordinator().await?;
    let settings = Settings {
        metrics_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        ..settings
    };
    let client = stage.nats.connect().await?;
    let coordinator = Coordinator::start(client, settings, Telemetry::default()).await?;
    let address = coordinator.metrics_address().context("no address")?;
    stage.coordinator = Some(coordinator);
    Ok((stage, address))
}

/// What each metric of a page is: its labels, and its kind.
fn families(samples: &[Sample]) -> BTreeMap<String, BTreeSet<String>> {
    let mut families = BTreeMap::<String, BTreeSet<String>>::new();
    for sample in samples {
        let labels = sample.labels.keys().cloned();
        families
            .entry(sample.metric.clone())
            .or_default()
            .extend(labels);
    }
    families
}

/// The same, as the reference has it.
fn reference() -> BTreeMap<String, BTreeSet<String>> {
    let of = |metric: &Metric| {
        let name = metric.prometheus();
        let labels: BTreeSet<String> = metric
            .labels
            .iter()
            .map(|&label| label.to_owned())
            .collect();
        match metric.kind.as_str() {
            "histogram" => ["", "_sum", "_count"]
                .map(|suffix| (format!("{name}{suffix}"), labels.clone()))
                .to_vec(),
            _ => vec![(name, labels)],
        }
    };
    REFERENCE.iter().flat_map(of).collect()
}

#[tokio::test]
async fn a_scrape_tells_what_happened_and_is_the_reference_to_the_letter() -> anyhow::Result<()> {
    let (stage, address_of_page) = observed_stage(settings("observed")).await?;
    stage.deploy("order", ORDER).await?;
    let may_release = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&may_release);
    let crew = Crew::new(stage.client.clone())
        .echoes(&["reserve", "recall"])
        .does("charge", |call| async move {
            match call.attempt {
                1 => Err(TaskError::new("Busy", "once")),
                _ => Ok(json!({})),
            }
        })
        .does("ship", |call| async move {
            if call.key == "late" {
                tokio::time::sleep(Duration::from_millis(2_500)).await;
            }
            Ok(json!({}))
        })
        .does("release", move |_| {
            let is_open = is_open.load(Ordering::SeqCst);
            async move {
                if is_open {
                    Ok(json!({}))
                } else {
                    Err(TaskError::new("Closed", "not yet"))
                }
            }
        })
        .start()?;
    assert_eq!(
        stage.run("order", "good", json!({})).await?.status,
        SagaStatus::Succeeded
    );
    // A start of what has started changes nothing, and neither does a message that comes twice.
    let doubler = stage.double_everything().await?;
    assert_eq!(
        stage.run("order", "twice", json!({})).await?.status,
        SagaStatus::Succeeded
    );
    doubler.abort();
    stage.begin("order", "late", json!({})).await?;
    stage.stands("order", "late", SagaStatus::Stuck).await?;
    // What no rule takes is a dead letter; so is an entry that nobody can read.
    let jetstream = async_nats::jetstream::new(stage.client.clone());
    let garbage = jetstream.publish("dirigent.journal.0.order.x.control", "garbage".into());
    garbage.await?.await?;

    let until = Instant::now() + PATIENCE;
    let samples = loop {
        let samples = scrape(address_of_page).await?;
        let is_told = sum(&samples, "dirigent_sagas_stuck", &[("definition", "order")]) == 1.0
            && sum(&samples, "dirigent_replies_late_total", &[]) >= 1.0
            && sum(
                &samples,
                "dirigent_dead_letters_total",
                &[("source", "journal")],
            ) == 1.0
            && samples
                .iter()
                .any(|sample| sample.metric == "dirigent_task_oldest_seconds");
        if is_told {
            break samples;
        }
        ensure!(Instant::now() < until, "not told: {samples:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let of_order = [("definition", "order")];
    let total = |name: &str, labels: &[(&str, &str)]| sum(&samples, name, labels);
    assert_eq!(total("dirigent_sagas_started_total", &of_order), 3.0);
    assert_eq!(total("dirigent_sagas_live", &of_order), 1.0);
    assert_eq!(total("dirigent_sagas_incidents_total", &of_order), 1.0);
    let succeeded = [("definition", "order"), ("outcome", "succeeded")];
    assert_eq!(total("dirigent_sagas_ended_total", &succeeded), 2.0);
    assert_eq!(
        total("dirigent_saga_duration_seconds_count", &of_order),
        2.0
    );
    assert_eq!(total("dirigent_compensations_total", &of_order), 1.0);
    assert_eq!(
        total("dirigent_compensation_failures_total", &of_order),
        2.0
    );
    // One of each saga's Charge, and one of the undoing.
    assert_eq!(total("dirigent_retries_total", &of_order), 4.0);
    let attempts = |task, outcome| {
        total(
            "dirigent_attempts_total",
            &[("task", task), ("outcome", outcome)],
        )
    };
    assert_eq!(
        (
            attempts("charge", "succeeded"),
            attempts("charge", "failed")
        ),
        (3.0, 3.0)
    );
    assert_eq!(
        (attempts("ship", "succeeded"), attempts("ship", "timed-out")),
        (2.0, 1.0)
    );
    for phase in ["transition", "queue", "run"] {
        let labels = [("task", "reserve"), ("phase", phase)];
        assert_eq!(
            total("dirigent_attempt_duration_seconds_count", &labels),
            3.0
        );
    }
    assert!(total("dirigent_entries_ignored_total", &[]) > 0.0);
    assert_eq!(total("dirigent_partition_owned", &[]), 2.0);

    assert_eq!(families(&samples), reference());

    may_release.store(true, Ordering::SeqCst);
    let saga = address("order", "late")?;
    let retry = RetryRequest {
        saga,
        skip: false,
        reason: String::new(),
    };
    stage.request(&retry).await?;
    stage
        .stands("order", "late", SagaStatus::Compensated)
        .await?;
    let samples = scrape(address_of_page).await?;
    assert_eq!(sum(&samples, "dirigent_sagas_stuck", &of_order), 0.0);
    assert_eq!(sum(&samples, "dirigent_sagas_live", &of_order), 0.0);
    drop(crew);
    Ok(())
}

#[tokio::test]
async fn containers_and_other_programs_can_ask_how_it_stands() -> anyhow::Result<()> {
    let (stage, address) = observed_stage(settings("asked")).await?;
    let until = Instant::now() + PATIENCE;
    loop {
        let (status, body) = get(address, "/readyz").await?;
        if status == 200 {
            break;
        }
        assert_eq!(status, 503);
        ensure!(Instant::now() < until, "never ready: {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(get(address, "/healthz").await?, (200, "alive\n".to_owned()));
    assert_eq!(get(address, "/elsewhere").await?.0, 404);
    let answer = stage.client.request(subject::METRICS, "".into()).await?;
    let snapshot: Snapshot = serde_json::from_slice(&answer.payload)?;
    assert_eq!(snapshot.coordinator, "asked");
    let owned = snapshot.samples.iter().filter(|sample| {
        sample.name == "dirigent_partition_owned"
            && sample.measured == Measured::Number { value: 1.0 }
    });
    assert_eq!(owned.count(), 2);
    Ok(())
}
