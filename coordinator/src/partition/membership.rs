//! Who is there, and who should own what: decisions only, no broker.
//!
//! A member is alive while its beat changes. Time is measured on the observer's own monotonic clock
//! from the moment it *saw* the beat, so clocks need not agree. Owners are chosen by rendezvous
//! hashing (Thaler and Ravishankar, 1998): when a member comes or goes, only its share moves.

use dirigent_contracts::id::PartitionId;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How often a member beats.
pub(crate) const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// After how long without a beat a member counts as dead: five beats may be lost.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(6);

/// What a member says of itself in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// This very process: a name may be used again after a restart.
    pub(crate) instance: Uuid,
    /// Counts up, so that each beat is a change.
    pub(crate) beat: u64,
    /// Revision of this process's first beat, so that two under one name agree on who came later;
    /// 0 in that first beat, which is its own measure.
    #[serde(default)]
    pub(crate) joined: u64,
    /// Its partitions that are behind: nobody is to start new sagas there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) behind: BTreeSet<PartitionId>,
}

/// Who owns a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// The owner's name; empty if it was given back.
    pub(crate) owner: String,
    /// The owner's process.
    pub(crate) instance: Uuid,
    /// Counts the changes of ownership.
    pub(crate) epoch: u64,
}

impl Lease {
    fn released(&self) -> Self {
        Self {
            owner: String::new(),
            instance: Uuid::nil(),
            epoch: self.epoch + 1,
        }
    }
}

/// What one member has seen of all.
#[derive(Debug)]
pub(crate) struct Membership {
    name: String,
    instance: Uuid,
    /// Revision of this member's first beat; 0 until it is stored.
    joined: u64,
    is_displaced: bool,
    members: BTreeMap<String, Seen>,
    leases: BTreeMap<PartitionId, (Lease, u64)>,
}

#[derive(Debug)]
struct Seen {
    member: Member,
    at: Instant,
}

/// What this member is to do about a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Keep,
    /// Take it: nobody owns it. With the lease to write, and the revision that it replaces.
    Claim(Lease, u64),
    /// Give it back: another should own it.
    Release(Lease, u64),
    /// Stop working on it: another owns it.
    Stop,
}

impl Membership {
    pub(crate) fn new(name: String, instance: Uuid) -> Self {
        Self {
            name,
            instance,
            joined: 0,
            is_displaced: false,
            members: BTreeMap::new(),
            leases: BTreeMap::new(),
        }
    }

    /// What this member says of itself in its next beat.
    pub(crate) fn beat(&self, beat: u64, behind: BTreeSet<PartitionId>) -> Member {
        Member {
            instance: self.instance,
            beat,
            joined: self.joined,
            behind,
        }
    }

    /// The partitions of others of which they say that they are behind.
    pub(crate) fn behind(&self, now: Instant) -> BTreeSet<PartitionId> {
        let alive = self.members.values();
        let alive = alive.filter(|seen| now.duration_since(seen.at) < DEAD_AFTER);
        alive
            .flat_map(|seen| &seen.member.behind)
            .copied()
            .collect()
    }

    /// A beat of this member is stored.
    pub(crate) fn heard(&mut self, revision: u64) {
        if self.joined == 0 {
            self.joined = revision;
        }
    }

    /// A member was seen; `None` if it has left.
    pub(crate) fn see_member(
        &mut self,
        name: &str,
        member: Option<Member>,
        revision: u64,
        now: Instant,
    ) {
        match member {
            Some(member) if name == self.name => {
                let joined = if member.joined == 0 {
                    revision
                } else {
                    member.joined
                };
                // What this member's former self said last may be seen, or even stored, after it
                // began anew: only who came later takes the name away.
                let is_other = member.instance != self.instance;
                self.is_displaced |= is_other && self.joined != 0 && joined > self.joined;
            }
            Some(member) => {
                self.members
                    .insert(name.to_owned(), Seen { member, at: now });
            }
            None => {
                self.members.remove(name);
            }
        }
    }

    /// A lease was seen, or written by this member.
    pub(crate) fn see_lease(&mut self, partition: PartitionId, lease: Lease, revision: u64) {
        let known = self
            .leases
            .get(&partition)
            .map_or(0, |(_, revision)| *revision);
        if revision > known {
            self.leases.insert(partition, (lease, revision));
        }
    }

