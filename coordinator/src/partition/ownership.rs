//! Which partitions this coordinator works on: beats, leases, and a processor for each.
//!
//! The leases stand in the bucket and change hands by compare-and-set, so two coordinators never
//! both believe that they have just claimed one. What [`super::membership`] decides is done here.

use super::{
    membership::{BEAT_INTERVAL, Lease, Member, Membership, Step},
    processor::{self, ProcessorError, Tools},
};
use async_nats::jetstream::kv::{self, Operation, Store, UpdateErrorKind};
use bytes::Bytes;
use dirigent_contracts::id::PartitionId;
use futures::StreamExt;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often the leases are looked at when nothing changes.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Why a coordinator had to stop owning partitions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnershipError {
    /// Another process uses the same name.
    #[error("another coordinator has started under the name '{0}': give each a name of its own")]
    Displaced(String),
}

/// The owners of all partitions, as this coordinator sees them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners(Arc<Mutex<Vec<String>>>);

impl Owners {
    /// The owner of each partition, in order; empty where there is none.
    pub(crate) fn list(&self) -> Vec<String> {
        self.0
            .lock()
            .map(|owners| owners.clone())
            .unwrap_or_default()
    }
}

/// One processor at work.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ProcessorError>>,
    leaves: Option<Leaves>,
}

/// A processor that was asked to leave. It takes its time, and meanwhile this member goes on beating.
#[derive(Clone, Debug)]
enum Leaves {
    /// Another owns the partition already.
    Nothing,
    /// The partition is given back then: with this lease, in place of that revision.
    Lease(Lease, u64),
}

pub(crate) struct Ownership {
    bucket: Store,
    tools: Tools,
    name: String,
    membership: Membership,
    running: BTreeMap<PartitionId, Running>,
    owners: Owners,
    beat: u64,
    /// The partitions that were said to be behind in the last beat.
    behind: BTreeSet<PartitionId>,
}

impl Ownership {
    pub(crate) fn new(bucket: Store, tools: Tools, owners: Owners) -> Self {
        let name = tools.settings.name.clone();
        let instance = Uuid::now_v7();
        Self {
            membership: Membership::new(name.clone(), instance),
            bucket,
            tools,
            name,
            running: BTreeMap::new(),
            owners,
            beat: 0,
            behind: BTreeSet::new(),
        }
    }

