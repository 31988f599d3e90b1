//! The worker in Python, where this machine can run it.

use crate::process::Process;
use std::{env, ffi::OsString, path::Path, process::Command};

/// A definition whose one step that worker does.
pub const APPRAISE: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Appraise
States:
  Appraise: { Type: Task, Resource: 'task:appraise', End: true }
";

/// A Python that can run the worker; `None` if this machine has none.
///
/// # Panics
/// If there is none and `DIRIGENT_TEST_REQUIRE_PYTHON` asks for one.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn python() -> Option<OsString> {
    let python = env::var_os("DIRIGENT_PYTHON");
    if python.is_none() {
        assert!(
            env::var_os("DIRIGENT_TEST_REQUIRE_PYTHON").is_none(),
            "DIRIGENT_PYTHON names no Python"
        );
        eprintln!("SKIPPED: DIRIGENT_PYTHON names no Python with nats-py and msgpack");
    }
    python
}

/// Starts the worker.
///
/// # Errors
/// If that Python cannot be started.
pub fn worker(python: OsString, url: &str) -> anyhow::Result<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workers/examples/python/worker.py");
    Process::start(Command::new(python).arg(script).arg(url))
}
