//! The sagas that are measured. Every step answers at once with 200 bytes; inputs have 300.

use crate::trouble::Trouble;
use clap::ValueEnum;
use dirigent_contracts::{api::DeployRequest, id::DefinitionName, outcome::SagaStatus};
use dirigent_worker::TaskError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Sagas at one in flight: enough for a p99, and over in seconds.
const SAGAS_ONE_BY_ONE: usize = 1_000;
/// Steps at every other level.
const STEPS: usize = 40_000;
/// How often each place in flight is used, where a saga takes a second whatever happens.
const TIMERS_IN_A_ROW: usize = 10;
/// Items of a Map.
const ITEMS: usize = 1_000;
/// The event that starts a saga, and the one that it awaits.
pub(super) const BEGIN_EVENT: &str = "bench.begin";
pub(super) const AWAITED_EVENT: &str = "bench.awaited";

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
    /// A Map of 1,000 items with a step each, within one saga
    M1000,
    /// The same with `Mode: DISTRIBUTED`: every item is a saga
    M1000d,
    /// One timer of a second
    T,
    /// Started by an event, and ended by a second one that it awaits
    E,
}

/// In which order the steps of a workload are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Each after the answer of the one before.
    Sequence,
    /// All at once.
    Parallel,
}

impl Workload {
    /// The name of its definition.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::W3 => "bench-w3",
            Self::W3c => "bench-w3c",
            Self::W10 => "bench-w10",
            Self::P10 => "bench-p10",
            Self::M1000 => "bench-m1000",
            Self::M1000d => "bench-m1000d",
            Self::T => "bench-t",
            Self::E => "bench-e",
        }
    }

    /// What the command line calls it.
    pub(super) fn word(self) -> &'static str {
        self.name().trim_start_matches("bench-")
    }

    /// Steps of one saga; what waits for a timer or an event counts as one.
    pub(super) fn steps(self) -> usize {
        match self {
            Self::W3 => 3,
            Self::W3c => 5,
            Self::W10 | Self::P10 => 10,
            Self::M1000 | Self::M1000d => ITEMS,
            Self::T | Self::E => 1,
        }
    }

    /// How many sagas are measured, if nothing else is said.
    pub(super) fn sagas(self, in_flight: usize) -> usize {
        match (self, in_flight) {
            (Self::T, _) => in_flight * TIMERS_IN_A_ROW,
            (Self::M1000 | Self::M1000d, _) => STEPS / ITEMS,
            (_, 1) => SAGAS_ONE_BY_ONE,
            _ => STEPS / self.steps().max(3),
        }
    }

    /// How each of its sagas ends.
    pub(super) fn outcome(self) -> SagaStatus {
        match self {
            Self::W3c => SagaStatus::Compensated,
            _ => SagaStatus::Succeeded,
        }
    }

    /// The shape by which the floor moves the same messages; none where there is no such simple one.
    pub(super) fn floor(self) -> Option<Order> {
        match self {
            Self::W3 | Self::W3c | Self::W10 => Some(Order::Sequence),
            Self::P10 | Self::M1000 => Some(Order::Parallel),
            Self::M1000d | Self::T | Self::E => None,
        }
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
            name: definition(self.name())?,
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
                only(json!({"Type": "Parallel",
                    "Branches": (1..=10).map(branch).collect::<Vec<_>>()}))
            }
            Self::M1000 => only(map("INLINE")),
            Self::M1000d => only(map("DISTRIBUTED")),
            Self::T => only(json!({"Type": "Wait", "Seconds": 1})),
            Self::E => {
                let mut document = only(json!({"Type": "Task",
                    "Resource": format!("event:{AWAITED_EVENT}.await"), "TimeoutSeconds": 60}));
                document["Extensions"] = json!(["saga/1"]);
                document["Triggers"] =
                    json!([{"Event": BEGIN_EVENT, "Key": "{% $event.data.order %}"}]);
                document
            }
        }
    }
}

/// A saga of one state.
fn only(mut state: Value) -> Value {
    state["Output"] = json!("{% $states.input %}");
    state["End"] = json!(true);
    json!({"QueryLanguage": "JSONata", "StartAt": "Only", "States": {"Only": state}})
}

fn map(mode: &str) -> Value {
    let mut processor = json!({"Mode": mode});
    if mode == "DISTRIBUTED" {
        processor["ExecutionType"] = json!("STANDARD");
    }
    json!({
        "Type": "Map",
        "Items": format!("{{% [1..{ITEMS}] %}}"),
        "ItemSelector": "{% $states.input %}",
        "ItemProcessor": {
            "ProcessorConfig": processor,
            "StartAt": "S",
            "States": {"S": {"Type": "Task", "Resource": "task:bench", "End": true}},
        },
    })
}

/// Definitions of sagas that wait for longer than any measurement: for a timer, and for an event.
pub(super) fn waiting() -> Result<[DeployRequest; 2], Trouble> {
    let timer = only(json!({"Type": "Wait", "Seconds": 86_400}));
    let mut event = only(
        json!({"Type": "Task", "Resource": "event:bench.never.await",
        "TimeoutSeconds": 86_400}),
    );
    event["Extensions"] = json!(["saga/1"]);
    let deployment = |name: &str, document: Value| {
        Ok(DeployRequest {
            name: definition(name)?,
            document: document.to_string(),
        })
    };
    Ok([
        deployment("bench-waits-for-timer", timer)?,
        deployment("bench-waits-for-event", event)?,
    ])
}

fn definition(name: &str) -> Result<DefinitionName, Trouble> {
    name.parse()
        .map_err(|error| Trouble::bench(format!("{name}: {error}")))
}

/// A saga's input: 300 bytes of JSON, with its key for the rule of a trigger.
pub(super) fn input(key: &str) -> Value {
    let note = "x".repeat(254_usize.saturating_sub(key.len()));
    json!({"order": key, "customer": "c-87654321", "note": note})
}

/// What a step's worker says.
pub(super) fn answer(is_refused: bool) -> Result<Value, TaskError> {
    if is_refused {
        return Err(TaskError::new("Refused", "x".repeat(150)).permanent());
    }
    Ok(result())
}

/// A step's result: 200 bytes of JSON.
pub(super) fn result() -> Value {
    json!({"result": "x".repeat(187)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_promised() {
        for key in ["", "k-1", "0123456789abcdef"] {
            assert_eq!(input(key).to_string().len(), 300);
        }
        assert_eq!(result().to_string().len(), 200);
    }

    #[test]
    fn every_workload_is_a_valid_definition() {
        for workload in Workload::value_variants() {
            let document = workload.document().to_string();
            dirigent_coordinator::compile(workload.name(), &document).unwrap();
        }
        for deployment in waiting().unwrap() {
            dirigent_coordinator::compile("waiting", &deployment.document).unwrap();
        }
    }
}
