//! The requests of JetStream that a backup makes and that the client library does not have: whole
//! streams go out and in as the broker packs them, with their sequences and timestamps.

use super::{
    archive::{Archive, PartWriter},
    manifest::{Part, Reader},
};
use crate::trouble::Trouble;
use async_nats::{
    Client, RequestErrorKind,
    jetstream::{Context, ErrorCode, context::ContextBuilder, response::Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long the broker may take for an answer, or for the next piece.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a cluster answers that has just started: it has no leader, or its leader has not heard of the others.
const NOT_READY: [ErrorCode; 2] = [
    ErrorCode::CLUSTER_NOT_AVAILABLE,
    ErrorCode::CLUSTER_NO_PEERS,
];
/// How long a cluster may take to settle, and the pause before it is asked again.
const SETTLING_TIME: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);
/// Size of what is sent at a time: half of what a server takes by default.
const PIECE: usize = 512 * 1024;
/// Removals of messages that are under way at a time.
const MOST_REMOVALS: usize = 64;
/// The broker's code for "there is no message with that sequence".
const NO_SUCH_SEQUENCE: u64 = 10_043;

/// The broker, as a backup needs it.
#[derive(Clone)]
pub(super) struct Broker {
    pub(super) client: Client,
    pub(super) context: Context,
}

/// What the broker tells of a stream.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Told {
    pub(super) config: Value,
    pub(super) state: Value,
}

impl Told {
    pub(super) fn last_sequence(&self) -> u64 {
        self.state["last_seq"].as_u64().unwrap_or_default()
    }
}

impl Broker {
    pub(super) fn new(client: Client) -> Self {
        let context = ContextBuilder::new().timeout(PATIENCE);
        Self {
            context: context.build(client.clone()),
            client,
        }
    }

    /// The names of all streams.
    pub(super) async fn streams(&self) -> Result<Vec<String>, Trouble> {
        let names = self.context.stream_names().try_collect().await;
        names.map_err(|error| failed("the list of streams", &error))
    }

    pub(super) async fn stream(&self, stream: &str) -> Result<Told, Trouble> {
        self.ask(&format!("STREAM.INFO.{stream}"), &json!({})).await
    }

    /// The durable consumers of a stream.
    pub(super) async fn readers(&self, stream: &str) -> Result<Vec<Reader>, Trouble> {
        #[derive(Deserialize)]
        struct Page {
            total: usize,
            consumers: Vec<Consumer>,
        }
        #[derive(Deserialize)]
        struct Consumer {
            config: Value,
            ack_floor: Floor,
        }
        #[derive(Deserialize)]
        struct Floor {
            stream_seq: u64,
        }
        let mut readers = Vec::new();
        let mut offset = 0;
        loop {
            let request = json!({ "offset": offset });
            let subject = format!("CONSUMER.LIST.{stream}");
            let page: Page = self.ask(&subject, &request).await?;
            offset += page.consumers.len();
            let is_last = page.consumers.is_empty() || offset >= page.total;
            let durable = page
                .consumers
                .into_iter()
                .filter(|consumer| consumer.config["durable_name"].is_string());
            readers.extend(durable.map(|consumer| Reader {
                config: consumer.config,
                floor: consumer.ack_floor.stream_seq,
            }));
            if is_last {
                return Ok(readers);
            }
        }
    }

    /// Lets the broker pack a stream, without its consumers.
    pub(super) async fn copy_out(
        &self,
        stream: &str,
        part: &mut PartWriter<'_>,
    ) -> Result<Told, Trouble> {
        let what = || format!("the copy of {stream}");
        let inbox = self.client.new_inbox();
        let pieces = self.client.subscribe(inbox.clone()).await;
        let mut pieces = pieces.map_err(|error| failed(&what(), &error))?;
        let request = json!({ "deliver_subject": inbox, "no_consumers": true });
        let told = self
            .ask(&format!("STREAM.SNAPSHOT.{stream}"), &request)
            .await?;
        loop {
            let piece = tokio::time::timeout(PATIENCE, pieces.next()).await;
            let Ok(Some(piece)) = piece else {
                return Err(Trouble::NotCopied {
                    what: what(),
                    reason: "the broker stopped sending it".to_owned(),
                });
            };
            if piece.payload.is_empty() {
                // The end, with a status if it came too early.
                return match piece.status.filter(|status| status.as_u16() >= 300) {
                    None => Ok(told),
                    Some(status) => Err(Trouble::NotCopied {
                        what: what(),
                        reason: piece.description.unwrap_or_else(|| status.to_string()),
                    }),
                };
            }
            part.write(&piece.payload)?;
            // The broker sends on only when it hears how far we are.
            if let Some(reply) = piece.reply {
                let sent = self.client.publish(reply, Bytes::new()).await;
                sent.map_err(|error| failed(&what(), &error))?;
            }
        }
    }

