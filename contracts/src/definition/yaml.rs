//! YAML text to a tree: the core schema of YAML 1.2, as far as JSON can say it.
//!
//! Aliases are copied, within [`limit::DEFINITION_NODES`]; keys are text; tags other than those of
//! the core schema, several documents in one file, infinities and NaN are refused.

use super::{
    diagnostic::Span,
    node::{Content, Field, Node, SyntaxError},
};
use crate::limit;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::Number;
use std::collections::HashMap;

/// Parses `text`, which begins at byte `offset` of the file.
pub(super) fn parse(text: &str, offset: usize) -> Result<Node, SyntaxError> {
    let mut builder = Builder {
        bytes: Bytes::of(text, offset),
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        left: limit::DEFINITION_NODES,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| {
            let at = builder.bytes.at(error.marker().index());
            SyntaxError::new(Span { start: at, end: at }, error.info())
        })?;
        builder.take(event, builder.bytes.span(span))?;
    }
    let end = offset + text.len();
    builder
        .root
        .ok_or_else(|| SyntaxError::new(Span { start: end, end }, "the document is empty"))
}

/// A collection whose end has not come yet.
struct Open {
    start: usize,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    Array(Vec<Node>),
    Object {
        fields: Vec<Field>,
        key: Option<(String, Span)>,
    },
}

struct Builder {
    bytes: Bytes,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    left: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(SyntaxError::new(span, "a second document begins here")
                    .with_help("put each definition into a file of its own"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                if self.is_at_key() {
                    return self.take_key(text.into_owned(), span);
                }
                let content = scalar(&text, style, tag.as_deref())
                    .map_err(|message| SyntaxError::new(span, message))?;
                self.close(anchor, Node { span, content })
            }
            Event::SequenceStart(anchor, tag) => {
                self.start(anchor, tag.as_deref(), span, OpenContent::Array(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let content = OpenContent::Object {
                    fields: Vec::new(),
                    key: None,
                };
                self.start(anchor, tag.as_deref(), span, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(SyntaxError::new(
                        span,
                        "this alias stands inside its own anchor",
                    ));
                };
                if self.is_at_key() {
                    return match node.content {
                        Content::String(text) => self.take_key(text, span),
                        _ => Err(key_error(span)),
                    };
                }
                self.copy_is_within_limits(&node, span)?;
                self.close(0, node)
            }
            _ => Ok(()),
        }
    }

    fn is_at_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                content: OpenContent::Object { key: None, .. },
                ..
            })
        )
    }

    fn take_key(&mut self, text: String, span: Span) -> Result<(), SyntaxError> {
        match self.open.last_mut() {
            Some(Open {
                content: OpenContent::Object { key, .. },
                ..
            }) => {
                *key = Some((text, span));
                Ok(())
            }
            _ => Err(key_error(span)),
        }
    }

    fn start(
        &mut self,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
        content: OpenContent,
    ) -> Result<(), SyntaxError> {
        if self.is_at_key() {
            return Err(key_error(span));
        }
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            return Err(SyntaxError::new(
                span,
                format!("the tag {tag} has no meaning here"),
            ));
        }
        if self.open.len() + 1 >= limit::DEPTH {
            return Err(SyntaxError::too_deep(span));
        }
        self.open.push(Open {
            start: span.start,
            anchor,
            content,
        });
        Ok(())
    }

    fn end(&mut self, span: Span) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else {
            return Err(SyntaxError::new(span, "this closes nothing"));
        };
        let (content, last) = match open.content {
            OpenContent::Array(items) => {
                let last = items.last().map(|item| item.span.end);
                (Content::Array(items), last)
            }
            OpenContent::Object { fields, .. } => {
                let last = fields.last().map(|field| field.value.span.end);
                (Content::Object(fields), last)
            }
        };
        // A block collection is closed by what comes after it; it ends where its last value ends.
        let is_flow = span.end > span.start;
        let end = if is_flow {
            span.end
        } else {
            last.unwrap_or(span.start)
        };
        let span = Span {
            start: open.start,
            end: end.max(open.start),
        };
        self.close(open.anchor, Node { span, content })
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, anchor: usize, node: Node) -> Result<(), SyntaxError> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| SyntaxError::too_many(node.span))?;
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(OpenContent::Array(items)) => items.push(node),
            Some(OpenContent::Object { fields, key }) => {
                let Some((key, key_span)) = key.take() else {
                    return Err(key_error(node.span));
                };
                fields.push(Field {
                    key,
                    key_span,
                    value: node,
                });
            }
        }
        Ok(())
    }

    /// An alias copies its anchor, and copies of copies grow fast ("billion laughs").
    fn copy_is_within_limits(&mut self, node: &Node, at: Span) -> Result<(), SyntaxError> {
        let (count, depth) = size(node);
        if self.open.len() + depth >= limit::DEPTH {
            return Err(SyntaxError::too_deep(at));
        }
        self.left = self
            .left
            .checked_sub(count)
            .ok_or_else(|| SyntaxError::too_many(at))?;
        Ok(())
    }
}

