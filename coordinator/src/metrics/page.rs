//! A small web server for those who look from outside: `/metrics` for Prometheus, `/healthz` and
//! `/readyz` for whoever runs containers.

use super::Metrics;
use crate::partition::Owners;
use async_nats::{Client, connection::State};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Most connections at a time; further ones wait.
const MOST_CONNECTIONS: usize = 32;
/// How long a client may take to send the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Media type of the text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What decides whether a coordinator does its share.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    pub(crate) client: Client,
    pub(crate) owners: Owners,
    pub(crate) metrics: Metrics,
}

impl Readiness {
    /// Why it does not do its share yet, if so.
    fn lacks(&self) -> Option<String> {
        if self.client.connection_state() != State::Connected {
            return Some("the broker is not connected".to_owned());
        }
        if self.owners.list().is_empty() {
            return Some("the leases are not looked at yet".to_owned());
        }
        let behind = self.metrics.catching_up();
        (!behind.is_empty()).then(|| format!("partitions {behind:?} are catching up"))
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, readiness: Readiness, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => {
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::debug!(%error, "a connection for metrics was not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let readiness = readiness.clone();
                let service = service_fn(move |request| {
                    let response = respond(&readiness, &request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_LIMIT)
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection for metrics broke off");
                    }
                });
            }
        }
    }
}

fn respond(readiness: &Readiness, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return response(StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => match readiness.metrics.text() {
            Ok(text) => response(StatusCode::OK, text),
            Err(reason) => response(StatusCode::INTERNAL_SERVER_ERROR, reason),
        },
        "/healthz" => response(StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => match readiness.lacks() {
            None => response(StatusCode::OK, "ready\n".to_owned()),
            Some(reason) => response(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        _ => response(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n".to_owned(),
        ),
    }
}

fn response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let media_type = hyper::header::HeaderValue::from_static(TEXT_FORMAT);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
