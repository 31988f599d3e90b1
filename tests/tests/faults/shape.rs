//! The shapes of the sagas that run while things go wrong, and how each must end.

use dirigent_contracts::{id::SagaAddress, outcome::SagaStatus};
use dirigent_tests::{
    checker::{Demand, Fate},
    stage::address,
};
use serde_json::{Value, json};
use std::time::Duration;

/// The subject of the event that starts a saga.
pub(crate) const ASKED: &str = "faults.asked";
/// The subject of the event that sagas await.
pub(crate) const PAID: &str = "faults.paid";
/// The subject of the event that sagas publish.
pub(crate) const TOLD: &str = "faults.told";

/// Steps one after the other, a domain event in the end. The input decides who refuses, and who fails
/// how often before it succeeds.
const SEQUENCE: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers:
  - { Event: faults.asked, Key: '{% $event.data.key %}' }
StartAt: A
States:
  A:
    Type: Task
    Resource: task:do-a
    Retry: [{ ErrorEquals: [Flaky], IntervalSeconds: 1, BackoffRate: 1, MaxAttempts: 5 }]
    Compensate: { Resource: 'task:undo-a' }
    Next: B
  B:
    Type: Task
    Resource: task:do-b
    Retry: [{ ErrorEquals: [Flaky], IntervalSeconds: 1, BackoffRate: 1, MaxAttempts: 5 }]
    Compensate: { Resource: 'task:undo-b' }
    Next: C
  C:
    Type: Task
    Resource: task:do-c
    Retry: [{ ErrorEquals: [Flaky], IntervalSeconds: 1, BackoffRate: 1, MaxAttempts: 5 }]
    Next: Tell
  Tell: { Type: Task, Resource: 'event:faults.told', Arguments: '{% $states.input %}', End: true }
";

/// Two branches, the longer of which fails.
const BRANCHES: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Both
States:
  Both:
    Type: Parallel
    Branches:
      - StartAt: A
        States:
          A: { Type: Task, Resource: 'task:do-a', Compensate: { Resource: 'task:undo-a' }, End: true }
      - StartAt: B
        States:
          B: { Type: Task, Resource: 'task:do-b', Compensate: { Resource: 'task:undo-b' }, Next: C }
          C: { Type: Task, Resource: 'task:do-c', End: true }
    End: true
";

const NAP: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:do-a', Compensate: { Resource: 'task:undo-a' }, Next: Nap }
  Nap: { Type: Wait, Seconds: 2, Next: B }
  B: { Type: Task, Resource: 'task:do-b', End: true }
";

const PARENT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A:
    Type: Task
    Resource: task:do-a
    Compensate: { Resource: 'task:undo-a' }
    Next: Child
  Child:
    Type: Task
    Resource: saga:sequence
    Key: \"{% $states.input.key & '-child' %}\"
    Arguments: '{% $states.input.child %}'
    Next: B
  B: { Type: Task, Resource: 'task:do-b', End: true }
";

const AWAIT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:do-a', Compensate: { Resource: 'task:undo-a' }, Next: Paid }
  Paid: { Type: Task, Resource: 'event:faults.paid.await', Next: B }
  B: { Type: Task, Resource: 'task:do-b', End: true }
";

/// The definitions of all shapes, by name.
pub(crate) const DEFINITIONS: [(&str, &str); 5] = [
    ("sequence", SEQUENCE),
    ("branches", BRANCHES),
    ("nap", NAP),
    ("parent", PARENT),
    ("await", AWAIT),
];

/// What a saga does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Three steps and a domain event.
    Succeeds,
    /// The last of three steps is refused, and two are undone.
    RefusedLate,
    /// Each step fails once and is tried again.
    Flaky,
    /// One of two branches fails.
    BranchFails,
    /// A timer between two steps.
    Naps,
    /// A child that succeeds between two steps.
    HasChild,
    /// A child that fails between two steps.
    ChildFails,
    /// Like the first, but started by an event.
    Triggered,
    /// An event between two steps.
    Awaits,
}

impl Shape {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Succeeds,
        Self::RefusedLate,
        Self::Flaky,
        Self::BranchFails,
        Self::Naps,
        Self::HasChild,
        Self::ChildFails,
        Self::Triggered,
        Self::Awaits,
    ];

    /// The definition that it runs.
    pub(crate) fn definition(self) -> &'static str {
        match self {
            Self::Succeeds | Self::RefusedLate | Self::Flaky | Self::Triggered => "sequence",
            Self::BranchFails => "branches",
            Self::Naps => "nap",
            Self::HasChild | Self::ChildFails => "parent",
            Self::Awaits => "await",
        }
    }

    /// The key of saga number `n`.
    pub(crate) fn key(self, n: usize) -> String {
        format!("{self:?}-{n}").to_lowercase()
    }

    /// The input of the saga with this key.
    pub(crate) fn input(self, key: &str) -> Value {
        let child = format!("{key}-child");
        match self {
            Self::Succeeds | Self::Triggered | Self::Naps | Self::Awaits => json!({"key": key}),
            Self::RefusedLate | Self::BranchFails => json!({"key": key, "refuse": "do-c"}),
            Self::Flaky => json!({"key": key, "flaky": 1}),
            Self::HasChild => json!({"key": key, "child": {"key": child}}),
            Self::ChildFails => json!({"key": key, "child": {"key": child, "refuse": "do-c"}}),
        }
    }

    /// How long it waits by itself.
    pub(crate) fn waits(self) -> Duration {
        Duration::from_secs(match self {
            Self::Naps => 2,
            Self::Flaky => 3,
            _ => 0,
        })
    }

    /// How the saga with this key must end, and its child if it has one.
    pub(crate) fn demands(self, key: &str) -> anyhow::Result<Vec<(SagaAddress, Demand)>> {
        use Fate::{Stands, Undone, UndoneIfDone};
        let demand = |status, effects: &[(&'static str, Fate)], tells| Demand {
            status,
            effects: effects.iter().copied().collect(),
            tells,
        };
        let good = demand(
            SagaStatus::Succeeded,
            &[("do-a", Stands), ("do-b", Stands), ("do-c", Stands)],
            true,
        );
        let refused = demand(
            SagaStatus::Compensated,
            &[("do-a", Undone), ("do-b", Undone)],
            false,
        );
        let two_steps = demand(
            SagaStatus::Succeeded,
            &[("do-a", Stands), ("do-b", Stands)],
            false,
        );
        let (own, child) = match self {
            Self::Succeeds | Self::Triggered | Self::Flaky => (good, None),
            Self::RefusedLate => (refused, None),
            Self::BranchFails => {
                let effects = [("do-a", UndoneIfDone), ("do-b", Undone)];
                (demand(SagaStatus::Compensated, &effects, false), None)
            }
            Self::Naps | Self::Awaits => (two_steps, None),
            Self::HasChild => (two_steps, Some(good)),
            Self::ChildFails => {
                let own = demand(SagaStatus::Compensated, &[("do-a", Undone)], false);
                (own, Some(refused))
            }
        };
        let mut all = vec![(address(self.definition(), key)?, own)];
        if let Some(child) = child {
            all.push((address("sequence", &format!("{key}-child"))?, child));
        }
        Ok(all)
    }
}
