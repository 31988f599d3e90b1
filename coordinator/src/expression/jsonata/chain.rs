//! The fast path: `$name` and `$name.a.b` are looked up in the JSON document itself.
//! It answers only where JSONata's semantics are a plain lookup. An array on the way maps and flattens, which is the
//! evaluator's business.

use jsonata_core::ast::AstNode;
use serde_json::Value;

use super::{STATES, demand};
use crate::expression::scope::Scope;

/// A variable and the fields that are taken from it.
#[derive(Debug)]
pub(super) struct Chain {
    variable: String,
    fields: Vec<String>,
}

/// What following a chain shows.
pub(super) enum Outcome<'a> {
    Found(&'a Value),
    Undefined,
    /// Only the evaluator knows.
    Unclear,
}

impl Chain {
    /// The chain that an expression is, if it is nothing else.
    pub(super) fn of(tree: &AstNode) -> Option<Self> {
        let (variable, fields) = match tree {
            AstNode::Variable(name) => (name, Vec::new()),
            AstNode::Path { steps } => {
                let (first, rest) = steps.split_first()?;
                let AstNode::Variable(name) = &first.node else {
                    return None;
                };
                let fields = rest.iter().map(|step| match &step.node {
                    AstNode::Name(field) if demand::is_plain(step) => Some(field.clone()),
                    _ => None,
                });
                (
                    demand::is_plain(first).then_some(name)?,
                    fields.collect::<Option<Vec<_>>>()?,
                )
            }
            _ => return None,
        };
        // `$states` as a whole has to be put together, and `$` is not a variable.
        let is_lookup = !variable.is_empty() && (variable != STATES || !fields.is_empty());
        is_lookup.then(|| Self {
            variable: variable.clone(),
            fields,
        })
    }

    pub(super) fn follow<'a>(&self, scope: &Scope<'a>) -> Outcome<'a> {
        let mut fields = self.fields.iter();
        let start = if self.variable == STATES {
            fields.next().and_then(|part| {
                scope
                    .states()
                    .find(|(name, _)| name == part)
                    .map(|(_, value)| value)
            })
        } else {
            match scope.variables.variable(&self.variable) {
                // A name without a value may still be a function of the language.
                None => return Outcome::Unclear,
                value => value,
            }
        };
        let Some(mut value) = start else {
            return Outcome::Undefined;
        };
        for field in fields {
            value = match value {
                Value::Object(members) => match members.get(field) {
                    Some(member) => member,
                    None => return Outcome::Undefined,
                },
                Value::Array(_) => return Outcome::Unclear,
                _ => return Outcome::Undefined,
            };
        }
        Outcome::Found(value)
    }
}
