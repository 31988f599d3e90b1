//! Arguments of the commands for definitions and sagas.

use crate::input::Json;
use async_nats::{HeaderName, HeaderValue, Subject};
use clap::{Args, Subcommand, ValueEnum};
use dirigent_contracts::{
    id::{DefinitionName, DigestPrefix, SagaAddress, SagaKey},
    limit,
    outcome::SagaStatus,
};
use std::{path::PathBuf, time::Duration};

#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArguments {
    /// Definitions: YAML or JSON
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Refuse warnings too
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TestArguments {
    /// Files with cases: YAML or JSON
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DeployArguments {
    /// Definitions: YAML or JSON
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Name of the definition, if it is one file; the file's name without its ending if it is not said
    #[arg(long)]
    pub(crate) name: Option<DefinitionName>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DefinitionArguments {
    /// The definition
    pub(crate) name: DefinitionName,
    /// The version, by 8 digits of its digest or more; the newest if it is not said
    #[arg(long)]
    pub(crate) digest: Option<DigestPrefix>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StartArguments {
    /// The definition to run
    pub(crate) name: DefinitionName,
    /// The business key; one is made if it is not said
    #[arg(short, long)]
    pub(crate) key: Option<SagaKey>,
    /// The input: JSON, @FILE, or - for stdin
    #[arg(short, long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) input: Option<Json>,
    /// The version to run, by 8 digits of its digest or more; the newest if it is not said
    #[arg(long)]
    pub(crate) digest: Option<DigestPrefix>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) start: StartArguments,
    /// How long to wait, such as 30s or 5m; for ever if it is not said
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArguments {
    /// Only sagas of this definition
    pub(crate) name: Option<DefinitionName>,
    /// Only sagas that stand so; may be said several times
    #[arg(short, long, value_parser = status_parser())]
    pub(crate) status: Vec<SagaStatus>,
    /// At most so many; 1000 is the most
    #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = listed)]
    pub(crate) limit: usize,
}

/// One saga: `NAME KEY` or `NAME --key KEY`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SagaArguments {
    /// The definition that it runs
    name: DefinitionName,
    /// Its key
    #[arg(value_name = "KEY", required_unless_present = "key_option")]
    key: Option<SagaKey>,
    /// Its key, for those who like to say so
    #[arg(
        long = "key",
        id = "key_option",
        value_name = "KEY",
        conflicts_with = "key",
        hide = true
    )]
    key_option: Option<SagaKey>,
}

impl SagaArguments {
    /// The saga's address. `None` only if clap let through what its rules forbid.
    pub(crate) fn address(self) -> Option<SagaAddress> {
        let key = self.key.or(self.key_option)?;
        Some(SagaAddress {
            definition: self.name,
            key,
        })
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HistoryArguments {
    #[command(flatten)]
    pub(crate) saga: SagaArguments,
    /// In whose words
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: HistoryFormat,
}

/// In whose words a history is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HistoryFormat {
    /// Dirigent's own: waits, attempts, compensations
    #[default]
    Dirigent,
    /// Those of Step Functions' GetExecutionHistory
    Asl,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PublishArguments {
    /// The subject on which definitions listen
    #[arg(value_parser = subject)]
    pub(crate) subject: String,
    /// The event: JSON, @FILE, or - for stdin
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) event: Json,
    /// Identity of the event: the same one is taken only once
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Key of the saga that awaits the event, where the definition's rule does not say it
    #[arg(long)]
    pub(crate) key: Option<SagaKey>,
    /// A header of the message, such as ce-type=order.paid; may be said several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SignalArguments {
    /// The definition that the saga runs
    pub(crate) name: DefinitionName,
    /// Its key
    pub(crate) key: SagaKey,
    /// The event's name, as a state awaits it
    pub(crate) event: String,
    /// The event's data: JSON, @FILE, or - for stdin
    #[arg(short, long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) data: Option<Json>,
    /// Identity of the event: the same one is taken only once
    #[arg(long)]
    pub(crate) id: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CallbackArguments {
    /// The token that the worker was given
    pub(crate) token: String,
    /// The step succeeded with this output: JSON, @FILE, or - for stdin
    #[arg(
        long,
        value_name = "JSON",
        allow_hyphen_values = true,
        required_unless_present = "error",
        conflicts_with = "error"
    )]
    pub(crate) output_data: Option<Json>,
    /// The step failed with this error
    #[arg(long, value_name = "NAME")]
    pub(crate) error: Option<String>,
    /// Why it failed, for people
    #[arg(long, value_name = "TEXT", requires = "error")]
    pub(crate) cause: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CancelArguments {
    #[command(flatten)]
    pub(crate) saga: SagaArguments,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RetryArguments {
    #[command(flatten)]
    pub(crate) saga: SagaArguments,
    /// Take what it is stuck at as done by hand
    #[arg(long)]
    pub(crate) skip: bool,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DeadLettersArguments {
    #[command(subcommand)]
    pub(crate) command: Option<DeadLettersCommand>,
    /// At most so many
    #[arg(short, long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them, the latest first (as without a subcommand)
    List {
        /// At most so many
        #[arg(short, long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Publish one again on the subject on which it came
    Replay {
        /// Its number
        number: u64,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TopArguments {
    /// Print it once, with rates of one interval, instead of watching
    #[arg(long)]
    pub(crate) once: bool,
    /// How often it is looked at
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s")]
    pub(crate) interval: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Monitoring port of a nats-server, which tells when it syncs its disk: http://HOST:8222
    #[arg(long, value_name = "URL")]
    pub(crate) monitor: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BackupArguments {
    /// The file to write; one that exists is not overwritten
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The file that `backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How many servers are to keep each stream; as many as did before if it is not said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) replicas: Option<u8>,
}

fn status_parser() -> impl clap::builder::TypedValueParser<Value = SagaStatus> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(SagaStatus::ALL.map(SagaStatus::as_str))
        .try_map(|word| SagaStatus::from_word(&word).ok_or("not a status"))
}

/// A subject to publish on.
fn subject(text: &str) -> Result<String, String> {
    let has_wildcards = text.split('.').any(|token| matches!(token, "*" | ">"));
    if has_wildcards || Subject::validated(text).is_err() {
        return Err(
            "a subject is words with dots between, without spaces and wildcards".to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// `NAME=VALUE`.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let expected = || "expected NAME=VALUE, the value on one line".to_owned();
    let (name, value) = text.split_once('=').ok_or_else(expected)?;
    let name = name.parse().map_err(|_| expected())?;
    Ok((name, value.parse().map_err(|_| expected())?))
}

/// How many sagas a list may hold.
fn listed(text: &str) -> Result<usize, String> {
    let most = limit::LISTED_SAGAS;
    match text.parse() {
        Ok(number) if number <= most => Ok(number),
        Ok(_) => Err(format!(
            "{most} is the most; a definition or --status makes the list shorter"
        )),
        Err(_) => Err(format!("expected a number up to {most}")),
    }
}

/// `30s`, `1m 30s`, `PT5M`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = "expected a time such as 30s, 5m or 1h 30m";
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| expected.to_owned())?;
    Duration::try_from(parsed).map_err(|_| expected.to_owned())
}
