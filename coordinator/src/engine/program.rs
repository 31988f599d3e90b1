//! A definition compiled for the fold: names resolved to numbers, expressions and paths parsed.
//!
//! A program is made once for each version of a definition and shared; a fold never parses. The
//! numbers of machines and states depend on the document alone, so a snapshot may hold them.

use crate::expression::{Expression, Path, Query, SyntaxError, Template};
use dirigent_contracts::{
    definition::model::{self, Comparison, PathField, QueryLanguage, Retrier, Transformation},
    id::{DefinitionName, TaskName},
    limit, subject,
};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Something in a definition that does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer of the field.
    pub pointer: String,
    /// Byte offset inside the field's text, where it is known.
    pub offset: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// A compiled definition.
#[derive(Debug)]
pub struct Program {
    /// How long a saga may run in all.
    pub(super) timeout: Option<Duration>,
    /// The consumers of the tasks that it may ask for.
    consumers: Vec<String>,
    /// Machine 0 is the saga's own; branches and item processors follow.
    machines: Vec<Machine>,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) start: u32,
    states: Vec<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) name: Arc<str>,
    /// `Type`, as the document writes it.
    pub(super) kind_name: &'static str,
    pub(super) language: QueryLanguage,
    pub(super) data: Data,
    pub(super) kind: Kind,
    pub(super) retry: Vec<Retrier>,
    pub(super) catch: Vec<Catcher>,
    pub(super) target: Target,
    /// Whether an expression of this state may look at the context object.
    pub(super) needs_context: bool,
}

/// Where a state goes when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    State(u32),
    End,
}

#[derive(Debug)]
pub(super) struct Data {
    pub(super) input: Selection,
    pub(super) output_path: Selection,
    pub(super) result_path: Selection,
    pub(super) arguments: Option<Template>,
    pub(super) result_selector: Option<Template>,
    pub(super) output: Option<Template>,
    pub(super) assign: Option<Template>,
}

/// What a path field of `JSONPath` mode selects.
#[derive(Debug)]
pub(super) enum Selection {
    Whole,
    Nothing,
    Path(Path),
}

#[derive(Debug)]
pub(super) enum Kind {
    Task(Box<Task>),
    Pass {
        result: Option<Arc<Value>>,
    },
    Choice {
        rules: Vec<Rule>,
        default: Option<u32>,
    },
    Wait(Until),
    Succeed,
    Fail {
        error: Option<Text>,
        cause: Option<Text>,
    },
    Parallel {
        branches: Vec<u32>,
    },
    Map(Box<Map>),
    Compensate,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) resource: Arc<str>,
    /// Whether the resource is a job whose end is waited for (`.sync`).
    pub(super) is_job: bool,
    pub(super) action: Action,
    pub(super) timeout: Option<Quantity>,
    pub(super) heartbeat: Option<Quantity>,
    pub(super) credentials: Option<Template>,
    pub(super) compensate: Option<Compensation>,
    pub(super) is_pivot: bool,
}

#[derive(Debug)]
pub(super) enum Action {
    Task {
        task: TaskName,
        waits_for_token: bool,
    },
    Publish {
        subject: Arc<str>,
    },
    Await {
        subject: Arc<str>,
    },
    Saga {
        definition: DefinitionName,
        key: Option<Expression>,
    },
}