    /// Lets the broker unpack a stream under this configuration.
    pub(super) async fn copy_in(
        &self,
        archive: &Archive,
        part: &Part,
        config: &Value,
    ) -> Result<Told, Trouble> {
        #[derive(Deserialize)]
        struct Accepted {
            deliver_subject: String,
        }
        let stream = &part.stream;
        let request = json!({ "config": config, "state": part.state });
        let Accepted { deliver_subject } = self
            .ask(&format!("STREAM.RESTORE.{stream}"), &request)
            .await?;
        let send = async |piece: Bytes| -> Result<Bytes, Trouble> {
            let ask = || {
                let request = async_nats::Request::new()
                    .payload(piece.clone())
                    .timeout(Some(PATIENCE));
                self.client.send_request(deliver_subject.clone(), request)
            };
            // Our server may not have heard yet that another one listens there.
            let answer = settled(ask, |answer| {
                let error = answer.as_ref().err();
                error.is_some_and(|error| error.kind() == RequestErrorKind::NoResponders)
            });
            let answer = answer.await.map_err(|error| failed(stream, &error))?;
            Ok(answer.payload)
        };
        archive
            .read(part, async |data| {
                let mut data = Bytes::from(data);
                while !data.is_empty() {
                    let answer = send(data.split_to(PIECE.min(data.len()))).await?;
                    if !answer.is_empty() {
                        read::<Value>(stream, &answer)?;
                    }
                }
                Ok(())
            })
            .await?;
        let end = send(Bytes::new()).await?;
        read(stream, &end)
    }

    /// Removes messages of a stream; one that is not there is fine.
    pub(super) async fn remove(
        &self,
        stream: &str,
        sequences: impl Iterator<Item = u64>,
    ) -> Result<(), Trouble> {
        let subject = format!("STREAM.MSG.DELETE.{stream}");
        let removals = sequences.map(|seq| {
            let request = json!({ "seq": seq, "no_erase": true });
            let subject = &subject;
            async move {
                match self.request::<Value>(subject, &request).await? {
                    Response::Err { error } if error.error_code().0 != NO_SUCH_SEQUENCE => {
                        Err(failed(subject, &error))
                    }
                    _ => Ok(()),
                }
            }
        });
        futures::stream::iter(removals)
            .buffer_unordered(MOST_REMOVALS)
            .try_collect()
            .await
    }

    /// Asks JetStream for something.
    pub(super) async fn ask<V: DeserializeOwned>(
        &self,
        subject: &str,
        request: &Value,
    ) -> Result<V, Trouble> {
        match self.request(subject, request).await? {
            Response::Ok(answer) => Ok(answer),
            Response::Err { error } => Err(failed(subject, &error)),
        }
    }

    async fn request<V: DeserializeOwned>(
        &self,
        subject: &str,
        request: &impl Serialize,
    ) -> Result<Response<V>, Trouble> {
        let ask = || self.context.request(subject.to_owned(), request);
        let answer = settled(ask, |answer| match answer {
            Ok(Response::Err { error }) => NOT_READY.contains(&error.error_code()),
            _ => false,
        });
        answer.await.map_err(|error| failed(subject, &error))
    }
}

/// Asks again while what comes is only that a cluster has not settled.
pub(super) async fn settled<F: Future>(
    ask: impl Fn() -> F,
    is_passing: impl Fn(&F::Output) -> bool,
) -> F::Output {
    let began = Instant::now();
    loop {
        let answer = ask().await;
        if !is_passing(&answer) || began.elapsed() > SETTLING_TIME {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn read<V: DeserializeOwned>(what: &str, answer: &[u8]) -> Result<V, Trouble> {
    match serde_json::from_slice::<Response<V>>(answer) {
        Ok(Response::Ok(answer)) => Ok(answer),
        Ok(Response::Err { error }) => Err(failed(what, &error)),
        Err(error) => Err(failed(what, &error)),
    }
}

pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Trouble {
    Trouble::NotCopied {
        what: what.to_owned(),
        reason: error.to_string(),
    }
}
