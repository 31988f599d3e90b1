//! The commands: each asks the coordinators one thing and shows the answer, or runs a service.

pub(crate) mod check;
mod dev;
mod operate;
mod service;
mod wait;

pub(crate) use check::name_of;

use crate::{
    arguments::{BrokerArguments, Command, Output, ViewArguments},
    backup,
    connection::Connection,
    doctor::{self, Level},
    exit::Exit,
    render, top,
    trouble::Trouble,
};
use clap_complete::Shell;
use serde::Serialize;

/// Performs a command that needs the broker.
pub(crate) async fn perform(
    broker: &BrokerArguments,
    view: ViewArguments,
    command: Command,
) -> Result<Exit, Trouble> {
    match command {
        Command::Dev(arguments) => dev::dev(&arguments).await,
        Command::Bench(arguments) => {
            crate::bench::bench(broker, &arguments, view.output == Output::Json).await
        }
        Command::BenchWorker(arguments) => {
            let connection = Connection::open(broker, "bench-worker").await?;
            crate::bench::work(connection, arguments.concurrency).await
        }
        Command::BenchFloor(arguments) => {
            let connection = Connection::open(broker, "bench-floor").await?;
            crate::bench::floor(connection, &arguments).await
        }
        Command::BenchReceiver => crate::bench::receive().await,
        Command::Coordinator(arguments) => {
            let connection = Connection::open(broker, "coordinator").await?;
            service::coordinator(connection, &arguments, view.log_payloads).await
        }
        Command::Top(arguments) => {
            let connection = Connection::open(broker, "top").await?;
            top::top(&connection, view, &arguments).await
        }
        Command::Doctor(arguments) => {
            let connection = Connection::open(broker, "doctor").await?;
            let examined = doctor::examine(&connection, arguments.monitor.as_deref());
            let report = connection.unless_denied(examined).await??;
            show(view, &report, || render::examined(&report))?;
            Ok(match report.level {
                Level::Ok | Level::Unknown | Level::Warning => Exit::Done,
                Level::Problem => Exit::No,
            })
        }
        Command::Backup(arguments) => {
            let connection = Connection::open(broker, "backup").await?;
            let answer = backup::backup(&connection, &arguments.file).await?;
            show(view, &answer, || render::backed_up(&answer))
        }
        Command::Restore(arguments) => {
            let connection = Connection::open(broker, "restore").await?;
            let restored =
                backup::restore(&connection, &arguments.file, arguments.replicas).await?;
            show(view, &restored, || render::restored(&restored))
        }
        command => {
            let connection = Connection::open(broker, "cli").await?;
            operate::operate(&connection, view, command).await
        }
    }
}

/// Prints the JSON Schema of definitions.
pub(crate) fn schema() -> Result<Exit, Trouble> {
    render::print(dirigent_contracts::definition::SCHEMA)?;
    Ok(Exit::Done)
}

/// Prints completions for a shell.
pub(crate) fn completions(shell: Shell) -> Result<Exit, Trouble> {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut crate::arguments::command(),
        "dirigent",
        &mut script,
    );
    render::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// Shows an answer: as it came for programs, or as `text` for people.
fn show<T: Serialize>(
    view: ViewArguments,
    answer: &T,
    text: impl FnOnce() -> String,
) -> Result<Exit, Trouble> {
    match view.output {
        Output::Json => {
            render::print(&render::document(answer)?)?;
        }
        Output::Table => render::print(&text())?,
    }
    Ok(Exit::Done)
}
