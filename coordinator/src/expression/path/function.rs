//! The functions that may end a path, such as `$.items.length()` and `$.prices[*].sum()`.
//! They apply to the selected value: to the list when the path before them is indefinite.

use serde_json::Value;

use super::{Path, PathError, selection};
use crate::expression::number;

/// A function at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Length,
    Size,
    Min,
    Max,
    Average,
    Deviation,
    Sum,
    Keys,
    First,
    Last,
    Index(i64),
}

impl Function {
    pub(super) fn named(name: &str, argument: Option<i64>) -> Result<Self, String> {
        let function = match (name, argument) {
            ("length", None) => Self::Length,
            ("size", None) => Self::Size,
            ("min", None) => Self::Min,
            ("max", None) => Self::Max,
            ("avg", None) => Self::Average,
            ("stddev", None) => Self::Deviation,
            ("sum", None) => Self::Sum,
            ("keys", None) => Self::Keys,
            ("first", None) => Self::First,
            ("last", None) => Self::Last,
            ("index", Some(index)) => Self::Index(index),
            _ => {
                return Err(format!(
                    "a path has no function '{name}' with these arguments"
                ));
            }
        };
        Ok(function)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Size => "size",
            Self::Min => "min",
            Self::Max => "max",
            Self::Average => "avg",
            Self::Deviation => "stddev",
            Self::Sum => "sum",
            Self::Keys => "keys",
            Self::First => "first",
            Self::Last => "last",
            Self::Index(_) => "index",
        }
    }

    pub(super) fn apply(self, path: &Path, value: &Value) -> Result<Value, PathError> {
        self.result(value).map_err(|reason| PathError::Function {
            path: path.source.clone(),
            function: self.name(),
            reason,
        })
    }

    fn result(self, value: &Value) -> Result<Value, &'static str> {
        match self {
            Self::Length | Self::Size => match value {
                Value::Array(items) => Ok(Value::from(items.len())),
                Value::Object(members) => Ok(Value::from(members.len())),
                Value::String(text) => Ok(Value::from(text.chars().count())),
                _ => Err("needs an array, an object or a string"),
            },
            Self::Keys => match value {
                Value::Object(members) => Ok(members.keys().cloned().map(Value::String).collect()),
                _ => Err("needs an object"),
            },
            Self::First => item(value, 0),
            Self::Last => item(value, -1),
            Self::Index(index) => item(value, index),
            Self::Min | Self::Max | Self::Average | Self::Deviation | Self::Sum => {
                let numbers = numbers(value)?;
                self.aggregate(&numbers)
                    .and_then(number::from_f64)
                    .ok_or("needs numbers of a sensible size")
            }
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn aggregate(self, numbers: &[f64]) -> Option<f64> {
        let count = numbers.len() as f64;
        let sum: f64 = numbers.iter().sum();
        match self {
            Self::Min => numbers.iter().copied().reduce(f64::min),
            Self::Max => numbers.iter().copied().reduce(f64::max),
            Self::Average => Some(sum / count),
            Self::Deviation => {
                let squares: f64 = numbers.iter().map(|number| number * number).sum();
                Some((squares / count - (sum / count).powi(2)).max(0.0).sqrt())
            }
            _ => Some(sum),
        }
    }
}

fn item(value: &Value, index: i64) -> Result<Value, &'static str> {
    let items = value.as_array().ok_or("needs an array")?;
    let found = selection::position(items.len(), index).and_then(|index| items.get(index));
    found.cloned().ok_or("finds no such item in the array")
}

fn numbers(value: &Value) -> Result<Vec<f64>, &'static str> {
    let items = value.as_array().ok_or("needs an array of numbers")?;
    let numbers: Vec<f64> = items.iter().filter_map(Value::as_f64).collect();
    if numbers.is_empty() {
        Err("needs at least one number")
    } else {
        Ok(numbers)
    }
}
