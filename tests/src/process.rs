//! A process that a test signals, and that is gone when the value is dropped, however the test ends.

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a process may take to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(60);
/// Pause between two looks at a process that is asked to end.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running process.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a process. Its output goes where the command says; it has no input.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| {
            format!("{} cannot be started", command.get_program().display())
        })?))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Ends it in the middle of whatever it does (SIGKILL).
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let until = Instant::now() + FAREWELL;
        while !self.has_ended()? {
            if Instant::now() > until {
                bail!("process {} does not end when it is asked to", self.id());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Holds it where it stands (SIGSTOP): it is there, and does nothing.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT) as if no time had passed.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        kill_process(id.context("a process has a number")?, signal)?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If it cannot be killed it is gone already.
        let _ = self.kill();
    }
}
