//! The limits that nobody can change, each with its value and unit; those that an operator can are in
//! [`crate::limits`]. `docs/limits.md` tells of both.
//!
//! A limit is checked where the thing enters (API, trigger, reply), so the engine never meets more.

use std::time::Duration;

/// Longest saga key, in bytes of UTF-8.
pub const KEY_BYTES: usize = 256;
/// Longest name of a definition, in bytes. The same as AWS's limit for a state machine's name.
pub const DEFINITION_NAME_BYTES: usize = 80;
/// Longest name of a task, in bytes.
pub const TASK_NAME_BYTES: usize = 128;
/// The most that [`crate::limits::SagaLimits::payload`] can be set to, in bytes of JSON: what fits into
/// a message of a server with its default settings, with an envelope around it.
pub const LARGEST_PAYLOAD_BYTES: usize = 524_288;
/// Largest body of a journal entry or a command that travels in its message, in bytes; a larger one stands in
/// the object store.
pub const INLINE_BYTES: usize = 65_536;
/// Largest body of a journal entry or a command that is read from the object store, in bytes.
pub const LARGEST_BODY_BYTES: usize = 16 * 1_048_576;
/// Largest snapshot, in bytes as it is stored.
pub const LARGEST_SNAPSHOT_BYTES: usize = 256 * 1_048_576;
/// Largest snapshot that stands in its bucket, in bytes; a larger one stands in the object store.
pub const INLINE_SNAPSHOT_BYTES: usize = 524_288;
/// Most sagas of a list: so many fit into a message.
pub const LISTED_SAGAS: usize = 1_000;
/// Longest name of an event that a saga awaits, in bytes.
pub const EVENT_NAME_BYTES: usize = 256;
/// Longest id of an event, and longest source of a CloudEvent, in bytes.
pub const EVENT_ID_BYTES: usize = 1_024;
/// Largest definition document, in bytes: the 1 MiB of Step Functions.
pub const DEFINITION_BYTES: usize = 1_048_576;
/// Most values of a definition document: aliases of YAML could make a small text huge.
pub const DEFINITION_NODES: usize = 200_000;
/// Deepest nesting of a value or a document, in levels.
pub const DEPTH: usize = 128;
/// How long a Task may run when it does not say: the 99,999,999 s of Step Functions.
pub const TASK_TIMEOUT: Duration = Duration::from_secs(99_999_999);
/// How long one attempt of a compensation may run when its definition does not say, unless it is a saga.
pub const COMPENSATION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an undo waits for the answer of an attempt that was abandoned while it ran.
pub const SETTLE_TIME: Duration = Duration::from_secs(10);
/// How long an event for a saga that has not started is kept for it.
pub const EARLY_EVENT_RETENTION: Duration = Duration::from_secs(3_600);
/// Most events that one saga buffers before it awaits them; the oldest go first.
pub const BUFFERED_EVENTS: usize = 64;
/// Most entries that wait in a saga which cannot be folded until it can; further ones are passed over.
pub const MISSED_ENTRIES: usize = 1_000;
/// State transitions that one journal entry may cause: a loop without a step ends here.
pub const TRANSITIONS_PER_ENTRY: u64 = 25_000;
/// How many more it may cause for each branch or iteration that there is, of which as many count as
/// [`crate::limits::SagaLimits::inline_map_items`] says.
pub const TRANSITIONS_PER_SCOPE: u64 = 10;
/// Most bytes of JSON that all variables of a saga have together: the 10 MiB of Step Functions.
pub const VARIABLES_BYTES: u64 = 10 * 1_048_576;
/// Longest name of an error that a worker sends, in bytes: the 256 characters of Step Functions.
pub const ERROR_NAME_BYTES: usize = 256;
/// Longest cause of an error that a worker sends, and longest reason that an operator gives, in bytes: the
/// 32,768 characters of Step Functions.
pub const CAUSE_BYTES: usize = 32_768;
/// Longest reason of a dead letter, in bytes; the broker takes 64 KiB of headers, others included.
pub const DEAD_REASON_BYTES: usize = 1_024;
/// Most items of a distributed Map that run at once when it does not say, or says more.
pub const MAP_CONCURRENCY: u32 = 1_000;
/// Most items that are read from an object in one go.
pub const MAP_READ_ITEMS: usize = 500;
/// Most bytes of JSON that are read from an object in one go, unless a single item has more.
pub const MAP_READ_BYTES: usize = 65_536;
/// How many bytes of results a Map collects before it writes them to an object.
pub const MAP_WRITE_BYTES: usize = 65_536;
/// How many bytes of items and results a saga may hold while they are on their way to an object;
/// above that, no further item begins.
pub const MAP_HELD_BYTES: usize = 262_144;
