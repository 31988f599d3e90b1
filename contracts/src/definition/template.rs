//! Values that may hold expressions: payload templates, JSONata strings, paths, `Assign`.
//!
//! Only the form is checked here, as far as one sees it without the languages' grammars: the braces
//! of `{% %}`, the `$` of a path, the names of variables. The coordinator compiles the rest.

use super::{
    model::{PathField, Quantity, QueryLanguage, Text},
    node::Content,
    place::{Place, Problems},
};
use serde_json::Value;
use std::{collections::HashSet, ops::RangeInclusive};

/// Longest name of a variable, in characters.
const VARIABLE_NAME_CHARS: usize = 80;

/// How a string looks to JSONata mode.
#[derive(Debug, PartialEq, Eq)]
enum Braces<'t> {
    /// `{% ... %}`: what stands inside, without the blanks around it.
    Expression(&'t str),
    /// No expression.
    Text,
    /// One brace is missing, or something stands outside.
    Unbalanced,
}

fn braces(text: &str) -> Braces<'_> {
    let is_whole = text.len() >= 4 && text.starts_with("{%") && text.ends_with("%}");
    if is_whole {
        return Braces::Expression(text[2..text.len() - 2].trim());
    }
    if text.starts_with("{%") || text.ends_with("%}") {
        Braces::Unbalanced
    } else {
        Braces::Text
    }
}

fn is_intrinsic(text: &str) -> bool {
    text.starts_with("States.") && text.contains('(') && text.trim_end().ends_with(')')
}

impl Problems {
    /// The expression in `{% %}`; `None` if the string is none, and says so if it is half of one.
    fn jsonata<'t>(&mut self, place: &Place<'_>, text: &'t str) -> Option<&'t str> {
        match braces(text) {
            Braces::Expression("") => {
                self.error(
                    "jsonata-braces",
                    place,
                    "there is no expression between `{%` and `%}`",
                )
                .label("empty");
                Some("")
            }
            Braces::Expression(source) => Some(source),
            Braces::Unbalanced => {
                self.error(
                    "jsonata-braces",
                    place,
                    "an expression is the whole string, from `{%` to `%}`",
                )
                .label("not a whole expression")
                .help("write \"{% expression %}\" with nothing before or after it");
                None
            }
            Braces::Text => {
                if text.contains("{%") {
                    self.warning(
                        "jsonata-braces",
                        place,
                        "`{%` inside a text is taken as it stands",
                    )
                    .label("no expression")
                    .help("write the whole string as an expression: \"{% 'text ' & $x %}\"");
                }
                None
            }
        }
    }

    /// A string that must be an expression, whatever the query language: its source.
    pub(super) fn expression(&mut self, place: &Place<'_>) -> Option<String> {
        let text = self.string(place)?;
        let before = self.count();
        match self.jsonata(place, text) {
            Some(source) => return Some(source.to_owned()),
            None if self.count() > before => {}
            None => {
                self.error(
                    "not-an-expression",
                    place,
                    format!("{} must be JSONata", place.name()),
                )
                .label("a plain text")
                .help("write it as \"{% expression %}\"");
            }
        }
        None
    }

    /// A template of the given language: any JSON, with expressions in it.
    pub(super) fn template(&mut self, place: &Place<'_>, language: QueryLanguage) -> Value {
        match language {
            QueryLanguage::Jsonata => self.jsonata_template(place),
            QueryLanguage::JsonPath => self.path_template(place),
        }
        place.node.to_json()
    }

    /// A template that must be an object, or in JSONata mode an expression for one.
    pub(super) fn object_template(&mut self, place: &Place<'_>, language: QueryLanguage) -> Value {
        let is_expression =
            language == QueryLanguage::Jsonata && matches!(place.node.content, Content::String(_));
        if is_expression {
            let _ = self.expression(place);
            return place.node.to_json();
        }
        if !matches!(place.node.content, Content::Null) {
            self.is_object(place);
        }
        self.template(place, language)
    }

