//! What is right, of every format: the inputs that all others are made of.

use crate::{
    compile,
    engine::{Program, Record, Saga, fold},
    partition::snapshot,
    router::rule::{Owned, Wishes},
};
use bytes::Bytes;
use dirigent_contracts::{
    envelope,
    event::CloudEvent,
    id::{CommandId, JournalSeq, PartitionId, SagaAddress},
    journal::{Child, Control, Entry, EventEntry, Parent, Part, Start, Timer, Trigger},
    limits::{Limits, SagaLimits},
    outcome::{Failure, Outcome, SagaStatus},
    subject::EntryKind,
    task::{Reply, TaskResult, Timing},
    time::Timestamp,
};
use serde_json::json;
use std::{fs, path::Path, sync::Arc};

const DOCUMENT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Both
Triggers: [ { Event: orders.placed, Key: '{% $event.data.id %}', Filter: '{% $event.data.n > 0 %}' } ]
States:
  Both:
    Type: Parallel
    Branches:
      - StartAt: A
        States:
          A: { Type: Task, Resource: 'task:a', HeartbeatSeconds: 9, Compensate: { Resource: 'task:undo-a' }, Next: B }
          B: { Type: Task, Resource: 'task:b', End: true }
      - StartAt: E
        States: { E: { Type: Task, Resource: 'event:paid.await', TimeoutSeconds: 60, End: true } }
    Output: '{% $states.result[0] %}'
    End: true
";

/// A saga that waits in several places, and what may come for it.
pub(super) struct Known {
    pub(super) program: Program,
    pub(super) start: Record,
    pub(super) saga: Saga,
    pub(super) entries: Vec<(EntryKind, Entry)>,
    commands: Vec<Vec<u8>>,
}

impl Known {
    pub(super) fn new() -> Self {
        let (parsed, program) = compile("known.yaml", DOCUMENT).unwrap();
        let address = SagaAddress {
            definition: "known".parse().unwrap(),
            key: "o/1".parse().unwrap(),
        };
        let start = Record {
            partition: PartitionId(1),
            seq: JournalSeq(7),
            at: Timestamp::from_millis(1_700_000_000_000),
            address: address.clone(),
            trace: None,
            entry: Entry::Start(Start {
                digest: parsed.digest.clone(),
                input: Arc::new(json!({"a": [1, -2.5, "x", null, true], "deep": [[[[{}]]]]})),
                trigger: None,
                parent: None,
                part: None,
                limits: SagaLimits::default(),
            }),
        };
        let mut saga = None;
        let effects = fold(&mut saga, Some(&program), &start);
        let asked = effects.effects.iter().filter_map(|effect| match effect {
            crate::engine::Effect::Command { command, .. } => Some(&**command),
            _ => None,
        });
        let commands: Vec<_> = asked.cloned().collect();
        let entries = entries(&address, &start, commands[0].command);
        Self {
            saga: saga.unwrap(),
            commands: commands.iter().map(envelope::encode).collect(),
            program,
            start,
            entries,
        }
    }

    /// Bodies of entries and commands.
    pub(super) fn envelopes(&self) -> Vec<Vec<u8>> {
        let entries = self.entries.iter().map(|(_, entry)| entry.encode());
        entries.chain(self.commands.iter().cloned()).collect()
    }

    /// Snapshots of this saga, running and broken, and of one that has not started.
    pub(super) fn snapshots(&self) -> Vec<Vec<u8>> {
        let mut early = None;
        let mut snapshots = vec![snapshot::encode(&self.saga)];
        for (_, entry) in &self.entries {
            let record = Record {
                seq: JournalSeq(8),
                entry: entry.clone(),
                ..self.start.clone()
            };
            fold(&mut early, Some(&self.program), &record);
            let mut broken = Some(self.saga.clone());
            crate::engine::set_aside(&mut broken, "a mistake", &record);
            snapshots.extend(broken.iter().map(snapshot::encode));
        }
        snapshots.extend(early.iter().map(snapshot::encode));
        // As older builds wrote it: a state alone.
        let mut alone = vec![1];
        alone.extend(rmp_serde::to_vec_named(&self.saga).unwrap());
        snapshots.push(Bytes::from(alone));
        snapshots.into_iter().map(Vec::from).collect()
    }
}

fn entries(address: &SagaAddress, start: &Record, command: CommandId) -> Vec<(EntryKind, Entry)> {
    let reply = |result| {
        let reply = Reply {
            command,
            result,
            callback: false,
            worker: "w-1".to_owned(),
            timing: Some(Timing {
                asked_at: start.at,
                ran_us: 12,
            }),
        };
        (EntryKind::Reply("a".parse().unwrap()), Entry::Reply(reply))
    };
    let Entry::Start(first) = &start.entry else {
        unreachable!("a start");
    };
    let child = Start {
        trigger: Some(Trigger {
            subject: "orders.placed".to_owned(),
            id: "e-1".to_owned(),
        }),
        parent: Some(Parent {
            partition: PartitionId(2),
            saga: address.clone(),
            command,
        }),
        part: Some(Part {
            machine: 1,
            index: 3,
        }),
        limits: SagaLimits {
            history: 20,
            ..SagaLimits::default()
        },
        ..first.clone()
    };
    let control = |control| (EntryKind::Control, Entry::Control(control));
    let reason = || "asked for".to_owned();
    vec![
        (EntryKind::Start, start.entry.clone()),
        (EntryKind::Start, Entry::Start(child)),
        reply(TaskResult::Succeeded {
            output: Arc::new(json!({"id": 7, "list": [1, 2, 3]})),
        }),
        reply(TaskResult::Failed {
            failure: Failure::new("Declined", "no money"),
            retryable: true,
        }),
        reply(TaskResult::Heartbeat),
        (
            EntryKind::Event,
            Entry::Event(EventEntry {
                name: "paid".to_owned(),
                id: "e-2".to_owned(),
                data: Arc::new(json!({"sum": 12.5})),
            }),
        ),
        (EntryKind::Timer, Entry::Timer(Timer { due: start.at })),
        control(Control::Cancel { reason: reason() }),
        control(Control::Retry {
            reason: String::new(),
        }),
        control(Control::Skip { reason: reason() }),
        control(Control::Undo { reason: reason() }),
        control(Control::Release),
        control(Control::Poison {
            command,
            deliveries: 5,
        }),
        (
            EntryKind::Child,
            Entry::Child(Child {
                command,
                outcome: Outcome {
                    status: SagaStatus::Succeeded,
                    output: Some(Arc::new(json!("done"))),
                    failure: None,
                },
                holds: true,
                past_pivot: true,
            }),
        ),
    ]
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Definitions that use every field of the language.
pub(super) fn documents() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts/tests/corpus");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    // The order of a directory is not that of another machine, and seeds go by it.
    files.sort();
    let mut documents: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    documents.push(DOCUMENT.as_bytes().to_vec());
    documents
}

