//! The error names that the language reserves, and ours beside them.
//!
//! Names that begin with `States.` are those of the Amazon States Language specification; names that
//! begin with `Dirigent.` are ours. A worker's own error names must use neither prefix.

/// Matches any error but the two that cannot be caught.
pub const ALL: &str = "States.ALL";
/// A heartbeat did not come within `HeartbeatSeconds`.
pub const HEARTBEAT_TIMEOUT: &str = "States.HeartbeatTimeout";
/// A Task or the whole saga ran longer than its `TimeoutSeconds`.
pub const TIMEOUT: &str = "States.Timeout";
/// A Task failed; as a matcher it stands for any error of a Task but a timeout.
pub const TASK_FAILED: &str = "States.TaskFailed";
/// The Task may not run at all.
pub const PERMISSIONS: &str = "States.Permissions";
/// `ResultPath` does not fit the input.
pub const RESULT_PATH_MATCH_FAILURE: &str = "States.ResultPathMatchFailure";
/// A path in a payload template finds nothing.
pub const PARAMETER_PATH_FAILURE: &str = "States.ParameterPathFailure";
/// A branch of a Parallel failed.
pub const BRANCH_FAILED: &str = "States.BranchFailed";
/// No rule of a Choice matched and it has no default.
pub const NO_CHOICE_MATCHED: &str = "States.NoChoiceMatched";
/// An intrinsic function failed.
pub const INTRINSIC_FAILURE: &str = "States.IntrinsicFailure";
/// More iterations of a Map failed than it tolerates.
pub const EXCEED_TOLERATED_FAILURE_THRESHOLD: &str = "States.ExceedToleratedFailureThreshold";
/// The items of a Map could not be read.
pub const ITEM_READER_FAILED: &str = "States.ItemReaderFailed";
/// The results of a Map could not be written.
pub const RESULT_WRITER_FAILED: &str = "States.ResultWriterFailed";
/// An expression could not be evaluated.
pub const QUERY_EVALUATION_ERROR: &str = "States.QueryEvaluationError";
/// An input, an output or a variable is larger than [`crate::limits::SagaLimits::payload`], or all variables
/// together than [`crate::limit::VARIABLES_BYTES`].
pub const DATA_LIMIT_EXCEEDED: &str = "States.DataLimitExceeded";
/// The saga failed in a way that no state can handle.
pub const RUNTIME: &str = "States.Runtime";
/// A child saga could not be started: no such definition, or its key is taken.
pub const CHILD_NOT_STARTED: &str = "Dirigent.ChildNotStarted";
/// A child saga was canceled.
pub const CHILD_CANCELED: &str = "Dirigent.ChildCanceled";
/// A command was given up by the broker: it ended its worker on every delivery.
pub const POISON_COMMAND: &str = "Dirigent.PoisonCommand";
/// More commands wait for the workers of a task than may: this one was not published.
pub const QUEUE_FULL: &str = "Dirigent.QueueFull";
/// A handler panicked.
pub const WORKER_PANIC: &str = "Dirigent.WorkerPanic";
/// A handler got an input that it cannot read, or made an output that cannot be sent.
pub const BAD_PAYLOAD: &str = "Dirigent.BadPayload";
/// The effect was undone before this attempt came: it must not happen any more.
pub const UNDONE: &str = "Dirigent.Undone";
/// The saga has gone forward for longer than [`crate::limits::SagaLimits::saga_age`].
pub const SAGA_TOO_OLD: &str = "Dirigent.SagaTooOld";
/// The saga has taken in more entries than [`crate::limits::SagaLimits::history`].
pub const HISTORY_TOO_LONG: &str = "Dirigent.HistoryTooLong";
/// An inline Map has more items than [`crate::limits::SagaLimits::inline_map_items`].
pub const TOO_MANY_ITEMS: &str = "Dirigent.TooManyItems";
/// This build cannot fold what came for the saga.
pub const BROKEN: &str = "Dirigent.Broken";
/// The saga was canceled.
pub const CANCELED: &str = "Dirigent.Canceled";
