//! What a state transition costs: time and allocations, in both query languages.
//!
//! `cargo bench -p dirigent-coordinator` runs it. Each sample folds entries of one saga whose definition
//! was compiled before; items are transitions.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may stop")]

use dirigent_contracts::{
    id::{JournalSeq, PartitionId, SagaAddress},
    journal::{Entry, Start},
    limits::SagaLimits,
    task::{Reply, TaskResult},
    time::Timestamp,
};
use dirigent_coordinator::engine::{Effect, Effects, Program, Record, Saga, fold};
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use serde_json::{Value, json};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// States of a chain.
const CHAIN: usize = 100;

fn main() {
    divan::main();
}

/// A definition of so many states in a row, each of which is `state`.
fn chain(language: &str, state: &Value) -> Program {
    let states = (0..CHAIN).map(|at| {
        let mut state = state.clone();
        if at + 1 == CHAIN {
            state["End"] = json!(true);
        } else {
            state["Next"] = json!(format!("S{}", at + 1));
        }
        (format!("S{at}"), state)
    });
    let definition = json!({
        "QueryLanguage": language,
        "StartAt": "S0",
        "States": states.collect::<serde_json::Map<_, _>>(),
    });
    compile(&definition)
}

fn compile(definition: &Value) -> Program {
    let compiled = dirigent_coordinator::compile("bench.json", &definition.to_string());
    match compiled {
        Ok((_, program)) => program,
        Err(report) => panic!("{report}"),
    }
}

fn record(seq: u64, entry: Entry) -> Record {
    Record {
        partition: PartitionId(0),
        seq: JournalSeq(seq),
        at: Timestamp::from_millis(1_700_000_000_000),
        address: SagaAddress {
            definition: "bench".parse().unwrap(),
            key: "key".parse().unwrap(),
        },
        trace: None,
        entry,
    }
}

fn start() -> Record {
    let input = json!({
        "order": { "id": "o-1", "total": 12.5, "items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}] },
        "customer": { "name": "Ada", "email": "ada@example.org" },
        "count": 1,
    });
    let start = Start {
        digest: "0".repeat(64).parse().unwrap(),
        input: Arc::new(input),
        trigger: None,
        parent: None,
        part: None,
        limits: SagaLimits::default(),
    };
    record(1, Entry::Start(start))
}

/// Folds a start that runs through the whole chain.
fn run(bencher: Bencher<'_, '_>, program: &Program) {
    let start = start();
    bencher.counter(ItemsCount::new(CHAIN)).bench(|| {
        let mut saga = None;
        fold(&mut saga, Some(program), &start)
    });
}

#[divan::bench]
fn pass_jsonpath(bencher: Bencher<'_, '_>) {
    run(bencher, &chain("JSONPath", &json!({"Type": "Pass"})));
}

#[divan::bench]
fn pass_jsonata(bencher: Bencher<'_, '_>) {
    run(bencher, &chain("JSONata", &json!({"Type": "Pass"})));
}

#[divan::bench]
fn parameters_jsonpath(bencher: Bencher<'_, '_>) {
    let parameters = json!({
        "order.$": "$.order",
        "customer.$": "$.customer",
        "count.$": "States.MathAdd($.count, 1)",
    });
    let state = json!({"Type": "Pass", "Parameters": parameters});
    run(bencher, &chain("JSONPath", &state));
}

#[divan::bench]
fn output_jsonata(bencher: Bencher<'_, '_>) {
    let output = json!({
        "order": "{% $states.input.order %}",
        "customer": "{% $states.input.customer %}",
        "count": "{% $states.input.count + 1 %}",
    });
    let state = json!({"Type": "Pass", "Output": output});
    run(bencher, &chain("JSONata", &state));
}

#[divan::bench]
fn choice_jsonpath(bencher: Bencher<'_, '_>) {
    run(bencher, &choices("JSONPath"));
}

#[divan::bench]
fn choice_jsonata(bencher: Bencher<'_, '_>) {
    run(bencher, &choices("JSONata"));
}

fn choices(language: &str) -> Program {
    let rule = |next: &str| match language {
        "JSONPath" => json!({
            "Variable": "$.order.total", "NumericGreaterThan": 10, "Next": next
        }),
        _ => json!({"Condition": "{% $states.input.order.total > 10 %}", "Next": next}),
    };
    let mut states = serde_json::Map::new();
    for at in 0..CHAIN - 1 {
        let next = format!("S{}", at + 1);
        let state = json!({"Type": "Choice", "Choices": [rule(&next)], "Default": next});
        states.insert(format!("S{at}"), state);
    }
    states.insert(format!("S{}", CHAIN - 1), json!({"Type": "Succeed"}));
    compile(&json!({"QueryLanguage": language, "StartAt": "S0", "States": states}))
}

/// Steps with workers: an entry for each reply.
fn steps(bencher: Bencher<'_, '_>, program: &Program) {
    let output = Arc::new(json!({"ok": true, "receipt": "r-1"}));
    bencher.counter(ItemsCount::new(CHAIN)).bench(|| {
        let mut saga: Option<Saga> = None;
        let mut effects: Effects = fold(&mut saga, Some(program), &start());
        let mut seq = 1;
        while let Some(Effect::Command { command, .. }) = effects.effects.pop() {
            seq += 1;
            let reply = Reply {
                command: command.command,
                result: TaskResult::Succeeded {
                    output: Arc::clone(&output),
                },
                callback: false,
                worker: String::new(),
                timing: None,
            };
            effects = fold(&mut saga, Some(program), &record(seq, Entry::Reply(reply)));
        }
        assert_eq!(seq, CHAIN as u64 + 1);
        saga
    });
}

#[divan::bench]
fn task_jsonpath(bencher: Bencher<'_, '_>) {
    let state = json!({
        "Type": "Task", "Resource": "arn:aws:lambda:eu-central-1:123456789012:function:work",
        "ResultPath": "$.result",
    });
    steps(bencher, &chain("JSONPath", &state));
}

#[divan::bench]
fn task_jsonata(bencher: Bencher<'_, '_>) {
    let state = json!({
        "Type": "Task", "Resource": "arn:aws:lambda:eu-central-1:123456789012:function:work",
        "Arguments": {"order": "{% $states.input.order %}", "customer": "{% $states.input.customer %}"},
        "Output": "{% $merge([$states.input, {'result': $states.result}]) %}",
    });
    steps(bencher, &chain("JSONata", &state));
}
