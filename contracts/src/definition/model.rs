//! A definition after parsing and validation: what the engine compiles and runs.
//!
//! Everything here has been checked: a transition names a state that exists, a machine has its
//! `StartAt`, a number is in its range, a field stands only where the specification allows it.
//! Expressions and paths are still text; the coordinator compiles them once. The field names follow
//! the Amazon States Language specification, the saga extension's are marked *(saga/1)*.

use crate::id::{DefinitionName, TaskName};
use indexmap::IndexMap;
use serde_json::Value;
use std::{collections::BTreeSet, fmt};

/// A whole definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// `Comment`; empty if there is none.
    pub comment: String,
    /// `TimeoutSeconds` of the whole saga.
    pub timeout_seconds: Option<u64>,
    /// *(saga/1)* `Triggers`: the events that start this saga.
    pub triggers: Vec<Trigger>,
    /// `StartAt` and `States`.
    pub machine: Machine,
}

impl Definition {
    /// The tasks that workers must offer for it: those of its steps and those of their undos.
    #[must_use]
    pub fn tasks(&self) -> BTreeSet<TaskName> {
        let mut tasks = BTreeSet::new();
        self.machine.for_each_action(&mut |action| {
            if let Action::Task { task, .. } = action {
                tasks.insert(task.clone());
            }
        });
        tasks
    }
}

/// *(saga/1)* An event that starts the saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// `Event`: a NATS subject, wildcards allowed; with `Subject`, a CloudEvents type.
    pub event: String,
    /// `Subject`: the NATS subject on which events of the CloudEvents type `event` come.
    pub subject: Option<String>,
    /// `Key`: JSONata over `$event`, without its `{% %}`; the saga key. `None`: the event's own key.
    pub key: Option<String>,
    /// `Filter`: JSONata over `$event`, without its `{% %}`; only events for which it is true count.
    pub filter: Option<String>,
    /// `Input`: a JSONata template over `$event`; the event's data if there is none.
    pub input: Option<Value>,
}

/// `StartAt` and `States`: of the saga, of a branch, of an item processor.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The first state; it exists in `states`.
    pub start_at: String,
    /// The states in the order of the document.
    pub states: IndexMap<String, State>,
}

impl Machine {
    /// Calls `visit` with each state and its name, in the machines within this one too.
    pub fn for_each_state<'a>(&'a self, visit: &mut impl FnMut(&'a str, &'a State)) {
        for (name, state) in &self.states {
            visit(name, state);
            match &state.kind {
                StateKind::Parallel { branches, .. } => {
                    for branch in branches {
                        branch.for_each_state(visit);
                    }
                }
                StateKind::Map(map) => map.processor.for_each_state(visit),
                _ => {}
            }
        }
    }

    /// Calls `visit` with what each Task and each undo does, in the machines within this one too.
    pub fn for_each_action(&self, visit: &mut impl FnMut(&Action)) {
        self.for_each_state(&mut |_, state| {
            if let StateKind::Task(task) = &state.kind {
                visit(&task.resource.action);
                if let Some(undo) = &task.compensate {
                    visit(&undo.resource.action);
                }
            }
        });
    }

    /// How large it is, with the machines within it.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let mut extent = Extent::default();
        for state in self.states.values() {
            let inner: &[Machine] = match &state.kind {
                StateKind::Parallel { branches, .. } => {
                    extent.branches = extent.branches.max(branches.len() as u64);
                    branches
                }
                StateKind::Map(map) => std::slice::from_ref(&map.processor),
                _ => &[],
            };
            extent.states += 1;
            for machine in inner {
                let inner = machine.extent();
                extent.states += inner.states;
                extent.branches = extent.branches.max(inner.branches);
                extent.nesting = extent.nesting.max(inner.nesting + 1);
            }
        }
        extent
    }
}

/// How large a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many states it has, those within Parallel and Map included.
    pub states: u64,
    /// How many branches its widest Parallel has.
    pub branches: u64,
    /// How deep Parallel and Map stand within each other.
    pub nesting: u64,
}

