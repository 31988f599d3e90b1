//! What the suites share: a real broker, a coordinator on it, and workers that do as a test says.

pub mod crew;
pub mod ledger;
pub mod nats;
pub mod stage;
