//! Whole sagas on a real broker: each test has a nats-server, a coordinator and workers of its own.

mod broken;
mod compensation;
mod control;
mod events;
mod examples;
mod hostile;
mod installation;
mod languages;
mod limits;
mod maps;
mod metrics;
mod node;
mod overload;
mod payloads;
mod restarts;
mod steps;
mod traces;
mod waiting;
mod workers;
