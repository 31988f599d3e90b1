//! The names of things: definition, key, partition, run, effect, command, journal position.
//!
//! Each is a type of its own, checked once when it enters. Effect and command ids are derived, not
//! drawn: the same journal gives the same ids however often it is folded.

use crate::{limit, time::Timestamp};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};
use uuid::Uuid;

/// Why a text is not the id that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, or longer than its limit.
    #[error("a {what} has 1 to {limit} bytes, this one has {found}")]
    Length {
        /// What it should have been.
        what: &'static str,
        /// The most bytes that it may have.
        limit: usize,
        /// The bytes that it has.
        found: usize,
    },
    /// A character that may not stand in it.
    #[error("a {what} consists of letters, digits, '-' and '_'; {text:?} has {found:?}")]
    Character {
        /// What it should have been.
        what: &'static str,
        /// The text as it came.
        text: String,
        /// The first character that may not stand there.
        found: char,
    },
    /// Not of the form that the id has.
    #[error("{text:?} is not a {what}: expected {expected}")]
    Form {
        /// What it should have been.
        what: &'static str,
        /// The text as it came.
        text: String,
        /// The form that it should have.
        expected: &'static str,
    },
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it as the id.
            ///
            /// # Errors
            /// If the text is empty, too long, or has a character that may not stand in it.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, IdError> {
                let text = text.into();
                let check: fn(&str) -> Result<(), IdError> = $check;
                check(&text)?;
                Ok(Self(text))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl From<&$name> for Arc<str> {
            fn from(id: &$name) -> Arc<str> {
                Arc::clone(&id.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

fn within(what: &'static str, text: &str, limit: usize) -> Result<(), IdError> {
    if text.is_empty() || text.len() > limit {
        return Err(IdError::Length {
            what,
            limit,
            found: text.len(),
        });
    }
    Ok(())
}

text_id!(
    /// Name of a definition: 1 to 80 letters, digits, `-` and `_`.
    DefinitionName,
    |text| {
        const WHAT: &str = "definition name";
        within(WHAT, text, limit::DEFINITION_NAME_BYTES)?;
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
            Some(found) => Err(IdError::Character { what: WHAT, text: text.to_owned(), found }),
            None => Ok(()),
        }
    }
);

text_id!(
    /// The business key of a saga: any text of 1 to 256 bytes.
    SagaKey,
    |text| within("saga key", text, limit::KEY_BYTES)
);

text_id!(
    /// A kind of step work that workers offer, such as `charge-card`: any text of 1 to 128 bytes.
    TaskName,
    |text| within("task name", text, limit::TASK_NAME_BYTES)
);

text_id!(
    /// SHA-256 of a definition's canonical JSON, in lower-case hexadecimal: which version it is.
    DefinitionDigest,
    |text| {
        let is_digest = text.len() == 64
            && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_digest {
            Ok(())
        } else {
            Err(IdError::Form {
                what: "definition digest",
                text: text.to_owned(),
                expected: "64 lower-case hexadecimal digits",
            })
        }
    }
);

text_id!(
    /// The first 8 digits of a [`DefinitionDigest`], or more: a version as people name it.
    DigestPrefix,
    |text| {
        let is_hexadecimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hexadecimal && (8..=64).contains(&text.len()) {
            Ok(())
        } else {
            Err(IdError::Form {
                what: "version",
                text: text.to_owned(),
                expected: "8 to 64 lower-case hexadecimal digits, the first ones of its digest",
            })
        }
    }
);

impl DefinitionDigest {
    /// The first twelve digits, enough for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

/// Address of a saga: what people and other services call it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SagaAddress {
    /// The definition that it runs.
    pub definition: DefinitionName,
    /// The caller's business key.
    pub key: SagaKey,
}

impl fmt::Display for SagaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.definition, self.key)
    }
}

/// One of the P parts of an installation; everything with one key lives in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The partition of `key` among `partitions`: XXH3-64 of the key's UTF-8, modulo P.
    ///
    /// The definition does not count, so sagas of different definitions with one key are neighbours.
    #[must_use]
    pub fn of(key: &SagaKey, partitions: u16) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(key.as_str().as_bytes());
        let index = hash % u64::from(partitions.max(1));
        // A remainder of a u16 fits into a u16.
        Self(u16::try_from(index).unwrap_or(0))
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Position in a partition's journal: the stream sequence of the entry. The first is 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct JournalSeq(pub u64);

