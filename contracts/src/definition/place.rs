//! Reading a tree: a value with its address, and the problems that reading finds.
//!
//! A reader that meets a wrong value reports it and goes on with a harmless one, so that a single
//! pass finds every problem. Such a stand-in never leaves the module: one error refuses the document.

use super::{
    diagnostic::{Diagnostic, Lines, Severity, Span},
    node::{Content, Field, Node, join},
};
use std::ops::RangeInclusive;

/// A value and its address in the document.
#[derive(Clone, Debug)]
pub(super) struct Place<'t> {
    pub(super) node: &'t Node,
    pub(super) pointer: String,
    key: Option<Span>,
}

impl<'t> Place<'t> {
    pub(super) fn root(node: &'t Node) -> Self {
        Self {
            node,
            pointer: String::new(),
            key: None,
        }
    }

    /// The value of a field, if this is an object that has it.
    pub(super) fn get(&self, name: &str) -> Option<Self> {
        self.node.field(name).map(|field| self.child(field))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.node.field(name).is_some()
    }

    /// The fields of an object; none of anything else.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'t Field, Self)> {
        let fields: &'t [Field] = match &self.node.content {
            Content::Object(fields) => fields,
            _ => &[],
        };
        fields.iter().map(|field| (field, self.child(field)))
    }

    /// The items of an array; none of anything else.
    pub(super) fn items(&self) -> Vec<Self> {
        let Content::Array(items) = &self.node.content else {
            return Vec::new();
        };
        let item = |(index, node)| Self {
            node,
            pointer: join(&self.pointer, &format!("{index}")),
            key: None,
        };
        items.iter().enumerate().map(item).collect()
    }

    fn child(&self, field: &'t Field) -> Self {
        Self {
            node: &field.value,
            pointer: join(&self.pointer, &field.key),
            key: Some(field.key_span),
        }
    }

    /// The name of the field that holds the value, or what else it may be called.
    pub(super) fn name(&self) -> String {
        let token = self.pointer.rsplit('/').next().unwrap_or_default();
        if self.pointer.is_empty() {
            "the document".to_owned()
        } else {
            format!("`{}`", token.replace("~1", "/").replace("~0", "~"))
        }
    }

    /// What to point at when the value itself is wrong: a short value, or else its key.
    pub(super) fn value_span(&self) -> Span {
        match &self.node.content {
            Content::Object(_) | Content::Array(_) => self.key_span(),
            _ if self.node.span.start == self.node.span.end => self.key_span(),
            _ => self.node.span,
        }
    }

    /// What to point at when something about the value's place is wrong: its key.
    pub(super) fn key_span(&self) -> Span {
        let first_key = || match &self.node.content {
            Content::Object(fields) => fields.first().map(|field| field.key_span),
            _ => None,
        };
        self.key.or_else(first_key).unwrap_or(self.node.span)
    }
}

/// Collects problems.
#[derive(Debug)]
pub(super) struct Problems {
    lines: Lines,
    found: Vec<Diagnostic>,
}

impl Problems {
    pub(super) fn new(lines: Lines) -> Self {
        Self {
            lines,
            found: Vec::new(),
        }
    }

    /// The problems so far, the warnings apart from the errors.
    pub(super) fn into_parts(self) -> (Lines, Vec<Diagnostic>) {
        (self.lines, self.found)
    }