impl Action {
    /// The kind of work that workers are asked for, if they are.
    pub(super) fn task(&self) -> Option<&TaskName> {
        match self {
            Self::Task { task, .. } => Some(task),
            Self::Publish { .. } | Self::Await { .. } | Self::Saga { .. } => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Compensation {
    pub(super) resource: Arc<str>,
    pub(super) action: Action,
    pub(super) arguments: Option<Template>,
    pub(super) timeout: Duration,
    pub(super) retry: Vec<Retrier>,
}

#[derive(Debug)]
pub(super) enum Quantity {
    Literal(f64),
    Expression(Expression),
    Path(Path),
}

#[derive(Debug)]
pub(super) enum Text {
    Literal(String),
    Expression(Expression),
    Query(Query),
}

#[derive(Debug)]
pub(super) enum Until {
    Seconds(Quantity),
    Timestamp(Text),
}

#[derive(Debug)]
pub(super) struct Catcher {
    pub(super) error_equals: Vec<String>,
    pub(super) next: u32,
    pub(super) result_path: Selection,
    pub(super) output: Option<Template>,
    pub(super) assign: Option<Template>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) condition: Condition,
    pub(super) next: u32,
    pub(super) output: Option<Template>,
    pub(super) assign: Option<Template>,
}

#[derive(Debug)]
pub(super) enum Condition {
    Expression(Expression),
    Constant(bool),
    Test(Test),
}

#[derive(Debug)]
pub(super) enum Test {
    And(Vec<Test>),
    Or(Vec<Test>),
    Not(Box<Test>),
    Compare {
        variable: Path,
        operator: Comparison,
        operand: Operand,
    },
}

#[derive(Debug)]
pub(super) enum Operand {
    Literal(Value),
    Path(Path),
}

#[derive(Debug)]
pub(super) struct Map {
    pub(super) items: Items,
    pub(super) selector: Option<Template>,
    pub(super) machine: u32,
    pub(super) is_distributed: bool,
    pub(super) max_concurrency: Option<Quantity>,
    pub(super) tolerated_count: Option<Quantity>,
    pub(super) tolerated_percentage: Option<Quantity>,
    pub(super) batch: Option<Batch>,
    pub(super) reader: Option<Reader>,
    pub(super) writer: Option<Writer>,
}

/// Where a distributed Map reads its items.
#[derive(Debug)]
pub(super) struct Reader {
    /// Whether the items are the objects of a bucket, and not what is in one of them.
    pub(super) is_listing: bool,
    pub(super) arguments: Option<Template>,
    pub(super) config: Option<Template>,
    pub(super) most: Option<Quantity>,
}

/// Where a distributed Map leaves its results.
#[derive(Debug)]
pub(super) struct Writer {
    /// Whether they go to objects.
    pub(super) is_object: bool,
    pub(super) arguments: Option<Template>,
    transformation: Option<Transformation>,
    pub(super) is_lines: bool,
}

impl Map {
    /// Whether it says how many of its iterations may fail.
    pub(super) fn has_tolerance(&self) -> bool {
        self.tolerated_count.is_some() || self.tolerated_percentage.is_some()
    }

    /// The form of the results. What goes to objects tells its items, if nothing else is asked for.
    pub(super) fn transformation(&self) -> Transformation {
        match &self.writer {
            None => Transformation::Compact,
            Some(writer) => writer.transformation.unwrap_or(Transformation::None),
        }
    }
}

#[derive(Debug)]
pub(super) enum Items {
    /// The state's input itself.
    Input,
    Path(Path),
    Template(Template),
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) input: Option<Template>,
    pub(super) max_items: Option<Quantity>,
    pub(super) max_input_bytes: Option<Quantity>,
}

impl Program {
    /// Compiles a definition.
    ///
    /// # Errors
    /// Every expression, path and template that does not parse, each with its place.
    pub fn compile(definition: &model::Definition) -> Result<Self, Vec<Fault>> {
        let mut compiler = Compiler {
            machines: Vec::new(),
            faults: Vec::new(),
        };
        compiler.machine(&definition.machine, "");
        if compiler.faults.is_empty() {
            Ok(Self {
                timeout: definition.timeout_seconds.map(Duration::from_secs),
                consumers: consumers(definition),
                machines: compiler.machines.into_iter().flatten().collect(),
            })
        } else {
            Err(compiler.faults)
        }
    }

    /// The consumers of the tasks that its sagas may ask for, undos included.
    #[must_use]
    pub fn consumers(&self) -> &[String] {
        &self.consumers
    }

    pub(super) fn machine(&self, machine: u32) -> Option<&Machine> {
        self.machines.get(machine as usize)
    }

