//! The language, proven by recordings that others made: what Step Functions answered, the fold
//! answers.
//!
//! The recordings stand in the folder that `DIRIGENT_CONFORMANCE` names, `../shared/conformance` if it
//! is not set; without them these tests say so, and pass. To see every difference:
//!
//! ```text
//! DIRIGENT_CONFORMANCE_VERBOSE=1 cargo test -p dirigent-tests --test conformance -- --nocapture
//! ```

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

use cases::Class;
use compare::Difference;
use player::{Fault, Player};
use std::collections::BTreeMap;

/// How many cases of a class agree.
#[derive(Debug, Default)]
struct Score {
    cases: usize,
    level_1: usize,
    level_2: usize,
}

impl Score {
    fn percent(part: usize, of: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a few hundred cases")]
        let percent = part as f64 * 100.0 / of.max(1) as f64;
        percent
    }
}

fn run_all(fault: Fault) -> Option<BTreeMap<Class, Score>> {
    let cases = cases::read()?;
    let is_verbose = std::env::var_os("DIRIGENT_CONFORMANCE_VERBOSE").is_some();
    let mut scores: BTreeMap<Class, Score> = BTreeMap::new();
    let (mut below_1, mut below_2) = (Vec::new(), Vec::new());
    for case in &cases {
        let differences: Vec<Difference> = case
            .runs
            .iter()
            .flat_map(|run| match Player::play(case, run, fault) {
                Ok(played) => compare::differences(run, &played),
                Err(refused) => vec![Difference::Outcome(refused)],
            })
            .collect();
        let is_known = deviations::reason(&case.id).is_some();
        let outcome_agrees = !differences.iter().any(Difference::is_of_level_1);
        let score = scores.entry(case.class).or_default();
        score.cases += 1;
        score.level_1 += usize::from(outcome_agrees);
        score.level_2 += usize::from(differences.is_empty());
        if !outcome_agrees && !is_known {
            below_1.push(case.id.as_str());
        } else if !differences.is_empty() && !is_known {
            below_2.push(case.id.as_str());
        }
        if is_verbose && !differences.is_empty() {
            println!("\n{:?} {}", case.class, case.id);
            if let Some(reason) = deviations::reason(&case.id) {
                println!("    known: {reason}");
            }
            for difference in &differences {
                println!("    {difference}");
            }
        }
    }
    println!(
        "{fault:?}: {:<9} {:>5} {:>12} {:>12}",
        "class", "cases", "L1", "L2"
    );
    for (class, score) in &scores {
        println!(
            "{:<18?} {:>5} {:>5} {:>5.1}% {:>5} {:>5.1}%",
            class,
            score.cases,
            score.level_1,
            Score::percent(score.level_1, score.cases),
            score.level_2,
            Score::percent(score.level_2, score.cases),
        );
    }
    println!("differ in outcome, output or payload: {below_1:#?}");
    println!("differ in the order of events only: {below_2:#?}");
    Some(scores)
}

/// The bars: of the classes that need no service of AWS together, and of those that do.
fn check(scores: &BTreeMap<Class, Score>) {
    let (mut plain, mut aws) = (Score::default(), Score::default());
    for (class, score) in scores {
        let sum = if *class == Class::Aws {
            &mut aws
        } else {
            &mut plain
        };
        sum.cases += score.cases;
        sum.level_1 += score.level_1;
        sum.level_2 += score.level_2;
    }
    let percent = |part, of: &Score| Score::percent(part, of.cases);
    assert!(percent(plain.level_1, &plain) >= 98.0, "L1 of {plain:?}");
    assert!(percent(plain.level_2, &plain) >= 95.0, "L2 of {plain:?}");
    assert!(percent(aws.level_1, &aws) >= 90.0, "L1 of {aws:?}");
}

#[test]
fn recorded_runs_come_out_as_recorded() {
    if let Some(scores) = run_all(Fault::None) {
        check(&scores);
    }
}

#[test]
fn recorded_runs_bear_that_every_entry_comes_twice() {
    if let Some(scores) = run_all(Fault::Doubled) {
        check(&scores);
    }
}

#[test]
fn recorded_runs_bear_that_the_state_is_rebuilt_after_every_entry() {
    if let Some(scores) = run_all(Fault::Rebuilt) {
        check(&scores);
    }
}
