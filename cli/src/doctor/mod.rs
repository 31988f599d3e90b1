//! `doctor`: what a running installation is, held against what `docs/guarantees.md` rests on.
//!
//! Reading is done here and in [`reading`]; what it means is decided in [`check`], by pure functions.

mod check;
mod reading;

pub(crate) use check::{Finding, Level};

use crate::{connection::Connection, trouble::Trouble};
use serde::Serialize;

/// What the doctor says.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The gravest of the findings.
    pub(crate) level: Level,
    pub(crate) findings: Vec<Finding>,
}

/// Examines the installation. `monitor`: address of a nats-server's monitoring port.
pub(crate) async fn examine(
    connection: &Connection,
    monitor: Option<&str>,
) -> Result<Report, Trouble> {
    let reading = reading::take(connection, monitor).await?;
    let findings = check::all(&reading);
    let level = findings.iter().map(|finding| finding.level).max();
    Ok(Report {
        level: level.unwrap_or(Level::Ok),
        findings,
    })
}
