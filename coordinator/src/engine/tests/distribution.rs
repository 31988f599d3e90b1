//! Distributed Maps: their items are sagas of their own.

use crate::engine::{
    Effect, Program,
    offline::Offline,
    store::{Content, Format, ItemSource, StoreRequest, StoredObject},
};
use dirigent_contracts::{
    error_name,
    history::{Happening, HistoryEvent},
    id::SagaAddress,
    journal::{Control, Entry, Start},
    limit,
    limits::SagaLimits,
    outcome::{Failure, Outcome, SagaStatus},
    task::{Command, Direction, Reply, TaskResult},
    time::Timestamp,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// What was done, and how it ended.
#[derive(Default)]
struct Show {
    outcome: Option<Outcome>,
    history: Vec<HistoryEvent>,
    /// Task and input of every command.
    commands: Vec<(String, Value)>,
    written: Vec<StoredObject>,
    /// How each read asked.
    reads: Vec<(ItemSource, u64)>,
    items: Vec<SagaAddress>,
    /// Items that have ended, and how.
    ended: Vec<(SagaAddress, Outcome)>,
    most_live: usize,
    /// Of the Map's own saga, in its stored form.
    largest_state: usize,
}

impl Show {
    fn tasks(&self, name: &str) -> Vec<&Value> {
        let of_task = self.commands.iter().filter(|(task, _)| task == name);
        of_task.map(|(_, input)| input).collect()
    }

    fn status(&self) -> SagaStatus {
        self.outcome.as_ref().expect("the saga has ended").status
    }

    fn output(&self) -> &Value {
        let outcome = self.outcome.as_ref().expect("the saga has ended");
        let output = outcome.output.as_deref();
        output.unwrap_or_else(|| panic!("it has succeeded: {outcome:?}"))
    }

    fn error(&self) -> &str {
        let outcome = self.outcome.as_ref().expect("the saga has ended");
        let failure = outcome.failure.as_ref();
        failure.map_or("", |failure| failure.error.as_str())
    }
}

fn address(key: &str) -> SagaAddress {
    SagaAddress {
        definition: "test".parse().unwrap(),
        key: key.parse().unwrap(),
    }
}

/// Runs a saga to its end. Every entry is delivered twice, and the state that takes
/// it goes through its stored form in between.
fn show(
    document: &str,
    input: Value,
    objects: &[Value],
    work: impl FnMut(&Command) -> Result<Value, &'static str>,
) -> Show {
    show_limited(SagaLimits::default(), document, input, objects, work)
}

/// The same, of a saga with these limits.
fn show_limited(
    limits: SagaLimits,
    document: &str,
    input: Value,
    objects: &[Value],
    mut work: impl FnMut(&Command) -> Result<Value, &'static str>,
) -> Show {
    let program: Program = match crate::compile("test.yaml", document) {
        Ok((_, program)) => program,
        Err(report) => panic!("{report}\n{:#?}\n{document}", report.diagnostics()),
    };
    let root = address("root");
    let mut world = Offline::new(&program, Timestamp(1_000_000));
    let start = Start {
        digest: "0".repeat(64).parse().unwrap(),
        input: Arc::new(input),
        trigger: None,
        parent: None,
        part: None,
        limits,
    };
    world.push(root.clone(), Entry::Start(start));
    let mut show = Show::default();
    let (mut live, mut is_canceled) = (0, false);
    while let Some(step) = world.step() {
        assert!(world.entries() < 1_000_000, "it goes in circles");
        let repeated = world.repeat().expect("there was one");
        assert_eq!(repeated.effects, [], "a second delivery does nothing");
        if let Some((saga, bytes)) = world.rebuild().unwrap()
            && *saga == root
        {
            show.largest_state = show.largest_state.max(bytes);
        }
        for event in &step.history {
            match &event.what {
                Happening::ItemStarted { child, .. } => {
                    live += 1;
                    show.most_live = show.most_live.max(live);
                    show.items.push(child.clone());
                }
                Happening::IterationSucceeded { .. } | Happening::IterationFailed { .. } => {
                    live -= 1;
                }
                Happening::SagaEnded { outcome } if step.saga != root => {
                    show.ended.push((step.saga.clone(), outcome.clone()));
                }
                _ => {}
            }
        }
        if step.saga == root {
            show.history.extend(step.history);
        }
        for effect in step.effects {
            match effect {
                Effect::Command { command, .. } => {
                    let task = command.task.to_string();
                    show.commands.push((task, Value::clone(&command.input)));
                    let result = match work(&command) {
                        Ok(output) => TaskResult::Succeeded {
                            output: Arc::new(output),
                        },
                        Err("never") => continue,
                        Err(error) => TaskResult::Failed {
                            failure: Failure::new(error, ""),
                            retryable: false,
                        },
                    };
                    let reply = Reply {
                        command: command.command,
                        result,
                        callback: false,
                        worker: String::new(),
                        timing: None,
                    };
                    world.push(command.saga.clone(), Entry::Reply(reply));
                }
                Effect::Store {
                    command, request, ..
                } => {
                    let output = match request {
                        StoreRequest::Write(objects) => {
                            show.written.extend(objects);
                            Value::Null
                        }
                        StoreRequest::Read { source, skip, .. } => {
                            show.reads.push((source, skip));
                            let from = usize::try_from(skip).unwrap();
                            let to = objects.len().min(from + limit::MAP_READ_ITEMS);
                            json!({ "items": objects[from..to], "last": to == objects.len() })
                        }
                    };
                    let reply = Reply {
                        command,
                        result: TaskResult::Succeeded {
                            output: Arc::new(output),
                        },
                        callback: false,
                        worker: String::new(),
                        timing: None,
                    };
                    world.push(step.saga.clone(), Entry::Reply(reply));
                }
                Effect::Ended { outcome, .. } => show.outcome = Some(outcome),
                Effect::DomainEvent(_) | Effect::Withdraw { .. } => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
        let hangs = show.commands.last().is_some_and(|(task, _)| task == "hang");
        if hangs && !is_canceled {
            is_canceled = true;
            let reason = "enough".to_owned();
            world.push(root.clone(), Entry::Control(Control::Cancel { reason }));
        }
    }
    show
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a worker may fail; this one does not"
)]
fn echo(command: &Command) -> Result<Value, &'static str> {
    Ok(Value::clone(&command.input))
}

fn map(fields: &str) -> String {
    format!(
        "
Extensions: [saga/1]
StartAt: Each
States:
  Each:
    Type: Map
    {fields}
    ItemProcessor:
      ProcessorConfig: {{ Mode: DISTRIBUTED, ExecutionType: STANDARD }}
      StartAt: Do
      States:
        Do:
          Type: Task
          Resource: task:do
          Compensate: {{ Resource: 'task:undo' }}
          End: true
    Next: After
  After: {{ Type: Task, Resource: 'task:after', End: true }}
"
    )
}

const READER: &str = "ItemReader: { Resource: 'arn:aws:states:::s3:getObject', \
                      ReaderConfig: { InputType: CSV, CSVDelimiter: PIPE }, \
                      Parameters: { Bucket.$: $.bucket, Key: a.csv } }";

#[test]
fn items_run_as_sagas_beside_each_other_and_their_outputs_keep_the_order() {
    let items: Vec<u32> = (0..50).collect();
    let show = show(&map("MaxConcurrency: 7"), json!(items), &[], echo);
    assert_eq!(show.output(), &json!(items));
    assert_eq!(show.items.len(), 50);
    assert_eq!(show.most_live, 7);
    // Each held what it did until the saga succeeded, and was let go then.
    assert_eq!(show.ended.len(), 50);
    assert!(
        show.ended
            .iter()
            .all(|(_, outcome)| outcome.status == SagaStatus::Succeeded)
    );
    assert!(show.tasks("undo").is_empty());
}

#[test]
fn what_items_did_is_undone_when_the_saga_turns_back() {
    let show = show(&map("Comment: x"), json!([1, 2, 3]), &[], |command| {
        if command.task.as_str() == "after" {
            return Err("Broken");
        }
        echo(command)
    });
    assert_eq!(show.status(), SagaStatus::Compensated);
    assert_eq!(show.error(), "Broken");
    assert_eq!(show.tasks("undo").len(), 3);
    let undone = show.history.iter().filter(
        |event| matches!(&event.what, Happening::ItemUndone { state, .. } if state == "Each"),
    );
    assert_eq!(undone.count(), 3);
    assert!(
        show.ended
            .iter()
            .all(|(_, outcome)| outcome.status == SagaStatus::Canceled)
    );
}

/// Items that do something, pass a pivot, and do something more.
fn pivotal() -> String {
    map("Comment: x").replace(
        "End: true\n    Next: After",
        "Next: Pivot\n        Pivot: { Type: Task, Resource: 'task:pivot', Pivot: true, Next: Last }\n        \
         Last: { Type: Task, Resource: 'task:last', Compensate: { Resource: 'task:undo-last' }, \
         End: true }\n    Next: After",
    )
}

#[test]
fn what_an_item_did_behind_its_pivot_is_undone_when_the_saga_turns_back() {
    let show = show(&pivotal(), json!([1, 2]), &[], |command| {
        if command.task.as_str() == "after" {
            return Err("Broken");
        }
        echo(command)
    });
    assert_eq!(show.error(), "Broken");
    assert_eq!(show.status(), SagaStatus::Failed, "not all is undone");
    assert_eq!(show.tasks("undo-last").len(), 2);
    assert!(show.tasks("undo").is_empty(), "what came before it stands");
}

#[test]
fn an_item_behind_its_pivot_turns_back_when_its_map_breaks_off() {
    let show = show(&pivotal(), json!([1, 2]), &[], |command| {
        match (command.task.as_str(), &*command.input) {
            ("last", Value::Number(n)) if n.as_u64() == Some(1) => Err("never"),
            ("last", _) => Err("Bad"),
            _ => echo(command),
        }
    });
    assert_eq!(show.error(), "States.ExceedToleratedFailureThreshold");
    assert_eq!(show.status(), SagaStatus::Failed);
    assert_eq!(show.tasks("undo-last"), [&json!(1)]);
    let mut ended: Vec<_> = show
        .ended
        .iter()
        .map(|(_, outcome)| outcome.status)
        .collect();
    ended.sort_by_key(ToString::to_string);
    assert_eq!(ended, [SagaStatus::Canceled, SagaStatus::Failed]);
}

#[test]
fn a_failed_item_undoes_itself_and_its_map_undoes_the_others() {
    let show = show(
        &map("MaxConcurrency: 2"),
        json!([1, 2, 3]),
        &[],
        |command| match (command.direction, &*command.input) {
            (Direction::Do, Value::Number(n)) if n.as_u64() == Some(2) => Err("Bad"),
            _ => echo(command),
        },
    );
    assert_eq!(show.status(), SagaStatus::Compensated);
    assert_eq!(show.error(), "States.ExceedToleratedFailureThreshold");
    // Item 1 succeeded and is undone; item 3 may have begun, and is broken off then.
    let undone = show.tasks("undo");
    assert!(undone.contains(&&json!(1)) && !undone.contains(&&json!(2)));
    assert!(show.tasks("after").is_empty());
}

#[test]
fn a_canceled_saga_waits_until_its_items_have_turned_back() {
    let document = map("MaxConcurrency: 2").replace("task:do", "task:hang");
    let show = show(&document, json!([1, 2, 3]), &[], |command| {
        match command.task.as_str() {
            "hang" => Err("never"),
            _ => echo(command),
        }
    });
    assert_eq!(show.status(), SagaStatus::Canceled);
    assert_eq!(show.ended.len(), 2, "those that had begun have ended");
    // Whether they had done anything is not known, so they are undone.
    assert_eq!(show.tasks("undo").len(), 2);
}

#[test]
fn some_items_may_fail() {
    let odd = |command: &Command| match command.input.as_u64() {
        Some(n) if n % 2 == 1 => Err("Odd"),
        _ => echo(command),
    };
    let items = json!([0, 1, 2, 3, 4, 5, 6, 7]);
    let tolerant = show(&map("ToleratedFailureCount: 4"), items.clone(), &[], odd);
    assert_eq!(tolerant.output(), &json!([0, 2, 4, 6]));
    let tolerant = show(
        &map("ToleratedFailurePercentage: 50"),
        items.clone(),
        &[],
        odd,
    );
    assert_eq!(tolerant.output(), &json!([0, 2, 4, 6]));
    let strict = show(&map("ToleratedFailureCount: 3"), items, &[], odd);
    assert_eq!(strict.error(), "States.ExceedToleratedFailureThreshold");
}

#[test]
fn items_are_read_as_they_are_needed_and_only_then() {
    let objects: Vec<Value> = (0..1_700).map(|n| json!({ "n": n })).collect();
    let fields = format!(
        "{READER}\n    MaxConcurrency: 10\n    ItemSelector: {{ n.$: '$$.Map.Item.Value.n', at.$: '$$.Map.Item.Index' }}"
    );
    let show = show(&map(&fields), json!({"bucket": "b"}), &objects, echo);
    let output = show.output().as_array().unwrap();
    assert_eq!(output.len(), 1_700);
    assert_eq!(output[1_234], json!({"n": 1_234, "at": 1_234}));
    let skips: Vec<u64> = show.reads.iter().map(|(_, skip)| *skip).collect();
    assert_eq!(skips, [0, 500, 1_000, 1_500]);
    let source = ItemSource {
        bucket: "b".into(),
        content: Content::Object {
            key: "a.csv".into(),
            format: Format::Csv {
                delimiter: b'|',
                headers: None,
            },
        },
        most: None,
    };
    assert_eq!(show.reads[0].0, source);
}

#[test]
fn no_more_items_are_read_than_the_limit() {
    let objects: Vec<Value> = (0..701).map(|n| json!({ "n": n })).collect();
    let limits = SagaLimits {
        map_items: 700,
        ..SagaLimits::default()
    };
    let document = map(&format!("{READER}\n    MaxConcurrency: 10"));
    let input = json!({"bucket": "b"});
    let show = show_limited(limits, &document, input.clone(), &objects[..700], echo);
    assert_eq!(show.output().as_array().unwrap().len(), 700);
    let show = show_limited(limits, &document, input, &objects, echo);
    assert_eq!(show.error(), error_name::ITEM_READER_FAILED);
    let failure = show.outcome.unwrap().failure.unwrap();
    assert!(failure.cause.contains("at most 700 items"), "{failure}");
}

#[test]
fn items_come_in_batches() {
    let objects: Vec<Value> = (0..1_001).map(|n| json!(n)).collect();
    let fields = format!(
        "{READER}\n    ItemBatcher: {{ MaxItemsPerBatch: 300, BatchInput: {{ of.$: $.bucket }} }}"
    );
    let show =
        show(
            &map(&fields),
            json!({"bucket": "b"}),
            &objects,
            |command| match command.input["Items"].as_array() {
                Some(items) => Ok(json!(items.len())),
                None => echo(command),
            },
        );
    assert_eq!(show.output(), &json!([300, 300, 300, 101]));
    assert_eq!(show.tasks("do")[3]["BatchInput"], json!({"of": "b"}));
    assert_eq!(show.tasks("do")[3]["Items"][0], json!(900));
}

#[test]
fn results_are_written_as_they_come() {
    let objects: Vec<Value> = (0..2_500)
        .map(|n| json!({ "n": n, "pad": "x".repeat(50) }))
        .collect();
    let fields = format!(
        "{READER}\n    ToleratedFailureCount: 1\n    ResultWriter: {{ Resource: 'arn:aws:states:::s3:putObject', Parameters: {{ Bucket: out, Prefix: runs }} }}"
    );
    let show =
        show(
            &map(&fields),
            json!({"bucket": "b"}),
            &objects,
            |command| match command.input["n"].as_u64() {
                Some(77) => Err("Unlucky"),
                _ => echo(command),
            },
        );
    // The state holds what is in flight, however much has passed through.
    let written: usize = show.written.iter().map(|object| object.body.len()).sum();
    let most = limit::MAP_HELD_BYTES + 2 * limit::MAP_READ_BYTES;
    assert!(written > 2 * most, "only {written} bytes passed through");
    assert!(
        show.largest_state < most,
        "the state had {} bytes",
        show.largest_state
    );
    let output = show.output();
    let key = output["ResultWriterDetails"]["Key"].as_str().unwrap();
    assert!(key.starts_with("runs/") && key.ends_with("/manifest.json"));
    let manifest = show.written.last().unwrap();
    assert_eq!(
        (manifest.bucket.as_str(), manifest.key.as_str()),
        ("out", key)
    );
    let manifest: Value = serde_json::from_str(&manifest.body).unwrap();
    let files = |kind: &str| manifest["ResultFiles"][kind].as_array().unwrap().clone();
    assert_eq!(files("FAILED").len(), 1);
    assert!(files("SUCCEEDED").len() > 5, "in parts: {manifest:#}");
    let mut seen = 0;
    for file in files("SUCCEEDED") {
        let object = show
            .written
            .iter()
            .find(|object| file["Key"] == object.key.as_str());
        let object = object.unwrap();
        assert_eq!(file["Size"], json!(object.body.len()));
        let records: Vec<Value> = serde_json::from_str(&object.body).unwrap();
        for record in &records {
            assert_eq!(record["Status"], "SUCCEEDED");
            assert_eq!(record["Input"], record["Output"]);
        }
        seen += records.len();
    }
    assert_eq!(seen, 2_499);
    let failed = files("FAILED")[0]["Key"].clone();
    let failed = show
        .written
        .iter()
        .find(|object| failed == object.key.as_str())
        .unwrap();
    assert!(
        failed.body.contains("\"Error\":\"Unlucky\""),
        "{}",
        failed.body
    );
}

#[test]
fn results_have_the_form_that_is_asked_for() {
    let with = |config: &str| {
        let fields = format!("ResultWriter: {{ WriterConfig: {config} }}");
        let show = show(&map(&fields), json!([[1, 2], 3]), &[], echo);
        show.output().clone()
    };
    let flat = with("{ OutputType: JSON, Transformation: FLATTEN }");
    assert_eq!(flat, json!([1, 2, 3]));
    let compact = with("{ OutputType: JSON, Transformation: COMPACT }");
    assert_eq!(compact, json!([[1, 2], 3]));
    let all = with("{ OutputType: JSON, Transformation: NONE }");
    assert_eq!(all[0]["Input"], "[1,2]");
    assert_eq!(all[1]["Output"], "3");
}

#[test]
fn outputs_that_are_too_large_together_fail_the_map_before_they_fill_the_memory() {
    let items: Vec<u32> = (0..100).collect();
    let show = show(
        &map("MaxConcurrency: 1"),
        json!(items),
        &[],
        |command| match command.direction {
            Direction::Do => Ok(json!("x".repeat(20_000))),
            Direction::Undo => echo(command),
        },
    );
    assert_eq!(show.error(), "States.DataLimitExceeded");
    assert_eq!(show.status(), SagaStatus::Compensated);
    let done = show.tasks("do").len();
    assert!((13..16).contains(&done), "{done} items were done");
    assert!(show.tasks("undo").len() >= 13);
}

#[test]
fn the_fields_of_an_object_are_items() {
    let document = map("QueryLanguage: JSONata\n    Items: { a: 1, b: '{% 1 + 1 %}' }");
    let show = show(&document, json!(null), &[], echo);
    let items = json!([{"Key": "a", "Value": 1}, {"Key": "b", "Value": 2}]);
    assert_eq!(show.output(), &items);
}

#[test]
fn no_items_make_no_results() {
    let show = show(&map("Comment: none"), json!([]), &[], echo);
    assert_eq!(show.output(), &json!([]));
    assert!(show.items.is_empty());
}

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    let refused = |document: &str| {
        let report = crate::compile("test.yaml", document).unwrap_err();
        format!("{:?}", report.diagnostics())
    };
    let manifest = READER.replace("CSV, CSVDelimiter: PIPE", "MANIFEST");
    assert!(refused(&map(&manifest)).contains("InputType"));
    let elsewhere = READER.replace("getObject", "putObject");
    assert!(refused(&map(&elsewhere)).contains("Resource"));
    let awaits = map("Comment: x").replace("task:do", "event:x.await");
    assert!(refused(&awaits).contains("await"));
}
