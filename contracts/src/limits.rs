//! The limits that an operator can change, each with its name, unit, default and range.
//!
//! They are kept with the installation's settings, so all coordinators have the same. Those that the
//! fold keeps ([`SagaLimits`]) are written into a saga's start entry by whoever starts it, as the
//! version of its definition is: a replay keeps the ones that held then, whatever holds now. The limits that
//! nobody can change stand in [`crate::limit`].

use crate::limit;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What a saga may use, from its start to its end.
///
/// The defaults are part of the wire format: a start entry that says nothing means these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct SagaLimits {
    /// Largest input or output of a state, in bytes of JSON.
    pub payload: u64,
    /// How long a saga may go forward, in seconds from its start.
    pub saga_age: u64,
    /// Most entries of the journal that a saga takes in while it goes forward. Heartbeats and the
    /// items of a distributed Map do not count.
    pub history: u64,
    /// Most attempts of one step, and of one undo, whatever its `Retry` says.
    pub attempts: u64,
    /// Most items of a distributed Map.
    pub map_items: u64,
    /// Most items of an inline Map.
    pub inline_map_items: u64,
    /// How long one expression may take, in milliseconds.
    pub expression_time: u64,
}

/// All limits of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Limits {
    /// What each saga may use that is started from now on.
    #[serde(flatten)]
    pub saga: SagaLimits,
    /// Largest definition that is deployed, in bytes of its document.
    pub definition: u64,
    /// Most states of a definition that is deployed, those within Parallel and Map included.
    pub states: u64,
    /// Most branches of one Parallel of a definition that is deployed.
    pub branches: u64,
    /// How deep Parallel and Map may stand within each other in a definition that is deployed.
    pub nesting: u64,
}

impl SagaLimits {
    /// Whether these are the ones that go without saying.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for SagaLimits {
    fn default() -> Self {
        Self {
            payload: Limit::Payload.default(),
            saga_age: Limit::SagaAge.default(),
            history: Limit::History.default(),
            attempts: Limit::Attempts.default(),
            map_items: Limit::MapItems.default(),
            inline_map_items: Limit::InlineMapItems.default(),
            expression_time: Limit::ExpressionTime.default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            saga: SagaLimits::default(),
            definition: Limit::Definition.default(),
            states: Limit::States.default(),
            branches: Limit::Branches.default(),
            nesting: Limit::Nesting.default(),
        }
    }
}

