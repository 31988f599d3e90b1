//! What the suites share: a real broker or a cluster of them, a coordinator on it, workers that do as a
//! test says, and what goes wrong with processes, networks, disks and clocks.

pub mod checker;
pub mod clock;
pub mod cluster;
pub mod crew;
pub mod disk;
pub mod ledger;
pub mod nats;
pub mod network;
pub mod process;
pub mod python;
pub mod request;
pub mod sandbox;
pub mod stage;
