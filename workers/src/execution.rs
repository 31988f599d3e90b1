//! One delivered command, from its bytes to its acknowledgement.
//!
//! Order: the handler ends -> its outcome is remembered -> the reply is stored -> the command is
//! acknowledged. Until then the broker hears that it is still in progress, whatever takes so long: the handler,
//! or a broker that does not store what is to be stored.

use crate::{
    backoff::insist,
    context::TaskContext,
    error::TaskError,
    handler::Handler,
    inbox::{Inbox, Recalled},
    metrics::TaskMeter,
    reply::Replier,
    trace::{ExecutionSpan, Parentage},
};
use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::AckKind,
    },
};
use bytes::Bytes;
use dirigent_contracts::{
    envelope, error_name, header,
    letter::{self, Letter},
    subject,
    task::{Command, TaskResult, Timing},
    time::Timestamp,
};
use dirigent_payloads::Payloads;
use futures::FutureExt as _;
use opentelemetry::trace::FutureExt as _;
use std::{
    any::Any,
    convert::Infallible,
    error::Error as _,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, warn};

/// What stands where a payload might.
const NOT_LOGGED: &str = "(not logged)";

/// What an execution needs.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) jetstream: jetstream::Context,
    pub(crate) payloads: Payloads,
    pub(crate) handler: Handler,
    pub(crate) inbox: Option<Inbox>,
    pub(crate) worker: Arc<str>,
    pub(crate) meter: Arc<TaskMeter>,
    pub(crate) stop: CancellationToken,
    /// Whether words that may quote a payload are logged.
    pub(crate) log_payloads: bool,
    /// How often the broker hears that a command is still worked on.
    pub(crate) progress_interval: Duration,
}

impl Executor {
    /// Executes one command.
    pub(crate) async fn execute(&self, message: jetstream::Message) {
        let _occupied = self.meter.occupy();
        tokio::select! {
            () = self.see_through(&message) => {}
            never = keep_alive(&message, self.progress_interval) => match never {},
        }
    }

    /// What is logged meanwhile, by a handler too, tells which saga it is about.
    async fn see_through(&self, message: &jetstream::Message) {
        let command = match self.read(message).await {
            Ok(command) => Arc::new(command),
            Err(reason) => return self.lay_aside(message, &reason).await,
        };
        let parentage = Parentage::read(message.headers.as_ref());
        let lines = tracing::error_span!(
            "command",
            definition = %command.saga.definition,
            key = %command.saga.key,
            partition = command.partition.0,
            trace_id = parentage.parent.map(|parent| format!("{:032x}", parent.trace)),
            task = %command.task,
            command = %command.command,
        );
        self.answer(message, command, &parentage)
            .instrument(lines)
            .await;
    }

    /// Reads a command, wherever its body stands. A broker that is away is waited for.
    async fn read(&self, message: &jetstream::Message) -> Result<Command, String> {
        let body = insist("reading the body of a command", || async {
            let headers = message.headers.as_ref();
            let body = self.payloads.unpack(headers, message.payload.clone());
            match body.await {
                Err(error) if error.is_passing() => Err(error),
                body => Ok(body),
            }
        });
        let body = body.await.map_err(|error| error.to_string())?;
        envelope::decode(&body).map_err(|error| error.to_string())
    }

    async fn answer(
        &self,
        message: &jetstream::Message,
        command: Arc<Command>,
        parentage: &Parentage,
    ) {
        let span = ExecutionSpan::start(&command, parentage);
        let replier = Replier {
            jetstream: &self.jetstream,
            payloads: &self.payloads,
            command: &command,
            worker: &self.worker,
            parentage: span.parentage(),
        };
        let pulse = Arc::new(Notify::new());
        let context = TaskContext {
            command: Arc::clone(&command),
            trace: span.parentage().parent,
            cancellation: self.stop.clone(),
            pulse: Arc::clone(&pulse),
        };
        let (asked_at, began) = (asked_at(message), Instant::now());
        if let Some(asked_at) = asked_at {
            self.meter.began(asked_at, now());
        }
        let result = {
            let work = self.work(context, &command).with_context(span.context());
            let beating = beat(&replier, command.heartbeat_ms, &pulse);
            tokio::select! {
                result = work => result,
                never = beating => match never {},
            }
        };
        let ran = began.elapsed();
        self.meter.ended(&result, ran);
        let timing = asked_at.map(|asked_at| Timing {
            asked_at,
            ran_us: u64::try_from(ran.as_micros()).unwrap_or(u64::MAX),
        });
        replier.answer(result.clone(), timing).await;
        if let Err(error) = message.ack().await {
            // It comes again; the reply has its id, and the coordinator waits for it no more.
            debug!(%error, "a command was not acknowledged");
        }
        span.end(&result);
    }