impl Limits {
    /// The value of a limit, in its unit.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        match limit {
            Limit::Payload => self.saga.payload,
            Limit::SagaAge => self.saga.saga_age,
            Limit::History => self.saga.history,
            Limit::Attempts => self.saga.attempts,
            Limit::MapItems => self.saga.map_items,
            Limit::InlineMapItems => self.saga.inline_map_items,
            Limit::ExpressionTime => self.saga.expression_time,
            Limit::Definition => self.definition,
            Limit::States => self.states,
            Limit::Branches => self.branches,
            Limit::Nesting => self.nesting,
        }
    }

    /// Changes a limit.
    ///
    /// # Errors
    /// If the value is not one that the limit can have; then nothing has changed.
    pub fn set(&mut self, limit: Limit, value: u64) -> Result<(), LimitError> {
        let (least, most) = limit.range();
        if !(least..=most).contains(&value) {
            return Err(LimitError::OutOfRange {
                limit,
                value,
                least,
                most,
            });
        }
        let field = match limit {
            Limit::Payload => &mut self.saga.payload,
            Limit::SagaAge => &mut self.saga.saga_age,
            Limit::History => &mut self.saga.history,
            Limit::Attempts => &mut self.saga.attempts,
            Limit::MapItems => &mut self.saga.map_items,
            Limit::InlineMapItems => &mut self.saga.inline_map_items,
            Limit::ExpressionTime => &mut self.saga.expression_time,
            Limit::Definition => &mut self.definition,
            Limit::States => &mut self.states,
            Limit::Branches => &mut self.branches,
            Limit::Nesting => &mut self.nesting,
        };
        *field = value;
        Ok(())
    }

    /// Whether something is within a limit.
    ///
    /// # Errors
    /// What is too much, how much it is, and what to do.
    pub fn check(&self, limit: Limit, what: &str, found: u64) -> Result<(), Exceeded> {
        let allowed = self.get(limit);
        if found <= allowed {
            return Ok(());
        }
        Err(Exceeded {
            limit,
            what: what.to_owned(),
            found,
            allowed,
        })
    }
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// [`SagaLimits::payload`].
    Payload,
    /// [`SagaLimits::saga_age`].
    SagaAge,
    /// [`SagaLimits::history`].
    History,
    /// [`SagaLimits::attempts`].
    Attempts,
    /// [`SagaLimits::map_items`].
    MapItems,
    /// [`SagaLimits::inline_map_items`].
    InlineMapItems,
    /// [`SagaLimits::expression_time`].
    ExpressionTime,
    /// [`Limits::definition`].
    Definition,
    /// [`Limits::states`].
    States,
    /// [`Limits::branches`].
    Branches,
    /// [`Limits::nesting`].
    Nesting,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: states, items, attempts.
    Count,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Count => "",
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
        }
    }
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Payload,
        Self::SagaAge,
        Self::History,
        Self::Attempts,
        Self::MapItems,
        Self::InlineMapItems,
        Self::ExpressionTime,
        Self::Definition,
        Self::States,
        Self::Branches,
        Self::Nesting,
    ];

    /// Its name, the same in settings, in the CLI and in errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::SagaAge => "saga-age",
            Self::History => "history",
            Self::Attempts => "attempts",
            Self::MapItems => "map-items",
            Self::InlineMapItems => "inline-map-items",
            Self::ExpressionTime => "expression-time",
            Self::Definition => "definition",
            Self::States => "states",
            Self::Branches => "branches",
            Self::Nesting => "nesting",
        }
    }

    /// What it bounds, for people.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Payload => "input or output of a state, as JSON",
            Self::SagaAge => "time that a saga goes forward",
            Self::History => "journal entries that a saga takes in while it goes forward",
            Self::Attempts => "attempts of one step, whatever its Retry says",
            Self::MapItems => "items of a distributed Map",
            Self::InlineMapItems => "items of an inline Map",
            Self::ExpressionTime => "time of one expression",
            Self::Definition => "document that is deployed",
            Self::States => "states of a definition",
            Self::Branches => "branches of one Parallel",
            Self::Nesting => "depth of Parallel and Map within each other",
        }
    }

    /// What its value counts.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Payload | Self::Definition => Unit::Bytes,
            Self::SagaAge => Unit::Seconds,
            Self::ExpressionTime => Unit::Milliseconds,
            Self::History
            | Self::Attempts
            | Self::MapItems
            | Self::InlineMapItems
            | Self::States
            | Self::Branches
            | Self::Nesting => Unit::Count,
        }
    }

    /// Its value if nobody says another. Those of payload and definition are Step Functions'.
    #[must_use]
    pub fn default(self) -> u64 {
        match self {
            Self::Payload => 262_144,
            Self::SagaAge => 365 * 24 * 3_600,
            Self::History => 100_000,
            Self::Attempts => 10_000,
            Self::MapItems => 1_000_000,
            Self::InlineMapItems => 10_000,
            Self::ExpressionTime => 2_000,
            Self::Definition => 1_048_576,
            Self::States => 10_000,
            Self::Branches => 1_000,
            Self::Nesting => 16,
        }
    }

    /// The least and the greatest value that it can have.
    #[must_use]
    pub fn range(self) -> (u64, u64) {
        match self {
            Self::Payload => (1_024, limit::LARGEST_PAYLOAD_BYTES as u64),
            Self::SagaAge => (1, limit::TASK_TIMEOUT.as_secs()),
            Self::History => (10, 10_000_000),
            Self::Attempts => (1, 99_999_999),
            Self::MapItems => (1, 10_000_000),
            Self::InlineMapItems => (1, 100_000),
            Self::ExpressionTime => (10, 60_000),
            Self::Definition => (1_024, limit::DEFINITION_BYTES as u64),
            Self::States => (1, limit::DEFINITION_NODES as u64),
            Self::Branches => (1, 10_000),
            // A machine within a machine takes four levels of the document.
            Self::Nesting => (1, limit::DEPTH as u64 / 4),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(name: &str) -> Result<Self, LimitError> {
        let found = Self::ALL.into_iter().find(|limit| limit.as_str() == name);
        found.ok_or_else(|| LimitError::Unknown(name.to_owned()))
    }
}

/// Why a limit was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// There is none of that name.
    #[error("there is no limit `{0}`; there are {all}", all = names())]
    Unknown(String),
    /// It cannot have that value.
    #[error("the limit `{limit}` is between {least} and {most} {unit}, not {value}", unit = limit.unit().as_str())]
    OutOfRange {
        /// The limit.
        limit: Limit,
        /// The value that was asked for.
        value: u64,
        /// The least that it can be.
        least: u64,
        /// The most that it can be.
        most: u64,
    },
}

