//! What was read, judged: each check is a function of the [`Reading`] alone.

use super::reading::Reading;
use async_nats::jetstream::{consumer, stream};
use dirigent_contracts::{api::ListAnswer, id::PartitionId, subject};
use dirigent_coordinator::{Settings, broker};
use serde::Serialize;
use std::time::Duration;

/// Used share of the account's storage, in percent, from which on it is worth a word, and from which
/// on nothing more may be stored soon.
const STORAGE_TIGHT: u64 = 75;
const STORAGE_FULL: u64 = 95;
/// Messages by which a replica may be behind.
const MOST_LAG: u64 = 1_000;
/// Entries that the next owner of a partition would have to fold again.
const MOST_UNFOLDED: u64 = 100_000;
/// Clocks that differ by more make timers late, or are wrong.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);
const CLOCKS_WRONG: Duration = Duration::from_secs(30);
/// Why something could not be looked at.
const NO_STREAM: &str = "the broker has no such stream";
const NO_COORDINATOR: &str = "no coordinator answers";

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It could not be looked at.
    Unknown,
    /// A promise is weaker than it could be, or somebody should have a look.
    Warning,
    /// A promise does not hold, or work stands still.
    Problem,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    /// What was found.
    pub(crate) found: String,
    /// What to do; empty if there is nothing.
    pub(crate) advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            found: found.into(),
            advice: String::new(),
        }
    }

    /// Why it could not be looked at.
    fn unknown(check: &'static str, why: &str) -> Self {
        Self {
            level: Level::Unknown,
            ..Self::ok(check, format!("not looked at: {why}"))
        }
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Warning,
            found: found.into(),
            advice: advice.into(),
        }
    }

    fn problem(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            level: Level::Problem,
            ..Self::warning(check, found, advice)
        }
    }
}

/// Makes all checks.
pub(super) fn all(reading: &Reading) -> Vec<Finding> {
    const CHECKS: [fn(&Reading) -> Vec<Finding>; 13] = [
        server,
        account,
        streams,
        replicas,
        disk,
        owners,
        journals,
        tasks,
        router,
        dead_letters,
        stuck,
        age,
        clocks,
    ];
    CHECKS.iter().flat_map(|check| check(reading)).collect()
}

fn server(reading: &Reading) -> Vec<Finding> {
    let found = format!("nats-server {}", reading.server);
    vec![if reading.is_new_enough {
        Finding::ok("server", found)
    } else {
        Finding::problem("server", found, "upgrade it: coordinators refuse this one")
    }]
}

fn account(reading: &Reading) -> Vec<Finding> {
    let used = reading.account.storage;
    let Ok(limit @ 1..) = u64::try_from(reading.account.limits.max_storage) else {
        return vec![Finding::ok(
            "account",
            format!("{used} bytes stored, no limit but the server's"),
        )];
    };
    let percent = used.saturating_mul(100) / limit;
    let found = format!("{used} of {limit} bytes stored, {percent} %");
    let advice = "raise the account's limit, or shorten the streams' max_age";
    vec![match percent {
        STORAGE_FULL.. => Finding::problem("account", found, advice),
        STORAGE_TIGHT.. => Finding::warning("account", found, advice),
        _ => Finding::ok("account", found),
    }]
}

/// The streams as coordinators want them.
fn streams(reading: &Reading) -> Vec<Finding> {
    let partitions = reading
        .streams
        .keys()
        .filter(|name| name.starts_with("DIRIGENT_JOURNAL_"))
        .count();
    let partitions = u16::try_from(partitions).unwrap_or(u16::MAX);
    let wanted = broker::streams(partitions, &Settings::default());
    let mut findings = Vec::new();
    for wanted in &wanted {
        let Some(info) = reading.streams.get(&wanted.name) else {
            findings.push(Finding::problem(
                "streams",
                format!("there is no stream {}", wanted.name),
                "start a coordinator: it creates what is missing",
            ));
            continue;
        };
        let found = &info.config;
        if let Err(unfit) = broker::check(found, wanted) {
            findings.push(Finding::problem("streams", unfit.to_string(), ""));
        }
        findings.extend(drifts(found, wanted));
    }
    for bucket in [
        subject::SAGAS_BUCKET,
        subject::DEFINITIONS_BUCKET,
        subject::PARTITIONS_BUCKET,
    ] {
        match reading.streams.get(&format!("KV_{bucket}")) {
            None => findings.push(Finding::problem(
                "streams",
                format!("there is no bucket {bucket}"),
                "start a coordinator: it creates what is missing",
            )),
            Some(info) if info.config.storage != stream::StorageType::File => {
                findings.push(Finding::problem(
                    "streams",
                    format!("the bucket {bucket} is kept in memory"),
                    "restore a backup into a broker without it: it does not survive a restart",
                ));
            }
            Some(_) => {}
        }
    }
    or_ok(
        findings,
        "streams",
        format!(
            "{} streams and buckets as they should be",
            reading.streams.len()
        ),
    )
}

