//! `ResultPath`: putting a value at the place that a reference path names.

use serde_json::{Map, Value};

use super::{Path, PathError, Root, Step, kind_of, selection};

pub(super) fn assign(path: &Path, mut root: Value, value: Value) -> Result<Value, PathError> {
    if path.root != Root::Document || !path.is_reference() {
        return Err(PathError::NotAReferencePath {
            path: path.source.clone(),
        });
    }
    let mut place = &mut root;
    for (position, step) in path.steps.iter().enumerate() {
        let mismatch = |found: &'static str| PathError::Mismatch {
            path: path.source.clone(),
            place: position
                .checked_sub(1)
                .map_or_else(|| "the input".to_owned(), |before| path.normal_form(before)),
            found,
        };
        place = match (step, place) {
            (Step::Field(name), Value::Object(members)) => {
                // What is missing on the way becomes an object; what is missing at its end is overwritten below.
                members
                    .entry(name.clone())
                    .or_insert_with(|| Value::Object(Map::new()))
            }
            (Step::Index(index), Value::Array(items)) => {
                let found =
                    selection::position(items.len(), *index).and_then(|index| items.get_mut(index));
                found.ok_or_else(|| mismatch("an array without an item of that index"))?
            }
            (_, other) => return Err(mismatch(kind_of(other))),
        };
    }
    *place = value;
    Ok(root)
}