fn names() -> String {
    Limit::ALL.map(Limit::as_str).join(", ")
}

/// Something is more than its limit allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit.
    pub limit: Limit,
    /// What was measured, as the subject of a sentence.
    pub what: String,
    /// How much it is, in the limit's unit.
    pub found: u64,
    /// How much the limit allows.
    pub allowed: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            limit,
            what,
            found,
            allowed,
        } = self;
        let unit = match limit.unit() {
            Unit::Count => String::new(),
            unit => format!(" {}", unit.as_str()),
        };
        let (_, most) = limit.range();
        write!(
            f,
            "{what} has {found}{unit}, and the limit `{limit}` allows {allowed}"
        )?;
        if *allowed < most {
            write!(
                f,
                " (`dirigent limits {limit}=...` raises it, up to {most})"
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Exceeded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_name_of_its_own_and_a_default_in_its_range() {
        for limit in Limit::ALL {
            assert_eq!(limit.as_str().parse::<Limit>(), Ok(limit));
            let (least, most) = limit.range();
            assert!((least..=most).contains(&limit.default()), "{limit}");
            assert_eq!(Limits::default().get(limit), limit.default());
        }
    }

    #[test]
    fn a_limit_is_set_within_its_range_only() {
        for limit in Limit::ALL {
            let (least, most) = limit.range();
            let mut limits = Limits::default();
            for value in [least, most] {
                limits.set(limit, value).unwrap();
                assert_eq!(limits.get(limit), value);
                let others = Limit::ALL.into_iter().filter(|other| *other != limit);
                for other in others {
                    assert_eq!(limits.get(other), other.default(), "{limit} {other}");
                }
            }
            limits.set(limit, most + 1).unwrap_err();
            limits.set(limit, least - 1).unwrap_err();
            assert_eq!(limits.get(limit), most);
        }
    }

    #[test]
    fn settings_name_the_limits_as_people_do_and_may_leave_any_out() {
        let json = serde_json::to_value(Limits::default()).unwrap();
        for limit in Limit::ALL {
            assert_eq!(json[limit.as_str()], limit.default(), "{limit}");
        }
        let some: Limits = serde_json::from_str(r#"{"saga-age": 7, "of-tomorrow": 1}"#).unwrap();
        assert_eq!(some.saga.saga_age, 7);
        assert_eq!(some.states, Limit::States.default());
    }

    #[test]
    fn whoever_exceeds_a_limit_learns_how_much_and_what_to_do() {
        let limits = Limits::default();
        let error = limits
            .check(Limit::Payload, "the input", 300_000)
            .unwrap_err();
        insta::assert_snapshot!(error, @"the input has 300000 bytes, and the limit `payload` allows 262144 (`dirigent limits payload=...` raises it, up to 524288)");
        assert!(limits.check(Limit::Payload, "the input", 262_144).is_ok());
        let error = limits
            .check(Limit::Definition, "the document", 1_048_577)
            .unwrap_err();
        insta::assert_snapshot!(error, @"the document has 1048577 bytes, and the limit `definition` allows 1048576");
    }
}
