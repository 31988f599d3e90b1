//! Choice: the rules that choose the next state.

use super::{
    machine::Reader,
    model::{Choice, Comparison, Condition, Operand, QueryLanguage, Test},
    node::Content,
    place::{Place, nearest},
    template::is_timestamp,
};
use serde_json::Value;

/// What an operator compares with.
#[derive(Clone, Copy, PartialEq)]
enum OperandType {
    String,
    Number,
    Boolean,
    Timestamp,
}

macro_rules! operator_table {
    ($($name:ident $operand:ident $has_path:literal,)*) => {
        /// Name, operator, type of its operand, and whether there is one that ends in `Path`.
        const OPERATORS: &[(&str, Comparison, OperandType, bool)] = &[
            $((stringify!($name), Comparison::$name, OperandType::$operand, $has_path),)*
        ];
    };
}

operator_table! {
    StringEquals String true,
    StringLessThan String true,
    StringGreaterThan String true,
    StringLessThanEquals String true,
    StringGreaterThanEquals String true,
    StringMatches String false,
    NumericEquals Number true,
    NumericLessThan Number true,
    NumericGreaterThan Number true,
    NumericLessThanEquals Number true,
    NumericGreaterThanEquals Number true,
    BooleanEquals Boolean true,
    TimestampEquals Timestamp true,
    TimestampLessThan Timestamp true,
    TimestampGreaterThan Timestamp true,
    TimestampLessThanEquals Timestamp true,
    TimestampGreaterThanEquals Timestamp true,
    IsNull Boolean false,
    IsPresent Boolean false,
    IsNumeric Boolean false,
    IsString Boolean false,
    IsBoolean Boolean false,
    IsTimestamp Boolean false,
}

/// An operator as a field names it.
struct Operator {
    comparison: Comparison,
    operand: OperandType,
    is_path: bool,
}

fn operator(name: &str) -> Option<Operator> {
    let find = |name: &str| OPERATORS.iter().find(|(known, ..)| *known == name);
    if let Some((_, comparison, operand, _)) = find(name) {
        return Some(Operator {
            comparison: *comparison,
            operand: *operand,
            is_path: false,
        });
    }
    let (_, comparison, operand, has_path) = find(name.strip_suffix("Path")?)?;
    has_path.then_some(Operator {
        comparison: *comparison,
        operand: *operand,
        is_path: true,
    })
}

const RULE_FIELDS: [&str; 9] = [
    "And",
    "Or",
    "Not",
    "Variable",
    "Condition",
    "Next",
    "Output",
    "Assign",
    "Comment",
];
const NESTED_FIELDS: [&str; 5] = ["And", "Or", "Not", "Variable", "Comment"];

impl Reader {
    /// `Choices`.
    pub(super) fn choices(&mut self, state: &Place<'_>, language: QueryLanguage) -> Vec<Choice> {
        let Some(place) = self.problems.required(state, "Choices", "a Choice state") else {
            return Vec::new();
        };
        let rules = self.problems.filled_array(&place);
        rules
            .iter()
            .map(|rule| self.choice(rule, language))
            .collect()
    }

    fn choice(&mut self, rule: &Place<'_>, language: QueryLanguage) -> Choice {
        const WHAT: &str = "a rule of `Choices`";
        let is_object = self.problems.is_object(rule);
        self.comment(rule);
        let condition = match language {
            QueryLanguage::Jsonata => self.condition(rule, is_object),
            QueryLanguage::JsonPath => Condition::Test(self.test(rule, is_object, false)),
        };
        let next = self.next(rule, is_object, WHAT);
        let output = rule
            .get("Output")
            .filter(|_| language == QueryLanguage::Jsonata)
            .map(|place| self.problems.template(&place, language));
        Choice {
            condition,
            next,
            output,
            assign: self.assign(rule, language),
        }
    }

    /// `Condition` of JSONata mode.
    fn condition(&mut self, rule: &Place<'_>, is_object: bool) -> Condition {
        const WHAT: &str = "a rule of `Choices`";
        let known = ["Condition", "Next", "Output", "Assign", "Comment"];
        for (field, place) in rule.fields() {
            let name = field.key.as_str();
            if matches!(name, "And" | "Or" | "Not" | "Variable") || operator(name).is_some() {
                self.wrong_language(&place, name, QueryLanguage::Jsonata)
                    .help("in JSONata mode a rule has one `Condition: \"{% expression %}\"`");
            } else if !known.contains(&name) {
                self.problems.unknown_field(&place, name, &known, WHAT);
            }
        }
        let Some(place) = rule.get("Condition") else {
            if is_object {
                self.problems.missing(rule, "Condition", WHAT);
            }
            return Condition::Constant(false);
        };
        match place.node.content {
            Content::Bool(value) => Condition::Constant(value),
            Content::String(_) => {
                Condition::Expression(self.problems.expression(&place).unwrap_or_default())
            }
            _ => Condition::Constant(self.problems.boolean(&place)),
        }
    }

