//! `bench`: what this machine does, measured as a user would meet it.
//!
//! The broker, the coordinators and the workers are processes of their own, so that the CPU time of
//! each can be told apart; the load comes from this one. Where the floor is measured too, the two take
//! turns, so that a machine that is busy with other things is so for both.

mod broker;
mod floor;
mod installation;
mod load;
mod measurement;
mod overload;
mod page;
mod process;
mod report;
mod startup;
mod takeover;
mod target;
mod traced;
mod workload;

pub(crate) use floor::floor;
pub(crate) use workload::Workload;

use crate::{
    arguments::{BenchArguments, BrokerArguments},
    connection::Connection,
    exit::Exit,
    render,
    trouble::Trouble,
};
use installation::Installation;
use load::{Keys, Pace};
use measurement::{Figures, Measurement, Turns};
use overload::Overload;
use report::Report;
use startup::Startup;
use takeover::Takeover;
use traced::Traced;

/// Starts everything, measures every workload at every level, and reports.
pub(crate) async fn bench(
    broker: &BrokerArguments,
    arguments: &BenchArguments,
    is_json: bool,
) -> Result<Exit, Trouble> {
    if arguments.floor && arguments.workloads.iter().any(|it| it.floor().is_none()) {
        return Err(Trouble::bench(
            "m1000d, t and e have no floor: their messages are not a plain sequence or a fan",
        ));
    }
    let directory = tempfile::tempdir().map_err(Trouble::Write)?;
    if arguments.startup {
        let startup = startup::measure(arguments, directory.path()).await?;
        report::show(&startup, Startup::table, is_json)?;
        return Ok(Exit::Done);
    }
    if arguments.takeover {
        let takeover = takeover::measure(broker, arguments, directory.path()).await?;
        report::show(&takeover, Takeover::table, is_json)?;
        return Ok(Exit::Done);
    }
    if let Some(factor) = arguments.overload {
        let overload = overload::measure(broker, arguments, factor, directory.path()).await?;
        report::show(&overload, Overload::table, is_json)?;
        return Ok(if overload.is_well() {
            Exit::Done
        } else {
            Exit::No
        });
    }
    if arguments.compare_traced {
        let traced = traced::measure(arguments, directory.path()).await?;
        report::show(&traced, Traced::table, is_json)?;
        if let Some(file) = &arguments.report {
            let page = page::plain("dirigent bench --compare-traced", &traced.table());
            std::fs::write(file, page).map_err(Trouble::Write)?;
        }
        return Ok(if traced.is_well() {
            Exit::Done
        } else {
            Exit::No
        });
    }
    let mut session = Session {
        dirigent: None,
        floor: None,
        keys: Keys::new(),
    };
    if !arguments.floor {
        let installation = Installation::dirigent(broker, arguments, directory.path()).await?;
        installation.prepare(arguments, &mut session.keys).await?;
        session.dirigent = Some(installation);
    }
    if arguments.floor || arguments.compare_floor {
        session.floor = Some(Installation::floor(arguments, directory.path()).await?);
    }
    let mut exit = Exit::Done;
    let mut measurements = Vec::new();
    for workload in &arguments.workloads {
        for pace in paces(arguments, *workload) {
            let (measurement, is_well) = session.measure(arguments, *workload, pace).await?;
            if !is_well {
                exit = Exit::No;
            }
            measurements.push(measurement);
        }
    }
    let report = session.report(arguments, measurements)?;
    report::show(&report, Report::tables, is_json)?;
    if let Some(file) = &arguments.report {
        std::fs::write(file, page::page(&report)?).map_err(Trouble::Write)?;
    }
    session.stop().await;
    Ok(exit)
}

/// The worker process: every task of every workload, answered at once.
pub(crate) async fn work(connection: Connection, concurrency: usize) -> Result<Exit, Trouble> {
    let telemetry = dirigent_worker::telemetry::init("dirigent-bench-worker");
    let telemetry = telemetry.map_err(Trouble::bench)?;
    let worker = installation::worker(&connection, concurrency)?;
    let ended = worker.run_until_signal().await;
    telemetry.shutdown().await;
    ended.map_err(Trouble::bench)?;
    Ok(Exit::Done)
}