    async fn work(&self, context: TaskContext, command: &Command) -> TaskResult {
        let Some(inbox) = &self.inbox else {
            return self.handle(context, command).await;
        };
        let turn = inbox.turn(command.effect);
        let _turn = turn.lock().await;
        match insist("looking into the inbox", || inbox.recall(command)).await {
            Some(Recalled::Done(output)) => return TaskResult::Succeeded { output },
            Some(Recalled::Undone) => {
                let cause = "the step was undone before this command was worked on";
                return TaskError::new(error_name::UNDONE, cause).permanent().into();
            }
            None => {}
        }
        let result = self.handle(context, command).await;
        insist("remembering an outcome", || {
            inbox.remember(command, &result)
        })
        .await;
        result
    }

    async fn handle(&self, context: TaskContext, command: &Command) -> TaskResult {
        // The handler's own code runs when it is called and when it is polled; either may panic.
        let call =
            AssertUnwindSafe(async { (self.handler)(context, Arc::clone(&command.input)).await });
        match call.catch_unwind().await {
            Ok(Ok(output)) => TaskResult::Succeeded {
                output: Arc::new(output),
            },
            Ok(Err(error)) => error.into(),
            Err(panic) => {
                let cause = told(panic.as_ref());
                let cause_logged = if self.log_payloads { cause } else { NOT_LOGGED };
                error!(cause = cause_logged, "a handler panicked");
                TaskError::new(
                    error_name::WORKER_PANIC,
                    format!("the handler panicked: {cause}"),
                )
                .into()
            }
        }
    }

    /// What nobody can read is kept for an operator, and not delivered again.
    async fn lay_aside(&self, message: &jetstream::Message, reason: &str) {
        let reason_logged = if self.log_payloads {
            reason
        } else {
            NOT_LOGGED
        };
        warn!(subject = %message.subject, reason = reason_logged, "a command cannot be read");
        let source = message
            .info()
            .map(|info| format!("{}/{}", info.stream, info.stream_sequence));
        let source = source.unwrap_or_default();
        let id = format!("dead.{source}");
        let letter = Letter {
            subject: &message.subject,
            source: &source,
            reason,
        };
        // With its headers: one may name a body that is found when the command is published again.
        let mut headers = own_headers(message);
        headers.insert(header::MESSAGE_ID, id.as_str());
        add(&mut headers, letter.headers());
        let mut bare = HeaderMap::new();
        bare.insert(header::MESSAGE_ID, id.as_str());
        add(&mut bare, letter.headers_without_body());
        insist("keeping a dead letter", || async {
            match self.keep(headers.clone(), message.payload.clone()).await {
                Err(error) if is_refused(&error) => self.keep(bare.clone(), Bytes::new()).await,
                kept => kept,
            }
        })
        .await;
        self.meter.dead_letter();
        if let Err(error) = message.ack_with(AckKind::Term).await {
            debug!(%error, "a command that cannot be read comes again");
        }
    }

    async fn keep(&self, headers: HeaderMap, body: Bytes) -> Result<(), PublishError> {
        let letter = subject::dead_letter("command");
        let stored = self
            .jetstream
            .publish_with_headers(letter, headers, body)
            .await?;
        stored.await.map(drop)
    }
}

/// The headers that belong to a message, and not to its delivery.
fn own_headers(message: &jetstream::Message) -> HeaderMap {
    let mut own = HeaderMap::new();
    for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
        if letter::is_of_message(name.as_ref()) {
            for value in values {
                own.append(name.clone(), value.clone());
            }
        }
    }
    own
}

fn add(headers: &mut HeaderMap, further: Vec<(&'static str, String)>) {
    for (name, value) in further {
        headers.insert(name, value);
    }
}

/// Whether the broker will never take a message, because of its size.
fn is_refused(error: &PublishError) -> bool {
    let said = error.source().and_then(|said| said.downcast_ref());
    let code = said.map(jetstream::Error::error_code);
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || code == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
        || code == Some(ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM)
}

/// When the broker stored a command.
fn asked_at(message: &jetstream::Message) -> Option<Timestamp> {
    let info = message.info().ok()?;
    Some(Timestamp::from_nanos(info.published.unix_timestamp_nanos()))
}

/// The local clock.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }))
}

async fn keep_alive(message: &jetstream::Message, interval: Duration) -> Infallible {
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = message.ack_with(AckKind::Progress).await {
            debug!(%error, "the broker did not hear that a command is in progress");
        }
    }
}

/// Sends heartbeats thrice in the time that the step allows, and whenever the handler asks for one.
async fn beat(replier: &Replier<'_>, heartbeat_ms: Option<u64>, pulse: &Notify) -> Infallible {
    let Some(heartbeat_ms) = heartbeat_ms else {
        return std::future::pending().await;
    };
    let interval = Duration::from_millis((heartbeat_ms / 3).max(1));
    let mut count = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = pulse.notified() => {}
        }
        count += 1;
        replier.heartbeat(count).await;
    }
}

fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