/// How many nodes a tree has, and how deep it is.
fn size(node: &Node) -> (usize, usize) {
    let add = |(count, depth): (usize, usize), node: &Node| {
        let (more, deeper) = size(node);
        (count + more, depth.max(deeper))
    };
    let (count, depth) = match &node.content {
        Content::Array(items) => items.iter().fold((0, 0), add),
        Content::Object(fields) => fields.iter().map(|field| &field.value).fold((0, 0), add),
        _ => (0, 0),
    };
    (count + 1, depth + 1)
}

fn key_error(span: Span) -> SyntaxError {
    SyntaxError::new(span, "a key must be a text, not a collection")
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Content, String> {
    let string = || Content::String(text.to_owned());
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain {
            plain(text)
        } else {
            Ok(string())
        };
    };
    if tag.handle == "!" && tag.suffix.is_empty() {
        return Ok(string());
    }
    if !tag.is_yaml_core_schema() {
        return Err(format!("the tag {tag} has no meaning here"));
    }
    let content = plain(text)?;
    match (tag.suffix.as_str(), &content) {
        ("str", _) => Ok(string()),
        ("null", Content::Null) | ("bool", Content::Bool(_)) => Ok(content),
        ("int", Content::Number(number)) if !number.is_f64() => Ok(content),
        ("float", Content::Number(_)) => Ok(content),
        (kind, _) => Err(format!("{text:?} is not of the type {kind}")),
    }
}

/// YAML 1.2.2, 10.3.2: what a plain scalar means in the core schema.
fn plain(text: &str) -> Result<Content, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Content::Null,
        "true" | "True" | "TRUE" => Content::Bool(true),
        "false" | "False" | "FALSE" => Content::Bool(false),
        _ => match number(text) {
            Scalar::Number(number) => Content::Number(number),
            Scalar::NotFinite => return Err(format!("{text} is a number that JSON does not have")),
            Scalar::Text => Content::String(text.to_owned()),
        },
    })
}

/// What a plain scalar is, if it is neither null nor a boolean.
enum Scalar {
    Number(Number),
    /// A number, but an infinite one, or none at all.
    NotFinite,
    Text,
}

fn number(text: &str) -> Scalar {
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8)
            .map_or(Scalar::Text, |value| Scalar::Number(value.into()));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16)
            .map_or(Scalar::Text, |value| Scalar::Number(value.into()));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Scalar::NotFinite,
        ".nan" | ".NaN" | ".NAN" if unsigned == text => return Scalar::NotFinite,
        _ => {}
    }
    let (mantissa, exponent) = unsigned
        .split_once(['e', 'E'])
        .map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa
        .split_once('.')
        .map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let has_mantissa = !whole.is_empty() || fraction.is_some_and(|digits| !digits.is_empty());
    let has_exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && are_digits(digits)
    });
    if !(has_mantissa && has_exponent && are_digits(whole) && fraction.is_none_or(are_digits)) {
        return Scalar::Text;
    }
    if fraction.is_none() && exponent.is_none() {
        if let Ok(value) = text.parse::<i64>() {
            return Scalar::Number(value.into());
        }
        if let Ok(value) = text.parse::<u64>() {
            return Scalar::Number(value.into());
        }
    }
    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
    number.map_or(Scalar::NotFinite, Scalar::Number)
}

