//! What a metric is called and means: the reference that code, dashboards and documents agree on.
//!
//! A metric has the name that OTLP carries; [`Metric::prometheus`] is its name on a scrape page, by the
//! rules of OpenTelemetry's Prometheus compatibility specification.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, in the style of OpenTelemetry.
    pub name: &'static str,
    /// How it counts.
    pub kind: Kind,
    /// Its unit as UCUM writes it; what is counted stands in braces.
    pub unit: &'static str,
    /// The labels that each of its series has.
    pub labels: &'static [&'static str],
    /// What it says, for people.
    pub help: &'static str,
}

/// How a metric counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over buckets.
    Histogram(Buckets),
}

impl Kind {
    /// The word that a scrape page has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Buckets whose bounds double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buckets {
    /// The first bound.
    pub first: f64,
    /// How many bounds there are.
    pub count: u8,
}

impl Buckets {
    /// The upper bounds.
    #[must_use]
    pub fn bounds(self) -> Vec<f64> {
        (0..self.count)
            .map(|at| self.first * 2_f64.powi(i32::from(at)))
            .collect()
    }
}

/// What one coordinator answers to the question on [`crate::subject::METRICS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub coordinator: String,
    /// All its series.
    pub samples: Vec<Sample>,
}

/// One series as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The metric's name on a scrape page.
    pub name: String,
    /// The values of its labels.
    pub labels: BTreeMap<String, String>,
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measured,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Measured {
    /// A counter or a gauge.
    Number {
        /// Its value.
        value: f64,
    },
    /// A histogram.
    Distribution {
        /// How many values.
        count: u64,
        /// Their sum.
        sum: f64,
        /// Upper bounds of the buckets that are not empty, and how many values are in each; what is
        /// missing to `count` lies beyond the last bound.
        buckets: Vec<(f64, u64)>,
    },
}

/// Unit of a duration.
pub const SECONDS: &str = "s";

impl Metric {
    /// Its name on a scrape page. Of a histogram, `_bucket`, `_sum` and `_count` follow.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut name = self.name.replace('.', "_");
        if self.unit == SECONDS {
            name.push_str("_seconds");
        }
        if self.kind == Kind::Counter {
            name.push_str("_total");
        }
        name
    }
}

/// Declares metrics, and the list of all of them.
#[macro_export]
macro_rules! metrics {
    ($($constant:ident = $kind:expr, $name:literal, $unit:expr, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: $crate::metric::Metric = $crate::metric::Metric {
                name: $name,
                kind: $kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// All of them.
        pub const REFERENCE: &[$crate::metric::Metric] = &[$($constant),*];
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_a_scrape_page_tell_unit_and_kind() {
        let metric = |kind, unit| Metric {
            name: "dirigent.x.y",
            kind,
            unit,
            labels: &[],
            help: "",
        };
        let buckets = Buckets {
            first: 0.5,
            count: 3,
        };
        assert_eq!(buckets.bounds(), [0.5, 1.0, 2.0]);
        let histogram = metric(Kind::Histogram(buckets), SECONDS);
        assert_eq!(histogram.prometheus(), "dirigent_x_y_seconds");
        let counter = metric(Kind::Counter, "{saga}");
        assert_eq!(counter.prometheus(), "dirigent_x_y_total");
        assert_eq!(metric(Kind::Gauge, "{saga}").prometheus(), "dirigent_x_y");
    }
}
