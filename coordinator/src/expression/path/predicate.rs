//! Filters: what they are, and which items pass them. Comparisons follow json-path: a text that looks like a number
//! equals that number, order exists among numbers and among texts only, and what is missing equals nothing.

use std::borrow::Cow;
use std::cmp::Ordering;

use regex::Regex;
use serde_json::{Number, Value};

use super::{Path, Root, predicate_parser, selection};
use crate::expression::scope::Scope;

/// A condition on one item.
#[derive(Debug, Clone)]
pub(super) enum Predicate {
    Any(Vec<Predicate>),
    All(Vec<Predicate>),
    Not(Box<Predicate>),
    Constant(bool),
    Exists(Path),
    Comparison {
        left: Operand,
        operator: Operator,
        right: Operand,
    },
}

/// One side of a comparison.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Path(Path),
    Literal(Value),
    Pattern(Pattern),
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern(pub(super) Regex);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    SameAs,
    NotSameAs,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Matches,
    In,
    NotIn,
    Contains,
    Size,
    Empty,
    SubsetOf,
    AnyOf,
    NoneOf,
}

/// What a predicate looks at.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a, 's> {
    /// `@`.
    pub(super) item: &'a Value,
    /// `$`.
    pub(super) document: &'a Value,
    /// `$$` and variables.
    pub(super) scope: &'s Scope<'a>,
}

impl Predicate {
    pub(super) fn accepts(&self, surroundings: Surroundings<'_, '_>) -> bool {
        match self {
            Self::Any(alternatives) => alternatives
                .iter()
                .any(|condition| condition.accepts(surroundings)),
            Self::All(conditions) => conditions
                .iter()
                .all(|condition| condition.accepts(surroundings)),
            Self::Not(condition) => !condition.accepts(surroundings),
            Self::Constant(truth) => *truth,
            // A list that selects nothing still is a list, but there is nothing in it to exist.
            Self::Exists(path) => match value_of(path, surroundings) {
                Some(value) => {
                    path.is_definite() || value.as_array().is_some_and(|values| !values.is_empty())
                }
                None => false,
            },
            Self::Comparison {
                left,
                operator,
                right,
            } => match right {
                Operand::Pattern(pattern) => {
                    *operator == Operator::Matches
                        && left
                            .value(surroundings)
                            .is_some_and(|value| matches(&pattern.0, &value))
                }
                _ => holds(
                    *operator,
                    left.value(surroundings).as_deref(),
                    right.value(surroundings).as_deref(),
                ),
            },
        }
    }
}

impl Operand {
    fn value<'v>(&'v self, surroundings: Surroundings<'v, '_>) -> Option<Cow<'v, Value>> {
        match self {
            Self::Path(path) => value_of(path, surroundings),
            Self::Literal(value) => Some(Cow::Borrowed(value)),
            Self::Pattern(_) => None,
        }
    }
}

fn value_of<'a>(path: &Path, surroundings: Surroundings<'a, '_>) -> Option<Cow<'a, Value>> {
    let Surroundings {
        item,
        document,
        scope,
    } = surroundings;
    let start = match &path.root {
        Root::Item => item,
        Root::Document => document,
        Root::Context => scope.context,
        Root::Variable(name) => scope.variables.variable(name)?,
    };
    selection::select(path, start, document, scope).ok()
}

fn holds(operator: Operator, left: Option<&Value>, right: Option<&Value>) -> bool {
    // What is missing is unequal to everything, and nothing else holds of it.
    let (Some(left), Some(right)) = (left, right) else {
        return matches!(
            operator,
            Operator::NotEqual | Operator::NotSameAs | Operator::NotIn
        );
    };
    match operator {
        Operator::Equal => equal(left, right),
        Operator::NotEqual => !equal(left, right),
        Operator::SameAs => same(left, right),
        Operator::NotSameAs => !same(left, right),
        Operator::Less => order(left, right) == Some(Ordering::Less),
        Operator::AtMost => order(left, right).is_some_and(Ordering::is_le),
        Operator::Greater => order(left, right) == Some(Ordering::Greater),
        Operator::AtLeast => order(left, right).is_some_and(Ordering::is_ge),
        Operator::Matches => right
            .as_str()
            .and_then(|pattern| predicate_parser::whole_text(pattern, "").ok())
            .is_some_and(|pattern| matches(&pattern, left)),
        Operator::In => contains(right, left),
        Operator::NotIn => !contains(right, left),
        Operator::Contains => match (left, right) {
            (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
            _ => contains(left, right),
        },
        Operator::Size => size(left).is_some_and(|size| right.as_u64() == u64::try_from(size).ok()),
        Operator::Empty => size(left).is_some_and(|size| right.as_bool() == Some(size == 0)),
        Operator::SubsetOf => {
            items(left).is_some_and(|items| items.iter().all(|item| contains(right, item)))
        }
        Operator::AnyOf => {
            items(left).is_some_and(|items| items.iter().any(|item| contains(right, item)))
        }
        Operator::NoneOf => {
            items(left).is_some_and(|items| !items.iter().any(|item| contains(right, item)))
        }
    }
}

fn items(value: &Value) -> Option<&[Value]> {
    value.as_array().map(Vec::as_slice)
}

fn contains(list: &Value, item: &Value) -> bool {
    items(list).is_some_and(|items| items.iter().any(|other| equal(item, other)))
}

fn size(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.chars().count()),
        Value::Array(items) => Some(items.len()),
        Value::Object(members) => Some(members.len()),
        _ => None,
    }
}

fn matches(pattern: &Regex, value: &Value) -> bool {
    match value {
        Value::String(text) => pattern.is_match(text),
        Value::Number(number) => pattern.is_match(&number.to_string()),
        Value::Bool(truth) => pattern.is_match(&truth.to_string()),
        Value::Array(items) => items
            .iter()
            .any(|item| item.as_str().is_some_and(|text| pattern.is_match(text))),
        _ => false,
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(number), Value::String(text))
        | (Value::String(text), Value::Number(number)) => text
            .parse::<Number>()
            .is_ok_and(|other| compare(number, &other) == Some(Ordering::Equal)),
        _ => same(left, right),
    }
}

/// Equality that keeps types apart but not the ways to write a number.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            compare(left, right) == Some(Ordering::Equal)
        }
        _ => left == right,
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

fn compare(left: &Number, right: &Number) -> Option<Ordering> {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}