/// Where each character begins: the parser counts characters, everybody else bytes.
struct Bytes {
    /// Empty for ASCII, where both are the same.
    starts: Vec<usize>,
    length: usize,
    offset: usize,
}

impl Bytes {
    fn of(text: &str, offset: usize) -> Self {
        let starts = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(at, _)| at).collect()
        };
        Self {
            starts,
            length: text.len(),
            offset,
        }
    }

    fn at(&self, character: usize) -> usize {
        let byte = if self.starts.is_empty() {
            character.min(self.length)
        } else {
            self.starts.get(character).copied().unwrap_or(self.length)
        };
        byte + self.offset
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        Span {
            start: self.at(span.start.index()),
            end: self.at(span.end.index()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn value(text: &str) -> Value {
        parse(text, 0).unwrap().to_json()
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let text =
            "a: [1, -2, 0x1f, 0o17, 1.5, 1e3, true, ~, null, no, 1_000, 12:30, '7', !!str 7]";
        assert_eq!(
            value(text),
            json!({"a": [1, -2, 31, 15, 1.5, 1000.0, true, null, null, "no", "1_000", "12:30", "7", "7"]})
        );
        assert_eq!(value("18446744073709551615"), json!(u64::MAX));
        assert_eq!(value("a:\nb: ''"), json!({"a": null, "b": ""}));
    }

    #[test]
    fn spans_are_bytes_of_the_text() {
        let text = "é:\n  - 'ü'\n  - key: {x: \"y\"}\n    text: |\n      one\n      two\nlast: plain words\n";
        let node = parse(text, 0).unwrap();
        let at = |pointer: &str| {
            let span = node.at(pointer).unwrap().span;
            &text[span.start..span.end]
        };
        assert_eq!(at("/é/0"), "'ü'");
        assert_eq!(at("/é/1/key"), "{x: \"y\"}");
        assert_eq!(at("/é/1/key/x"), "\"y\"");
        assert_eq!(at("/last"), "plain words");
        assert!(at("/é/1/text").contains("two"), "{:?}", at("/é/1/text"));
        assert!(at("/é").starts_with("- 'ü'"), "{:?}", at("/é"));
    }

    #[test]
    fn aliases_are_copied_within_bounds() {
        assert_eq!(
            value("a: &x {b: 1}\nc: *x"),
            json!({"a": {"b": 1}, "c": {"b": 1}})
        );
        assert!(parse("a: &x [*x]", 0).is_err());
        assert!(parse("a: *nobody", 0).is_err());
        let mut laughs = String::from("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            laughs += &format!("a{level}: &a{level} [{before}]\n");
        }
        assert!(parse(&laughs, 0).unwrap_err().message.contains("values"));
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        for text in [
            "",
            "# only a comment",
            "a: .inf",
            "a: .nan",
            "a: !custom 1",
            "a: !custom {b: 1}",
            "a: !!int x",
            "? [a, b]\n: 1",
            "a: 1\n---\nb: 2",
            "a: [1",
            "a: b: c",
            "a: 1\n b: 2",
        ] {
            assert!(parse(text, 0).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn depth_is_bounded() {
        for depth in [limit::DEPTH + 1, 5_000] {
            assert!(parse(&"[".repeat(depth), 0).is_err());
            assert!(parse(&"- ".repeat(depth), 0).is_err());
        }
    }
}