    /// Owns this member's share until `stop`; then gives all of it back.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), OwnershipError> {
        let mut changes = self.watch().await;
        self.beat().await;
        let mut beat = tokio::time::interval(BEAT_INTERVAL);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                change = changes.next() => if let Some(Ok(entry)) = change {
                    self.see(&entry);
                    if self.membership.is_displaced() {
                        self.stop_all().await;
                        return Err(OwnershipError::Displaced(self.name));
                    }
                } else {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    changes = self.watch().await;
                },
                _ = beat.tick() => self.beat().await,
                _ = look.tick() => self.look().await,
            }
        }
        self.stop_all().await;
        self.give_back().await;
        Ok(())
    }

    /// Watches members and leases, patiently: the broker may be away.
    async fn watch(&self) -> kv::Watch {
        loop {
            match self
                .bucket
                .watch_many_with_history(["member.>", "lease.*"])
                .await
            {
                Ok(changes) => return changes,
                Err(error) => {
                    tracing::warn!(%error, "the leases cannot be watched; trying again");
                    tokio::time::sleep(BEAT_INTERVAL).await;
                }
            }
        }
    }

    fn see(&mut self, entry: &kv::Entry) {
        if let Some(name) = entry.key.strip_prefix("member.") {
            let Ok(name) = dirigent_contracts::token::decode(name) else {
                return;
            };
            let member = match entry.operation {
                Operation::Put => read::<Member>(&entry.value),
                Operation::Delete | Operation::Purge => None,
            };
            self.membership
                .see_member(&name, member, entry.revision, Instant::now());
        } else if let Some(partition) = entry.key.strip_prefix("lease.") {
            let Ok(partition) = partition.parse() else {
                return;
            };
            let lease = read::<Lease>(&entry.value).unwrap_or_default();
            self.membership
                .see_lease(PartitionId(partition), lease, entry.revision);
        }
    }

    async fn beat(&mut self) {
        self.beat += 1;
        self.note_behind(self.tools.admission.behind());
        let member = body(&self.membership.beat(self.beat, self.behind.clone()));
        match self.bucket.put(self.member_key(), member).await {
            Ok(revision) => self.membership.heard(revision),
            Err(error) => tracing::warn!(%error, "the beat was not heard"),
        }
    }

    fn member_key(&self) -> String {
        format!("member.{}", dirigent_contracts::token::encode(&self.name))
    }

    /// Does what the membership decides about each partition.
    async fn look(&mut self) {
        let mut owners = Vec::new();
        for partition in (0..self.tools.partitions).map(PartitionId) {
            self.reap(partition).await;
            let is_running = match self.running.get(&partition) {
                Some(Running {
                    leaves: Some(_), ..
                }) => None,
                running => Some(running.is_some()),
            };
            let step = is_running.map_or(Step::Keep, |is_running| {
                let now = Instant::now();
                self.membership.decide(partition, is_running, now)
            });
            match step {
                Step::Keep => {}
                Step::Claim(lease, revision) => {
                    if self.write(partition, lease, revision).await {
                        self.begin(partition);
                    }
                }
                Step::Release(lease, revision) => {
                    tracing::info!(partition = partition.0, "giving the partition to another");
                    if is_running == Some(true) {
                        self.leave(partition, Leaves::Lease(lease, revision));
                    } else {
                        self.write(partition, lease, revision).await;
                    }
                }
                Step::Stop => {
                    tracing::warn!(partition = partition.0, "another owns the partition now");
                    self.leave(partition, Leaves::Nothing);
                }
            }
            owners.push(
                self.membership
                    .owner(partition)
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
        if let Ok(mut known) = self.owners.0.lock() {
            *known = owners;
        }
        self.compare_loads().await;
    }

    /// Tells the others which partitions are behind, and hears it of theirs.
    async fn compare_loads(&mut self) {
        let admission = &self.tools.admission;
        admission.hear(&self.membership.behind(Instant::now()));
        if admission.behind() != self.behind {
            // Out of turn: a second is long for a flood.
            self.beat().await;
        }
    }

    /// Takes note of which partitions are behind, and says what has changed.
    fn note_behind(&mut self, behind: BTreeSet<PartitionId>) {
        for partition in behind.symmetric_difference(&self.behind) {
            if behind.contains(partition) {
                tracing::warn!(
                    partition = partition.0,
                    "the partition is behind: no new sagas need apply"
                );
            } else {
                tracing::info!(
                    partition = partition.0,
                    "the partition has caught up: new sagas are let in"
                );
            }
        }
        self.behind = behind;
    }

    /// Writes a lease if nobody has changed it. Whether that was so.
    async fn write(&mut self, partition: PartitionId, lease: Lease, revision: u64) -> bool {
        let key = format!("lease.{partition}");
        match self.bucket.update(key, body(&lease), revision).await {
            Ok(revision) => {
                self.membership.see_lease(partition, lease, revision);
                true
            }
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => false,
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "the lease cannot be written");
                false
            }
        }
    }

    fn begin(&mut self, partition: PartitionId) {
        let stop = CancellationToken::new();
        let task = tokio::spawn(processor::own(partition, self.tools.clone(), stop.clone()));
        let running = Running {
            stop,
            task,
            leaves: None,
        };
        self.running.insert(partition, running);
    }

    /// Asks a processor to leave; [`Self::reap`] sees when it has.
    fn leave(&mut self, partition: PartitionId, leaves: Leaves) {
        if let Some(running) = self.running.get_mut(&partition) {
            running.stop.cancel();
            running.leaves = Some(leaves);
        }
    }

    /// Takes note of a processor that has ended. One that did so by itself leaves its partition to be
    /// claimed anew.
    async fn reap(&mut self, partition: PartitionId) {
        let is_finished = |running: &Running| running.task.is_finished();
        if !self.running.get(&partition).is_some_and(is_finished) {
            return;
        }
        let Some(Running { task, leaves, .. }) = self.running.remove(&partition) else {
            return;
        };
        report(partition, task.await);
        if let Some(Leaves::Lease(lease, revision)) = leaves {
            self.write(partition, lease, revision).await;
        }
    }

    async fn stop_all(&mut self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
        for (partition, running) in std::mem::take(&mut self.running) {
            report(partition, running.task.await);
        }
    }

    /// Gives all leases back and leaves, so that the others need not wait for this one's death.
    async fn give_back(&mut self) {
        for partition in (0..self.tools.partitions).map(PartitionId) {
            if let Some((lease, revision)) = self.membership.released(partition) {
                self.write(partition, lease, revision).await;
            }
        }
        if let Err(error) = self.bucket.delete(self.member_key()).await {
            tracing::debug!(%error, "left without a word");
        }
    }
}

fn report(
    partition: PartitionId,
    result: Result<Result<(), ProcessorError>, tokio::task::JoinError>,
) {
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(partition = partition.0, %error, "the partition will be taken up anew");
        }
        Err(error) => {
            tracing::error!(partition = partition.0, %error, "the partition's owner broke off");
        }
    }
}

fn body(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}
