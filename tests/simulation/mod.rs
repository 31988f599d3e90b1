//! Whole coordinators and model workers on virtual time, against a model of `JetStream` that does
//! what the real one may do: nothing is lost, nothing is done twice, everything ends.
//!
//! A seed gives a schedule ([`schedule`]), and a schedule gives a run ([`world`]), the same each time.
//! An auditor ([`audit`]) folds each journal once and in order, and holds what is published and done
//! against that after every step. A run that goes wrong is shortened as far as it still goes wrong,
//! and printed.
//!
//! `DIRIGENT_SEEDS=1000000` runs more seeds than usual, `DIRIGENT_SEED=7` a single one.

mod audit;
mod broker;
mod coordinator;
#[allow(
    dead_code,
    reason = "the comparison with a real broker uses more of it"
)]
mod jetstream;
mod scenario;
mod schedule;
mod worker;
mod world;

use schedule::Schedule;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use world::{Flaw, World};

/// How many seeds are run if nothing else is said.
const SEEDS: u64 = 10_000;
/// Within so many seeds each flaw must be found.
const SEEDS_FOR_A_FLAW: u64 = 2_000;
/// How many lines of a run that went wrong are printed.
const LINES: usize = 60;

fn run(schedule: &Schedule, flaw: Option<Flaw>) -> Result<(), String> {
    World::new(schedule.clone(), flaw, false).run()
}

/// Leaves out of a schedule what it does not need to go wrong.
fn shorten(mut schedule: Schedule, flaw: Option<Flaw>) -> Schedule {
    let goes_wrong = |schedule: &Schedule| run(schedule, flaw).is_err();
    loop {
        let mut is_shorter = false;
        for n in (0..schedule.faults.len()).rev() {
            let mut without = schedule.clone();
            without.faults.remove(n);
            if goes_wrong(&without) {
                (schedule, is_shorter) = (without, true);
            }
        }
        for n in (0..schedule.plans.len()).rev() {
            let mut without = schedule.clone();
            without.plans.remove(n);
            if !without.plans.is_empty() && goes_wrong(&without) {
                (schedule, is_shorter) = (without, true);
            }
        }
        if !is_shorter {
            return schedule;
        }
    }
}

/// What is told of a run that goes wrong: its shortest schedule, and how it went.
fn report(schedule: Schedule, flaw: Option<Flaw>) -> String {
    let seed = schedule.seed;
    let schedule = shorten(schedule, flaw);
    let mut world = World::new(schedule.clone(), flaw, true);
    let wrong = world.run().expect_err("it went wrong before");
    let log = world.log.unwrap_or_default();
    let log = &log[log.len().saturating_sub(LINES)..];
    format!(
        "seed {seed}: {wrong}\n\n{schedule:#?}\n\n{}",
        log.join("\n")
    )
}

/// Runs seeds on all cores until one goes wrong.
fn first_wrong(seeds: std::ops::Range<u64>, flaw: Option<Flaw>) -> Option<Schedule> {
    let next = AtomicU64::new(seeds.start);
    let wrong = AtomicU64::new(u64::MAX);
    let is_over = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let schedule = Schedule::of(seed);
                    let result = std::panic::catch_unwind(|| run(&schedule, flaw));
                    if !matches!(result, Ok(Ok(()))) {
                        wrong.fetch_min(seed, Ordering::Relaxed);
                        is_over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner();
    (wrong < u64::MAX).then(|| Schedule::of(wrong))
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|error| panic!("{name} is {text:?}: {error}")))
}

#[test]
fn nothing_is_lost_and_nothing_is_done_twice() {
    let seeds = match number("DIRIGENT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DIRIGENT_SEEDS").unwrap_or(SEEDS),
    };
    if let Some(schedule) = first_wrong(seeds, None) {
        panic!("{}", report(schedule, None));
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in 0..20 {
        let runs = [(); 2].map(|()| {
            let mut world = World::new(Schedule::of(seed), None, true);
            let result = world.run();
            (result, world.log)
        });
        assert!(runs[0] == runs[1], "seed {seed}");
    }
}

fn finds(flaw: Flaw) {
    let schedule = first_wrong(0..SEEDS_FOR_A_FLAW, Some(flaw));
    let schedule = schedule.unwrap_or_else(|| panic!("{flaw:?} was not found"));
    let seed = schedule.seed;
    assert_eq!(
        run(&schedule, None),
        Ok(()),
        "seed {seed} goes wrong without {flaw:?} too"
    );
}

#[test]
fn effects_before_their_cause_are_found() {
    finds(Flaw::EffectsBeforeTheirCause);
}

#[test]
fn a_checkpoint_before_acknowledgements_is_found() {
    finds(Flaw::CheckpointBeforeAcknowledgements);
}

#[test]
fn dedupe_by_window_only_is_found() {
    finds(Flaw::DedupeByWindowOnly);
}

#[test]
fn a_timer_that_beats_an_earlier_reply_is_found() {
    finds(Flaw::TimerBeatsEarlierReply);
}

#[test]
fn a_takeover_without_replay_is_found() {
    finds(Flaw::TakeoverWithoutReplay);
}
