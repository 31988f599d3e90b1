//! Publishing that does not give up: pipelined, and retried under the same message id.
//!
//! One task sends, and hears all acknowledgements on one inbox, numbered by their subjects: so messages
//! leave in the order in which they were handed over, a caller that stops waiting stops nothing, and a
//! message costs no timer, no channel and no future of its own. Every message of every saga comes
//! through here (what that saves stands in `docs/performance.md`). Those whose bodies go to the object store
//! first, and those that are repeated, let others pass.

use crate::metrics::Metrics;
use async_nats::{
    Client, HeaderMap, HeaderValue, Message, StatusCode, Subject, Subscriber,
    client::PublishErrorKind,
    jetstream::{Error, ErrorCode},
};
use bytes::Bytes;
use dirigent_contracts::{
    header::{self, TraceContext},
    limit, subject,
};
use dirigent_payloads::{PayloadError, Payloads};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde::Deserialize;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
    future::Future,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// The wait before the first repetition of a publish, and the longest one.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// After how many repetitions a message that gets no acknowledgement is worth a warning.
const WORTH_A_WARNING: u32 = 5;

/// Most messages that are not acknowledged; others wait in the queue.
const MOST_PENDING: usize = 8_192;
/// How often it is looked after what was not acknowledged in time, or is to be repeated.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// Most messages that are taken from the queue in one go.
const AT_ONCE: usize = 64;

/// A message on its way to a stream.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    subject: Subject,
    /// Made into a [`HeaderMap`] when it is sent: cloning one costs more.
    headers: Vec<(Cow<'static, str>, String)>,
    body: Bytes,
}

impl Outgoing {
    pub(crate) fn new(subject: String, body: Vec<u8>) -> Self {
        Self {
            subject: subject.into(),
            headers: Vec::with_capacity(2),
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

    pub(crate) fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: String) -> Self {
        self.headers.push((name.into(), value));
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
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| *known == name)?;
        Some(value)
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
    /// The stream has no room for it, and why; only with [`IfFull::Refuse`].
    Full(String),
}

/// What becomes of a message for which its stream has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfFull {
    /// It is repeated until there is room.
    Repeat,
    /// It is given up: its sender can do without.
    Refuse,
}

/// Who is told what became of a message.
type Done = Box<dyn FnOnce(Published) + Send>;

/// One message, with who is told.
struct Order {
    message: Outgoing,
    if_full: IfFull,
    repetitions: u32,
    since: Instant,
    done: Done,
}

/// Publishes to streams. Clones share one pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Publisher(mpsc::UnboundedSender<Order>);

impl Publisher {
    /// A publisher on its own pipeline, which ends when the last clone is dropped and all is stored.
    ///
    /// # Errors
    /// If the connection is closed.
    pub(crate) async fn start(
        client: Client,
        payloads: Payloads,
        metrics: Metrics,
    ) -> Result<Self, async_nats::SubscribeError> {
        let (orders, queue) = mpsc::unbounded_channel();
        let inbox = client.new_inbox();
        let acknowledgements = client.subscribe(format!("{inbox}.*")).await?;
        let pipeline = Pipeline {
            client,
            payloads,
            metrics,
            inbox,
            packing: FuturesUnordered::new(),
            pending: HashMap::new(),
            sent: VecDeque::new(),
            resting: BTreeMap::new(),
            number: 0,
        };
        tokio::spawn(pipeline.run(queue, acknowledgements));
        Ok(Self(orders))
    }

    /// Waits until nothing is published any more, which happens only if the pipeline breaks off.
    pub(crate) async fn ended(&self) {
        self.0.closed().await;
    }

