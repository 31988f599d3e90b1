//! Coordinators and workers: processes that are taken away, and started again as a supervisor would.

use anyhow::Context as _;
use dirigent_tests::{clock::Clock, process::Process};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How many there are of each.
pub(crate) const COORDINATORS: usize = 3;
pub(crate) const WORKERS: usize = 4;
/// How often a supervisor looks after them.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Coordinator,
    Worker,
}

/// One of them.
struct Member {
    role: Role,
    name: String,
    clock: Option<Clock>,
    /// `None` while it is kept away.
    process: Option<Process>,
}

/// All of them.
pub(crate) struct Members {
    members: Vec<Member>,
    urls: String,
    directory: PathBuf,
    replicas: usize,
    /// How often one had ended by itself.
    pub(crate) revived: usize,
}

impl Members {
    /// Starts them. Coordinators get clocks that can be set, if `with_clocks`.
    pub(crate) fn start(
        urls: String,
        directory: &Path,
        replicas: usize,
        with_clocks: bool,
    ) -> anyhow::Result<Self> {
        let coordinators = (0..COORDINATORS).map(|n| (Role::Coordinator, format!("c-{n}")));
        let workers = (0..WORKERS).map(|n| (Role::Worker, format!("w-{n}")));
        let mut members = Self {
            members: Vec::new(),
            urls,
            directory: directory.to_owned(),
            replicas,
            revived: 0,
        };
        for (role, name) in coordinators.chain(workers) {
            let has_clock = with_clocks && role == Role::Coordinator;
            let clock = has_clock.then(|| Clock::new(directory.join(format!("{name}.clock"))));
            members.members.push(Member {
                role,
                name,
                clock: clock.transpose()?,
                process: None,
            });
        }
        for n in 0..members.members.len() {
            members.launch(n)?;
        }
        Ok(members)
    }

    /// The number of one of them, by what it does and a number that chance gave.
    pub(crate) fn pick(&self, role: Role, chance: usize) -> usize {
        let of_role = |n: &usize| self.members[*n].role == role;
        let numbers: Vec<usize> = (0..self.members.len()).filter(of_role).collect();
        numbers[chance % numbers.len()]
    }

    /// Its name.
    pub(crate) fn name(&self, n: usize) -> &str {
        &self.members[n].name
    }

    /// Its process.
    pub(crate) fn process(&mut self, n: usize) -> anyhow::Result<&mut Process> {
        let process = self.members[n].process.as_mut();
        process.context("it is kept away")
    }

    /// Its clock.
    pub(crate) fn clock(&self, n: usize) -> anyhow::Result<&Clock> {
        self.members[n].clock.as_ref().context("it has no clock")
    }

    /// Kills it, and keeps it away.
    pub(crate) fn kill(&mut self, n: usize) -> anyhow::Result<()> {
        self.process(n)?.kill()?;
        self.members[n].process = None;
        Ok(())
    }

    /// Starts it.
    pub(crate) fn launch(&mut self, n: usize) -> anyhow::Result<()> {
        let member = &mut self.members[n];
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join(format!("{}.log", member.name)))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        match member.role {
            Role::Coordinator => {
                command.args(["coordinator", &member.name, &self.urls]);
                command.arg(self.replicas.to_string());
            }
            Role::Worker => {
                command.arg("worker").arg(ledger(&self.directory));
                command.arg(&self.urls);
            }
        }
        if let Some(clock) = &member.clock {
            clock.give_to(&mut command);
        }
        command.stdout(Stdio::null()).stderr(log);
        member.process = Some(Process::start(&mut command)?);
        Ok(())
    }

    /// Asks each in turn to end, and starts it again.
    pub(crate) async fn roll(&mut self) -> anyhow::Result<()> {
        for n in 0..self.members.len() {
            self.process(n)?.terminate().await?;
            self.launch(n)?;
        }
        Ok(())
    }

    /// Why it ended, as its log tells.
    fn last_words(&self, n: usize) -> String {
        let log = self.directory.join(format!("{}.log", self.name(n)));
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let error = log.lines().rfind(|line| line.starts_with("Error"));
        error.unwrap_or("without a word").to_owned()
    }

    /// Lets time pass, and starts again what has ended by itself meanwhile.
    pub(crate) async fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        loop {
            for n in 0..self.members.len() {
                let process = self.members[n].process.as_mut();
                if process.is_some_and(|process| process.has_ended().unwrap_or(true)) {
                    println!(
                        "{} had ended by itself: {}",
                        self.name(n),
                        self.last_words(n)
                    );
                    self.revived += 1;
                    self.launch(n)?;
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
        }
    }
}

/// Where the workers keep their ledger.
pub(crate) fn ledger(directory: &Path) -> PathBuf {
    directory.join("ledger")
}
