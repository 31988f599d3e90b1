//! What is measured: a broker with coordinators and workers on it, or with the processes of the floor.

use super::{
    broker::Broker,
    floor::{self, Recordings},
    load::{self, Keys, Pace},
    process::{Crew, Fleet, Usage},
    target::{self, Started, Target},
    workload::{self, Workload},
};
use crate::{
    arguments::{BenchArguments, BrokerArguments},
    connection::Connection,
    trouble::Trouble,
};
use async_nats::jetstream;
use dirigent_contracts::{
    api::{StartRequest, StatusRequest},
    subject,
};
use dirigent_coordinator::{Coordinator, Settings, telemetry::Telemetry};
use dirigent_worker::{Worker, WorkerBuilder};
use futures::{StreamExt as _, TryStreamExt as _};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How long the coordinators may take until they own all partitions.
const READY_TIME: Duration = Duration::from_secs(30);
/// How often that is looked at: it is measured too.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How long the last commands may take to be removed; on a broker that is joined there may be others.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// For how long nothing is stored when all is.
const STILL_TIME: Duration = Duration::from_millis(20);
/// Starts under way while sagas are prepared.
const BUSY: usize = 256;
/// How long a refused start rests.
const REST: Duration = Duration::from_millis(50);
/// When no snapshot is written for so long, all are.
const SETTLE_TIME: Duration = Duration::from_secs(3);

/// One of the two.
pub(super) struct Installation {
    pub(super) target: Target,
    pub(super) partitions: u16,
    broker: Broker,
    fleet: Fleet,
}

impl Installation {
    /// Coordinators and workers, on a broker of their own or on the one that is joined.
    pub(super) async fn dirigent(
        broker: &BrokerArguments,
        arguments: &BenchArguments,
        directory: &Path,
    ) -> Result<Self, Trouble> {
        let directory = directory.join("dirigent");
        fs::create_dir_all(&directory).map_err(Trouble::Write)?;
        let broker = if arguments.join {
            Broker::join(broker).await?
        } else {
            Broker::start(arguments, &directory).await?
        };
        Self::on(broker, arguments, &directory).await
    }

    /// The same on a broker of its own, with every span exported to `endpoint`, or none.
    pub(super) async fn traced(
        arguments: &BenchArguments,
        directory: &Path,
        endpoint: Option<String>,
    ) -> Result<Self, Trouble> {
        let mut broker = Broker::start(arguments, directory).await?;
        let endpoint = endpoint.unwrap_or_default();
        // An empty endpoint is none, whatever the environment of this process says.
        broker.environment.extend([
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", String::new()),
        ]);
        Self::on(broker, arguments, directory).await
    }

    async fn on(
        broker: Broker,
        arguments: &BenchArguments,
        directory: &Path,
    ) -> Result<Self, Trouble> {
        let mut fleet = Fleet::new(&broker);
        fleet.hire(&coordinators(arguments), &broker, directory)?;
        let workers = Crew {
            name: "worker",
            count: arguments.workers,
            line: vec!["bench-worker".to_owned()],
        };
        fleet.hire(&workers, &broker, directory)?;
        let partitions = wait_until_owned(&broker.connection, arguments).await?;
        for workload in &arguments.workloads {
            broker.connection.ask(&workload.deployment()?).await?;
        }
        Ok(Self {
            target: Target::Dirigent(broker.connection.clone()),
            partitions,
            broker,
            fleet,
        })
    }

    /// The floor, on a broker of its own. A real coordinator and worker first run one saga of each
    /// workload there: so the streams and consumers are the real ones, and the messages are known.
    pub(super) async fn floor(
        arguments: &BenchArguments,
        directory: &Path,
    ) -> Result<Self, Trouble> {
        let directory = directory.join("floor");
        fs::create_dir_all(&directory).map_err(Trouble::Write)?;
        let broker = Broker::start(arguments, &directory).await?;
        let recordings = record(&broker.connection, arguments).await?;
        let file = directory.join("recordings.json");
        recordings.write(&file)?;
        let mut fleet = Fleet::new(&broker);
        for (name, count) in [("coordinator", 1), ("worker", arguments.workers)] {
            let line = ["bench-floor", name, "--recordings"].map(str::to_owned);
            let line = line.into_iter().chain([file.display().to_string()]);
            let crew = Crew {
                name,
                count,
                line: line.collect(),
            };
            fleet.hire(&crew, &broker, &directory)?;
        }
        fleet.hear_ready().await?;
        Ok(Self {
            partitions: recordings.partitions,
            target: Target::Floor {
                connection: broker.connection.clone(),
                recordings: Arc::new(recordings),
            },
            broker,
            fleet,
        })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.broker.connection
    }