    fn jsonata_template(&mut self, place: &Place<'_>) {
        if let Content::String(text) = &place.node.content {
            self.jsonata(place, text);
        }
        for (field, value) in place.fields() {
            if field.key.ends_with(".$") {
                self.warning(
                    "path-in-jsonata",
                    &value,
                    format!(
                        "`{}` is a plain name in JSONata mode, not a path",
                        field.key
                    ),
                )
                .label("taken as it stands")
                .help(format!(
                    "write `{}` with an expression: \"{{% $states.input... %}}\"",
                    field.key.trim_end_matches(".$")
                ));
            }
            self.jsonata_template(&value);
        }
        for item in place.items() {
            self.jsonata_template(&item);
        }
    }

    fn path_template(&mut self, place: &Place<'_>) {
        let mut names = HashSet::new();
        for (field, value) in place.fields() {
            let computed = field.key.strip_suffix(".$");
            if !names.insert(computed.unwrap_or(&field.key)) {
                self.misplaced(
                    "duplicate-field",
                    &value,
                    format!(
                        "`{}` is given twice, with and without `.$`",
                        computed.unwrap_or(&field.key)
                    ),
                );
            }
            if computed.is_some() {
                self.path_or_intrinsic(&value);
            } else {
                self.path_template(&value);
            }
        }
        for item in place.items() {
            self.path_template(&item);
        }
        if let Content::String(text) = &place.node.content
            && matches!(braces(text), Braces::Expression(_))
        {
            self.warning(
                "jsonata-in-path",
                place,
                "in JSONPath mode this is a plain text",
            )
            .label("taken as it stands")
            .help("set `QueryLanguage: JSONata` on the state or on the document");
        }
    }

    /// A path or a call of an intrinsic function.
    pub(super) fn path_or_intrinsic(&mut self, place: &Place<'_>) -> String {
        let Some(text) = self.string(place) else {
            return String::new();
        };
        if !(text.starts_with('$') || is_intrinsic(text)) {
            self.error(
                "not-a-path",
                place,
                format!(
                    "{} must be a path or a call of an intrinsic function",
                    place.name()
                ),
            )
            .label("neither of both")
            .help(
                "a path begins with `$`, such as `$.order.id`; a call is such as `States.UUID()`",
            );
        }
        text.to_owned()
    }

    /// A path.
    pub(super) fn path(&mut self, place: &Place<'_>) -> String {
        let Some(text) = self.string(place) else {
            return String::new();
        };
        if !text.starts_with('$') {
            self.error(
                "not-a-path",
                place,
                format!("{} must be a path", place.name()),
            )
            .label("not a path")
            .help(format!(
                "a path begins with `$`, such as `$.{}`",
                text.trim_matches('.')
            ));
        }
        text.to_owned()
    }

    /// A path to one value. `with_context`: of the context object, too.
    pub(super) fn reference_path(&mut self, place: &Place<'_>, with_context: bool) -> String {
        let path = self.path(place);
        let is_of_context = path.starts_with("$$") && !with_context;
        if path.starts_with('$') && (is_of_context || is_wide(&path)) {
            let message = format!("{} must be a reference path", place.name());
            let label = if is_of_context {
                "leads into the context object"
            } else {
                "may select more than one value"
            };
            self.error("not-a-reference-path", place, message)
                .label(label)
                .help("a reference path names one value of the input, such as `$.order.items[0]`");
        }
        path
    }

    /// A path that may be `null`.
    pub(super) fn path_field(&mut self, place: Option<Place<'_>>) -> PathField {
        match place {
            None => PathField::Absent,
            Some(place) if place.node.content == Content::Null => PathField::Null,
            Some(place) => PathField::Path(self.path(&place)),
        }
    }

