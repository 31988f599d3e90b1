//! Whole sagas on a real broker: each test has a nats-server, a coordinator and workers of its own.

mod compensation;
mod control;
mod hostile;
mod restarts;
mod steps;
mod waiting;
