//! The language, proven by recordings that others made: what Step Functions answered, the fold
//! answers.
//!
//! The recordings stand in the folder that `DIRIGENT_CONFORMANCE` names, `../shared/conformance` if it
//! is not set; without them these tests say so, and pass. `scripts/conformance` runs them and shows what
//! they print: counts, the cases that differ, and where the table of all cases is.
//! `DIRIGENT_CONFORMANCE_VERBOSE=1` adds every single difference.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is skipped, and how far the language goes, is told to whoever runs this"
)]

mod broker;
mod cases;
mod compare;
mod deviations;
mod player;
mod report;

use cases::Class;
use compare::Difference;
use dirigent_contracts::time::Timestamp;
use player::{Fault, Player};
use report::{Report, Row};

/// Runs every case, tells how they came out, and holds them to the bars: of the classes that need no
/// service of AWS together, and of those that do.
fn run_all(fault: Fault) {
    let Some(cases) = cases::read() else {
        return;
    };
    // A date in the past, as the recordings had: what they wait for has the same distance every day.
    // Some inputs name the moment of the recording: then no saga is older than it may be.
    let began = Timestamp::from_millis(1_795_000_000_000);
    let mut report = Report::new(fault);
    for case in &cases {
        let differences: Vec<Difference> = case
            .runs
            .iter()
            .flat_map(|run| match Player::play(case, run, fault, began) {
                Ok(played) => compare::differences(run, &played),
                Err(refused) => vec![Difference::Outcome(refused)],
            })
            .collect();
        report.add(Row {
            id: case.id.clone(),
            class: case.class,
            differences,
        });
    }
    let is_verbose = std::env::var_os("DIRIGENT_CONFORMANCE_VERBOSE").is_some();
    print!("{}", report.summary(is_verbose));
    match report.write() {
        Ok(path) => println!("  all cases: {}", path.display()),
        Err(error) => panic!("the table cannot be written: {error}"),
    }
    let plain = report.score(|class| class != Class::Aws);
    let aws = report.score(|class| class == Class::Aws);
    assert!(plain.level_1() >= 98.0, "L1 of {plain:?}");
    assert!(plain.level_2() >= 95.0, "L2 of {plain:?}");
    assert!(aws.level_1() >= 90.0, "L1 of {aws:?}");
}

#[test]
fn recorded_runs_come_out_as_recorded() {
    run_all(Fault::None);
}

#[test]
fn recorded_runs_bear_that_every_entry_comes_twice() {
    run_all(Fault::Doubled);
}

#[test]
fn recorded_runs_bear_that_the_state_is_rebuilt_after_every_entry() {
    run_all(Fault::Rebuilt);
}