/// Settings that coordinators accept, but that weaken a promise.
fn drifts(found: &stream::Config, wanted: &stream::Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = &found.name;
    let mut warn = |what: String, advice: &str| {
        findings.push(Finding::warning(
            "streams",
            format!("{name}: {what}"),
            advice,
        ));
    };
    if found.discard != wanted.discard {
        warn(
            format!("what is full drops {:?} messages", found.discard),
            "`nats stream edit --discard new`: what nobody has read must not be dropped",
        );
    }
    // How long journals are kept is the operator's choice; see `age` for a saga that outlives its own.
    if *name == subject::COMMANDS_STREAM && !found.max_age.is_zero() {
        warn(
            format!(
                "a command that waits longer than {:?} is lost",
                found.max_age
            ),
            "`nats stream edit --max-age 0`: its saga would wait for its own time limit",
        );
    }
    if found.duplicate_window < wanted.duplicate_window {
        warn(
            format!("message ids are known for {:?}", found.duplicate_window),
            "`nats stream edit --dupe-window 2m`: repetitions cost work, but no correctness",
        );
    }
    findings
}

/// Copies: how many, where, and how far behind.
fn replicas(reading: &Reading) -> Vec<Finding> {
    if reading.streams.is_empty() {
        return vec![Finding::unknown("replicas", NO_STREAM)];
    }
    let mut findings = Vec::new();
    let mut single = Vec::new();
    for (name, info) in &reading.streams {
        if info.config.num_replicas < 2 {
            single.push(name.as_str());
        }
        let Some(cluster) = &info.cluster else {
            continue;
        };
        if cluster.leader.as_ref().is_none_or(String::is_empty) && reading.is_clustered {
            findings.push(Finding::problem(
                "replicas",
                format!("{name} has no leader"),
                "bring back a majority of the servers that keep it",
            ));
        }
        for peer in &cluster.replicas {
            let lag = peer.lag.unwrap_or_default();
            if peer.offline {
                findings.push(Finding::problem(
                    "replicas",
                    format!("{name}: its replica on {} is offline", peer.name),
                    "bring the server back, or replace it with `nats stream cluster peer-remove`",
                ));
            } else if lag > MOST_LAG || !peer.current {
                findings.push(Finding::warning(
                    "replicas",
                    format!("{name}: its replica on {} is {lag} behind", peer.name),
                    "look again; if it stays, that server is too slow",
                ));
            }
        }
    }
    if !single.is_empty() {
        let all = single.len() == reading.streams.len();
        let which = if all {
            "every stream".to_owned()
        } else {
            single.join(", ")
        };
        let advice = "a lost disk loses them: use three servers and `nats stream edit --replicas 3`, \
                      and take backups until then";
        let found = format!("one server alone keeps {which}");
        findings.push(if reading.is_clustered {
            Finding::problem("replicas", found, advice)
        } else {
            Finding::warning("replicas", found, advice)
        });
    }
    let fewest = reading
        .streams
        .values()
        .map(|info| info.config.num_replicas)
        .min();
    let fewest = fewest.unwrap_or_default();
    or_ok(
        findings,
        "replicas",
        format!("{fewest} servers keep each stream, none is behind"),
    )
}

/// When acknowledged messages reach the disk.
fn disk(reading: &Reading) -> Vec<Finding> {
    let advice = "set `sync_interval: always` in the `jetstream` block of every server, or accept \
                  that a loss of power loses what was acknowledged last";
    vec![match reading.disk {
        None => Finding::warning(
            "disk",
            "the broker does not tell its clients when it syncs",
            "--monitor http://SERVER:8222 asks a server that can be asked",
        ),
        Some(disk) if disk.sync_always => Finding::ok("disk", "synced before each acknowledgement"),
        Some(disk) => Finding::warning(
            "disk",
            format!(
                "synced every {:?}",
                Duration::from_nanos(disk.sync_interval)
            ),
            advice,
        ),
    }]
}

