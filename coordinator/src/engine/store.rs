//! What a saga asks of the object store: items for a distributed Map, and a place for its results.
//!
//! The fold cannot read or write, so it asks, and the answer is an entry of the journal: the reply of
//! the built-in task [`TASK`]. A read is answered with [`Items`], a write with `null`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// The task whose replies are the answers.
pub const TASK: &str = "object-store";

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreRequest {
    /// Items, as many as fit into one answer.
    Read {
        /// Where they are.
        source: ItemSource,
        /// How many were read before.
        skip: u64,
        /// Which version of the object they were of.
        version: Option<String>,
    },
    /// Objects to be written, over what may be there.
    Write(Vec<StoredObject>),
}

/// The answer to a read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Items {
    /// The next items.
    pub items: Vec<Arc<Value>>,
    /// Whether there are no more.
    pub last: bool,
    /// The version of the object: all items come from one. Of a listing, the last name that it told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Where items come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemSource {
    /// The bucket.
    pub bucket: String,
    /// What in it.
    pub content: Content,
    /// How many are wanted at most.
    pub most: Option<u64>,
}

/// What the items are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// What an object holds.
    Object {
        /// Its name.
        key: String,
        /// How it is written.
        format: Format,
    },
    /// The objects themselves: `{Key, Size, LastModified, ETag}` of each.
    Listing {
        /// What their names begin with.
        prefix: String,
    },
}

/// How items are written in an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// A JSON array, or an object whose fields are the items.
    Json {
        /// RFC 6901 pointer of the array in the document; empty for the document itself.
        pointer: String,
    },
    /// A JSON value a line.
    JsonLines,
    /// Comma-separated values (RFC 4180), each row an object.
    Csv {
        /// What separates the values.
        delimiter: u8,
        /// The names of the columns; those of the first row if not given.
        headers: Option<Vec<String>>,
    },
}

/// An object to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// The bucket, which must exist.
    pub bucket: String,
    /// Its name.
    pub key: String,
    /// What it holds.
    pub body: String,
}

impl ItemSource {
    /// Reads the evaluated fields of an `ItemReader`.
    ///
    /// # Errors
    /// What is missing, for people.
    pub(super) fn of(
        is_listing: bool,
        arguments: &Value,
        config: &Value,
        most: Option<u64>,
    ) -> Result<Self, String> {
        let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
        let required = |name: &str| {
            text(arguments, name).ok_or_else(|| format!("ItemReader does not say which {name}"))
        };
        let content = if is_listing {
            Content::Listing {
                prefix: text(arguments, "Prefix").unwrap_or_default(),
            }
        } else {
            let key = required("Key")?;
            let format = match config["InputType"].as_str() {
                Some("CSV") => Format::Csv {
                    delimiter: delimiter(config["CSVDelimiter"].as_str())?,
                    headers: headers(config)?,
                },
                Some("JSONL") => Format::JsonLines,
                Some("JSON") | None => Format::Json {
                    pointer: text(config, "ItemsPointer").unwrap_or_default(),
                },
                Some(other) => return Err(format!("InputType {other} cannot be read")),
            };
            Content::Object { key, format }
        };
        Ok(Self {
            bucket: required("Bucket")?,
            content,
            most,
        })
    }

    /// The source in words.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.content {
            Content::Object { key, .. } => format!("{}/{key}", self.bucket),
            Content::Listing { prefix } => format!("{}/{prefix}*", self.bucket),
        }
    }
}

/// The delimiters that Step Functions knows.
fn delimiter(name: Option<&str>) -> Result<u8, String> {
    match name {
        None | Some("COMMA") => Ok(b','),
        Some("PIPE") => Ok(b'|'),
        Some("SEMICOLON") => Ok(b';'),
        Some("SPACE") => Ok(b' '),
        Some("TAB") => Ok(b'\t'),
        Some(other) => Err(format!(
            "CSVDelimiter is COMMA, PIPE, SEMICOLON, SPACE or TAB, not {other}"
        )),
    }
}

fn headers(config: &Value) -> Result<Option<Vec<String>>, String> {
    if config["CSVHeaderLocation"] != "GIVEN" {
        return Ok(None);
    }
    serde_json::from_value(config["CSVHeaders"].clone())
        .map(Some)
        .map_err(|_| "CSVHeaders is a list of names".to_owned())
}
