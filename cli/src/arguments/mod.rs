//! The command line: what can be said, and how its help looks.
//!
//! Everything is parsed into the types of the contracts here, so that no command checks a name, a
//! key or a status a second time.

mod bench;
mod help;
mod limit;
mod operator;
mod service;

pub(crate) use bench::{
    BenchArguments, BenchFloorArguments, BenchWorkerArguments, FloorPart, Sync,
};
pub(crate) use help::command;
pub(crate) use limit::LimitsArguments;
pub(crate) use operator::{
    BackupArguments, CallbackArguments, CancelArguments, CheckArguments, DeadLettersArguments,
    DeadLettersCommand, DefinitionArguments, DeployArguments, DoctorArguments, HistoryArguments,
    HistoryFormat, ListArguments, PublishArguments, RestoreArguments, RetryArguments, RunArguments,
    SagaArguments, SignalArguments, StartArguments, TestArguments, TopArguments,
};
pub(crate) use service::{CoordinatorArguments, DevArguments};

use clap::{
    ArgAction, Args, ColorChoice, Parser, Subcommand, ValueEnum, builder::FalseyValueParser,
};
use clap_complete::Shell;
use std::path::PathBuf;

/// Dirigent conducts microservices: sagas on NATS, and no other server.
#[derive(Debug, Parser)]
#[command(
    name = "dirigent",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) broker: BrokerArguments,
    #[command(flatten)]
    pub(crate) view: ViewArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the broker is, and who asks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerArguments {
    /// Address of the broker; several with commas between
    #[arg(
        long,
        global = true,
        env = "NATS_URL",
        value_name = "URL",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222"
    )]
    pub(crate) nats_url: String,
    /// Credentials file (JWT and seed)
    #[arg(
        long,
        global = true,
        env = "NATS_CREDS",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(crate) creds: Option<PathBuf>,
    /// User name
    #[arg(
        long,
        global = true,
        env = "NATS_USER",
        value_name = "NAME",
        hide_env_values = true
    )]
    pub(crate) user: Option<String>,
    /// Password; better given as NATS_PASSWORD, where other users do not see it
    #[arg(
        long,
        global = true,
        env = "NATS_PASSWORD",
        value_name = "TEXT",
        hide_env_values = true
    )]
    pub(crate) password: Option<String>,
    /// Token; better given as NATS_TOKEN
    #[arg(
        long,
        global = true,
        env = "NATS_TOKEN",
        value_name = "TEXT",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
}

/// What people and programs see.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct ViewArguments {
    /// Tables for people, or JSON for programs
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        default_value_t
    )]
    pub(crate) output: Output,
    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) color: ColorChoice,
    /// More details and more log; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Form of the log on stderr; DIRIGENT_LOG filters it
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        env = "DIRIGENT_LOG_FORMAT",
        hide_env_values = true,
        default_value_t
    )]
    pub(crate) log_format: LogFormat,
    /// Log payloads too, and words that may quote them
    #[arg(
        long,
        global = true,
        env = "DIRIGENT_LOG_PAYLOADS",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub(crate) log_payloads: bool,
}

/// The form of results on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables and timelines.
    #[default]
    Table,
    /// The coordinator's answer, one JSON document.
    Json,
}

/// The form of the log on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything here: a broker, a coordinator and the example workers
    Dev(DevArguments),
    /// Run a coordinator until it is told to stop
    Coordinator(CoordinatorArguments),
    /// Measure sagas per second, latency and CPU time, and compare with the broker's own limit
    Bench(BenchArguments),
    /// The worker process of `bench`
    #[command(hide = true)]
    BenchWorker(BenchWorkerArguments),
    /// A process of `bench --floor`
    #[command(hide = true)]
    BenchFloor(BenchFloorArguments),
    /// The process that `bench --compare-traced` exports to
    #[command(hide = true)]
    BenchReceiver,
    /// Check definitions, and report every mistake with its place
    Check(CheckArguments),
    /// Print the JSON Schema of definitions, for editors
    Schema,
    /// Rehearse definitions offline, with the answers of their steps from a file
    Test(TestArguments),
    /// Deploy definitions
    Deploy(DeployArguments),
    /// List the definitions that are deployed
    Definitions,
    /// Print a definition's document
    Definition(DefinitionArguments),
    /// Start a saga
    Start(StartArguments),
    /// Start a saga and wait for its outcome
    Run(RunArguments),
    /// List sagas, the latest first
    List(ListArguments),
    /// Tell how a saga stands
    Describe(SagaArguments),
    /// Tell what happened to a saga, as a timeline
    History(HistoryArguments),
    /// Draw what a saga spent its time on, with its critical path
    Trace(SagaArguments),
    /// Publish an event, as a service would: what it triggers starts
    Publish(PublishArguments),
    /// Send an event to a saga
    Signal(SignalArguments),
    /// Complete a step that waits for a token
    Callback(CallbackArguments),
    /// Cancel a saga: what it did is undone
    Cancel(CancelArguments),
    /// Let a stuck saga go on
    Retry(RetryArguments),
    /// List messages that could not be understood, or publish one again
    DeadLetters(DeadLettersArguments),
    /// Show the limits of the installation, or change some
    Limits(LimitsArguments),
    /// Tell how the installation stands
    Status,
    /// Watch rates, latencies, backlogs and stuck sagas
    Top(TopArguments),
    /// Check the installation, and say what to do
    Doctor(DoctorArguments),
    /// Copy the installation into a file, while it runs
    Backup(BackupArguments),
    /// Put a backup back into an empty broker
    Restore(RestoreArguments),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Whether a command line that cannot be parsed asks for JSON.
pub(crate) fn asks_for_json(words: &[String]) -> bool {
    let is_joined = |word: &String| matches!(word.as_str(), "-ojson" | "-o=json" | "--output=json");
    let is_apart =
        |pair: &[String]| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json";
    words.iter().any(is_joined) || words.windows(2).any(is_apart)
}

#[cfg(test)]
mod tests;
