//! The binary as people and scripts run it: what it prints, and the exit codes.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use dirigent_tests::{nats::find_binary, stage::Stage};
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output},
};

const GREETING: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [{ Event: visitors.arrived, Key: '{% $event.data.name %}' }]
StartAt: Greet
States:
  Greet: { Type: Pass, Output: { hello: '{% $states.input.name %}' }, End: true }
";

const REFUSAL: &str = "
Extensions: [saga/1]
StartAt: Refuse
States:
  Refuse: { Type: Fail, Error: Refused, Cause: on purpose }
";

/// A person at a terminal without colours.
struct Person<'a> {
    directory: &'a Path,
    url: String,
}

impl Person<'_> {
    async fn types(&self, line: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dirigent"));
        command
            .args(line.split_whitespace())
            .current_dir(self.directory)
            .env("NATS_URL", &self.url)
            .env("NO_COLOR", "1");
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        Said::from(output.unwrap().unwrap())
    }
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_definition_is_checked_deployed_started_and_watched() {
    let stage = Stage::start().await.unwrap();
    let directory = stage.nats.directory();
    std::fs::write(directory.join("greeting.yaml"), GREETING).unwrap();
    std::fs::write(directory.join("refusal.yaml"), REFUSAL).unwrap();
    std::fs::write(directory.join("input.json"), r#"{"name": "Anna"}"#).unwrap();
    let person = Person {
        directory,
        url: stage.nats.url(),
    };
    let said = person.types("check greeting.yaml refusal.yaml").await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = person.types("deploy greeting.yaml refusal.yaml").await;
    assert!(
        said.out.starts_with("greeting deployed version "),
        "{said:?}"
    );
    let said = person
        .types("run greeting --key g-1 --input @input.json -o json")
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    let saga: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(saga["output"]["hello"], "Anna");
    let said = person.types("run refusal --key r-1").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("Refused: on purpose"), "{said:?}");
    let said = person
        .types("start greeting --key g-1 --input @input.json")
        .await;
    assert_eq!(said.code, 5, "{said:?}");
    assert!(said.out.contains("started before"), "{said:?}");
    let said = person.types("history greeting g-1").await;
    assert!(said.out.contains("■ succeeded"), "{said:?}");
    assert!(!said.out.contains('\x1b'), "colours: {said:?}");
    let said = person.types("trace greeting g-1").await;
    assert!(said.out.contains("greeting/g-1  succeeded in"), "{said:?}");
    assert!(said.out.contains("●   Greet"), "{said:?}");
    let said = person.types("trace greeting g-1 -o json").await;
    let trace: Value = serde_json::from_str(&said.out).unwrap();
    let run = saga["run"].as_str().unwrap().replace('-', "");
    assert_eq!(trace["trace_id"], run);
    assert_eq!(trace["spans"][1]["name"], "Greet");
    let said = person
        .types("history greeting g-1 --format asl -o json")
        .await;
    let events: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(events[1]["type"], "PassStateEntered");
    assert_eq!(events[1]["state"], "Greet");
    let said = person.types("list --status failed").await;
    assert!(said.out.contains("refusal/r-1"), "{said:?}");
    assert!(!said.out.contains("greeting/g-1"), "{said:?}");
    let said = person
        .types(r#"publish visitors.arrived {"name":"Bea"} --id e-1"#)
        .await;
    assert!(said.out.starts_with("kept by DIRIGENT_INBOX"), "{said:?}");
    stage.ended("greeting", "Bea").await.unwrap();
    let said = person.types("definitions").await;
    assert!(
        said.out.contains("greeting") && said.out.contains("refusal"),
        "{said:?}"
    );
    let said = person.types("status").await;
    assert!(said.out.contains("nats-server"), "{said:?}");
    let said = person.types("top --once --interval 100ms").await;
    assert!(
        said.out.starts_with("coordinators 1, partitions 2"),
        "{said:?}"
    );
    assert!(said.out.contains(" refusal "), "{said:?}");
    let said = person.types("top -o json --interval 100ms").await;
    let board: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(board["partitions"][0]["owner"], "test", "{board:#}");
    let said = person.types("limits payload=2KiB saga-age=1h").await;
    let shows = |name: &str, value: &str| {
        let mut rows = said.out.lines().map(|row| row.split_whitespace());
        rows.any(|mut row| row.next() == Some(name) && row.next() == Some(value))
    };
    assert!(
        shows("payload", "2048") && shows("saga-age", "3600"),
        "{said:?}"
    );
    assert!(shows("attempts", "10000"), "{said:?}");
    let said = person.types("limits payload=1TiB").await;
    assert_eq!(said.code, 2, "{said:?}");
    let said = person
        .types(&format!(
            "start greeting --key g-9 --input \"{}\"",
            "x".repeat(2_100)
        ))
        .await;
    assert!(
        said.err.contains("the limit `payload` allows 2048"),
        "{said:?}"
    );
}

const PAYMENT: &str = "
Extensions: [saga/1]
StartAt: Paid
States:
  Paid: { Type: Task, Resource: 'event:orders.paid.await', End: true }
";

#[tokio::test]
async fn an_event_that_a_saga_awaits_is_published_with_its_key() {
    let stage = Stage::start().await.unwrap();
    stage.deploy("payment", PAYMENT).await.unwrap();
    let person = Person {
        directory: stage.nats.directory(),
        url: stage.nats.url(),
    };
    for key in ["by-key", "by-header"] {
        stage
            .begin("payment", key, serde_json::json!({}))
            .await
            .unwrap();
    }
    for (line, again) in [
        ("publish orders.paid {} --key by-key --id e-1", false),
        ("publish orders.paid {} --key by-key --id e-1", true),
        (
            "publish orders.paid {} --header Dirigent-Key=by-header",
            false,
        ),
    ] {
        let said = person.types(&format!("{line} -o json")).await;
        let kept: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(kept["duplicate"], again, "{said:?}");
        assert_eq!(kept["stream"], "DIRIGENT_INBOX", "{said:?}");
    }
    for key in ["by-key", "by-header"] {
        stage.ended("payment", key).await.unwrap();
    }
}

#[tokio::test]
async fn programs_read_json_also_where_something_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let person = Person {
        directory: directory.path(),
        url: "nats://127.0.0.1:1".to_owned(),
    };
    std::fs::write(directory.path().join("greeting.yaml"), GREETING).unwrap();
    std::fs::write(
        directory.path().join("broken.yaml"),
        "StartAt: A\nStates: {}\n",
    )
    .unwrap();
    let said = person
        .types("check greeting.yaml broken.yaml -o json")
        .await;
    assert_eq!((said.code, said.err.as_str()), (1, ""), "{said:?}");
    let checked: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(checked[0]["file"], "greeting.yaml");
    assert_eq!(checked[0]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(checked[0]["diagnostics"], serde_json::json!([]));
    assert!(checked[1].get("digest").is_none(), "{checked:#}");
    let diagnostic = &checked[1]["diagnostics"][0];
    assert_eq!(diagnostic["severity"], "error", "{checked:#}");
    assert_eq!(
        (&diagnostic["line"], &diagnostic["column"]),
        (&1.into(), &10.into())
    );
    let said = person.types("list -o json").await;
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((said.code, &error["exit"]), (3, &3.into()), "{said:?}");
    assert!(error["error"].as_str().unwrap().contains("cannot reach"));
    assert!(error["help"].as_str().unwrap().contains("dirigent dev"));
    let said = person.types("list --status lost -o json").await;
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((said.code, &error["exit"]), (2, &2.into()), "{said:?}");
    let what = error["error"].as_str().unwrap();
    assert!(what.starts_with("invalid value 'lost'"), "{what}");
    let said = person.types("list --help -o json").await;
    assert!(said.out.contains("--status"), "{said:?}");
}

#[tokio::test]
async fn a_version_is_named_by_what_tables_print_of_it() {
    let stage = Stage::start().await.unwrap();
    let directory = stage.nats.directory();
    let person = Person {
        directory,
        url: stage.nats.url(),
    };
    let first = stage.deploy("refusal", REFUSAL).await.unwrap().digest;
    stage.deploy("refusal", GREETING).await.unwrap();
    let line = format!("definition refusal --digest {}", first.short());
    let said = person.types(&line).await;
    assert_eq!(said.out, REFUSAL, "{said:?}");
    let line = format!("run refusal --digest {}", first.short());
    let said = person.types(&line).await;
    assert!(said.out.contains("Refused"), "{said:?}");
    for (digest, code, words) in [
        ("0000000", 2, "8 to 64"),
        ("00000000", 4, "no version that begins with 00000000"),
    ] {
        let said = person
            .types(&format!("definition refusal --digest {digest}"))
            .await;
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(words), "{said:?}");
    }
}

