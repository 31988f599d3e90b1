//! The conductor: a pure saga engine, and the partition loop that joins it to `JetStream`.
//!
//! Worker replies, trigger events, timers and requests are appended to the journal of a partition;
//! the partition's one owner reads the journal in order, folds each entry into a saga's state in
//! memory, and publishes what the fold asks for: commands to workers, events to everybody. Snapshots
//! of the states are written behind.
//!
//! * [`engine`] and [`expression`] decide, and touch nothing: no clock, no randomness, no I/O.
//! * `partition` does: it is the only place where decisions meet the broker.
//! * [`broker`] speaks `JetStream`.
//! * `router` turns trigger events into starts.
//! * [`api`] answers requests.
//! * [`metrics`] counts what happens.
//!
//! Invariants: an effect is never acted on before its cause is stored; an effect is never skipped;
//! everything may be delivered twice; a saga's fold looks at nothing but its own entries.

mod admission;
pub mod api;
pub mod broker;
mod containment;
mod definitions;
pub mod engine;
pub mod expression;
mod logs;
pub mod metrics;
mod partition;
mod router;
mod settings;
mod spans;
pub mod telemetry;

mod conductor;

#[cfg(test)]
#[path = "../../tests/fuzz/mod.rs"]
mod fuzz;

#[cfg(test)]
#[path = "../../tests/simulation/mod.rs"]
mod simulation;

pub use conductor::{Coordinator, StartError};
pub use definitions::compile;
pub use settings::Settings;