    /// A test of JSONPath mode.
    fn test(&mut self, rule: &Place<'_>, is_object: bool, is_nested: bool) -> Test {
        let what = if is_nested {
            "a nested rule"
        } else {
            "a rule of `Choices`"
        };
        self.test_fields(rule, is_nested, what);
        let found: Vec<_> = rule
            .fields()
            .filter(|(field, _)| {
                matches!(field.key.as_str(), "And" | "Or" | "Not") || operator(&field.key).is_some()
            })
            .collect();
        let Some((field, place)) = found.first() else {
            if is_object {
                self.problems
                    .misplaced("no-comparison", rule, format!("{what} compares nothing"))
                    .label("has no operator")
                    .help("give it `Variable` and an operator such as `StringEquals`, or `And`, `Or`, `Not`");
            }
            return Test::And(Vec::new());
        };
        if let [_, .., (last, again)] = found.as_slice() {
            let message = format!(
                "{what} has one operator, but `{}` is a second one",
                last.key
            );
            self.problems
                .misplaced("two-operators", again, message)
                .label(format!("`{}` is given already", field.key))
                .help("combine two comparisons with `And` or `Or`");
        }
        match field.key.as_str() {
            "And" => Test::And(self.tests(place)),
            "Or" => Test::Or(self.tests(place)),
            "Not" => {
                let is_object = self.problems.is_object(place);
                Test::Not(Box::new(self.test(place, is_object, true)))
            }
            name => self.comparison(rule, place, name, what),
        }
    }

    fn tests(&mut self, place: &Place<'_>) -> Vec<Test> {
        let items = self.problems.filled_array(place);
        let test = |item: &Place<'_>| {
            let is_object = self.problems.is_object(item);
            self.test(item, is_object, true)
        };
        items.iter().map(test).collect()
    }

    /// Only what belongs into a rule of JSONPath mode.
    fn test_fields(&mut self, rule: &Place<'_>, is_nested: bool, what: &str) {
        let is_combined = ["And", "Or", "Not"].iter().any(|name| rule.has(name));
        for (field, place) in rule.fields() {
            match field.key.as_str() {
                name @ ("Next" | "Assign" | "Output") if is_nested => {
                    self.problems
                        .misplaced(
                            "misplaced-field",
                            &place,
                            format!("{what} must not have `{name}`"),
                        )
                        .label("only the outermost rule has it")
                        .help("move it beside the outermost operator");
                }
                name @ ("Condition" | "Output") => {
                    self.wrong_language(&place, name, QueryLanguage::JsonPath);
                }
                "Variable" if is_combined => {
                    self.problems
                        .misplaced(
                            "misplaced-field",
                            &place,
                            format!("{what} compares and combines"),
                        )
                        .label("beside `And`, `Or` or `Not`")
                        .help("put the comparison into the rules that are combined");
                }
                name if RULE_FIELDS.contains(&name) || operator(name).is_some() => {}
                name => {
                    let fields: &[&str] = if is_nested {
                        &NESTED_FIELDS
                    } else {
                        &RULE_FIELDS
                    };
                    let operators = OPERATORS.iter().map(|(known, ..)| *known);
                    let near = nearest(name, operators.chain(fields.iter().copied()));
                    let found = self.problems.misplaced(
                        "unknown-field",
                        &place,
                        format!("{what} has no field `{name}`"),
                    );
                    found.label("unknown field");
                    match near {
                        Some(near) => found.help(format!("did you mean `{near}`?")),
                        None => found.help(
                            "a rule has `Variable`, an operator such as `StringEquals`, and `Next`",
                        ),
                    };
                }
            }
        }
    }

    fn comparison(&mut self, rule: &Place<'_>, place: &Place<'_>, name: &str, what: &str) -> Test {
        let variable = self.problems.required(rule, "Variable", what);
        let variable = variable.map_or_else(String::new, |place| self.problems.path(&place));
        let Some(operator) = operator(name) else {
            return Test::And(Vec::new());
        };
        let operand = if operator.is_path {
            Operand::Path(self.problems.path(place))
        } else {
            Operand::Literal(self.operand(place, operator.operand))
        };
        Test::Compare {
            variable,
            operator: operator.comparison,
            operand,
        }
    }

    fn operand(&mut self, place: &Place<'_>, expected: OperandType) -> Value {
        match expected {
            OperandType::String => {
                self.problems.string(place);
            }
            OperandType::Number => {
                self.problems
                    .number(place, f64::NEG_INFINITY..=f64::INFINITY);
            }
            OperandType::Boolean => {
                self.problems.boolean(place);
            }
            OperandType::Timestamp => {
                if let Some(text) = self.problems.string(place)
                    && !is_timestamp(text)
                {
                    self.not_a_timestamp(place);
                }
            }
        }
        place.node.to_json()
    }
}
