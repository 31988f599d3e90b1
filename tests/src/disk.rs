//! Disks that are full, and disks that are slow.

use crate::{process::Process, sandbox::run};
use anyhow::{Context as _, ensure};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// A small disk of its own, mounted in the sandbox.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it.
    ///
    /// # Errors
    /// If mounting is not allowed.
    pub fn mount(at: &Path, mebibytes: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(at)?;
        let size = format!("size={mebibytes}m");
        run(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &size,
            "none",
            &at.to_string_lossy(),
        ])?;
        Ok(Self(at.to_owned()))
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    /// If writing fails for another reason than that it is full.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut filler = File::create(self.filler())?;
        let mut block = vec![0_u8; 1 << 20];
        while !block.is_empty() {
            match filler.write_all(&block) {
                Ok(()) => {}
                // The last pages may take a smaller block.
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    block.truncate(block.len() / 2);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// If it was not full.
    pub fn free(&self) -> anyhow::Result<()> {
        fs::remove_file(self.filler()).context("the disk was not filled")
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

/// What makes every write of a process to its disk slow, until it is dropped.
#[derive(Debug)]
pub struct SlowWrites(Process);

impl SlowWrites {
    /// Whether `strace` is there and may look at other processes; if not, why.
    ///
    /// # Errors
    /// That reason.
    pub async fn check() -> anyhow::Result<()> {
        let mut sleeper = Process::start(Command::new("sleep").arg("30"))?;
        let slow = Self::of(&sleeper, Duration::from_millis(1)).await?;
        slow.end().await?;
        ensure!(!sleeper.has_ended()?, "strace ended what it looked at");
        Ok(())
    }

    /// Delays each write to a file, and each sync, of a process. Its sockets stay as fast as they are.
    ///
    /// # Errors
    /// If `strace` is not there, or not allowed to (Debian: strace).
    pub async fn of(process: &Process, delay: Duration) -> anyhow::Result<Self> {
        const CALLS: &str = "pwrite64,fsync,fdatasync,ftruncate,renameat,unlinkat";
        let inject = format!("--inject={CALLS}:delay_enter={}", delay.as_micros());
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
        strace.arg(format!("trace={CALLS}")).arg(inject);
        strace.args(["-p", &process.id().to_string()]);
        strace.stdout(Stdio::null()).stderr(Stdio::null());
        let mut tracer = Process::start(&mut strace)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        ensure!(
            !tracer.has_ended()?,
            "strace may not look at other processes"
        );
        Ok(Self(tracer))
    }

    /// Lets the process write at full speed again.
    ///
    /// # Errors
    /// If strace does not let it go.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.0.terminate().await
    }
}
