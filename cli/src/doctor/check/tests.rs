//! Each check on a healthy installation, and with one thing that is wrong.

use super::{
    super::reading::{Account, Disk, Limits},
    *,
};
use dirigent_contracts::{api::StatusAnswer, id::JournalSeq, time::Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn info(config: &stream::Config) -> stream::Info {
    let state = json!({
        "messages": 0, "bytes": 0, "first_seq": 1, "last_seq": 0, "consumer_count": 0,
        "first_ts": "2026-01-01T00:00:00Z", "last_ts": "2026-01-01T00:00:00Z",
    });
    let info = json!({ "config": config, "created": "2026-01-01T00:00:00Z", "state": state });
    serde_json::from_value(info).unwrap()
}

fn consumer(pending: u64, waiting: usize) -> consumer::Info {
    let sequence = json!({ "consumer_seq": 0, "stream_seq": 0 });
    let info = json!({
        "stream_name": subject::COMMANDS_STREAM,
        "name": "charge-card",
        "created": "2026-01-01T00:00:00Z",
        "config": {
            "deliver_policy": "all", "ack_policy": "explicit", "ack_wait": 30_000_000_000_u64,
            "max_deliver": 20, "replay_policy": "instant", "max_ack_pending": 10, "num_replicas": 0,
        },
        "delivered": sequence,
        "ack_floor": sequence,
        "num_ack_pending": 0,
        "num_redelivered": 0,
        "num_waiting": waiting,
        "num_pending": pending,
    });
    serde_json::from_value(info).unwrap()
}

/// A list of sagas that began then.
fn listed(began: &[i64]) -> ListAnswer {
    let sagas = began.iter().zip(0..).map(|(began, number)| {
        json!({"definition": "d", "key": format!("k-{number}"), "status": "stuck",
            "started_at": began, "updated_at": began})
    });
    let sagas: Vec<Value> = sagas.collect();
    serde_json::from_value(json!({"sagas": sagas, "more": false})).unwrap()
}

/// Three servers, two coordinators, and nothing to complain of.
fn healthy() -> Reading {
    let settings = Settings {
        replicas: 3,
        ..Settings::default()
    };
    let mut configs = broker::streams(2, &settings);
    for bucket in [
        subject::SAGAS_BUCKET,
        subject::DEFINITIONS_BUCKET,
        subject::PARTITIONS_BUCKET,
    ] {
        configs.push(stream::Config {
            name: format!("KV_{bucket}"),
            num_replicas: 3,
            ..stream::Config::default()
        });
    }
    let streams = configs
        .iter()
        .map(|config| (config.name.clone(), info(config)));
    Reading {
        server: "2.12.1".to_owned(),
        is_new_enough: true,
        is_clustered: true,
        account: Account::default(),
        streams: streams.collect(),
        tasks: vec![consumer(0, 1)],
        routers: BTreeMap::from([(subject::ADVISORIES_STREAM.to_owned(), true)]),
        checkpoints: BTreeMap::from([(PartitionId(0), JournalSeq(5))]),
        status: Some(StatusAnswer {
            server: "2.12.1".to_owned(),
            durability: String::new(),
            partitions: 2,
            owners: vec!["a".to_owned(), "b".to_owned()],
            dead_letters: 0,
        }),
        stuck: Some(listed(&[])),
        living: Some(listed(&[])),
        clock_ahead: Some(0),
        now: Timestamp(0),
        disk: Some(Disk {
            sync_interval: 0,
            sync_always: true,
        }),
    }
}

/// The findings that are not fine, once something is changed.
fn with(change: impl FnOnce(&mut Reading)) -> Vec<(&'static str, Level, String)> {
    let mut reading = healthy();
    change(&mut reading);
    let findings = all(&reading).into_iter();
    findings
        .filter(|finding| finding.level != Level::Ok)
        .map(|finding| (finding.check, finding.level, finding.found))
        .collect()
}

/// Changes the configuration of a stream, as JSON.
fn edit(reading: &mut Reading, stream: &str, field: &str, value: Value) {
    let mut config = serde_json::to_value(&reading.streams[stream].config).unwrap();
    config[field] = value;
    let config: stream::Config = serde_json::from_value(config).unwrap();
    reading.streams.insert(stream.to_owned(), info(&config));
}

#[test]
fn a_healthy_installation_has_nothing_but_good_findings() {
    assert_eq!(with(|_| {}), []);
    assert!(all(&healthy()).len() >= 13);
}

#[test]
fn whatever_weakens_a_promise_is_found() {
    type Case = (&'static str, Level, &'static str, fn(&mut Reading));
    let cases: [Case; 23] = [
        ("server", Level::Problem, "2.12.1", |it| {
            it.is_new_enough = false;
        }),
        ("account", Level::Warning, "80 %", |it| {
            it.account = Account {
                storage: 80,
                limits: Limits { max_storage: 100 },
            };
        }),
        ("account", Level::Problem, "99 %", |it| {
            it.account = Account {
                storage: 99,
                limits: Limits { max_storage: 100 },
            };
        }),
        (
            "streams",
            Level::Problem,
            "no stream DIRIGENT_EVENTS",
            |it| {
                it.streams.remove(subject::EVENTS_STREAM);
            },
        ),
        ("streams", Level::Problem, "kept in memory", |it| {
            edit(it, "DIRIGENT_JOURNAL_1", "storage", json!("memory"));
        }),
        ("streams", Level::Problem, "retention", |it| {
            edit(it, "DIRIGENT_COMMANDS", "retention", json!("limits"));
        }),
        ("streams", Level::Warning, "drops", |it| {
            edit(it, "DIRIGENT_EVENTS", "discard", json!("old"));
        }),
        ("streams", Level::Warning, "is lost", |it| {
            edit(
                it,
                "DIRIGENT_COMMANDS",
                "max_age",
                json!(3_600_000_000_000_u64),
            );
        }),
        ("streams", Level::Warning, "known for", |it| {
            edit(
                it,
                "DIRIGENT_JOURNAL_0",
                "duplicate_window",
                json!(1_000_000_000),
            );
        }),
        ("replicas", Level::Problem, "DIRIGENT_EVENTS", |it| {
            edit(it, "DIRIGENT_EVENTS", "num_replicas", json!(1));
        }),
        ("disk", Level::Warning, "does not tell", |it| it.disk = None),
        ("disk", Level::Warning, "every 120s", |it| {
            it.disk = Some(Disk {
                sync_interval: 120_000_000_000,
                sync_always: false,
            });
        }),
        ("coordinators", Level::Problem, "none", |it| {
            it.status = None;
        }),
        ("coordinators", Level::Problem, "partition 1", |it| {
            it.status.as_mut().unwrap().owners[1].clear();
        }),
        ("coordinators", Level::Warning, "1 own 2", |it| {
            it.status.as_mut().unwrap().owners[1] = "a".to_owned();
        }),
        ("journals", Level::Problem, "6 to 9 are gone", |it| {
            let journal = it.streams.get_mut("DIRIGENT_JOURNAL_0").unwrap();
            journal.state.first_sequence = 10;
            journal.state.last_sequence = 12;
        }),
        ("journals", Level::Warning, "200000 entries", |it| {
            let journal = it.streams.get_mut("DIRIGENT_JOURNAL_1").unwrap();
            journal.state.last_sequence = 200_000;
        }),
        ("tasks", Level::Problem, "7 commands wait", |it| {
            it.tasks[0] = consumer(7, 0);
        }),
        ("router", Level::Problem, "dirigent-router", |it| {
            it.routers.insert(subject::INBOX_STREAM.to_owned(), false);
        }),
        ("dead letters", Level::Warning, "3 messages", |it| {
            let letters = it.streams.get_mut(subject::DEAD_LETTERS_STREAM).unwrap();
            letters.state.messages = 3;
        }),
        ("stuck sagas", Level::Problem, "2 wait", |it| {
            it.stuck = Some(listed(&[0, 0]));
        }),
        ("stuck sagas", Level::Unknown, "partitions 1", |it| {
            it.stuck.as_mut().unwrap().silent = vec![PartitionId(1)];
        }),
        ("clocks", Level::Problem, "60.0s", |it| {
            it.clock_ahead = Some(-60_000_000);
        }),
    ];
    for (check, level, words, change) in cases {
        let findings = with(change);
        let [(found_check, found_level, found)] = &findings[..] else {
            panic!("{check}: {findings:?}");
        };
        assert_eq!((*found_check, *found_level), (check, level), "{found}");
        assert!(found.contains(words), "{check}: {found}");
    }
}

#[test]
fn what_could_not_be_looked_at_is_not_called_fine() {
    let unknown = |change: fn(&mut Reading)| {
        let mut checks: Vec<_> = with(change);
        checks.retain(|(_, level, _)| *level == Level::Unknown);
        let checks = checks.into_iter().map(|(check, ..)| check);
        checks.collect::<Vec<_>>()
    };
    let alone = unknown(|it| (it.status, it.stuck, it.living) = (None, None, None));
    assert_eq!(alone, ["stuck sagas", "age"]);
    let empty = unknown(|it| {
        it.streams.clear();
        it.routers.clear();
        it.tasks.clear();
        it.clock_ahead = None;
    });
    assert_eq!(
        empty,
        [
            "replicas",
            "journals",
            "tasks",
            "router",
            "dead letters",
            "clocks"
        ]
    );
}

#[test]
fn the_state_of_tasks_is_told_by_their_consumers() {
    let judged = |change: fn(&mut consumer::Info)| {
        let mut info = consumer(0, 1);
        change(&mut info);
        task(&info).map(|finding| finding.level)
    };
    assert_eq!(judged(|_| {}), None);
    // A worker that is busy asks for nothing more.
    let busy = judged(|info| {
        (info.num_pending, info.num_waiting, info.num_ack_pending) = (5, 0, 3);
    });
    assert_eq!(busy, None);
    let at_the_limit = judged(|info| (info.num_pending, info.num_ack_pending) = (5, 10));
    assert_eq!(at_the_limit, Some(Level::Warning));
    assert_eq!(
        judged(|info| info.num_redelivered = 1),
        Some(Level::Warning)
    );
    assert_eq!(
        judged(|info| info.config.max_deliver = -1),
        Some(Level::Warning)
    );
}

#[test]
fn a_saga_that_outlives_its_journal_is_told_of() {
    let day = 24 * 3_600 * 1_000_000;
    let findings = with(|reading| {
        reading.living = Some(listed(&[0]));
        reading.now = Timestamp(8 * day);
    });
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].0, "age");
}

#[test]
fn a_replica_that_is_gone_or_behind_is_told_of() {
    let cluster = |peer: Value| {
        let mut reading = healthy();
        let mut info = json!({ "leader": "s1", "replicas": [peer] });
        info["name"] = json!("c");
        let stream = reading.streams.get_mut("DIRIGENT_EVENTS").unwrap();
        stream.cluster = Some(serde_json::from_value(info).unwrap());
        replicas(&reading).remove(0).level
    };
    let peer = json!({ "name": "s2", "current": true, "active": 0 });
    assert_eq!(cluster(peer.clone()), Level::Ok);
    let mut gone = peer.clone();
    gone["offline"] = json!(true);
    assert_eq!(cluster(gone), Level::Problem);
    let mut behind = peer;
    behind["lag"] = json!(5_000);
    assert_eq!(cluster(behind), Level::Warning);
}