    pub(super) fn state(&self, machine: u32, state: u32) -> Option<&State> {
        self.machine(machine)?.states.get(state as usize)
    }
}

/// The consumers of the tasks that sagas of a definition may ask for.
pub(crate) fn consumers(definition: &model::Definition) -> Vec<String> {
    let tasks = definition.tasks();
    tasks.iter().map(subject::command_consumer).collect()
}

struct Compiler {
    /// `None` while the machine is being compiled: its number is taken, its states are not known.
    machines: Vec<Option<Machine>>,
    faults: Vec<Fault>,
}

/// Names of a machine's states, to resolve transitions.
type Numbers<'a> = HashMap<&'a str, u32>;

impl Compiler {
    fn machine(&mut self, machine: &model::Machine, pointer: &str) -> u32 {
        let number = index(self.machines.len());
        self.machines.push(None);
        let numbers: Numbers<'_> = machine
            .states
            .keys()
            .enumerate()
            .map(|(at, name)| (name.as_str(), index(at)))
            .collect();
        let start = self.resolve(&numbers, &machine.start_at, &format!("{pointer}/StartAt"));
        let states = machine
            .states
            .iter()
            .map(|(name, state)| {
                let pointer = format!("{pointer}/States/{}", escape(name));
                self.state(name, state, &numbers, &pointer)
            })
            .collect();
        self.machines[number as usize] = Some(Machine { start, states });
        number
    }

    fn resolve(&mut self, numbers: &Numbers<'_>, name: &str, pointer: &str) -> u32 {
        numbers.get(name).copied().unwrap_or_else(|| {
            self.fault(
                pointer.to_owned(),
                None,
                format!("there is no state named {name:?}"),
            );
            0
        })
    }

    fn target(
        &mut self,
        numbers: &Numbers<'_>,
        transition: &model::Transition,
        pointer: &str,
    ) -> Target {
        match transition {
            model::Transition::End => Target::End,
            model::Transition::Next(name) => {
                Target::State(self.resolve(numbers, name, &format!("{pointer}/Next")))
            }
        }
    }

    fn state(
        &mut self,
        name: &str,
        state: &model::State,
        numbers: &Numbers<'_>,
        pointer: &str,
    ) -> State {
        let language = state.query_language;
        let needs_context = mentions_context(state);
        let data = self.data(&state.data, language, pointer);
        let no_rules = model::ErrorRules::default();
        let mut rules = &no_rules;
        let mut target = Target::End;
        let kind = match &state.kind {
            model::StateKind::Task(task) => {
                rules = &task.rules;
                target = self.target(numbers, &task.transition, pointer);
                Kind::Task(Box::new(self.task(task, language, pointer)))
            }
            model::StateKind::Pass { result, transition } => {
                target = self.target(numbers, transition, pointer);
                Kind::Pass {
                    result: result.clone().map(Arc::new),
                }
            }
            model::StateKind::Choice { choices, default } => Kind::Choice {
                rules: choices
                    .iter()
                    .enumerate()
                    .map(|(at, choice)| {
                        self.rule(
                            choice,
                            language,
                            numbers,
                            &format!("{pointer}/Choices/{at}"),
                        )
                    })
                    .collect(),
                default: default
                    .as_ref()
                    .map(|name| self.resolve(numbers, name, &format!("{pointer}/Default"))),
            },
            model::StateKind::Wait { until, transition } => {
                target = self.target(numbers, transition, pointer);
                Kind::Wait(match until {
                    model::WaitUntil::Seconds(seconds) => {
                        Until::Seconds(self.quantity(seconds, "Seconds", pointer))
                    }
                    model::WaitUntil::Timestamp(text) => {
                        Until::Timestamp(self.text(text, "Timestamp", pointer))
                    }
                })
            }
            model::StateKind::Succeed => Kind::Succeed,
            model::StateKind::Fail { error, cause } => Kind::Fail {
                error: error.as_ref().map(|text| self.text(text, "Error", pointer)),
                cause: cause.as_ref().map(|text| self.text(text, "Cause", pointer)),
            },
            model::StateKind::Parallel {
                branches,
                rules: own,
                transition,
            } => {
                rules = own;
                target = self.target(numbers, transition, pointer);
                Kind::Parallel {
                    branches: branches
                        .iter()
                        .enumerate()
                        .map(|(at, branch)| {
                            self.machine(branch, &format!("{pointer}/Branches/{at}"))
                        })
                        .collect(),
                }
            }
            model::StateKind::Map(map) => {
                rules = &map.rules;
                target = self.target(numbers, &map.transition, pointer);
                Kind::Map(Box::new(self.map(map, language, pointer)))
            }
            model::StateKind::Compensate { transition } => {
                target = self.target(numbers, transition, pointer);
                Kind::Compensate
            }
        };
        let catch = rules
            .catch
            .iter()
            .enumerate()
            .map(|(at, rule)| {
                self.catcher(rule, language, numbers, &format!("{pointer}/Catch/{at}"))
            })
            .collect();
        State {
            name: name.into(),
            kind_name: state.kind.name(),
            language,
            data,
            kind,
            retry: rules.retry.clone(),
            catch,
            target,
            needs_context,
        }
    }