fn owners(reading: &Reading) -> Vec<Finding> {
    let Some(status) = &reading.status else {
        return vec![Finding::problem(
            "coordinators",
            "none answers",
            "start one with `dirigent coordinator`",
        )];
    };
    let orphans: Vec<String> = status
        .owners
        .iter()
        .enumerate()
        .filter(|(_, owner)| owner.is_empty())
        .map(|(partition, _)| partition.to_string())
        .collect();
    if !orphans.is_empty() || status.owners.is_empty() {
        return vec![Finding::problem(
            "coordinators",
            format!("nobody owns partition {}", orphans.join(", ")),
            "wait ten seconds and look again; then read the coordinators' logs",
        )];
    }
    let mut names = status.owners.clone();
    names.sort();
    names.dedup();
    let found = format!(
        "{} own {} partitions: {}",
        names.len(),
        status.partitions,
        names.join(", ")
    );
    vec![if names.len() < 2 {
        Finding::warning(
            "coordinators",
            found,
            "start a second one: until a dead one is started again, nothing goes on",
        )
    } else {
        Finding::ok("coordinators", found)
    }]
}

/// Entries that go before they are folded are lost.
fn journals(reading: &Reading) -> Vec<Finding> {
    let first = subject::journal_stream(PartitionId(0));
    if !reading.streams.contains_key(&first) {
        return vec![Finding::unknown("journals", NO_STREAM)];
    }
    let mut findings = Vec::new();
    for partition in (0..u16::MAX).map(PartitionId) {
        let Some(info) = reading.streams.get(&subject::journal_stream(partition)) else {
            break;
        };
        let checkpoint = reading.checkpoints.get(&partition);
        let checkpoint = checkpoint.map_or(0, |checkpoint| checkpoint.0);
        let state = &info.state;
        if checkpoint > 0 && state.first_sequence > checkpoint + 1 {
            findings.push(Finding::problem(
                "journals",
                format!(
                    "partition {partition}: entries {} to {} are gone and were never folded",
                    checkpoint + 1,
                    state.first_sequence - 1
                ),
                "raise max_age of the journals; `dirigent list` shows the sagas that may wait in vain",
            ));
        }
        let unfolded = state.last_sequence.saturating_sub(checkpoint);
        if unfolded > MOST_UNFOLDED {
            findings.push(Finding::warning(
                "journals",
                format!("partition {partition}: {unfolded} entries lie behind its checkpoint"),
                "look again; if the number grows, its owner is overloaded or cannot save",
            ));
        }
    }
    or_ok(findings, "journals", "folded as they come".to_owned())
}

fn tasks(reading: &Reading) -> Vec<Finding> {
    if !reading.streams.contains_key(subject::COMMANDS_STREAM) {
        return vec![Finding::unknown("tasks", NO_STREAM)];
    }
    let findings = reading.tasks.iter().filter_map(task).collect();
    or_ok(
        findings,
        "tasks",
        format!("{} tasks, none waits for a worker", reading.tasks.len()),
    )
}

fn task(info: &consumer::Info) -> Option<Finding> {
    let task = dirigent_contracts::token::decode(&info.name);
    let task = task.unwrap_or_else(|_| info.name.clone());
    let waiting = info.num_pending;
    if waiting > 0 && info.num_waiting == 0 && info.num_ack_pending == 0 {
        return Some(Finding::problem(
            "tasks",
            format!("{task}: {waiting} commands wait and no worker asks for them"),
            "start its workers",
        ));
    }
    if waiting > 0 && info.config.max_ack_pending > 0 {
        let out = i64::try_from(info.num_ack_pending).unwrap_or(i64::MAX);
        if out >= info.config.max_ack_pending {
            return Some(Finding::warning(
                "tasks",
                format!("{task}: {waiting} commands wait while {out} are out, its limit"),
                "raise max_ack_pending of its consumer, or let it be the brake that it is",
            ));
        }
    }
    if info.config.max_deliver < 1 {
        return Some(Finding::warning(
            "tasks",
            format!("{task}: commands are delivered without an end"),
            "`nats consumer edit --max-deliver 20`: one that kills its worker never becomes an incident",
        ));
    }
    if info.num_redelivered > 0 {
        return Some(Finding::warning(
            "tasks",
            format!(
                "{task}: {} commands were delivered again",
                info.num_redelivered
            ),
            "its workers die, or are silent for longer than ack_wait",
        ));
    }
    None
}