const PASSES: &str = "
StartAt: First
States:
  First: { Type: Pass, Next: Second }
  Second: { Type: Pass, Next: Third }
  Third: { Type: Pass, End: true }
";

#[tokio::test]
async fn a_history_that_no_message_carries_is_shown_in_every_form() {
    let stage = Stage::start().await.unwrap();
    let directory = stage.nats.directory();
    std::fs::write(directory.join("passes.yaml"), PASSES).unwrap();
    let input = format!("{{\"photo\": \"{}\"}}", "x".repeat(200_000));
    std::fs::write(directory.join("input.json"), input).unwrap();
    let person = Person {
        directory,
        url: stage.nats.url(),
    };
    person.types("deploy passes.yaml").await;
    let said = person
        .types("run passes --key k --input @input.json -o json")
        .await;
    assert_eq!(said.code, 0, "{}", said.err);
    let said = person.types("history passes k").await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("succeeded"), "{}", said.out);
    let said = person.types("history passes k -o json").await;
    let history: Value = serde_json::from_str(&said.out).unwrap();
    let events = history["events"].as_array().unwrap();
    assert_eq!(events[0]["event"], "saga-started");
    assert_eq!(events.last().unwrap()["event"], "saga-ended");
    assert!(said.out.len() > 1_048_576, "it would have fitted");
    for line in ["history passes k --format asl", "trace passes k"] {
        let said = person.types(line).await;
        assert_eq!(said.code, 0, "{line}: {}", said.err);
        assert!(said.out.contains("Third"), "{line}: {}", said.out);
    }
}

