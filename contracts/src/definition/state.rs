//! States: the fields of each type, and which of them belong to which query language.

use super::{
    machine::Reader,
    model::{DataFlow, QueryLanguage, State, StateKind, Text, WaitUntil},
    place::{Place, choices, nearest},
    rules::MOST_SECONDS,
    template::is_timestamp,
};

/// The types of states.
const TYPES: [&str; 9] = [
    "Task",
    "Pass",
    "Choice",
    "Wait",
    "Succeed",
    "Fail",
    "Parallel",
    "Map",
    "Compensate",
];

/// What a type of state may have, besides `Type`, `Comment` and `QueryLanguage`.
struct Fields {
    what: &'static str,
    both: &'static [&'static str],
    of_path: &'static [&'static str],
    of_jsonata: &'static [&'static str],
    /// Of the saga extension.
    of_saga: &'static [&'static str],
}

fn fields(kind: &str) -> Option<Fields> {
    let (what, both, of_path, of_jsonata, of_saga): (_, &[_], &[_], &[_], &[_]) = match kind {
        "Task" => (
            "a Task state",
            &[
                "Next",
                "End",
                "Assign",
                "Retry",
                "Catch",
                "Resource",
                "TimeoutSeconds",
                "HeartbeatSeconds",
                "Credentials",
            ],
            &[
                "InputPath",
                "OutputPath",
                "ResultPath",
                "Parameters",
                "ResultSelector",
                "TimeoutSecondsPath",
                "HeartbeatSecondsPath",
            ],
            &["Arguments", "Output"],
            &["Compensate", "Pivot", "Key"],
        ),
        "Pass" => (
            "a Pass state",
            &["Next", "End", "Assign"],
            &[
                "InputPath",
                "OutputPath",
                "ResultPath",
                "Parameters",
                "Result",
            ],
            &["Output"],
            &[],
        ),
        "Choice" => (
            "a Choice state",
            &["Choices", "Default", "Assign"],
            &["InputPath", "OutputPath"],
            &["Output"],
            &[],
        ),
        "Wait" => (
            "a Wait state",
            &["Next", "End", "Assign", "Seconds", "Timestamp"],
            &["InputPath", "OutputPath", "SecondsPath", "TimestampPath"],
            &["Output"],
            &[],
        ),
        "Succeed" => (
            "a Succeed state",
            &[],
            &["InputPath", "OutputPath"],
            &["Output"],
            &[],
        ),
        "Fail" => (
            "a Fail state",
            &["Error", "Cause"],
            &["ErrorPath", "CausePath"],
            &[],
            &[],
        ),
        "Parallel" => (
            "a Parallel state",
            &["Next", "End", "Assign", "Retry", "Catch", "Branches"],
            &[
                "InputPath",
                "OutputPath",
                "ResultPath",
                "Parameters",
                "ResultSelector",
            ],
            &["Arguments", "Output"],
            &[],
        ),
        "Map" => (
            "a Map state",
            &[
                "Next",
                "End",
                "Assign",
                "Retry",
                "Catch",
                "ItemProcessor",
                "Iterator",
                "ItemReader",
                "ItemSelector",
                "ItemBatcher",
                "ResultWriter",
                "MaxConcurrency",
                "ToleratedFailureCount",
                "ToleratedFailurePercentage",
                "Label",
            ],
            &[
                "InputPath",
                "OutputPath",
                "ResultPath",
                "ResultSelector",
                "Parameters",
                "ItemsPath",
                "MaxConcurrencyPath",
                "ToleratedFailureCountPath",
                "ToleratedFailurePercentagePath",
            ],
            &["Items", "Output"],
            &[],
        ),
        "Compensate" => (
            "a Compensate state",
            &["Next", "End", "Assign"],
            &[],
            &["Output"],
            &[],
        ),
        _ => return None,
    };
    Some(Fields {
        what,
        both,
        of_path,
        of_jsonata,
        of_saga,
    })
}

impl Reader {
    /// One state. A state that cannot be read becomes one that succeeds.
    pub(super) fn state(&mut self, place: &Place<'_>, around: QueryLanguage) -> State {
        let nothing = |query_language| State {
            query_language,
            data: DataFlow::default(),
            kind: StateKind::Succeed,
        };
        if !self.problems.is_object(place) {
            return nothing(around);
        }
        self.comment(place);
        let query_language = self.query_language(place, around, false);
        let Some(kind) = place.get("Type") else {
            self.problems
                .missing(place, "Type", "a state")
                .help(format!("give it one of {}", choices(&TYPES)));
            return nothing(query_language);
        };
        let Some(kind_name) = self.problems.string(&kind) else {
            return nothing(query_language);
        };
        let Some(fields) = fields(kind_name) else {
            let found = self
                .problems
                .error(
                    "unknown-type",
                    &kind,
                    format!("there is no type of state called `{kind_name}`"),
                )
                .label("unknown type");
            match nearest(kind_name, TYPES) {
                Some(near) => found.help(format!("did you mean `{near}`?")),
                None => found.help(format!("a state is {}", choices(&TYPES))),
            };
            return nothing(query_language);
        };
        if kind_name == "Compensate" {
            self.is_extended(&kind, "Type: Compensate");
        }
        self.state_fields(place, &fields, query_language);
        let data = self.data_flow(place, kind_name, query_language);
        let kind = self.kind(place, kind_name, fields.what, query_language);
        State {
            query_language,
            data,
            kind,
        }
    }

