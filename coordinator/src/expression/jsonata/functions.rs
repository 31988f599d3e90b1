//! The functions that Amazon States Language adds to JSONata, and the standard ones that must not reach for the clock
//! or for entropy. All take time and randomness from the environment.
//! An undefined argument gives an undefined result, as in JSONata's own functions; a wrong one is an error.

use std::cell::Cell;
use std::rc::Rc;

use jiff::Timestamp;
use jsonata_core::evaluator::{Evaluator, EvaluatorError};
use jsonata_core::value::JValue;
use serde_json::Value;

use super::conversion;
use super::expansion::{self, Budget};
use crate::expression::environment::{Limits, RandomSource};
use crate::expression::{digest, number};

/// A function of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Partition,
    Range,
    Hash,
    Random,
    Uuid,
    Parse,
    Now,
    Millis,
    Shuffle,
    Pad,
}

type Outcome = Result<JValue, EvaluatorError>;
type Randomness = Rc<Cell<RandomSource>>;

impl Function {
    pub(super) const ALL: [Self; 10] = [
        Self::Partition,
        Self::Range,
        Self::Hash,
        Self::Random,
        Self::Uuid,
        Self::Parse,
        Self::Now,
        Self::Millis,
        Self::Shuffle,
        Self::Pad,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Range => "range",
            Self::Hash => "hash",
            Self::Random => "random",
            Self::Uuid => "uuid",
            Self::Parse => "parse",
            Self::Now => "now",
            Self::Millis => "millis",
            Self::Shuffle => "shuffle",
            Self::Pad => "pad",
        }
    }

    /// How many arguments it takes from a function that calls it back.
    pub(super) fn arity(self) -> usize {
        match self {
            Self::Random | Self::Uuid | Self::Now | Self::Millis => 0,
            Self::Parse | Self::Shuffle => 1,
            Self::Partition | Self::Hash => 2,
            Self::Range | Self::Pad => 3,
        }
    }

    /// Makes the function known to an evaluator.
    pub(super) fn register(
        self,
        evaluator: &mut Evaluator,
        now: i64,
        random: &Randomness,
        budget: &Budget,
        limits: &Limits,
    ) -> Result<(), EvaluatorError> {
        let random = Rc::clone(random);
        let budget = Rc::clone(budget);
        let limits = *limits;
        evaluator.register_fn_override(self.name(), move |arguments: &[JValue]| match self {
            Self::Partition => partition(arguments, &limits),
            Self::Range => range(arguments, &limits),
            Self::Hash => hash(arguments),
            Self::Random => random_number(arguments, &random),
            Self::Uuid => uuid(arguments, &random),
            Self::Parse => parse(arguments),
            Self::Now => now_text(arguments, now),
            Self::Millis => millis(arguments, now),
            Self::Shuffle => shuffle(arguments, &random),
            Self::Pad => pad(arguments, &budget),
        })
    }
}

fn failure(message: impl Into<String>) -> EvaluatorError {
    EvaluatorError::EvaluationError(message.into())
}

fn draw<T>(random: &Randomness, draw: impl FnOnce(&mut RandomSource) -> T) -> T {
    let mut source = random.get();
    let drawn = draw(&mut source);
    random.set(source);
    drawn
}

/// Refuses a call with more or fewer arguments than the function takes.
fn check_count(
    function: &str,
    arguments: &[JValue],
    least: usize,
    most: usize,
) -> Result<(), EvaluatorError> {
    if (least..=most).contains(&arguments.len()) {
        return Ok(());
    }
    let expected = if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    };
    Err(failure(format!(
        "T0410: ${function} takes {expected} arguments, but was given {}",
        arguments.len()
    )))
}

fn integer(function: &str, position: usize, argument: &JValue) -> Result<i64, EvaluatorError> {
    argument
        .as_f64()
        .filter(|number| number.fract() == 0.0)
        .and_then(number::from_f64)
        .and_then(|number| number.as_i64())
        .ok_or_else(|| {
            failure(format!(
                "T0410: argument {position} of ${function} must be an integer"
            ))
        })
}

/// `$partition(array, size)`: the array in pieces of that size, the last one with the rest.
fn partition(arguments: &[JValue], limits: &Limits) -> Outcome {
    check_count("partition", arguments, 2, 2)?;
    let items: &[JValue] = match &arguments[0] {
        JValue::Undefined => return Ok(JValue::Undefined),
        JValue::Array(items) => items,
        single => std::slice::from_ref(single),
    };
    let size = integer("partition", 2, &arguments[1])?;
    let size = usize::try_from(size)
        .ok()
        .filter(|size| *size > 0)
        .ok_or_else(|| failure("T0410: argument 2 of $partition must be greater than zero"))?;
    check_length(items.len() / size, limits)?;
    Ok(JValue::array(
        items
            .chunks(size)
            .map(|piece| JValue::array(piece.to_vec()))
            .collect(),
    ))
}

