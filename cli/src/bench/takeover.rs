//! `bench --takeover`: how long a partition with many waiting sagas goes without a decision when its owner
//! is killed, and what a waiting saga costs in memory.

use super::{
    installation::Installation,
    load::Keys,
    report,
    target::{Started, request_start},
    workload::{Workload, input},
};
use crate::{
    arguments::{BenchArguments, BrokerArguments},
    connection::Connection,
    trouble::Trouble,
};
use async_nats::Subscriber;
use dirigent_contracts::{
    api::{StartRequest, StatusRequest},
    id::SagaKey,
    subject,
};
use futures::StreamExt as _;
use serde::Serialize;
use std::{
    num::NonZeroU16,
    path::Path,
    time::{Duration, Instant},
};

/// Sagas that wait, if their number is not said.
const WAITING: usize = 100_000;
/// Sagas of three steps of which some are under way when the owner dies.
const BUSY: usize = 2_000;
/// How many of them have ended by then.
const ENDED_BEFORE: usize = 500;
/// Starts under way at a time.
const AT_ONCE: usize = 128;
/// How long two coordinators may take to settle who owns the partition.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// What was under way to the broker when the owner died has arrived by then; its death is not noticed yet.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longer than any takeover.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause before a start is asked for again that its coordinator took along.
const REST: Duration = Duration::from_millis(100);

/// The names of the two processes.
const FIRST: &str = "coordinator";
const SECOND: &str = "coordinator-2";

/// What was found. Times count from the death of the owner.
#[derive(Debug, Serialize)]
pub(super) struct Takeover {
    waiting: usize,
    /// Until the other coordinator holds the lease.
    claimed_s: f64,
    /// Until it publishes the first thing that follows from an entry.
    first_decision_s: f64,
    /// Until all that was under way has ended.
    caught_up_s: f64,
    /// Memory that each waiting saga takes, in the coordinator that ran it until it waited.
    bytes_per_saga: f64,
    /// The same, in the coordinator that took it over.
    bytes_per_saga_taken_over: f64,
}

/// Measures it.
pub(super) async fn measure(
    broker: &BrokerArguments,
    arguments: &BenchArguments,
    directory: &Path,
) -> Result<Takeover, Trouble> {
    let waiting = match arguments.live {
        0 => WAITING,
        live => live,
    };
    let arguments = BenchArguments {
        workloads: vec![Workload::W3],
        partitions: NonZeroU16::new(1),
        coordinators: 1,
        live: waiting,
        ..arguments.clone()
    };
    let mut installation = Installation::dirigent(broker, &arguments, directory).await?;
    let connection = installation.connection().clone();
    let first = owner(&connection).await?;
    let mut keys = Keys::new();
    let empty = resident(&installation, FIRST)?;
    installation.prepare(&arguments, &mut keys).await?;
    let full = resident(&installation, FIRST)?;
    installation.hire_coordinator(SECOND, &arguments, directory)?;
    tokio::time::sleep(SETTLE_TIME).await;
    // It may have been handed over: whoever owns it now is to die.
    let (dying, heir) = if owner(&connection).await? == first {
        (FIRST, SECOND)
    } else {
        (SECOND, FIRST)
    };
    let before = resident(&installation, heir)?;
    let times = kill(&installation, dying, &mut keys).await?;
    let after = resident(&installation, heir)?;
    installation.stop().await;
    let per_saga = |bytes: u64| fraction(bytes, waiting);
    Ok(Takeover {
        waiting,
        claimed_s: times.claimed.as_secs_f64(),
        first_decision_s: times.first_decision.as_secs_f64(),
        caught_up_s: times.caught_up.as_secs_f64(),
        bytes_per_saga: per_saga(full.saturating_sub(empty)),
        bytes_per_saga_taken_over: per_saga(after.saturating_sub(before)),
    })
}

impl Takeover {
    pub(super) fn table(&self) -> String {
        report::figures([
            ("waiting sagas", format!("{}", self.waiting), ""),
            (
                "from the owner's death to the claim of the next",
                format!("{:.2}", self.claimed_s),
                "s",
            ),
            (
                "to its first decision",
                format!("{:.2}", self.first_decision_s),
                "s",
            ),
            (
                "to the end of all that was under way",
                format!("{:.2}", self.caught_up_s),
                "s",
            ),
            (
                "a waiting saga in memory",
                format!("{:.0}", self.bytes_per_saga),
                "bytes, where it was run",
            ),
            (
                "",
                format!("{:.0}", self.bytes_per_saga_taken_over),
                "bytes, where it was taken over",
            ),
        ])
    }
}

