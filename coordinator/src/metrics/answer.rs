//! The question that anybody may ask all coordinators at a time: how do your metrics stand?
//!
//! Each answers for itself, so the asker gathers answers until none comes for a while. `dirigent top`
//! is made of them.

use super::Metrics;
use async_nats::{Client, Message};
use dirigent_contracts::{
    metric::{Measured, Sample, Snapshot},
    subject,
};
use futures::StreamExt;
use prometheus::proto::{MetricFamily, MetricType};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause before the question is listened for again.
const REST: Duration = Duration::from_secs(1);

/// Answers until `stop`.
pub(crate) async fn answer(
    client: Client,
    name: String,
    metrics: Metrics,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        match client.subscribe(subject::METRICS).await {
            Ok(mut questions) => loop {
                let question = tokio::select! {
                    () = stop.cancelled() => return,
                    question = questions.next() => question,
                };
                let Some(Message {
                    reply: Some(reply), ..
                }) = question
                else {
                    break;
                };
                let body = serde_json::to_vec(&snapshot(&name, &metrics)).unwrap_or_default();
                if let Err(error) = client.publish(reply, body.into()).await {
                    tracing::debug!(%error, "a question for metrics went unanswered");
                }
            },
            Err(error) => tracing::debug!(%error, "questions for metrics are not heard"),
        }
        tokio::time::sleep(REST).await;
    }
}

fn snapshot(name: &str, metrics: &Metrics) -> Snapshot {
    Snapshot {
        coordinator: name.to_owned(),
        samples: metrics.families().iter().flat_map(samples).collect(),
    }
}

fn samples(family: &MetricFamily) -> impl Iterator<Item = Sample> {
    family.get_metric().iter().map(|metric| {
        let measured = match family.get_field_type() {
            MetricType::HISTOGRAM => {
                let histogram = metric.get_histogram();
                let mut below = 0;
                let mut buckets = Vec::new();
                for bucket in histogram.get_bucket() {
                    let count = bucket.cumulative_count() - below;
                    below = bucket.cumulative_count();
                    if count > 0 {
                        buckets.push((bucket.upper_bound(), count));
                    }
                }
                Measured::Distribution {
                    count: histogram.get_sample_count(),
                    sum: histogram.get_sample_sum(),
                    buckets,
                }
            }
            MetricType::COUNTER => Measured::Number {
                value: metric.get_counter().get_value(),
            },
            _ => Measured::Number {
                value: metric.get_gauge().get_value(),
            },
        };
        let labels = metric.get_label().iter();
        Sample {
            name: family.name().to_owned(),
            labels: labels
                .map(|label| (label.name().to_owned(), label.value().to_owned()))
                .collect(),
            measured,
        }
    })
}
