//! The documents of the recorded runs: all that ran are accepted, all that were refused are refused,
//! at the place that was named.
//!
//! The recordings stand in the folder that `DIRIGENT_CONFORMANCE` names, `../shared/conformance` if it
//! is not set; without them this test says so, and passes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may stop, and says what it skips"
)]

use dirigent_contracts::definition::{self, Report};
use serde_json::Value;
use std::{fs, path::PathBuf};

fn recordings(file: &str) -> Option<Vec<Value>> {
    let folder = std::env::var_os("DIRIGENT_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    match fs::read_to_string(folder.join(file)) {
        Ok(text) => Some(
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
        ),
        Err(error) => {
            eprintln!(
                "SKIPPED: {} cannot be read: {error}",
                folder.join(file).display()
            );
            None
        }
    }
}

fn parse(case: &Value, definition: &Value) -> Result<(), Report> {
    // Whether a workflow is an Express one is no part of its definition.
    let is_express = case["id"].as_str().unwrap().contains("express");
    let text = serde_json::to_string_pretty(definition).unwrap();
    let parsed = if is_express {
        definition::parse_express("recorded.json", &text)
    } else {
        definition::parse("recorded.json", &text)
    };
    parsed.map(drop)
}

#[test]
fn what_ran_is_accepted() {
    let Some(cases) = recordings("runs.jsonl") else {
        return;
    };
    let mut refused = Vec::new();
    let mut count = 0;
    for case in &cases {
        for definition in case["machines"].as_object().unwrap().values() {
            count += 1;
            if let Err(report) = parse(case, definition) {
                let first = &report.diagnostics()[0];
                refused.push(format!(
                    "{}: {} at {}",
                    case["id"], first.message, first.pointer
                ));
            }
        }
    }
    assert!(count > 0);
    assert!(
        refused.is_empty(),
        "{} of {count} refused:\n{}",
        refused.len(),
        refused.join("\n")
    );
}

#[test]
fn what_was_refused_is_refused_at_its_place() {
    let Some(cases) = recordings("invalid.jsonl") else {
        return;
    };
    let mut wrong = Vec::new();
    for case in &cases {
        let recorded = case["recorded"].to_string();
        let place = recorded.split(" at /").nth(1).map(|rest| {
            let end = rest.find(['\'', '"', '\\', ' ']).unwrap_or(rest.len());
            format!("/{}", &rest[..end])
        });
        let definitions = case["definitions"].as_array().cloned().unwrap_or_default();
        let reports: Vec<_> = definitions
            .iter()
            .filter_map(|definition| parse(case, definition).err())
            .collect();
        if reports.is_empty() {
            wrong.push(format!("{} was accepted", case["id"]));
            continue;
        }
        let place = place.map(|place| place.trim_end_matches('/').to_owned());
        let is_named = place.as_ref().is_none_or(|place| {
            reports
                .iter()
                .flat_map(Report::diagnostics)
                .any(|one| one.pointer == *place)
        });
        if !is_named {
            let found: Vec<_> = reports
                .iter()
                .flat_map(Report::diagnostics)
                .map(|one| format!("{} at {:?}", one.message, one.pointer))
                .collect();
            wrong.push(format!(
                "{}: {place:?} is not named, but {found:?}",
                case["id"]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
