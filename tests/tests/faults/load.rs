//! Asking for sagas, by requests and by events, until the system has acknowledged each.

use crate::shape::{ASKED, PAID, Shape};
use async_nats::{Client, HeaderMap};
use dirigent_contracts::{
    api::{DeployRequest, ErrorCode, StartRequest},
    header,
    time::Timestamp,
};
use dirigent_tests::{
    checker::Asked,
    request::{Refused, request},
};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most sagas that are being asked for at a time.
const AT_ONCE: usize = 256;
/// Pause before a request or an event that got no answer is repeated.
const PAUSE: Duration = Duration::from_millis(250);

/// Deploys the definitions of all shapes.
pub(crate) async fn deploy(client: &Client) -> anyhow::Result<()> {
    for (name, document) in crate::shape::DEFINITIONS {
        let deploy = DeployRequest {
            name: name.parse()?,
            document: document.to_owned(),
        };
        request(client, &deploy).await?;
    }
    Ok(())
}

/// Asks for so many sagas of all shapes in turn, spread over `window`. Gives what was acknowledged,
/// which is all of it: what is not yet is asked for again.
pub(crate) async fn ask(
    client: &Client,
    sagas: usize,
    window: Duration,
) -> anyhow::Result<Vec<Asked>> {
    let began = tokio::time::Instant::now();
    let pace = window / u32::try_from(sagas.max(1))?;
    let asking = (0..sagas).map(|n| async move {
        tokio::time::sleep_until(began + pace * u32::try_from(n)?).await;
        let shape = Shape::ALL[n % Shape::ALL.len()];
        let key = shape.key(n);
        begin(client, shape, &key).await?;
        let due = now() + shape.waits();
        let demands = shape.demands(&key)?.into_iter();
        let asked = demands.map(|(saga, demand)| Asked { saga, due, demand });
        anyhow::Ok(asked.collect::<Vec<_>>())
    });
    futures::stream::iter(asking)
        .buffer_unordered(AT_ONCE)
        .try_concat()
        .await
}

/// Asks for one saga, and for the event that it needs, until both are stored.
pub(crate) async fn begin(client: &Client, shape: Shape, key: &str) -> anyhow::Result<()> {
    if shape == Shape::Triggered {
        return publish(client, ASKED, key, &shape.input(key)).await;
    }
    start(client, shape, key).await?;
    if shape == Shape::Awaits {
        // Before the saga waits for it, or after.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_000))).await;
        publish(client, PAID, key, &Value::Null).await?;
    }
    Ok(())
}

/// Requests the start of one saga until it is stored.
pub(crate) async fn start(client: &Client, shape: Shape, key: &str) -> anyhow::Result<()> {
    let start = StartRequest {
        definition: shape.definition().parse()?,
        key: Some(key.parse()?),
        input: shape.input(key),
        digest: None,
    };
    loop {
        match request(client, &start).await {
            // A start that is not new is one whose acknowledgement did not come.
            Ok(_) => return Ok(()),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(Refused { code, .. })
                    if ![ErrorCode::Unavailable, ErrorCode::Overloaded].contains(code) =>
                {
                    return Err(error);
                }
                _ => tokio::time::sleep(PAUSE).await,
            },
        }
    }
}

/// Publishes an event until a stream has stored it.
pub(crate) async fn publish(
    client: &Client,
    subject: &str,
    key: &str,
    data: &Value,
) -> anyhow::Result<()> {
    let context = async_nats::jetstream::new(client.clone());
    let mut headers = HeaderMap::new();
    headers.insert(header::MESSAGE_ID, format!("{subject}-{key}"));
    headers.insert(header::KEY, key);
    let body = serde_json::to_vec(data)?;
    loop {
        let published = context
            .publish_with_headers(subject.to_owned(), headers.clone(), body.clone().into())
            .await;
        if let Ok(ack) = published
            && ack.await.is_ok()
        {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
}
