//! Sagas that this build cannot fold: they wait as incidents, and what comes for them waits with them.
//!
//! Nothing of such a saga is lost. Once a Retry comes that can be folded, it goes on with what it missed.

use super::{
    effect::{Effect, Effects, Ignored},
    fold::{Record, ignored},
    program::Program,
    saga::{Missed, Run, Saga},
};
use dirigent_contracts::{
    error_name,
    history::{Happening, HistoryEvent},
    journal::{Control, Entry},
    limit,
    outcome::Failure,
};
use std::sync::Arc;

/// Why a saga cannot be folded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unfit<'a> {
    /// Its version of the definition is missing, or does not compile.
    Missing,
    /// The fold broke off.
    Unsound(&'a str),
}

impl Saga {
    /// The saga cannot be folded: it waits for a person, and the entry with it.
    pub(super) fn break_down(&mut self, record: &Record, unfit: Unfit<'_>) -> Effects {
        let Some(run) = &mut self.run else {
            return Effects::default();
        };
        let failure = match unfit {
            Unfit::Missing => Failure::new(
                error_name::RUNTIME,
                format!(
                    "version {} of the definition '{}' cannot be run: it is missing, or this build \
                     does not understand it",
                    run.digest.short(),
                    self.address.definition
                ),
            ),
            Unfit::Unsound(why) => Failure::new(
                error_name::BROKEN,
                format!(
                    "this build cannot fold entry {} of the saga's journal ({why}): upgrade the \
                     coordinators, then let the saga try again",
                    record.seq
                ),
            )
            .clipped(),
        };
        run.broken = Some(failure.clone());
        if run.has_begun {
            run.keep(record);
        }
        let what = Happening::Stuck {
            state: String::new(),
            failure: failure.clone(),
        };
        Effects {
            effects: vec![Effect::Incident {
                state: String::new(),
                failure,
                at: record.at,
            }],
            history: vec![HistoryEvent {
                seq: record.seq,
                at: record.at,
                scope: 0,
                visit: 0,
                what,
            }],
            ignored: None,
        }
    }

    /// A broken saga hears an entry: a Retry mends it, if it can be folded now. Everything else waits.
    pub(super) fn mend(
        &mut self,
        program: Result<&Program, Unfit<'_>>,
        record: &Record,
    ) -> Effects {
        let Some(run) = &mut self.run else {
            return Effects::default();
        };
        let machine = run.machine();
        let program = program.ok().filter(|it| it.machine(machine).is_some());
        let (program, reason) = match (&record.entry, program) {
            (Entry::Control(Control::Retry { reason }), Some(program)) => (program, reason),
            (Entry::Control(Control::Retry { .. } | Control::Skip { .. }) | Entry::Timer(_), _) => {
                return ignored(Ignored::NotApplicable);
            }
            _ if run.keep(record) => return Effects::default(),
            _ => return ignored(Ignored::NotApplicable),
        };
        let has_begun = run.has_begun || run.next_step > 1 || !run.pending.is_empty();
        let missed = std::mem::take(&mut run.missed);
        run.broken = None;
        run.has_begun = true;
        run.set_deadline(program, record.at);
        let input = Arc::clone(&run.input);
        let mut effects = self.turn(program, record, |turn| {
            let told = Happening::Resumed {
                skipped: false,
                reason: reason.clone(),
            };
            turn.tell(0, told);
            if !has_begun {
                turn.start(0, machine, input);
            }
        });
        for Missed { seq, entry } in missed {
            // The present is the Retry's: a deadline that it sets now must not have passed already.
            let missed = Record {
                seq,
                entry,
                ..record.clone()
            };
            let caused = self.fold(Ok(program), &missed);
            effects.effects.extend(caused.effects);
            effects.history.extend(caused.history);
        }
        effects
    }
}

impl Run {
    /// Keeps an entry until the saga is mended; false if there are too many already.
    fn keep(&mut self, record: &Record) -> bool {
        let has_room = self.missed.len() < limit::MISSED_ENTRIES;
        if has_room {
            self.missed.push(Missed {
                seq: record.seq,
                entry: record.entry.clone(),
            });
        }
        has_room
    }
}
