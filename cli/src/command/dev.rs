//! `dev`: a broker, a coordinator and the example workers, all in one terminal.
//!
//! The broker is a child process, and the only one; it ends with this one.

use crate::{
    arguments::DevArguments, exit::Exit, local_broker::LocalBroker, render, trouble::Trouble,
};
use async_nats::Client;
use dirigent_coordinator::{Coordinator, Settings, telemetry::Telemetry};
use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a saga of the demo may take.
const DEMO_TIME: Duration = Duration::from_secs(30);
/// The port, if it is free and no other is said.
const PREFERRED_PORT: u16 = 4222;

pub(super) async fn dev(arguments: &DevArguments) -> Result<Exit, Trouble> {
    let directory = &arguments.data_dir;
    fs::create_dir_all(directory).map_err(|source| Trouble::File {
        path: directory.clone(),
        source,
    })?;
    // Held until the process ends: two brokers in one directory would destroy it.
    let _lock = lock(directory)?;
    let mut broker = LocalBroker::start(
        directory,
        arguments.nats_server.as_deref(),
        arguments.port,
        &[PREFERRED_PORT],
        None,
    )?;
    let (client, url) = (broker.connect().await?, broker.url());
    let not_started = |reason: String| Trouble::NotStarted {
        what: "the coordinator",
        reason,
    };
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| not_started(error.to_string()))?;
    let telemetry = Telemetry::from_environment("dirigent-dev")
        .map_err(|error| not_started(error.to_string()))?;
    let settings = Settings {
        name: "dev".to_owned(),
        ..Settings::default()
    };
    let coordinator = Coordinator::start(client.clone(), settings, telemetry.clone()).await;
    let mut coordinator = coordinator.map_err(|error| not_started(error.to_string()))?;
    let stop = CancellationToken::new();
    let workers = if arguments.no_examples {
        None
    } else {
        deploy_examples(&client, &url).await?;
        let options = dirigent_examples::Options::in_directory(&directory.join("examples"));
        let services =
            dirigent_examples::Services::open(options).map_err(|error| Trouble::NotStarted {
                what: "the examples",
                reason: error.to_string(),
            })?;
        let worker = services.worker(client.clone());
        let worker = worker.map_err(|error| Trouble::NotStarted {
            what: "the examples",
            reason: error.to_string(),
        })?;
        Some(tokio::spawn(worker.run(stop.clone())))
    };
    render::print(&welcome(&url, arguments))?;
    let result = if arguments.demo {
        demo(&client, &url).await
    } else {
        tokio::select! {
            how = coordinator.failed() => {
                Err(Trouble::Ended { what: "the coordinator", how, log: None })
            }
            trouble = broker.ended() => Err(trouble),
            _ = terminate.recv() => Ok(Exit::Done),
            _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
        }
    };
    stop.cancel();
    if let Some(workers) = workers {
        let _ = workers.await;
    }
    coordinator.stop().await;
    telemetry.shutdown().await;
    // Everything is saved: the broker has nothing to lose any more.
    broker.stop().await;
    result
}

fn lock(directory: &Path) -> Result<File, Trouble> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|source| Trouble::File { path, source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Trouble::DirectoryInUse {
            path: directory.to_owned(),
        }),
    }
}

async fn deploy_examples(client: &Client, url: &str) -> Result<(), Trouble> {
    let connection = crate::connection::Connection::new(client.clone(), url.to_owned());
    for (name, document) in dirigent_examples::DEFINITIONS {
        let name = name
            .parse()
            .map_err(|error: dirigent_contracts::id::IdError| Trouble::NoName {
                path: name.into(),
                reason: error.to_string(),
            })?;
        let document = (*document).to_owned();
        connection
            .ask(&dirigent_contracts::api::DeployRequest { name, document })
            .await?;
    }
    Ok(())
}

fn welcome(url: &str, arguments: &DevArguments) -> String {
    let server = if url.ends_with(":4222") {
        String::new()
    } else {
        format!(" --nats-url {url}")
    };
    let mut text = format!(
        "\nDirigent plays on {url}, data in {}.\n",
        arguments.data_dir.display()
    );
    if !arguments.no_examples && !arguments.demo {
        text += &format!(
            "\nTry, in another terminal:\n\
             \x20 dirigent{server} run register-user --key anna --input '{{\"name\":\"Anna\",\"email\":\"anna@example.org\"}}'\n\
             \x20 dirigent{server} run order --key o-1 --input '{{\"order\":\"o-1\",\"item\":\"violin\",\"quantity\":1,\"total\":900,\"card\":\"declined\"}}'\n\
             \x20 dirigent{server} history order o-1\n\
             \x20 dirigent{server} list\n"
        );
    }
    if !arguments.demo {
        text += "\nCtrl-C stops everything.\n\n";
    }
    text
}

/// Publishes trigger events, waits for what they start, and tells how it went.
async fn demo(client: &Client, url: &str) -> Result<Exit, Trouble> {
    use dirigent_contracts::{id::SagaAddress, outcome::SagaStatus};
    let connection = crate::connection::Connection::new(client.clone(), url.to_owned());
    let jetstream = async_nats::jetstream::new(client.clone());
    let run = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let failed = |reason: String| Trouble::NotStarted {
        what: "the demo",
        reason,
    };
    let mut exit = Exit::Done;
    for scene in dirigent_examples::scenes(run) {
        render::print(&format!(
            "\n== {}\n{} {}\n",
            scene.title, scene.subject, scene.body
        ))?;
        let stored = jetstream.publish(scene.subject, scene.body.into()).await;
        let stored = stored.map_err(|error| failed(error.to_string()))?.await;
        stored.map_err(|error| failed(error.to_string()))?;
        let parse = |error: dirigent_contracts::id::IdError| failed(error.to_string());
        let saga = SagaAddress {
            definition: scene.definition.parse().map_err(parse)?,
            key: scene.key.parse().map_err(parse)?,
        };
        let ended = super::wait::until_over(&connection, &saga, Some(DEMO_TIME)).await?;
        let history = connection.history(&saga).await?;
        render::print(&render::timeline(&history.events))?;
        let expected = if scene.succeeds {
            SagaStatus::Succeeded
        } else {
            SagaStatus::Compensated
        };
        if ended.status != expected {
            let status = ended.status;
            render::print(&format!("{saga} was to end {expected}, but is {status}\n"))?;
            exit = Exit::No;
        }
    }
    Ok(exit)
}
