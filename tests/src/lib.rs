//! What the end-to-end, fault, conformance and benchmark suites share.

pub mod nats;
