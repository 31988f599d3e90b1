//! How the coordinators' metrics stand, which sagas are stuck, and who owns what.

use crate::{connection::Connection, trouble::Trouble};
use dirigent_contracts::{
    api::{ListRequest, SagaSummary, StatusRequest},
    metric::Snapshot,
    outcome::SagaStatus,
    subject,
};
use futures::StreamExt as _;
use std::time::{Duration, Instant};

/// When no coordinator answers for so long, all have.
const SILENCE: Duration = Duration::from_millis(250);
/// Most stuck sagas that are shown.
const MOST_STUCK: usize = 20;

/// One look.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) at: Instant,
    /// The answers of the coordinators.
    pub(super) snapshots: Vec<Snapshot>,
    /// The owner of each partition; empty if nobody owns it.
    pub(super) owners: Vec<String>,
    pub(super) dead_letters: u64,
    pub(super) stuck: Vec<SagaSummary>,
}

/// Takes one.
pub(super) async fn take(connection: &Connection) -> Result<Reading, Trouble> {
    let status = connection.ask(&StatusRequest {}).await?;
    let stuck = ListRequest {
        status: vec![SagaStatus::Stuck],
        limit: Some(MOST_STUCK),
        ..ListRequest::default()
    };
    let stuck = connection.ask(&stuck).await?.sagas;
    let at = Instant::now();
    Ok(Reading {
        snapshots: snapshots(connection).await?,
        at,
        owners: status.owners,
        dead_letters: status.dead_letters,
        stuck,
    })
}

/// Asks all coordinators at a time, and gathers answers until none comes any more.
async fn snapshots(connection: &Connection) -> Result<Vec<Snapshot>, Trouble> {
    let strange = |error: &dyn std::fmt::Display| Trouble::StrangeAnswer {
        operation: "metrics",
        reason: error.to_string(),
    };
    let client = &connection.client;
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await;
    let mut answers = answers.map_err(|error| strange(&error))?;
    let asked = client.publish_with_reply(subject::METRICS, inbox, "".into());
    asked.await.map_err(|error| strange(&error))?;
    let mut snapshots = Vec::new();
    while let Ok(Some(answer)) = tokio::time::timeout(SILENCE, answers.next()).await {
        if answer.payload.is_empty() {
            // Nobody listens to the question.
            break;
        }
        let snapshot = serde_json::from_slice(&answer.payload);
        snapshots.push(snapshot.map_err(|error| strange(&error))?);
    }
    Ok(snapshots)
}
