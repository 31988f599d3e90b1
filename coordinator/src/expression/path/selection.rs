//! Following the steps of a path. A definite path is one walk that ends in a value or in an error that says where it
//! stopped; any other path widens a list of places and drops those where a step does not apply.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::predicate::{Predicate, Surroundings};
use super::{Path, PathError, Step, kind_of};
use crate::expression::scope::Scope;

/// A bound on what `..` upon `..` can multiply.
const MAX_SELECTED: usize = 1_000_000;

/// What `path` selects from `start`, where `document` is the `$` of its filters.
pub(super) fn select<'a>(
    path: &Path,
    start: &'a Value,
    document: &'a Value,
    scope: &Scope<'a>,
) -> Result<Cow<'a, Value>, PathError> {
    let selected = if path.selects_one() {
        one(path, start)?
    } else {
        Cow::Owned(Value::Array(
            Walk {
                path,
                document,
                scope,
            }
            .many(start)?,
        ))
    };
    match &path.function {
        Some(function) => function.apply(path, &selected).map(Cow::Owned),
        None => Ok(selected),
    }
}

fn one<'a>(path: &Path, start: &'a Value) -> Result<Cow<'a, Value>, PathError> {
    let mut value = start;
    for (position, step) in path.steps.iter().enumerate() {
        let found = match (step, value) {
            (Step::Field(name), Value::Object(members)) => members.get(name),
            (Step::Index(index), Value::Array(items)) => at(items, *index),
            (Step::Fields(names), Value::Object(members)) => {
                return Ok(Cow::Owned(Value::Object(those(names, members))));
            }
            _ => None,
        };
        value = found.ok_or_else(|| not_found(path, position, step, value))?;
    }
    Ok(Cow::Borrowed(value))
}

/// Words the miss as json-path does, whose messages people search for.
fn not_found(path: &Path, position: usize, step: &Step, met: &Value) -> PathError {
    let place = path.normal_form(position);
    let is_last = position + 1 == path.steps.len();
    let reason = match (step, met) {
        (Step::Field(_), Value::Object(_)) if is_last => format!("No results for path: {place}"),
        (Step::Field(_), Value::Object(_)) => format!("Missing property in path {place}"),
        (Step::Index(_), Value::Array(items)) => {
            format!(
                "No results for path: {place}; the array has {} items",
                items.len()
            )
        }
        _ => format!(
            "No results for path: {place}; the value before its last step is {}",
            kind_of(met)
        ),
    };
    PathError::NotFound {
        path: path.source.clone(),
        reason,
    }
}

/// The item at an index that counts from the end when it is negative.
fn at(items: &[Value], index: i64) -> Option<&Value> {
    items.get(position(items.len(), index)?)
}

pub(super) fn position(length: usize, index: i64) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

fn those(names: &[String], members: &Map<String, Value>) -> Map<String, Value> {
    names
        .iter()
        .filter_map(|name| {
            members
                .get(name)
                .map(|member| (name.clone(), member.clone()))
        })
        .collect()
}

/// One walk of an indefinite path.
struct Walk<'w, 'a> {
    path: &'w Path,
    document: &'a Value,
    scope: &'w Scope<'a>,
}

impl<'a> Walk<'_, 'a> {
    fn many(&self, start: &'a Value) -> Result<Vec<Value>, PathError> {
        let (last, before) = match self.path.steps.split_last() {
            Some((Step::Fields(names), before)) => (Some(names), before),
            _ => (None, self.path.steps.as_slice()),
        };
        let mut places = vec![start];
        for step in before {
            let mut next = Vec::new();
            for place in places {
                self.step(step, place, &mut next)?;
            }
            places = next;
        }
        Ok(match last {
            Some(names) => {
                let objects = places.into_iter().filter_map(Value::as_object);
                objects
                    .map(|members| Value::Object(those(names, members)))
                    .collect()
            }
            None => places.into_iter().cloned().collect(),
        })
    }

    fn step(
        &self,
        step: &Step,
        place: &'a Value,
        next: &mut Vec<&'a Value>,
    ) -> Result<(), PathError> {
        match (step, place) {
            (Step::Field(name), Value::Object(members)) => next.extend(members.get(name)),
            (Step::Fields(names), Value::Object(members)) => {
                next.extend(names.iter().filter_map(|name| members.get(name)));
            }
            (Step::Index(index), Value::Array(items)) => next.extend(at(items, *index)),
            (Step::Indexes(indexes), Value::Array(items)) => {
                next.extend(indexes.iter().filter_map(|index| at(items, *index)));
            }
            (Step::Slice { start, end, stride }, Value::Array(items)) => {
                next.extend(slice(items, *start, *end, *stride));
            }
            (Step::Wildcard, Value::Array(items)) => next.extend(items),
            (Step::Wildcard, Value::Object(members)) => next.extend(members.values()),
            (Step::Filter(predicate), Value::Array(items)) => {
                next.extend(items.iter().filter(|item| self.accepts(predicate, item)));
            }
            (Step::Filter(predicate), Value::Object(_)) if self.accepts(predicate, place) => {
                next.push(place);
            }
            (Step::Descent(inner), _) => self.descend(inner, place, next)?,
            _ => {}
        }
        if next.len() > MAX_SELECTED {
            return Err(PathError::TooMany {
                path: self.path.source.clone(),
                limit: MAX_SELECTED,
            });
        }
        Ok(())
    }

    /// Applies a step to a value and then to all that it holds, parents before children.
    fn descend(
        &self,
        step: &Step,
        place: &'a Value,
        next: &mut Vec<&'a Value>,
    ) -> Result<(), PathError> {
        let mut waiting = vec![place];
        while let Some(value) = waiting.pop() {
            match (step, value) {
                // Objects in an array are tested when they are reached themselves.
                (Step::Filter(predicate), Value::Array(items)) => {
                    next.extend(
                        items
                            .iter()
                            .filter(|item| !item.is_object() && self.accepts(predicate, item)),
                    );
                }
                _ => self.step(step, value, next)?,
            }
            match value {
                Value::Array(items) => waiting.extend(items.iter().rev()),
                Value::Object(members) => waiting.extend(members.values().rev()),
                _ => {}
            }
        }
        Ok(())
    }

    fn accepts(&self, predicate: &Predicate, item: &'a Value) -> bool {
        predicate.accepts(Surroundings {
            item,
            document: self.document,
            scope: self.scope,
        })
    }
}

fn slice(
    items: &[Value],
    start: Option<i64>,
    end: Option<i64>,
    stride: i64,
) -> impl Iterator<Item = &Value> {
    let clamp = |bound: i64| position(items.len(), bound).unwrap_or(0).min(items.len());
    let start = start.map_or(0, clamp);
    let end = end.map_or(items.len(), clamp).max(start);
    items[start..end]
        .iter()
        .step_by(usize::try_from(stride).unwrap_or(usize::MAX).max(1))
}