    /// Starts one more coordinator.
    pub(super) fn hire_coordinator(
        &mut self,
        name: &'static str,
        arguments: &BenchArguments,
        directory: &Path,
    ) -> Result<(), Trouble> {
        let crew = Crew {
            name,
            ..coordinators(arguments)
        };
        self.fleet.hire(&crew, &self.broker, directory)
    }

    /// Kills a process at once.
    pub(super) fn kill(&self, name: &str) -> Result<(), Trouble> {
        self.fleet.kill(name)
    }

    /// What each process has used so far.
    pub(super) fn usage(&self) -> Vec<Usage> {
        self.fleet.usage()
    }

    pub(super) fn is_floor(&self) -> bool {
        matches!(self.target, Target::Floor { .. })
    }

    /// Starts the sagas that go on waiting, and runs those that are to be finished.
    pub(super) async fn prepare(
        &self,
        arguments: &BenchArguments,
        keys: &mut Keys,
    ) -> Result<(), Trouble> {
        if arguments.finished > 0 {
            let pace = Pace::Closed {
                in_flight: BUSY,
                sagas: arguments.finished,
            };
            let finished = Workload::W3;
            let connection = &self.broker.connection;
            connection.ask(&finished.deployment()?).await?;
            load::run(&self.target, finished, pace, keys).await?;
        }
        if arguments.live > 0 {
            self.start_waiting(arguments.live, keys).await?;
        }
        Ok(())
    }

    /// Starts sagas that wait, and waits itself until their snapshots are written.
    async fn start_waiting(&self, sagas: usize, keys: &mut Keys) -> Result<(), Trouble> {
        let connection = &self.broker.connection;
        let deployments = workload::waiting()?;
        for deployment in &deployments {
            connection.ask(deployment).await?;
        }
        let mut requests = Vec::with_capacity(sagas);
        for deployment in deployments.iter().cycle().take(sagas) {
            let key = keys.next()?;
            requests.push(StartRequest {
                definition: deployment.name.clone(),
                input: workload::input(key.as_str()),
                key: Some(key),
                digest: None,
            });
        }
        let starts = futures::stream::iter(requests).map(|request| async move {
            // What is refused for now is asked for again: all are wanted.
            while target::request_start(connection, &request).await? == Started::Refused {
                tokio::time::sleep(REST).await;
            }
            Ok::<(), Trouble>(())
        });
        starts.buffer_unordered(BUSY).try_collect::<()>().await?;
        let mut written = None;
        loop {
            let now = Some(self.account().await?.stored.snapshots);
            if now == written {
                return Ok(());
            }
            written = now;
            tokio::time::sleep(SETTLE_TIME).await;
        }
    }

    /// What has been used and stored so far, when no command is left and nothing more is stored: a saga's
    /// outcome is heard of before the broker has stored it, and before its last commands are removed.
    pub(super) async fn account(&self) -> Result<Account, Trouble> {
        let began = Instant::now();
        let mut stored = Stored::read(self.target.client()).await?;
        while began.elapsed() < DRAIN_TIME {
            tokio::time::sleep(STILL_TIME).await;
            let before = stored.messages;
            stored = Stored::read(self.target.client()).await?;
            if stored.commands == 0 && stored.messages == before {
                break;
            }
        }
        Ok(Account {
            usage: self.fleet.usage(),
            stored,
        })
    }

    pub(super) async fn stop(self) {
        self.fleet.stop().await;
        self.broker.stop().await;
    }
}

