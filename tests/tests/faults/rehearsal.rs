//! Sagas run while everything that can go wrong does, and a report of it.
//!
//! Servers and members have a lane of faults each, so that a coordinator dies while the broker limps.
//! Within a lane one thing goes wrong at a time: three replicas are to survive the loss of one.

use crate::{
    fault::{Fault, Schedule},
    load,
    members::{self, COORDINATORS, Members, Role, WORKERS},
    observe,
};
use anyhow::{Context as _, ensure};
use async_nats::{Client, ConnectOptions};
use dirigent_contracts::api::HistoryRequest;
use dirigent_tests::{
    checker::{Asked, Verdict, judge},
    clock::Clock,
    cluster::{Cluster, SERVERS},
    disk::{SlowWrites, SmallDisk},
    ledger::Ledger,
    network::{Link, Network},
    request::request,
    sandbox::Sandbox,
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

/// How far clocks jump.
const HOURS: i64 = 3 * 3600;
/// How much longer each write to a slow disk takes.
const SLOWNESS: Duration = Duration::from_millis(50);
/// The server whose disk may be full.
const SMALL: usize = SERVERS - 1;
/// How long the last sagas may take once nothing goes wrong any more. A command that was in the hands
/// of a dead worker comes again after 30 s.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a leader may take to step down, and the pause between two requests for it.
const STEP_DOWN_LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);

/// How much is rehearsed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How many sagas are asked for.
    pub(crate) sagas: usize,
    /// Over how long.
    pub(crate) window: Duration,
    /// How long a fault lasts.
    pub(crate) fault: Duration,
    /// Decides the order of faults, and whom they befall.
    pub(crate) seed: u64,
}

/// The stage of a rehearsal.
struct Rehearsal {
    plan: Plan,
    client: Client,
    disk: Option<SmallDisk>,
    injected: BTreeMap<Fault, usize>,
    skipped: BTreeMap<Fault, String>,
    began: Instant,
}

/// Runs the plan; fails if anything is lost, doubled or wrong.
pub(crate) async fn run(plan: Plan, sandbox: Sandbox) -> anyhow::Result<()> {
    let mut skipped = BTreeMap::new();
    let mut skip = |faults: &[Fault], why: &dyn std::fmt::Display| {
        skipped.extend(faults.iter().map(|fault| (*fault, why.to_string())));
    };
    let network = match &sandbox {
        Sandbox::Inside => Network::lay(SERVERS).map_err(|error| error.to_string()),
        Sandbox::Missing(why) => Err(why.clone()),
    };
    if let Err(why) = &network {
        skip(
            &[Fault::CutOff, Fault::CutFromPeers, Fault::CutFromClients],
            why,
        );
    }
    let mut cluster = Cluster::start(network.ok()).await?;
    let disk = match &sandbox {
        Sandbox::Inside => Some(cluster.shrink_disk(SMALL).await?),
        Sandbox::Missing(why) => {
            skip(&[Fault::FullDisk], why);
            None
        }
    };
    if let Err(why) = SlowWrites::check().await {
        skip(&[Fault::SlowDisk], &why);
    }
    let clock = Clock::new(cluster.directory().join("a.clock"));
    if let Err(why) = &clock {
        skip(&[Fault::ClockAhead, Fault::ClockBehind], why);
    }
    let directory = cluster.directory().to_owned();
    let mut members = Members::start(cluster.url(), &directory, SERVERS, clock.is_ok())?;
    let client = cluster.connect().await?;
    let mut rehearsal = Rehearsal {
        plan,
        disk,
        injected: BTreeMap::new(),
        skipped,
        began: Instant::now(),
        client,
    };
    rehearsal.opened(&mut members).await?;
    let verdict = rehearsal.play(&mut cluster, &mut members).await;
    let is_clean = verdict
        .as_ref()
        .is_ok_and(|(_, verdict)| verdict.is_clean());
    if !is_clean {
        let kept = cluster.keep();
        println!("what was logged and stored is kept in {}", kept.display());
    }
    let (asked, verdict) = verdict?;
    println!("{}", rehearsal.report(&asked, &verdict, members.revived));
    ensure!(is_clean, "{verdict}");
    Ok(())
}

