//! MessagePack bodies and their format version.
//!
//! A body is one MessagePack map with its fields by name, so that a worker in any language reads it
//! with the library that it has, and an unknown field is passed over. Field `v` is the format
//! version; a reader refuses a version that it does not know instead of guessing.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The format version that this build writes, and the only one that it reads.
pub const FORMAT_VERSION: u8 = 1;

/// What most bodies fit into.
const USUAL_BYTES: usize = 1_024;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not MessagePack, or not the fields that belong there.
    #[error("the body is not a {what}: {source}")]
    Malformed {
        /// What it should have been.
        what: &'static str,
        /// What the decoder says.
        source: rmp_serde::decode::Error,
    },
    /// Written by a build that is newer than this one.
    #[error("the {what} has format version {found}; this build reads version {FORMAT_VERSION}")]
    Version {
        /// What it should have been.
        what: &'static str,
        /// The version that it has.
        found: u8,
    },
}

/// Something with a body on the wire.
pub trait Body: Serialize + DeserializeOwned {
    /// What it is called in errors.
    const WHAT: &'static str;
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    v: u8,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Deserialize)]
struct Version {
    v: u8,
}

/// Encodes a body.
///
/// # Panics
/// Never in practice: the bodies of this crate hold nothing that MessagePack cannot say.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "writing our own types to memory has no way to fail"
)]
pub fn encode<T: Body>(body: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    let outgoing = Outgoing {
        v: FORMAT_VERSION,
        body,
    };
    outgoing
        .serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map())
        .expect("a body is always representable");
    bytes
}

/// Decodes a body.
///
/// # Errors
/// If the bytes are not such a body, or were written in a version that this build does not know.
pub fn decode<T: Body>(bytes: &[u8]) -> Result<T, DecodeError> {
    let malformed = |source| DecodeError::Malformed {
        what: T::WHAT,
        source,
    };
    let v = match leading_version(bytes) {
        Some(v) => v,
        None => read::<Version>(bytes).map_err(malformed)?.v,
    };
    if v != FORMAT_VERSION {
        return Err(DecodeError::Version {
            what: T::WHAT,
            found: v,
        });
    }
    read(bytes).map_err(malformed)
}

/// The version, if it is the first field and a small number, as we write it: then nothing else has to be
/// read for it.
fn leading_version(bytes: &[u8]) -> Option<u8> {
    // A map of up to 15 fields, or of up to 65,535; a string of one byte; a number below 128.
    match bytes {
        [0x80..=0x8f, 0xa1, b'v', v @ 0..0x80, ..] | [0xde, _, _, 0xa1, b'v', v @ 0..0x80, ..] => {
            Some(*v)
        }
        _ => None,
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(crate::limit::DEPTH);
    T::deserialize(&mut reader)
}
