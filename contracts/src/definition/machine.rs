//! Machines: a document, a branch, an item processor; and what all their parts are read with.
//!
//! One pass reads everything and reports everything. Names are checked where they are used: a
//! transition against the states of its own machine, a state's name against those of the document.

use super::{
    diagnostic::{Diagnostic, Severity},
    model::{Definition, Machine, QueryLanguage, Transition},
    node::Content,
    place::{Place, Problems, choices, nearest},
    rules::MOST_SECONDS,
    template::variable_name,
};
use indexmap::IndexMap;
use std::collections::{HashMap, HashSet};

/// The extension of this dialect, as `Extensions` declares it.
const SAGA_EXTENSION: &str = "saga/1";
/// Longest name of a state, in characters: the limit of Step Functions.
const STATE_NAME_CHARS: usize = 80;

const DOCUMENT_FIELDS: [&str; 8] = [
    "Comment",
    "Version",
    "QueryLanguage",
    "TimeoutSeconds",
    "StartAt",
    "States",
    "Extensions",
    "Triggers",
];
const BRANCH_FIELDS: [&str; 4] = ["Comment", "QueryLanguage", "StartAt", "States"];
const PROCESSOR_FIELDS: [&str; 5] = [
    "Comment",
    "QueryLanguage",
    "StartAt",
    "States",
    "ProcessorConfig",
];

/// Reads one document.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) problems: Problems,
    /// Whether the document declares the saga extension.
    pub(super) has_saga: bool,
    /// Whether states may wait for an answer: not in an Express workflow.
    pub(super) is_express: bool,
    /// The names of all states so far: they are unique in the whole document.
    names: HashSet<String>,
    /// The states of the machine that is being read, and of those around it.
    machines: Vec<Names>,
    /// The variables that the machines around this one assign.
    variables: Vec<HashSet<String>>,
}

/// The states of a machine, and those that something leads to.
#[derive(Debug, Default)]
struct Names {
    known: Vec<String>,
    reached: HashMap<String, Vec<String>>,
    /// The state that is being read.
    current: String,
}

