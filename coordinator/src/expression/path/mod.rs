//! JSONPath as Amazon States Language uses it: the dialect of Jayway's json-path, with `$$` for the context object and
//! `$name` for a variable.
//!
//! A *definite* path names one place and selects its value, or nothing, which is an error. Any other path selects a
//! list, which may be empty: even when the part before the wildcard is missing. A *reference path* is a definite one
//! of names and single indexes; only such a path can be assigned to (`ResultPath`).
//!
//! Sources: the "Paths" and "Reference Paths" sections of the States Language specification; the operators and
//! functions of json-path's documentation; and recorded runs, where the two are silent.

mod assignment;
mod function;
mod parser;
mod predicate;
mod predicate_parser;
mod selection;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

use self::function::Function;
use self::predicate::Predicate;
use super::scope::Scope;
use super::syntax::SyntaxError;

/// A compiled path.
#[derive(Debug, Clone)]
pub struct Path {
    source: String,
    root: Root,
    steps: Vec<Step>,
    function: Option<Function>,
}

/// Where a path starts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Root {
    /// `$`: the input, or inside a filter the document that is filtered.
    Document,
    /// `$$`.
    Context,
    /// `$name`.
    Variable(String),
    /// `@`, inside a filter: the item that is tested.
    Item,
}

/// One step from values to values.
#[derive(Debug, Clone)]
enum Step {
    Field(String),
    /// Several fields of one object, which make an object of those that exist when nothing follows.
    Fields(Vec<String>),
    Index(i64),
    Indexes(Vec<i64>),
    Slice {
        start: Option<i64>,
        end: Option<i64>,
        stride: i64,
    },
    Wildcard,
    Filter(Box<Predicate>),
    /// `..`: the step, on a value and on everything inside it.
    Descent(Box<Step>),
}

impl Step {
    fn is_definite(&self, is_last: bool) -> bool {
        match self {
            Self::Field(_) | Self::Index(_) => true,
            Self::Fields(_) => is_last,
            Self::Indexes(_)
            | Self::Slice { .. }
            | Self::Wildcard
            | Self::Filter(_)
            | Self::Descent(_) => false,
        }
    }
}

impl Path {
    /// Compiles a path; it starts with `$`.
    pub fn compile(source: &str) -> Result<Self, SyntaxError> {
        parser::parse(source)
    }

    /// The source that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether this is a reference path, which names a single place by names and indexes alone.
    pub fn is_reference(&self) -> bool {
        self.function.is_none()
            && self
                .steps
                .iter()
                .all(|step| matches!(step, Step::Field(_) | Step::Index(_)))
    }

    /// Whether the path selects one value rather than a list.
    pub fn is_definite(&self) -> bool {
        self.function.is_some() || self.selects_one()
    }

    /// The variable that the path starts from, without `$`.
    pub fn variable(&self) -> Option<&str> {
        match &self.root {
            Root::Variable(name) => Some(name),
            _ => None,
        }
    }

    /// The selected value, or the list of selected values.
    pub fn select(&self, scope: &Scope<'_>) -> Result<Value, PathError> {
        self.select_ref(scope).map(Cow::into_owned)
    }

    /// Like [`select`](Self::select), but borrows the value where it lies in the scope as it is.
    pub fn select_ref<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, PathError> {
        let document = match &self.root {
            Root::Document | Root::Item => scope.input,
            Root::Context => scope.context,
            Root::Variable(name) => {
                scope
                    .variables
                    .variable(name)
                    .ok_or_else(|| PathError::UndefinedVariable {
                        path: self.source.clone(),
                        name: name.clone(),
                    })?
            }
        };
        selection::select(self, document, document, scope)
    }

    /// Puts `value` at the place that the path names in `root`, creating the objects that are missing on the way.
    ///
    /// This is what `ResultPath` does, so the path must be a reference path that starts at `$`.
    pub fn assign(&self, root: Value, value: Value) -> Result<Value, PathError> {
        assignment::assign(self, root, value)
    }

    /// Whether the steps select one value, before any function is applied.
    fn selects_one(&self) -> bool {
        let last = self.steps.len().saturating_sub(1);
        self.steps
            .iter()
            .enumerate()
            .all(|(index, step)| step.is_definite(index == last))
    }

    /// The start of the path in json-path's normal form, `$['a'][0]`, up to and with the step at `end`.
    fn normal_form(&self, end: usize) -> String {
        let mut text = match &self.root {
            Root::Document => "$".to_owned(),
            Root::Context => "$$".to_owned(),
            Root::Variable(name) => format!("${name}"),
            Root::Item => "@".to_owned(),
        };
        for step in self.steps.iter().take(end + 1) {
            // Writing to a string cannot fail.
            let _ = match step {
                Step::Field(name) => write!(text, "['{name}']"),
                Step::Index(index) => write!(text, "[{index}]"),
                _ => write!(text, "[*]"),
            };
        }
        text
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.source)
    }
}

/// Why a path selects nothing, or cannot be assigned to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A definite path whose place does not exist.
    #[error("{reason}")]
    NotFound {
        /// The path.
        path: String,
        /// Which part of it is missing.
        reason: String,
    },
    /// The variable that the path starts from was never assigned.
    #[error("the variable '${name}' of the path '{path}' is not defined")]
    UndefinedVariable {
        /// The path.
        path: String,
        /// The variable, without `$`.
        name: String,
    },
    /// Only a reference path that starts at `$` can be assigned to.
    #[error(
        "the path '{path}' is not a reference path: it must start at '$' and hold only names and single indexes"
    )]
    NotAReferencePath {
        /// The path.
        path: String,
    },
    /// An assignment met a value that has no place of that name or index.
    #[error("the path '{path}' cannot be applied: {place} is {found}")]
    Mismatch {
        /// The path.
        path: String,
        /// The place that was met on the way.
        place: String,
        /// What is there.
        found: &'static str,
    },
    /// The function at the end of the path cannot be applied to what was selected.
    #[error("the function {function}() of the path '{path}' {reason}")]
    Function {
        /// The path.
        path: String,
        /// The function's name.
        function: &'static str,
        /// What it needs.
        reason: &'static str,
    },
    /// The path selects more values than a document could hold.
    #[error("the path '{path}' selects more than {limit} values")]
    TooMany {
        /// The path.
        path: String,
        /// The limit.
        limit: usize,
    },
}

/// What a value is, in words for messages.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