/// Since the owner's death.
struct Times {
    claimed: Duration,
    first_decision: Duration,
    caught_up: Duration,
}

/// Kills the owner while sagas run, and watches until all of them have ended.
async fn kill(installation: &Installation, dying: &str, keys: &mut Keys) -> Result<Times, Trouble> {
    let connection = installation.connection();
    let lease = format!("$KV.{}.lease.0", subject::PARTITIONS_BUCKET);
    let outcomes = format!("dirigent.event.{}.*.*", Workload::W3.name());
    let mut claims = subscribe(connection, lease).await?;
    let mut commands = subscribe(connection, "dirigent.command.>".to_owned()).await?;
    let mut ended = subscribe(connection, outcomes).await?;
    connection.client.flush().await.map_err(Trouble::bench)?;
    let busy: Vec<SagaKey> = (0..BUSY).map(|_| keys.next()).collect::<Result<_, _>>()?;
    let starts = futures::stream::iter(busy)
        .map(|key| start(connection, key))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<Result<(), Trouble>>>();
    let watching = async {
        for _ in 0..ENDED_BEFORE {
            next(&mut ended).await?;
        }
        installation.kill(dying)?;
        let death = Instant::now();
        let first_decision = async {
            loop {
                next(&mut commands).await?;
                if death.elapsed() > LAST_WORDS {
                    return Ok::<_, Trouble>(death.elapsed());
                }
            }
        };
        let claimed = async {
            next(&mut claims).await?;
            Ok(death.elapsed())
        };
        let caught_up = async {
            for _ in ENDED_BEFORE..BUSY {
                next(&mut ended).await?;
            }
            Ok(death.elapsed())
        };
        let (claimed, first_decision, caught_up) =
            tokio::try_join!(claimed, first_decision, caught_up)?;
        Ok(Times {
            claimed,
            first_decision,
            caught_up,
        })
    };
    let (starts, times) = tokio::join!(starts, watching);
    starts.into_iter().collect::<Result<(), Trouble>>()?;
    times
}

/// Starts a saga, and asks again if the coordinator that was asked has died.
async fn start(connection: &Connection, key: SagaKey) -> Result<(), Trouble> {
    let request = StartRequest {
        definition: Workload::W3.deployment()?.name,
        input: input(key.as_str()),
        key: Some(key),
        digest: None,
    };
    let began = Instant::now();
    loop {
        match request_start(connection, &request).await {
            Ok(Started::Accepted) => return Ok(()),
            Ok(Started::Refused) => {}
            Err(trouble) if began.elapsed() > PATIENCE => return Err(trouble),
            Err(_) => {}
        }
        tokio::time::sleep(REST).await;
    }
}

async fn subscribe(connection: &Connection, subject: String) -> Result<Subscriber, Trouble> {
    let subscribed = connection.client.subscribe(subject).await;
    subscribed.map_err(Trouble::bench)
}

async fn next(messages: &mut Subscriber) -> Result<(), Trouble> {
    match tokio::time::timeout(PATIENCE, messages.next()).await {
        Ok(Some(_)) => Ok(()),
        _ => Err(Trouble::bench("nothing happened after the owner's death")),
    }
}

async fn owner(connection: &Connection) -> Result<String, Trouble> {
    let status = connection.ask(&StatusRequest {}).await?;
    let owner = status.owners.into_iter().next();
    owner.ok_or_else(|| Trouble::bench("there is no partition"))
}

fn resident(installation: &Installation, name: &str) -> Result<u64, Trouble> {
    let usage = installation.usage();
    let found = usage.into_iter().find(|usage| usage.name == name);
    found
        .map(|usage| usage.resident_bytes)
        .ok_or_else(|| Trouble::bench(format!("{name} is gone")))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 53 bits are plenty"
)]
fn fraction(bytes: u64, sagas: usize) -> f64 {
    bytes as f64 / sagas.max(1) as f64
}
