//! Reversible encoding of any text into one token of a NATS subject (and of a KV key).
//!
//! Letters, digits, `-` and `_` stand for themselves; every other byte of the UTF-8 form becomes
//! `=` and two upper-case hexadecimal digits. There is one encoding for each text, and decoding
//! refuses any other spelling, so two tokens are equal exactly when their texts are.

use std::fmt::Write as _;

/// Why a token is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Empty tokens cannot stand in a subject.
    #[error("the token is empty")]
    Empty,
    /// A byte that has to be escaped, or an escape that is not needed or not complete.
    #[error("the token {token:?} is not in canonical form at byte {at}")]
    NotCanonical {
        /// The token as it came.
        token: String,
        /// Byte offset of the fault.
        at: usize,
    },
    /// The escapes decode to bytes that are not UTF-8.
    #[error("the token {token:?} does not decode to UTF-8")]
    NotUtf8 {
        /// The token as it came.
        token: String,
    },
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Encodes `text` into a subject-safe token. An empty text gives an empty token, which no subject
/// can hold: the types in [`crate::id`] refuse empty texts before.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            token.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(token, "={byte:02X}");
        }
    }
    token
}

/// Decodes a token back into its text.
///
/// # Errors
/// If the token is empty, not canonical, or not UTF-8 once decoded.
pub fn decode(token: &str) -> Result<String, TokenError> {
    if token.is_empty() {
        return Err(TokenError::Empty);
    }
    let fault = |at| TokenError::NotCanonical {
        token: token.to_owned(),
        at,
    };
    let bytes = token.as_bytes();
    let mut text = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'=' {
            let digits = bytes.get(at + 1..at + 3).ok_or_else(|| fault(at))?;
            let value = match digits {
                [high, low] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
                _ => None,
            };
            match value {
                Some(byte) if !is_plain(byte) => text.push(byte),
                _ => return Err(fault(at)),
            }
            at += 3;
        } else if is_plain(bytes[at]) {
            text.push(bytes[at]);
            at += 1;
        } else {
            return Err(fault(at));
        }
    }
    String::from_utf8(text).map_err(|_| TokenError::NotUtf8 {
        token: token.to_owned(),
    })
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_texts_have_known_tokens() {
        assert_eq!(encode("order-42"), "order-42");
        assert_eq!(encode("anna@example.org"), "anna=40example=2Eorg");
        assert_eq!(encode("a b.*>="), "a=20b=2E=2A=3E=3D");
        assert_eq!(encode("é"), "=C3=A9");
    }

    #[test]
    fn other_spellings_are_refused() {
        for token in ["", "=", "=4", "=2e", "=41", "a.b", "=FF", "a b", "=+1"] {
            assert!(decode(token).is_err(), "{token:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn any_text_survives(text in ".{1,256}") {
            let token = encode(&text);
            prop_assert!(token.bytes().all(|byte| is_plain(byte) || byte == b'='));
            prop_assert_eq!(decode(&token).unwrap(), text);
        }

        #[test]
        fn whatever_decodes_encodes_back(token in "[a-zA-Z0-9=_.-]{0,40}") {
            if let Ok(text) = decode(&token) {
                prop_assert_eq!(encode(&text), token);
            }
        }
    }
}