/// JSONata, paths and intrinsic functions.
pub(super) fn expressions() -> Vec<Vec<u8>> {
    texts(&[
        "$states.input.a[0] + 1 > 2 ? 'yes' : \"no\"",
        "$v.a[b = 'x'].b ~> $uppercase()",
        "$map([1..9], function($x, $i) { $x * $i }) ~> $sum()",
        "{ 'k': $v.o.*, 'all': $v.** , 'sorted': $v.a^(>b) }",
        "$replace($v.text, /(a),(b)/, '$2$1')",
        "( $f := function($n) { $n < 2 ? 1 : $n * $f($n - 1) }; $f(5) )",
        "$v.a{b: $count($)}",
        "$parse('{\"a\": 1}').a & $partition([1,2,3], 2)",
        "$.store.book[?(@.price < 10 && @.category == 'fiction')].title",
        "$['a'][0, -1, 1:5:2]..b",
        "$$.Execution.Id",
        "States.Format('{}-{}', $.text, States.ArrayLength($.a))",
        "States.JsonMerge($.o, States.StringToJson('{\\\"x\\\":1}'), false)",
        "States.Base64Encode(States.Hash('a', 'SHA-256'))",
        "States.ArrayRange(1, 9, 2)",
    ])
}

/// Subjects, keys, ids, tokens, traces and instants.
pub(super) fn names() -> Vec<Vec<u8>> {
    let run = "0123456789abcdef0123456789abcdef";
    let mut names = texts(&[
        "o/1",
        "order-2_b",
        "é=\u{1F600}",
        "o=2F1",
        "dirigent.journal.3.order.o=2F1.start",
        "dirigent.journal.3.order.o-1.reply.charge-card",
        "dirigent.journal.0.order.o-1.control",
        "dirigent.event.order.o-1.succeeded",
        "3.order.o=2F1",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "2024-02-29T23:59:60.123456Z",
        "2024-01-01T00:00:00+14:00",
    ]);
    for name in [
        format!("{run}-1"),
        format!("{run}-1-2"),
        format!("dirigent.command.charge=20card.{run}-1-2"),
        format!("3.order.o=2F1.charge=20card.{run}-1-2"),
    ] {
        names.push(name.into_bytes());
    }
    names
}

/// The rules of a definition with a trigger, and with an event that it awaits.
pub(super) fn rules() -> Owned {
    let (parsed, _) = compile("known.yaml", DOCUMENT).unwrap();
    Owned {
        definition: "known".parse().unwrap(),
        wishes: Arc::new(Wishes::of(&parsed.definition).unwrap()),
        digest: parsed.digest,
    }
}

/// Events, in all ways in which they come.
pub(super) fn events() -> Vec<Vec<u8>> {
    let event = CloudEvent {
        id: "e-1".to_owned(),
        source: "/shop".to_owned(),
        kind: "orders.placed".to_owned(),
        subject: "o-1".to_owned(),
        time: Timestamp(1_700_000_000_000_000),
        partition_key: "o-1".to_owned(),
        data: Arc::new(json!({"id": "o-1", "n": 2})),
    };
    let mut events = texts(&[
        "",
        r#"{"id": 7, "n": 1, "deep": [[[]]]}"#,
        r#"{"specversion": "1.0", "id": "1", "type": "t", "source": "s", "data_base64": "AAA="}"#,
        r#"{"specversion": "1.0", "id": "1", "type": "t", "source": "s", "partitionkey": "k", "x": 1}"#,
        "plain text",
    ]);
    events.push(event.to_json());
    events
}

/// Requests to the API, and the installation's settings.
pub(super) fn requests() -> Vec<Vec<u8>> {
    let mut requests = texts(&[
        r#"{"definition": "order", "key": "o-1", "input": {"a": 1}}"#,
        r#"{"definition": "order", "key": "o-1", "event": "paid", "id": "e", "data": [1]}"#,
        r#"{"token": "3.order.o-1.t.0123456789abcdef0123456789abcdef-1-2", "status": "failed", "error": "E"}"#,
        r#"{"name": "order", "document": "StartAt: A"}"#,
        r#"{"set": {"payload": 300000, "states": null}}"#,
    ]);
    requests.push(serde_json::to_vec(&Limits::default()).unwrap());
    requests
}
