//! Admission control: whether new sagas are let in while there is too much to do already.
//!
//! Only starts are held back, and only at the door: the API refuses them, the router leaves their
//! events in the stream. Whatever belongs to a saga that has begun goes on. A start is held back
//! while its partition is behind (its owner measures that, and tells the others with its beat), or
//! while too many commands wait for the workers of one of its tasks ([`queues`]): so a slow task holds
//! up the definitions that need it, and no others.

mod queues;

pub(crate) use queues::{Queue, watch};

use crate::settings::Settings;
use dirigent_contracts::id::PartitionId;
use queues::Queues;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// After what time a start that was refused may be tried again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Starts that one coordinator works on at a time. When the broker is slow to store them, further ones
/// are refused at once: they would wait where nobody counts them.
pub(crate) const MOST_STARTS: usize = 1_024;

/// What there is too much of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    /// Entries and effects of a partition.
    #[error("partition {0} is behind with what has begun")]
    Partition(PartitionId),
    /// Starts that are not stored yet.
    #[error("{MOST_STARTS} starts are under way")]
    Starts,
    /// Commands of a task.
    #[error("{waiting} commands wait for the workers of {task}")]
    Task {
        /// The task's name, as its consumer's.
        task: String,
        /// How many.
        waiting: u64,
    },
}

/// What is known of how much there is to do. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start_backlog: u64,
    partitions: Vec<Load>,
    queues: Queues,
}

#[derive(Debug, Default)]
struct Load {
    /// Entries that are not folded and effects that are not acknowledged, of a partition that is ours.
    own: AtomicU64,
    /// Whether its owner, another coordinator, says that it is behind.
    is_behind_elsewhere: AtomicBool,
}

impl Admission {
    pub(crate) fn new(partitions: u16, settings: &Settings) -> Self {
        Self(Arc::new(Shared {
            start_backlog: settings.start_backlog,
            partitions: (0..partitions).map(|_| Load::default()).collect(),
            queues: Queues::new(settings.queue_limit),
        }))
    }

    /// Whether a saga may begin in this partition, which will ask for the tasks of these consumers.
    pub(crate) fn admit(&self, partition: PartitionId, consumers: &[String]) -> Result<(), Busy> {
        let load = self.0.partitions.get(usize::from(partition.0));
        if load.is_some_and(|load| self.is_behind(load) || load.is_behind_elsewhere.load(Relaxed)) {
            return Err(Busy::Partition(partition));
        }
        for consumer in consumers {
            let queue = self.0.queues.of(consumer);
            queue.want();
            let waiting = queue.waiting();
            if waiting > self.0.start_backlog {
                let task = queue.task();
                return Err(Busy::Task { task, waiting });
            }
        }
        Ok(())
    }

    fn is_behind(&self, load: &Load) -> bool {
        load.own.load(Relaxed) > self.0.start_backlog
    }

    /// The commands of a task, by the name of its consumer.
    pub(crate) fn queue(&self, consumer: &str) -> Arc<Queue> {
        self.0.queues.of(consumer)
    }

    /// How much is to be done in a partition that is ours: 0 when it is ours no more.
    pub(crate) fn set_load(&self, partition: PartitionId, load: usize) {
        if let Some(known) = self.0.partitions.get(usize::from(partition.0)) {
            known.own.store(load as u64, Relaxed);
        }
    }

    /// The partitions of ours that are behind.
    pub(crate) fn behind(&self) -> BTreeSet<PartitionId> {
        let numbered = (0..).map(PartitionId).zip(&self.0.partitions);
        let behind = numbered.filter(|(_, load)| self.is_behind(load));
        behind.map(|(partition, _)| partition).collect()
    }

    /// The partitions of which others say that they are behind.
    pub(crate) fn hear(&self, behind: &BTreeSet<PartitionId>) {
        for (partition, load) in (0..).map(PartitionId).zip(&self.0.partitions) {
            load.is_behind_elsewhere
                .store(behind.contains(&partition), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Admission {
        let settings = Settings {
            start_backlog: 10,
            queue_limit: 20,
            ..Settings::default()
        };
        Admission::new(2, &settings)
    }

    #[test]
    fn only_the_partition_that_is_behind_takes_nothing_new() {
        let door = admission();
        door.set_load(PartitionId(1), 11);
        assert_eq!(door.admit(PartitionId(0), &[]), Ok(()));
        let busy = Busy::Partition(PartitionId(1));
        assert_eq!(door.admit(PartitionId(1), &[]), Err(busy));
        assert_eq!(door.behind(), BTreeSet::from([PartitionId(1)]));
        door.set_load(PartitionId(1), 10);
        assert_eq!(door.admit(PartitionId(1), &[]), Ok(()));
    }

    #[test]
    fn what_others_say_counts_until_they_say_otherwise() {
        let door = admission();
        door.hear(&BTreeSet::from([PartitionId(0)]));
        assert!(door.admit(PartitionId(0), &[]).is_err());
        assert!(door.admit(PartitionId(1), &[]).is_ok());
        // It is not ours, so it is not told as ours.
        assert!(door.behind().is_empty());
        door.hear(&BTreeSet::new());
        assert!(door.admit(PartitionId(0), &[]).is_ok());
    }

    #[test]
    fn a_slow_task_holds_up_only_who_needs_it() {
        let door = admission();
        let (slow, fast) = (["slow".to_owned()], ["fast".to_owned()]);
        for _ in 0..11 {
            door.queue("slow").asked();
        }
        let busy = door.admit(PartitionId(0), &slow).unwrap_err();
        assert_eq!(busy.to_string(), "11 commands wait for the workers of slow");
        assert_eq!(door.admit(PartitionId(0), &fast), Ok(()));
        door.queue("slow").answered();
        assert_eq!(door.admit(PartitionId(0), &slow), Ok(()));
    }

    #[test]
    fn a_queue_has_room_up_to_its_limit() {
        let door = admission();
        let queue = door.queue("work");
        for _ in 0..20 {
            assert!(queue.has_room());
            queue.asked();
        }
        assert!(!queue.has_room());
        queue.answered();
        assert!(queue.has_room());
    }
}
