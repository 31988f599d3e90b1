//! JSON text to a tree, strictly: no comments, no trailing commas, nothing that RFC 8259 forbids.

use super::{
    diagnostic::Span,
    node::{Content, Field, Node, SyntaxError},
};
use crate::limit;
use jsonc_parser::{
    CollectOptions, ParseOptions,
    ast::{self, Value},
    common::{Range, Ranged},
    parse_to_ast,
};

/// Nothing that JSON does not have.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Parses `text`, which begins at byte `offset` of the file.
pub(super) fn parse(text: &str, offset: usize) -> Result<Node, SyntaxError> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT).map_err(|error| {
        let message = lower_first(&error.kind().to_string());
        SyntaxError::new(moved(error.range(), offset), message)
    })?;
    // A second opinion: where the one parser is lenient, the other is not.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let at = offset + byte_of(text, error.line(), error.column());
        return Err(SyntaxError::new(
            Span { start: at, end: at },
            plain_message(&error),
        ));
    }
    let Some(value) = parsed.value else {
        let end = offset + text.len();
        return Err(SyntaxError::new(
            Span { start: end, end },
            "the document is empty",
        ));
    };
    Builder {
        offset,
        left: limit::DEFINITION_NODES,
    }
    .node(&value, limit::DEPTH)
}

struct Builder {
    offset: usize,
    left: usize,
}

impl Builder {
    fn node(&mut self, value: &Value<'_>, depth: usize) -> Result<Node, SyntaxError> {
        let span = moved(value.range(), self.offset);
        let Some(depth) = depth.checked_sub(1) else {
            return Err(SyntaxError::too_deep(span));
        };
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| SyntaxError::too_many(span))?;
        let content = match value {
            Value::NullKeyword(_) => Content::Null,
            Value::BooleanLit(literal) => Content::Bool(literal.value),
            Value::StringLit(literal) => Content::String(literal.value.to_string()),
            Value::NumberLit(literal) => Content::Number(literal.value.parse().map_err(|_| {
                SyntaxError::new(span, format!("{} is not a JSON number", literal.value))
            })?),
            Value::Array(array) => {
                let items = array.elements.iter().map(|item| self.node(item, depth));
                Content::Array(items.collect::<Result<_, _>>()?)
            }
            Value::Object(object) => {
                let fields = object
                    .properties
                    .iter()
                    .map(|field| self.field(field, depth));
                Content::Object(fields.collect::<Result<_, _>>()?)
            }
        };
        Ok(Node { span, content })
    }

    fn field(&mut self, field: &ast::ObjectProp<'_>, depth: usize) -> Result<Field, SyntaxError> {
        Ok(Field {
            key: field.name.as_str().to_owned(),
            key_span: moved(field.name.range(), self.offset),
            value: self.node(&field.value, depth)?,
        })
    }
}

fn moved(range: Range, offset: usize) -> Span {
    Span {
        start: range.start + offset,
        end: range.end + offset,
    }
}

/// The byte at a line and column as `serde_json` counts them: both from 1, the column in bytes.
fn byte_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The message without its ` at line 1 column 2`, which the excerpt says.
fn plain_message(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message
        .rfind(" at line ")
        .map_or(message.as_str(), |at| &message[..at])
        .to_owned()
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tree_knows_where_its_values_stand() {
        let text = r#"{"é": [1, {"a/b": "x"}]}"#;
        let node = parse(text, 0).unwrap();
        assert_eq!(node.to_json(), json!({"é": [1, {"a/b": "x"}]}));
        let inner = node.at("/é/1/a~1b").unwrap();
        assert_eq!(&text[inner.span.start..inner.span.end], "\"x\"");
    }

    #[test]
    fn what_json_does_not_have_is_refused() {
        for text in [
            "",
            "{\"a\": 1,}",
            "{\"a\": 1 \"b\": 2}",
            "{a: 1}",
            "{'a': 1}",
            "// x\n{}",
            "{} {}",
            "[01]",
            "[1.]",
            "[+1]",
            "[0x1]",
            "[NaN]",
            "[1e999]",
            "[\"\t\"]",
            "[\"\\x41\"]",
            "[\"\\ud800\"]",
            "[1",
            "{\"a\"",
        ] {
            assert!(parse(text, 0).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(limit::DEPTH - 1), 0).is_ok());
        for depth in [limit::DEPTH + 1, 600, 100_000] {
            assert!(
                parse(&nested(depth), 0).is_err(),
                "{depth} levels were accepted"
            );
        }
    }
}
