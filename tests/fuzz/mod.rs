//! Every parser that reads foreign bytes, with bytes that are nearly right: none of them panics, and what it
//! has read it can write.
//!
//! An input follows from its seed, so a failure names the seed and the bytes. `DIRIGENT_FUZZ=1000000` tries so
//! many inputs for each parser, `DIRIGENT_FUZZ_SEED=7` begins with that seed.

mod corpus;
mod mutation;

use crate::{
    compile,
    engine::{Record, fold},
    expression::{Environment, Expression, Intrinsic, Limits, Path, Query, Scope},
    partition::snapshot::{self, Outline},
    router::{Place, follow, rule::Feed},
};
use corpus::Known;
use dirigent_contracts::{
    api::{CallbackRequest, DeployRequest, LimitsRequest, SignalRequest, StartRequest},
    envelope,
    event::Event,
    header::TraceContext,
    id::{CommandId, DefinitionName, EffectId, JournalSeq, SagaKey, TaskName},
    journal::Entry,
    limits::{Limits as InstallationLimits, SagaLimits},
    subject::{self, JournalSubject},
    task::{CallbackToken, Command, Reply},
    time::Timestamp,
    token,
};
use fastrand::Rng;
use serde_json::json;
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    str::FromStr,
    time::Duration,
};

/// How many inputs each parser gets if nothing else is said.
const INPUTS: u64 = 20_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Tries inputs made of what is known, one in so many of `INPUTS`.
fn fuzz(known: &[Vec<u8>], one_in: u64, check: impl Fn(&[u8])) {
    let inputs = number("DIRIGENT_FUZZ").unwrap_or(INPUTS / one_in);
    let first = number("DIRIGENT_FUZZ_SEED").unwrap_or(0);
    for input in known {
        check(input);
    }
    for seed in first..first + inputs {
        let input = mutation::mutate(&mut Rng::with_seed(seed), known);
        let tried = catch_unwind(AssertUnwindSafe(|| check(&input)));
        if let Err(panic) = tried {
            eprintln!("DIRIGENT_FUZZ_SEED={seed}: \"{}\"", input.escape_ascii());
            resume_unwind(panic);
        }
    }
}

#[test]
fn envelopes() {
    let known = Known::new();
    fuzz(&known.envelopes(), 1, |bytes| {
        for (kind, _) in &known.entries {
            if let Ok(entry) = Entry::decode(kind, bytes) {
                let written = entry.encode();
                let again = Entry::decode(kind, &written).unwrap();
                assert_eq!(again.encode(), written);
            }
        }
        if let Ok(command) = envelope::decode::<Command>(bytes) {
            let written = envelope::encode(&command);
            let again: Command = envelope::decode(&written).unwrap();
            assert_eq!(envelope::encode(&again), written);
        }
        if let Ok(reply) = envelope::decode::<Reply>(bytes) {
            let written = envelope::encode(&reply);
            let again: Reply = envelope::decode(&written).unwrap();
            assert_eq!(envelope::encode(&again), written);
        }
    });
}

#[test]
fn entries_of_a_living_saga() {
    let known = Known::new();
    fuzz(&known.envelopes(), 4, |bytes| {
        for (kind, _) in &known.entries {
            let Ok(entry) = Entry::decode(kind, bytes) else {
                continue;
            };
            let mut saga = Some(known.saga.clone());
            let record = Record {
                seq: JournalSeq(known.saga.applied().0 + 1),
                entry,
                ..known.start.clone()
            };
            fold(&mut saga, Some(&known.program), &record);
            if let Some(saga) = saga {
                let body = snapshot::encode(&saga);
                let read = snapshot::decode(&body).unwrap();
                assert_eq!(snapshot::encode(&read), body);
            }
        }
    });
}

#[test]
fn snapshots() {
    let known = Known::new();
    let snapshots = known.snapshots();
    fuzz(&snapshots, 1, |bytes| {
        let outline = Outline::read(bytes);
        if let Ok(saga) = snapshot::decode(bytes) {
            let body = snapshot::encode(&saga);
            let read = snapshot::decode(&body).unwrap();
            assert_eq!(snapshot::encode(&read), body);
            assert!(Outline::read(&body).is_ok());
            // What can be read whole was outlined before.
            assert!(outline.is_ok() || bytes.first() == Some(&1));
        }
    });
}

#[test]
fn definitions() {
    fuzz(&corpus::documents(), 20, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for name in ["a.yaml", "a.json", "a"] {
            match compile(name, &text) {
                Ok((parsed, _)) => {
                    // The same document, written down anew, is the same version.
                    let written = parsed.canonical.to_string();
                    let (again, _) = compile("again.json", &written).unwrap();
                    assert_eq!(again.digest, parsed.digest);
                }
                Err(report) => {
                    for one in report.diagnostics() {
                        assert!(one.line >= 1 && one.column >= 1);
                    }
                    assert!(!report.to_string().is_empty());
                }
            }
        }
    });
}

