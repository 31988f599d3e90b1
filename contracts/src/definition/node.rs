//! A document as a tree of values that know where they stand in the text.
//!
//! JSON and YAML both become this tree, so that everything after it knows one form only. Keys keep
//! the order of the document; a key that stands twice is kept twice, for the check to name both.

use super::diagnostic::Span;
use crate::limit;
use serde_json::{Map, Number, Value};

/// A value with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) content: Content,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Node>),
    Object(Vec<Field>),
}

/// A field of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

/// Why a text is not a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SyntaxError {
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl SyntaxError {
    pub(super) fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: None,
        }
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A value stands deeper than [`limit::DEPTH`].
    pub(super) fn too_deep(span: Span) -> Self {
        Self::new(
            span,
            format!("values are nested more than {} levels deep", limit::DEPTH),
        )
    }

    /// There are more values than [`limit::DEFINITION_NODES`].
    pub(super) fn too_many(span: Span) -> Self {
        Self::new(
            span,
            format!(
                "the document has more than {} values",
                limit::DEFINITION_NODES
            ),
        )
    }
}

impl Node {
    /// What the value is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "null",
            Content::Bool(_) => "a boolean",
            Content::Number(_) => "a number",
            Content::String(_) => "a string",
            Content::Array(_) => "an array",
            Content::Object(_) => "an object",
        }
    }

    /// The value of a field, if this is an object that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.field(key).map(|field| &field.value)
    }

    pub(super) fn field(&self, key: &str) -> Option<&Field> {
        match &self.content {
            Content::Object(fields) => fields.iter().find(|field| field.key == key),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value as JSON, keys in the order of the document.
    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(number) => Value::Number(number.clone()),
            Content::String(text) => Value::String(text.clone()),
            Content::Array(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Content::Object(fields) => {
                let mut map = Map::new();
                for field in fields {
                    map.insert(field.key.clone(), field.value.to_json());
                }
                Value::Object(map)
            }
        }
    }

    /// The node at a JSON pointer (RFC 6901).
    pub(super) fn at(&self, pointer: &str) -> Option<&Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        let mut node = self;
        for token in pointer.strip_prefix('/')?.split('/') {
            node = match &node.content {
                Content::Array(items) => items.get(token.parse::<usize>().ok()?)?,
                _ => node.get(&token.replace("~1", "/").replace("~0", "~"))?,
            };
        }
        Some(node)
    }
}

/// Appends a token to a JSON pointer.
pub(super) fn join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}
