//! The operator's commands.

use super::{check::name_of, show, wait};
use crate::{
    arguments::{
        Command, DeadLettersCommand, DeployArguments, HistoryFormat, PublishArguments,
        SagaArguments, StartArguments, ViewArguments,
    },
    connection::Connection,
    exit::Exit,
    input::{self, Json},
    render,
    trouble::Trouble,
    waterfall::Waterfall,
};
use async_nats::{
    HeaderMap,
    jetstream::{self, context::PublishErrorKind, message::PublishMessage},
};
use dirigent_contracts::{
    api::{
        CallbackRequest, CancelRequest, DeadLettersRequest, DefinitionRequest, DefinitionsRequest,
        DeployRequest, DescribeRequest, ErrorCode, LimitsRequest, ListRequest, ReplayRequest,
        RetryRequest, SignalRequest, StartAnswer, StartRequest, StatusRequest,
    },
    header,
    history::asl,
    id::SagaAddress,
    outcome::Failure,
    task::TaskResult,
    time::Timestamp,
};
use serde::Serialize;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a start that is refused because there is too much to do is tried again, and how often the
/// pause that the coordinator asked for is doubled.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_DOUBLINGS: u32 = 3;

pub(super) async fn operate(
    connection: &Connection,
    view: ViewArguments,
    command: Command,
) -> Result<Exit, Trouble> {
    match command {
        Command::Deploy(arguments) => deploy(connection, view, &arguments).await,
        Command::Definitions => {
            let answer = connection.ask(&DefinitionsRequest {}).await?;
            show(view, &answer, || render::definitions(&answer.definitions))
        }
        Command::Definition(arguments) => {
            let request = DefinitionRequest {
                name: arguments.name,
                digest: arguments.digest,
            };
            let answer = connection.ask(&request).await?;
            show(view, &answer, || answer.document.clone())
        }
        Command::Start(arguments) => {
            let answer = start(connection, arguments).await?;
            let exit = if answer.started {
                Exit::Done
            } else {
                Exit::Conflict
            };
            show(view, &answer, || render::started(&answer))?;
            Ok(exit)
        }
        Command::Run(arguments) => {
            let answer = start(connection, arguments.start).await?;
            let saga = wait::until_over(connection, &answer.saga, arguments.timeout).await?;
            show(view, &saga, || render::description(&saga))?;
            Ok(Exit::of(saga.status).unwrap_or(Exit::Timeout))
        }
        Command::List(arguments) => {
            let request = ListRequest {
                definition: arguments.name,
                status: arguments.status,
                limit: Some(arguments.limit),
            };
            let answer = connection.ask(&request).await?;
            show(view, &answer, || render::sagas(&answer))
        }
        Command::Describe(arguments) => {
            let answer = connection
                .ask(&DescribeRequest {
                    saga: address(arguments)?,
                })
                .await?;
            show(view, &answer, || render::description(&answer))
        }
        Command::History(arguments) => {
            let saga = address(arguments.saga)?;
            let answer = connection.history(&saga).await?;
            match arguments.format {
                HistoryFormat::Dirigent => show(view, &answer, || render::timeline(&answer.events)),
                HistoryFormat::Asl => {
                    let events = asl::project(&answer.events);
                    show(view, &events, || render::asl_events(&events))
                }
            }
        }
        Command::Trace(arguments) => {
            let saga = address(arguments)?;
            let answer = connection.history(&saga).await?;
            let now = Timestamp::from_nanos(jiff::Timestamp::now().as_nanosecond());
            match Waterfall::of(saga, &answer.events, now) {
                Some(fall) => show(view, &fall, || render::waterfall(&fall, render::columns())),
                None => Err(Trouble::Refused {
                    code: ErrorCode::NotFound,
                    message:
                        "its journal no longer holds its beginning; `dirigent describe` still \
                              tells how it stands"
                            .to_owned(),
                }),
            }
        }
        Command::Publish(arguments) => publish(connection, view, arguments).await,
        Command::Signal(arguments) => {
            let saga = SagaAddress {
                definition: arguments.name,
                key: arguments.key,
            };
            let data = read(arguments.data)?;
            let request = SignalRequest {
                saga,
                event: arguments.event,
                id: arguments.id,
                data,
            };
            let answer = connection.ask(&request).await?;
            show(view, &answer, || {
                format!("sent to {}\n", render::visible(&answer.saga))
            })
        }
        Command::Callback(arguments) => {
            let result = match arguments.error {
                Some(error) => TaskResult::Failed {
                    failure: Failure::new(error, arguments.cause.unwrap_or_default()),
                    retryable: true,
                },
                None => TaskResult::Succeeded {
                    output: Arc::new(read(arguments.output_data)?),
                },
            };
            let answer = connection
                .ask(&CallbackRequest {
                    token: arguments.token,
                    result,
                })
                .await?;
            show(view, &answer, || {
                format!("accepted for {}\n", render::visible(&answer.saga))
            })
        }
        Command::Cancel(arguments) => {
            let request = CancelRequest {
                saga: address(arguments.saga)?,
                reason: arguments.reason,
            };
            let answer = connection.ask(&request).await?;
            show(view, &answer, || {
                format!(
                    "{} is asked to end, and what it did to be undone\n",
                    render::visible(&answer.saga)
                )
            })
        }
        Command::Retry(arguments) => {
            let request = RetryRequest {
                saga: address(arguments.saga)?,
                skip: arguments.skip,
                reason: arguments.reason,
            };
            let answer = connection.ask(&request).await?;
            show(view, &answer, || {
                format!("{} goes on\n", render::visible(&answer.saga))
            })
        }
        Command::DeadLetters(arguments) => match arguments.command {
            Some(DeadLettersCommand::Replay { number }) => {
                let answer = connection.ask(&ReplayRequest { number }).await?;
                show(view, &answer, || {
                    format!("published again on {}\n", render::visible(&answer.subject))
                })
            }
            other => {
                let limit = match other {
                    Some(DeadLettersCommand::List { limit }) => limit,
                    _ => arguments.limit,
                };
                let answer = connection
                    .ask(&DeadLettersRequest { limit: Some(limit) })
                    .await?;
                show(view, &answer, || render::letters(&answer))
            }
        },
        Command::Limits(arguments) => {
            let set = arguments.changes.iter();
            let set = set.map(|(limit, value)| (limit.to_string(), Some(*value)));
            let request = LimitsRequest { set: set.collect() };
            let answer = connection.ask(&request).await?;
            show(view, &answer, || render::limits(&answer))
        }
        _ => {
            let answer = connection.ask(&StatusRequest {}).await?;
            show(view, &answer, || render::status(&answer))
        }
    }
}

