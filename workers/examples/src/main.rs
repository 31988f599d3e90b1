//! The example services as a process of their own.

use anyhow::{Context as _, bail};
use async_nats::ConnectOptions;
use clap::Parser;
use dirigent_examples::{Options, Services, Which};
use std::{io::IsTerminal as _, path::PathBuf};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The example services of Dirigent
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Which of them
    #[arg(value_enum, default_value_t)]
    which: Which,
    /// Address of the broker
    #[arg(
        long,
        env = "NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    nats_url: String,
    /// User name
    #[arg(long, env = "NATS_USER", hide_env_values = true)]
    user: Option<String>,
    /// Password; better given as NATS_PASSWORD
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Host of the SMTP server; mails stay as files in the data directory if it is not said
    #[arg(long, env = "SMTP_HOST")]
    smtp_host: Option<String>,
    /// Its port
    #[arg(long, env = "SMTP_PORT", default_value_t = 25)]
    smtp_port: u16,
    /// Directory of the database
    #[arg(
        long,
        env = "DIRIGENT_EXAMPLES_DATA",
        default_value = ".dirigent/examples"
    )]
    data: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("DIRIGENT_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr)
        .finish()
        // At `trace` this prints every message with its body.
        .with(filter_fn(|line| {
            line.target() != "async_nats::connection" || *line.level() != Level::TRACE
        }))
        .init();
    let telemetry = dirigent_worker::telemetry::init("dirigent-examples")?;
    let mut options = ConnectOptions::new()
        .name("dirigent-examples")
        .retry_on_initial_connect();
    match (arguments.user, arguments.password) {
        (Some(user), Some(password)) => options = options.user_and_password(user, password),
        (None, None) => {}
        _ => bail!("give both a user and a password, or none of them"),
    }
    let client = options
        .connect(&arguments.nats_url)
        .await
        .with_context(|| format!("cannot connect to {}", arguments.nats_url))?;
    let services = Services::open(Options {
        data: arguments.data,
        smtp: arguments.smtp_host.map(|host| (host, arguments.smtp_port)),
        which: arguments.which,
    })?;
    services.worker(client)?.run_until_signal().await?;
    telemetry.shutdown().await;
    Ok(())
}
