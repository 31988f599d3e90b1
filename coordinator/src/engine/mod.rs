//! The engine: a pure fold over a saga's journal entries.
//!
//! [`fold()`](fold::fold) takes the state of one saga, its [`Program`] and one [`Record`], and gives
//! the next state and the [`Effects`]: what the world is to do. It knows no clock, no randomness and
//! no I/O; "now" is the entry's time, and randomness is seeded from the saga and the entry. So the
//! same entries give the same state and the same effects, whoever folds them and however often, and
//! a saga's fold looks at nothing but its own entries: folding them again *is* its history.
//!
//! A map of the files:
//!
//! * [`program`]: a definition compiled.
//! * [`saga`]: the state.
//! * [`effect`]: what is asked for.
//! * [`mod@fold`]: one entry is taken in.
//! * `turn`: the work that it causes, until all waits again.
//! * `transition`: entering, finishing, failing and leaving a state.
//! * `attempt`: steps and answers.
//! * `branching`: Parallel and Map.
//! * `distribution`, `results`: Maps whose items are sagas of their own; [`store`]: what they ask of the
//!   object store.
//! * `bounds`: what a saga may use; `broken`: sagas that cannot be folded.
//! * `undo`, `compensation`: the stack of what there is to undo, and undoing it.
//! * `evaluation`, `comparison`: data in and out, and tests on it.
//! * [`description`]: a saga's state in words.
//! * [`offline`]: sagas without a broker.

mod attempt;
mod bounds;
mod branching;
mod broken;
mod comparison;
mod compensation;
pub mod description;
mod distribution;
pub mod effect;
mod evaluation;
pub mod fold;
pub mod offline;
pub mod program;
mod results;
pub mod saga;
pub mod store;
mod transition;
mod turn;
mod undo;

pub use effect::{DomainEvent, Effect, Effects, Ignored};
pub use fold::{Record, fold, set_aside};
pub(crate) use program::consumers;
pub use program::{Fault, Program};
pub use saga::{Run, Saga};

#[cfg(test)]
mod tests;
