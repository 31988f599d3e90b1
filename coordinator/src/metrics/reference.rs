//! Every metric of a coordinator. The table in `docs/metrics.md` is this list, and a test compares them.
//!
//! Labels are the names of definitions and tasks, numbers of partitions, and words of ours; never a
//! key, a command or anything else that grows with the number of sagas.

use dirigent_contracts::{
    metric::{Buckets, Kind, SECONDS},
    metrics,
};

/// Most definitions that get a series of their own; further ones share the label `other`.
pub(super) const MOST_DEFINITIONS: usize = 200;
/// Most tasks that get series of their own; further ones share the label `other`.
pub(super) const MOST_TASKS: usize = 500;

/// What the coordinator does by itself: 10 µs to 5.2 s.
const WORK: Kind = Kind::Histogram(Buckets {
    first: 0.000_01,
    count: 20,
});
/// What waits for workers: 1 ms to 8.7 min.
const STEP: Kind = Kind::Histogram(Buckets {
    first: 0.001,
    count: 20,
});
/// Whole sagas: 10 ms to 11.7 h.
const SAGA: Kind = Kind::Histogram(Buckets {
    first: 0.01,
    count: 23,
});

metrics! {
    SAGAS_STARTED = Kind::Counter, "dirigent.sagas.started", "{saga}", ["definition"],
        "Sagas that began.";
    SAGAS_ENDED = Kind::Counter, "dirigent.sagas.ended", "{saga}", ["definition", "outcome"],
        "Sagas that ended, by how: succeeded, failed, compensated or canceled.";
    SAGAS_LIVE = Kind::Gauge, "dirigent.sagas.live", "{saga}", ["definition"],
        "Sagas that have begun and not ended, stuck ones included.";
    SAGAS_STUCK = Kind::Gauge, "dirigent.sagas.stuck", "{saga}", ["definition"],
        "Sagas that wait for a person.";
    SAGAS_INCIDENTS = Kind::Counter, "dirigent.sagas.incidents", "{incident}", ["definition"],
        "How often a saga got stuck.";
    SAGA_DURATION = SAGA, "dirigent.saga.duration", SECONDS, ["definition"],
        "From the entry that started a saga to the entry that ended it.";
    COMPENSATIONS = Kind::Counter, "dirigent.compensations", "{compensation}", ["definition"],
        "How often a saga began to undo what it had done.";
    COMPENSATION_FAILURES = Kind::Counter, "dirigent.compensation.failures", "{attempt}", ["definition"],
        "Attempts at undoing a step that failed or timed out.";
    RETRIES = Kind::Counter, "dirigent.retries", "{attempt}", ["definition"],
        "Further attempts that were scheduled after one that failed.";
    ATTEMPTS = Kind::Counter, "dirigent.attempts", "{attempt}", ["task", "outcome"],
        "Attempts of tasks that ended: succeeded, failed or timed-out.";
    ATTEMPT_DURATION = STEP, "dirigent.attempt.duration", SECONDS, ["task", "phase"],
        "Parts of an answered attempt: transition (from the entry that asks for it until its command is stored), queue (until a worker begins, and from its end until its reply is stored) and run (the worker's own time).";
    REPLIES_LATE = Kind::Counter, "dirigent.replies.late", "{reply}", ["definition"],
        "Replies to attempts that had been given up.";
    ENTRIES = Kind::Counter, "dirigent.entries", "{entry}", ["kind"],
        "Journal entries that were folded, by kind: start, reply, event, timer, control or child.";
    ENTRIES_IGNORED = Kind::Counter, "dirigent.entries.ignored", "{entry}", ["reason"],
        "Journal entries that changed nothing: duplicates, and what nobody waits for.";
    DEAD_LETTERS = Kind::Counter, "dirigent.dead_letters", "{letter}", ["source"],
        "Messages that could not be understood and were put aside, by source: event or journal.";
    DEAD_LETTERS_KEPT = Kind::Gauge, "dirigent.dead_letters.kept", "{letter}", [],
        "Dead letters of all sources that wait for a person.";
    FOLD_DURATION = WORK, "dirigent.fold.duration", SECONDS, [],
        "Time to fold one journal entry, without reading or publishing.";
    PUBLISH_DURATION = WORK, "dirigent.publish.duration", SECONDS, [],
        "From handing a message over until the broker has stored or refused it, repetitions included.";
    PUBLISH_REPETITIONS = Kind::Counter, "dirigent.publish.repetitions", "{publish}", [],
        "Publishes that were repeated because the broker did not acknowledge them.";
    SNAPSHOT_DURATION = WORK, "dirigent.snapshot.duration", SECONDS, ["operation"],
        "Time to write a snapshot (put), to remove one (remove), or to write a checkpoint (checkpoint).";
    STARTS_REFUSED = Kind::Counter, "dirigent.starts.refused", "{start}", [],
        "Requests for new sagas that were refused because there was too much to do.";
    COMMANDS_REFUSED = Kind::Counter, "dirigent.commands.refused", "{command}", [],
        "Steps that failed because too many commands of their task waited.";
    PARTITION_OWNED = Kind::Gauge, "dirigent.partition.owned", "{partition}", ["partition"],
        "1 for each partition that this coordinator owns.";
    PARTITION_LEASE_AGE = Kind::Gauge, "dirigent.partition.lease.age", SECONDS, ["partition"],
        "How long this coordinator has owned the partition.";
    PARTITION_TAKEOVERS = Kind::Counter, "dirigent.partition.takeovers", "{takeover}", ["partition"],
        "How often this coordinator took the partition over.";
    PARTITION_RECOVERY = STEP, "dirigent.partition.recovery.duration", SECONDS, [],
        "From taking a partition over until its journal is caught up.";
    PARTITION_LAG = Kind::Gauge, "dirigent.partition.lag", "{entry}", ["partition"],
        "Entries that the journal holds and that are not folded yet.";
    TASK_BACKLOG = Kind::Gauge, "dirigent.task.backlog", "{command}", ["task"],
        "Commands that no worker has been given yet.";
    TASK_IN_PROGRESS = Kind::Gauge, "dirigent.task.in_progress", "{command}", ["task"],
        "Commands that a worker has been given and has not answered.";
    TASK_PULLS = Kind::Gauge, "dirigent.task.pulls", "{request}", ["task"],
        "Requests for commands that workers have open at the broker: 0 if none is there or all are busy.";
    TASK_OLDEST = Kind::Gauge, "dirigent.task.oldest", SECONDS, ["task"],
        "Age of the oldest command that is not answered, by this coordinator's clock; 0 if there is none.";
    BROKER_ROUND_TRIP = WORK, "dirigent.broker.round_trip", SECONDS, [],
        "Time that a small JetStream request takes.";
    BROKER_UNANSWERED = Kind::Counter, "dirigent.broker.unanswered", "{request}", [],
        "Small JetStream requests that failed or were not answered in time.";
}
