//! A coordinator: the real membership, the real owners and the real routing, with a shell around them
//! that does on the model what the one in `partition` does on a broker.

use super::{
    broker::{Answer, Op},
    jetstream::{self, Draft, Stored},
    scenario::{Deployed, PARTITIONS},
    schedule::StreamName,
    world::{BASE, Event, Flaw, Node, Then, World},
};
use crate::{
    broker::{journal::Delivered, publisher::Outgoing},
    engine::{Effect, Record},
    partition::{
        Action, BEAT_INTERVAL, Clock, Debt, LOOK_INTERVAL, Lease, Member, Membership, Owner,
        Refused, Step, decode, messages, snapshot,
    },
    router::{Place, follow, rule::Feed},
    settings::Settings,
    spans::Sampling,
};
use dirigent_contracts::{
    event::Event as Happened,
    id::{DefinitionDigest, JournalSeq, PartitionId},
    journal::{Parent, Start},
    limits::SagaLimits,
    subject,
    time::Timestamp,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock, OnceLock},
    time::{Duration, Instant},
};
use uuid::Uuid;

static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::default);
/// Of so many commands in a thousand, the queue is full.
const FULL: u32 = 20;

/// One coordinator process, and what was before it under its name.
pub(super) struct Coordinator {
    name: String,
    pub(super) life: u32,
    pub(super) is_up: bool,
    pub(super) still_until: i64,
    pub(super) apart_until: i64,
    /// How far its wall clock is off.
    pub(super) skew: i64,
    clock: Clock,
    membership: Membership,
    beat: u64,
    running: BTreeMap<PartitionId, Running>,
    /// Partitions whose lease is being written.
    claiming: BTreeSet<PartitionId>,
    /// Events that are being routed: what follows from them is not stored yet.
    routing: BTreeMap<u64, usize>,
}

/// An owner at work.
pub(super) struct Running {
    number: u64,
    began: i64,
    checkpoint: JournalSeq,
    /// The revision at which it took over the snapshots.
    fence: u64,
    listing: Vec<Stored>,
    owner: Option<Owner>,
    /// The last entry that was read.
    read: u64,
    /// Requests that are not answered.
    outstanding: usize,
    wakes_at: Option<i64>,
    /// Since when it leaves, and the lease that gives the partition back then.
    leaving: Option<(i64, Option<(Lease, u64)>)>,
}

impl Coordinator {
    pub(super) fn new(at: usize) -> Self {
        let name = format!("c{at}");
        Self {
            membership: Membership::new(name.clone(), Uuid::nil()),
            name,
            life: 0,
            is_up: false,
            still_until: 0,
            apart_until: 0,
            skew: 0,
            clock: Clock::new(Timestamp(BASE), instant(0)),
            beat: 0,
            running: BTreeMap::new(),
            claiming: BTreeSet::new(),
            routing: BTreeMap::new(),
        }
    }

    pub(super) fn die(&mut self) {
        self.is_up = false;
        self.life += 1;
        self.running.clear();
        self.claiming.clear();
        self.routing.clear();
    }

    fn partition_of(&self, number: u64) -> Option<PartitionId> {
        let mut running = self.running.iter();
        running
            .find(|(_, running)| running.number == number)
            .map(|(partition, _)| *partition)
    }
}

/// The monotonic clock of all processes.
fn instant(now: i64) -> Instant {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    *BEGAN.get_or_init(Instant::now) + micros(now)
}

fn micros(time: i64) -> Duration {
    Duration::from_micros(time.try_into().unwrap_or(0))
}

fn interval(of: Duration) -> i64 {
    i64::try_from(of.as_micros()).unwrap()
}

fn is_timer(stored: &Stored) -> bool {
    stored.draft.subject.rsplit('.').next() == Some("timer")
}

fn key(key: &str) -> String {
    format!("partitions.{key}")
}

