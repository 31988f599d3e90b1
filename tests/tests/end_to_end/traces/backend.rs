//! A tracing backend: real OTLP over HTTP, decoded, and the spans drawn as trees.

use anyhow::{Context as _, ensure};
use dirigent_tests::stage::PATIENCE;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::Metric,
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus},
};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// What has come so far.
#[derive(Default)]
struct Received {
    /// Service name and span.
    spans: Vec<(String, Span)>,
    /// Service name and metric.
    metrics: Vec<(String, Metric)>,
    /// What could not be read.
    unreadable: Vec<String>,
}

/// The backend at work.
pub(super) struct Backend {
    pub(super) address: String,
    received: Arc<Mutex<Received>>,
}

impl Backend {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let received = Arc::<Mutex<Received>>::default();
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
        Ok(Self { address, received })
    }

    /// Variables that make a process export to here, at once.
    pub(super) fn variables<'a>(&'a self, service: &'a str) -> [(&'a str, &'a str); 5] {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &self.address),
            ("OTEL_SERVICE_NAME", service),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4096"),
        ]
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All metrics of a service so far, the latest of each.
    pub(super) fn metrics(&self, service: &str) -> BTreeMap<String, Metric> {
        let received = self.lock();
        assert_eq!(received.unreadable, [""; 0]);
        let of = received.metrics.iter().filter(|(from, _)| from == service);
        of.map(|(_, metric)| (metric.name.clone(), metric.clone()))
            .collect()
    }

    /// The trees of all spans, once there are so many. A span that comes again must be the same.
    pub(super) async fn forest(&self, spans: usize) -> anyhow::Result<Forest> {
        let until = Instant::now() + PATIENCE;
        loop {
            let forest = Forest::plant(&self.lock())?;
            if forest.spans.len() >= spans {
                return Ok(forest);
            }
            ensure!(
                Instant::now() < until,
                "of {spans} spans only these came:\n{}",
                forest.draw()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn receive(
    kept: Arc<Mutex<Received>>,
    request: Request<Incoming>,
) -> Result<Response<Empty<bytes::Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await;
    let read = body.map_err(anyhow::Error::from).and_then(|body| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        take(&mut kept, &path, &body.to_bytes())
    });
    let mut response = Response::new(Empty::new());
    if let Err(error) = read {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.unreadable.push(format!("{path}: {error}"));
    }
    Ok(response)
}

fn take(kept: &mut Received, path: &str, body: &[u8]) -> anyhow::Result<()> {
    match path {
        "/v1/traces" => {
            for group in ExportTraceServiceRequest::decode(body)?.resource_spans {
                let service = service(group.resource)?;
                let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
                kept.spans.extend(spans.map(|span| (service.clone(), span)));
            }
        }
        "/v1/metrics" => {
            for group in ExportMetricsServiceRequest::decode(body)?.resource_metrics {
                let service = service(group.resource)?;
                let all = group.scope_metrics.into_iter();
                let all = all.flat_map(|scope| scope.metrics);
                kept.metrics
                    .extend(all.map(|metric| (service.clone(), metric)));
            }
        }
        other => anyhow::bail!("nobody should post to {other}"),
    }
    Ok(())
}

fn service(resource: Option<Resource>) -> anyhow::Result<String> {
    let attributes = resource.unwrap_or_default().attributes;
    text(&attributes, "service.name").context("who exports has no service name")
}

/// An attribute as text.
fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|one| one.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(is) => Some(is.to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// Trees of spans.
pub(super) struct Forest {
    /// Each span once, by its id.
    pub(super) spans: BTreeMap<Vec<u8>, (String, Span)>,
}

/// Attributes that are drawn: those that no run changes.
const DRAWN: [&str; 11] = [
    "dirigent.saga.status",
    "dirigent.state.type",
    "dirigent.state",
    "dirigent.member.index",
    "dirigent.attempt",
    "dirigent.direction",
    "dirigent.child.definition",
    "dirigent.broken_off",
    "messaging.operation.name",
    "messaging.operation.type",
    "error.type",
];

impl Forest {
    fn plant(received: &Received) -> anyhow::Result<Self> {
        ensure!(
            received.unreadable.is_empty(),
            "{:?} cannot be read",
            received.unreadable
        );
        let mut spans = BTreeMap::new();
        for (service, span) in &received.spans {
            let known = spans
                .entry(span.span_id.clone())
                .or_insert_with(|| (service.clone(), span.clone()));
            // A history that is told again must be told in the same words.
            ensure!(known.1 == *span, "{:#?} came again as {span:#?}", known.1);
            ensure!(
                span.start_time_unix_nano <= span.end_time_unix_nano,
                "{span:#?} ends before it begins"
            );
        }
        Ok(Self { spans })
    }

    /// The spans whose parent is not among them.
    pub(super) fn roots(&self) -> Vec<&Span> {
        let roots = self.spans.values().map(|(_, span)| span);
        roots
            .filter(|span| !self.spans.contains_key(&span.parent_span_id))
            .collect()
    }

    /// A line for each span, under that of its parent, in the order of their beginnings.
    pub(super) fn draw(&self) -> String {
        let mut drawn = String::new();
        for root in self.in_order(|span| !self.spans.contains_key(&span.parent_span_id)) {
            self.draw_under(root, 0, &mut drawn);
        }
        drawn
    }

    fn in_order(&self, is_wanted: impl Fn(&Span) -> bool) -> Vec<&(String, Span)> {
        let mut wanted: Vec<_> = self
            .spans
            .values()
            .filter(|(_, span)| is_wanted(span))
            .collect();
        wanted.sort_by_key(|(_, span)| {
            let index = text(&span.attributes, "dirigent.member.index");
            (span.start_time_unix_nano, span.name.clone(), index)
        });
        wanted
    }

    fn draw_under(&self, (service, span): &(String, Span), depth: usize, drawn: &mut String) {
        let kind = SpanKind::try_from(span.kind).map_or("?", |kind| kind.as_str_name());
        let _ = write!(
            drawn,
            "{}{service}: {} ({})",
            "  ".repeat(depth),
            span.name,
            kind.trim_start_matches("SPAN_KIND_").to_lowercase(),
        );
        for name in DRAWN {
            if let Some(value) = text(&span.attributes, name) {
                let _ = write!(drawn, " {}={value}", name.trim_start_matches("dirigent."));
            }
        }
        let events: Vec<_> = span
            .events
            .iter()
            .map(|event| event.name.as_str())
            .collect();
        if !events.is_empty() {
            let _ = write!(drawn, " [{}]", events.join(", "));
        }
        for link in &span.links {
            let to = match self.spans.get(&link.span_id) {
                Some((_, to)) => to.name.as_str(),
                None => "a span that is not here",
            };
            let is_same = link.trace_id == span.trace_id;
            let of = if is_same { "" } else { " of another trace" };
            let _ = write!(drawn, " -> {to}{of}");
        }
        if let Some(status) = span
            .status
            .as_ref()
            .filter(|status| status.code() != SpanStatus::Unset)
        {
            let _ = write!(drawn, " !! {}", status.message);
        }
        drawn.push('\n');
        for child in self.in_order(|child| child.parent_span_id == span.span_id) {
            assert_eq!(child.1.trace_id, span.trace_id, "a child in another trace");
            self.draw_under(child, depth + 1, drawn);
        }
    }
}
