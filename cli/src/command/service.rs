//! `coordinator`: runs until it is told to stop, and then leaves everything saved.

use crate::{
    arguments::CoordinatorArguments, connection::Connection, exit::Exit, trouble::Trouble,
};
use dirigent_coordinator::{Coordinator, Settings, metrics::Metrics, telemetry::Telemetry};
use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn coordinator(
    connection: Connection,
    arguments: &CoordinatorArguments,
    log_payloads: bool,
) -> Result<Exit, Trouble> {
    let not_started = |reason: String| Trouble::NotStarted {
        what: "the coordinator",
        reason,
    };
    let defaults = Settings::default();
    let name = arguments.name.clone().unwrap_or(defaults.name);
    let metrics = Metrics::from_environment("dirigent-coordinator", &name)
        .map_err(|error| not_started(error.to_string()))?;
    let settings = Settings {
        name,
        partitions: arguments.partitions.map(Into::into),
        replicas: usize::from(arguments.replicas),
        retention: arguments.retention,
        start_backlog: arguments.start_backlog,
        queue_limit: arguments.queue_limit,
        max_deliveries: i64::from(arguments.max_deliveries),
        ack_wait: arguments.ack_wait,
        log_payloads,
        metrics: metrics.clone(),
        metrics_listen: arguments.metrics_listen,
        ..defaults
    };
    let telemetry = Telemetry::from_environment("dirigent-coordinator")
        .map_err(|error| not_started(error.to_string()))?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| not_started(error.to_string()))?;
    let client = connection.client.clone();
    let coordinator = Coordinator::start(client, settings, telemetry.clone()).await;
    let mut coordinator = coordinator.map_err(|error| match connection.denial() {
        Some(reason) => not_started(format!("{error}; the broker says: {reason}")),
        None => not_started(error.to_string()),
    })?;
    let failed = tokio::select! {
        how = coordinator.failed() => Some(how),
        _ = terminate.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
    };
    coordinator.stop().await;
    telemetry.shutdown().await;
    metrics.shutdown().await;
    match failed {
        Some(how) => Err(Trouble::Ended {
            what: "the coordinator",
            how,
            log: None,
        }),
        None => Ok(Exit::Done),
    }
}