const IMPORT: &str = "
QueryLanguage: JSONata
StartAt: Each
States:
  Each:
    Type: Map
    ItemReader:
      Resource: arn:aws:states:::s3:getObject
      ReaderConfig: { InputType: CSV }
      Arguments: { Bucket: import, Key: rows.csv }
    ItemProcessor:
      ProcessorConfig: { Mode: DISTRIBUTED, ExecutionType: STANDARD }
      StartAt: Book
      States:
        Book:
          Type: Task
          Resource: 'arn:aws:lambda:us-east-1:123456789012:function:book'
          Output: '{% $states.input.id %}'
          End: true
    End: true
";

const IMPORT_CASES: &str = "
definition: import.yaml
cases:
  - name: two rows
    answers:
      import/rows.csv: { output: [{ id: 1 }, { id: 2 }] }
      Book: {}
    expect: { status: succeeded, output: [1, 2] }
";

const CHILD: &str = r#"
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A:
    Type: Task
    Resource: saga:other
    Key: '{% "k" %}'
    TimeoutSeconds: 60
    Retry: [ { ErrorEquals: [Busy], MaxAttempts: 1 } ]
    End: true
"#;

const CHILD_CASES: &str = "
definition: child.yaml
cases:
  - name: the key is taken
    answers:
      A: [ { error: Busy }, { output: 1 } ]
    expect: { status: failed, error: Dirigent.ChildNotStarted }
  - name: a child that does not end turns back
    answers:
      A: { silent: true }
    expect: { status: failed, error: States.Timeout }
";

#[tokio::test]
async fn a_child_is_rehearsed_as_the_broker_would_have_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("child.yaml"), CHILD).unwrap();
    std::fs::write(directory.path().join("child.test.yaml"), CHILD_CASES).unwrap();
    let person = Person {
        directory: directory.path(),
        url: "nats://127.0.0.1:1".to_owned(),
    };
    let said = person.types("test child.test.yaml").await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = person.types("check child.yaml").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        format!("{said:?}").contains("finds its key taken"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_definition_is_rehearsed_without_a_broker() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workers/examples/definitions");
    let person = Person {
        directory: &examples,
        url: "nats://127.0.0.1:1".to_owned(),
    };
    let said = person.types("test order.test.yaml").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.ends_with("4 of 4 cases pass\n"), "{said:?}");
    let directory = tempfile::tempdir().unwrap();
    // The items of a distributed Map, which are sagas of their own, from an object that is not there.
    let import = directory.path().join("import.yaml");
    std::fs::write(&import, IMPORT).unwrap();
    let cases = directory.path().join("import.test.yaml");
    std::fs::write(&cases, IMPORT_CASES).unwrap();
    let said = person.types(&format!("test {} -v", cases.display())).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("items from the object store"), "{said:?}");
    assert!(said.out.contains("Each [1]"), "{said:?}");
    // One that expects something else says what, and fails.
    let wrong = directory.path().join("wrong.yaml");
    let order = examples.join("order.yaml");
    let cases = format!(
        "definition: {}\ncases:\n  - name: nobody answers\n    expect: {{ status: succeeded }}\n",
        order.display()
    );
    std::fs::write(&wrong, cases).unwrap();
    let said = person
        .types(&format!("test {} -o json", wrong.display()))
        .await;
    assert_eq!(said.code, 1, "{said:?}");
    let cases: Value = serde_json::from_str(&said.out).unwrap();
    let differences = cases[0]["differences"].to_string();
    assert!(differences.contains("ReserveStock asks"), "{differences}");
    assert!(differences.contains("ends failed"), "{differences}");
    std::fs::write(&wrong, "definition: order.yaml\ncases: [{ nme: x }]\n").unwrap();
    let said = person.types(&format!("test {}", wrong.display())).await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.err.contains("cases[0]") && said.err.contains("nme"),
        "{said:?}"
    );
}

