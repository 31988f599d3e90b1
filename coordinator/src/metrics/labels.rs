//! Labels whose values others choose, bounded: beyond a limit they share one value.

use super::reference::{MOST_DEFINITIONS, MOST_TASKS};
use dirigent_contracts::id::PartitionId;
use opentelemetry::KeyValue;
use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// The value that is shared beyond the limit.
pub(super) const OTHER: &str = "other";

/// The values that have been admitted, for the life of the process.
#[derive(Debug, Default)]
pub(super) struct Labels {
    definitions: Mutex<HashSet<String>>,
    tasks: Mutex<HashSet<String>>,
}

impl Labels {
    /// The label of a definition; `None` if there are too many: then it is `other`.
    pub(super) fn definition(&self, name: &str) -> Option<KeyValue> {
        admit(&self.definitions, MOST_DEFINITIONS, name).then(|| definition(name))
    }

    /// The label of a task; `None` if there are too many: then it is `other`.
    pub(super) fn task(&self, name: &str) -> Option<KeyValue> {
        admit(&self.tasks, MOST_TASKS, name).then(|| task(name))
    }
}

pub(super) fn definition(name: &str) -> KeyValue {
    KeyValue::new("definition", name.to_owned())
}

pub(super) fn task(name: &str) -> KeyValue {
    KeyValue::new("task", name.to_owned())
}

pub(super) fn partition(partition: PartitionId) -> KeyValue {
    KeyValue::new("partition", i64::from(partition.0))
}

fn admit(known: &Mutex<HashSet<String>>, most: usize, name: &str) -> bool {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(name) {
        return true;
    }
    known.len() < most && known.insert(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_limit_share_a_label_and_known_ones_keep_theirs() {
        let labels = Labels::default();
        for number in 0..MOST_DEFINITIONS {
            assert!(labels.definition(&format!("d{number}")).is_some());
        }
        assert_eq!(labels.definition("one-more"), None);
        assert_eq!(labels.definition("d7"), Some(definition("d7")));
        assert!(labels.task("one-more").is_some());
    }
}
