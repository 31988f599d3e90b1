//! Events from outside and to outside: CloudEvents 1.0 and plain JSON on NATS subjects.
//!
//! Taken in: the structured and the binary mode of the CloudEvents NATS binding
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/nats-protocol-binding.md>),
//! and any other JSON, which is an event with that data. Sent out: structured mode.

use crate::{header, header::TraceContext, limit, time::Timestamp};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Media type of a structured CloudEvent in JSON.
const STRUCTURED: &str = "application/cloudevents+json";
/// What the headers of a binary CloudEvent begin with.
const BINARY_PREFIX: &str = "ce-";

/// Why a message is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// It is too large.
    #[error("the event has {0} bytes, at most {most} fit", most = limit::LARGEST_PAYLOAD_BYTES)]
    TooLarge(usize),
    /// It says that it is a CloudEvent, and what makes it the same one is too long.
    #[error("the CloudEvent's `{0}` has {1} bytes, at most {most} fit", most = limit::EVENT_ID_BYTES)]
    Long(&'static str, usize),
    /// It is not JSON.
    #[error("the event is not JSON: {0}")]
    NotJson(String),
    /// It says that it is a CloudEvent, and is none.
    #[error("the CloudEvent has no `{0}`")]
    Lacks(&'static str),
}

/// An event that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The NATS subject on which it came.
    pub nats_subject: String,
    /// CloudEvents `id`.
    pub id: Option<String>,
    /// CloudEvents `type`.
    pub kind: Option<String>,
    /// CloudEvents `source`.
    pub source: Option<String>,
    /// CloudEvents `subject`.
    pub subject: Option<String>,
    /// CloudEvents `time`.
    pub time: Option<String>,
    /// The other attributes of the CloudEvent.
    pub extensions: Map<String, Value>,
    /// Its data.
    pub data: Arc<Value>,
    /// The saga key that it carries in the header [`header::KEY`].
    header_key: Option<String>,
    trace: Option<TraceContext>,
}

impl Event {
    /// Reads an event. `headers` are the message's, names in any case.
    ///
    /// # Errors
    /// If it is none, with the reason for an operator.
    pub fn parse(
        subject: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<Self, EventError> {
        if body.len() > limit::LARGEST_PAYLOAD_BYTES {
            return Err(EventError::TooLarge(body.len()));
        }
        let header = |wanted: &str| {
            let found = headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.as_str())
        };
        let content_type = header(header::CONTENT_TYPE).unwrap_or_default();
        let mut event = Self {
            nats_subject: subject.to_owned(),
            id: None,
            kind: None,
            source: None,
            subject: None,
            time: None,
            extensions: Map::new(),
            data: Arc::default(),
            header_key: header(header::KEY).map(str::to_owned),
            trace: header(header::TRACE_PARENT).and_then(TraceContext::parse),
        };
        let is_json_type = content_type.is_empty() || content_type.contains("json");
        if header("ce-specversion").is_some() {
            for (name, value) in headers {
                let name = name.to_ascii_lowercase();
                if let Some(name) = name.strip_prefix(BINARY_PREFIX) {
                    event.attribute(name, Value::String(percent_decoded(value)));
                }
            }
            event.data = Arc::new(if body.is_empty() {
                Value::Null
            } else if is_json_type {
                json_of(body)?
            } else {
                opaque(body)
            });
            return event.checked();
        }
        let value = if body.is_empty() {
            Value::Null
        } else {
            json_of(body)?
        };
        match value {
            Value::Object(fields)
                if content_type.starts_with(STRUCTURED) || is_cloud_event(&fields) =>
            {
                event.structured(fields)?;
                event.checked()
            }
            data => {
                event.data = Arc::new(data);
                Ok(event)
            }
        }
    }

    fn structured(&mut self, fields: Map<String, Value>) -> Result<(), EventError> {
        for (name, value) in fields {
            match name.as_str() {
                "data" => self.data = Arc::new(value),
                "data_base64" => {
                    let text = value.as_str().ok_or(EventError::Lacks("data_base64"))?;
                    // Bytes are no JSON: they stay the text that they came as.
                    self.data = Arc::new(Value::String(text.to_owned()));
                }
                _ => self.attribute(&name, value),
            }
        }
        Ok(())
    }

    fn attribute(&mut self, name: &str, value: Value) {
        let text = || value.as_str().map(str::to_owned);
        match name {
            "id" => self.id = text(),
            "type" => self.kind = text(),
            "source" => self.source = text(),
            "subject" => self.subject = text(),
            "time" => self.time = text(),
            "specversion" | "datacontenttype" => {}
            "traceparent" => {
                self.trace = self
                    .trace
                    .or_else(|| value.as_str().and_then(TraceContext::parse));
            }
            _ => {
                self.extensions.insert(name.to_owned(), value);
            }
        }
    }

    fn checked(self) -> Result<Self, EventError> {
        for (name, value) in [("id", &self.id), ("source", &self.source)] {
            let length = value.as_ref().map_or(0, String::len);
            if length > limit::EVENT_ID_BYTES {
                return Err(EventError::Long(name, length));
            }
        }
        for (name, value) in [
            ("id", &self.id),
            ("type", &self.kind),
            ("source", &self.source),
        ] {
            if value.as_ref().is_none_or(String::is_empty) {
                return Err(EventError::Lacks(name));
            }
        }
        Ok(self)
    }

    /// The saga key that the event itself carries: the header [`header::KEY`], else the CloudEvents
    /// extension `partitionkey`, else its `subject`.
    #[must_use]
    pub fn own_key(&self) -> Option<&str> {
        let extension = self.extensions.get("partitionkey").and_then(Value::as_str);
        self.header_key
            .as_deref()
            .or(extension)
            .or(self.subject.as_deref())
    }