    /// Whether another process has taken this member's name.
    pub(crate) fn is_displaced(&self) -> bool {
        self.is_displaced
    }

    /// The owner of a partition, as far as is known.
    pub(crate) fn owner(&self, partition: PartitionId) -> Option<&str> {
        self.leases
            .get(&partition)
            .map(|(lease, _)| lease.owner.as_str())
            .filter(|owner| !owner.is_empty())
    }

    fn alive(&self, now: Instant) -> impl Iterator<Item = &str> {
        self.members
            .iter()
            .filter(move |(_, seen)| now.duration_since(seen.at) < DEAD_AFTER)
            .map(|(name, _)| name.as_str())
            .chain([self.name.as_str()])
    }

    /// Who should own a partition, among those who are alive.
    fn desired(&self, partition: PartitionId, now: Instant) -> &str {
        self.alive(now)
            .max_by_key(|name| (weight(name, partition), *name))
            .unwrap_or(&self.name)
    }

    /// What to do about a partition. `is_running`: whether this member works on it.
    pub(crate) fn decide(&self, partition: PartitionId, is_running: bool, now: Instant) -> Step {
        let is_desired = self.desired(partition, now) == self.name;
        let (lease, revision) = match self.leases.get(&partition) {
            None if is_desired => return Step::Claim(self.claim(0), 0),
            None => return Step::Keep,
            Some((lease, revision)) => (lease, *revision),
        };
        let is_mine = lease.owner == self.name && lease.instance == self.instance;
        if is_mine {
            // A lease of mine without work is one whose work broke off: begin again.
            return match (is_desired, is_running) {
                (true, true) => Step::Keep,
                (true, false) => Step::Claim(self.claim(lease.epoch), revision),
                (false, _) => Step::Release(lease.released(), revision),
            };
        }
        if is_running {
            return Step::Stop;
        }
        let holder_lives = self.members.get(&lease.owner).is_some_and(|seen| {
            seen.member.instance == lease.instance && now.duration_since(seen.at) < DEAD_AFTER
        });
        if is_desired && !holder_lives {
            Step::Claim(self.claim(lease.epoch), revision)
        } else {
            Step::Keep
        }
    }

    /// The lease that gives a partition back, and the revision that it replaces; `None` if it is not
    /// this member's to give.
    pub(crate) fn released(&self, partition: PartitionId) -> Option<(Lease, u64)> {
        let (lease, revision) = self.leases.get(&partition)?;
        let is_mine = lease.owner == self.name && lease.instance == self.instance;
        is_mine.then(|| (lease.released(), *revision))
    }

    fn claim(&self, epoch: u64) -> Lease {
        Lease {
            owner: self.name.clone(),
            instance: self.instance,
            epoch: epoch + 1,
        }
    }
}