    fn data(&mut self, data: &model::DataFlow, language: QueryLanguage, pointer: &str) -> Data {
        let arguments = match language {
            QueryLanguage::JsonPath => "Parameters",
            QueryLanguage::Jsonata => "Arguments",
        };
        let mut template = |value: &Option<Value>, field: &str| {
            let value = value.as_ref()?;
            self.template(value, language, &format!("{pointer}/{field}"))
        };
        let arguments = template(&data.arguments, arguments);
        let result_selector = template(&data.result_selector, "ResultSelector");
        let output = template(&data.output, "Output");
        let assign = template(&data.assign, "Assign");
        Data {
            input: self.selection(&data.input_path, &format!("{pointer}/InputPath")),
            output_path: self.selection(&data.output_path, &format!("{pointer}/OutputPath")),
            result_path: self.selection(&data.result_path, &format!("{pointer}/ResultPath")),
            arguments,
            result_selector,
            output,
            assign,
        }
    }

    fn task(&mut self, task: &model::Task, language: QueryLanguage, pointer: &str) -> Task {
        let key = task
            .key
            .as_ref()
            .and_then(|source| self.expression(source, &format!("{pointer}/Key")));
        Task {
            resource: task.resource.text.as_str().into(),
            is_job: is_job(&task.resource.text),
            action: action(&task.resource.action, key),
            timeout: task
                .timeout
                .as_ref()
                .map(|q| self.quantity(q, "TimeoutSeconds", pointer)),
            heartbeat: task
                .heartbeat
                .as_ref()
                .map(|q| self.quantity(q, "HeartbeatSeconds", pointer)),
            credentials: task.credentials.as_ref().and_then(|value| {
                self.template(value, language, &format!("{pointer}/Credentials"))
            }),
            compensate: task.compensate.as_ref().map(|compensation| {
                let field = match language {
                    QueryLanguage::JsonPath => "Parameters",
                    QueryLanguage::Jsonata => "Arguments",
                };
                Compensation {
                    resource: compensation.resource.text.as_str().into(),
                    action: action(&compensation.resource.action, None),
                    arguments: compensation.arguments.as_ref().and_then(|value| {
                        self.template(value, language, &format!("{pointer}/Compensate/{field}"))
                    }),
                    timeout: match (compensation.timeout_seconds, &compensation.resource.action) {
                        (Some(seconds), _) => Duration::from_secs(seconds),
                        // A saga ends by itself, and has an age.
                        (None, model::Action::Saga { .. }) => limit::TASK_TIMEOUT,
                        (None, _) => limit::COMPENSATION_TIMEOUT,
                    },
                    retry: if compensation.retry.is_empty() {
                        vec![generous_retry()]
                    } else {
                        compensation.retry.clone()
                    },
                }
            }),
            is_pivot: task.pivot,
        }
    }