/// The language of a state's expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryLanguage {
    /// `JSONPath`, the default.
    JsonPath,
    /// `JSONata`.
    Jsonata,
}

/// One state.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The language of its expressions: its own `QueryLanguage`, or the document's.
    pub query_language: QueryLanguage,
    /// How data enters and leaves it.
    pub data: DataFlow,
    /// `Type`, with the fields of that type.
    pub kind: StateKind,
}

/// Where a state goes when it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// `Next`.
    Next(String),
    /// `End: true`.
    End,
}

/// How data enters and leaves a state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataFlow {
    /// `InputPath` (JSONPath mode).
    pub input_path: PathField,
    /// `OutputPath` (JSONPath mode).
    pub output_path: PathField,
    /// `ResultPath` (JSONPath mode).
    pub result_path: PathField,
    /// `Parameters` (JSONPath mode) or `Arguments` (JSONata mode).
    pub arguments: Option<Value>,
    /// `ResultSelector` (JSONPath mode).
    pub result_selector: Option<Value>,
    /// `Output` (JSONata mode).
    pub output: Option<Value>,
    /// `Assign`: always an object.
    pub assign: Option<Value>,
}

/// A path that may be absent (use everything), `null` (use nothing) or given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathField {
    /// Not given: `$`.
    #[default]
    Absent,
    /// `null`: an empty object for input and output; the result is discarded for `ResultPath`.
    Null,
    /// A path.
    Path(String),
}

/// The type of a state, with the fields that only this type has.
#[derive(Clone, Debug, PartialEq)]
pub enum StateKind {
    /// `Task`.
    Task(Box<Task>),
    /// `Pass`.
    Pass {
        /// `Result` (JSONPath mode).
        result: Option<Value>,
        /// `Next` or `End`.
        transition: Transition,
    },
    /// `Choice`.
    Choice {
        /// `Choices`, at least one.
        choices: Vec<Choice>,
        /// `Default`.
        default: Option<String>,
    },
    /// `Wait`.
    Wait {
        /// How long, or until when.
        until: WaitUntil,
        /// `Next` or `End`.
        transition: Transition,
    },
    /// `Succeed`.
    Succeed,
    /// `Fail`.
    Fail {
        /// `Error` or `ErrorPath`.
        error: Option<Text>,
        /// `Cause` or `CausePath`.
        cause: Option<Text>,
    },
    /// `Parallel`.
    Parallel {
        /// `Branches`, at least one.
        branches: Vec<Machine>,
        /// `Retry` and `Catch`.
        rules: ErrorRules,
        /// `Next` or `End`.
        transition: Transition,
    },
    /// `Map`.
    Map(Box<Map>),
    /// *(saga/1)* `Compensate`: undo every step so far, then go on.
    Compensate {
        /// `Next` or `End`.
        transition: Transition,
    },
}

impl StateKind {
    /// The `Type` as the document writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Task(_) => "Task",
            Self::Pass { .. } => "Pass",
            Self::Choice { .. } => "Choice",
            Self::Wait { .. } => "Wait",
            Self::Succeed => "Succeed",
            Self::Fail { .. } => "Fail",
            Self::Parallel { .. } => "Parallel",
            Self::Map(_) => "Map",
            Self::Compensate { .. } => "Compensate",
        }
    }
}

/// A Task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// `Resource`.
    pub resource: Resource,
    /// `TimeoutSeconds` or `TimeoutSecondsPath`.
    pub timeout: Option<Quantity>,
    /// `HeartbeatSeconds` or `HeartbeatSecondsPath`.
    pub heartbeat: Option<Quantity>,
    /// `Credentials`: evaluated and checked, then not used.
    pub credentials: Option<Value>,
    /// `Retry` and `Catch`.
    pub rules: ErrorRules,
    /// *(saga/1)* `Compensate`: how to undo the step.
    pub compensate: Option<Compensation>,
    /// *(saga/1)* `Pivot`: from here the saga only goes forward.
    pub pivot: bool,
    /// *(saga/1)* `Key` of an `event:....await`: JSONata over `$event`, without its `{% %}`; which
    /// saga an event is for. `None`: the event's own key. Of a `saga:` resource: JSONata over
    /// `$states`; the child's key. `None`: one is derived from the effect id.
    pub key: Option<String>,
    /// `Next` or `End`.
    pub transition: Transition,
}

