//! `dirigent`: one binary for the developer, the operator, and the coordinator itself.

mod arguments;
mod backup;
mod bench;
mod command;
mod connection;
mod doctor;
mod exit;
mod input;
mod local_broker;
mod rehearsal;
mod render;
mod top;
mod trouble;
mod waterfall;

use arguments::{Arguments, Command, LogFormat, Output, ViewArguments};
use clap::FromArgMatches as _;
use exit::Exit;
use std::{io::IsTerminal as _, process::ExitCode};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};
use trouble::Trouble;

/// A coordinator spends a third of its time on memory; this one spends an eighth less of all
/// (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What prints every message of the broker with its body, at the level `trace`.
const PRINTS_MESSAGES: &str = "async_nats::connection";

fn main() -> ExitCode {
    let matches = arguments::command().try_get_matches();
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let view = arguments.view;
    render::choose_color(view.color);
    // What needs no broker needs no runtime either.
    let result = match arguments.command {
        Command::Check(check) => command::check::check(&check, view),
        Command::Schema => command::schema(),
        Command::Test(test) => rehearsal::test(&test, view),
        Command::Completions { shell } => command::completions(shell),
        command => {
            let is_service = match &command {
                // The demo's stage is its stdout.
                Command::Dev(dev) => !dev.demo,
                command => matches!(command, Command::Coordinator(_)),
            };
            log(view, is_service);
            run(&arguments.broker, view, command)
        }
    };
    match result {
        Ok(exit) => exit.into(),
        Err(trouble) => {
            render::trouble(&trouble, view.output);
            trouble.exit().into()
        }
    }
}

/// Says what is wrong with the command line, or what was asked for: its help, its version.
fn refuse(error: &clap::Error) -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if error.use_stderr() && arguments::asks_for_json(&words) {
        let trouble = Trouble::CommandLine(error.to_string());
        render::trouble(&trouble, Output::Json);
        return trouble.exit().into();
    }
    error.exit()
}

fn run(
    broker: &arguments::BrokerArguments,
    view: ViewArguments,
    command: Command,
) -> Result<Exit, Trouble> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Trouble::NotStarted {
        what: "the runtime",
        reason: error.to_string(),
    })?;
    runtime.block_on(command::perform(broker, view, command))
}

/// Logs to stderr: services tell what they do, commands only what went wrong. In JSON the fields of a
/// line stand beside its level and message, where log stores look for them.
fn log(view: ViewArguments, is_service: bool) {
    let level = match (view.verbose, is_service) {
        (0, true) => "info,async_nats=warn",
        (0, false) => "error",
        (1, _) => "debug,async_nats=info,hyper=info",
        (_, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("DIRIGENT_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let is_plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(!is_plain)
        .with_writer(std::io::stderr);
    let shown = filter_fn(move |line| {
        view.log_payloads || line.target() != PRINTS_MESSAGES || *line.level() != Level::TRACE
    });
    match view.log_format {
        LogFormat::Text => subscriber.with_target(false).finish().with(shown).init(),
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .finish()
            .with(shown)
            .init(),
    }
}
