//! The NATS headers that Dirigent reads and writes.

/// W3C trace context of the cause of a message (<https://www.w3.org/TR/trace-context/>).
pub const TRACE_PARENT: &str = "traceparent";
/// Vendor part of the W3C trace context, carried on unread.
pub const TRACE_STATE: &str = "tracestate";
/// JetStream's deduplication id.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// JetStream stores the message only if its subject's last sequence is this one.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// The subject that [`EXPECTED_LAST_SUBJECT_SEQUENCE`] is about, if it is not the message's own.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT: &str =
    "Nats-Expected-Last-Subject-Sequence-Subject";
/// Media type of the body, as CloudEvents' NATS binding names it.
pub const CONTENT_TYPE: &str = "content-type";
/// The saga key that an event carries, where the event itself has no place for it.
pub const KEY: &str = "Dirigent-Key";
/// Why a message is a dead letter, for people.
pub const DEAD_REASON: &str = "Dirigent-Dead-Reason";
/// Stands at a dead letter that was kept without its message's body, which did not fit.
pub const DEAD_WITHOUT_BODY: &str = "Dirigent-Dead-Without-Body";
/// The subject on which a dead letter came.
pub const DEAD_SUBJECT: &str = "Dirigent-Dead-Subject";
/// The name of a message's body in the bucket [`crate::subject::PAYLOADS_BUCKET`], where the message itself has
/// none: its SHA-256, as 64 lower-case hexadecimal digits.
pub const PAYLOAD: &str = "Dirigent-Payload";
/// The stream and sequence of a dead letter, `<stream>/<sequence>`.
pub const DEAD_SOURCE: &str = "Dirigent-Dead-Source";
/// An error that ended an API request: a number as HTTP counts them (the NATS services protocol).
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// An error that ended an API request: the text.
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// In how many seconds a request that was refused for now may be made again (as HTTP's, RFC 9110, 10.2.3).
pub const RETRY_AFTER: &str = "Retry-After";

/// W3C trace context of a message: who caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TraceContext {
    /// Identity of the whole trace; never zero.
    pub trace: u128,
    /// The span that caused the message; never zero.
    pub span: u64,
    /// Whether the trace is recorded: the sampling decision of whoever started it.
    pub sampled: bool,
}

impl TraceContext {
    /// Parses `traceparent`, version 00. `None` if it is malformed, as the specification says: such a
    /// header is ignored, never an error.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_lower_hex =
            |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let has_form = version.len() == 2
            && version != "ff"
            && trace.len() == 32
            && span.len() == 16
            && flags.len() == 2
            && [version, trace, span, flags].into_iter().all(is_lower_hex)
            && (version != "00" || parts.next().is_none());
        if !has_form {
            return None;
        }
        let context = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }

    /// The header's text.
    #[must_use]
    pub fn to_header(self) -> String {
        format!(
            "00-{:032x}-{:016x}-{:02x}",
            self.trace,
            self.span,
            u8::from(self.sampled)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_survives_its_header() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(header).unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_header(), header);
    }

    #[test]
    fn a_malformed_trace_context_is_ignored() {
        for header in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header:?} was accepted");
        }
    }
}
