//! How much of a variable an expression can see. Only that much is converted, so `$states.input.id = 1` costs the
//! same whether the input has one field or a thousand.
//! Invariant: whenever the shape of a path leaves a doubt, the whole variable is demanded.

use indexmap::IndexMap;
use jsonata_core::ast::{AstNode, PathStep};
use jsonata_core::value::JValue;
use serde_json::Value;

use super::{STATES, conversion};
use crate::expression::scope::Scope;

/// The visible part of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Whole,
    Fields(Vec<(String, Demand)>),
}

impl Demand {
    /// The demand of a path on the variable that it starts with.
    pub(super) fn of_path(steps: &[PathStep]) -> Self {
        if !steps.iter().all(keeps_its_place)
            || steps.first().is_none_or(|first| !first.stages.is_empty())
        {
            return Self::Whole;
        }
        let mut fields = Vec::new();
        for step in &steps[1..] {
            let AstNode::Name(field) = &step.node else {
                break;
            };
            fields.push(field);
            if !step.stages.is_empty() {
                break;
            }
        }
        fields.into_iter().rev().fold(Self::Whole, |inner, field| {
            Self::Fields(vec![(field.clone(), inner)])
        })
    }

    pub(super) fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Whole, _) => {}
            (_, Self::Whole) => *self = Self::Whole,
            (Self::Fields(fields), Self::Fields(others)) => {
                for (name, inner) in others {
                    match fields.iter_mut().find(|(field, _)| *field == name) {
                        Some((_, known)) => known.merge(inner),
                        None => fields.push((name, inner)),
                    }
                }
            }
        }
    }
}

/// Whether a step binds no focus, index or parent, which would let later steps look at what lies before it.
fn keeps_its_place(step: &PathStep) -> bool {
    step.focus.is_none()
        && step.index_var.is_none()
        && step.ancestor_label.is_none()
        && !step.is_tuple
        && !step.inner_tuple
}

/// Whether a step does nothing but its name.
pub(super) fn is_plain(step: &PathStep) -> bool {
    keeps_its_place(step) && step.stages.is_empty()
}

/// The demanded part of a variable of the scope, or `None` when there is no such variable.
pub(super) fn bound_value(name: &str, demand: &Demand, scope: &Scope<'_>) -> Option<JValue> {
    if name != STATES {
        return scope
            .variables
            .variable(name)
            .map(|value| visible_part(value, demand));
    }
    let parts = scope.states().filter_map(|(part, value)| {
        let visible = match demand {
            Demand::Whole => conversion::to_jsonata(value),
            Demand::Fields(fields) => {
                let (_, inner) = fields.iter().find(|(field, _)| field == part)?;
                visible_part(value, inner)
            }
        };
        Some((part.to_owned(), visible))
    });
    Some(JValue::object(parts.collect::<IndexMap<_, _>>()))
}

fn visible_part(value: &Value, demand: &Demand) -> JValue {
    match (demand, value) {
        (Demand::Fields(fields), Value::Object(members)) => {
            let visible = fields.iter().filter_map(|(field, inner)| {
                members
                    .get(field)
                    .map(|member| (field.clone(), visible_part(member, inner)))
            });
            JValue::object(visible.collect::<IndexMap<_, _>>())
        }
        // A name step over an array maps over its items, so the same demand holds for each of them.
        (Demand::Fields(_), Value::Array(items)) => JValue::array(
            items
                .iter()
                .map(|item| visible_part(item, demand))
                .collect(),
        ),
        _ => conversion::to_jsonata(value),
    }
}