    /// `ResultPath`: a reference path into the input, or `null`.
    pub(super) fn result_path(&mut self, place: Option<Place<'_>>) -> PathField {
        match place {
            None => PathField::Absent,
            Some(place) if place.node.content == Content::Null => PathField::Null,
            Some(place) => {
                let path = self.reference_path(&place, false);
                let begins_at_input =
                    path == "$" || path.starts_with("$.") || path.starts_with("$[");
                if path.starts_with('$') && !path.starts_with("$$") && !begins_at_input {
                    self.error(
                        "not-a-reference-path",
                        &place,
                        "`ResultPath` must lead into the input",
                    )
                    .label("leads into a variable")
                    .help("use `Assign` to set a variable");
                }
                PathField::Path(path)
            }
        }
    }

    /// A number: written out, or an expression in JSONata mode.
    pub(super) fn quantity(
        &mut self,
        place: &Place<'_>,
        language: QueryLanguage,
        range: RangeInclusive<u64>,
    ) -> Quantity {
        self.expression_quantity(place, language)
            .unwrap_or_else(|| {
                // Definitions count far below the 2^53 that a double tells apart.
                #[expect(clippy::cast_precision_loss, reason = "see above")]
                let value = self.integer(place, range).unwrap_or_default() as f64;
                Quantity::Literal(value)
            })
    }

    /// A percentage: written out, or an expression in JSONata mode.
    pub(super) fn percentage(&mut self, place: &Place<'_>, language: QueryLanguage) -> Quantity {
        self.expression_quantity(place, language)
            .unwrap_or_else(|| {
                Quantity::Literal(self.number(place, 0.0..=100.0).unwrap_or_default())
            })
    }

    fn expression_quantity(
        &mut self,
        place: &Place<'_>,
        language: QueryLanguage,
    ) -> Option<Quantity> {
        let is_expression =
            language == QueryLanguage::Jsonata && matches!(place.node.content, Content::String(_));
        is_expression.then(|| Quantity::Expression(self.expression(place).unwrap_or_default()))
    }

    /// A text: written out, or an expression in JSONata mode.
    pub(super) fn text(&mut self, place: &Place<'_>, language: QueryLanguage) -> Text {
        let text = self.string(place).unwrap_or_default();
        if language == QueryLanguage::Jsonata
            && let Some(source) = self.jsonata(place, text)
        {
            return Text::Expression(source.to_owned());
        }
        Text::Literal(text.to_owned())
    }

    /// `Assign`: an object whose fields are variables. `outer` are the variables of the machines
    /// around this one.
    pub(super) fn assign(
        &mut self,
        place: &Place<'_>,
        language: QueryLanguage,
        outer: &[HashSet<String>],
    ) -> Value {
        self.is_object(place);
        for (field, value) in place.fields() {
            let name = variable_name(&field.key, language);
            if name == "states" {
                self.misplaced(
                    "reserved-variable",
                    &value,
                    "`states` is a reserved variable",
                )
                .help("give the variable another name");
            } else if !is_variable_name(name) {
                self.misplaced(
                    "variable-name",
                    &value,
                    format!("`{name}` is not the name of a variable"),
                )
                .help("a name begins with a letter and has letters, digits and `_`, at most 80");
            } else if outer.iter().any(|names| names.contains(name)) {
                self.warning(
                    "variable-of-outer-scope",
                    &value,
                    format!("`{name}` is also a variable of the machine around this one"),
                )
                .label("sets another variable of the same name")
                .help("pass values out through the output, and give this variable another name");
            }
        }
        self.template(place, language)
    }
}

/// True for a path with a wildcard, a descent, a slice, a filter or a list.
fn is_wide(path: &str) -> bool {
    let (mut chars, mut quote, mut last) = (path.chars(), None, ' ');
    while let Some(char) = chars.next() {
        match (quote, char) {
            // Behind a backslash, and in quotes, any character is one of a name.
            (_, '\\') => {
                chars.next();
            }
            (Some(opened), _) if char == opened => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(char),
            (None, '*' | '?' | '@' | ':' | ',') => return true,
            (None, '.') if last == '.' => return true,
            (None, _) => {}
        }
        last = char;
    }
    false
}

