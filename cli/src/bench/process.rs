//! The processes that are measured, and what they use.

use super::broker::Broker;
use crate::trouble::Trouble;
use std::{fs::File, path::Path, process::Stdio, time::Duration};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, Signal, System};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// How long a process may take until it says that it is ready.
const READY_TIME: Duration = Duration::from_secs(20);
/// How long a process may take to leave.
const LEAVE_TIME: Duration = Duration::from_secs(15);
/// What a process of the floor writes when it is ready.
pub(super) const READY: &str = "ready";

/// What a process has used.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    /// What it is: `broker`, `coordinator`, `worker` or `load`; with a number if there are several.
    pub(super) name: String,
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    /// Bytes that it had the operating system write.
    pub(super) written_bytes: u64,
}

/// Broker, coordinators, workers and the load itself. Ends what it started when it is dropped.
pub(super) struct Fleet {
    measured: Vec<(String, Pid)>,
    children: Vec<Child>,
}

/// Processes that do the same: what they are called, how many, and their command line.
pub(super) struct Crew {
    pub(super) name: &'static str,
    pub(super) count: u16,
    pub(super) line: Vec<String>,
}

impl Fleet {
    /// Measures the broker and this process.
    pub(super) fn new(broker: &Broker) -> Self {
        let mut fleet = Self {
            measured: vec![("load".to_owned(), Pid::from_u32(std::process::id()))],
            children: Vec::new(),
        };
        let servers = broker.ids();
        for (number, id) in (1..).zip(&servers) {
            let name = numbered("broker", number, servers.len());
            fleet.measured.push((name, Pid::from_u32(*id)));
        }
        fleet
    }

    /// Starts the processes of a crew. Their logs go to `directory`.
    pub(super) fn hire(
        &mut self,
        crew: &Crew,
        broker: &Broker,
        directory: &Path,
    ) -> Result<(), Trouble> {
        for number in 1..=crew.count {
            let name = numbered(crew.name, number, usize::from(crew.count));
            let child = spawn(crew, &name, broker, directory)?;
            if let Some(id) = child.id() {
                self.measured.push((name, Pid::from_u32(id)));
            }
            self.children.push(child);
        }
        Ok(())
    }

    /// Waits until each has said that it is ready.
    pub(super) async fn hear_ready(&mut self) -> Result<(), Trouble> {
        for child in &mut self.children {
            let Some(out) = child.stdout.take() else {
                continue;
            };
            let mut lines = BufReader::new(out).lines();
            let line = tokio::time::timeout(READY_TIME, lines.next_line()).await;
            match line {
                Ok(Ok(Some(line))) if line == READY => {}
                Ok(Err(error)) => return Err(Trouble::bench(error)),
                _ => return Err(Trouble::bench("a process of the floor did not get ready")),
            }
        }
        Ok(())
    }

    /// What each process has used so far.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let mut system = System::new();
        let ids: Vec<Pid> = self.measured.iter().map(|(_, id)| *id).collect();
        let what = ProcessRefreshKind::nothing()
            .with_cpu()
            .with_memory()
            .with_disk_usage();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&ids), false, what);
        self.measured
            .iter()
            .filter_map(|(name, id)| {
                let process = system.process(*id)?;
                Some(Usage {
                    name: name.clone(),
                    cpu: Duration::from_millis(process.accumulated_cpu_time()),
                    resident_bytes: process.memory(),
                    written_bytes: process.disk_usage().total_written_bytes,
                })
            })
            .collect()
    }

    /// Kills one at once, as a crash would.
    pub(super) fn kill(&self, name: &str) -> Result<(), Trouble> {
        let system = System::new_all();
        let mut measured = self.measured.iter();
        let found = measured.find(|(measured, _)| measured == name);
        let process = found.and_then(|(_, id)| system.process(*id));
        match process.map(|process| process.kill_with(Signal::Kill)) {
            Some(Some(true)) => Ok(()),
            _ => Err(Trouble::bench(format!("{name} cannot be killed"))),
        }
    }

    /// Lets every process leave in order.
    pub(super) async fn stop(self) {
        let system = System::new_all();
        for mut child in self.children {
            let process = child.id().and_then(|id| system.process(Pid::from_u32(id)));
            if let Some(process) = process {
                process.kill_with(Signal::Term);
            }
            // Who does not leave is killed when it is dropped.
            let _ = tokio::time::timeout(LEAVE_TIME, child.wait()).await;
        }
    }
}

fn numbered(name: &str, number: u16, count: usize) -> String {
    if count == 1 {
        name.to_owned()
    } else {
        format!("{name}-{number}")
    }
}

fn spawn(crew: &Crew, name: &str, broker: &Broker, directory: &Path) -> Result<Child, Trouble> {
    let not_started = |error: std::io::Error| Trouble::NotStarted {
        what: crew.name,
        reason: error.to_string(),
    };
    let log = File::create(directory.join(format!("{name}.log"))).map_err(not_started)?;
    Command::new(std::env::current_exe().map_err(not_started)?)
        .args(&crew.line)
        .envs(broker.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)
}
