//! A process that takes OTLP, counts the spans, and throws them away.

use super::super::process::READY;
use crate::{exit::Exit, render, trouble::Trouble};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use prost::encoding::{WireType, decode_key, decode_varint};
use std::{
    convert::Infallible,
    fs::File,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

/// Where it takes spans.
const TRACES: &str = "/v1/traces";
/// Where it tells how many there were.
const COUNT: &str = "/count";
/// The fields of OTLP on the way to a span: a request's resources, their scopes, and its spans.
const PATH: [u32; 3] = [1, 2, 2];

/// The process, as seen from the one that measures.
pub(super) struct Receiver {
    child: Child,
    address: String,
}

impl Receiver {
    pub(super) async fn start(directory: &Path) -> Result<Self, Trouble> {
        let log = File::create(directory.join("receiver.log")).map_err(Trouble::Write)?;
        let mut child = Command::new(std::env::current_exe().map_err(Trouble::Write)?)
            .arg("bench-receiver")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(Trouble::Write)?;
        let out = child.stdout.take();
        let out = out.ok_or_else(|| Trouble::bench("the receiver has no output"))?;
        let line = BufReader::new(out).lines().next_line().await;
        let line = line.map_err(Trouble::bench)?.unwrap_or_default();
        let address = line.strip_prefix(READY).map(str::trim);
        let address = address.ok_or_else(|| Trouble::bench("the receiver did not get ready"))?;
        Ok(Self {
            address: address.to_owned(),
            child,
        })
    }

    /// Where spans go.
    pub(super) fn endpoint(&self) -> String {
        format!("{}{TRACES}", self.address)
    }

    /// How many spans have arrived, when none has for so long.
    pub(super) async fn settled(&self, silence: Duration) -> Result<u64, Trouble> {
        let mut last = self.count().await?;
        loop {
            tokio::time::sleep(silence).await;
            let now = self.count().await?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
    }

    async fn count(&self) -> Result<u64, Trouble> {
        let answer = reqwest::get(format!("{}{COUNT}", self.address)).await;
        let text = answer.map_err(Trouble::bench)?.text().await;
        let count = text.map_err(Trouble::bench)?.parse();
        count.map_err(|_| Trouble::bench("the receiver does not tell how many spans it got"))
    }

    pub(super) async fn stop(mut self) {
        // It holds nothing that would be lost.
        let _ = self.child.kill().await;
    }
}

/// The process itself.
pub(in crate::bench) async fn receive() -> Result<Exit, Trouble> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.map_err(Trouble::bench)?;
    let address = listener.local_addr().map_err(Trouble::bench)?;
    render::print(&format!("{READY} http://{address}\n"))?;
    let spans = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await.map_err(Trouble::bench)?;
        let spans = Arc::clone(&spans);
        let service = service_fn(move |request| answer(Arc::clone(&spans), request));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn answer(
    spans: Arc<AtomicU64>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let respond = |status, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        Ok(response)
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, COUNT) => respond(StatusCode::OK, spans.load(Relaxed).to_string()),
        (&Method::POST, TRACES) => {
            let body = request.into_body().collect().await;
            let count = body.ok().and_then(|body| count(body.to_bytes(), &PATH));
            let Some(count) = count else {
                return respond(StatusCode::BAD_REQUEST, String::new());
            };
            spans.fetch_add(count, Relaxed);
            respond(StatusCode::OK, String::new())
        }
        _ => respond(StatusCode::NOT_FOUND, String::new()),
    }
}

/// How many messages lie at the end of a path of fields; `None` if it is not protobuf.
fn count(mut message: Bytes, path: &[u32]) -> Option<u64> {
    let [field, rest @ ..] = path else {
        return Some(1);
    };
    let mut found = 0;
    while message.has_remaining() {
        let (tag, kind) = decode_key(&mut message).ok()?;
        let length = match kind {
            WireType::Varint => {
                decode_varint(&mut message).ok()?;
                continue;
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut message).ok()?).ok()?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        if length > message.remaining() {
            return None;
        }
        let inner = message.split_to(length);
        if tag == *field && kind == WireType::LengthDelimited {
            found += count(inner, rest)?;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message as _;

    #[test]
    fn spans_are_counted_without_being_decoded() {
        let scope = |spans| ScopeSpans {
            spans: vec![
                Span {
                    name: "one".into(),
                    ..Span::default()
                };
                spans
            ],
            ..ScopeSpans::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![
                ResourceSpans {
                    scope_spans: vec![scope(2), scope(0), scope(3)],
                    schema_url: "a".into(),
                    ..ResourceSpans::default()
                };
                2
            ],
        };
        let bytes = Bytes::from(request.encode_to_vec());
        assert_eq!(count(bytes.clone(), &PATH), Some(10));
        assert_eq!(count(bytes.slice(..bytes.len() - 1), &PATH), None);
    }
}
