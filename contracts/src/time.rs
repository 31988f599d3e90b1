//! Instants and durations as the engine counts them: whole microseconds.
//!
//! "Now" is always the timestamp that `JetStream` gave a journal entry, never a local clock.

use serde::{Deserialize, Serialize};
use std::{fmt, ops::Add, time::Duration};

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// An instant that never comes.
    pub const NEVER: Self = Self(i64::MAX);

    /// From nanoseconds since the epoch, as `JetStream` reports them; the rest is cut off.
    #[must_use]
    pub fn from_nanos(nanos: i128) -> Self {
        Self(i64::try_from(nanos.div_euclid(1_000)).unwrap_or(i64::MAX))
    }

    /// From milliseconds since the epoch.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Milliseconds since the epoch, rounded down.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Nanoseconds since the epoch, as OpenTelemetry counts.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.max(0))
            .unwrap_or(0)
            .saturating_mul(1_000)
    }

    /// Time from `earlier` to here, or zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The instant so much earlier.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)),
        )
    }

    /// RFC 3339 with milliseconds and `Z`, as the context object of the language shows it.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_microsecond(self.0)
            .map_or_else(|_| format!("{}us", self.0), |at| format!("{at:.3}"))
    }

    /// Parses an RFC 3339 instant with an offset. `None` if the text is not one.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>()
            .ok()
            .map(|at| Self(at.as_microsecond()))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at [`Timestamp::NEVER`]: a deadline too far away to count is one that never comes.
    fn add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_survives_its_text_form() {
        let at = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(at.to_rfc3339(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Timestamp::parse_rfc3339(&at.to_rfc3339()), Some(at));
    }

    #[test]
    fn a_deadline_too_far_away_never_comes() {
        assert_eq!(Timestamp(5) + Duration::MAX, Timestamp::NEVER);
    }
}