    fn map(&mut self, map: &model::Map, language: QueryLanguage, pointer: &str) -> Map {
        let items = match (&map.items, &map.items_path) {
            (Some(items), _) => self
                .template(items, language, &format!("{pointer}/Items"))
                .map_or(Items::Input, Items::Template),
            (None, PathField::Path(path)) => self
                .path(path, &format!("{pointer}/ItemsPath"))
                .map_or(Items::Input, Items::Path),
            (None, PathField::Absent | PathField::Null) => Items::Input,
        };
        if map.is_distributed {
            let mut awaits = false;
            map.processor.for_each_action(&mut |action| {
                awaits |= matches!(action, model::Action::Await { .. });
            });
            if awaits {
                let message = "an item of a distributed Map cannot await events: it is a saga of \
                               its own, whose key no event has";
                self.fault(format!("{pointer}/ItemProcessor"), None, message.to_owned());
            }
        }
        Map {
            items,
            selector: map.item_selector.as_ref().and_then(|value| {
                self.template(value, language, &format!("{pointer}/ItemSelector"))
            }),
            machine: self.machine(&map.processor, &format!("{pointer}/ItemProcessor")),
            is_distributed: map.is_distributed,
            max_concurrency: map
                .max_concurrency
                .as_ref()
                .map(|q| self.quantity(q, "MaxConcurrency", pointer)),
            tolerated_count: map
                .tolerated_failure_count
                .as_ref()
                .map(|q| self.quantity(q, "ToleratedFailureCount", pointer)),
            tolerated_percentage: map
                .tolerated_failure_percentage
                .as_ref()
                .map(|q| self.quantity(q, "ToleratedFailurePercentage", pointer)),
            batch: map.item_batcher.as_ref().map(|batcher| Batch {
                input: batcher.batch_input.as_ref().and_then(|value| {
                    self.template(
                        value,
                        language,
                        &format!("{pointer}/ItemBatcher/BatchInput"),
                    )
                }),
                max_items: batcher
                    .max_items
                    .as_ref()
                    .map(|q| self.quantity(q, "ItemBatcher/MaxItemsPerBatch", pointer)),
                max_input_bytes: batcher
                    .max_input_bytes
                    .as_ref()
                    .map(|q| self.quantity(q, "ItemBatcher/MaxInputBytesPerBatch", pointer)),
            }),
            reader: map
                .item_reader
                .as_ref()
                .map(|reader| self.item_reader(reader, language, &format!("{pointer}/ItemReader"))),
            writer: map.result_writer.as_ref().map(|writer| {
                self.result_writer(writer, language, &format!("{pointer}/ResultWriter"))
            }),
        }
    }

    fn item_reader(
        &mut self,
        reader: &model::ItemReader,
        language: QueryLanguage,
        pointer: &str,
    ) -> Reader {
        let action = bucket_action(&reader.resource);
        if !matches!(action, Some("getObject" | "listObjectsV2")) {
            let message = "items are read by s3:getObject or s3:listObjectsV2, which stand for the \
                           object store of NATS";
            self.fault(format!("{pointer}/Resource"), None, message.to_owned());
        }
        let mut config = reader.config.clone().unwrap_or_default();
        let kind = config["InputType"].as_str();
        if let Some(kind @ ("MANIFEST" | "PARQUET")) = kind {
            let message = format!("{kind} cannot be read: only CSV, JSON and JSONL can");
            let at = format!("{pointer}/ReaderConfig/InputType");
            self.fault(at, None, message);
        }
        let most = most_items(&mut config);
        let path = format!("{pointer}/ReaderConfig");
        let arguments = match language {
            QueryLanguage::JsonPath => "Parameters",
            QueryLanguage::Jsonata => "Arguments",
        };
        Reader {
            is_listing: action == Some("listObjectsV2"),
            arguments: reader.arguments.as_ref().and_then(|value| {
                self.template(value, language, &format!("{pointer}/{arguments}"))
            }),
            config: config
                .is_object()
                .then(|| self.template(&config, language, &path))
                .flatten(),
            most: most.map(|most| self.quantity(&most, "MaxItems", &path)),
        }
    }

    fn result_writer(
        &mut self,
        writer: &model::ResultWriter,
        language: QueryLanguage,
        pointer: &str,
    ) -> Writer {
        let action = writer.resource.as_deref().map(bucket_action);
        if !matches!(action, None | Some(Some("putObject"))) {
            let message =
                "results are written by s3:putObject, which stands for the object store of NATS";
            self.fault(format!("{pointer}/Resource"), None, message.to_owned());
        }
        let arguments = match language {
            QueryLanguage::JsonPath => "Parameters",
            QueryLanguage::Jsonata => "Arguments",
        };
        Writer {
            is_object: action.is_some(),
            arguments: writer.arguments.as_ref().and_then(|value| {
                self.template(value, language, &format!("{pointer}/{arguments}"))
            }),
            transformation: writer.transformation,
            is_lines: writer.is_lines,
        }
    }