impl Reader {
    pub(super) fn new(problems: Problems) -> Self {
        Self {
            problems,
            has_saga: false,
            is_express: false,
            names: HashSet::new(),
            machines: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// The whole document.
    pub(super) fn document(&mut self, place: &Place<'_>) -> Definition {
        const WHAT: &str = "a definition";
        self.problems.is_object(place);
        self.extensions(place);
        self.problems.known_fields(place, &DOCUMENT_FIELDS, WHAT);
        let comment = self.comment(place);
        if let Some(version) = place.get("Version") {
            self.problems.word(&version, &["1.0"]);
        }
        let language = self.query_language(place, QueryLanguage::JsonPath, true);
        let timeout_seconds = place
            .get("TimeoutSeconds")
            .and_then(|place| self.problems.integer(&place, 1..=MOST_SECONDS));
        let triggers = match place.get("Triggers") {
            Some(triggers) if self.is_extended(&triggers, "Triggers") => self.triggers(&triggers),
            _ => Vec::new(),
        };
        let machine = self.machine_body(place, language, WHAT);
        Definition {
            comment,
            timeout_seconds,
            triggers,
            machine,
        }
    }

    fn extensions(&mut self, place: &Place<'_>) {
        let Some(extensions) = place.get("Extensions") else {
            return;
        };
        for item in self.problems.array(&extensions) {
            if self.problems.word(&item, &[SAGA_EXTENSION]).is_some() {
                self.has_saga = true;
            }
        }
    }

    /// True if the field may stand here; says so if the document does not declare the extension.
    pub(super) fn is_extended(&mut self, place: &Place<'_>, name: &str) -> bool {
        if !self.has_saga {
            self.problems
                .misplaced(
                    "undeclared-extension",
                    place,
                    format!("`{name}` belongs to the saga extension"),
                )
                .label("not a field of the Amazon States Language")
                .help("declare it at the top of the document: `Extensions: [saga/1]`");
        }
        self.has_saga
    }

    /// A branch of a Parallel.
    pub(super) fn branch(&mut self, place: &Place<'_>, language: QueryLanguage) -> Machine {
        const WHAT: &str = "a branch";
        self.problems.is_object(place);
        self.problems.known_fields(place, &BRANCH_FIELDS, WHAT);
        self.inner_machine(place, language, WHAT)
    }

    /// The item processor of a Map.
    pub(super) fn processor(&mut self, place: &Place<'_>, language: QueryLanguage) -> Machine {
        const WHAT: &str = "an item processor";
        self.problems.is_object(place);
        self.problems.known_fields(place, &PROCESSOR_FIELDS, WHAT);
        self.inner_machine(place, language, WHAT)
    }

    fn inner_machine(&mut self, place: &Place<'_>, language: QueryLanguage, what: &str) -> Machine {
        self.comment(place);
        let language = self.query_language(place, language, false);
        self.machine_body(place, language, what)
    }

    fn machine_body(&mut self, place: &Place<'_>, language: QueryLanguage, what: &str) -> Machine {
        let states = place.get("States");
        let is_object = matches!(place.node.content, Content::Object(_));
        let known = states
            .iter()
            .flat_map(Place::fields)
            .map(|(field, _)| field.key.clone());
        self.machines.push(Names {
            known: known.collect(),
            ..Names::default()
        });
        self.variables.push(
            states
                .as_ref()
                .map(|states| variables(states, language))
                .unwrap_or_default(),
        );
        let start_at = if let Some(start_at) = place.get("StartAt") {
            let name = self
                .problems
                .string(&start_at)
                .unwrap_or_default()
                .to_owned();
            if states.is_some() && start_at.node.as_str().is_some() {
                self.lead_to(&start_at, &name);
            }
            name
        } else {
            if is_object {
                self.problems.missing(place, "StartAt", what);
            }
            String::new()
        };
        let mut machine = Machine {
            start_at,
            states: IndexMap::new(),
        };
        match states {
            Some(states) => {
                if self.problems.is_object(&states) && states.fields().next().is_none() {
                    self.problems
                        .error("empty", &states, "`States` must not be empty")
                        .label("needs at least one state");
                }
                for (field, state) in states.fields() {
                    self.state_name(&state, &field.key);
                    if let Some(names) = self.machines.last_mut() {
                        field.key.clone_into(&mut names.current);
                    }
                    let read = self.state(&state, language);
                    machine.states.insert(field.key.clone(), read);
                }
                self.unreachable(&states, &machine.start_at);
            }
            None if is_object => {
                self.problems.missing(place, "States", what);
            }
            None => {}
        }
        self.machines.pop();
        self.variables.pop();
        machine
    }

    fn state_name(&mut self, state: &Place<'_>, name: &str) {
        let count = name.chars().count();
        if count == 0 || count > STATE_NAME_CHARS {
            self.problems
                .misplaced(
                    "state-name",
                    state,
                    format!("a state's name has 1 to {STATE_NAME_CHARS} characters"),
                )
                .label(format!("this one has {count}"));
        }
        if !self.names.insert(name.to_owned()) {
            self.problems
                .misplaced(
                    "duplicate-state",
                    state,
                    format!("there is another state called `{name}`"),
                )
                .label("the second one")
                .help("names of states are unique in the whole document, branches included");
        }
    }

    /// Warns of states that no state leads to.
    fn unreachable(&mut self, states: &Place<'_>, start_at: &str) {
        let Some(names) = self.machines.last() else {
            return;
        };
        let mut seen: HashSet<&str> = HashSet::new();
        let mut next = vec![start_at];
        while let Some(name) = next.pop() {
            if seen.insert(name) {
                next.extend(
                    names
                        .reached
                        .get(name)
                        .into_iter()
                        .flatten()
                        .map(String::as_str),
                );
            }
        }
        let lost: Vec<_> = states
            .fields()
            .filter(|(field, _)| !seen.contains(field.key.as_str()))
            .collect();
        let is_start_known = names.known.iter().any(|name| name == start_at);
        for (field, state) in lost {
            if is_start_known {
                let message = format!("no state leads to `{}`", field.key);
                let span = state.key_span();
                let pointer = state.pointer.clone();
                self.problems
                    .add(
                        "unreachable-state",
                        Severity::Warning,
                        pointer,
                        span,
                        message,
                    )
                    .label("never entered");
            }
        }
    }

    /// Something leads to the state `name` of this machine; says so if there is no such state.
    pub(super) fn lead_to(&mut self, place: &Place<'_>, name: &str) {
        let Some(names) = self.machines.last_mut() else {
            return;
        };
        let current = names.current.clone();
        names
            .reached
            .entry(current)
            .or_default()
            .push(name.to_owned());
        if names.known.iter().any(|known| known == name) {
            return;
        }
        let near = nearest(name, names.known.iter().map(String::as_str)).map(str::to_owned);
        let elsewhere = self.names.contains(name);
        let found = self
            .problems
            .error(
                "unknown-state",
                place,
                format!("there is no state called `{name}` here"),
            )
            .label("no such state");
        match near {
            Some(near) => found.help(format!("did you mean `{near}`?")),
            None if elsewhere => found
                .help("a transition stays within its branch: end the branch, and go on from there"),
            None => found.help("add the state to `States`, or name one that is there"),
        };
    }

    /// `Next` of a rule: a state of this machine.
    pub(super) fn next(&mut self, rule: &Place<'_>, is_object: bool, what: &str) -> String {
        let Some(next) = rule.get("Next") else {
            if is_object {
                self.problems.missing(rule, "Next", what);
            }
            return String::new();
        };
        self.state_reference(&next)
    }

    /// The name of a state of this machine.
    pub(super) fn state_reference(&mut self, place: &Place<'_>) -> String {
        let Some(name) = self.problems.string(place) else {
            return String::new();
        };
        self.lead_to(place, name);
        name.to_owned()
    }

    /// `Next` or `End` of a state, exactly one of them.
    pub(super) fn transition(&mut self, state: &Place<'_>, what: &str) -> Transition {
        let end = state.get("End");
        let is_end = end.as_ref().is_some_and(|end| self.problems.boolean(end));
        match (state.get("Next"), end) {
            (Some(next), Some(end)) => {
                self.problems
                    .misplaced(
                        "exclusive-fields",
                        &end,
                        format!("{what} has either `Next` or `End`"),
                    )
                    .label("`Next` is given already");
                Transition::Next(self.state_reference(&next))
            }
            (Some(next), None) => Transition::Next(self.state_reference(&next)),
            (None, Some(end)) => {
                if !is_end && matches!(end.node.content, Content::Bool(false)) {
                    self.problems
                        .error("end-is-false", &end, "`End` can only be true")
                        .label("a state that does not end has `Next`");
                }
                Transition::End
            }
            (None, None) => {
                if matches!(state.node.content, Content::Object(_)) {
                    self.problems
                        .misplaced(
                            "missing-field",
                            state,
                            format!("{what} needs `Next` or `End`"),
                        )
                        .label("does not say how it goes on")
                        .help("write `Next: <state>`, or `End: true`");
                }
                Transition::End
            }
        }
    }

    /// `QueryLanguage`, or the one of whatever stands around.
    pub(super) fn query_language(
        &mut self,
        place: &Place<'_>,
        around: QueryLanguage,
        may_return: bool,
    ) -> QueryLanguage {
        let Some(field) = place.get("QueryLanguage") else {
            return around;
        };
        match self.problems.word(&field, &["JSONPath", "JSONata"]) {
            Some("JSONata") => QueryLanguage::Jsonata,
            Some(_) if around == QueryLanguage::Jsonata && !may_return => {
                self.problems
                    .error("query-language", &field, "what stands in JSONata cannot go back to JSONPath")
                    .label("the document is in JSONata")
                    .help("leave the document in JSONPath, and set `QueryLanguage: JSONata` on single states");
                QueryLanguage::Jsonata
            }
            Some(_) => QueryLanguage::JsonPath,
            None => around,
        }
    }

    /// `Comment`; empty if there is none.
    pub(super) fn comment(&mut self, place: &Place<'_>) -> String {
        let comment = place
            .get("Comment")
            .and_then(|place| self.problems.string(&place));
        comment.unwrap_or_default().to_owned()
    }

    /// `Assign`.
    pub(super) fn assign(
        &mut self,
        place: &Place<'_>,
        language: QueryLanguage,
    ) -> Option<serde_json::Value> {
        let assign = place.get("Assign")?;
        let outer = self.variables.len().saturating_sub(1);
        Some(
            self.problems
                .assign(&assign, language, &self.variables[..outer]),
        )
    }

    /// Every field must be one of `known`, and of the state's language.
    pub(super) fn fields_of_language(
        &mut self,
        place: &Place<'_>,
        known: &[&str],
        of_path: &[&str],
        of_jsonata: &[&str],
        language: QueryLanguage,
        what: &str,
    ) {
        for (field, value) in place.fields() {
            let name = field.key.as_str();
            let is_foreign = match language {
                QueryLanguage::Jsonata => of_path.contains(&name),
                QueryLanguage::JsonPath => of_jsonata.contains(&name),
            };
            if is_foreign {
                self.wrong_language(&value, name, language);
            } else if !known.contains(&name) {
                self.problems.unknown_field(&value, name, known, what);
            }
        }
    }

    /// A field of the other query language.
    pub(super) fn wrong_language(
        &mut self,
        place: &Place<'_>,
        name: &str,
        language: QueryLanguage,
    ) -> &mut Diagnostic {
        let (here, other) = match language {
            QueryLanguage::Jsonata => ("JSONata", "JSONPath"),
            QueryLanguage::JsonPath => ("JSONPath", "JSONata"),
        };
        let instead = match name {
            "Parameters" | "ItemSelector" if here == "JSONata" => "use `Arguments`",
            "InputPath" | "ItemsPath" => "use an expression where the value is needed",
            "ResultPath" | "OutputPath" | "ResultSelector" => "use `Output`, or `Assign`",
            "Arguments" => "use `Parameters`",
            "Output" => "use `ResultSelector`, `ResultPath` or `OutputPath`",
            "Items" => "use `ItemsPath`",
            "Condition" => "use `Variable` and a comparison",
            _ if name.ends_with("Path") && here == "JSONata" => {
                "write an expression without `Path`"
            }
            _ => "it has no counterpart here",
        };
        self.problems
            .misplaced(
                "wrong-language",
                place,
                format!("`{name}` is a field of {other} mode"),
            )
            .label(format!("this state is in {here} mode"))
            .help(format!("{instead}, or change `QueryLanguage`"))
    }

    /// A text that should be an instant.
    pub(super) fn not_a_timestamp(&mut self, place: &Place<'_>) {
        let message = format!("{} must be an RFC 3339 timestamp", place.name());
        self.problems
            .error("not-a-timestamp", place, message)
            .label("not a timestamp")
            .help("write it as `2026-03-14T01:59:00Z`");
    }

    /// At least one of `names` must stand in the object, and not two.
    pub(super) fn exactly_one(&mut self, place: &Place<'_>, names: &[&str], what: &str) {
        self.problems.at_most_one(place, names);
        let is_object = matches!(place.node.content, Content::Object(_));
        if is_object && !names.iter().any(|name| place.has(name)) {
            let message = format!("{what} needs {}", choices(names));
            self.problems
                .misplaced("missing-field", place, message)
                .label(format!("has none of {}", choices(names)));
        }
    }
}

/// The variables that the states of a machine assign.
fn variables(states: &Place<'_>, language: QueryLanguage) -> HashSet<String> {
    let mut names = HashSet::new();
    let mut collect = |owner: &Place<'_>| {
        for (field, _) in owner.get("Assign").iter().flat_map(Place::fields) {
            names.insert(variable_name(&field.key, language).to_owned());
        }
    };
    for (_, state) in states.fields() {
        collect(&state);
        let rules = ["Catch", "Choices"].map(|name| state.get(name));
        for rule in rules.iter().flatten().flat_map(Place::items) {
            collect(&rule);
        }
    }
    names
}
