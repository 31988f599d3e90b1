//! The worker SDK: plain async functions become tasks of a saga.
//!
//! ```no_run
//! use dirigent_worker::{TaskContext, TaskError, Worker, connect};
//! use serde_json::{Value, json};
//!
//! async fn charge_card(context: TaskContext, order: Value) -> Result<Value, TaskError> {
//!     if order["total"] == json!(0) {
//!         return Err(TaskError::new("NothingToPay", "the order is empty").permanent());
//!     }
//!     // The effect id is the same in every attempt: the payment provider's idempotency key.
//!     Ok(json!({ "payment": context.effect_id().to_string() }))
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = connect("nats://127.0.0.1:4222").await?;
//! let worker = Worker::builder(client).task("charge-card", charge_card).build()?;
//! worker.run_until_signal().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What holds: a command is acknowledged only when its reply is stored, so one that is being worked
//! on when a worker dies goes to another. Therefore a function may run more than once for one effect;
//! [`TaskContext::effect_id`] tells it so, and [`WorkerBuilder::idempotent`] remembers outcomes.

mod backoff;
mod connection;
mod context;
mod error;
mod execution;
mod handler;
mod inbox;
pub mod metrics;
mod pull;
mod reply;
pub mod telemetry;
mod trace;
mod worker;

pub use connection::{authenticated, connect};
pub use context::TaskContext;
pub use error::TaskError;
pub use worker::{BuildError, Worker, WorkerBuilder};
