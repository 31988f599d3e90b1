//! How many commands wait for the workers of each task.
//!
//! The broker knows; it is asked every now and then, and only of tasks for which something goes on. In
//! between, what this coordinator asks for is added and what it hears of is taken away. So the number
//! is right to within what other coordinators did since the last look, and costs no message per command.

use super::Admission;
use crate::broker::Broker;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use dirigent_contracts::{subject, token};
use futures::{StreamExt as _, stream};
use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often the broker is asked of a task for which something goes on.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Every so many times it is also asked of tasks whose commands only wait.
const ROUNDS_BETWEEN_ALL: u32 = 8;
/// Tasks that it is asked of at a time.
const MOST_AT_ONCE: usize = 16;

/// The commands of one task.
#[derive(Debug)]
pub(crate) struct Queue {
    consumer: String,
    limit: u64,
    /// Commands that this coordinator asked for, less those of whose answer it has heard.
    net: AtomicI64,
    /// What was to be added to that at the last look, to make it how many wait.
    others: AtomicI64,
    /// Whether something has gone on since the last look.
    is_wanted: AtomicBool,
    /// Whether new sagas were held back at the last look, and whether commands were.
    was_long: AtomicBool,
    was_full: AtomicBool,
}

impl Queue {
    fn new(consumer: &str, limit: u64) -> Self {
        Self {
            consumer: consumer.to_owned(),
            limit,
            net: AtomicI64::new(0),
            others: AtomicI64::new(0),
            is_wanted: AtomicBool::new(false),
            was_long: AtomicBool::new(false),
            was_full: AtomicBool::new(false),
        }
    }

    /// The task's name.
    pub(super) fn task(&self) -> String {
        token::decode(&self.consumer).unwrap_or_else(|_| self.consumer.clone())
    }

    /// How many commands wait, as far as is known.
    pub(super) fn waiting(&self) -> u64 {
        let waiting = self.net.load(Relaxed) + self.others.load(Relaxed);
        u64::try_from(waiting).unwrap_or(0)
    }

    /// Whether one more command may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting() < self.limit
    }

    /// How many may wait.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn want(&self) {
        self.is_wanted.store(true, Relaxed);
    }

    /// A command is published.
    pub(crate) fn asked(&self) {
        self.net.fetch_add(1, Relaxed);
        self.want();
    }

    /// A worker has answered a command.
    pub(crate) fn answered(&self) {
        self.net.fetch_sub(1, Relaxed);
        self.want();
    }

    /// What the broker said, and what was known when it was asked.
    fn correct(&self, waiting: u64, net: i64) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.others.store(waiting.saturating_sub(net), Relaxed);
    }

    /// Says once when new sagas or commands begin to be held back, and once when that is over.
    fn tell(&self, start_backlog: u64) {
        let (task, waiting) = (self.task(), self.waiting());
        let is_long = waiting > start_backlog;
        if is_long != self.was_long.swap(is_long, Relaxed) {
            if is_long {
                tracing::warn!(
                    task,
                    waiting,
                    "too many commands wait: no new sagas need apply"
                );
            } else {
                tracing::info!(
                    task,
                    waiting,
                    "few enough commands wait: new sagas are let in"
                );
            }
        }
        let is_full = !self.has_room();
        if is_full && !self.was_full.swap(is_full, Relaxed) {
            tracing::error!(
                task,
                waiting,
                "the queue is full: further steps of running sagas fail with Dirigent.QueueFull"
            );
        } else if !is_full {
            self.was_full.store(false, Relaxed);
        }
    }
}

/// The queues of all tasks that were asked for.
#[derive(Debug)]
pub(super) struct Queues {
    limit: u64,
    of: RwLock<HashMap<String, Arc<Queue>>>,
}

impl Queues {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            of: RwLock::default(),
        }
    }

    pub(super) fn of(&self, consumer: &str) -> Arc<Queue> {
        let known = self.of.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = known.get(consumer) {
            return Arc::clone(queue);
        }
        drop(known);
        let mut known = self.of.write().unwrap_or_else(PoisonError::into_inner);
        let queue = known
            .entry(consumer.to_owned())
            .or_insert_with(|| Arc::new(Queue::new(consumer, self.limit)));
        Arc::clone(queue)
    }

    /// Those that are to be looked at.
    fn due(&self, all: bool) -> Vec<Arc<Queue>> {
        let known = self.of.read().unwrap_or_else(PoisonError::into_inner);
        let due = known.values().filter(|queue| {
            let is_wanted = queue.is_wanted.swap(false, Relaxed);
            is_wanted || (all && queue.waiting() > 0)
        });
        due.cloned().collect()
    }
}

/// Asks the broker until `stop`.
pub(crate) async fn watch(broker: Arc<Broker>, admission: Admission, stop: CancellationToken) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rounds: u32 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        rounds = rounds.wrapping_add(1);
        let due = admission
            .0
            .queues
            .due(rounds.is_multiple_of(ROUNDS_BETWEEN_ALL));
        let looks = stream::iter(due).for_each_concurrent(MOST_AT_ONCE, |queue| {
            let (broker, start_backlog) = (&broker, admission.0.start_backlog);
            async move {
                look(broker, &queue).await;
                queue.tell(start_backlog);
            }
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = looks => {}
        }
    }
}

async fn look(broker: &Broker, queue: &Queue) {
    let commands = broker
        .context
        .get_stream_no_info(subject::COMMANDS_STREAM)
        .await;
    let Ok(commands) = commands else { return };
    let net = queue.net.load(Relaxed);
    match commands.consumer_info(&queue.consumer).await {
        Ok(info) => queue.correct(info.num_pending, net),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {}
        Err(error) => {
            // What was known goes on to count.
            tracing::debug!(task = queue.task(), %error, "the broker did not say how many commands wait");
            queue.want();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_says_corrects_what_was_counted() {
        let queue = Queue::new("work", 100);
        // Commands of others are not known here, nor answers to commands of a former owner.
        queue.answered();
        queue.answered();
        assert_eq!(queue.waiting(), 0);
        queue.correct(7, -2);
        assert_eq!(queue.waiting(), 7);
        queue.asked();
        assert_eq!(queue.waiting(), 8);
    }

    #[test]
    fn nobody_is_asked_about_what_stands_still() {
        let queues = Queues::new(100);
        queues.of("work").asked();
        assert_eq!(queues.due(false).len(), 1);
        assert!(queues.due(false).is_empty());
        // It waits still, so it is looked at now and then.
        assert_eq!(queues.due(true).len(), 1);
        queues.of("work").answered();
        assert_eq!(queues.due(false).len(), 1);
        assert!(queues.due(true).is_empty());
    }
}