impl World {
    pub(super) fn start_coordinator(&mut self, at: usize) {
        let instance = Uuid::from_u128(u128::from(self.number()));
        let coordinator = &mut self.coordinators[at];
        coordinator.is_up = true;
        coordinator.membership = Membership::new(coordinator.name.clone(), instance);
        let wall = Timestamp(BASE + self.now + coordinator.skew);
        coordinator.clock = Clock::new(wall, instant(self.now));
        let life = coordinator.life;
        let known: Vec<Stored> = self.streams[&StreamName::Partitions]
            .from(1)
            .cloned()
            .collect();
        for change in known {
            self.tell_change(at, change);
        }
        self.after(0, Event::Beat { at, life });
        self.after(0, Event::Look { at, life });
        self.dispatch(StreamName::Events);
    }

    fn local_time(&mut self, at: usize) -> Timestamp {
        let coordinator = &mut self.coordinators[at];
        let wall = Timestamp(BASE + self.now + coordinator.skew);
        coordinator.clock.read(wall, instant(self.now))
    }

    pub(super) fn tell_change(&mut self, at: usize, change: Stored) {
        let life = self.coordinators[at].life;
        let wait = self.latency();
        self.after(wait, Event::Change { at, life, change });
    }

    pub(super) fn see(&mut self, at: usize, change: &Stored) {
        let now = instant(self.now);
        let membership = &mut self.coordinators[at].membership;
        let Draft { subject, body, .. } = &change.draft;
        if let Some(name) = subject.strip_prefix("partitions.member.") {
            let member: Option<Member> = serde_json::from_slice(body).ok();
            membership.see_member(name, member, change.seq, now);
            assert!(!membership.is_displaced(), "{name} was displaced by nobody");
        } else if let Some(partition) = subject.strip_prefix("partitions.lease.") {
            let lease = serde_json::from_slice(body).unwrap_or_default();
            membership.see_lease(PartitionId(partition.parse().unwrap()), lease, change.seq);
        }
    }

    pub(super) fn beat(&mut self, at: usize) {
        let coordinator = &mut self.coordinators[at];
        coordinator.beat += 1;
        let member = coordinator
            .membership
            .beat(coordinator.beat, BTreeSet::new());
        let (life, subject) = (
            coordinator.life,
            key(&format!("member.{}", coordinator.name)),
        );
        let draft = Draft {
            subject,
            body: serde_json::to_vec(&member).unwrap(),
            ..Draft::default()
        };
        let op = Op::Publish(StreamName::Partitions, draft);
        self.call(Node::Coordinator(at), op, Then::Beat);
        self.after(interval(BEAT_INTERVAL), Event::Beat { at, life });
    }

    /// Looks at the leases, and lets the owners save.
    pub(super) fn look(&mut self, at: usize) {
        for partition in (0..PARTITIONS).map(PartitionId) {
            let coordinator = &mut self.coordinators[at];
            let is_busy = coordinator.claiming.contains(&partition)
                || coordinator
                    .running
                    .get(&partition)
                    .is_some_and(|running| running.leaving.is_some());
            if is_busy {
                self.pump(at, partition);
                continue;
            }
            let is_running = coordinator.running.contains_key(&partition);
            let step = coordinator
                .membership
                .decide(partition, is_running, instant(self.now));
            match step {
                Step::Keep => {}
                Step::Claim(lease, revision) => {
                    self.write_lease(at, partition, lease, revision, true);
                }
                Step::Release(lease, revision) => {
                    self.leave(at, partition, Some((lease, revision)));
                }
                Step::Stop => self.leave(at, partition, None),
            }
            let now = self.now;
            let running = self.coordinators[at].running.get_mut(&partition);
            if let Some(Running {
                owner: Some(owner),
                began,
                ..
            }) = running
            {
                owner.save(SETTINGS.snapshot_interval, micros(now - *began));
            }
            self.pump(at, partition);
        }
        let life = self.coordinators[at].life;
        self.after(interval(LOOK_INTERVAL), Event::Look { at, life });
    }

    fn write_lease(
        &mut self,
        at: usize,
        partition: PartitionId,
        lease: Lease,
        revision: u64,
        begins: bool,
    ) {
        self.coordinators[at].claiming.insert(partition);
        let draft = Draft {
            subject: key(&format!("lease.{partition}")),
            expected_last: Some(revision),
            body: serde_json::to_vec(&lease).unwrap(),
            ..Draft::default()
        };
        let op = Op::Publish(StreamName::Partitions, draft);
        let then = Then::Lease {
            partition,
            lease,
            begins,
        };
        self.call(Node::Coordinator(at), op, then);
    }

