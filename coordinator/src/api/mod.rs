//! The request endpoints, `dirigent.api.<operation>`: a NATS service that any coordinator answers.
//!
//! A request that is refused has changed nothing. What is accepted stands in a journal before the
//! answer is given.

mod control;
mod definitions;
mod history;
mod letters;
mod limits;
pub(crate) mod live;
mod sagas;

use crate::{
    admission::{self, Admission, Busy},
    broker::{
        Broker, BrokerError,
        publisher::{Outgoing, Published},
    },
    definitions::Definitions,
    logs::Payload,
    partition::{Owners, Refold},
    router::Router,
    settings::Settings,
};
use async_nats::{
    HeaderMap,
    service::{self, Request, ServiceExt as _},
};
use dirigent_contracts::{
    api::{
        CallbackRequest, CancelRequest, DeadLettersRequest, DefinitionRequest, DefinitionsRequest,
        DeployRequest, DescribeRequest, ErrorCode, HistoryRequest, LimitsRequest, ListRequest,
        Operation, ReplayRequest, RetryRequest, SignalRequest, StartRequest, StatusAnswer,
        StatusRequest,
    },
    header::{self, TraceContext},
    subject,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::SelectAll};
use std::sync::Arc;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Requests that one coordinator works on at a time, starts aside; further ones wait at the broker's client.
const MOST_AT_ONCE: usize = 1_024;

/// A request that is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: ErrorCode,
    message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }
}

impl From<Busy> for Refusal {
    fn from(busy: Busy) -> Self {
        let seconds = admission::RETRY_AFTER.as_secs();
        let message = format!("too much is waiting: {busy}; try again in {seconds} s");
        Self::new(ErrorCode::Overloaded, message)
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        let code = match error {
            // Another try would find the same.
            BrokerError::Unfit { .. } => ErrorCode::Conflict,
            _ => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// What the operations work with.
pub(crate) struct Api {
    pub(crate) broker: Arc<Broker>,
    pub(crate) definitions: Definitions,
    pub(crate) refold: Refold,
    pub(crate) router: Router,
    pub(crate) owners: Owners,
    pub(crate) admission: Admission,
    pub(crate) settings: Arc<Settings>,
}

/// The headers of a request that matter.
struct Caller {
    trace: Option<TraceContext>,
    message_id: Option<String>,
}

/// Opens the endpoints; the task ends after `stop`, when all requests are answered.
pub(crate) async fn serve(api: Api, stop: CancellationToken) -> Result<JoinHandle<()>, String> {
    let client = api.broker.client.clone();
    let service = client
        .service_builder()
        .description("Dirigent: starts, shows and steers sagas")
        .queue_group("dirigent")
        .start("dirigent", env!("CARGO_PKG_VERSION"))
        .await
        .map_err(|error| error.to_string())?;
    let group = service.group(subject::API_PREFIX);
    let mut requests = SelectAll::new();
    for operation in OPERATIONS {
        let endpoint = group
            .endpoint(operation)
            .await
            .map_err(|error| error.to_string())?;
        requests.push(endpoint.map(move |request| (operation, request)).boxed());
    }
    Ok(tokio::spawn(answer_all(
        Arc::new(api),
        service,
        requests,
        stop,
    )))
}

const OPERATIONS: [&str; 15] = [
    StartRequest::NAME,
    DescribeRequest::NAME,
    ListRequest::NAME,
    HistoryRequest::NAME,
    SignalRequest::NAME,
    CallbackRequest::NAME,
    CancelRequest::NAME,
    RetryRequest::NAME,
    DeployRequest::NAME,
    DefinitionsRequest::NAME,
    DefinitionRequest::NAME,
    DeadLettersRequest::NAME,
    ReplayRequest::NAME,
    LimitsRequest::NAME,
    StatusRequest::NAME,
];

type Requests = SelectAll<futures::stream::BoxStream<'static, (&'static str, Request)>>;

async fn answer_all(
    api: Arc<Api>,
    service: service::Service,
    mut requests: Requests,
    stop: CancellationToken,
) {
    let running = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
    let starts = Arc::new(Semaphore::new(admission::MOST_STARTS));
    loop {
        let request = tokio::select! {
            () = stop.cancelled() => break,
            request = requests.next() => request,
        };
        let Some((operation, request)) = request else {
            break;
        };
        let place = if operation == StartRequest::NAME {
            // A start that waited here would keep other requests from those who steer sagas.
            let Ok(place) = Arc::clone(&starts).try_acquire_owned() else {
                api.respond(operation, &request, Err(Busy::Starts.into()))
                    .await;
                continue;
            };
            place
        } else {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break;
            };
            place
        };
        let api = Arc::clone(&api);
        running.spawn(async move {
            let _place = place;
            api.answer(operation, &request).await;
        });
    }
    running.close();
    running.wait().await;
    if let Err(error) = service.stop().await {
        tracing::debug!(%error, "the endpoints were not closed in order");
    }
}

impl Api {
    async fn answer(&self, operation: &str, request: &Request) {
        let headers = request.message.headers.as_ref();
        let header = |name: &str| {
            headers
                .and_then(|all| all.get(name))
                .map(ToString::to_string)
        };
        let caller = Caller {
            trace: header(header::TRACE_PARENT)
                .as_deref()
                .and_then(TraceContext::parse),
            message_id: header(header::MESSAGE_ID),
        };
        let result = self
            .perform(operation, &request.message.payload, caller)
            .await;
        let most = self.broker.client.max_payload();
        let result = result.and_then(|answer| within(most, answer));
        self.respond(operation, request, result).await;
    }

