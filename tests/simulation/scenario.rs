//! What the simulated installation is there for: a few definitions that use everything.

use crate::{
    engine::Program,
    router::rule::{Owned, Wishes},
};
use dirigent_contracts::id::{DefinitionDigest, DefinitionName};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// How many partitions the installation has.
pub(super) const PARTITIONS: u16 = 2;

/// Tasks whose steps have no compensation: what they did stays done.
pub(super) const LASTING: [&str; 2] = ["notify", "nap"];

/// Names and documents. Sagas of the first few are started from outside, see [`STARTED`].
const DOCUMENTS: [(&str, &str); 7] = [
    // Steps in sequence, started by an event, announced by one.
    (
        "order",
        r#"
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [ { Event: sim.order, Key: "{% $event.data.key %}" } ]
StartAt: Reserve
States:
  Reserve: { Type: Task, Resource: "task:reserve", TimeoutSeconds: 4, Next: Charge,
    Retry: [ { ErrorEquals: [States.ALL], IntervalSeconds: 1, MaxAttempts: 2 } ], Compensate: { Resource: "task:undo" } }
  Charge: { Type: Task, Resource: "task:charge", TimeoutSeconds: 4, Next: Ship, Compensate: { Resource: "task:undo" } }
  Ship: { Type: Task, Resource: "task:ship", TimeoutSeconds: 4, Next: Announce,
    Retry: [ { ErrorEquals: [States.ALL], IntervalSeconds: 1, MaxAttempts: 2 } ], Compensate: { Resource: "task:undo" } }
  Announce: { Type: Task, Resource: "event:sim.ordered", Arguments: { key: "{% $states.context.Execution.Name %}" }, End: true }
"#,
    ),
    // Branches, and the step after their join.
    (
        "fan",
        r#"
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [ { Event: sim.fan, Key: "{% $event.data.key %}" } ]
StartAt: Fan
States:
  Fan:
    Type: Parallel
    Next: Last
    Branches:
      - StartAt: A
        States:
          A: { Type: Task, Resource: "task:reserve", TimeoutSeconds: 4, Next: B, Compensate: { Resource: "task:undo" } }
          B: { Type: Task, Resource: "task:ship", TimeoutSeconds: 4, End: true, Compensate: { Resource: "task:undo" } }
      - StartAt: C
        States:
          C: { Type: Task, Resource: "task:charge", TimeoutSeconds: 4, End: true, Compensate: { Resource: "task:undo" } }
  Last: { Type: Task, Resource: "task:reserve", TimeoutSeconds: 4, End: true, Compensate: { Resource: "task:undo" } }
"#,
    ),
    // Waits: for an event, and for a while.
    (
        "waiter",
        r#"
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [ { Event: sim.waiter, Key: "{% $event.data.key %}" } ]
StartAt: Reserve
States:
  Reserve: { Type: Task, Resource: "task:reserve", TimeoutSeconds: 4, Next: Paid, Compensate: { Resource: "task:undo" } }
  Paid: { Type: Task, Resource: "event:sim.paid.await", Key: "{% $event.data.key %}", TimeoutSeconds: 9, Next: Rest }
  Rest: { Type: Wait, Seconds: 2, Next: Ship }
  Ship: { Type: Task, Resource: "task:ship", TimeoutSeconds: 4, End: true, Compensate: { Resource: "task:undo" } }
"#,
    ),
    // Items that are sagas, and the step after them, which may fail.
    (
        "batch",
        r#"
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [ { Event: sim.batch, Key: "{% $event.data.key %}" } ]
StartAt: Each
States:
  Each:
    Type: Map
    Items: [1, 2, 3]
    MaxConcurrency: 2
    Next: Last
    ItemProcessor:
      ProcessorConfig: { Mode: DISTRIBUTED, ExecutionType: STANDARD }
      StartAt: One
      States:
        One: { Type: Task, Resource: "task:reserve", TimeoutSeconds: 4, Next: Two, Compensate: { Resource: "task:undo" } }
        Two: { Type: Task, Resource: "task:ship", TimeoutSeconds: 4, End: true, Compensate: { Resource: "task:undo" } }
  Last: { Type: Task, Resource: "task:charge", TimeoutSeconds: 4, End: true, Compensate: { Resource: "task:undo" } }
"#,
    ),
    // A child, which is undone by a step of its parent.
    (
        "parent",
        r#"
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [ { Event: sim.parent, Key: "{% $event.data.key %}" } ]
StartAt: Before
States:
  Before: { Type: Task, Resource: "task:reserve", TimeoutSeconds: 4, Next: Child, Compensate: { Resource: "task:undo" } }
  Child: { Type: Task, Resource: "saga:child", Key: "{% $states.context.Execution.Name & '-child' %}", TimeoutSeconds: 60, Next: After,
    Compensate: { Resource: "task:undo" } }
  After: { Type: Task, Resource: "task:charge", TimeoutSeconds: 4, End: true, Compensate: { Resource: "task:undo" } }
"#,
    ),
    (
        "child",
        r#"
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: One
States:
  One: { Type: Task, Resource: "task:reserve", TimeoutSeconds: 4, Next: Two, Compensate: { Resource: "task:undo" } }
  Two: { Type: Task, Resource: "task:ship", TimeoutSeconds: 4, End: true, Compensate: { Resource: "task:undo" } }
"#,
    ),
    // Started by what an order announces.
    (
        "thanks",
        r#"
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [ { Event: sim.ordered, Key: "{% $event.data.key %}" } ]
StartAt: Nap
States:
  Nap: { Type: Task, Resource: "task:nap", TimeoutSeconds: 4, Next: Notify,
    Retry: [ { ErrorEquals: [States.ALL], IntervalSeconds: 1, MaxAttempts: 5 } ] }
  Notify: { Type: Task, Resource: "task:notify", TimeoutSeconds: 4, End: true,
    Retry: [ { ErrorEquals: [States.ALL], IntervalSeconds: 1, MaxAttempts: 5 } ] }
"#,
    ),
];

