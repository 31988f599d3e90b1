//! What an archive says of itself. It is written last, so an archive without one is not whole.

use dirigent_contracts::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format that this build writes, and the only one that it reads.
pub(crate) const FORMAT: u32 = 1;

/// Everything about a backup but the data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// See [`FORMAT`].
    pub(crate) format: u32,
    /// Version of the `dirigent` that wrote it.
    pub(crate) dirigent: String,
    /// Version of the nats-server that it was taken from.
    pub(crate) server: String,
    /// When the copying began. What was acknowledged before is in the archive.
    pub(crate) began: Timestamp,
    /// When it ended.
    pub(crate) ended: Timestamp,
    /// The streams and buckets, in the order in which they were copied.
    pub(crate) parts: Vec<Part>,
}

/// One stream or bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Name of the stream.
    pub(crate) stream: String,
    /// The directory of the archive that holds its data.
    pub(crate) data: String,
    /// How it was copied, and so how it is put back.
    pub(crate) form: Form,
    /// Its configuration, as the broker told it.
    pub(crate) config: Value,
    /// Its state when it was copied, as the broker told it.
    pub(crate) state: Value,
    /// Its durable consumers, as they stood before the copying began.
    pub(crate) consumers: Vec<Reader>,
    /// Where it is cut off when it is put back; only of journals.
    pub(crate) cut: Option<Cut>,
    /// Size of the data.
    pub(crate) bytes: u64,
    /// SHA-256 of the data, in hexadecimal.
    pub(crate) sha256: String,
}

/// How a stream was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// By the broker, with its sequences and timestamps.
    Stream,
    /// Key by key: a line of JSON for each.
    Bucket,
}

/// A durable consumer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reader {
    /// Its configuration, as the broker told it.
    pub(crate) config: Value,
    /// Everything up to here was acknowledged.
    pub(crate) floor: u64,
}

/// Which entries of a journal belong to the backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// The last one.
    pub(crate) last: u64,
    /// Those before it that do not: their causes may lie behind the cut.
    pub(crate) left_out: Vec<u64>,
}

impl Cut {
    /// The entries to remove from a copy that goes up to `end`.
    pub(crate) fn beyond(&self, end: u64) -> impl Iterator<Item = u64> {
        self.left_out.iter().copied().chain(self.last + 1..=end)
    }
}
