//! A document that was understood: the definition, its digest, and the way back to the text.
//!
//! Whoever compiles the expressions later reports what it finds through [`Parsed::report`], so that
//! people see one kind of report for every problem.

use super::{
    diagnostic::{Diagnostic, Lines, Report, Severity, Span},
    model::Definition,
    node::{Content, Node},
};
use crate::id::DefinitionDigest;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A definition with the document that it came from.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What the document says.
    pub definition: Definition,
    /// What it hardly means, in the order of the text.
    pub warnings: Vec<Diagnostic>,
    /// The document as JSON, keys in the order of the document.
    pub canonical: Value,
    /// SHA-256 of the document as compact JSON with sorted keys: the same for JSON and YAML, and
    /// whatever the order of its fields.
    pub digest: DefinitionDigest,
    pub(super) file_name: String,
    pub(super) lines: Lines,
    pub(super) root: Node,
}

/// A problem inside a value, found after parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of problem it is: a word in kebab-case that stays the same.
    pub code: &'static str,
    /// JSON pointer (RFC 6901) of the value.
    pub pointer: String,
    /// Where in the value, if that is a string: a byte of the string as the document gives it, with
    /// its `{%` if it has one.
    pub offset: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Parsed {
    /// Where the value at a JSON pointer stands in the text. `None` if there is no such value.
    #[must_use]
    pub fn locate(&self, pointer: &str) -> Option<Span> {
        self.root.at(pointer).map(|node| node.span)
    }

    /// The findings as errors of this document.
    ///
    /// A pointer that names nothing is shown at the nearest value around it.
    #[must_use]
    pub fn report(&self, findings: impl IntoIterator<Item = Finding>) -> Report {
        let diagnostics = findings
            .into_iter()
            .map(|finding| self.diagnostic(finding))
            .collect();
        Report::new(&self.file_name, self.lines.text().clone(), diagnostics)
    }

    /// The warnings as a report. `None` if there are none.
    #[must_use]
    pub fn warnings_report(&self) -> Option<Report> {
        let text = self.lines.text().clone();
        (!self.warnings.is_empty())
            .then(|| Report::new(&self.file_name, text, self.warnings.clone()))
    }

    fn diagnostic(&self, finding: Finding) -> Diagnostic {
        let mut around = finding.pointer.as_str();
        let node = loop {
            match self.root.at(around) {
                Some(node) => break node,
                None => around = around.rfind('/').map_or("", |at| &around[..at]),
            }
        };
        let span = match (&node.content, finding.offset) {
            (Content::String(value), Some(offset)) => self.inside(node.span, value, offset),
            _ => node.span,
        };
        let mut diagnostic = self.lines.diagnostic(
            finding.code,
            Severity::Error,
            finding.pointer,
            span,
            finding.message,
        );
        diagnostic.help = finding.help;
        diagnostic
    }

    /// Where byte `offset` of a string's value stands in the text; the whole string if the way it is
    /// written does not tell.
    fn inside(&self, span: Span, value: &str, offset: usize) -> Span {
        let raw = self
            .lines
            .text()
            .get(span.start..span.end)
            .unwrap_or_default();
        let Some(wanted) = value.get(..offset) else {
            return span;
        };
        let Some(at) = align(raw, wanted) else {
            return span;
        };
        let width = raw[at..].chars().next().map_or(0, char::len_utf8);
        Span {
            start: span.start + at,
            end: span.start + at + width,
        }
    }
}

/// How many bytes of `raw`, a string as JSON or YAML writes it, stand for the value's beginning.
fn align(raw: &str, value: &str) -> Option<usize> {
    let quote = raw
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''));
    let is_block = raw.starts_with(['|', '>']);
    let mut at = match quote {
        Some(_) => 1,
        // The header of a block scalar is not part of it.
        None if is_block => raw.find('\n')? + 1,
        None => 0,
    };
    for wanted in value.chars() {
        let rest = &raw[at..];
        if quote == Some('"') && rest.starts_with('\\') {
            at += escape_length(rest)?;
            continue;
        }
        if quote == Some('\'') && rest.starts_with("''") {
            at += 2;
            continue;
        }
        if wanted.is_whitespace() {
            // Line folding: any white space stands for any other, and an end of line for a blank.
            let found = rest.chars().next()?;
            if found.is_whitespace() {
                at += found.len_utf8();
            }
            continue;
        }
        // Indentation, and what a folded line has more of.
        let skipped = rest.len() - rest.trim_start().len();
        at += skipped;
        let found = raw[at..].chars().next()?;
        if found != wanted {
            return None;
        }
        at += found.len_utf8();
    }
    let rest = raw.get(at..)?;
    let is_between_lines = rest.starts_with(['\n', '\r']) || is_block;
    if is_between_lines {
        at += rest.len() - rest.trim_start().len();
    }
    (at < raw.len()).then_some(at)
}

/// How long the escape at the beginning of `text` is.
fn escape_length(text: &str) -> Option<usize> {
    let digits = match text[1..].chars().next()? {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        other => return Some(1 + other.len_utf8()),
    };
    let length = 2 + digits;
    let code = u32::from_str_radix(text.get(2..length)?, 16).ok()?;
    // A pair of surrogates is one character.
    let is_pair = (0xd800..0xdc00).contains(&code) && text[length..].starts_with("\\u");
    Some(if is_pair { length + 6 } else { length })
}

/// SHA-256 of the document as compact JSON with sorted keys.
pub(super) fn digest(document: &Value) -> Option<DefinitionDigest> {
    let mut sorted = document.clone();
    sorted.sort_all_objects();
    let hash = Sha256::digest(sorted.to_string().as_bytes());
    let mut text = String::with_capacity(64);
    for byte in hash {
        write!(text, "{byte:02x}").ok()?;
    }
    DefinitionDigest::new(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_in_a_value_finds_its_byte_in_the_text() {
        // raw text, value, a piece of the value that is written once
        for (raw, value, piece) in [
            (r#""{% a +! b %}""#, "{% a +! b %}", "!"),
            (r#""a\n\"b\"\u00e9 !""#, "a\n\"b\"é !", "!"),
            (r#""\ud83d\ude00 !""#, "😀 !", "!"),
            ("'it''s !'", "it's !", "!"),
            ("plain !", "plain !", "!"),
            ("|\n    one\n      two !\n", "one\n  two !\n", "!"),
            ("|\n    one\n      two !\n", "one\n  two !\n", "two"),
            (">-\n  {% one\n  two ! %}\n", "{% one two ! %}", "!"),
        ] {
            let offset = value.find(piece).unwrap();
            let at = align(raw, &value[..offset]);
            assert_eq!(at, raw.rfind(piece), "{raw:?}");
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_of_fields() {
        let one = serde_json::json!({"a": {"x": 1, "y": [2]}, "b": 3});
        let other: Value = serde_json::from_str(r#"{"b": 3, "a": {"y": [2], "x": 1}}"#).unwrap();
        assert_eq!(digest(&one), digest(&other));
        assert_ne!(digest(&one), digest(&serde_json::json!({"a": 1})));
    }
}