    fn rule(
        &mut self,
        choice: &model::Choice,
        language: QueryLanguage,
        numbers: &Numbers<'_>,
        pointer: &str,
    ) -> Rule {
        let condition = match &choice.condition {
            model::Condition::Expression(source) => self
                .expression(source, &format!("{pointer}/Condition"))
                .map_or(Condition::Constant(false), Condition::Expression),
            model::Condition::Constant(value) => Condition::Constant(*value),
            model::Condition::Test(test) => self
                .test(test, pointer)
                .map_or(Condition::Constant(false), Condition::Test),
        };
        Rule {
            condition,
            next: self.resolve(numbers, &choice.next, &format!("{pointer}/Next")),
            output: choice
                .output
                .as_ref()
                .and_then(|value| self.template(value, language, &format!("{pointer}/Output"))),
            assign: choice
                .assign
                .as_ref()
                .and_then(|value| self.template(value, language, &format!("{pointer}/Assign"))),
        }
    }

    fn test(&mut self, test: &model::Test, pointer: &str) -> Option<Test> {
        let mut all = |tests: &[model::Test], field: &str| -> Option<Vec<Test>> {
            tests
                .iter()
                .enumerate()
                .map(|(at, test)| self.test(test, &format!("{pointer}/{field}/{at}")))
                .collect()
        };
        match test {
            model::Test::And(tests) => all(tests, "And").map(Test::And),
            model::Test::Or(tests) => all(tests, "Or").map(Test::Or),
            model::Test::Not(test) => {
                let test = self.test(test, &format!("{pointer}/Not"))?;
                Some(Test::Not(Box::new(test)))
            }
            model::Test::Compare {
                variable,
                operator,
                operand,
            } => {
                let variable = self.path(variable, &format!("{pointer}/Variable"));
                let operand = match operand {
                    model::Operand::Literal(value) => Some(Operand::Literal(value.clone())),
                    model::Operand::Path(path) => self
                        .path(path, &format!("{pointer}/{operator:?}Path"))
                        .map(Operand::Path),
                };
                Some(Test::Compare {
                    variable: variable?,
                    operator: *operator,
                    operand: operand?,
                })
            }
        }
    }

    fn catcher(
        &mut self,
        rule: &model::Catcher,
        language: QueryLanguage,
        numbers: &Numbers<'_>,
        pointer: &str,
    ) -> Catcher {
        Catcher {
            error_equals: rule.error_equals.clone(),
            next: self.resolve(numbers, &rule.next, &format!("{pointer}/Next")),
            result_path: self.selection(&rule.result_path, &format!("{pointer}/ResultPath")),
            output: rule
                .output
                .as_ref()
                .and_then(|value| self.template(value, language, &format!("{pointer}/Output"))),
            assign: rule
                .assign
                .as_ref()
                .and_then(|value| self.template(value, language, &format!("{pointer}/Assign"))),
        }
    }

    fn template(
        &mut self,
        value: &Value,
        language: QueryLanguage,
        pointer: &str,
    ) -> Option<Template> {
        let compiled = match language {
            QueryLanguage::JsonPath => Template::compile_jsonpath(value),
            QueryLanguage::Jsonata => Template::compile_jsonata(value),
        };
        match compiled {
            Ok(template) => Some(template),
            Err(fault) => {
                let pointer = format!("{pointer}{}", fault.pointer);
                self.syntax(pointer, &fault.error);
                None
            }
        }
    }

    fn expression(&mut self, source: &str, pointer: &str) -> Option<Expression> {
        self.parsed(Expression::compile(source), pointer)
    }

    fn path(&mut self, source: &str, pointer: &str) -> Option<Path> {
        self.parsed(Path::compile(source), pointer)
    }

    fn selection(&mut self, field: &PathField, pointer: &str) -> Selection {
        match field {
            PathField::Absent => Selection::Whole,
            PathField::Null => Selection::Nothing,
            PathField::Path(path) if path == "$" => Selection::Whole,
            PathField::Path(path) => self
                .path(path, pointer)
                .map_or(Selection::Whole, Selection::Path),
        }
    }

    fn quantity(&mut self, quantity: &model::Quantity, field: &str, pointer: &str) -> Quantity {
        let compiled = match quantity {
            model::Quantity::Literal(value) => return Quantity::Literal(*value),
            model::Quantity::Expression(source) => self
                .expression(source, &format!("{pointer}/{field}"))
                .map(Quantity::Expression),
            model::Quantity::Path(path) => self
                .path(path, &format!("{pointer}/{field}Path"))
                .map(Quantity::Path),
        };
        compiled.unwrap_or(Quantity::Literal(0.0))
    }

