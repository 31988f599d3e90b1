//! Real faults on real processes: a cluster of three servers, three coordinators and four workers, on
//! which everything that can go wrong does, while sagas of all shapes run. An independent checker then
//! compares what everybody can see with what must have happened.
//!
//! The short version runs with the other tests, `scripts/faults` runs longer ones.
#![cfg(target_os = "linux")]
#![expect(
    clippy::print_stdout,
    reason = "how a rehearsal goes, and its report, are for people"
)]

mod fault;
mod load;
mod members;
mod observe;
mod rehearsal;
mod shape;
mod upgrade;

use dirigent_tests::sandbox::Sandbox;
use rehearsal::Plan;
use std::{env, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_nothing_is_lost_or_doubled() -> anyhow::Result<()> {
    let Some(sandbox) = Sandbox::enter("whatever_fails_nothing_is_lost_or_doubled")? else {
        return Ok(());
    };
    let plan = Plan {
        sagas: 300,
        window: Duration::from_secs(50),
        fault: Duration::from_secs(2),
        seed: 1,
    };
    rehearsal::run(plan, sandbox).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told to: scripts/faults"]
async fn whatever_fails_for_long_nothing_is_lost_or_doubled() -> anyhow::Result<()> {
    let Some(sandbox) = Sandbox::enter("whatever_fails_for_long_nothing_is_lost_or_doubled")?
    else {
        return Ok(());
    };
    let number = |name: &str, default: u64| -> anyhow::Result<u64> {
        Ok(env::var(name).map_or(Ok(default), |text| text.parse())?)
    };
    let plan = Plan {
        sagas: usize::try_from(number("DIRIGENT_FAULTS_SAGAS", 5_000)?)?,
        window: Duration::from_secs(60 * number("DIRIGENT_FAULTS_MINUTES", 10)?),
        fault: Duration::from_secs(10),
        seed: number("DIRIGENT_FAULTS_SEED", 1)?,
    };
    rehearsal::run(plan, sandbox).await
}