/// `$range(first, last, step)`: the numbers from the first up to and including the last.
fn range(arguments: &[JValue], limits: &Limits) -> Outcome {
    check_count("range", arguments, 3, 3)?;
    let mut bounds = [0.0; 3];
    for (position, (bound, argument)) in bounds.iter_mut().zip(arguments).enumerate() {
        *bound = match argument {
            JValue::Undefined => return Ok(JValue::Undefined),
            JValue::Number(number) if number.is_finite() => *number,
            _ => {
                return Err(failure(format!(
                    "T0410: argument {} of $range must be a number",
                    position + 1
                )));
            }
        };
    }
    let [first, last, step] = bounds;
    if step == 0.0 {
        return Err(failure("T0410: argument 3 of $range must not be zero"));
    }
    let steps = ((last - first) / step).floor();
    if steps < 0.0 {
        return Ok(JValue::array(Vec::new()));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = (steps as usize).saturating_add(1);
    check_length(count, limits)?;
    // Multiplied rather than summed up, so that fractions do not drift.
    #[allow(clippy::cast_precision_loss)]
    let numbers = (0..count).map(|index| JValue::Number(first + step * index as f64));
    Ok(JValue::array(numbers.collect()))
}

fn check_length(length: usize, limits: &Limits) -> Result<(), EvaluatorError> {
    if length > limits.sequence {
        return Err(failure(format!(
            "D2015: the array would have more than {} items",
            limits.sequence
        )));
    }
    Ok(())
}

/// `$hash(text, algorithm)`.
fn hash(arguments: &[JValue]) -> Outcome {
    check_count("hash", arguments, 2, 2)?;
    match (&arguments[0], &arguments[1]) {
        (JValue::Undefined, _) | (_, JValue::Undefined) => Ok(JValue::Undefined),
        (JValue::String(text), JValue::String(algorithm)) => digest::hexadecimal(text, algorithm)
            .map(JValue::string)
            .ok_or_else(|| {
                failure(format!(
                    "$hash knows {}, but not '{algorithm}'",
                    digest::ALGORITHMS
                ))
            }),
        (JValue::String(_), _) => Err(failure("T0410: argument 2 of $hash must be a string")),
        _ => Err(failure("T0410: argument 1 of $hash must be a string")),
    }
}

/// `$random()` in `[0, 1)`; with a seed, always the same number for the same seed.
fn random_number(arguments: &[JValue], random: &Randomness) -> Outcome {
    check_count("random", arguments, 0, 1)?;
    match arguments.first() {
        None | Some(JValue::Undefined) => Ok(JValue::Number(draw(random, RandomSource::unit))),
        Some(JValue::Number(seed)) => Ok(JValue::Number(RandomSource::new(seed.to_bits()).unit())),
        Some(_) => Err(failure("T0410: argument 1 of $random must be a number")),
    }
}

fn uuid(arguments: &[JValue], random: &Randomness) -> Outcome {
    check_count("uuid", arguments, 0, 0)?;
    Ok(JValue::string(draw(random, RandomSource::uuid).to_string()))
}

/// `$parse(text)`: the value of a JSON text, in place of the refused `$eval`.
fn parse(arguments: &[JValue]) -> Outcome {
    check_count("parse", arguments, 1, 1)?;
    match &arguments[0] {
        JValue::Undefined => Ok(JValue::Undefined),
        JValue::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) => Ok(conversion::to_jsonata(&value)),
            Err(error) => Err(failure(format!(
                "$parse was given a text that is not JSON: {error}"
            ))),
        },
        _ => Err(failure("T0410: argument 1 of $parse must be a string")),
    }
}

/// `$now()` in ISO 8601 with milliseconds; with a picture it was compiled into `$fromMillis`.
fn now_text(arguments: &[JValue], now: i64) -> Outcome {
    check_count("now", arguments, 0, 0)?;
    let timestamp =
        Timestamp::from_microsecond(now).map_err(|error| failure(format!("$now: {error}")))?;
    Ok(JValue::string(
        timestamp.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
    ))
}

fn millis(arguments: &[JValue], now: i64) -> Outcome {
    check_count("millis", arguments, 0, 0)?;
    Ok(JValue::from(now.div_euclid(1000)))
}

/// `$shuffle(array)`: Fisher and Yates with the environment's randomness.
fn shuffle(arguments: &[JValue], random: &Randomness) -> Outcome {
    check_count("shuffle", arguments, 1, 1)?;
    match &arguments[0] {
        JValue::Undefined => Ok(JValue::Undefined),
        JValue::Array(items) => {
            let mut items = items.to_vec();
            for last in (1..items.len()).rev() {
                let bound = u64::try_from(last + 1).unwrap_or(u64::MAX);
                let other = draw(random, |random| random.below(bound));
                items.swap(last, usize::try_from(other).unwrap_or(last));
            }
            Ok(JValue::array(items))
        }
        single => Ok(JValue::array(vec![single.clone()])),
    }
}

/// `$pad(text, width, with)`: the standard function, but on a budget, for a width is all it takes to ask for
/// gigabytes.
fn pad(arguments: &[JValue], budget: &Budget) -> Outcome {
    check_count("pad", arguments, 1, 3)?;
    let text = match &arguments[0] {
        JValue::Undefined => return Ok(JValue::Undefined),
        JValue::String(text) => text,
        _ => return Err(failure("T0410: argument 1 of $pad must be a string")),
    };
    let width = match arguments.get(1) {
        None | Some(JValue::Undefined) => return Ok(arguments[0].clone()),
        Some(JValue::Number(width)) => width.trunc(),
        Some(_) => return Err(failure("T0410: argument 2 of $pad must be a number")),
    };
    let with = match arguments.get(2) {
        None | Some(JValue::Undefined) => " ",
        Some(JValue::String(with)) if with.is_empty() => " ",
        Some(JValue::String(with)) => with,
        Some(_) => return Err(failure("T0410: argument 3 of $pad must be a string")),
    };
    // A cast of NaN is zero, one of something too large is the largest number, which the budget refuses.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let missing = (width.abs() as usize).saturating_sub(text.chars().count());
    let widest = with.chars().map(char::len_utf8).max().unwrap_or(1);
    expansion::spend(budget, missing.saturating_mul(widest))?;
    let padding: String = with.chars().cycle().take(missing).collect();
    Ok(JValue::string(if width < 0.0 {
        format!("{padding}{text}")
    } else {
        format!("{text}{padding}")
    }))
}