    /// How many problems there are so far.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// The value at `place` is wrong.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        place: &Place<'_>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let span = place.value_span();
        self.add(
            code,
            Severity::Error,
            place.pointer.clone(),
            span,
            message.into(),
        )
    }

    /// The field at `place` should not stand there.
    pub(super) fn misplaced(
        &mut self,
        code: &'static str,
        place: &Place<'_>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let span = place.key_span();
        self.add(
            code,
            Severity::Error,
            place.pointer.clone(),
            span,
            message.into(),
        )
    }

    /// The value at `place` is hardly what was meant.
    pub(super) fn warning(
        &mut self,
        code: &'static str,
        place: &Place<'_>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let span = place.value_span();
        self.add(
            code,
            Severity::Warning,
            place.pointer.clone(),
            span,
            message.into(),
        )
    }

    pub(super) fn add(
        &mut self,
        code: &'static str,
        severity: Severity,
        pointer: String,
        span: Span,
        message: String,
    ) -> &mut Diagnostic {
        let at = self.found.len();
        self.found.push(
            self.lines
                .diagnostic(code, severity, pointer, span, message),
        );
        &mut self.found[at]
    }

    /// The value has another type than it should have.
    fn wrong_type(&mut self, place: &Place<'_>, expected: &str) {
        let message = format!(
            "{} must be {expected}, not {}",
            place.name(),
            place.node.kind()
        );
        self.error("wrong-type", place, message)
            .label(format!("this is {}", place.node.kind()));
    }

    /// True if the value is an object; says so if it is not.
    pub(super) fn is_object(&mut self, place: &Place<'_>) -> bool {
        let is_object = matches!(place.node.content, Content::Object(_));
        if !is_object {
            self.wrong_type(place, "an object");
        }
        is_object
    }

    /// The items of an array; says so if it is not one.
    pub(super) fn array<'t>(&mut self, place: &Place<'t>) -> Vec<Place<'t>> {
        if !matches!(place.node.content, Content::Array(_)) {
            self.wrong_type(place, "an array");
        }
        place.items()
    }

    /// The items of an array that must have one; says so if it has none.
    pub(super) fn filled_array<'t>(&mut self, place: &Place<'t>) -> Vec<Place<'t>> {
        let items = self.array(place);
        if items.is_empty() && matches!(place.node.content, Content::Array(_)) {
            self.error(
                "empty",
                place,
                format!("{} must not be empty", place.name()),
            )
            .label("needs at least one item");
        }
        items
    }

    /// The text of a string; says so if it is not one.
    pub(super) fn string<'t>(&mut self, place: &Place<'t>) -> Option<&'t str> {
        let text = place.node.as_str();
        if text.is_none() {
            self.wrong_type(place, "a string");
        }
        text
    }

    /// A boolean; says so if it is not one.
    pub(super) fn boolean(&mut self, place: &Place<'_>) -> bool {
        if let Content::Bool(value) = place.node.content {
            value
        } else {
            self.wrong_type(place, "true or false");
            false
        }
    }

    /// A whole number in `range`; says so if it is not one.
    pub(super) fn integer(&mut self, place: &Place<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let Content::Number(number) = &place.node.content else {
            self.wrong_type(place, "a whole number");
            return None;
        };
        let value = number.as_u64();
        if value.is_some_and(|value| range.contains(&value)) {
            return value;
        }
        let bounds = match *range.end() {
            u64::MAX => format!("of at least {}", range.start()),
            end => format!("from {} to {end}", range.start()),
        };
        self.error(
            "out-of-range",
            place,
            format!("{} must be a whole number {bounds}", place.name()),
        )
        .label(format!("{number} is not"));
        None
    }

    /// A number in `range`; says so if it is not one.
    pub(super) fn number(&mut self, place: &Place<'_>, range: RangeInclusive<f64>) -> Option<f64> {
        let Content::Number(number) = &place.node.content else {
            self.wrong_type(place, "a number");
            return None;
        };
        let value = number.as_f64().filter(|value| range.contains(value));
        if value.is_none() {
            let bounds = if range.end().is_finite() {
                format!("from {} to {}", range.start(), range.end())
            } else {
                format!("of at least {}", range.start())
            };
            self.error(
                "out-of-range",
                place,
                format!("{} must be a number {bounds}", place.name()),
            )
            .label(format!("{number} is not"));
        }
        value
    }

    /// A string that is one of `allowed`; says so if it is not.
    pub(super) fn word<'t>(&mut self, place: &Place<'t>, allowed: &[&str]) -> Option<&'t str> {
        let text = self.string(place)?;
        if allowed.contains(&text) {
            return Some(text);
        }
        let message = format!(
            "{} must be {}, not `{text}`",
            place.name(),
            choices(allowed)
        );
        let found = self.error("unknown-value", place, message);
        if let Some(near) = nearest(text, allowed.iter().copied()) {
            found.help(format!("did you mean `{near}`?"));
        }
        None
    }

    /// Something has no `name` and needs it.
    pub(super) fn missing(&mut self, place: &Place<'_>, name: &str, what: &str) -> &mut Diagnostic {
        let span = place.key_span();
        let message = format!("{what} needs the field `{name}`");
        self.add(
            "missing-field",
            Severity::Error,
            place.pointer.clone(),
            span,
            message,
        )
        .label(format!("has no `{name}`"))
    }

    /// The value of a field that must be there.
    pub(super) fn required<'t>(
        &mut self,
        place: &Place<'t>,
        name: &str,
        what: &str,
    ) -> Option<Place<'t>> {
        let value = place.get(name);
        if value.is_none() {
            self.missing(place, name, what);
        }
        value
    }

    /// Every field of the object must be one of `known`.
    pub(super) fn known_fields(&mut self, place: &Place<'_>, known: &[&str], what: &str) {
        for (field, value) in place.fields() {
            if !known.contains(&field.key.as_str()) {
                self.unknown_field(&value, &field.key, known, what);
            }
        }
    }

    pub(super) fn unknown_field(
        &mut self,
        place: &Place<'_>,
        name: &str,
        known: &[&str],
        what: &str,
    ) -> &mut Diagnostic {
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("{what} may have {}", listed(known)),
        };
        self.misplaced(
            "unknown-field",
            place,
            format!("{what} has no field `{name}`"),
        )
        .label("unknown field")
        .help(help)
    }

    /// At most one of `names` may stand in the object.
    pub(super) fn at_most_one(&mut self, place: &Place<'_>, names: &[&str]) {
        let given: Vec<_> = names.iter().filter_map(|name| place.get(name)).collect();
        if let [first, .., last] = given.as_slice() {
            let message = format!("only one of {} may be given", listed(names));
            self.misplaced("exclusive-fields", last, message)
                .label(format!("{} is given already", first.name()));
        }
    }
}

/// The candidate that was probably meant.
pub fn nearest<'c>(text: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let wanted = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| {
            // Two of three letters must be right, or the suggestion is noise.
            *distance * 3 <= candidate.chars().count().max(wanted.chars().count())
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` and `c` ``
pub(super) fn listed(names: &[&str]) -> String {
    joined(names, "and")
}

/// `` `a`, `b` or `c` ``
pub(super) fn choices(names: &[&str]) -> String {
    joined(names, "or")
}

fn joined(names: &[&str], word: &str) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}
