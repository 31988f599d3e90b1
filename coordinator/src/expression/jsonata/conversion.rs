//! Between JSON documents and the evaluator's values.
//! A result may share one part a million times over without using memory; writing it out would. So results are built
//! under limits, and in a form that JSON can hold: no functions, no infinities, whole numbers as integers.

use indexmap::IndexMap;
use jsonata_core::value::{JArray, JValue, with_stack};
use serde_json::{Map, Value};

use super::EvaluationError;
use crate::expression::environment::Limits;
use crate::expression::number;

/// The evaluator's form of a JSON value.
pub(super) fn to_jsonata(value: &Value) -> JValue {
    match value {
        Value::Null => JValue::Null,
        Value::Bool(truth) => JValue::Bool(*truth),
        // Integers beyond 2^53 lose their last digits here, as in every JSONata.
        Value::Number(number) => JValue::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => JValue::string(text.as_str()),
        Value::Array(items) => with_stack(|| {
            let flat = !items.iter().any(Value::is_array);
            JValue::Array(JArray::new_flat(
                items.iter().map(to_jsonata).collect(),
                flat,
            ))
        }),
        Value::Object(members) => with_stack(|| {
            let mut object = IndexMap::with_capacity(members.len());
            for (name, member) in members {
                object.insert(name.clone(), to_jsonata(member));
            }
            JValue::object(object)
        }),
    }
}

/// Builds the JSON form of one result.
pub(super) struct ResultBuilder {
    bytes_left: usize,
    max_bytes: usize,
    max_depth: usize,
}

impl ResultBuilder {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            bytes_left: limits.result_bytes,
            max_bytes: limits.result_bytes,
            max_depth: limits.depth,
        }
    }

    /// The JSON value, or `None` for undefined.
    pub(super) fn build(mut self, value: &JValue) -> Result<Option<Value>, EvaluationError> {
        self.convert(value, 0)
    }

    fn convert(&mut self, value: &JValue, depth: usize) -> Result<Option<Value>, EvaluationError> {
        if depth > self.max_depth {
            return Err(EvaluationError::limit(format!(
                "the result nests deeper than {} levels",
                self.max_depth
            )));
        }
        Ok(Some(match value {
            JValue::Undefined => return Ok(None),
            JValue::Null => {
                self.spend(4)?;
                Value::Null
            }
            JValue::Bool(truth) => {
                self.spend(4)?;
                Value::Bool(*truth)
            }
            JValue::Number(number) => {
                self.spend(4)?;
                number::from_f64(*number).ok_or_else(|| {
                    EvaluationError::not_json(format!("JSON has no number {number}"))
                })?
            }
            JValue::String(text) => {
                self.spend(text.len() + 2)?;
                Value::String(text.to_string())
            }
            JValue::Array(items) => {
                self.spend(2)?;
                let mut array = Vec::new();
                for item in items {
                    array.extend(self.convert(item, depth + 1)?);
                }
                Value::Array(array)
            }
            JValue::Object(members) => {
                self.spend(2)?;
                let mut object = Map::new();
                for (name, member) in members.iter() {
                    if let Some(member) = self.convert(member, depth + 1)? {
                        self.spend(name.len() + 4)?;
                        object.insert(name.clone(), member);
                    }
                }
                Value::Object(object)
            }
            JValue::Lambda(_) | JValue::Builtin { .. } | JValue::Regex { .. } => {
                return Err(EvaluationError::not_json(
                    "the result holds a function, which is not a JSON value",
                ));
            }
        }))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), EvaluationError> {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => Err(EvaluationError::limit(format!(
                "the result is larger than {} bytes",
                self.max_bytes
            ))),
        }
    }
}