async fn deploy(
    connection: &Connection,
    view: ViewArguments,
    arguments: &DeployArguments,
) -> Result<Exit, Trouble> {
    if arguments.name.is_some() && arguments.files.len() > 1 {
        return Err(Trouble::Refused {
            code: ErrorCode::BadRequest,
            message: "--name is for one file: each of several would be a version of the next"
                .into(),
        });
    }
    let mut requests = Vec::new();
    // All of them are checked before the first is deployed.
    for path in &arguments.files {
        let document = input::text(path)?;
        let file = path.display().to_string();
        if let Err(report) = dirigent_coordinator::compile(&file, &document) {
            return Err(Trouble::NotDeployable(Box::new(report)));
        }
        let name = match &arguments.name {
            Some(name) => name.clone(),
            None => name_of(path)?,
        };
        requests.push(DeployRequest { name, document });
    }
    for request in requests {
        let answer = connection.ask(&request).await?;
        show(view, &answer, || render::deployed(&answer))?;
    }
    Ok(Exit::Done)
}

/// An event that a stream keeps.
#[derive(Debug, Serialize)]
struct Kept {
    stream: String,
    sequence: u64,
    /// Whether one of the same id was kept before; nothing has happened then.
    duplicate: bool,
}

/// Waits for the acknowledgement of the stream that keeps the event: one that no stream keeps would
/// be lost, so that is an error.
async fn publish(
    connection: &Connection,
    view: ViewArguments,
    arguments: PublishArguments,
) -> Result<Exit, Trouble> {
    let body = arguments.event.read()?.to_string();
    let (found, most) = (body.len(), connection.client.max_payload());
    let mut headers = HeaderMap::new();
    for (name, value) in arguments.headers {
        headers.append(name, value);
    }
    if let Some(key) = arguments.key {
        headers.insert(header::KEY, key.as_str());
    }
    if let Some(id) = arguments.id {
        headers.insert(header::MESSAGE_ID, id);
    }
    let subject = arguments.subject;
    let message = PublishMessage::build()
        .payload(body.into())
        .headers(headers);
    let context = jetstream::new(connection.client.clone());
    let sent = async {
        let acknowledged = context.send_publish(subject.clone(), message).await?;
        acknowledged.await
    };
    let kept = connection.unless_denied(sent).await?;
    let kept = kept.map_err(|error| match error.kind() {
        PublishErrorKind::StreamNotFound => Trouble::NotKept { subject },
        PublishErrorKind::MaxPayloadExceeded => Trouble::Refused {
            code: ErrorCode::TooLarge,
            message: format!(
                "the event has {found} bytes, and a message of this broker at most {most}, with its \
                 headers"
            ),
        },
        PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::WrongLastSequence
        | PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending
        | PublishErrorKind::Other => Trouble::NotAcknowledged {
            subject,
            reason: error.to_string(),
        },
    })?;
    let kept = Kept {
        stream: kept.stream,
        sequence: kept.sequence,
        duplicate: kept.duplicate,
    };
    show(view, &kept, || {
        let again = if kept.duplicate {
            ", for the second time"
        } else {
            ""
        };
        format!(
            "kept by {} as number {}{again}\n",
            kept.stream, kept.sequence
        )
    })
}

async fn start(connection: &Connection, arguments: StartArguments) -> Result<StartAnswer, Trouble> {
    let request = StartRequest {
        definition: arguments.name,
        key: arguments.key,
        input: read(arguments.input)?,
        digest: arguments.digest,
    };
    let began = Instant::now();
    let mut refusals = 0;
    loop {
        match connection.ask(&request).await {
            Err(Trouble::Overloaded { retry_after, .. }) if began.elapsed() < PATIENCE => {
                let doubled = retry_after * 2_u32.pow(refusals);
                refusals = (refusals + 1).min(MOST_DOUBLINGS);
                tokio::time::sleep(doubled).await;
            }
            result => return result,
        }
    }
}

fn read(json: Option<Json>) -> Result<Value, Trouble> {
    json.map_or_else(|| Ok(Value::Object(serde_json::Map::new())), Json::read)
}

fn address(arguments: SagaArguments) -> Result<SagaAddress, Trouble> {
    arguments.address().ok_or_else(|| Trouble::Refused {
        code: ErrorCode::BadRequest,
        message: "say which saga: its definition and its key".to_owned(),
    })
}