    fn text(&mut self, text: &model::Text, field: &str, pointer: &str) -> Text {
        let compiled = match text {
            model::Text::Literal(text) => return Text::Literal(text.clone()),
            model::Text::Expression(source) => self
                .expression(source, &format!("{pointer}/{field}"))
                .map(Text::Expression),
            model::Text::Path(source) => {
                let pointer = format!("{pointer}/{field}Path");
                self.parsed(Query::compile(source), &pointer)
                    .map(Text::Query)
            }
        };
        compiled.unwrap_or(Text::Literal(String::new()))
    }

    fn parsed<T>(&mut self, parsed: Result<T, SyntaxError>, pointer: &str) -> Option<T> {
        parsed
            .map_err(|error| self.syntax(pointer.to_owned(), &error))
            .ok()
    }

    fn syntax(&mut self, pointer: String, error: &SyntaxError) {
        self.fault(pointer, error.offset, error.message.clone());
    }

    fn fault(&mut self, pointer: String, offset: Option<usize>, message: String) {
        self.faults.push(Fault {
            pointer,
            offset,
            message,
        });
    }
}

/// The action of `arn:aws:states:::s3:ACTION`, or of `s3:ACTION`.
fn bucket_action(resource: &str) -> Option<&str> {
    let action = resource.strip_prefix("s3:").or_else(|| {
        let mut parts = resource.splitn(6, ':');
        let is_arn = parts.next() == Some("arn");
        let (_, service) = (parts.next()?, parts.next()?);
        let rest = parts.nth(2)?;
        rest.strip_prefix("s3:")
            .filter(|_| is_arn && service == "states")
    })?;
    Some(action)
}

/// Takes `MaxItems` or `MaxItemsPath` out of a `ReaderConfig`.
fn most_items(config: &mut Value) -> Option<model::Quantity> {
    let fields = config.as_object_mut()?;
    if let Some(path) = fields.remove("MaxItemsPath") {
        return path.as_str().map(|path| model::Quantity::Path(path.into()));
    }
    match fields.remove("MaxItems")? {
        Value::String(text) => {
            let source = text.strip_prefix("{%")?.strip_suffix("%}")?;
            Some(model::Quantity::Expression(source.trim().into()))
        }
        number => number.as_f64().map(model::Quantity::Literal),
    }
}

fn is_job(resource: &str) -> bool {
    let pattern = resource.rsplit_once('.').map(|(_, pattern)| pattern);
    matches!(pattern, Some("sync" | "sync:2"))
}

fn action(action: &model::Action, key: Option<Expression>) -> Action {
    match action {
        model::Action::Task {
            task,
            waits_for_token,
        } => Action::Task {
            task: task.clone(),
            waits_for_token: *waits_for_token,
        },
        model::Action::Publish { subject } => Action::Publish {
            subject: subject.as_str().into(),
        },
        model::Action::Await { subject } => Action::Await {
            subject: subject.as_str().into(),
        },
        model::Action::Saga { definition } => Action::Saga {
            definition: definition.clone(),
            key,
        },
    }
}

/// How often a compensation is tried when its definition does not say: for about an hour and a half.
fn generous_retry() -> Retrier {
    Retrier {
        error_equals: vec![dirigent_contracts::error_name::ALL.to_owned()],
        interval_seconds: 1,
        max_attempts: 100,
        backoff_rate: 2.0,
        max_delay_seconds: Some(60),
        has_full_jitter: true,
    }
}

/// Whether an expression of the state may look at the context object: says yes when in doubt.
fn mentions_context(state: &model::State) -> bool {
    // The compiled form of a state is printed once, when it is deployed; reading its text is simpler
    // than walking every field that may hold an expression, and errs on the safe side.
    let text = format!("{state:?}");
    let plain = ["input", "result", "errorOutput"];
    text.contains("$$")
        || text.match_indices("$states").any(|(at, word)| {
            let rest = &text[at + word.len()..];
            !plain
                .iter()
                .any(|name| rest.strip_prefix('.').is_some_and(|r| r.starts_with(name)))
        })
}

/// A definition is at most 1 MiB, so its states are countable.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// RFC 6901, 3.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
