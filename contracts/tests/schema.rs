//! The published JSON Schema agrees with the parser: whatever runs is valid, and what an editor can know
//! to be wrong is not.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may stop, and says what it skips"
)]

use dirigent_contracts::definition;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::{fs, path::Path};

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(definition::SCHEMA).unwrap();
    assert!(
        jsonschema::meta::is_valid(&schema),
        "the schema is no schema"
    );
    jsonschema::validator_for(&schema).unwrap()
}

fn faults(validator: &Validator, document: &Value) -> Vec<String> {
    let fault =
        |error: jsonschema::ValidationError<'_>| format!("{} at {}", error, error.instance_path());
    validator.iter_errors(document).map(fault).collect()
}

/// Every definition in a folder of this repository.
fn definitions(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let names = files.map(|file| (file.file_name().into_string().unwrap(), file.path()));
    let wanted = names.filter(|(name, _)| !name.ends_with(".test.yaml"));
    wanted
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn the_corpus_and_the_examples_are_accepted_and_valid() {
    let validator = validator();
    let mut all = definitions("tests/corpus");
    all.extend(definitions("../workers/examples/definitions"));
    assert!(all.len() > 9, "only {} were found", all.len());
    for (name, text) in all {
        if let Err(report) = definition::parse(&name, &text) {
            panic!("{name}: {:#?}", report.diagnostics());
        }
        let document = definition::value(&name, &text).unwrap();
        let none = Vec::<String>::new();
        assert_eq!(faults(&validator, &document), none, "{name}");
    }
}

#[test]
fn whatever_was_recorded_to_run_is_valid() {
    let folder = std::env::var_os("DIRIGENT_CONFORMANCE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        Into::into,
    );
    let Ok(text) = fs::read_to_string(folder.join("runs.jsonl")) else {
        eprintln!("SKIPPED: there is no runs.jsonl in {}", folder.display());
        return;
    };
    let validator = validator();
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        for machine in case["machines"].as_object().unwrap().values() {
            let faults = faults(&validator, machine);
            assert_eq!(faults, Vec::<String>::new(), "{}: {machine:#}", case["id"]);
        }
    }
}

#[test]
fn what_an_editor_can_know_to_be_wrong_is_refused() {
    let validator = validator();
    let with = |state: Value| json!({"StartAt": "A", "States": {"A": state}});
    let task = json!({"Type": "Task", "Resource": "task:pay", "End": true});
    assert!(validator.is_valid(&with(task.clone())));
    for (field, value) in [
        ("Resource", json!("pay")),
        ("Timeout", json!(3)),
        ("Next", json!("B")),
        ("TimeoutSeconds", json!(-1)),
        ("Retry", json!([{"ErrorEquals": []}])),
        ("Catch", json!([{"ErrorEquals": ["E"]}])),
        ("Compensate", json!({"Task": "undo"})),
        ("Type", json!("Tusk")),
    ] {
        let mut state = task.clone();
        state[field] = value;
        assert!(
            !validator.is_valid(&with(state.clone())),
            "{state} is valid"
        );
    }
    assert!(!validator.is_valid(&json!({"StartAt": "A"})));
    assert!(!validator.is_valid(&with(json!({"Type": "Wait", "End": true}))));
    let both =
        json!({"Type": "Wait", "Seconds": 1, "Timestamp": "2030-01-01T00:00:00Z", "End": true});
    assert!(!validator.is_valid(&with(both)));
}
