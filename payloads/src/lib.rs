//! Bodies that are too large for a message: they stand in the object store, and the message names them.
//!
//! What travels is the message as it would be, but with no body and the header [`header::PAYLOAD`]: so
//! journals and commands stay small, and whatever reads a message puts its body back before it looks at it.
//! A body is named by its SHA-256: putting it twice is putting it once, and what comes back is what was put.
//!
//! Any server of the bucket answers a reader, also one that is behind the others. So only the leader's word counts
//! that a body is missing.
//!
//! Nobody removes a body. The bucket forgets it by age, and that is longer than any message that names it
//! is kept; whoever needs one for longer puts it again from time to time.

use async_nats::{
    HeaderMap,
    jetstream::{
        Context,
        message::StreamMessage,
        object_store::{InfoErrorKind, ObjectInfo, ObjectMetadata, ObjectStore},
        stream::LastRawMessageErrorKind,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use dirigent_contracts::{header, limit, subject};
use sha2::{Digest as _, Sha256};
use std::{error::Error, fmt, io::ErrorKind, str::FromStr, sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt as _, sync::OnceCell};

/// A body that was put longer ago is put again when it is needed again, so that it lives on.
const RENEWAL: Duration = Duration::from_hours(1);

/// How often a body is read before it counts as damaged, and how long one reading may take.
const READINGS: u32 = 3;
const READING_TIME: Duration = Duration::from_secs(20);

/// The name of a body: the SHA-256 of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PayloadName([u8; 32]);

impl PayloadName {
    /// The name of these bytes.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    /// From its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PayloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for PayloadName {
    type Err = PayloadError;

    /// 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, PayloadError> {
        let not_a_name = || PayloadError::NotAName(text.chars().take(80).collect());
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 64 || !text.bytes().all(is_hex) {
            return Err(not_a_name());
        }
        let mut name = [0; 32];
        for (byte, digits) in name.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| not_a_name())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| not_a_name())?;
        }
        Ok(Self(name))
    }
}

/// Why a body could not be put or read.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The header does not name a body.
    #[error("{0:?} is not the name of a payload: 64 lower-case hexadecimal digits are")]
    NotAName(String),
    /// There is none of that name: it has expired, or was never put.
    #[error("the payload {0} is not in the bucket {bucket}: it has expired, or somebody removed it", bucket = subject::PAYLOADS_BUCKET)]
    Missing(PayloadName),
    /// It is larger than what may stand there.
    #[error("the payload {name} has {found} bytes, at most {most} fit")]
    TooLarge {
        /// The payload.
        name: PayloadName,
        /// How many bytes it has.
        found: usize,
        /// How many it may have.
        most: usize,
    },
    /// What stands there is not what was put.
    #[error("the payload {0} is damaged: what the bucket {bucket} holds are other bytes", bucket = subject::PAYLOADS_BUCKET)]
    Damaged(PayloadName),
    /// The broker did not do its part. Worth another try.
    #[error("the payload {name}: {reason}")]
    Broker {
        /// The payload.
        name: PayloadName,
        /// What went wrong.
        reason: String,
    },
}

impl PayloadError {
    /// Whether another try may succeed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Broker { .. })
    }

    fn behind(name: PayloadName) -> Self {
        let reason = "the server that answered is behind the others".to_owned();
        Self::Broker { name, reason }
    }

    fn broker(name: PayloadName, error: &dyn Error) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Self::Broker { name, reason }
    }
}

/// The bucket of bodies. Clones share it; it is looked for when it is needed first.
#[derive(Clone)]
pub struct Payloads {
    context: Context,
    store: Arc<OnceCell<ObjectStore>>,
}

impl fmt::Debug for Payloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payloads").finish_non_exhaustive()
    }
}

