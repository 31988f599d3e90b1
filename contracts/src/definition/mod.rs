//! The definition language: Amazon States Language with the saga extension.
//!
//! [`parse`] takes a text and gives a [`Parsed`] definition, or a [`Report`] of everything that is
//! wrong with it, each problem with its place in the text and what to do about it. Sources: the
//! Amazon States Language specification (<https://states-language.net/spec.html>), and for what it
//! leaves open the developer guide of AWS Step Functions.

mod choice;
mod diagnostic;
mod json;
mod machine;
mod map;
pub mod model;
mod node;
mod parsed;
mod place;
mod resource;
mod rules;
mod service;
mod state;
mod task;
mod template;
mod trigger;
mod yaml;

pub use diagnostic::{Diagnostic, Report, Severity, Span};
pub use parsed::{Finding, Parsed};
pub use place::nearest;

use crate::limit;
use diagnostic::Lines;
use machine::Reader;
use node::{Content, Node, SyntaxError};
use place::{Place, Problems};
use std::{collections::HashSet, sync::Arc};

/// JSON Schema (2020-12) of the documents, for editors: what it accepts may still be refused here, what
/// it refuses never runs.
pub const SCHEMA: &str = include_str!("schema.json");

/// Parses and validates a document: JSON if the file's name ends in `.json` or the text begins with
/// `{`, else YAML. The file's name is only for the report.
///
/// # Errors
/// Everything that is wrong with the document, in one report.
pub fn parse(file_name: &str, text: &str) -> Result<Parsed, Report> {
    parse_as(file_name, text, false)
}

/// As [`parse`], for a document that runs as an Express workflow at AWS: what cannot wait for an
/// answer there is refused.
///
/// # Errors
/// As [`parse`].
pub fn parse_express(file_name: &str, text: &str) -> Result<Parsed, Report> {
    parse_as(file_name, text, true)
}

fn parse_as(file_name: &str, text: &str, is_express: bool) -> Result<Parsed, Report> {
    let (lines, root) = read(file_name, text)?;
    check(file_name, lines, root, is_express)
}

/// Reads any document, YAML or JSON, as the JSON that it stands for.
///
/// # Errors
/// What is wrong with its syntax, and fields that stand twice.
pub fn value(file_name: &str, text: &str) -> Result<serde_json::Value, Report> {
    let (lines, root) = read(file_name, text)?;
    let mut problems = Problems::new(lines);
    duplicate_fields(&mut problems, &Place::root(&root));
    let (lines, found) = problems.into_parts();
    if found.is_empty() {
        Ok(root.to_json())
    } else {
        Err(Report::new(file_name, lines.text().clone(), found))
    }
}

fn read(file_name: &str, text: &str) -> Result<(Lines, Node), Report> {
    let lines = Lines::of(Arc::from(text));
    let refuse = |lines: &Lines, error: SyntaxError| {
        let mut found = lines.diagnostic(
            "syntax",
            Severity::Error,
            String::new(),
            error.span,
            error.message,
        );
        found.help = error.help;
        Report::new(file_name, lines.text().clone(), vec![found])
    };
    if text.len() > limit::DEFINITION_BYTES {
        let span = Span { start: 0, end: 0 };
        let message = format!(
            "the document has {} bytes, at most {} fit",
            text.len(),
            limit::DEFINITION_BYTES
        );
        return Err(refuse(&lines, SyntaxError::new(span, message)));
    }
    // A byte order mark says nothing that a text does not say.
    let offset = if text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    };
    let body = &text[offset..];
    let extension = std::path::Path::new(file_name).extension();
    let is_json = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        || body.trim_start().starts_with('{');
    let is_yaml = extension.is_some_and(|extension| {
        extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
    });
    let root = if is_json && !is_yaml {
        json::parse(body, offset).or_else(|error| match extension {
            None => yaml::parse(body, offset).map_err(|_| error),
            Some(_) => Err(error),
        })
    } else {
        yaml::parse(body, offset)
    };
    match root {
        Ok(root) => Ok((lines, root)),
        Err(error) => Err(refuse(&lines, error)),
    }
}

fn check(file_name: &str, lines: Lines, root: Node, is_express: bool) -> Result<Parsed, Report> {
    let mut problems = Problems::new(lines);
    duplicate_fields(&mut problems, &Place::root(&root));
    let mut reader = Reader::new(problems);
    reader.is_express = is_express;
    let definition = reader.document(&Place::root(&root));
    let (lines, found) = reader.problems.into_parts();
    if found.iter().any(|one| one.severity == Severity::Error) {
        return Err(Report::new(file_name, lines.text().clone(), found));
    }
    let canonical = root.to_json();
    let Some(digest) = parsed::digest(&canonical) else {
        let span = Span { start: 0, end: 0 };
        let message = "the document has no digest".to_owned();
        let found = lines.diagnostic("digest", Severity::Error, String::new(), span, message);
        return Err(Report::new(file_name, lines.text().clone(), vec![found]));
    };
    Ok(Parsed {
        definition,
        warnings: found,
        canonical,
        digest,
        file_name: file_name.to_owned(),
        lines,
        root,
    })
}

/// A field that stands twice in one object: which of them counts, nobody could say.
fn duplicate_fields(problems: &mut Problems, place: &Place<'_>) {
    let mut seen = HashSet::new();
    for (field, value) in place.fields() {
        if !seen.insert(field.key.as_str()) {
            problems
                .misplaced(
                    "duplicate-field",
                    &value,
                    format!("`{}` is given twice", field.key),
                )
                .label("the second one")
                .help("remove one of them");
        }
        duplicate_fields(problems, &value);
    }
    if matches!(place.node.content, Content::Array(_)) {
        for item in place.items() {
            duplicate_fields(problems, &item);
        }
    }
}