/// The definitions that sagas are started of from outside.
pub(super) const STARTED: [&str; 5] = ["order", "fan", "waiter", "batch", "parent"];

/// What is deployed: read and compiled once for all runs.
pub(super) struct Deployed {
    programs: BTreeMap<DefinitionDigest, Program>,
    latest: BTreeMap<DefinitionName, DefinitionDigest>,
    pub(super) rules: Vec<Owned>,
}

impl Deployed {
    pub(super) fn get() -> &'static Self {
        static DEPLOYED: OnceLock<Deployed> = OnceLock::new();
        DEPLOYED.get_or_init(Self::read)
    }

    fn read() -> Self {
        let mut deployed = Self {
            programs: BTreeMap::new(),
            latest: BTreeMap::new(),
            rules: Vec::new(),
        };
        for (name, document) in DOCUMENTS {
            let (parsed, program) = match crate::compile(name, document) {
                Ok(compiled) => compiled,
                Err(report) => panic!("{report}\n{:#?}", report.diagnostics()),
            };
            let definition: DefinitionName = name.parse().unwrap();
            let digest = parsed.digest.clone();
            deployed.rules.push(Owned {
                definition: definition.clone(),
                digest: digest.clone(),
                wishes: Arc::new(Wishes::of(&parsed.definition).unwrap()),
            });
            deployed.latest.insert(definition, digest.clone());
            deployed.programs.insert(digest, program);
        }
        deployed
    }

    pub(super) fn program(&self, digest: &DefinitionDigest) -> Option<&Program> {
        self.programs.get(digest)
    }

    pub(super) fn latest(&self, name: &DefinitionName) -> Option<&DefinitionDigest> {
        self.latest.get(name)
    }
}