/// *(saga/1)* How to undo a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Compensation {
    /// `Resource`: a task (not one that waits for a token), an event to publish, or a saga.
    pub resource: Resource,
    /// `Arguments` (JSONata mode) or `Parameters` (JSONPath mode): evaluated when the step
    /// succeeds. If absent, the undo gets the arguments that the step's last attempt got.
    pub arguments: Option<Value>,
    /// `TimeoutSeconds` of one attempt. If absent, a saga has no other time than its own.
    pub timeout_seconds: Option<u64>,
    /// `Retry`; empty: the generous default.
    pub retry: Vec<Retrier>,
}

/// What a Task does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// As the document writes it.
    pub text: String,
    /// What it means.
    pub action: Action,
}

/// What a resource means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `task:NAME` or an ARN: a command to workers.
    Task {
        /// The kind of work.
        task: TaskName,
        /// `.waitForTaskToken`: somebody completes the step later.
        waits_for_token: bool,
    },
    /// `event:SUBJECT`: publish a domain event.
    Publish {
        /// Its NATS subject.
        subject: String,
    },
    /// `event:SUBJECT.await`: wait for an event that carries this saga's key.
    Await {
        /// Its NATS subject.
        subject: String,
    },
    /// `saga:NAME`: run a child saga and wait for it.
    Saga {
        /// The child's definition.
        definition: DefinitionName,
    },
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A number that may have to be computed.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantity {
    /// Written as a number.
    Literal(f64),
    /// JSONata, without its `{% %}`.
    Expression(String),
    /// A reference path.
    Path(String),
}

/// A text that may have to be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Written as it is.
    Literal(String),
    /// JSONata, without its `{% %}`.
    Expression(String),
    /// A reference path or an intrinsic function.
    Path(String),
}

/// How long a Wait waits.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitUntil {
    /// `Seconds` or `SecondsPath`.
    Seconds(Quantity),
    /// `Timestamp` or `TimestampPath`.
    Timestamp(Text),
}

/// `Retry` and `Catch`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorRules {
    /// `Retry`, in order.
    pub retry: Vec<Retrier>,
    /// `Catch`, in order.
    pub catch: Vec<Catcher>,
}

/// One rule of `Retry`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retrier {
    /// `ErrorEquals`, at least one.
    pub error_equals: Vec<String>,
    /// `IntervalSeconds`: before the first retry; 1 if it is not said.
    pub interval_seconds: u64,
    /// `MaxAttempts`: how many retries; 3 if it is not said, 0 for never.
    pub max_attempts: u32,
    /// `BackoffRate`: by how much the interval grows; 2.0 if it is not said.
    pub backoff_rate: f64,
    /// `MaxDelaySeconds`: the longest interval.
    pub max_delay_seconds: Option<u64>,
    /// `JitterStrategy: FULL`: a random part of the interval.
    pub has_full_jitter: bool,
}

/// One rule of `Catch`.
#[derive(Clone, Debug, PartialEq)]
pub struct Catcher {
    /// `ErrorEquals`, at least one.
    pub error_equals: Vec<String>,
    /// `Next`.
    pub next: String,
    /// `ResultPath` (JSONPath mode).
    pub result_path: PathField,
    /// `Output` (JSONata mode).
    pub output: Option<Value>,
    /// `Assign`.
    pub assign: Option<Value>,
}

/// One rule of `Choices`.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// When it applies.
    pub condition: Condition,
    /// `Next`.
    pub next: String,
    /// `Output` (JSONata mode).
    pub output: Option<Value>,
    /// `Assign`.
    pub assign: Option<Value>,
}

/// When a rule of a Choice applies.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// `Condition`: JSONata, without its `{% %}`.
    Expression(String),
    /// `Condition` written as a plain `true` or `false`.
    Constant(bool),
    /// JSONPath mode.
    Test(Test),
}

