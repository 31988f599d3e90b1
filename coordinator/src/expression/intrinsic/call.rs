//! A call and its arguments, and what each function does with them.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::function::Function;
use super::{IntrinsicError, parser};
use crate::expression::environment::{Environment, RandomSource};
use crate::expression::path::Path;
use crate::expression::scope::Scope;
use crate::expression::{digest, number, rendering};

/// The longest text that is encoded, decoded or hashed, in characters, as in Step Functions.
const MAX_TEXT: usize = 10_000;

/// The most items that `States.ArrayRange` makes, as in Step Functions.
const MAX_RANGE: i64 = 1000;

/// A function with its arguments.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) function: Function,
    pub(super) arguments: Vec<Argument>,
}

#[derive(Debug, Clone)]
pub(super) enum Argument {
    Literal(Value),
    /// The literal template of a format.
    Template(Vec<Piece>),
    /// A literal with a backslash that escapes nothing.
    OpenEscape(String),
    Path(Path),
    Call(Call),
}

/// A part of the template of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// `{}`.
    Place,
}

type Outcome = Result<Value, String>;

impl Call {
    pub(super) fn evaluate(
        &self,
        scope: &Scope<'_>,
        environment: &mut Environment,
    ) -> Result<Value, IntrinsicError> {
        let mut values = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            values.push(match argument {
                Argument::Literal(value) => value.clone(),
                // Looked at by the format itself.
                Argument::Template(_) => Value::Null,
                Argument::OpenEscape(text) => {
                    return Err(self.failure(format!(
                        "the text {text} holds a backslash that escapes nothing; write \\\\ for a backslash"
                    )));
                }
                Argument::Path(path) => path.select(scope)?,
                Argument::Call(call) => call.evaluate(scope, environment)?,
            });
        }
        self.apply(&values, environment)
            .map_err(|message| self.failure(message))
    }

    fn failure(&self, message: String) -> IntrinsicError {
        IntrinsicError::Failure {
            function: self.function,
            message,
        }
    }

    /// The parser has checked the number of arguments.
    fn apply(&self, values: &[Value], environment: &mut Environment) -> Outcome {
        let arguments = Values(values);
        match self.function {
            Function::Format => match self.arguments.first() {
                Some(Argument::Template(pieces)) => {
                    format(pieces, values.get(1..).unwrap_or_default())
                }
                _ => format(
                    &parser::pieces(arguments.text(0)?),
                    values.get(1..).unwrap_or_default(),
                ),
            },
            Function::StringToJson => string_to_json(arguments.text(0)?),
            Function::JsonToString => Ok(Value::String(rendering::json_text(arguments.any(0)))),
            Function::Array => Ok(Value::Array(values.to_vec())),
            Function::ArrayPartition => array_partition(arguments.array(0)?, arguments.integer(1)?),
            Function::ArrayContains => {
                Ok(Value::Bool(arguments.array(0)?.contains(arguments.any(1))))
            }
            Function::ArrayRange => array_range(
                arguments.integer(0)?,
                arguments.integer(1)?,
                arguments.integer(2)?,
            ),
            Function::ArrayGetItem => array_get_item(arguments.array(0)?, arguments.integer(1)?),
            Function::ArrayLength => Ok(Value::from(arguments.array(0)?.len())),
            Function::ArrayUnique => Ok(array_unique(arguments.array(0)?)),
            Function::Base64Encode => Ok(Value::String(STANDARD.encode(arguments.short_text(0)?))),
            Function::Base64Decode => base64_decode(arguments.short_text(0)?),
            Function::Hash => hash(arguments.short_text(0)?, arguments.text(1)?),
            Function::JsonMerge => json_merge(arguments.any(0), arguments.any(1), arguments.any(2)),
            Function::MathRandom => {
                let seed = values.get(2).map(|_| arguments.integer(2)).transpose()?;
                math_random(
                    arguments.integer(0)?,
                    arguments.integer(1)?,
                    seed,
                    environment,
                )
            }
            Function::MathAdd => {
                let sum = arguments.integer(0)?.checked_add(arguments.integer(1)?);
                sum.map(Value::from)
                    .ok_or_else(|| "the sum is too large".to_owned())
            }
            Function::StringSplit => Ok(string_split(arguments.text(0)?, arguments.text(1)?)),
            Function::Uuid => Ok(Value::String(environment.random().uuid().to_string())),
        }
    }
}

/// Evaluated arguments, read by position as the type that a function needs.
#[derive(Clone, Copy)]
struct Values<'v>(&'v [Value]);