    /// Begins to own a partition.
    fn begin(&mut self, at: usize, partition: PartitionId) {
        let number = self.number();
        self.say(|| format!("c{at} begins to own {partition} as owner {number}"));
        let running = Running {
            number,
            began: self.now,
            checkpoint: JournalSeq(0),
            fence: 0,
            listing: Vec::new(),
            owner: None,
            read: 0,
            outstanding: 0,
            wakes_at: None,
            leaving: None,
        };
        self.coordinators[at].running.insert(partition, running);
        let draft = Draft {
            subject: format!("sagas.{partition}.owner"),
            ..Draft::default()
        };
        let op = Op::Publish(StreamName::Sagas, draft);
        self.call(Node::Coordinator(at), op, Then::TakeOver { owner: number });
    }

    /// Leaves a partition: what is folded is saved before.
    fn leave(&mut self, at: usize, partition: PartitionId, lease: Option<(Lease, u64)>) {
        self.say(|| format!("c{at} leaves {partition}"));
        let now = self.now;
        if let Some(running) = self.coordinators[at].running.get_mut(&partition) {
            running.leaving = Some((now, lease));
        } else if let Some((lease, revision)) = lease {
            self.write_lease(at, partition, lease, revision, false);
        }
        self.pump(at, partition);
    }

    /// An owner gives up; the next look at the leases begins anew.
    fn end(&mut self, at: usize, partition: PartitionId, why: &str) {
        self.say(|| format!("c{at} ends its ownership of {partition}: {why}"));
        let running = self.coordinators[at].running.remove(&partition);
        if let Some((_, Some((lease, revision)))) = running.and_then(|running| running.leaving) {
            self.write_lease(at, partition, lease, revision, false);
        }
    }

    fn owner(&mut self, at: usize, number: u64) -> Option<(PartitionId, &mut Running)> {
        let coordinator = &mut self.coordinators[at];
        let partition = coordinator.partition_of(number)?;
        let running = coordinator.running.get_mut(&partition)?;
        Some((partition, running))
    }

    /// An entry reaches an owner, and with it those before it: a reader hands them on in order.
    pub(super) fn entry(&mut self, at: usize, number: u64, seq: u64) {
        let now = self.local_time(at);
        let virtual_now = self.now;
        let Some(partition) = self.coordinators[at].partition_of(number) else {
            return;
        };
        let stream = &self.streams[&StreamName::Journal(partition.0)];
        let Some(running) = self.coordinators[at].running.get_mut(&partition) else {
            return;
        };
        let Some(owner) = running.owner.as_mut().filter(|_| running.leaving.is_none()) else {
            return;
        };
        let is_hasty = self.flaw == Some(Flaw::TimerBeatsEarlierReply)
            && stream.get(seq).is_some_and(is_timer);
        let first = if is_hasty { seq } else { running.read + 1 };
        running.read = running.read.max(seq);
        for stored in stream.from(first).take_while(|stored| stored.seq <= seq) {
            if let Ok(record) = record(partition, stored) {
                let program = owner.digest(&record).cloned();
                let program = program.and_then(|digest| Deployed::get().program(&digest));
                let since = micros(virtual_now - running.began);
                owner.take(&record, program, now, since).unwrap();
            } else {
                owner.pass(JournalSeq(stored.seq));
            }
        }
        self.pump(at, partition);
    }

    /// A deadline may have come.
    pub(super) fn wake(&mut self, at: usize, number: u64) {
        let now = self.local_time(at);
        let Some((partition, running)) = self.owner(at, number) else {
            return;
        };
        running.wakes_at = None;
        if let Some(owner) = running.owner.as_mut().filter(|_| running.leaving.is_none())
            && owner
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
        {
            owner.fire_timers(now);
        }
        self.pump(at, partition);
    }