/// A test of JSONPath mode.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// `And`: all of them, at least one.
    And(Vec<Test>),
    /// `Or`: one of them, at least one.
    Or(Vec<Test>),
    /// `Not`.
    Not(Box<Test>),
    /// A comparison.
    Compare {
        /// `Variable`: a path.
        variable: String,
        /// Which of the 39 operators, without its `Path` ending.
        operator: Comparison,
        /// What it is compared with.
        operand: Operand,
    },
}

/// What a comparison compares with.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A value of the operator's type.
    Literal(Value),
    /// The operator ended in `Path`.
    Path(String),
}

/// The comparison operators of JSONPath mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are called as in the specification")]
pub enum Comparison {
    StringEquals,
    StringLessThan,
    StringGreaterThan,
    StringLessThanEquals,
    StringGreaterThanEquals,
    StringMatches,
    NumericEquals,
    NumericLessThan,
    NumericGreaterThan,
    NumericLessThanEquals,
    NumericGreaterThanEquals,
    BooleanEquals,
    TimestampEquals,
    TimestampLessThan,
    TimestampGreaterThan,
    TimestampLessThanEquals,
    TimestampGreaterThanEquals,
    IsNull,
    IsPresent,
    IsNumeric,
    IsString,
    IsBoolean,
    IsTimestamp,
}

/// A Map.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// `ItemsPath` (JSONPath mode).
    pub items_path: PathField,
    /// `Items` (JSONata mode): a JSONata string or an array.
    pub items: Option<Value>,
    /// `ItemReader`.
    pub item_reader: Option<ItemReader>,
    /// `ItemSelector`, or the older `Parameters`.
    pub item_selector: Option<Value>,
    /// `ItemBatcher`.
    pub item_batcher: Option<ItemBatcher>,
    /// `ItemProcessor`, or the older `Iterator`.
    pub processor: Machine,
    /// `ProcessorConfig`: whether it is a distributed Map.
    pub is_distributed: bool,
    /// `MaxConcurrency` or `MaxConcurrencyPath`; 0 is no limit.
    pub max_concurrency: Option<Quantity>,
    /// `ToleratedFailureCount` or `ToleratedFailureCountPath`.
    pub tolerated_failure_count: Option<Quantity>,
    /// `ToleratedFailurePercentage` or `ToleratedFailurePercentagePath`.
    pub tolerated_failure_percentage: Option<Quantity>,
    /// `ResultWriter`.
    pub result_writer: Option<ResultWriter>,
    /// `Label`.
    pub label: Option<String>,
    /// `Retry` and `Catch`.
    pub rules: ErrorRules,
    /// `Next` or `End`.
    pub transition: Transition,
}

/// Where a distributed Map reads its items.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemReader {
    /// `Resource`.
    pub resource: String,
    /// `ReaderConfig`: `InputType`, `CSVHeaderLocation`, `CSVHeaders`, `MaxItems`, ...
    pub config: Option<Value>,
    /// `Arguments` or `Parameters`: a template.
    pub arguments: Option<Value>,
}

/// Where and how a distributed Map leaves its results.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultWriter {
    /// `Resource`; without one the results stay in the saga.
    pub resource: Option<String>,
    /// `Arguments` or `Parameters`: a template.
    pub arguments: Option<Value>,
    /// `WriterConfig.Transformation`.
    pub transformation: Option<Transformation>,
    /// `WriterConfig.OutputType`: whether each result is a line of its own.
    pub is_lines: bool,
}

/// The form of a distributed Map's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transformation {
    /// `NONE`: each output with the name, times and input of its item.
    None,
    /// `COMPACT`: the outputs.
    Compact,
    /// `FLATTEN`: the outputs; those that are arrays are joined.
    Flatten,
}

/// How a distributed Map groups its items.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemBatcher {
    /// `BatchInput`: a template.
    pub batch_input: Option<Value>,
    /// `MaxItemsPerBatch` or `MaxItemsPerBatchPath`.
    pub max_items: Option<Quantity>,
    /// `MaxInputBytesPerBatch` or `MaxInputBytesPerBatchPath`.
    pub max_input_bytes: Option<Quantity>,
}
