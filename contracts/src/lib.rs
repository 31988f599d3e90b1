//! What crosses a wire or a disk in Dirigent.
//!
//! Two processes that were built on different days must still understand each other: a coordinator
//! and a worker over NATS, or today's coordinator and the journal that yesterday's wrote. All that
//! they have to agree on lives in this crate, and nothing else does:
//!
//! * [`id`]: the names of things. Newtypes, so that a key is never passed where a task is meant.
//! * [`token`]: the one reversible encoding of any key into a subject-safe token.
//! * [`subject`]: every subject, stream, bucket and consumer name.
//! * [`header`]: the NATS headers that we read and write.
//! * [`envelope`]: MessagePack bodies and their format version.
//! * [`journal`]: the entries of a partition's journal, the only source of truth.
//! * [`task`]: the command that asks a worker for one attempt, and the reply that answers.
//! * [`consumer`]: the consumer by which workers get the commands of a task.
//! * [`event`]: `CloudEvents`, in and out.
//! * [`outcome`]: how a saga stands and how it ends.
//! * [`history`]: what happened to a saga, told as typed events.
//! * [`trace`]: the same as spans.
//! * [`api`]: requests to `dirigent.api.>` and their answers.
//! * [`definition`]: the definition language: its types, parsing and validation.
//! * [`metric`]: what a metric is called and means.
//! * [`limits`]: the bounds that an operator can change; [`limit`]: those that nobody can.
//! * [`error_name`]: the error names that the language reserves.
//!
//! Invariants: every type that is stored or sent has a golden-bytes test, so a change of the wire is
//! a failing test; every parser here accepts any bytes without panicking.

pub mod api;
pub mod consumer;
pub mod definition;
pub mod envelope;
pub mod error_name;
pub mod event;
pub mod header;
pub mod history;
pub mod id;
pub mod journal;
pub mod letter;
pub mod limit;
pub mod limits;
pub mod metric;
pub mod outcome;
pub mod subject;
pub mod task;
pub mod time;
pub mod token;
pub mod trace;