    /// Does what an owner has decided, and sees when it wants to be woken.
    fn pump(&mut self, at: usize, partition: PartitionId) {
        let now = self.now;
        loop {
            let Some(running) = self.coordinators[at].running.get_mut(&partition) else {
                return;
            };
            let (number, began) = (running.number, running.began);
            let Some(owner) = &mut running.owner else {
                if running.leaving.is_some() {
                    self.end(at, partition, "it had not begun");
                }
                return;
            };
            if running.leaving.is_some() && !owner.is_catching_up() {
                owner.save(Duration::ZERO, micros(now - began));
            }
            let actions = owner.actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.act(at, partition, number, action);
            }
        }
        let local = self.local_time(at).0;
        let Some(running) = self.coordinators[at].running.get_mut(&partition) else {
            return;
        };
        let Some(owner) = &running.owner else { return };
        if let Some((since, _)) = &running.leaving {
            let is_left = owner.is_catching_up() || (running.outstanding == 0 && owner.is_saved());
            if is_left || now - since > interval(SETTINGS.drain_timeout) {
                self.end(at, partition, "it has left");
            }
            return;
        }
        if let Some(deadline) = owner.next_deadline() {
            let wakes_at = now + (deadline.0 - local).max(0);
            if running.wakes_at.is_none_or(|known| wakes_at < known) {
                running.wakes_at = Some(wakes_at);
                let (owner, life) = (running.number, self.coordinators[at].life);
                self.at(wakes_at, Event::Wake { at, life, owner });
            }
        }
    }

    fn act(&mut self, at: usize, partition: PartitionId, owner: u64, action: Action) {
        let node = Node::Coordinator(at);
        match action {
            Action::Publish(message, debt) => {
                if self.refuses(at, owner, &debt) {
                    let reason = Refused::QueueFull("too many commands wait".to_owned());
                    if let Some((_, running)) = self.owner(at, owner)
                        && let Some(owner) = &mut running.owner
                    {
                        owner.settle(debt, Err(reason));
                    }
                    return;
                }
                if self.flaw == Some(Flaw::CheckpointBeforeAcknowledgements) {
                    self.publish(node, &message, Then::Nothing);
                    if let Some((_, running)) = self.owner(at, owner)
                        && let Some(owner) = &mut running.owner
                    {
                        owner.settle(debt, Ok(()));
                    }
                    return;
                }
                self.publish(node, &message, Then::Settle { owner, debt });
            }
            Action::StartChild(debt) => {
                let Some(Effect::StartChild {
                    child,
                    input,
                    parent,
                    trace,
                }) = &debt.effect
                else {
                    unreachable!("only a child is started so");
                };
                let digest = Deployed::get().latest(&child.definition).unwrap();
                let start = start_of_child(digest, input, parent);
                let trace = Sampling::default().attempt(parent.command, *trace);
                let message =
                    messages::start_child(PARTITIONS, child, parent.command, start, trace);
                self.publish(node, &message, Then::StartChild { owner, debt });
            }
            Action::Withdraw(debt) => {
                let Some(Effect::Withdraw { task, command }) = &debt.effect else {
                    unreachable!("only a command is withdrawn");
                };
                let subject = subject::command(task, *command);
                let op = Op::Purge(StreamName::Commands, subject);
                self.call(node, op, Then::Settle { owner, debt });
            }
            Action::Store(_) => unreachable!("no definition here asks the object store"),
            Action::Announce(message) => {
                self.publish(node, &message, Then::Nothing);
                if self.flaw == Some(Flaw::EffectsBeforeTheirCause) {
                    self.fold_at_once(at, partition, &message);
                }
                return;
            }
            Action::Put {
                saga,
                key,
                body,
                applied,
            } => {
                let then = Then::Saved {
                    owner,
                    saga,
                    applied,
                };
                self.put(at, owner, &key, body.to_vec(), then);
            }
            Action::Remove { saga, key } => {
                self.put(at, owner, &key, Vec::new(), Then::Removed { owner, saga });
            }
            Action::Checkpoint(checkpoint) => {
                let key = format!("{partition}.checkpoint");
                let body = checkpoint.to_string().into_bytes();
                self.put(
                    at,
                    owner,
                    &key,
                    body,
                    Then::SavedCheckpoint { owner, checkpoint },
                );
            }
        }
        if let Some((_, running)) = self.owner(at, owner) {
            running.outstanding += 1;
        }
    }

    /// Whether the queue of a command is said to be full.
    fn refuses(&mut self, at: usize, number: u64, debt: &Debt) -> bool {
        let may_refuse = self.owner(at, number).is_some_and(|(_, running)| {
            let owner = running.owner.as_ref();
            owner.is_some_and(|owner| owner.may_refuse(debt))
        });
        may_refuse && self.rng.u32(..1_000) < FULL
    }

    fn put(&mut self, at: usize, number: u64, key: &str, body: Vec<u8>, then: Then) {
        let Some((partition, running)) = self.owner(at, number) else {
            return;
        };
        let draft = Draft {
            subject: format!("sagas.{key}"),
            expected_last: Some(running.fence),
            expected_subject: Some(format!("sagas.{partition}.owner")),
            body,
            ..Draft::default()
        };
        let op = Op::Publish(StreamName::Sagas, draft);
        self.call(Node::Coordinator(at), op, then);
    }

    /// The mistake of acting on a timer before it is stored.
    fn fold_at_once(&mut self, at: usize, partition: PartitionId, message: &Outgoing) {
        let now = self.local_time(at);
        let virtual_now = self.now;
        let Some(running) = self.coordinators[at].running.get_mut(&partition) else {
            return;
        };
        let Some(owner) = &mut running.owner else {
            return;
        };
        let entry = Delivered {
            seq: JournalSeq(owner.folded().0 + 1),
            at: now,
            subject: message.subject().to_owned(),
            is_first_of_subject: false,
            trace: None,
            body: message.body().clone(),
        };
        let record = decode(partition, &entry).unwrap();
        let program = owner.digest(&record).cloned();
        let program = program.and_then(|digest| Deployed::get().program(&digest));
        let since = micros(virtual_now - running.began);
        owner.take(&record, program, now, since).unwrap();
    }

    /// An entry is stored: its partition's owners read it.
    pub(super) fn tell_owners(&mut self, partition: u16, stored: &Stored) {
        for at in 0..self.coordinators.len() {
            let Some(running) = self.coordinators[at].running.get(&PartitionId(partition)) else {
                continue;
            };
            if running.owner.is_some() {
                let number = running.number;
                self.send_entry(at, number, stored);
            }
        }
    }

    fn send_entry(&mut self, at: usize, number: u64, stored: &Stored) {
        let life = self.coordinators[at].life;
        let wait = if self.flaw == Some(Flaw::TimerBeatsEarlierReply) && is_timer(stored) {
            0
        } else {
            self.latency()
        };
        let seq = stored.seq;
        self.after(
            wait,
            Event::Entry {
                at,
                life,
                owner: number,
                seq,
            },
        );
    }

    /// A coordinator's request was answered, or was given up.
    pub(super) fn coordinator_answered(
        &mut self,
        at: usize,
        then: Then,
        answer: Option<Answer>,
        op: Op,
    ) {
        use jetstream::Answer::{Duplicate, Stored, WrongLast};
        let node = Node::Coordinator(at);
        let published = match &answer {
            Some(Answer::Published(answer)) => Some(*answer),
            _ => None,
        };
        let number = match &then {
            Then::Settle { owner, .. }
            | Then::StartChild { owner, .. }
            | Then::FirstStart { owner, .. }
            | Then::Saved { owner, .. }
            | Then::Removed { owner, .. }
            | Then::SavedCheckpoint { owner, .. }
            | Then::TakeOver { owner }
            | Then::Snapshots { owner }
            | Then::JournalEnd { owner } => *owner,
            Then::Beat => {
                if let Some(Stored(revision)) = published {
                    self.coordinators[at].membership.heard(revision);
                }
                return;
            }
            Then::Lease {
                partition,
                lease,
                begins,
            } => {
                let coordinator = &mut self.coordinators[at];
                coordinator.claiming.remove(partition);
                if let Some(Stored(revision)) = published {
                    let membership = &mut coordinator.membership;
                    membership.see_lease(*partition, lease.clone(), revision);
                    if *begins {
                        self.begin(at, *partition);
                    }
                }
                return;
            }
            Then::Routed { event } => {
                let left = self.coordinators[at].routing.get_mut(event);
                if let Some(left) = left {
                    *left -= 1;
                    if *left == 0 {
                        self.coordinators[at].routing.remove(event);
                        let op = Op::Ack(StreamName::Events, *event);
                        self.call(node, op, Then::Nothing);
                    }
                }
                return;
            }
            Then::Nothing | Then::Replied { .. } => return,
        };
        let Some((partition, running)) = self.owner(at, number) else {
            return;
        };
        if running.owner.is_some() {
            running.outstanding -= 1;
        }
        match (then, answer) {
            (Then::FirstStart { owner, debt }, None) => {
                running.outstanding += 1;
                self.call(node, op, Then::FirstStart { owner, debt });
            }
            (Then::Settle { debt, .. }, None)
                if matches!(debt.effect, Some(Effect::Withdraw { .. })) =>
            {
                if let Some(owner) = &mut running.owner {
                    owner.settle(debt, Ok(()));
                }
            }
            (_, None) => self.end(at, partition, "the broker did not answer"),
            (Then::StartChild { owner, debt }, _) if published == Some(WrongLast) => {
                running.outstanding += 1;
                if let Op::Publish(stream, draft) = op {
                    let op = Op::First(stream, draft.subject);
                    self.call(node, op, Then::FirstStart { owner, debt });
                }
            }
            (Then::Settle { debt, .. } | Then::StartChild { debt, .. }, _) => {
                if let Some(owner) = &mut running.owner {
                    owner.settle(debt, Ok(()));
                }
            }
            (Then::FirstStart { owner, debt }, Some(Answer::Message(None))) => {
                // There is one: this server has not seen it yet.
                running.outstanding += 1;
                self.call(node, op, Then::FirstStart { owner, debt });
            }
            (Then::FirstStart { debt, .. }, Some(Answer::Message(Some(first)))) => {
                let start: Start = dirigent_contracts::envelope::decode(&first.draft.body).unwrap();
                let Some(Effect::StartChild { parent, .. }) = &debt.effect else {
                    unreachable!("only a child is started so");
                };
                let is_ours = start.parent.is_some_and(|of| of.command == parent.command);
                let reason = || Refused::Never("started by somebody else".to_owned());
                if let Some(owner) = &mut running.owner {
                    owner.settle(debt, is_ours.then_some(()).ok_or_else(reason));
                }
            }
            (Then::Saved { saga, applied, .. }, _) => match (published, &mut running.owner) {
                (Some(Stored(_)), Some(owner)) => owner.saved(&saga, applied),
                _ => self.end(at, partition, "another has taken over"),
            },
            (Then::Removed { saga, .. }, _) => match (published, &mut running.owner) {
                (Some(Stored(_)), Some(owner)) => owner.removed(&saga),
                _ => self.end(at, partition, "another has taken over"),
            },
            (Then::SavedCheckpoint { checkpoint, .. }, _) => {
                match (published, &mut running.owner) {
                    (Some(Stored(_)), Some(owner)) => owner.saved_checkpoint(checkpoint),
                    _ => self.end(at, partition, "another has taken over"),
                }
            }
            (Then::TakeOver { owner }, _) => {
                if let Some(Stored(seq) | Duplicate(seq)) = published {
                    running.fence = seq;
                }
                let op = Op::List(StreamName::Sagas, format!("sagas.{partition}."));
                self.call(node, op, Then::Snapshots { owner });
            }
            (Then::Snapshots { owner }, Some(Answer::Listing(mut listing))) => {
                if listing.iter().all(|stored| stored.seq < running.fence) {
                    // The server that answered is behind.
                    self.call(node, op, Then::Snapshots { owner });
                    return;
                }
                let checkpoint = format!("sagas.{partition}.checkpoint");
                listing.retain(|stored| {
                    let is_checkpoint = stored.draft.subject == checkpoint;
                    if is_checkpoint {
                        let text = String::from_utf8(stored.draft.body.clone()).unwrap();
                        running.checkpoint = JournalSeq(text.parse().unwrap());
                    }
                    !is_checkpoint
                });
                running.listing = listing;
                let op = Op::End(StreamName::Journal(partition.0));
                self.call(node, op, Then::JournalEnd { owner });
            }
            (Then::JournalEnd { owner }, Some(Answer::End(end))) => {
                self.open(at, partition, owner, JournalSeq(end));
            }
            (then, answer) => unreachable!("{then:?} was answered with {answer:?}"),
        }
        self.pump(at, partition);
    }

    /// The owner has all that it begins with.
    fn open(&mut self, at: usize, partition: PartitionId, number: u64, end: JournalSeq) {
        let is_flawed = self.flaw == Some(Flaw::TakeoverWithoutReplay);
        let Some((_, running)) = self.owner(at, number) else {
            return;
        };
        let checkpoint = if is_flawed { end } else { running.checkpoint };
        let mut owner = Owner::new(partition, PARTITIONS, checkpoint, end);
        for stored in std::mem::take(&mut running.listing) {
            if !stored.draft.body.is_empty() {
                let key = stored.draft.subject.strip_prefix("sagas.").unwrap();
                owner.load(key, stored.draft.body.clone().into()).unwrap();
            }
        }
        running.owner = Some(owner);
        running.read = checkpoint.0;
        let stream = &self.streams[&StreamName::Journal(partition.0)];
        let entries: Vec<Stored> = stream.from(checkpoint.0 + 1).cloned().collect();
        for stored in entries {
            self.send_entry(at, number, &stored);
        }
    }

    /// Routes an event.
    pub(super) fn route(&mut self, at: usize, message: &Stored) {
        let node = Node::Coordinator(at);
        let entries = following(message);
        if entries.is_empty() {
            let op = Op::Ack(StreamName::Events, message.seq);
            self.call(node, op, Then::Nothing);
            return;
        }
        let event = message.seq;
        self.coordinators[at].routing.insert(event, entries.len());
        for entry in entries {
            self.publish(node, &entry, Then::Routed { event });
        }
    }

    /// What owners must not keep when all is over: sagas that have ended.
    pub(super) fn judge_what_is_left(&self) -> Result<(), String> {
        for coordinator in &self.coordinators {
            for (partition, running) in &coordinator.running {
                let mut outlines = running.owner.iter().flat_map(Owner::outlines);
                if let Some((address, _)) = outlines.find(|(_, outline)| outline.status.is_some()) {
                    return Err(format!(
                        "{address} is still held by an owner of {partition}"
                    ));
                }
            }
        }
        for stored in list_values(&self.streams[&StreamName::Sagas]) {
            if stored.draft.subject.rsplit('.').next() == Some("checkpoint") {
                continue;
            }
            let saga = snapshot::decode(&stored.draft.body)?;
            if saga.run().is_some() {
                return Err(format!("{} still has a snapshot", saga.address()));
            }
        }
        Ok(())
    }
}

