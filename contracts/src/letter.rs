//! Dead letters: what is kept of a message that could not be understood, so that people can look at it and publish
//! it again.
//!
//! A letter is the message with further headers. What does not fit into a message any more, with those, is kept
//! without its body: the letter says where that stands.

use crate::{header, limit};

/// A message that could not be understood.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The subject on which it came.
    pub subject: &'a str,
    /// Where it stands: `<stream>/<sequence>`.
    pub source: &'a str,
    /// Why it could not be understood, for people.
    pub reason: &'a str,
}

impl Letter<'_> {
    /// The headers that make a letter of the message.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        vec![
            (header::DEAD_SUBJECT, self.subject.to_owned()),
            (header::DEAD_SOURCE, self.source.to_owned()),
            (header::DEAD_REASON, line(self.reason)),
        ]
    }

    /// The headers of a letter that is to be kept without the message's body and headers.
    #[must_use]
    pub fn headers_without_body(&self) -> Vec<(&'static str, String)> {
        let reason = format!(
            "{} (too large for a letter: it stands in {})",
            line(self.reason),
            self.source
        );
        let mut headers = self.headers();
        headers.retain(|(name, _)| *name != header::DEAD_REASON);
        headers.push((header::DEAD_REASON, reason));
        headers.push((header::DEAD_WITHOUT_BODY, "true".to_owned()));
        headers
    }
}

/// Whether a header belongs to a message wherever it is stored: to its letter too, and to what is published again.
/// The broker's are for one delivery, a letter's own for one letter.
#[must_use]
pub fn is_of_message(name: &str) -> bool {
    !name.starts_with("Nats-") && !is_of_letter(name)
}

/// Whether a header makes a letter of a message.
#[must_use]
pub fn is_of_letter(name: &str) -> bool {
    [
        header::DEAD_REASON,
        header::DEAD_SUBJECT,
        header::DEAD_SOURCE,
        header::DEAD_WITHOUT_BODY,
    ]
    .contains(&name)
}

/// A reason as a header can hold it: on one line, and not too long.
fn line(reason: &str) -> String {
    let lines = reason.split(['\r', '\n']).map(str::trim);
    let mut line = lines.collect::<Vec<_>>().join(" ");
    if line.len() > limit::DEAD_REASON_BYTES {
        line.truncate(line.floor_char_boundary(limit::DEAD_REASON_BYTES));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(headers: &[(&str, String)]) -> String {
        let mut headers = headers.iter();
        let found = headers.find(|(name, _)| *name == header::DEAD_REASON);
        found.unwrap().1.clone()
    }

    fn letter(reason: &str) -> Letter<'_> {
        Letter {
            subject: "orders",
            source: "ORDERS/7",
            reason,
        }
    }

    #[test]
    fn a_reason_is_one_line_that_a_header_can_hold() {
        let headers = letter("one\r\n  two").headers();
        assert_eq!(reason(&headers), "one  two");
        let long = "é".repeat(100_000);
        let cut = reason(&letter(&long).headers());
        assert!(cut.len() <= limit::DEAD_REASON_BYTES + '…'.len_utf8());
        assert!(cut.ends_with("é…"), "{cut}");
    }

    #[test]
    fn a_letter_without_its_body_says_where_that_stands() {
        let headers = letter("why").headers_without_body();
        assert_eq!(
            reason(&headers),
            "why (too large for a letter: it stands in ORDERS/7)"
        );
        assert!(headers.iter().all(|(name, _)| is_of_letter(name)));
        assert!(is_of_message(header::PAYLOAD) && !is_of_message(header::MESSAGE_ID));
    }
}