#[test]
fn expressions() {
    let input = json!({"a": [1, {"b": "x"}], "text": "a,b", "n": 1.5, "o": {"k": null}});
    let variables = [("v", &input), ("states", &input)];
    let scope = Scope::new(&input, &input, &variables);
    let environment = || {
        Environment::new(0, 1).with_limits(Limits {
            recursion: 1_000,
            sequence: 10_000,
            text_bytes: 1 << 20,
            result_bytes: 1 << 20,
            time: Duration::from_millis(50),
            ..Limits::default()
        })
    };
    fuzz(&corpus::expressions(), 4, |bytes| {
        let source = String::from_utf8_lossy(bytes);
        if let Ok(expression) = Expression::compile(&source) {
            let _ = expression.evaluate(&scope, &mut environment());
        }
        if let Ok(path) = Path::compile(&source) {
            let _ = path.select(&scope);
            let _ = path.assign(input.clone(), json!(1));
        }
        if let Ok(call) = Intrinsic::compile(&source) {
            let _ = call.evaluate(&scope, &mut environment());
        }
        let _ = Query::compile(&source);
    });
}

/// Whether a text that is read as `T` is written as it came.
fn keeps<T: FromStr + ToString>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text);
    }
}

#[test]
fn names_keys_and_subjects() {
    fuzz(&corpus::names(), 1, |bytes| {
        let text = &*String::from_utf8_lossy(bytes);
        keeps::<DefinitionName>(text);
        keeps::<SagaKey>(text);
        keeps::<TaskName>(text);
        keeps::<EffectId>(text);
        keeps::<CommandId>(text);
        keeps::<CallbackToken>(text);
        if let Ok(decoded) = token::decode(text) {
            assert_eq!(token::encode(&decoded), text);
        }
        if !text.is_empty() {
            assert_eq!(token::decode(&token::encode(text)).as_deref(), Ok(text));
        }
        if let Ok(parsed) = JournalSubject::parse(text) {
            assert_eq!(parsed.to_string(), text);
        }
        if let Ok((task, command)) = subject::parse_command(text) {
            assert_eq!(subject::command(&task, command), text);
        }
        if let Ok((address, what)) = subject::parse_event(text) {
            assert_eq!(subject::event(&address, what), text);
        }
        if let Ok((partition, address)) = subject::parse_snapshot_key(text) {
            assert_eq!(subject::snapshot_key(partition, &address), text);
        }
        if let Some(trace) = TraceContext::parse(text) {
            assert_eq!(TraceContext::parse(&trace.to_header()), Some(trace));
        }
        if let Some(at) = Timestamp::parse_rfc3339(text) {
            // It is written to the millisecond.
            let written = at.to_rfc3339();
            let again = Timestamp::parse_rfc3339(&written).map(Timestamp::to_rfc3339);
            assert_eq!(again, Some(written));
        }
    });
}

#[test]
fn events() {
    let rules = [corpus::rules()];
    let place = Place {
        source: "ORDERS/7",
        at: 0,
        sequence: 7,
    };
    fuzz(&corpus::events(), 4, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = [
            vec![],
            vec![header("content-type", "application/cloudevents+json")],
            vec![
                header("ce-specversion", "1.0"),
                header("ce-id", &text),
                header("ce-type", "orders.placed"),
                header("ce-source", &text),
                header("ce-traceparent", &text),
                header("content-type", "text/plain"),
            ],
        ];
        for headers in headers {
            if let Ok(event) = Event::parse("orders.placed", &headers, bytes) {
                let _ = follow(
                    &rules,
                    Feed::Triggers,
                    &event,
                    place,
                    4,
                    SagaLimits::default(),
                );
            }
        }
    });
}

#[test]
fn requests_and_settings() {
    fuzz(&corpus::requests(), 1, |bytes| {
        let _ = serde_json::from_slice::<StartRequest>(bytes);
        let _ = serde_json::from_slice::<SignalRequest>(bytes);
        let _ = serde_json::from_slice::<CallbackRequest>(bytes);
        let _ = serde_json::from_slice::<DeployRequest>(bytes);
        let _ = serde_json::from_slice::<LimitsRequest>(bytes);
        if let Ok(limits) = serde_json::from_slice::<InstallationLimits>(bytes) {
            let written = serde_json::to_vec(&limits).unwrap();
            assert_eq!(
                serde_json::from_slice::<InstallationLimits>(&written).ok(),
                Some(limits)
            );
        }
    });
}
