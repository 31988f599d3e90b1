//! The definition language: Amazon States Language with the saga extension.

pub mod model;