impl Payloads {
    /// The bucket behind this connection.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self {
            context,
            store: Arc::default(),
        }
    }

    async fn store(&self, name: PayloadName) -> Result<&ObjectStore, PayloadError> {
        let opened = || self.context.get_object_store(subject::PAYLOADS_BUCKET);
        let store = self.store.get_or_try_init(opened).await;
        store.map_err(|error| PayloadError::broker(name, &error))
    }

    /// Puts a body, unless it is there.
    ///
    /// # Errors
    /// If the broker does not do its part.
    pub async fn put(&self, body: &[u8]) -> Result<PayloadName, PayloadError> {
        let name = PayloadName::of(body);
        let store = self.store(name).await?;
        let known = store.info(name.to_string()).await.ok();
        let is_young = known.is_some_and(|info| {
            let now = async_nats::datetime::now().unix_timestamp_nanos();
            let age = info.modified.map(|at| now - at.unix_timestamp_nanos());
            !info.deleted && age.is_some_and(|age| age < RENEWAL.as_nanos().cast_signed())
        });
        if is_young {
            return Ok(name);
        }
        let metadata = ObjectMetadata {
            name: name.to_string(),
            ..ObjectMetadata::default()
        };
        let mut body = body;
        let put = store.put(metadata, &mut body).await;
        put.map_err(|error| PayloadError::broker(name, &error))?;
        Ok(name)
    }

    /// Reads a body of at most so many bytes.
    ///
    /// # Errors
    /// If there is none of that name, if it is larger, or if the broker does not do its part.
    pub async fn get(&self, name: PayloadName, most: usize) -> Result<Bytes, PayloadError> {
        let store = self.store(name).await?;
        let found = match store.info(name.to_string()).await {
            Ok(info) => (!info.deleted).then_some(info.size),
            Err(error) if error.kind() == InfoErrorKind::NotFound => None,
            Err(error) => return Err(PayloadError::broker(name, &error)),
        };
        match found {
            Some(found) if found > most => {
                return Err(PayloadError::TooLarge { name, found, most });
            }
            Some(_) => {}
            None if self.is_missing(name).await? => return Err(PayloadError::Missing(name)),
            None => return Err(PayloadError::behind(name)),
        }
        // One that is put again while it is read comes back in part, or not to its end.
        for _ in 0..READINGS {
            let object = store.get(name.to_string()).await;
            let mut object = object.map_err(|error| PayloadError::broker(name, &error))?;
            let mut body = Vec::with_capacity(object.info.size);
            let reading = tokio::time::timeout(READING_TIME, object.read_to_end(&mut body));
            match reading.await {
                Ok(Ok(_)) if PayloadName::of(&body) == name => return Ok(body.into()),
                Ok(Ok(_)) => {}
                // It was read to its end, and its digest is not the one that stands at it.
                Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => {}
                // Nothing comes, and there is nothing to come.
                _ if self.is_hollow(name, &object.info).await? => {}
                Ok(Err(error)) => return Err(PayloadError::broker(name, &error)),
                Err(late) => return Err(PayloadError::broker(name, &late)),
            }
        }
        Err(PayloadError::Damaged(name))
    }

    /// Whether there is no body of that name, as the leader has it.
    async fn is_missing(&self, name: PayloadName) -> Result<bool, PayloadError> {
        let object = URL_SAFE.encode(name.to_string());
        let told = self.last(name, &format!("M.{object}")).await?;
        let Some(told) = told else { return Ok(true) };
        let info: ObjectInfo = serde_json::from_slice(&told.payload)
            .map_err(|error| PayloadError::broker(name, &error))?;
        Ok(info.deleted)
    }

    /// Whether nothing is there of what should be the bytes of a body, as the leader has it.
    async fn is_hollow(&self, name: PayloadName, info: &ObjectInfo) -> Result<bool, PayloadError> {
        let chunk = self.last(name, &format!("C.{}", info.nuid)).await?;
        Ok(chunk.is_none())
    }

    /// The last message of a subject of the bucket, from its leader.
    async fn last(
        &self,
        name: PayloadName,
        subject: &str,
    ) -> Result<Option<StreamMessage>, PayloadError> {
        let bucket = subject::PAYLOADS_BUCKET;
        let stream = self.context.get_stream_no_info(format!("OBJ_{bucket}"));
        let stream = stream
            .await
            .map_err(|error| PayloadError::broker(name, &error))?;
        let subject = format!("$O.{bucket}.{subject}");
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(PayloadError::broker(name, &error)),
        }
    }

    /// The body of a message as it travels: itself, or nothing if it is larger than
    /// [`limit::INLINE_BYTES`]; then the headers name it.
    ///
    /// # Errors
    /// If the broker does not do its part.
    pub async fn pack(&self, headers: &mut HeaderMap, body: Bytes) -> Result<Bytes, PayloadError> {
        if body.len() <= limit::INLINE_BYTES {
            return Ok(body);
        }
        let name = self.put(&body).await?;
        headers.insert(header::PAYLOAD, name.to_string());
        Ok(Bytes::new())
    }

    /// The body of a message that came with these headers.
    ///
    /// # Errors
    /// If it is named and cannot be read.
    pub async fn unpack(
        &self,
        headers: Option<&HeaderMap>,
        body: Bytes,
    ) -> Result<Bytes, PayloadError> {
        match headers.and_then(|headers| headers.get(header::PAYLOAD)) {
            Some(name) => {
                let name = name.as_str().parse()?;
                self.get(name, limit::LARGEST_BODY_BYTES).await
            }
            None => Ok(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_text_and_nothing_else_is_one() {
        let name = PayloadName::of(b"abc");
        let text = name.to_string();
        assert_eq!(
            text,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(text.parse::<PayloadName>().ok(), Some(name));
        for other in ["", "abc", &text[1..], &text.to_uppercase(), &"é".repeat(32)] {
            assert!(other.parse::<PayloadName>().is_err(), "{other}");
        }
    }
}
