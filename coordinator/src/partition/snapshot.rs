//! Snapshots: a saga's state as bytes, behind an outline that can be read without reading the state.
//!
//! A saga that merely waits is held in this form in memory too. So its owner can take over a hundred
//! thousand of them without reading one, and the outline has all that it needs of one until something
//! comes for it.

use crate::{
    engine::{Run, Saga},
    logs,
};
use bytes::Bytes;
use dirigent_contracts::{outcome::SagaStatus, time::Timestamp};
use lz4_flex::block;

/// First byte of a snapshot: the version of its format.
const VERSION: u8 = 2;
/// What 0.1.0 wrote: a state alone, as it was encoded.
const STATE_ALONE: u8 = 1;
/// Bytes before the state: version, deadline, time of the last entry, status.
const HEAD: usize = 1 + 8 + 8 + 1;
/// Most bytes that a state may claim to have before it was compressed.
const MOST_BYTES: usize = 256 * 1_048_576;

/// What an owner needs to know of a saga that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    /// When something is due next.
    pub(crate) deadline: Timestamp,
    /// Time of the last entry that it took in.
    pub(crate) updated_at: Timestamp,
    /// How it stands; `None` while only events have come for it.
    pub(crate) status: Option<SagaStatus>,
}

impl Outline {
    pub(crate) fn of(saga: &Saga) -> Self {
        Self {
            deadline: saga.next_deadline(),
            updated_at: saga.updated_at(),
            status: saga.run().map(Run::status),
        }
    }

    /// Reads what stands before the state.
    ///
    /// # Errors
    /// What is wrong with it, for an operator.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        match body {
            [VERSION, rest @ ..] => {
                let cut = || "it is cut off".to_owned();
                let (deadline, rest) = rest.split_first_chunk().ok_or_else(cut)?;
                let (updated_at, rest) = rest.split_first_chunk().ok_or_else(cut)?;
                let status = match rest.first().ok_or_else(cut)? {
                    0 => None,
                    number => {
                        let status = SagaStatus::ALL.get(usize::from(*number) - 1);
                        Some(*status.ok_or_else(|| format!("it has no status {number}"))?)
                    }
                };
                Ok(Self {
                    deadline: Timestamp(i64::from_be_bytes(*deadline)),
                    updated_at: Timestamp(i64::from_be_bytes(*updated_at)),
                    status,
                })
            }
            _ => decode(body).map(|saga| Self::of(&saga)),
        }
    }
}

/// A saga's state as bytes.
pub(crate) fn encode(saga: &Saga) -> Bytes {
    let Outline {
        deadline,
        updated_at,
        status,
    } = Outline::of(saga);
    let mut state = Vec::with_capacity(1_024);
    // Writing our own types to memory has no way to fail.
    if let Err(error) = rmp_serde::encode::write_named(&mut state, saga) {
        logs::span(saga.partition(), saga.address(), Some(saga))
            .in_scope(|| tracing::error!(%error, "a snapshot cannot be written"));
    }
    let status = status.and_then(|status| SagaStatus::ALL.iter().position(|one| *one == status));
    let status = status.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0);
    let state = block::compress_prepend_size(&state);
    let mut body = Vec::with_capacity(HEAD + state.len());
    body.push(VERSION);
    body.extend(deadline.0.to_be_bytes());
    body.extend(updated_at.0.to_be_bytes());
    body.push(status);
    body.extend(state);
    body.into()
}

/// The state that a snapshot holds.
///
/// # Errors
/// What is wrong with it, for an operator.
pub(crate) fn decode(body: &[u8]) -> Result<Saga, String> {
    let read = |state: &[u8]| rmp_serde::from_slice(state).map_err(|error| error.to_string());
    match body {
        [VERSION, ..] => {
            let state = body.get(HEAD..).ok_or("it is cut off")?;
            let (size, state) =
                block::uncompressed_size(state).map_err(|error| error.to_string())?;
            if size > MOST_BYTES {
                return Err(format!("its state claims {size} bytes"));
            }
            let state = block::decompress(state, size).map_err(|error| error.to_string())?;
            read(&state)
        }
        [STATE_ALONE, state @ ..] => read(state),
        [version, ..] => Err(format!("unknown version {version}")),
        [] => Err("it is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Record, fold};
    use dirigent_contracts::{
        id::{JournalSeq, PartitionId, SagaAddress},
        journal::{Entry, Start},
        limits::SagaLimits,
    };
    use serde_json::json;
    use std::sync::Arc;

    /// A saga that waits for a worker.
    fn waiting() -> Saga {
        let document = "{ QueryLanguage: JSONata, StartAt: A, \
            States: { A: { Type: Task, Resource: 'task:a', TimeoutSeconds: 60, End: true } } }";
        let (parsed, program) = crate::compile("test.yaml", document).unwrap();
        let record = Record {
            partition: PartitionId(0),
            seq: JournalSeq(7),
            at: Timestamp::from_millis(1_700_000_000_000),
            address: SagaAddress {
                definition: "test".parse().unwrap(),
                key: "o-1".parse().unwrap(),
            },
            trace: None,
            entry: Entry::Start(Start {
                digest: parsed.digest,
                input: Arc::new(json!({"note": "x".repeat(300)})),
                trigger: None,
                parent: None,
                part: None,
                limits: SagaLimits::default(),
            }),
        };
        let mut saga = None;
        fold(&mut saga, Some(&program), &record);
        saga.unwrap()
    }

    #[test]
    fn a_state_survives_its_snapshot_and_is_outlined_without_being_read() {
        let saga = waiting();
        let body = encode(&saga);
        assert_eq!(decode(&body).unwrap(), saga);
        assert_eq!(Outline::read(&body).unwrap(), Outline::of(&saga));
        assert_eq!(Outline::read(&body[..HEAD]).unwrap(), Outline::of(&saga));
        assert_eq!(Outline::of(&saga).status, Some(SagaStatus::Running));
    }

    #[test]
    fn a_snapshot_of_an_older_version_is_read() {
        let saga = waiting();
        let mut body = vec![STATE_ALONE];
        body.extend(rmp_serde::to_vec_named(&saga).unwrap());
        assert_eq!(decode(&body).unwrap(), saga);
        assert_eq!(Outline::read(&body).unwrap(), Outline::of(&saga));
    }

    #[test]
    fn what_is_no_snapshot_says_why() {
        let body = encode(&waiting());
        let mut bomb = body[..HEAD].to_vec();
        bomb.extend(u32::MAX.to_le_bytes());
        for (body, why) in [
            (&b""[..], "empty"),
            (b"\x09", "version 9"),
            (&body[..HEAD - 1], "cut off"),
            (&bomb, "claims"),
        ] {
            let error = decode(body).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        for end in 0..body.len() {
            decode(&body[..end]).unwrap_err();
        }
        assert!(Outline::read(&body[..HEAD - 1]).is_err());
    }
}
