//! How values become text in JSONPath mode: compact JSON for `States.JsonToString`, plain text for `States.Format`.
//! Both follow what the recorded runs show: numbers as Java prints them, and maps inside a text as `{a=1, b=2}`.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use serde_json::{Number, Value};

/// The compact JSON text of a value.
pub(crate) fn json_text(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, JavaNumbers);
    // Writing a `Value` into a vector cannot fail, and what was written is UTF-8.
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// The text that stands for a value inside `States.Format`.
pub(crate) fn plain_text(value: &Value) -> String {
    let mut text = String::new();
    write_plain(value, &mut text);
    text
}

fn write_plain(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&number_text(number)),
        Value::String(string) => text.push_str(string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                write_plain(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            for (index, (name, field)) in fields.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                text.push_str(name);
                text.push('=');
                write_plain(field, text);
            }
            text.push('}');
        }
    }
}

fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => java_double(float),
        _ => number.to_string(),
    }
}

/// A double as Java prints it: at least one digit after the point, and an exponent outside of `[1e-3, 1e7)`.
fn java_double(number: f64) -> String {
    let magnitude = number.abs();
    let mut text = String::new();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{number:?}");
    } else {
        let _ = write!(text, "{number:E}");
        if let Some(exponent) = text.find('E')
            && !text[..exponent].contains('.')
        {
            text.insert_str(exponent, ".0");
        }
    }
    text
}

/// `serde_json`'s compact layout with Java's way of writing doubles and control characters.
struct JavaNumbers;

impl Formatter for JavaNumbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(java_double(value).as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => writer.write_all(b"\\\\"),
            CharEscape::Solidus => writer.write_all(b"/"),
            CharEscape::Backspace => writer.write_all(b"\\b"),
            CharEscape::FormFeed => writer.write_all(b"\\f"),
            CharEscape::LineFeed => writer.write_all(b"\\n"),
            CharEscape::CarriageReturn => writer.write_all(b"\\r"),
            CharEscape::Tab => writer.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(writer, "\\u{byte:04X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_format_argument_prints_like_a_java_value() {
        for (value, expected) in [
            (json!(null), "null"),
            (json!("text"), "text"),
            (json!(1), "1"),
            (json!(1.1), "1.1"),
            (json!(1.0), "1.0"),
            (json!(1e10), "1.0E10"),
            (json!(1.25e-5), "1.25E-5"),
            (json!([1, "a", null]), "[1, a, null]"),
            (json!({"Id": "x", "Name": {"a": []}}), "{Id=x, Name={a=[]}}"),
        ] {
            assert_eq!(plain_text(&value), expected);
        }
    }

    #[test]
    fn json_text_is_compact() {
        assert_eq!(
            json_text(&json!({"Arg1": 1, "Arg2": [], "a": "x\"y\u{1f}é/"})),
            r#"{"Arg1":1,"Arg2":[],"a":"x\"y\u001Fé/"}"#
        );
        assert_eq!(
            json_text(&json!([1.0, 1e22, null, true])),
            "[1.0,1.0E22,null,true]"
        );
    }
}
