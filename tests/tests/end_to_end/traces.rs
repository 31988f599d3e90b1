//! Spans, as a tracing backend receives them: real OTLP over HTTP, decoded.

use crate::node::Node;
use anyhow::ensure;
use async_nats::HeaderMap;
use dirigent_coordinator::telemetry::Telemetry;
use dirigent_tests::stage::{PATIENCE, Stage};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// The saga, the attempts at A, B and A's undoing, and what the worker did in each.
const SPANS: usize = 7;

/// Service name and span, in the order of arrival.
type Received = Arc<Mutex<Vec<(String, Span)>>>;

async fn backend() -> anyhow::Result<(String, Received)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let received = Received::default();
    let kept = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            let service = service_fn(move |request| receive(Arc::clone(&kept), request));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Ok((address, received))
}

#[expect(clippy::unwrap_used, reason = "what cannot be read fails the test")]
async fn receive(
    kept: Received,
    request: Request<Incoming>,
) -> Result<Response<Empty<bytes::Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/v1/traces");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let export = ExportTraceServiceRequest::decode(body).unwrap();
    for group in export.resource_spans {
        let attributes = group.resource.unwrap_or_default().attributes;
        let service = attributes.iter().find(|one| one.key == "service.name");
        let value = service
            .and_then(|one| one.value.clone())
            .and_then(|one| one.value);
        let Some(Value::StringValue(service)) = value else {
            panic!("spans without a service name")
        };
        let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
        kept.lock()
            .unwrap()
            .extend(spans.map(|span| (service.clone(), span)));
    }
    Ok(Response::new(Empty::new()))
}

#[tokio::test]
async fn a_trace_leads_from_the_event_through_the_saga_to_the_workers() -> anyhow::Result<()> {
    const DOCUMENT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [{ Event: traced.orders, Key: '{% $event.data.order %}' }]
StartAt: A
States:
  A: { Type: Task, Resource: 'task:do-a', Compensate: { Resource: 'task:undo-a' }, Next: B }
  B: { Type: Task, Resource: 'task:do-b', End: true }
";
    let (address, received) = backend().await?;
    let telemetry = Telemetry::to_endpoint("coordinator", &format!("{address}/v1/traces"))?;
    let stage = Stage::start_traced(telemetry).await?;
    stage.deploy("traced", DOCUMENT).await?;
    let ledger = stage.nats.directory().join("ledger");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()),
        ("OTEL_SERVICE_NAME", "worker"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let ledger = ledger.to_string_lossy();
    let _worker = Node::start_with("worker", &ledger, &stage.nats.url(), &variables)?;
    let (trace, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", format!("00-{trace}-{caller}-01"));
    let body = r#"{"order":"k-1","refuse":"do-b"}"#;
    async_nats::jetstream::new(stage.client.clone())
        .publish_with_headers("traced.orders", headers, body.into())
        .await?
        .await?;
    stage.ended("traced", "k-1").await?;

    let until = Instant::now() + PATIENCE;
    let spans = loop {
        let spans = received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if spans.len() >= SPANS {
            break spans;
        }
        let names: Vec<_> = spans.iter().map(|(_, span)| &span.name).collect();
        ensure!(Instant::now() < until, "only {names:?} came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert!(spans.iter().all(|(_, span)| hex(&span.trace_id) == trace));
    let by_id: BTreeMap<String, &(String, Span)> =
        spans.iter().map(|one| (hex(&one.1.span_id), one)).collect();
    assert_eq!(by_id.len(), SPANS, "each span once");
    let mut tree: Vec<String> = spans
        .iter()
        .map(|(service, span)| {
            let parent = hex(&span.parent_span_id);
            let parent = match by_id.get(&parent) {
                Some((_, parent)) => &parent.name,
                None => &parent,
            };
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
            format!("{service}: {} < {parent}", span.name)
        })
        .collect();
    tree.sort();
    insta::assert_debug_snapshot!(tree);
    Ok(())
}
