//! The tests of a Choice in `JSONPath` mode: 39 comparison operators with And, Or and Not.

use super::{
    evaluation::{Subject, parse_instant, path_failure},
    program::{Operand, State, Test},
    turn::Turn,
};
use crate::expression::{Path, PathError};
use dirigent_contracts::{definition::model::Comparison, outcome::Failure};
use serde_json::Value;
use std::{cmp::Ordering, sync::Arc};

impl<'a> Turn<'a> {
    pub(super) fn passes(
        &mut self,
        scope: u32,
        state: &'a State,
        test: &'a Test,
        input: &Arc<Value>,
    ) -> Result<bool, Failure> {
        match test {
            Test::Not(test) => Ok(!self.passes(scope, state, test, input)?),
            Test::And(tests) => {
                for test in tests {
                    if !self.passes(scope, state, test, input)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Test::Or(tests) => {
                for test in tests {
                    if self.passes(scope, state, test, input)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Test::Compare {
                variable,
                operator,
                operand,
            } => {
                let found = self.look_up(scope, state, variable, input);
                if *operator == Comparison::IsPresent {
                    let expected = matches!(operand, Operand::Literal(Value::Bool(true)));
                    return Ok(found.is_ok() == expected);
                }
                let value = found.map_err(|error| path_failure(state, "Variable", &error))?;
                let operand = match operand {
                    Operand::Literal(value) => value.clone(),
                    Operand::Path(path) => {
                        let field = format!("{operator:?}Path");
                        self.look_up(scope, state, path, input)
                            .map_err(|error| path_failure(state, &field, &error))?
                    }
                };
                Ok(holds(*operator, &value, &operand))
            }
        }
    }

    fn look_up(
        &mut self,
        scope: u32,
        state: &State,
        path: &Path,
        input: &Value,
    ) -> Result<Value, PathError> {
        let subject = Subject::default();
        self.look(scope, state, input, subject, |seen, _| path.select(seen))
    }
}

/// Whether the comparison holds. Values of another type than the operator's never compare.
fn holds(operator: Comparison, value: &Value, operand: &Value) -> bool {
    use Comparison as C;
    let is = |actual: bool| operand.as_bool() == Some(actual);
    match operator {
        C::IsNull => is(value.is_null()),
        C::IsNumeric => is(value.is_number()),
        C::IsString => is(value.is_string()),
        C::IsBoolean => is(value.is_boolean()),
        C::IsTimestamp => is(value.as_str().and_then(parse_instant).is_some()),
        // Answered before the value is looked up.
        C::IsPresent => is(true),
        C::BooleanEquals => match (value.as_bool(), operand.as_bool()) {
            (Some(value), Some(operand)) => value == operand,
            _ => false,
        },
        C::StringMatches => match (value.as_str(), operand.as_str()) {
            (Some(value), Some(pattern)) => is_match(value, pattern),
            _ => false,
        },
        C::StringEquals
        | C::StringLessThan
        | C::StringGreaterThan
        | C::StringLessThanEquals
        | C::StringGreaterThanEquals => {
            let ordering = value
                .as_str()
                .zip(operand.as_str())
                .map(|(value, operand)| value.cmp(operand));
            fits(operator, ordering)
        }
        C::NumericEquals
        | C::NumericLessThan
        | C::NumericGreaterThan
        | C::NumericLessThanEquals
        | C::NumericGreaterThanEquals => fits(operator, order_numbers(value, operand)),
        C::TimestampEquals
        | C::TimestampLessThan
        | C::TimestampGreaterThan
        | C::TimestampLessThanEquals
        | C::TimestampGreaterThanEquals => {
            let instant = |value: &Value| value.as_str().and_then(parse_instant);
            let ordering = instant(value)
                .zip(instant(operand))
                .map(|(value, operand)| value.cmp(&operand));
            fits(operator, ordering)
        }
    }
}

fn order_numbers(value: &Value, operand: &Value) -> Option<Ordering> {
    if let (Some(value), Some(operand)) = (value.as_i64(), operand.as_i64()) {
        return Some(value.cmp(&operand));
    }
    value
        .as_f64()
        .zip(operand.as_f64())
        .and_then(|(value, operand)| value.partial_cmp(&operand))
}

fn fits(operator: Comparison, ordering: Option<Ordering>) -> bool {
    use Comparison as C;
    let Some(ordering) = ordering else {
        return false;
    };
    match operator {
        C::StringEquals | C::NumericEquals | C::TimestampEquals => ordering.is_eq(),
        C::StringLessThan | C::NumericLessThan | C::TimestampLessThan => ordering.is_lt(),
        C::StringGreaterThan | C::NumericGreaterThan | C::TimestampGreaterThan => ordering.is_gt(),
        C::StringLessThanEquals | C::NumericLessThanEquals | C::TimestampLessThanEquals => {
            ordering.is_le()
        }
        C::StringGreaterThanEquals
        | C::NumericGreaterThanEquals
        | C::TimestampGreaterThanEquals => ordering.is_ge(),
        _ => false,
    }
}

/// `StringMatches`: `*` stands for any characters, `\\*` for an asterisk, `\\\\` for a backslash.
fn is_match(text: &str, pattern: &str) -> bool {
    /// `None` is the wildcard.
    fn parse(pattern: &str) -> Vec<Option<char>> {
        let mut parsed = Vec::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            parsed.push(match character {
                '*' => None,
                '\\' => Some(characters.next().unwrap_or('\\')),
                other => Some(other),
            });
        }
        parsed
    }
    let pattern = parse(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut at_text, mut at_pattern) = (0, 0);
    let mut fallback = None;
    while at_text < text.len() {
        match pattern.get(at_pattern) {
            Some(Some(character)) if *character == text[at_text] => {
                at_text += 1;
                at_pattern += 1;
            }
            Some(None) => {
                fallback = Some((at_text, at_pattern));
                at_pattern += 1;
            }
            _ => match fallback {
                None => return false,
                Some((from_text, from_pattern)) => {
                    at_text = from_text + 1;
                    at_pattern = from_pattern + 1;
                    fallback = Some((from_text + 1, from_pattern));
                }
            },
        }
    }
    pattern[at_pattern..].iter().all(Option::is_none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wildcard_stands_for_any_characters() {
        for (text, pattern, expected) in [
            ("foo23.log", "foo*.log", true),
            ("zebra.log", "*.log", true),
            ("foobar.zebra", "foo*.*", true),
            ("foobar", "foo*.*", false),
            ("a*b", r"a\*b", true),
            ("axb", r"a\*b", false),
            (r"a\b", r"a\\b", true),
            ("", "*", true),
            ("", "", true),
            ("x", "", false),
            ("abcabc", "*abc", true),
        ] {
            assert_eq!(
                is_match(text, pattern),
                expected,
                "{text:?} against {pattern:?}"
            );
        }
    }

    #[test]
    fn values_of_another_type_never_compare() {
        use Comparison as C;
        for (operator, value, operand, expected) in [
            (C::NumericEquals, json!(1), json!(1.0), true),
            (C::NumericEquals, json!("1"), json!(1), false),
            (
                C::NumericGreaterThan,
                json!(9_007_199_254_740_993_i64),
                json!(9_007_199_254_740_992_i64),
                true,
            ),
            (C::StringLessThan, json!("a"), json!("b"), true),
            (C::StringLessThan, json!(1), json!("b"), false),
            (C::BooleanEquals, json!(true), json!(true), true),
            (C::BooleanEquals, json!("true"), json!(true), false),
            (C::IsNull, json!(null), json!(true), true),
            (C::IsNumeric, json!("1"), json!(false), true),
            (
                C::IsTimestamp,
                json!("2016-12-05T21:29:29Z"),
                json!(true),
                true,
            ),
            (
                C::IsTimestamp,
                json!("2016-12-05 21:29:29Z"),
                json!(true),
                false,
            ),
            (
                C::TimestampLessThan,
                json!("2016-12-05T21:29:29+01:00"),
                json!("2016-12-05T21:29:29Z"),
                true,
            ),
        ] {
            assert_eq!(
                holds(operator, &value, &operand),
                expected,
                "{operator:?} {value} {operand}"
            );
        }
    }
}
