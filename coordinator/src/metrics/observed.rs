//! What is looked at only when somebody asks: partitions of this coordinator, and tasks on the broker.

use super::{labels, reference as of};
use dirigent_contracts::{
    id::{JournalSeq, PartitionId},
    metric::Metric,
};
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A partition that this coordinator owns.
#[derive(Debug)]
pub(super) struct Owned {
    since: Instant,
    folded: AtomicU64,
    /// The journal's last entry when it was looked at.
    end: AtomicU64,
    is_caught_up: AtomicBool,
}

impl Owned {
    pub(super) fn set_folded(&self, seq: JournalSeq) {
        self.folded.store(seq.0, Relaxed);
    }

    pub(super) fn set_end(&self, seq: u64) {
        self.end.store(seq, Relaxed);
    }

    pub(super) fn set_caught_up(&self) {
        self.is_caught_up.store(true, Relaxed);
    }

    /// Whether all is folded that was stored when the partition was taken over.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_caught_up.load(Relaxed)
    }

    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    fn lag(&self) -> u64 {
        self.end
            .load(Relaxed)
            .saturating_sub(self.folded.load(Relaxed))
    }
}

/// A task as its consumer stands on the broker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Task {
    /// Commands that no worker has been given.
    pub(super) backlog: u64,
    /// Commands that a worker has been given and has not answered.
    pub(super) in_progress: u64,
    /// Open requests for commands.
    pub(super) pulls: u64,
    /// Age of the oldest command.
    pub(super) oldest: Duration,
}

/// What one look at the broker showed of everybody's tasks.
#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) dead_letters: u64,
}

/// All of it. The part of the broker is told by one coordinator at a time, or sums would double.
#[derive(Debug, Default)]
pub(super) struct Observed {
    partitions: Mutex<BTreeMap<PartitionId, Arc<Owned>>>,
    broker: Mutex<Option<Broker>>,
}

impl Observed {
    pub(super) fn own(&self, partition: PartitionId) -> Arc<Owned> {
        let owned = Arc::new(Owned {
            since: Instant::now(),
            folded: AtomicU64::new(0),
            end: AtomicU64::new(0),
            is_caught_up: AtomicBool::new(false),
        });
        self.lock().insert(partition, Arc::clone(&owned));
        owned
    }

    /// Forgets a partition, unless it was taken over anew meanwhile.
    pub(super) fn disown(&self, partition: PartitionId, owned: &Arc<Owned>) {
        let mut partitions = self.lock();
        if partitions
            .get(&partition)
            .is_some_and(|current| Arc::ptr_eq(current, owned))
        {
            partitions.remove(&partition);
        }
    }

    pub(super) fn partitions(&self) -> BTreeMap<PartitionId, Arc<Owned>> {
        self.lock().clone()
    }

    pub(super) fn set_broker(&self, broker: Option<Broker>) {
        *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = broker;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Arc<Owned>>> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a meter look here.
    pub(super) fn observe(self: &Arc<Self>, meter: &Meter) {
        let by_partition = |metric: Metric, value: fn(&Owned) -> f64| {
            let observed = Arc::clone(self);
            gauge(meter, metric, move |observer| {
                for (partition, owned) in observed.partitions() {
                    observer.observe(value(&owned), &[labels::partition(partition)]);
                }
            });
        };
        by_partition(of::PARTITION_OWNED, |_| 1.0);
        by_partition(of::PARTITION_LEASE_AGE, |owned| owned.age().as_secs_f64());
        by_partition(of::PARTITION_LAG, |owned| count(owned.lag()));
        let by_task = |metric: Metric, value: fn(&Task) -> f64| {
            let observed = Arc::clone(self);
            gauge(meter, metric, move |observer| {
                let broker = observed
                    .broker
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                for (name, task) in broker.iter().flat_map(|broker| &broker.tasks) {
                    observer.observe(value(task), &[labels::task(name)]);
                }
            });
        };
        by_task(of::TASK_BACKLOG, |task| count(task.backlog));
        by_task(of::TASK_IN_PROGRESS, |task| count(task.in_progress));
        by_task(of::TASK_PULLS, |task| count(task.pulls));
        by_task(of::TASK_OLDEST, |task| task.oldest.as_secs_f64());
        let observed = Arc::clone(self);
        gauge(meter, of::DEAD_LETTERS_KEPT, move |observer| {
            let broker = observed
                .broker
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(broker) = &*broker {
                observer.observe(count(broker.dead_letters), &[] as &[KeyValue]);
            }
        });
    }
}

fn gauge(
    meter: &Meter,
    metric: Metric,
    look: impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + 'static,
) {
    let builder = meter.f64_observable_gauge(metric.name);
    let builder = builder.with_unit(metric.unit).with_description(metric.help);
    // The meter keeps the callback; the handle has nothing to do.
    let _ = builder.with_callback(look).build();
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn count(number: u64) -> f64 {
    number as f64
}