impl fmt::Display for JournalSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of one run of a definition: a UUID derived from the address and the start entry.
///
/// A key that is started again, after its journal was forgotten, gives another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl RunId {
    /// UUID version 5 (RFC 9562, 5.5) over the address and the start entry's position and time.
    #[must_use]
    pub fn derive(address: &SagaAddress, started: JournalSeq, at: Timestamp) -> Self {
        const NAMESPACE: Uuid = Uuid::from_u128(0x6469_7269_6765_6e74_8000_0000_7361_6761);
        let name = format!("{address}\n{started}\n{}", at.0);
        Self(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    }

    /// The effect id of the run's step number `step`.
    #[must_use]
    pub fn effect(self, step: u32) -> EffectId {
        EffectId { run: self, step }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// Identity of one step's effect, stable over all its attempts: the worker's idempotency key.
///
/// Its text is the run (32 hexadecimal digits), `-`, and the step's number in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EffectId {
    /// The run that wants the effect.
    pub run: RunId,
    /// Number of the step in the run, in the order in which steps were scheduled.
    pub step: u32,
}

impl EffectId {
    /// The command that asks for attempt number `attempt`; the first is 1.
    #[must_use]
    pub fn command(self, attempt: u32) -> CommandId {
        CommandId {
            effect: self,
            attempt,
        }
    }
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.step)
    }
}

impl FromStr for EffectId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let parsed = text.split_once('-').and_then(|(run, step)| {
            Some(Self {
                run: parse_run(run)?,
                step: parse_number(step)?,
            })
        });
        parsed.ok_or_else(|| IdError::Form {
            what: "effect id",
            text: text.to_owned(),
            expected: "32 hexadecimal digits, '-' and the step's number",
        })
    }
}

/// Identity of one attempt of an effect: the effect id, `-`, and the attempt's number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandId {
    /// The effect that is wanted.
    pub effect: EffectId,
    /// Which attempt this is; the first is 1.
    pub attempt: u32,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.effect, self.attempt)
    }
}

impl FromStr for CommandId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let parsed = text.rsplit_once('-').and_then(|(effect, attempt)| {
            Some(Self {
                effect: effect.parse().ok()?,
                attempt: parse_number(attempt)?,
            })
        });
        parsed.ok_or_else(|| IdError::Form {
            what: "command id",
            text: text.to_owned(),
            expected: "an effect id, '-' and the attempt's number",
        })
    }
}

/// Exactly 32 lower-case hexadecimal digits, so that one id has one spelling.
fn parse_run(text: &str) -> Option<RunId> {
    let is_simple = text.len() == 32
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_simple {
        Uuid::try_parse(text).ok().map(RunId)
    } else {
        None
    }
}

/// A decimal number without sign or leading zeros.
fn parse_number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

macro_rules! string_conversions {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

string_conversions!(EffectId);
string_conversions!(CommandId);

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SagaAddress {
        SagaAddress {
            definition: DefinitionName::new("order").unwrap(),
            key: SagaKey::new("order-42").unwrap(),
        }
    }

    #[test]
    fn ids_are_derived_and_never_drawn() {
        let run = RunId::derive(&address(), JournalSeq(7), Timestamp(1_000));
        assert_eq!(
            run,
            RunId::derive(&address(), JournalSeq(7), Timestamp(1_000))
        );
        assert_ne!(
            run,
            RunId::derive(&address(), JournalSeq(8), Timestamp(1_000))
        );
        assert_ne!(
            run,
            RunId::derive(&address(), JournalSeq(7), Timestamp(1_001))
        );
    }

    #[test]
    fn a_command_id_survives_its_text_form() {
        let run = RunId::derive(&address(), JournalSeq(7), Timestamp(1_000));
        let command = run.effect(12).command(3);
        assert_eq!(command.to_string(), format!("{run}-12-3"));
        assert_eq!(command.to_string().parse(), Ok(command));
    }

    #[test]
    fn other_spellings_of_an_id_are_refused() {
        let run = RunId::derive(&address(), JournalSeq(7), Timestamp(1_000));
        for text in [
            String::new(),
            "x-1-1".into(),
            format!("{run}-1"),
            format!("{run}-01-1"),
            format!("{run}-1-+1"),
            format!("{}-1-1", run.to_string().to_uppercase()),
        ] {
            assert!(text.parse::<CommandId>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_definition_name_is_checked_when_it_enters() {
        assert!(DefinitionName::new("register-user_2").is_ok());
        assert!(DefinitionName::new("").is_err());
        assert!(DefinitionName::new("a.b").is_err());
        assert!(DefinitionName::new("x".repeat(81)).is_err());
        assert!(serde_json::from_str::<DefinitionName>("\"a b\"").is_err());
    }

    #[test]
    fn a_partition_is_fixed_by_the_key_alone() {
        // Golden: a change here would strand every saga of every installation.
        let of = |key: &str| PartitionId::of(&SagaKey::new(key).unwrap(), 16).0;
        let found: Vec<u16> = ["order-1", "order-2", "anna@example.org", "é"]
            .map(of)
            .to_vec();
        assert_eq!(found, GOLDEN_PARTITIONS);
    }

    const GOLDEN_PARTITIONS: [u16; 4] = [6, 12, 14, 3];
}
