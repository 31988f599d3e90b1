//! What the load is put on: coordinators, or the floor.

use super::{
    floor::Recordings,
    workload::{AWAITED_EVENT, BEGIN_EVENT, Workload, input},
};
use crate::{connection::Connection, trouble::Trouble};
use async_nats::{Client, HeaderMap, jetstream};
use bytes::Bytes;
use dirigent_contracts::{api::StartRequest, header, id::SagaKey};
use futures::{FutureExt as _, future::BoxFuture};
use std::sync::Arc;

/// Most publishes whose acknowledgement is awaited at a time: above what a load has under way.
const MOST_IN_FLIGHT: usize = 262_144;

/// Where sagas are started.
#[derive(Clone)]
pub(super) enum Target {
    /// Coordinators.
    Dirigent(Connection),
    /// The floor, with what a saga of each workload sends.
    Floor {
        connection: Connection,
        recordings: Arc<Recordings>,
    },
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// It is stored.
    Accepted,
    /// There is too much to do: nothing was stored.
    Refused,
}

impl Target {
    pub(super) fn client(&self) -> &Client {
        match self {
            Self::Dirigent(connection) | Self::Floor { connection, .. } => &connection.client,
        }
    }

    /// Starts one saga.
    pub(super) fn start(
        &self,
        workload: Workload,
        key: SagaKey,
    ) -> Result<BoxFuture<'static, Result<Started, Trouble>>, Trouble> {
        Ok(match self {
            Self::Dirigent(connection) if workload == Workload::E => {
                publish_events(jetstream_of(&connection.client), key).boxed()
            }
            Self::Dirigent(connection) => {
                let request = StartRequest {
                    definition: workload.deployment()?.name,
                    input: input(key.as_str()),
                    key: Some(key),
                    digest: None,
                };
                let connection = connection.clone();
                async move { request_start(&connection, &request).await }.boxed()
            }
            Self::Floor {
                connection,
                recordings,
            } => {
                let message = recordings.start(workload, &key)?;
                let context = jetstream_of(&connection.client);
                async move {
                    store(&context, message.subject, message.headers, message.body).await?;
                    Ok(Started::Accepted)
                }
                .boxed()
            }
        })
    }
}

pub(super) async fn request_start(
    connection: &Connection,
    request: &StartRequest,
) -> Result<Started, Trouble> {
    match connection.ask(request).await {
        Ok(_) => Ok(Started::Accepted),
        Err(Trouble::Overloaded { .. }) => Ok(Started::Refused),
        Err(trouble) => Err(trouble),
    }
}

/// Publishes what starts the saga, and then what it awaits.
async fn publish_events(context: jetstream::Context, key: SagaKey) -> Result<Started, Trouble> {
    let body = Bytes::from(input(key.as_str()).to_string());
    store(&context, BEGIN_EVENT.to_owned(), HeaderMap::new(), body).await?;
    let mut headers = HeaderMap::new();
    headers.insert(header::KEY, key.as_str());
    let body = Bytes::from(super::workload::result().to_string());
    store(&context, AWAITED_EVENT.to_owned(), headers, body).await?;
    Ok(Started::Accepted)
}

async fn store(
    context: &jetstream::Context,
    subject: String,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), Trouble> {
    let stored = context.publish_with_headers(subject, headers, body).await;
    stored
        .map_err(Trouble::bench)?
        .await
        .map_err(Trouble::bench)?;
    Ok(())
}

fn jetstream_of(client: &Client) -> jetstream::Context {
    jetstream::ContextBuilder::new()
        .max_ack_inflight(MOST_IN_FLIGHT)
        .build(client.clone())
}
