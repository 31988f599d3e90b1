//! `dirigent bench` as a process with processes of its own: what it reports adds up.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use dirigent_tests::nats::find_binary;
use serde_json::Value;
use std::process::Command;

fn bench(line: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_dirigent"))
        .arg("bench")
        .args(line.split_whitespace())
        .args(["-o", "json", "--nats-server"])
        .arg(find_binary().unwrap())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_floor_moves_the_messages_and_bytes_of_sagas() {
    let report = bench("w3,w3c,p10 --compare-floor --turns 1 --in-flight 4 --sagas 20");
    let measurements = report["measurements"].as_array().unwrap();
    assert_eq!(measurements.len(), 3);
    for (measurement, messages) in measurements.iter().zip([8.0, 12.0, 22.0]) {
        let counts = |of: &str| {
            let figures = &measurement[of];
            assert_eq!(figures["sagas"], 20, "{measurement:#}");
            (
                figures["messages"].as_f64().unwrap(),
                figures["bytes"].as_f64().unwrap(),
            )
        };
        let (ours, floor) = (counts("dirigent"), counts("floor"));
        assert!((ours.0 - messages).abs() < 0.01, "{measurement:#}");
        assert!((floor.0 - messages).abs() < 0.01, "{measurement:#}");
        // Numbers have as many digits as they have.
        assert!((ours.1 / floor.1 - 1.0).abs() < 0.02, "{measurement:#}");
    }
}

#[test]
fn every_span_of_every_saga_arrives_when_all_are_traced() {
    let report = bench("--compare-traced --sagas 30 --turns 2");
    for of in ["off", "on"] {
        assert_eq!(report[of]["sagas"], 60, "{report:#}");
    }
    // The saga, and of each of three steps the state, the attempt and the execution.
    assert_eq!(report["spans_per_saga"], 10.0, "{report:#}");
    assert_eq!(report["slowdown_of_rounds"].as_array().unwrap().len(), 2);
}

#[test]
fn an_open_loop_starts_what_was_asked_for_and_a_page_shows_it() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("report.html");
    let line = format!("e --rate 20 --duration 1s --report {}", page.display());
    let report = bench(&line);
    let figures = &report["measurements"][0]["dirigent"];
    assert_eq!(figures["sagas"], 20, "{figures:#}");
    assert_eq!(figures["unfinished"], 0, "{figures:#}");
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.contains("e, load 20/s"), "{page}");
}

#[test]
fn an_overload_is_measured_in_turns() {
    let report = bench("w3 --overload 3 --in-flight 8 --sagas 200 --duration 1s --turns 1");
    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 1, "{report:#}");
    let rate = |of: &str| rounds[0][of]["rate"].as_f64().unwrap();
    assert!(
        (rate("over") / rate("once") - 3.0).abs() < 0.1,
        "{report:#}"
    );
    for of in ["once", "over"] {
        let offer = &rounds[0][of];
        assert!(offer["goodput"].as_f64().unwrap() > 0.0, "{report:#}");
        assert_eq!(
            (&offer["astray"], &offer["unfinished"]),
            (&0.into(), &0.into())
        );
    }
}