/// The variable that a field of `Assign` sets.
pub(super) fn variable_name(key: &str, language: QueryLanguage) -> &str {
    match language {
        QueryLanguage::JsonPath => key.strip_suffix(".$").unwrap_or(key),
        QueryLanguage::Jsonata => key,
    }
}

/// An identifier of Unicode Standard Annex 31.
fn is_variable_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(unicode_ident::is_xid_start)
        && chars.all(unicode_ident::is_xid_continue)
        && name.chars().count() <= VARIABLE_NAME_CHARS
}

/// An instant as the specification wants it: RFC 3339 with an upper-case `T`, and `Z` or an offset.
pub(super) fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let has_shape = bytes.len() > shape.len()
        && shape.iter().zip(bytes).all(|(wanted, found)| match wanted {
            b'd' => found.is_ascii_digit(),
            _ => wanted == found,
        });
    let Some(rest) = text.get(shape.len()..).filter(|_| has_shape) else {
        return false;
    };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    let is_offset = match zone.as_bytes() {
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    };
    (zone == "Z" || is_offset) && crate::time::Timestamp::parse_rfc3339(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_a_whole_string() {
        assert_eq!(braces("{% $x %}"), Braces::Expression("$x"));
        assert_eq!(braces("{%$x%}"), Braces::Expression("$x"));
        assert_eq!(braces("{%%}"), Braces::Expression(""));
        for text in ["{% $x", "$x %}", " {% $x %}", "{% $x %} ", "{%}", "{$x %}"] {
            assert_eq!(braces(text), Braces::Unbalanced, "{text:?}");
        }
        for text in ["", "x", "a {% b %} c", "{ % }", " {% $x %} "] {
            assert_eq!(braces(text), Braces::Text, "{text:?}");
        }
    }

    #[test]
    fn a_reference_path_names_one_place_whatever_the_names_look_like() {
        for path in [
            "$.a.b[0]",
            "$['a:b']",
            r#"$["a:b"]"#,
            r#"$["it's, all"]['"*"']"#,
            r"$['a\'b,c']",
            r"$.foo\@bar.baz\[\[.\?pretty",
        ] {
            assert!(!is_wide(path), "{path}");
        }
        for path in [
            "$..a",
            "$.*",
            "$[0,1]",
            "$[0:1]",
            "$[?(@.a)]",
            "$['a','b']",
            "$['a']..b",
        ] {
            assert!(is_wide(path), "{path}");
        }
    }

    #[test]
    fn only_instants_of_rfc_3339_are_timestamps() {
        for text in [
            "2016-03-14T01:59:00Z",
            "2016-03-14T01:59:00.123456Z",
            "2016-03-14T01:59:00+01:00",
        ] {
            assert!(is_timestamp(text), "{text} was refused");
        }
        for text in [
            "",
            "2016-13-05T21:29:29Z",
            "2016-12-05 21:29:29Z",
            "2016-12-05t21:29:29z",
            "2016-12-05T21:29:29",
            "2016-12-05T21:29:29.Z",
            "2016-12-05T21:29:29+0100",
            "2016-12-05T21:29:29Z[UTC]",
            "2016-12-05",
            "{% $now() %}",
        ] {
            assert!(!is_timestamp(text), "{text} was accepted");
        }
    }

    #[test]
    fn variables_have_names_of_programming_languages() {
        for name in ["x", "orderId", "größe", "x_1", "_x"] {
            let is_fine = is_variable_name(name);
            assert_eq!(is_fine, name != "_x", "{name}");
        }
        for name in ["", "1x", "a-b", "a.b", "$x", &"x".repeat(81)] {
            assert!(!is_variable_name(name), "{name}");
        }
    }
}
