//! The sagas that are measured. Every step answers at once with 200 bytes; inputs have 300.

use crate::trouble::Trouble;
use clap::ValueEnum;
use dirigent_contracts::{api::DeployRequest, id::IdError};
use dirigent_worker::TaskError;
use serde::Serialize;
use serde_json::{Value, json};

/// Sagas at one in flight: enough for a p99, and over in seconds.
const SAGAS_ONE_BY_ONE: usize = 1_000;

/// What one saga does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// Three steps in sequence
    W3,
    /// The third step fails for good: two compensations
    W3c,
    /// Ten steps in sequence
    W10,
    /// Ten steps in parallel, then join
    P10,
}

impl Workload {
    /// The name of its definition.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::W3 => "bench-w3",
            Self::W3c => "bench-w3c",
            Self::W10 => "bench-w10",
            Self::P10 => "bench-p10",
        }
    }

    /// Commands that one saga asks for.
    pub(super) fn steps(self) -> usize {
        match self {
            Self::W3 => 3,
            Self::W3c => 5,
            Self::W10 | Self::P10 => 10,
        }
    }

    /// How many sagas are measured, if nothing else is said.
    pub(super) fn sagas(self, in_flight: usize, wanted: Option<usize>) -> usize {
        wanted.unwrap_or(if in_flight == 1 {
            SAGAS_ONE_BY_ONE
        } else {
            20_000 / self.steps()
        })
    }

    /// All tasks, and whether they refuse.
    pub(super) fn tasks() -> [(&'static str, bool); 3] {
        [
            ("bench", false),
            ("bench-undo", false),
            ("bench-refuse", true),
        ]
    }

    pub(super) fn deployment(self) -> Result<DeployRequest, Trouble> {
        Ok(DeployRequest {
            name: self
                .name()
                .parse()
                .map_err(|error: IdError| Trouble::NoName {
                    path: self.name().into(),
                    reason: error.to_string(),
                })?,
            document: self.document().to_string(),
        })
    }

    fn document(self) -> Value {
        let step = |task: &str, next: Option<String>| {
            let mut state = json!({"Type": "Task", "Resource": format!("task:{task}"),
                "Output": "{% $states.input %}"});
            match next {
                Some(next) => state["Next"] = json!(next),
                None => state["End"] = json!(true),
            }
            state
        };
        let sequence = |count: usize| {
            let states: serde_json::Map<String, Value> = (1..=count)
                .map(|n| {
                    let next = (n < count).then(|| format!("S{}", n + 1));
                    (format!("S{n}"), step("bench", next))
                })
                .collect();
            json!({"QueryLanguage": "JSONata", "StartAt": "S1", "States": states})
        };
        match self {
            Self::W3 => sequence(3),
            Self::W10 => sequence(10),
            Self::W3c => {
                let mut document = sequence(3);
                document["Extensions"] = json!(["saga/1"]);
                for state in ["S1", "S2"] {
                    document["States"][state]["Compensate"] =
                        json!({"Resource": "task:bench-undo"});
                }
                document["States"]["S3"] = step("bench-refuse", None);
                document
            }
            Self::P10 => {
                let branch = |n: usize| {
                    let name = format!("S{n}");
                    json!({"StartAt": name, "States": {name.as_str(): step("bench", None)}})
                };
                json!({"QueryLanguage": "JSONata", "StartAt": "P", "States": {"P": {
                    "Type": "Parallel", "Branches": (1..=10).map(branch).collect::<Vec<_>>(),
                    "Output": "{% $states.input %}", "End": true,
                }}})
            }
        }
    }
}

/// A saga's input: 300 bytes of JSON.
pub(super) fn input() -> Value {
    json!({"order": "o-12345678", "customer": "c-87654321", "note": "x".repeat(244)})
}

/// A step's answer: 200 bytes of JSON.
pub(super) fn answer(is_refused: bool) -> Result<Value, TaskError> {
    if is_refused {
        return Err(TaskError::new("Refused", "x".repeat(150)).permanent());
    }
    Ok(json!({"result": "x".repeat(187)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_promised() {
        assert_eq!(input().to_string().len(), 300);
        assert_eq!(answer(false).unwrap().to_string().len(), 200);
    }

    #[test]
    fn every_workload_is_a_valid_definition() {
        for workload in Workload::value_variants() {
            let document = workload.document().to_string();
            dirigent_coordinator::compile(workload.name(), &document).unwrap();
        }
    }
}