#[tokio::test]
async fn what_goes_wrong_is_told_by_the_exit_code_and_by_advice() {
    let stage = Stage::start().await.unwrap();
    let directory = stage.nats.directory();
    std::fs::write(directory.join("broken.yaml"), "StartAt: A\nStates: {}\n").unwrap();
    std::fs::write(directory.join("refusal.yaml"), REFUSAL).unwrap();
    let large = format!("\"{}\"", "x".repeat(1_100_000));
    std::fs::write(directory.join("large.json"), large).unwrap();
    for (file, cases) in [
        ("no-cases.yaml", "[]"),
        ("typo.yaml", "[{ name: a, answers: { Refsue: {} } }]"),
    ] {
        let script = format!("definition: refusal.yaml\ncases: {cases}\n");
        std::fs::write(directory.join(file), script).unwrap();
    }
    let person = Person {
        directory,
        url: stage.nats.url(),
    };
    for (line, code, advice) in [
        ("check broken.yaml", 1, "broken.yaml:1:10"),
        ("deploy broken.yaml", 1, "nothing was deployed"),
        ("check missing.yaml", 2, "missing.yaml"),
        ("start nothing --input {", 2, "quotes of its own"),
        ("start nothing", 4, "nothing"),
        ("describe nothing k", 4, "nothing/k"),
        ("retry nothing k", 4, "nothing/k"),
        ("dead-letters replay 7", 4, "7"),
        ("publish nobody.listens {}", 4, "trigger"),
        ("publish nobody.* {}", 2, "wildcards"),
        ("publish nobody.listens @large.json", 2, "at most 1048576"),
        ("deploy a.yaml b.yaml --name c", 2, "--name is for one file"),
        ("test no-cases.yaml", 2, "it has no cases"),
        ("test typo.yaml", 2, "did you mean `Refuse`?"),
        ("describe", 2, "Usage"),
        ("list --limit 1001", 2, "1000 is the most"),
    ] {
        let said = person.types(line).await;
        assert_eq!(said.code, code, "{line}: {said:?}");
        assert!(said.err.contains(advice), "{line}: {said:?}");
    }
    let alone = Person {
        directory,
        url: "nats://127.0.0.1:1".to_owned(),
    };
    let said = alone.types("list").await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("dirigent dev"), "{said:?}");
}

#[tokio::test]
async fn the_demo_plays_from_nothing_to_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let person = Person {
        directory: directory.path(),
        url: String::new(),
    };
    let server = find_binary().unwrap();
    let line = format!("dev --demo --nats-server {}", server.display());
    // Twice: the second finds what the first has left.
    for _ in 0..2 {
        let said = person.types(&line).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(said.out.matches("■ succeeded").count(), 2, "{said:?}");
        assert_eq!(said.out.matches("■ compensated").count(), 2, "{said:?}");
        assert!(said.out.contains("CardDeclined"), "{said:?}");
    }
}

#[tokio::test]
async fn no_payload_is_logged_at_any_level_unless_that_is_asked_for() {
    let stage = Stage::start().await.unwrap();
    let directory = stage.nats.directory();
    std::fs::write(directory.join("greeting.yaml"), GREETING).unwrap();
    let person = Person {
        directory,
        url: stage.nats.url(),
    };
    person.types("deploy greeting.yaml").await;
    let run = r#"run greeting --input {"name":"Anna"} -vv --log-format json"#;
    let said = person.types(&format!("{run} --key a")).await;
    assert!(said.err.contains("async_nats"), "{}", said.err);
    let lines: Vec<Value> = said
        .err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .all(|line| line["message"].is_string() && line["level"].is_string())
    );
    assert!(!said.err.contains("Anna"), "{}", said.err);
    let said = person.types(&format!("{run} --key b --log-payloads")).await;
    assert!(said.err.contains("Anna"), "it was not for lack of lines");
}
