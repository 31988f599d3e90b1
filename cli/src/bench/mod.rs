//! `bench`: what this machine does, measured as a user would meet it.
//!
//! The broker, the coordinator and the workers are processes of their own, so that the CPU time of each
//! can be told apart; the load comes from this one. A saga's latency runs from the request that
//! starts it to the arrival of its outcome.

mod load;
mod process;
mod report;
mod workload;

use crate::{
    arguments::BenchArguments, connection::Connection, exit::Exit, local_broker::LocalBroker,
    render, trouble::Trouble,
};
use dirigent_worker::Worker;
use load::Load;
use process::{Fleet, Stored};
use report::{Measurement, Report};
use workload::Workload;

pub(crate) use workload::Workload as Workloads;

/// Starts everything, runs every workload at every level, and reports.
pub(crate) async fn bench(arguments: &BenchArguments, is_json: bool) -> Result<Exit, Trouble> {
    let directory = tempfile::tempdir().map_err(Trouble::Write)?;
    let mut broker = LocalBroker::start(
        directory.path(),
        arguments.nats_server.as_deref(),
        None,
        &[],
    )?;
    let connection = Connection {
        client: broker.connect().await?,
        url: broker.url(),
    };
    let mut fleet = Fleet::start(&broker, arguments, directory.path())?;
    fleet.wait_until_ready(&connection).await?;
    let mut report = Report::default();
    for workload in &arguments.workloads {
        connection.ask(&workload.deployment()?).await?;
        for in_flight in &arguments.in_flight {
            let sagas = workload.sagas(*in_flight, arguments.sagas);
            let load = Load {
                connection: &connection,
                workload: *workload,
                in_flight: *in_flight,
            };
            // The first ones find cold caches and consumers that are not there yet.
            load.run("warm", sagas.div_ceil(10)).await?;
            let before = (fleet.usage(), Stored::read(&connection).await?);
            let outcome = load.run("measured", sagas).await?;
            let after = (fleet.usage(), Stored::read(&connection).await?);
            let measurement = Measurement::new(*workload, *in_flight, &outcome, &before, &after);
            if !is_json {
                render::print(&measurement.line(report.is_empty()))?;
            }
            report.add(measurement);
        }
    }
    if is_json {
        render::print(&report.json()?)?;
    }
    drop(fleet);
    broker.stop().await;
    Ok(Exit::Done)
}

/// The worker process: every task of every workload, answered at once.
pub(crate) async fn work(connection: Connection, concurrency: usize) -> Result<Exit, Trouble> {
    let mut builder = Worker::builder(connection.client).concurrency(concurrency);
    for (task, is_refused) in Workload::tasks() {
        builder = builder.task(task, move |_, _: serde_json::Value| async move {
            workload::answer(is_refused)
        });
    }
    let not_started = |reason: String| Trouble::NotStarted {
        what: "the worker",
        reason,
    };
    let worker = builder
        .build()
        .map_err(|error| not_started(error.to_string()))?;
    worker
        .run_until_signal()
        .await
        .map_err(|error| not_started(error.to_string()))?;
    Ok(Exit::Done)
}
