//! A wall clock of one process, that a test sets: `libfaketime` between the process and the system.
//!
//! The monotonic clock stays true, as it does when a machine's clock is set.

use anyhow::Context as _;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where Debian keeps the library, below the directory of an architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A clock that can be set.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    /// Read by the library at every look at the clock.
    offset: PathBuf,
}

impl Clock {
    /// A clock that goes right so far; `offset` is a file for it.
    ///
    /// # Errors
    /// If the library is not there (Debian: faketime), or the file cannot be written.
    pub fn new(offset: PathBuf) -> anyhow::Result<Self> {
        let clock = Self {
            library: find_library().context("there is no libfaketime (Debian: faketime)")?,
            offset,
        };
        clock.set_ahead(0)?;
        Ok(clock)
    }

    /// Sets the clock that many seconds ahead of the true one; behind it if negative.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_ahead(&self, seconds: i64) -> anyhow::Result<()> {
        // In place of the old one, never half-written.
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(new, &self.offset)?;
        Ok(())
    }

    /// Makes a process go by this clock.
    pub fn give_to(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

fn find_library() -> Option<PathBuf> {
    let architectures = fs::read_dir(Path::new("/usr/lib")).ok()?;
    architectures
        .filter_map(Result::ok)
        .map(|entry| entry.path().join(LIBRARY))
        .find(|path| path.is_file())
}