fn weight(name: &str, partition: PartitionId) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), u64::from(partition.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITIONS: u16 = 64;

    fn all() -> impl Iterator<Item = PartitionId> {
        (0..PARTITIONS).map(PartitionId)
    }

    fn member(instance: u128) -> Member {
        Member {
            instance: Uuid::from_u128(instance),
            beat: 0,
            joined: 0,
            behind: BTreeSet::new(),
        }
    }

    fn of(name: &str, instance: u128) -> Membership {
        Membership::new(name.to_owned(), Uuid::from_u128(instance))
    }

    #[test]
    fn a_member_alone_claims_everything() {
        let a = of("a", 1);
        for partition in all() {
            assert!(matches!(
                a.decide(partition, false, Instant::now()),
                Step::Claim(_, 0)
            ));
        }
    }

    #[test]
    fn two_members_agree_on_one_owner_for_each_partition() {
        let now = Instant::now();
        let (mut a, mut b) = (of("a", 1), of("b", 2));
        a.see_member("b", Some(member(2)), 1, now);
        b.see_member("a", Some(member(1)), 1, now);
        let mut of_a = 0;
        for partition in all() {
            let a_claims = matches!(a.decide(partition, false, now), Step::Claim(..));
            let b_claims = matches!(b.decide(partition, false, now), Step::Claim(..));
            assert!(a_claims != b_claims, "partition {partition}");
            of_a += u16::from(a_claims);
        }
        assert!(
            (16..48).contains(&of_a),
            "{of_a} of {PARTITIONS} fell to one of two members"
        );
    }

    #[test]
    fn a_living_owner_keeps_its_partition_until_it_gives_it_back() {
        let now = Instant::now();
        let mut a = of("a", 1);
        a.see_member("b", Some(member(2)), 1, now);
        let lease = Lease {
            owner: "b".into(),
            instance: Uuid::from_u128(2),
            epoch: 1,
        };
        for partition in all() {
            a.see_lease(partition, lease.clone(), 7);
            assert_eq!(a.decide(partition, false, now), Step::Keep);
        }
    }

    #[test]
    fn the_partitions_of_a_silent_member_are_claimed() {
        let now = Instant::now();
        let mut a = of("a", 1);
        a.see_member("b", Some(member(2)), 1, now);
        let lease = Lease {
            owner: "b".into(),
            instance: Uuid::from_u128(2),
            epoch: 4,
        };
        for partition in all() {
            a.see_lease(partition, lease.clone(), 7);
            let later = now + DEAD_AFTER;
            let Step::Claim(lease, 7) = a.decide(partition, false, later) else {
                panic!("partition {partition} was not claimed");
            };
            assert_eq!((lease.owner.as_str(), lease.epoch), ("a", 5));
        }
    }

    #[test]
    fn a_restarted_member_claims_the_leases_of_its_former_self_at_once() {
        let now = Instant::now();
        let mut a = of("a", 9);
        a.see_member("a", Some(member(9)), 1, now);
        let lease = Lease {
            owner: "a".into(),
            instance: Uuid::from_u128(1),
            epoch: 1,
        };
        a.see_lease(PartitionId(0), lease, 3);
        assert!(matches!(
            a.decide(PartitionId(0), false, now),
            Step::Claim(_, 3)
        ));
    }

    #[test]
    fn a_member_that_lost_its_lease_stops() {
        let now = Instant::now();
        let mut a = of("a", 1);
        let lease = Lease {
            owner: "b".into(),
            instance: Uuid::from_u128(2),
            epoch: 2,
        };
        a.see_lease(PartitionId(0), lease, 3);
        assert_eq!(a.decide(PartitionId(0), true, now), Step::Stop);
    }

    #[test]
    fn a_newcomer_gets_its_share_released() {
        let now = Instant::now();
        let mut a = of("a", 1);
        let mine = Lease {
            owner: "a".into(),
            instance: Uuid::from_u128(1),
            epoch: 1,
        };
        for partition in all() {
            a.see_lease(partition, mine.clone(), 1);
            assert_eq!(a.decide(partition, true, now), Step::Keep);
        }
        a.see_member("b", Some(member(2)), 1, now);
        let released = all()
            .filter(|partition| matches!(a.decide(*partition, true, now), Step::Release(..)))
            .count();
        assert!(released > 0 && released < usize::from(PARTITIONS));
    }

    #[test]
    fn what_a_member_says_of_its_partitions_counts_while_it_lives() {
        let now = Instant::now();
        let mut a = of("a", 1);
        let behind = BTreeSet::from([PartitionId(3)]);
        let b = of("b", 2).beat(1, behind.clone());
        a.see_member("b", Some(b), 1, now);
        assert_eq!(a.behind(now), behind);
        assert!(a.behind(now + DEAD_AFTER).is_empty());
    }

    #[test]
    fn of_two_processes_under_one_name_the_later_one_stays() {
        let now = Instant::now();
        let (mut old, mut new) = (of("a", 1), of("a", 2));
        old.heard(5);
        // The new one sees what the old one said, before and after its own first beat.
        new.see_member("a", Some(old.beat(7, BTreeSet::new())), 8, now);
        new.heard(9);
        new.see_member("a", Some(old.beat(8, BTreeSet::new())), 10, now);
        assert!(!new.is_displaced());
        old.see_member("a", Some(old.beat(8, BTreeSet::new())), 10, now);
        assert!(!old.is_displaced());
        // Its first beat does not know its own revision yet.
        old.see_member("a", Some(member(2)), 9, now);
        assert!(old.is_displaced());
        let mut late = of("a", 1);
        late.heard(5);
        late.see_member("a", Some(new.beat(2, BTreeSet::new())), 11, now);
        assert!(late.is_displaced());
    }
}