fn list_values(stream: &jetstream::Stream) -> Vec<&Stored> {
    let values = stream.from(1).filter(|stored| {
        let last = stream.last_of(&stored.draft.subject);
        !stored.draft.body.is_empty() && last.is_some_and(|last| last.seq == stored.seq)
    });
    values.collect()
}

/// What follows from an event of the installation's world.
pub(super) fn following(message: &Stored) -> Vec<Outgoing> {
    let Draft { subject, body, .. } = &message.draft;
    if !subject.starts_with("sim.") {
        return Vec::new();
    }
    let event = Happened::parse(subject, &[], body).unwrap();
    let place = Place {
        source: &format!("events/{}", message.seq),
        at: message.at,
        sequence: message.seq,
    };
    let limits = SagaLimits::default();
    let rules = &Deployed::get().rules;
    let (following, _) = follow(rules, Feed::Triggers, &event, place, PARTITIONS, limits);
    following.into_iter().map(|it| it.entry).collect()
}

/// A stored message as an entry of a journal.
pub(super) fn record(partition: PartitionId, stored: &Stored) -> Result<Record, String> {
    let Stored { seq, at, draft } = stored;
    let delivered = Delivered {
        seq: JournalSeq(*seq),
        at: Timestamp(*at),
        subject: draft.subject.clone(),
        // Whether it was asked for is the broker's business here.
        is_first_of_subject: true,
        trace: None,
        body: draft.body.clone().into(),
    };
    decode(partition, &delivered)
}

/// The start entry of a child saga.
pub(super) fn start_of_child(
    digest: &DefinitionDigest,
    input: &Arc<Value>,
    parent: &Parent,
) -> Start {
    Start {
        digest: digest.clone(),
        input: Arc::clone(input),
        trigger: None,
        parent: Some(parent.clone()),
        part: None,
        limits: SagaLimits::default(),
    }
}