/// Without its consumers, the router hears nothing.
fn router(reading: &Reading) -> Vec<Finding> {
    if reading.routers.is_empty() {
        return vec![Finding::unknown("router", NO_STREAM)];
    }
    let findings = reading
        .routers
        .iter()
        .filter(|(_, is_there)| !**is_there)
        .map(|(stream, _)| {
            Finding::problem(
                "router",
                format!("{stream} has no consumer {}", subject::ROUTER_CONSUMER),
                "a coordinator that runs makes a new one within seconds, or its log says why not; what \
                 came meanwhile it does not hear",
            )
        })
        .collect();
    or_ok(findings, "router", "events are listened to".to_owned())
}

fn dead_letters(reading: &Reading) -> Vec<Finding> {
    let Some(stream) = reading.streams.get(subject::DEAD_LETTERS_STREAM) else {
        return vec![Finding::unknown("dead letters", NO_STREAM)];
    };
    let count = stream.state.messages;
    vec![if count == 0 {
        Finding::ok("dead letters", "none")
    } else {
        Finding::warning(
            "dead letters",
            format!("{count} messages were not understood"),
            "`dirigent dead-letters` lists them with the reasons",
        )
    }]
}

fn stuck(reading: &Reading) -> Vec<Finding> {
    let Some(stuck) = &reading.stuck else {
        return vec![Finding::unknown("stuck sagas", NO_COORDINATOR)];
    };
    let count = stuck.sagas.len();
    let or_more = if stuck.more { " or more" } else { "" };
    vec![if count > 0 {
        Finding::problem(
            "stuck sagas",
            format!("{count}{or_more} wait for a person"),
            "`dirigent list --status stuck`, then `dirigent retry`",
        )
    } else if let Some(silent) = silent(stuck) {
        Finding::unknown("stuck sagas", &silent)
    } else {
        Finding::ok("stuck sagas", "none")
    }]
}

/// Whose sagas a list lacks.
fn silent(list: &ListAnswer) -> Option<String> {
    let numbers: Vec<String> = list.silent.iter().map(ToString::to_string).collect();
    (!numbers.is_empty()).then(|| format!("nobody answers for partitions {}", numbers.join(", ")))
}

/// A saga that outlives its journal can be started a second time.
fn age(reading: &Reading) -> Vec<Finding> {
    let kept = reading
        .streams
        .iter()
        .filter(|(name, _)| name.starts_with("DIRIGENT_JOURNAL_"))
        .map(|(_, info)| info.config.max_age)
        .filter(|kept| !kept.is_zero())
        .min();
    let Some(living) = &reading.living else {
        return vec![Finding::unknown("age", NO_COORDINATOR)];
    };
    let oldest = living.sagas.iter().filter_map(|saga| saga.started_at).min();
    let outlived = kept.zip(oldest).and_then(|(kept, oldest)| {
        let age = reading.now.since(oldest);
        (age > kept).then_some((age, kept))
    });
    vec![if let Some((age, kept)) = outlived {
        Finding::warning(
            "age",
            format!("a saga has lived for {age:.0?}, and journals are kept for {kept:?}"),
            "raise max_age of the journals: its history is cut, and its key could be started again",
        )
    } else if let Some(silent) = silent(living) {
        Finding::unknown("age", &silent)
    } else if living.more {
        let count = living.sagas.len();
        let found = format!("none of the {count} sagas that changed last outlives its journal");
        Finding::ok("age", found)
    } else {
        Finding::ok("age", "no saga outlives its journal")
    }]
}

fn clocks(reading: &Reading) -> Vec<Finding> {
    let Some(ahead) = reading.clock_ahead else {
        return vec![Finding::unknown(
            "clocks",
            "no stream tells the broker's time",
        )];
    };
    let apart = Duration::from_micros(ahead.unsigned_abs());
    let found = format!("this machine and the broker are {apart:.1?} apart");
    let advice = "synchronise the clocks with NTP";
    vec![if apart > CLOCKS_WRONG {
        Finding::problem("clocks", found, advice)
    } else if apart > CLOCKS_DIFFER {
        Finding::warning("clocks", found, advice)
    } else {
        Finding::ok("clocks", found)
    }]
}

/// The findings, or that there was nothing to find.
fn or_ok(findings: Vec<Finding>, check: &'static str, found: String) -> Vec<Finding> {
    if findings.is_empty() {
        vec![Finding::ok(check, found)]
    } else {
        findings
    }
}

#[cfg(test)]
mod tests;