    fn state_fields(&mut self, place: &Place<'_>, fields: &Fields, language: QueryLanguage) {
        let Fields {
            what,
            both,
            of_path,
            of_jsonata,
            of_saga,
        } = fields;
        let mut known = vec!["Type", "Comment", "QueryLanguage"];
        known.extend(
            both.iter()
                .chain(*of_path)
                .chain(*of_jsonata)
                .chain(*of_saga),
        );
        self.fields_of_language(place, &known, of_path, of_jsonata, language, what);
        for name in *of_saga {
            if let Some(field) = place.get(name) {
                self.is_extended(&field, name);
            }
        }
    }

    fn data_flow(&mut self, place: &Place<'_>, kind: &str, language: QueryLanguage) -> DataFlow {
        let is_path = language == QueryLanguage::JsonPath;
        let of_path = |name: &str| place.get(name).filter(|_| is_path);
        let of_jsonata = |name: &str| place.get(name).filter(|_| !is_path);
        // The older name of a Map's `ItemSelector`; read with the Map.
        let parameters = of_path("Parameters").filter(|_| kind != "Map");
        let arguments = parameters.or_else(|| of_jsonata("Arguments"));
        let problems = &mut self.problems;
        DataFlow {
            input_path: problems.path_field(of_path("InputPath")),
            output_path: problems.path_field(of_path("OutputPath")),
            result_path: problems.result_path(of_path("ResultPath")),
            arguments: arguments.map(|place| problems.template(&place, language)),
            result_selector: of_path("ResultSelector")
                .map(|place| problems.object_template(&place, language)),
            output: of_jsonata("Output").map(|place| problems.template(&place, language)),
            assign: self.assign(place, language),
        }
    }

    fn kind(
        &mut self,
        place: &Place<'_>,
        kind: &str,
        what: &str,
        language: QueryLanguage,
    ) -> StateKind {
        match kind {
            "Task" => StateKind::Task(Box::new(self.task(place, language))),
            "Pass" => StateKind::Pass {
                result: place.get("Result").map(|place| place.node.to_json()),
                transition: self.transition(place, what),
            },
            "Choice" => StateKind::Choice {
                choices: self.choices(place, language),
                default: place
                    .get("Default")
                    .map(|place| self.state_reference(&place)),
            },
            "Wait" => StateKind::Wait {
                until: self.wait_until(place, language),
                transition: self.transition(place, what),
            },
            "Fail" => {
                self.problems.at_most_one(place, &["Error", "ErrorPath"]);
                self.problems.at_most_one(place, &["Cause", "CausePath"]);
                StateKind::Fail {
                    error: self.text_or_path(place, "Error", language),
                    cause: self.text_or_path(place, "Cause", language),
                }
            }
            "Parallel" => {
                let branches = self.problems.required(place, "Branches", what);
                let branches = branches.map(|place| self.problems.filled_array(&place));
                let branches = branches.unwrap_or_default();
                StateKind::Parallel {
                    branches: branches
                        .iter()
                        .map(|branch| self.branch(branch, language))
                        .collect(),
                    rules: self.error_rules(place, language),
                    transition: self.transition(place, what),
                }
            }
            "Map" => StateKind::Map(Box::new(self.map(place, language))),
            "Compensate" => StateKind::Compensate {
                transition: self.transition(place, what),
            },
            _ => StateKind::Succeed,
        }
    }

    /// A text under `name`, or a path under `name` with `Path` behind it.
    fn text_or_path(
        &mut self,
        place: &Place<'_>,
        name: &str,
        language: QueryLanguage,
    ) -> Option<Text> {
        if let Some(field) = place.get(name) {
            return Some(self.problems.text(&field, language));
        }
        let field = place.get(&format!("{name}Path"))?;
        Some(Text::Path(self.problems.path_or_intrinsic(&field)))
    }

    fn wait_until(&mut self, place: &Place<'_>, language: QueryLanguage) -> WaitUntil {
        const WHAT: &str = "a Wait state";
        let names: &[&str] = match language {
            QueryLanguage::Jsonata => &["Seconds", "Timestamp"],
            QueryLanguage::JsonPath => &["Seconds", "SecondsPath", "Timestamp", "TimestampPath"],
        };
        self.exactly_one(place, names, WHAT);
        if let Some(seconds) = place.get("Seconds") {
            return WaitUntil::Seconds(self.problems.quantity(
                &seconds,
                language,
                0..=MOST_SECONDS,
            ));
        }
        if let Some(path) = place.get("SecondsPath") {
            return WaitUntil::Seconds(super::model::Quantity::Path(
                self.problems.reference_path(&path, true),
            ));
        }
        if let Some(timestamp) = place.get("Timestamp") {
            let text = self.problems.text(&timestamp, language);
            if let Text::Literal(literal) = &text
                && timestamp.node.as_str().is_some()
                && !is_timestamp(literal)
            {
                self.not_a_timestamp(&timestamp);
            }
            return WaitUntil::Timestamp(text);
        }
        if let Some(path) = place.get("TimestampPath") {
            let path = self.problems.reference_path(&path, true);
            return WaitUntil::Timestamp(Text::Path(path));
        }
        WaitUntil::Seconds(super::model::Quantity::Literal(0.0))
    }
}
