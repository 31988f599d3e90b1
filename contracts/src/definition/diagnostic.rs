//! What is wrong with a document: each problem with its place, and all of them as one report.
//!
//! A diagnostic names its place twice: for programs as a JSON pointer, for people as line and column
//! with a labelled excerpt of the source. Positions are bytes of the text as it came.

use miette::{LabeledSpan, NamedSource, SourceSpan};
use serde::Serialize;
use std::{fmt, sync::Arc};

/// A part of the text, in bytes: `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl From<Span> for SourceSpan {
    fn from(span: Span) -> Self {
        (span.start, span.end.saturating_sub(span.start)).into()
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The definition cannot run.
    Error,
    /// The definition runs, but hardly as it was meant.
    Warning,
}

/// One problem of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What kind of problem it is: a word in kebab-case that stays the same.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// JSON pointer (RFC 6901) of the value that is wrong, or that lacks something; empty for the
    /// whole document.
    pub pointer: String,
    /// What to look at in the text.
    pub span: Span,
    /// Line of the span's start, from 1.
    pub line: usize,
    /// Column of the span's start in characters, from 1.
    pub column: usize,
    /// A few words beside the excerpt.
    #[serde(skip)]
    pub(super) label: String,
}

impl Diagnostic {
    /// Says what to do about it.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Says a few words beside the excerpt.
    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        // The root is shown as Step Functions shows it, because an empty place reads as a mistake.
        let pointer = if self.pointer.is_empty() {
            "/"
        } else {
            &self.pointer
        };
        Some(Box::new(format!("{} at {pointer}", self.code)))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_with_span(Some(self.label.clone()), self.span);
        Some(Box::new(std::iter::once(label)))
    }
}

/// All problems of a document, with its text.
#[derive(Clone, Debug)]
pub struct Report {
    source: NamedSource<Arc<str>>,
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn new(file_name: &str, text: Arc<str>, mut diagnostics: Vec<Diagnostic>) -> Self {
        // In the order of the text, whatever the order in which the checks ran.
        diagnostics.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.span.end));
        Self {
            source: NamedSource::new(file_name, text),
            diagnostics,
        }
    }

    /// Name of the document's file.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.source.name()
    }

    /// The problems, in the order of the text.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let errors = self.count(Severity::Error);
        let warnings = self.count(Severity::Warning);
        write!(f, "{}: ", self.file_name())?;
        match (errors, warnings) {
            (0, _) => f.write_str(&counted(warnings, "warning")),
            (_, 0) => f.write_str(&counted(errors, "error")),
            _ => write!(
                f,
                "{}, {}",
                counted(errors, "error"),
                counted(warnings, "warning")
            ),
        }
    }
}

impl std::error::Error for Report {}

impl miette::Diagnostic for Report {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.count(Severity::Error) {
            0 => miette::Severity::Warning,
            _ => miette::Severity::Error,
        })
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        Some(Box::new(
            self.diagnostics
                .iter()
                .map(|one| one as &dyn miette::Diagnostic),
        ))
    }
}

/// Where the lines of a text begin.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    text: Arc<str>,
    starts: Vec<usize>,
}

impl Lines {
    pub(super) fn of(text: Arc<str>) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0)
            .chain(breaks.map(|(at, _)| at + 1))
            .collect();
        Self { text, starts }
    }

    pub(super) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Line and column, both from 1, the column in characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= byte).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self
            .text
            .get(start..byte.min(self.text.len()))
            .unwrap_or("");
        (line, before.chars().count() + 1)
    }

    pub(super) fn diagnostic(
        &self,
        code: &'static str,
        severity: Severity,
        pointer: String,
        span: Span,
        message: String,
    ) -> Diagnostic {
        let (line, column) = self.position(span.start);
        Diagnostic {
            code,
            severity,
            message,
            help: None,
            pointer,
            span,
            line,
            column,
            label: "here".to_owned(),
        }
    }
}