impl<'v> Values<'v> {
    fn any(self, position: usize) -> &'v Value {
        self.0.get(position).unwrap_or(&Value::Null)
    }

    fn wrong(self, position: usize, expected: &str) -> String {
        let text = rendering::json_text(self.any(position));
        let shown: String = text.chars().take(100).collect();
        let dots = if shown.len() < text.len() { "..." } else { "" };
        format!(
            "argument {} must be {expected}, but is {shown}{dots}",
            position + 1
        )
    }

    fn text(self, position: usize) -> Result<&'v str, String> {
        self.any(position)
            .as_str()
            .ok_or_else(|| self.wrong(position, "a string"))
    }

    fn short_text(self, position: usize) -> Result<&'v str, String> {
        let text = self.text(position)?;
        if text.chars().count() > MAX_TEXT {
            return Err(format!(
                "argument {} is longer than {MAX_TEXT} characters",
                position + 1
            ));
        }
        Ok(text)
    }

    fn array(self, position: usize) -> Result<&'v [Value], String> {
        let array = self.any(position).as_array().map(Vec::as_slice);
        array.ok_or_else(|| self.wrong(position, "an array"))
    }

    /// An integer; a fraction is rounded to the nearest one.
    fn integer(self, position: usize) -> Result<i64, String> {
        let number = self.any(position).as_number().and_then(number::rounded);
        number.ok_or_else(|| self.wrong(position, "an integer"))
    }
}

fn format(pieces: &[Piece], arguments: &[Value]) -> Outcome {
    let places = pieces
        .iter()
        .filter(|piece| **piece == Piece::Place)
        .count();
    if places != arguments.len() {
        return Err(format!(
            "the template has {places} places {{}}, but {} values are given",
            arguments.len()
        ));
    }
    let mut text = String::new();
    let mut arguments = arguments.iter();
    for piece in pieces {
        match piece {
            Piece::Text(literal) => text.push_str(literal),
            Piece::Place => text.extend(arguments.next().map(rendering::plain_text)),
        }
    }
    Ok(Value::String(text))
}

fn string_to_json(text: &str) -> Outcome {
    // A blank text is null, as recorded runs show.
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let mut value: Value =
        serde_json::from_str(text).map_err(|error| format!("the text is not JSON: {error}"))?;
    number::without_negative_zero(&mut value);
    Ok(value)
}

fn array_partition(items: &[Value], size: i64) -> Outcome {
    let size = usize::try_from(size).ok().filter(|size| *size > 0);
    let size = size.ok_or("the size of the parts must be greater than zero")?;
    Ok(Value::Array(
        items
            .chunks(size)
            .map(|part| Value::Array(part.to_vec()))
            .collect(),
    ))
}

fn array_range(first: i64, last: i64, step: i64) -> Outcome {
    if step == 0 {
        return Err("the step must not be zero".to_owned());
    }
    // In 128 bits no difference of two 64 bit numbers overflows.
    let distance = i128::from(last) - i128::from(first);
    if distance.signum() * i128::from(step.signum()) < 0 {
        return Ok(Value::Array(Vec::new()));
    }
    let count = distance / i128::from(step);
    if count >= i128::from(MAX_RANGE) {
        return Err(format!("the array would have more than {MAX_RANGE} items"));
    }
    let mut items = Vec::new();
    let mut number = first;
    for _ in 0..=count {
        items.push(Value::from(number));
        number = number.saturating_add(step);
    }
    Ok(Value::Array(items))
}

fn array_get_item(items: &[Value], index: i64) -> Outcome {
    let item = usize::try_from(index)
        .ok()
        .and_then(|index| items.get(index));
    item.cloned()
        .ok_or_else(|| format!("there is no item {index} in an array of {}", items.len()))
}

fn array_unique(items: &[Value]) -> Value {
    let mut seen = HashSet::with_capacity(items.len());
    Value::Array(
        items
            .iter()
            .filter(|item| seen.insert(*item))
            .cloned()
            .collect(),
    )
}

fn base64_decode(text: &str) -> Outcome {
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| format!("the text is not Base64: {error}"))?;
    Ok(Value::String(String::from_utf8_lossy(&bytes).into_owned()))
}

fn hash(text: &str, algorithm: &str) -> Outcome {
    let digest = digest::hexadecimal(text, algorithm);
    digest.map(Value::String).ok_or_else(|| {
        format!(
            "the algorithm is one of {}, not '{algorithm}'",
            digest::ALGORITHMS
        )
    })
}

fn json_merge(first: &Value, second: &Value, deep: &Value) -> Outcome {
    let (Value::Object(first), Value::Object(second)) = (first, second) else {
        return Err("the first two arguments must be objects".to_owned());
    };
    if *deep != Value::Bool(false) {
        return Err("the third argument must be false: only shallow merging exists".to_owned());
    }
    let mut merged = first.clone();
    merged.extend(
        second
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    Ok(Value::Object(merged))
}

/// A number from the start up to but without the end.
fn math_random(start: i64, end: i64, seed: Option<i64>, environment: &mut Environment) -> Outcome {
    if start >= end {
        return Err(format!(
            "the end {end} must be greater than the start {start}"
        ));
    }
    let mut seeded = seed.map(|seed| RandomSource::new(seed.cast_unsigned()));
    let random = seeded.as_mut().unwrap_or_else(|| environment.random());
    let offset = random.below(start.abs_diff(end));
    Ok(Value::from(start.wrapping_add_unsigned(offset)))
}

/// Every character of `delimiters` separates, and nothing empty comes of it.
fn string_split(text: &str, delimiters: &str) -> Value {
    let parts = text
        .split(|character| delimiters.contains(character))
        .filter(|part| !part.is_empty());
    Value::Array(parts.map(Value::from).collect())
}
