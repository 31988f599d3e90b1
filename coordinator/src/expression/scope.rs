//! What an expression may look at: the state's input, the context object, a result or an error, and the variables.
//! A scope only borrows. Building one copies nothing, and both query languages read the same one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher;

use indexmap::IndexMap;
use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The data that an expression is evaluated against.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// `$` in JSONPath, `$states.input` in JSONata.
    pub input: &'a Value,
    /// `$$` in JSONPath, `$states.context` in JSONata.
    pub context: &'a Value,
    /// `$states.result`, where the state has one.
    pub result: Option<&'a Value>,
    /// `$states.errorOutput`, inside a catcher.
    pub error_output: Option<&'a Value>,
    /// `$name` in both languages.
    pub variables: &'a dyn Variables,
}

impl<'a> Scope<'a> {
    /// The scope of a state that has no result yet.
    pub fn new(input: &'a Value, context: &'a Value, variables: &'a dyn Variables) -> Self {
        Self {
            input,
            context,
            result: None,
            error_output: None,
            variables,
        }
    }

    /// A scope where only variables mean anything, such as the key of a trigger (`$event`).
    pub fn of_variables(variables: &'a dyn Variables) -> Self {
        Self::new(&NULL, &NULL, variables)
    }

    /// The same scope with a result to look at.
    #[must_use]
    pub fn with_result(self, result: &'a Value) -> Self {
        Self {
            result: Some(result),
            ..self
        }
    }

    /// The same scope with the error that a catcher caught.
    #[must_use]
    pub fn with_error_output(self, error_output: &'a Value) -> Self {
        Self {
            error_output: Some(error_output),
            ..self
        }
    }

    /// The parts of the reserved variable `$states` that exist here, by their name in JSONata.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&'static str, &'a Value)> + use<'a> {
        [
            ("input", Some(self.input)),
            ("context", Some(self.context)),
            ("result", self.result),
            ("errorOutput", self.error_output),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Scope")
            .field("input", self.input)
            .field("context", self.context)
            .field("result", &self.result)
            .field("error_output", &self.error_output)
            .finish_non_exhaustive()
    }
}

/// A lookup of workflow variables by name, without the `$`.
///
/// Variables of an outer scope are visible in an inner one, so whoever holds them decides how they are layered.
pub trait Variables {
    /// The value of a variable, or `None` when it was never assigned.
    fn variable(&self, name: &str) -> Option<&Value>;
}

/// The empty set of variables.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn variable(&self, _name: &str) -> Option<&Value> {
        None
    }
}

impl Variables for Map<String, Value> {
    fn variable(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }
}

impl Variables for BTreeMap<String, Value> {
    fn variable(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }
}

impl<S: BuildHasher> Variables for HashMap<String, Value, S> {
    fn variable(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }
}

impl<S: BuildHasher> Variables for IndexMap<String, Value, S> {
    fn variable(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }
}

impl Variables for &[(&str, &Value)] {
    fn variable(&self, name: &str) -> Option<&Value> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }
}

impl<const N: usize> Variables for [(&str, &Value); N] {
    fn variable(&self, name: &str) -> Option<&Value> {
        self.as_slice()
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }
}
