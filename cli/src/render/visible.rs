//! Texts of others, made harmless: a key, an error's cause or a dead letter's body may hold what a terminal
//! takes for a command, or what looks like a row of its own.

use comfy_table::Cell;
use std::fmt::{Display, Write as _};

/// The text on one line, with everything escaped that a terminal does not show as it is.
pub(crate) fn visible(text: impl Display) -> String {
    let text = text.to_string();
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_visible(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_default());
        }
    }
    shown
}

/// The same for a text of several lines, which stay.
pub(super) fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// A JSON document, with everything escaped within its texts that JSON lets through and a terminal does not
/// show. It says the same as before.
pub(super) fn visible_json(document: &str) -> String {
    let mut shown = String::with_capacity(document.len());
    for character in document.chars() {
        if is_visible(character) || character == '\n' {
            shown.push(character);
        } else {
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        }
    }
    shown
}

/// A cell for a text of others.
pub(super) fn cell(text: impl Display) -> Cell {
    Cell::new(visible(text))
}

/// One word of a command that a shell takes as it is.
pub(crate) fn quoted(word: impl Display) -> String {
    let word = word.to_string();
    match shlex::try_quote(&word) {
        Ok(quoted) => visible(quoted),
        // No command line holds a NUL.
        Err(_) => visible(word),
    }
}

/// Neither a control character (C0, DEL, C1), nor one that separates lines or turns their direction
/// (Unicode, UAX #9).
fn is_visible(character: char) -> bool {
    let turns_or_breaks = matches!(
        character,
        '\u{061c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    );
    !character.is_control() && !turns_or_breaks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        for (text, shown) in [
            ("Zoë – 日本 \\ '", "Zoë – 日本 \\ '"),
            ("\u{1b}]0;TITLE\u{7}", "\\u{1b}]0;TITLE\\u{7}"),
            ("a\r\nrow\tb", "a\\r\\nrow\\tb"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            (
                "\u{202e}txt\u{2066}\u{2028}",
                "\\u{202e}txt\\u{2066}\\u{2028}",
            ),
        ] {
            assert_eq!(visible(text), shown);
            assert_eq!(visible(shown), shown, "twice is once");
        }
        assert_eq!(visible_lines("a\n\u{1b}b\n"), "a\n\\u{1b}b\n");
    }

    #[test]
    fn json_stays_what_it_says() {
        let value = serde_json::json!({"k": "\u{1b}\u{9b}\u{7f}\u{202e}\n"});
        let document = visible_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(
            document.chars().all(|it| is_visible(it) || it == '\n'),
            "{document}"
        );
        let read: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn a_hint_can_be_pasted_whatever_the_key_is() {
        assert_eq!(quoted("o-1"), "o-1");
        assert_eq!(quoted("a b;$(x)"), "'a b;$(x)'");
        assert_eq!(quoted("it's"), "\"it's\"");
        assert_eq!(quoted("a\0b"), "a\\u{0}b");
    }
}