/// The process that `bench --compare-traced` exports to.
pub(crate) async fn receive() -> Result<Exit, Trouble> {
    traced::receive().await
}

/// The levels at which a workload is measured.
fn paces(arguments: &BenchArguments, workload: Workload) -> Vec<Pace> {
    let turns = usize::from(arguments.turns.get());
    if let Some(rate) = arguments.rate {
        return vec![Pace::Open {
            rate: rate.get(),
            duration: arguments.duration,
        }];
    }
    let closed = |in_flight: usize| Pace::Closed {
        in_flight,
        sagas: arguments
            .sagas
            .unwrap_or_else(|| workload.sagas(in_flight))
            .div_ceil(turns),
    };
    let levels = arguments.in_flight.iter();
    levels.map(|level| closed(level.get())).collect()
}

/// The installations that are measured.
struct Session {
    dirigent: Option<Installation>,
    floor: Option<Installation>,
    keys: Keys,
}

impl Session {
    /// Measures both in turns. Also whether every saga ended as it should.
    async fn measure(
        &mut self,
        arguments: &BenchArguments,
        workload: Workload,
        pace: Pace,
    ) -> Result<(Measurement, bool), Trouble> {
        let mut all: [Option<Turns>; 2] = [None, None];
        for turn in 0..arguments.turns.get() {
            for (installation, turns) in [&self.dirigent, &self.floor].into_iter().zip(&mut all) {
                let Some(installation) = installation.as_ref() else {
                    continue;
                };
                if workload.floor().is_none() && installation.is_floor() {
                    continue;
                }
                let target = &installation.target;
                if turn == 0 {
                    // The first ones find cold caches and consumers that are not there yet.
                    load::run(target, workload, pace.warm_up(), &mut self.keys).await?;
                }
                let before = installation.account().await?;
                let run = load::run(target, workload, pace, &mut self.keys).await?;
                let after = installation.account().await?;
                match turns {
                    Some(turns) => turns.add(run, &before, &after)?,
                    None => *turns = Some(Turns::new(run, &before, &after)),
                }
            }
        }
        let is_well = !all.iter().flatten().any(Turns::has_trouble);
        let [dirigent, floor] = all.map(|turns| turns.map(|turns| turns.figures(workload)));
        let measurement = Measurement::new(workload, pace, dirigent, floor);
        render::say(&told(&measurement));
        Ok((measurement, is_well))
    }

    fn report(
        &self,
        arguments: &BenchArguments,
        measurements: Vec<Measurement>,
    ) -> Result<Report, Trouble> {
        let installation = self.dirigent.as_ref().or(self.floor.as_ref());
        let installation = installation.ok_or_else(|| Trouble::bench("nothing was measured"))?;
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            nats_server: installation.target.client().server_info().version,
            partitions: installation.partitions,
            coordinators: arguments.coordinators,
            workers: arguments.workers,
            replicas: arguments.replicas,
            sync: arguments.sync,
            live: arguments.live,
            finished: arguments.finished,
            measurements,
        })
    }

    async fn stop(self) {
        for installation in [self.dirigent, self.floor].into_iter().flatten() {
            installation.stop().await;
        }
    }
}

/// One line while it goes on.
fn told(measurement: &Measurement) -> String {
    let rate = |of: &Option<Figures>| {
        of.as_ref()
            .map(|figures| format!(" {:.0} sagas/s", figures.sagas_per_second))
    };
    let floor = rate(&measurement.floor).map(|rate| format!(" floor{rate}"));
    format!(
        "{} at {}:{}{}\n",
        measurement.workload.word(),
        measurement.load,
        rate(&measurement.dirigent).unwrap_or_default(),
        floor.unwrap_or_default()
    )
}