    async fn respond(&self, operation: &str, request: &Request, result: Result<Vec<u8>, Refusal>) {
        let mut headers = HeaderMap::new();
        let response = result.map(Into::into).map_err(|refusal| {
            if refusal.code == ErrorCode::Overloaded {
                let seconds = admission::RETRY_AFTER.as_secs();
                headers.insert(header::RETRY_AFTER, seconds.to_string());
                let instruments = self.broker.metrics.instruments();
                instruments.starts_refused.add(1, &[]);
            }
            let reason = Payload(self.broker.log_payloads, &refusal.message);
            tracing::debug!(operation, code = ?refusal.code, %reason, "refused");
            service::error::Error {
                // A header is one line.
                status: refusal
                    .message
                    .split(['\r', '\n'])
                    .collect::<Vec<_>>()
                    .join(" "),
                code: usize::from(refusal.code.number()),
            }
        });
        if let Err(error) = request.respond_with_headers(response, headers).await {
            tracing::debug!(operation, %error, "a request went unanswered");
        }
    }

    fn perform<'a>(
        &'a self,
        operation: &str,
        body: &'a [u8],
        caller: Caller,
    ) -> BoxFuture<'a, Result<Vec<u8>, Refusal>> {
        macro_rules! answer {
            ($request:ty, |$read:ident| $answer:expr) => {
                async move {
                    let $read: $request = read(body)?;
                    write::<$request>(&$answer.await?)
                }
                .boxed()
            };
        }
        match operation {
            StartRequest::NAME => answer!(StartRequest, |r| self.start(r, caller)),
            DescribeRequest::NAME => answer!(DescribeRequest, |r| self.describe(r)),
            ListRequest::NAME => answer!(ListRequest, |r| self.list(r)),
            HistoryRequest::NAME => answer!(HistoryRequest, |r| self.history(r)),
            SignalRequest::NAME => answer!(SignalRequest, |r| self.signal(r, caller)),
            CallbackRequest::NAME => answer!(CallbackRequest, |r| self.callback(r)),
            CancelRequest::NAME => answer!(CancelRequest, |r| self.cancel(r, caller)),
            RetryRequest::NAME => answer!(RetryRequest, |r| self.retry(r, caller)),
            DeployRequest::NAME => answer!(DeployRequest, |r| self.deploy(r)),
            DefinitionsRequest::NAME => answer!(DefinitionsRequest, |r| self.definitions(r)),
            DefinitionRequest::NAME => answer!(DefinitionRequest, |r| self.definition(r)),
            DeadLettersRequest::NAME => answer!(DeadLettersRequest, |r| self.dead_letters(r)),
            ReplayRequest::NAME => answer!(ReplayRequest, |r| self.replay(r)),
            LimitsRequest::NAME => answer!(LimitsRequest, |r| self.limits(r)),
            _ => answer!(StatusRequest, |r| self.status(r)),
        }
    }

    /// Publishes an entry, and says why it was not stored if it was not.
    async fn store(&self, entry: Outgoing) -> Result<(), Refusal> {
        match self.broker.publisher.publish(entry).await {
            Published::Stored { .. } | Published::AlreadyExists => Ok(()),
            Published::Refused(reason) | Published::Full(reason) => {
                Err(Refusal::new(ErrorCode::TooLarge, reason))
            }
        }
    }

    async fn status(&self, _: StatusRequest) -> Result<StatusAnswer, Refusal> {
        Ok(StatusAnswer {
            server: self.broker.server.clone(),
            durability: self.broker.durability.clone(),
            partitions: self.broker.partitions,
            owners: self.owners.list(),
            dead_letters: self.count_letters().await?,
        })
    }
}

/// An answer that the broker carries: one that it does not would leave the caller waiting.
fn within(most: usize, answer: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    match answer.len() {
        found if found <= most => Ok(answer),
        found => Err(too_large(found, most)),
    }
}

fn too_large(found: usize, most: usize) -> Refusal {
    let message = format!(
        "the answer has {found} bytes, and a message of this broker at most {most}: raise \
         `max_payload` of nats-server"
    );
    Refusal::new(ErrorCode::AnswerTooLarge, message)
}

fn read<O: Operation>(body: &[u8]) -> Result<O, Refusal> {
    // No body is a request without fields.
    let body = if body.is_empty() { b"{}" } else { body };
    let mut json = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." {
            String::new()
        } else {
            format!(" at {path:?}")
        };
        Refusal::new(
            ErrorCode::BadRequest,
            format!("{}{place}: {}", O::NAME, error.inner()),
        )
    })
}

fn write<O: Operation>(answer: &O::Answer) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(answer)
        .map_err(|error| Refusal::new(ErrorCode::Unavailable, error.to_string()))
}
