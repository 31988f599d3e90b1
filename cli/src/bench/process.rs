//! The processes that are measured, and what they use.

use super::workload::Workload;
use crate::{
    arguments::BenchArguments, connection::Connection, local_broker::LocalBroker, trouble::Trouble,
};
use dirigent_contracts::{api::StatusRequest, subject};
use futures::StreamExt as _;
use std::{
    fs::File,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::process::{Child, Command};

/// How long the coordinator may take until it owns all partitions.
const READY_TIME: Duration = Duration::from_secs(20);

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
}

/// Broker, coordinator, workers and the load itself. Ends what it started when it is dropped.
pub(super) struct Fleet {
    processes: Vec<(&'static str, Pid)>,
    _children: Vec<Child>,
}

impl Fleet {
    pub(super) fn start(
        broker: &LocalBroker,
        arguments: &BenchArguments,
        directory: &Path,
    ) -> Result<Self, Trouble> {
        let partitions = arguments.partitions.to_string();
        let concurrency = arguments.in_flight.iter().max().copied().unwrap_or(1);
        let concurrency = (concurrency * Workload::P10.steps()).min(1_000).to_string();
        let coordinator: &[&str] = &["coordinator", "--partitions", &partitions];
        let worker: &[&str] = &["bench-worker", "--concurrency", &concurrency];
        let mut children = Vec::new();
        let mut processes = vec![("nats-server", broker.id())];
        for (name, line) in [("coordinator", coordinator), ("worker", worker)] {
            let child = spawn(name, line, &broker.url(), directory)?;
            processes.push((name, child.id()));
            children.push(child);
        }
        processes.push(("load", Some(std::process::id())));
        Ok(Self {
            processes: processes
                .into_iter()
                .filter_map(|(name, id)| Some((name, Pid::from_u32(id?))))
                .collect(),
            _children: children,
        })
    }

    pub(super) async fn wait_until_ready(
        &mut self,
        connection: &Connection,
    ) -> Result<(), Trouble> {
        let began = Instant::now();
        loop {
            let last = match connection.ask(&StatusRequest {}).await {
                Ok(status) if status.owners.iter().all(|owner| !owner.is_empty()) => return Ok(()),
                Ok(_) => None,
                Err(trouble) => Some(trouble),
            };
            if began.elapsed() > READY_TIME {
                return Err(last.unwrap_or(Trouble::NotStarted {
                    what: "the coordinator",
                    reason: "it does not own its partitions".to_owned(),
                }));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What each process has used so far.
    pub(super) fn usage(&self) -> Vec<(&'static str, Usage)> {
        let mut system = System::new();
        let ids: Vec<Pid> = self.processes.iter().map(|(_, id)| *id).collect();
        let what = ProcessRefreshKind::nothing().with_cpu().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&ids), false, what);
        let usage = |id: &Pid| {
            system
                .process(*id)
                .map_or_else(Usage::default, |process| Usage {
                    cpu: Duration::from_millis(process.accumulated_cpu_time()),
                    resident_bytes: process.memory(),
                })
        };
        self.processes
            .iter()
            .map(|(name, id)| (*name, usage(id)))
            .collect()
    }
}

fn spawn(name: &'static str, line: &[&str], url: &str, directory: &Path) -> Result<Child, Trouble> {
    let not_started = |error: std::io::Error| Trouble::NotStarted {
        what: name,
        reason: error.to_string(),
    };
    let log = File::create(directory.join(format!("{name}.log"))).map_err(not_started)?;
    Command::new(std::env::current_exe().map_err(not_started)?)
        .args(line)
        .env("NATS_URL", url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)
}

/// What the broker has stored so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stored {
    /// Messages that were ever stored in our streams, snapshots aside.
    pub(super) messages: u64,
    /// Snapshots that were ever written.
    pub(super) snapshots: u64,
    /// Bytes that our streams hold now.
    pub(super) bytes: u64,
}

impl Stored {
    pub(super) async fn read(connection: &Connection) -> Result<Self, Trouble> {
        let context = async_nats::jetstream::new(connection.client.clone());
        let mut streams = context.streams();
        let mut stored = Self::default();
        while let Some(stream) = streams.next().await {
            let stream = stream.map_err(|error| Trouble::StrangeAnswer {
                operation: "streams",
                reason: error.to_string(),
            })?;
            stored.bytes += stream.state.bytes;
            if stream.config.name == format!("KV_{}", subject::SAGAS_BUCKET) {
                stored.snapshots += stream.state.last_sequence;
            } else if !stream.config.name.starts_with("KV_") {
                stored.messages += stream.state.last_sequence;
            }
        }
        Ok(stored)
    }
}
