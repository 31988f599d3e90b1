//! Namespaces of a test's own: networks and mounts that nobody else sees, and processes that end with it.
//!
//! The test runs its own executable again inside of them. So it may make networks, cut them, and fill
//! disks without touching the machine, and nothing is left however it ends. Where user namespaces are
//! allowed it needs no root.

use anyhow::{Context as _, ensure};
use std::{
    env,
    process::{Command, Stdio},
};

/// Set for the test that runs inside.
const INSIDE: &str = "DIRIGENT_INSIDE_SANDBOX";

/// Where a test runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// In namespaces of its own: networks and mounts may be made.
    Inside,
    /// On the machine itself, because namespaces are not to be had, and why.
    Missing(String),
}

impl Sandbox {
    /// Where this process runs. `None`: the test has run in a sandbox meanwhile, and passed.
    ///
    /// # Errors
    /// If the test failed in there.
    pub fn enter(test: &str) -> anyhow::Result<Option<Self>> {
        if env::var_os(INSIDE).is_some() {
            let prepared = run(&["ip", "link", "set", "lo", "up"])
                .and_then(|()| run(&["mount", "-t", "tmpfs", "none", "/run"]));
            return Ok(Some(match prepared {
                Ok(()) => Self::Inside,
                Err(error) => Self::Missing(error.to_string()),
            }));
        }
        let Some(mut unshare) = unshare() else {
            let why = "the kernel or the container allows no namespaces (unshare)";
            return Ok(Some(Self::Missing(why.to_owned())));
        };
        let status = unshare
            .arg(env::current_exe()?)
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .env(INSIDE, "1")
            .status()?;
        ensure!(status.success(), "failed inside the sandbox: see above");
        Ok(None)
    }
}

/// The command that makes namespaces, as root or as anybody; `None` if neither is allowed.
fn unshare() -> Option<Command> {
    let command = |user: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(user).args(["--net", "--mount", "--pid"]);
        command.args(["--fork", "--kill-child", "--mount-proc"]);
        command
    };
    let as_root: &[&str] = &[];
    let kinds = [as_root, &["--user", "--map-root-user"]];
    let allowed = kinds.into_iter().find(|user| {
        let mut probe = command(user);
        let probe = probe
            .arg("true")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    allowed.map(command)
}

/// Runs a program to its end.
///
/// # Errors
/// If it cannot be started or fails, with what it said.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<()> {
    let (program, arguments) = words.split_first().context("a command has a program")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} cannot be started"))?;
    ensure!(
        output.status.success(),
        "`{}`: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