    /// The trace that the event belongs to.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// What expressions see as `$event`: `data`, `id`, `type`, `source`, `subject`, `time`, the
    /// CloudEvents extensions under `extensions`, and the NATS subject as `nats`.
    #[must_use]
    pub fn to_expression_value(&self) -> Value {
        let mut value = json!({ "data": *self.data, "nats": self.nats_subject });
        let attributes = [
            ("id", &self.id),
            ("type", &self.kind),
            ("source", &self.source),
            ("subject", &self.subject),
            ("time", &self.time),
        ];
        for (name, attribute) in attributes {
            if let Some(attribute) = attribute {
                value[name] = json!(attribute);
            }
        }
        if !self.extensions.is_empty() {
            value["extensions"] = Value::Object(self.extensions.clone());
        }
        value
    }
}

fn is_cloud_event(fields: &Map<String, Value>) -> bool {
    fields.get("specversion").is_some_and(Value::is_string)
        && ["id", "type", "source"]
            .iter()
            .all(|name| fields.contains_key(*name))
}

fn json_of(body: &[u8]) -> Result<Value, EventError> {
    // serde_json bounds the nesting at limit::DEPTH levels.
    serde_json::from_slice(body).map_err(|error| EventError::NotJson(error.to_string()))
}

/// Data of another media type: text as it is.
fn opaque(body: &[u8]) -> Value {
    Value::String(String::from_utf8_lossy(body).into_owned())
}

/// The binding escapes what a header cannot hold as `%HH`.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

/// An event that Dirigent sends.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudEvent {
    /// Identity; a second event with it is the same one.
    pub id: String,
    /// Who sends it.
    pub source: String,
    /// Its `type`.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// When it happened.
    pub time: Timestamp,
    /// The saga key, for whoever starts or continues a saga with it.
    pub partition_key: String,
    /// Its data.
    pub data: Arc<Value>,
}

impl CloudEvent {
    /// Media type of [`Self::to_json`].
    pub const CONTENT_TYPE: &str = STRUCTURED;

    /// The event in structured mode.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let value = json!({
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.kind,
            "subject": self.subject,
            "time": self.time.to_rfc3339(),
            "partitionkey": self.partition_key,
            "datacontenttype": "application/json",
            "data": *self.data,
        });
        value.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn plain_json_is_an_event_with_that_data() {
        let event = Event::parse("orders.placed", &[], br#"{"order": 7}"#).unwrap();
        assert_eq!(*event.data, json!({"order": 7}));
        assert_eq!(event.own_key(), None);
        assert_eq!(event.to_expression_value()["nats"], "orders.placed");
        let keyed = Event::parse("x", &headers(&[("dirigent-key", "k")]), b"").unwrap();
        assert_eq!(keyed.own_key(), Some("k"));
    }

    #[test]
    fn what_is_sent_is_understood() {
        let sent = CloudEvent {
            id: "e-1".into(),
            source: "/dirigent/order".into(),
            kind: "orders.completed".into(),
            subject: "o-1".into(),
            time: Timestamp(1_700_000_000_000_000),
            partition_key: "o-1".into(),
            data: Arc::new(json!({"a": 1})),
        };
        let typed = headers(&[("Content-Type", CloudEvent::CONTENT_TYPE)]);
        for headers in [&typed[..], &[]] {
            let event = Event::parse("orders.completed", headers, &sent.to_json()).unwrap();
            assert_eq!(event.id.as_deref(), Some("e-1"));
            assert_eq!(event.kind.as_deref(), Some("orders.completed"));
            assert_eq!(event.own_key(), Some("o-1"));
            assert_eq!(event.data, sent.data);
        }
    }

    #[test]
    fn the_binary_mode_is_understood() {
        let headers = headers(&[
            ("ce-specversion", "1.0"),
            ("ce-id", "e%201"),
            ("ce-type", "t"),
            ("ce-source", "/s"),
            ("ce-partitionkey", "k%C3%A9"),
            (
                "ce-traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        ]);
        let event = Event::parse("x", &headers, b"[1]").unwrap();
        assert_eq!(event.id.as_deref(), Some("e 1"));
        assert_eq!(event.own_key(), Some("ké"));
        assert!(event.trace().is_some());
        assert_eq!(*event.data, json!([1]));
    }

    #[test]
    fn half_a_cloud_event_is_refused() {
        let typed = headers(&[("content-type", STRUCTURED)]);
        let error = Event::parse("x", &typed, br#"{"specversion":"1.0","id":"1"}"#).unwrap_err();
        assert_eq!(error, EventError::Lacks("type"));
        let long = "s".repeat(limit::EVENT_ID_BYTES + 1);
        let body = json!({"specversion": "1.0", "id": "1", "type": "t", "source": long});
        let error = Event::parse("x", &typed, body.to_string().as_bytes()).unwrap_err();
        assert_eq!(error, EventError::Long("source", long.len()));
        assert!(matches!(
            Event::parse("x", &[], b"{"),
            Err(EventError::NotJson(_))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            body in prop::collection::vec(any::<u8>(), 0..200),
            name in "(ce-[a-z]{0,5}|content-type)",
            value in "\\PC{0,20}",
        ) {
            let headers = [("ce-specversion".to_owned(), "1.0".to_owned()), (name, value)];
            let _ = Event::parse("x", &headers, &body);
            let _ = Event::parse("x", &headers[1..], &body);
        }
    }
}
