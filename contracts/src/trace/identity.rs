//! Ids of spans: derived from the run and the place in its history, never drawn, so that a history that
//! is told again has the same ones, and whoever sends a message knows the id of a span that has not
//! ended yet.

use crate::id::{CommandId, EffectId, RunId};
use xxhash_rust::xxh3::xxh3_64;

/// Keeps the ids of different kinds of spans apart.
#[derive(Clone, Copy)]
enum Kind {
    State = 1,
    Member = 2,
    Attempt = 3,
    Publication = 4,
    Pause = 5,
}

/// A saga's span: the first half of its run's id.
#[must_use]
pub fn of_saga(run: RunId) -> u64 {
    nonzero((run.0.as_u128() >> 64) as u64)
}

/// A scope's stay in a state: the scope, and which of its states it is, counted from 1.
#[must_use]
pub fn of_state(run: RunId, scope: u32, visit: u32) -> u64 {
    derive(run, Kind::State, u64::from(scope), u64::from(visit))
}

/// A branch of a Parallel, or an iteration of a Map, by its scope.
#[must_use]
pub fn of_member(run: RunId, scope: u32) -> u64 {
    derive(run, Kind::Member, u64::from(scope), 0)
}

/// An attempt.
#[must_use]
pub fn of_attempt(command: CommandId) -> u64 {
    let CommandId { effect, attempt } = command;
    let (step, attempt) = (u64::from(effect.step), u64::from(attempt));
    derive(effect.run, Kind::Attempt, step, attempt)
}

/// The publication of a domain event.
#[must_use]
pub fn of_publication(event: EffectId) -> u64 {
    derive(event.run, Kind::Publication, u64::from(event.step), 0)
}

/// The pause before another attempt.
#[must_use]
pub fn of_pause_before(command: CommandId) -> u64 {
    let CommandId { effect, attempt } = command;
    let (step, attempt) = (u64::from(effect.step), u64::from(attempt));
    derive(effect.run, Kind::Pause, step, attempt)
}

/// Another pause, by the span of its state and when it is to end.
pub(super) fn of_pause(run: RunId, state: u64, due: i64) -> u64 {
    derive(run, Kind::Pause, state, due.unsigned_abs())
}

fn derive(run: RunId, kind: Kind, a: u64, b: u64) -> u64 {
    let mut place = [0; 33];
    place[..16].copy_from_slice(run.0.as_bytes());
    place[16] = kind as u8;
    place[17..25].copy_from_slice(&a.to_be_bytes());
    place[25..].copy_from_slice(&b.to_be_bytes());
    nonzero(xxh3_64(&place))
}

/// An id of zero means "none" in W3C trace context.
fn nonzero(id: u64) -> u64 {
    id.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    #[test]
    fn spans_of_different_things_have_different_ids() {
        let mut ids = BTreeSet::new();
        let mut count = 0;
        for run in [RunId(Uuid::from_u128(1)), RunId(Uuid::from_u128(1 << 127))] {
            for a in 0..20 {
                ids.insert(of_member(run, a));
                ids.insert(of_publication(run.effect(a)));
                for b in 0..20 {
                    ids.insert(of_state(run, a, b));
                    ids.insert(of_attempt(run.effect(a).command(b)));
                    ids.insert(of_pause_before(run.effect(a).command(b)));
                    count += 3;
                }
                count += 2;
            }
        }
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn no_span_has_the_id_that_means_none() {
        assert_eq!(of_saga(RunId(Uuid::nil())), 1);
    }
}