impl Rehearsal {
    /// Waits until the definitions are deployed.
    async fn opened(&self, members: &mut Members) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            match load::deploy(&self.client).await {
                Ok(()) => return Ok(()),
                Err(error) => ensure!(Instant::now() < until, "no coordinator serves: {error:#}"),
            }
            members.pass(Duration::from_millis(500)).await?;
        }
    }

    async fn play(
        &mut self,
        cluster: &mut Cluster,
        members: &mut Members,
    ) -> anyhow::Result<(Vec<Asked>, Verdict)> {
        self.began = Instant::now();
        let (client, plan) = (self.client.clone(), self.plan);
        let asking = tokio::spawn(async move { load::ask(&client, plan.sagas, plan.window).await });
        self.harm(cluster, members).await?;
        self.roll(cluster, members).await?;
        self.say("nothing goes wrong any more");
        let asked = loop {
            members.pass(Duration::from_millis(500)).await?;
            if asking.is_finished() {
                break asking.await??;
            }
            let late = self.began.elapsed().saturating_sub(plan.window);
            ensure!(late < 2 * PATIENCE, "not all starts are acknowledged");
        };
        self.say("all starts are acknowledged");
        let until = Instant::now() + PATIENCE;
        while observe::outcomes(&self.client).await?.len() < asked.len() && Instant::now() < until {
            members.pass(PAUSE).await?;
        }
        // What comes too late, or a second time, comes soon.
        members.pass(Duration::from_secs(3)).await?;
        let ledger = Ledger::accounts(&members::ledger(cluster.directory()))?;
        let seen = observe::seen(&self.client, ledger).await?;
        let verdict = judge(&asked, &seen);
        self.explain(&asked, &seen.ended).await;
        Ok((asked, verdict))
    }

    /// Lets both lanes go on until each fault was there once, and most of the window is over.
    async fn harm(&mut self, cluster: &mut Cluster, members: &mut Members) -> anyhow::Result<()> {
        let possible = |kinds: &[Fault]| {
            let possible = kinds.iter().copied();
            Schedule::of(
                possible
                    .filter(|it| !self.skipped.contains_key(it))
                    .collect(),
            )
        };
        let mut of_servers = possible(&Fault::OF_SERVERS);
        let mut of_members = possible(&Fault::OF_MEMBERS);
        let mut chance = fastrand::Rng::with_seed(self.plan.seed);
        let mut other_chance = chance.fork();
        let is_over = |schedule: &Schedule| {
            schedule.rounds > 0 && self.began.elapsed() > self.plan.window * 8 / 10
        };
        let this = &*self;
        let servers = async {
            let mut done = Vec::new();
            while !is_over(&of_servers) {
                let fault = of_servers.next(&mut chance);
                this.harm_servers(fault, cluster, &mut chance)
                    .await
                    .context(fault)?;
                done.push(fault);
            }
            anyhow::Ok(done)
        };
        let members = async {
            let mut done = Vec::new();
            while !is_over(&of_members) {
                let fault = of_members.next(&mut other_chance);
                this.harm_members(fault, members, &mut other_chance)
                    .await
                    .context(fault)?;
                done.push(fault);
            }
            anyhow::Ok(done)
        };
        let (of_servers, of_members) = tokio::try_join!(servers, members)?;
        for fault in of_servers.into_iter().chain(of_members) {
            *self.injected.entry(fault).or_default() += 1;
        }
        Ok(())
    }

    async fn harm_servers(
        &self,
        fault: Fault,
        cluster: &mut Cluster,
        chance: &mut fastrand::Rng,
    ) -> anyhow::Result<()> {
        let server = match fault {
            Fault::FullDisk => SMALL,
            _ => chance.usize(..SERVERS),
        };
        let hold = tokio::time::sleep(self.plan.fault);
        self.say(&format!("{fault} (server {server})"));
        match fault {
            Fault::KillServer => {
                cluster.kill(server)?;
                hold.await;
                cluster.launch(server)?;
            }
            Fault::KillAllServers => {
                for server in 0..SERVERS {
                    cluster.kill(server)?;
                }
                for server in 0..SERVERS {
                    cluster.launch(server)?;
                }
            }
            Fault::FreezeServer => {
                cluster.process(server)?.freeze()?;
                hold.await;
                cluster.process(server)?.thaw()?;
            }
            Fault::StepDownStream => {
                let stream = format!("STREAM.LEADER.STEPDOWN.DIRIGENT_JOURNAL_{server}");
                self.ask_broker(&self.client, &stream).await?;
            }
            Fault::StepDownConsumer => {
                let consumer = "CONSUMER.LEADER.STEPDOWN.DIRIGENT_COMMANDS.do-b";
                self.ask_broker(&self.client, consumer).await?;
            }
            Fault::StepDownMeta => {
                let system =
                    ConnectOptions::with_user_and_password("system".into(), "system".into());
                let urls = cluster.url();
                let urls: Vec<&str> = urls.split(',').collect();
                let system = system.connect(&urls[..]).await?;
                self.ask_broker(&system, "META.LEADER.STEPDOWN").await?;
            }
            Fault::CutOff | Fault::CutFromPeers | Fault::CutFromClients => {
                let links: &[Link] = match fault {
                    Fault::CutFromPeers => &[Link::Peers],
                    Fault::CutFromClients => &[Link::Clients],
                    _ => &[Link::Peers, Link::Clients],
                };
                let network = cluster.network().context("there are networks")?;
                for link in links {
                    network.cut(*link, server)?;
                }
                hold.await;
                for link in links {
                    network.mend(*link, server)?;
                }
            }
            Fault::SlowDisk => {
                let slow = SlowWrites::of(cluster.process(server)?, SLOWNESS).await?;
                hold.await;
                slow.end().await?;
            }
            Fault::FullDisk => {
                let disk = self.disk.as_ref().context("there is a small disk")?;
                disk.fill()?;
                hold.await;
                disk.free()?;
                // A server that could not write has given up JetStream until it is started again.
                cluster.kill(server)?;
                cluster.launch(server)?;
            }
            _ => unreachable!("befalls members"),
        }
        cluster.recovered().await
    }

    /// Asks something of JetStream until it is done; whoever leads may just have lost that part.
    async fn ask_broker(&self, client: &Client, what: &str) -> anyhow::Result<()> {
        let until = Instant::now() + STEP_DOWN_LIMIT;
        loop {
            let answer = client.request(format!("$JS.API.{what}"), "".into());
            let answer = match tokio::time::timeout(PAUSE, answer).await {
                Ok(Ok(answer)) => String::from_utf8_lossy(&answer.payload).into_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if answer.contains("\"success\":true") {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{what}: {answer}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn harm_members(
        &self,
        fault: Fault,
        members: &mut Members,
        chance: &mut fastrand::Rng,
    ) -> anyhow::Result<()> {
        let role = match fault {
            Fault::KillWorker | Fault::FreezeWorker => Role::Worker,
            _ => Role::Coordinator,
        };
        let n = members.pick(role, chance.usize(..));
        let hold = self.plan.fault;
        self.say(&format!("{fault} ({})", members.name(n)));
        match fault {
            Fault::KillCoordinator | Fault::KillWorker => {
                members.kill(n)?;
                // Sometimes it is back before the others have noticed.
                members.pass(hold.mul_f64(chance.f64())).await?;
                members.launch(n)?;
            }
            Fault::FreezeCoordinator | Fault::FreezeWorker => {
                members.process(n)?.freeze()?;
                members.pass(hold.max(Duration::from_secs(8))).await?;
                members.process(n)?.thaw()?;
            }
            Fault::ClockAhead | Fault::ClockBehind => {
                let ahead = if fault == Fault::ClockAhead {
                    HOURS
                } else {
                    -HOURS
                };
                members.clock(n)?.set_ahead(ahead)?;
                members.pass(hold).await?;
                members.clock(n)?.set_ahead(0)?;
            }
            _ => unreachable!("befalls servers"),
        }
        members.pass(PAUSE).await
    }

    /// Restarts everything, politely.
    async fn roll(&mut self, cluster: &mut Cluster, members: &mut Members) -> anyhow::Result<()> {
        self.say(&Fault::RollingRestart.to_string());
        for server in 0..SERVERS {
            cluster.terminate(server).await?;
            cluster.launch(server)?;
            cluster.recovered().await?;
        }
        members.roll().await?;
        self.injected.insert(Fault::RollingRestart, 1);
        Ok(())
    }

    /// Says how the first of those that did not end stand.
    async fn explain(&self, asked: &[Asked], ended: &[dirigent_tests::checker::Ended]) {
        let is_lost = |asked: &&Asked| !ended.iter().any(|ended| ended.saga == asked.saga);
        for asked in asked.iter().filter(is_lost).take(3) {
            let history = HistoryRequest {
                saga: asked.saga.clone(),
                from: None,
            };
            let history = request(&self.client, &history).await;
            println!("{}: {:#?}", asked.saga, history.map(|it| it.events));
        }
    }

    fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    fn report(&self, asked: &[Asked], verdict: &Verdict, revived: usize) -> String {
        let mut report = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(report, "| {name:<44} | {value:>10} |");
        };
        row("", String::new());
        row(&format!("{:-<44}", ""), format!("{:-<9}:", ""));
        row(
            "servers, coordinators, workers",
            format!("{SERVERS}, {COORDINATORS}, {WORKERS}"),
        );
        row("seed", self.plan.seed.to_string());
        row(
            "minutes",
            format!("{:.1}", self.began.elapsed().as_secs_f64() / 60.0),
        );
        row("sagas run, with children", asked.len().to_string());
        row(
            "faults injected",
            self.injected.values().sum::<usize>().to_string(),
        );
        for (fault, count) in &self.injected {
            row(&format!("  {fault}"), count.to_string());
        }
        row("processes that ended by themselves", revived.to_string());
        row("lost", verdict.lost.len().to_string());
        row("doubled", verdict.doubled.len().to_string());
        row("wrong", verdict.wrong.len().to_string());
        row(
            "longest stall",
            format!("{:.1} s", verdict.longest_stall.as_secs_f64()),
        );
        let ago = load::now().since(verdict.stalled_until);
        let until = self.began.elapsed().saturating_sub(ago);
        row("  over at second", format!("{:.1}", until.as_secs_f64()));
        row(
            "slowest saga",
            format!("{:.1} s", verdict.slowest.as_secs_f64()),
        );
        for (fault, why) in &self.skipped {
            let _ = writeln!(report, "SKIPPED: {fault}: {why}");
        }
        report
    }
}
