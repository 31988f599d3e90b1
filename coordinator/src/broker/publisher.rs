//! Publishing that does not give up: pipelined, and retried under the same message id.
//!
//! One task sends and collects all acknowledgements, so messages leave in the order in which they
//! were handed over, and a caller that stops waiting stops nothing. Those whose bodies go to the object store
//! first, and those that are repeated, let others pass.

use crate::metrics::Metrics;
use async_nats::{
    HeaderMap,
    jetstream::{
        Context,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
        publish::PublishAck,
    },
};
use bytes::Bytes;
use dirigent_contracts::{
    header::{self, TraceContext},
    limit, subject,
};
use dirigent_payloads::{PayloadError, Payloads};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// The wait before the first repetition of a publish, and the longest one.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// After how many repetitions a message that gets no acknowledgement is worth a warning.
const WORTH_A_WARNING: u32 = 5;

/// Most messages that are not acknowledged; others wait in the queue. Well below what the client
/// lets out at a time, so that sending never waits for an acknowledgement.
const MOST_PENDING: usize = super::MOST_IN_FLIGHT / 2;

/// A message on its way to a stream.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    subject: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Outgoing {
    pub(crate) fn new(subject: String, body: Vec<u8>) -> Self {
        Self {
            subject,
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    /// The id by which the broker recognises a repetition.
    pub(crate) fn with_message_id(self, id: String) -> Self {
        self.with_header(header::MESSAGE_ID, id)
    }

    /// Stored only if the last message of its subject has this sequence; 0: if there is none.
    pub(crate) fn with_expected_last_subject_sequence(self, seq: u64) -> Self {
        self.with_header(header::EXPECTED_LAST_SUBJECT_SEQUENCE, seq.to_string())
    }

    pub(crate) fn with_trace(self, trace: Option<TraceContext>) -> Self {
        match trace {
            Some(trace) => self.with_header(header::TRACE_PARENT, trace.to_header()),
            None => self,
        }
    }

    pub(crate) fn with_content_type(self, media_type: &str) -> Self {
        self.with_header(header::CONTENT_TYPE, media_type.to_owned())
    }

    /// Makes it a dead letter: where it came from, and why it is dead.
    pub(crate) fn with_dead_letter(self, subject: &str, source: &str, reason: &str) -> Self {
        // A header is one line.
        let reason = reason
            .split(['\r', '\n'])
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ");
        self.with_header(header::DEAD_SUBJECT, subject.to_owned())
            .with_header(header::DEAD_SOURCE, source.to_owned())
            .with_header(header::DEAD_REASON, reason)
    }

    pub(crate) fn with_header(mut self, name: &str, value: String) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Whether its body is to stand in the object store.
    fn is_large(&self) -> bool {
        self.body.len() > limit::INLINE_BYTES && subject::may_be_referred_to(&self.subject)
    }

    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    #[cfg(test)]
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    #[cfg(test)]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// It is stored; perhaps it had been before.
    Stored {
        /// Its sequence in the stream.
        seq: u64,
    },
    /// Another message stands where it expected none.
    AlreadyExists,
    /// The broker will never take it, and why.
    Refused(String),
}

/// One message, with who waits for it.
struct Order {
    message: Outgoing,
    repetitions: u32,
    since: Instant,
    done: oneshot::Sender<Published>,
}

/// Publishes to streams. Clones share one pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Publisher(mpsc::UnboundedSender<Order>);

impl Publisher {
    /// A publisher on its own pipeline, which ends when the last clone is dropped and all is stored.
    pub(crate) fn start(context: Context, payloads: Payloads, metrics: Metrics) -> Self {
        let (orders, queue) = mpsc::unbounded_channel();
        let wire = Wire { context, payloads };
        tokio::spawn(pump(wire, metrics, queue));
        Self(orders)
    }

    /// Hands a message over. It is published even if nobody waits for the answer, and again under
    /// its id until the broker has answered: callers bound how much they hand over.
    pub(crate) fn publish(
        &self,
        message: Outgoing,
    ) -> impl Future<Output = Published> + Send + 'static + use<> {
        let (done, answer) = oneshot::channel();
        let handed_over = self.0.send(Order {
            message,
            repetitions: 0,
            since: Instant::now(),
            done,
        });
        async move {
            if handed_over.is_err() {
                return std::future::pending().await;
            }
            match answer.await {
                Ok(published) => published,
                // The runtime is shutting down: nothing may be concluded from that.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// Where messages go.
#[derive(Clone)]
struct Wire {
    context: Context,
    payloads: Payloads,
}

/// Why a message was not stored.
enum Failed {
    Publish(PublishError),
    Payload(PayloadError),
}

type Attempt = BoxFuture<'static, (Order, Result<PublishAck, Failed>)>;

async fn pump(wire: Wire, metrics: Metrics, mut queue: mpsc::UnboundedReceiver<Order>) {
    let mut attempts: FuturesUnordered<Attempt> = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !attempts.is_empty() {
        tokio::select! {
            order = queue.recv(), if is_open && attempts.len() < MOST_PENDING => match order {
                Some(order) => {
                    let attempt = if order.message.is_large() {
                        let wire = wire.clone();
                        async move { send(&wire, order).await.await }.boxed()
                    } else {
                        send(&wire, order).await
                    };
                    attempts.push(attempt);
                }
                None => is_open = false,
            },
            Some((order, result)) = attempts.next(), if !attempts.is_empty() => {
                if let Some(again) = conclude(&wire, &metrics, order, result) {
                    attempts.push(again);
                }
            }
        }
    }
}

/// Puts a message on the wire; the future waits for its acknowledgement.
#[expect(
    clippy::async_yields_async,
    reason = "messages are sent one by one, in order, and acknowledged many at a time"
)]
fn send(wire: &Wire, order: Order) -> BoxFuture<'_, Attempt> {
    async move {
        let is_large = order.message.is_large();
        let Outgoing {
            subject,
            mut headers,
            mut body,
        } = order.message.clone();
        if is_large {
            body = match wire.payloads.pack(&mut headers, body).await {
                Ok(body) => body,
                Err(error) => {
                    return async move { (order, Err(Failed::Payload(error))) }.boxed();
                }
            };
        }
        let publish = PublishMessage::build().payload(body).headers(headers);
        match wire.context.send_publish(subject, publish).await {
            Ok(ack) => async move { (order, ack.await.map_err(Failed::Publish)) }.boxed(),
            Err(error) => async move { (order, Err(Failed::Publish(error))) }.boxed(),
        }
    }
    .boxed()
}

/// Tells the caller, or says how to try again.
fn conclude(
    wire: &Wire,
    metrics: &Metrics,
    mut order: Order,
    result: Result<PublishAck, Failed>,
) -> Option<Attempt> {
    let settled = match result {
        Ok(ack) => Ok(Published::Stored { seq: ack.sequence }),
        Err(Failed::Payload(error)) => Err(error.to_string()),
        Err(Failed::Publish(error)) => match error.kind() {
            PublishErrorKind::WrongLastSequence => Ok(Published::AlreadyExists),
            PublishErrorKind::MaxPayloadExceeded => Ok(Published::Refused(error.to_string())),
            _ if is_permanent(&error) => Ok(Published::Refused(reason(&error))),
            _ => Err(reason(&error)),
        },
    };
    let published = match settled {
        Ok(published) => published,
        Err(error) => {
            order.repetitions += 1;
            metrics.instruments().publish_repetitions.add(1, &[]);
            if order.repetitions.is_multiple_of(WORTH_A_WARNING) {
                tracing::warn!(
                    subject = order.message.subject(),
                    error,
                    repetitions = order.repetitions,
                    "a message is not stored yet; trying on"
                );
            }
            let doubled = FIRST_WAIT * 2_u32.saturating_pow(order.repetitions.min(8) - 1);
            let wire = wire.clone();
            let again = async move {
                tokio::time::sleep(doubled.min(LONGEST_WAIT)).await;
                send(&wire, order).await.await
            };
            return Some(again.boxed());
        }
    };
    let took = order.since.elapsed().as_secs_f64();
    metrics.instruments().publish_duration.record(took, &[]);
    // Nobody need be waiting.
    let _ = order.done.send(published);
    None
}

/// Errors that another try cannot mend: the message itself is not acceptable to its stream.
fn is_permanent(error: &PublishError) -> bool {
    use async_nats::jetstream::ErrorCode;
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>())
        .is_some_and(|error| {
            [
                ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
                ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM,
            ]
            .contains(&error.error_code())
        })
}

fn reason(error: &PublishError) -> String {
    std::error::Error::source(error)
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