    /// Hands a message over. It is published even if nobody waits for the answer, and again under
    /// its id until the broker has answered: callers bound how much they hand over.
    pub(crate) fn publish(
        &self,
        message: Outgoing,
    ) -> impl Future<Output = Published> + Send + 'static + use<> {
        let (done, answer) = oneshot::channel();
        // Nobody need be waiting.
        self.publish_then(message, IfFull::Repeat, move |published| {
            drop(done.send(published));
        });
        async move {
            match answer.await {
                Ok(published) => published,
                // The runtime is shutting down: nothing may be concluded from that.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Hands a message over, as [`Self::publish`] does, and says what is to be done behind that. It is not
    /// done if the runtime shuts down before.
    pub(crate) fn publish_then(
        &self,
        message: Outgoing,
        if_full: IfFull,
        done: impl FnOnce(Published) + Send + 'static,
    ) {
        // The pipeline ends before its publishers only with the runtime.
        let _ = self.0.send(Order {
            message,
            if_full,
            repetitions: 0,
            since: Instant::now(),
            done: Box::new(done),
        });
    }
}

/// A message whose body was put into the object store, and what travels instead.
type Packed = (Order, Result<(HeaderMap, Bytes), PayloadError>);

/// The one task's state.
struct Pipeline {
    client: Client,
    payloads: Payloads,
    metrics: Metrics,
    inbox: String,
    /// What is put into the object store before it is sent.
    packing: FuturesUnordered<BoxFuture<'static, Packed>>,
    /// What was sent and not acknowledged.
    pending: HashMap<u64, Order>,
    /// When what was sent, in this order; some of it is acknowledged.
    sent: VecDeque<(Instant, u64)>,
    /// What is sent again, and when.
    resting: BTreeMap<(Instant, u64), Order>,
    /// Of the last message that was sent.
    number: u64,
}

impl Pipeline {
    async fn run(
        mut self,
        mut queue: mpsc::UnboundedReceiver<Order>,
        mut acknowledgements: Subscriber,
    ) {
        let mut orders = Vec::with_capacity(AT_ONCE);
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_open = true;
        while is_open || self.is_busy() {
            let under_way = self.pending.len() + self.packing.len();
            let room = MOST_PENDING.saturating_sub(under_way).min(AT_ONCE);
            tokio::select! {
                // What is overdue comes first: acknowledgements and orders may never pause.
                biased;
                _ = look.tick(), if self.is_busy() => {
                    self.look().await;
                }
                Some(acknowledgement) = acknowledgements.next() => self.hear(&acknowledgement),
                count = queue.recv_many(&mut orders, room), if is_open && room > 0 => {
                    is_open = count > 0;
                    for order in orders.drain(..) {
                        self.begin(order).await;
                    }
                }
                Some(packed) = self.packing.next(), if !self.packing.is_empty() => {
                    self.packed(packed).await;
                }
            }
        }
    }

    fn is_busy(&self) -> bool {
        !(self.pending.is_empty() && self.resting.is_empty() && self.packing.is_empty())
    }

    /// Sends a message, or first puts its body into the object store.
    async fn begin(&mut self, order: Order) {
        if !order.message.is_large() {
            return self.send(order).await;
        }
        let payloads = self.payloads.clone();
        let pack = async move {
            let mut headers = HeaderMap::new();
            let body = order.message.body.clone();
            let packed = payloads.pack(&mut headers, body).await;
            (order, packed.map(|body| (headers, body)))
        };
        self.packing.push(pack.boxed());
    }

    async fn packed(&mut self, (mut order, result): Packed) {
        match result {
            Ok((headers, body)) => {
                for (name, values) in headers.iter() {
                    let values = values.iter();
                    let named = values.map(|value| (name.to_string().into(), value.to_string()));
                    order.message.headers.extend(named);
                }
                order.message.body = body;
                self.send(order).await;
            }
            Err(error) => self.repeat(order, &error),
        }
    }

    /// Puts a message on the wire.
    async fn send(&mut self, order: Order) {
        self.number += 1;
        let number = self.number;
        let Outgoing {
            subject,
            headers: named,
            body,
        } = &order.message;
        let mut headers = HeaderMap::new();
        for (name, value) in named {
            // Its own conversion from a text panics at a line break.
            let Ok(value) = value.parse::<HeaderValue>() else {
                let reason = format!("the header {name} cannot hold {value:?}");
                self.conclude(order, Published::Refused(reason));
                return;
            };
            headers.insert(name.as_ref(), value);
        }
        let (subject, body) = (subject.clone(), body.clone());
        let reply = Subject::from(format!("{}.{number}", self.inbox));
        let sent = self
            .client
            .publish_with_reply_and_headers(subject, reply, headers, body)
            .await;
        match sent {
            Ok(()) => {
                self.sent.push_back((Instant::now(), number));
                self.pending.insert(number, order);
            }
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                self.conclude(order, Published::Refused(error.to_string()));
            }
            Err(error) => self.repeat(order, &error),
        }
    }

    /// An acknowledgement came, or a refusal.
    fn hear(&mut self, acknowledgement: &Message) {
        let number = acknowledgement.subject.rsplit('.').next();
        let number = number.and_then(|number| number.parse::<u64>().ok());
        // What was repeated meanwhile is heard under its new number.
        let Some(order) = number.and_then(|number| self.pending.remove(&number)) else {
            return;
        };
        match Answer::of(acknowledgement) {
            Answer::Stored(seq) => self.conclude(order, Published::Stored { seq }),
            Answer::Refused(error) => match error.error_code() {
                ErrorCode::STREAM_WRONG_LAST_SEQUENCE
                | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
                    self.conclude(order, Published::AlreadyExists);
                }
                // Another try cannot mend these: the message itself is not acceptable to its stream.
                ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
                | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
                    self.conclude(order, Published::Refused(error.to_string()));
                }
                _ if order.if_full == IfFull::Refuse && is_full(&error) => {
                    self.conclude(order, Published::Full(error.to_string()));
                }
                _ => self.repeat(order, &error),
            },
            Answer::Strange(what) => self.repeat(order, &what),
        }
    }

    /// Looks after what was not acknowledged in time, and after what is to be sent again.
    async fn look(&mut self) {
        let now = Instant::now();
        while let Some((at, number)) = self.sent.front().copied() {
            if now.duration_since(at) < super::ANSWER_TIME && self.pending.contains_key(&number) {
                break;
            }
            self.sent.pop_front();
            if let Some(order) = self.pending.remove(&number) {
                self.repeat(order, &"no acknowledgement came");
            }
        }
        while let Some(entry) = self.resting.first_entry() {
            if entry.key().0 > now || self.pending.len() >= MOST_PENDING {
                break;
            }
            let order = entry.remove();
            self.begin(order).await;
        }
    }

    /// Lets a message rest, and sends it again behind that.
    fn repeat(&mut self, mut order: Order, reason: &dyn std::fmt::Display) {
        order.repetitions += 1;
        let instruments = self.metrics.instruments();
        instruments.publish_repetitions.add(1, &[]);
        if order.repetitions.is_multiple_of(WORTH_A_WARNING) {
            tracing::warn!(
                subject = order.message.subject(),
                error = %reason,
                repetitions = order.repetitions,
                "a message is not stored yet; trying on"
            );
        }
        let doubled = FIRST_WAIT * 2_u32.saturating_pow(order.repetitions.min(8) - 1);
        let at = Instant::now() + doubled.min(LONGEST_WAIT);
        self.number += 1;
        self.resting.insert((at, self.number), order);
    }

    fn conclude(&mut self, order: Order, published: Published) {
        let took = order.since.elapsed().as_secs_f64();
        let instruments = self.metrics.instruments();
        instruments.publish_duration.record(took, &[]);
        (order.done)(published);
    }
}

/// What the broker says to a message.
enum Answer {
    Stored(u64),
    Refused(Error),
    Strange(String),
}

/// The fields that matter of an acknowledgement.
#[derive(Deserialize)]
struct Acknowledgement {
    #[serde(default)]
    seq: u64,
    error: Option<Error>,
}

impl Answer {
    fn of(message: &Message) -> Self {
        match message.status {
            Some(StatusCode::NO_RESPONDERS) => {
                return Self::Strange("no stream takes this subject".to_owned());
            }
            Some(status) => return Self::Strange(format!("the broker answered {status}")),
            None => {}
        }
        match serde_json::from_slice(&message.payload) {
            Ok(Acknowledgement {
                error: Some(error), ..
            }) => Self::Refused(error),
            Ok(Acknowledgement { seq, .. }) if seq > 0 => Self::Stored(seq),
            Ok(_) => Self::Strange("the broker answered without a sequence".to_owned()),
            Err(error) => Self::Strange(error.to_string()),
        }
    }
}

/// Whether a limit that an operator has set on the stream is reached. The code stands for any failure
/// to store; only the text says which.
fn is_full(error: &Error) -> bool {
    error.error_code() == ErrorCode::STREAM_STORE_FAILED && error.to_string().contains("maximum")
}