/// The coordinator processes.
pub(super) fn coordinators(arguments: &BenchArguments) -> Crew {
    let mut line = vec!["coordinator".to_owned()];
    if let Some(partitions) = arguments.partitions {
        line.extend(["--partitions".to_owned(), partitions.to_string()]);
    }
    line.extend(["--replicas".to_owned(), arguments.replicas.to_string()]);
    Crew {
        name: "coordinator",
        count: arguments.coordinators,
        line,
    }
}

/// A worker that answers every task of every workload at once.
pub(super) fn worker(connection: &Connection, concurrency: usize) -> Result<Worker, Trouble> {
    let builder = Worker::builder(connection.client.clone()).concurrency(concurrency);
    let offer = |builder: WorkerBuilder, (task, is_refused)| {
        builder.task(task, move |_, _: serde_json::Value| async move {
            workload::answer(is_refused)
        })
    };
    let builder = Workload::tasks().into_iter().fold(builder, offer);
    builder.build().map_err(|error| Trouble::NotStarted {
        what: "the worker",
        reason: error.to_string(),
    })
}

/// Waits until every partition has an owner, and every coordinator its share. Gives their number.
pub(super) async fn wait_until_owned(
    connection: &Connection,
    arguments: &BenchArguments,
) -> Result<u16, Trouble> {
    let began = Instant::now();
    loop {
        let last = match connection.ask(&StatusRequest {}).await {
            Ok(status) => {
                let owners: BTreeSet<&String> = status.owners.iter().collect();
                let wanted = arguments.coordinators.min(status.partitions).max(1);
                let is_owned = !status.owners.iter().any(String::is_empty);
                if is_owned && owners.len() >= usize::from(wanted) {
                    return Ok(status.partitions);
                }
                Trouble::NotStarted {
                    what: "the coordinator",
                    reason: format!("its partitions are owned by {owners:?}"),
                }
            }
            Err(trouble) => trouble,
        };
        if began.elapsed() > READY_TIME {
            return Err(last);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Runs one saga of each workload on a coordinator in this process.
async fn record(
    connection: &Connection,
    arguments: &BenchArguments,
) -> Result<Recordings, Trouble> {
    let settings = Settings {
        partitions: arguments.partitions.map(Into::into),
        replicas: usize::from(arguments.replicas),
        ..Settings::default()
    };
    let client = connection.client.clone();
    let coordinator = Coordinator::start(client, settings, Telemetry::default()).await;
    let coordinator = coordinator.map_err(Trouble::bench)?;
    let stop = CancellationToken::new();
    let worker = tokio::spawn(worker(connection, 1)?.run(stop.clone()));
    let partitions = coordinator.partitions();
    let recordings = floor::record(connection, &arguments.workloads, partitions).await;
    stop.cancel();
    worker.await.map_err(Trouble::bench)?;
    coordinator.stop().await;
    recordings
}

/// What has been used and stored at one time.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) usage: Vec<Usage>,
    pub(super) stored: Stored,
}

/// What the broker has stored.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stored {
    /// Messages that were ever stored in our streams, buckets aside.
    pub(super) messages: u64,
    /// Snapshots that were ever written.
    pub(super) snapshots: u64,
    /// Bytes that our streams hold now.
    pub(super) bytes: u64,
    /// Commands that are there now.
    commands: u64,
}

impl Stored {
    pub(super) async fn read(client: &async_nats::Client) -> Result<Self, Trouble> {
        let context = jetstream::new(client.clone());
        let snapshots = format!("KV_{}", subject::SAGAS_BUCKET);
        let mut streams = context.streams();
        let mut stored = Self::default();
        while let Some(stream) = streams.next().await {
            let stream = stream.map_err(|error| Trouble::StrangeAnswer {
                operation: "streams",
                reason: error.to_string(),
            })?;
            let state = &stream.state;
            if stream.config.name == snapshots {
                stored.snapshots += state.last_sequence;
            } else if stream.config.name.starts_with("DIRIGENT_") {
                stored.messages += state.last_sequence;
                stored.bytes += state.bytes;
                if stream.config.name == subject::COMMANDS_STREAM {
                    stored.commands = state.messages;
                }
            }
        }
        Ok(stored)
    }
}
