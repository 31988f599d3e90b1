//! What a saga costs its owner: allocations and instructions, which do not waver, for a fixed workload.
//!
//! Sagas of three steps go through a real owner, from the bytes of their entries to the bytes of what is
//! published. A change that makes them dearer fails here, and so does one that makes them much cheaper:
//! then the figure is to be set anew. The build is a debug build, so the figures are for comparison
//! alone; `docs/performance.md` has those of a release build.

use super::{Action, Owner, decode};
use crate::{broker::journal::Delivered, engine::Program};
use dirigent_contracts::{
    envelope,
    id::{DefinitionDigest, JournalSeq, PartitionId},
    journal::{Entry, Start},
    limits::SagaLimits,
    task::{Command, Reply, TaskResult},
    time::Timestamp,
};
use serde_json::json;
use std::{path::Path, process, sync::Arc, time::Duration};

/// Allocations of one saga.
const ALLOCATIONS: f64 = 458.0;
/// Thousands of instructions of one saga, by callgrind.
const KILO_INSTRUCTIONS: f64 = 1_006.5;
/// Dependencies and the standard library change a little with each version.
const MARGIN: f64 = 0.03;
/// Hash maps are seeded at random, so that a few sagas more or less meet a map that grows.
const SAGAS: u64 = 500;
/// Tells a run under callgrind how many sagas to fold.
const VARIABLE: &str = "DIRIGENT_COST_SAGAS";

const DOCUMENT: &str = r#"
QueryLanguage: JSONata
StartAt: S1
States:
  S1: { Type: Task, Resource: "task:bench", Output: "{% $states.input %}", Next: S2 }
  S2: { Type: Task, Resource: "task:bench", Output: "{% $states.input %}", Next: S3 }
  S3: { Type: Task, Resource: "task:bench", Output: "{% $states.input %}", End: true }
"#;

/// An owner, and the journal that it reads.
struct Desk {
    owner: Owner,
    program: Program,
    digest: DefinitionDigest,
    seq: u64,
}

impl Desk {
    fn new() -> Self {
        let (_, program) = crate::compile("w3.yaml", DOCUMENT).unwrap();
        Self {
            owner: Owner::new(PartitionId(0), 1, JournalSeq(0), JournalSeq(0)),
            program,
            digest: "0".repeat(64).parse().unwrap(),
            seq: 0,
        }
    }

    /// An entry is read and folded, and what it asks for is published. The command, if that was one.
    fn enter(&mut self, subject: String, body: Vec<u8>) -> Option<Command> {
        self.seq += 1;
        let delivered = Delivered {
            seq: JournalSeq(self.seq),
            at: Timestamp::from_millis(1_700_000_000_000),
            subject,
            is_first_of_subject: true,
            trace: None,
            body: body.into(),
        };
        let record = decode(PartitionId(0), &delivered).unwrap();
        assert!(self.owner.digest(&record).is_some());
        let now = Timestamp::from_millis(1_700_000_000_001);
        self.owner
            .take(&record, Some(&self.program), now, Duration::ZERO)
            .unwrap();
        let mut command = None;
        for action in self.owner.actions() {
            let Action::Publish(message, debt) = action else {
                panic!("{action:?} is not to be expected");
            };
            if message.subject().starts_with("dirigent.command.") {
                command = Some(envelope::decode(message.body()).unwrap());
            }
            self.owner.settle(debt, Ok(()));
        }
        command
    }

    /// A saga runs from its start to its end.
    fn run(&mut self) {
        let key = format!("k-{:08}", self.seq);
        let start = Entry::Start(Start {
            digest: self.digest.clone(),
            input: Arc::new(json!({"order": key, "note": "x".repeat(250)})),
            trigger: None,
            parent: None,
            part: None,
            limits: SagaLimits::default(),
        });
        let subject = format!("dirigent.journal.0.w3.{key}.start");
        let mut command = self.enter(subject, start.encode());
        let mut steps = 0;
        while let Some(asked) = command {
            let reply = Entry::Reply(Reply {
                command: asked.command,
                result: TaskResult::Succeeded {
                    output: Arc::new(json!({"result": "x".repeat(187)})),
                },
                callback: false,
                worker: "w".to_owned(),
                timing: None,
            });
            command = self.enter(asked.reply_to.clone(), reply.encode());
            steps += 1;
        }
        assert_eq!(steps, 3);
        self.owner.save(Duration::ZERO, Duration::ZERO);
        for action in self.owner.actions() {
            let Action::Checkpoint(checkpoint) = action else {
                panic!("{action:?}: a saga that ended at once has no snapshot");
            };
            self.owner.saved_checkpoint(checkpoint);
        }
        assert_eq!(self.owner.len(), 0);
    }
}

fn run(sagas: u64) {
    let mut desk = Desk::new();
    for _ in 0..sagas {
        desk.run();
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn assert_about(what: &str, few: u64, many: u64, wanted: f64) {
    let found = (many - few) as f64 / SAGAS as f64;
    println!("{what} of a saga of three steps: {found:.1}");
    assert!(
        (found / wanted - 1.0).abs() < MARGIN,
        "a saga of three steps costs {found:.1} {what}, and {wanted} before: if that is meant, set the new figure"
    );
}

#[test]
fn a_saga_takes_so_many_allocations() {
    let count = |sagas| allocation_counter::measure(|| run(sagas)).count_total;
    assert_about("allocations", count(1), count(1 + SAGAS), ALLOCATIONS);
}

#[test]
fn a_saga_takes_so_many_instructions() {
    let Some(few) = instructions(1) else { return };
    let Some(many) = instructions(1 + SAGAS) else {
        return;
    };
    assert_about(
        "kilo-instructions",
        few / 1_000,
        many / 1_000,
        KILO_INSTRUCTIONS,
    );
}

/// What runs under callgrind.
#[test]
#[ignore = "is run by the test of instructions"]
fn workload() {
    run(std::env::var(VARIABLE).unwrap().parse().unwrap());
}

/// How many instructions so many sagas take; nothing where there is no valgrind.
fn instructions(sagas: u64) -> Option<u64> {
    let ran = process::Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(Path::new(&std::env::current_exe().unwrap()))
        .args(["--exact", "partition::cost::workload", "--ignored"])
        .args(["--test-threads=1"])
        .env(VARIABLE, sagas.to_string())
        .output();
    let ran = match ran {
        Ok(ran) => ran,
        Err(error) => {
            eprintln!("SKIPPED: instructions are not counted without valgrind: {error}");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{text}");
    let line = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = line.unwrap_or_else(|| panic!("valgrind told no count: {text}"));
    Some(count.trim().parse().unwrap())
}
