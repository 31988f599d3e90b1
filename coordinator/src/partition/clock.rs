//! The local clock, as far as it can be trusted: one that is set back goes on as if it had not been.
//!
//! It decides only when a timer is *published*; the fold goes by the journal's. A clock that is ahead
//! makes a timer early, which the journal then shows; one that fell behind would make timers of a
//! partition late in which nothing else happens, and nothing would show it.

use dirigent_contracts::time::Timestamp;
use std::time::Instant;

/// A clock that never goes slower than the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    last: Timestamp,
    at: Instant,
}

impl Clock {
    /// A clock that begins with what the wall clock says now.
    pub(crate) fn new(wall: Timestamp, now: Instant) -> Self {
        Self {
            last: wall,
            at: now,
        }
    }

    /// The time, when the wall clock says `wall`. It may have been set forward, or the machine may have
    /// slept: then it is right.
    pub(crate) fn read(&mut self, wall: Timestamp, now: Instant) -> Timestamp {
        let steady = self.last + now.saturating_duration_since(self.at);
        (self.last, self.at) = (wall.max(steady), now);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_that_is_set_back_goes_on() {
        let began = Instant::now();
        let mut clock = Clock::new(Timestamp(1_000_000), began);
        let later = began + Duration::from_secs(5);
        assert_eq!(clock.read(Timestamp(0), later), Timestamp(6_000_000));
        let later = later + Duration::from_secs(1);
        assert_eq!(clock.read(Timestamp(1), later), Timestamp(7_000_000));
    }

    #[test]
    fn a_clock_that_is_set_forward_is_believed() {
        let began = Instant::now();
        let mut clock = Clock::new(Timestamp(0), began);
        let night = Timestamp(28_800_000_000);
        assert_eq!(clock.read(night, began), night);
    }
}
