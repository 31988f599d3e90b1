//! Virtual time, and everything that stands in it.
//!
//! One thread takes one event after the other; what an event causes comes later. Whatever may differ
//! between two runs is drawn from the seed.

use super::{
    audit::Audit,
    broker::{Answer, Op},
    coordinator::Coordinator,
    jetstream::{Draft, Stored, Stream},
    schedule::{
        CALM, COORDINATORS, Fault, Noise, Plan, SECOND, STREAMS, Schedule, StreamName, WORKERS,
    },
    worker::{Ledger, Worker},
};
use crate::{broker::publisher::Outgoing, partition::Debt};
use dirigent_contracts::{
    id::{JournalSeq, PartitionId, SagaAddress},
    task::Command,
    time::Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};

/// The broker's clock when a run begins: microseconds since 1970.
pub(super) const BASE: i64 = 1_700_000_000_000_000;
/// After this time whatever has not ended never will.
const END: i64 = 400 * SECOND;
/// How long a caller waits for an answer.
const TIMEOUT: i64 = 2 * SECOND;
/// How long a message takes, at most, when nothing is wrong.
const LATENCY: i64 = 4_000;

/// Plausible mistakes, made on purpose: the simulation must find each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A timer is acted on when it is due, and stored behind that.
    EffectsBeforeTheirCause,
    /// An effect counts as done when it was sent.
    CheckpointBeforeAcknowledgements,
    /// A start trusts in the broker's memory of message ids.
    DedupeByWindowOnly,
    /// A timer is folded before what was stored earlier.
    TimerBeatsEarlierReply,
    /// A new owner begins at the journal's end.
    TakeoverWithoutReplay,
}

/// Somebody who talks to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Coordinator(usize),
    Worker(usize),
    /// Whoever publishes trigger events.
    Client,
}

/// What is to be done with an answer. `owner` is the number of the owner that asked.
#[derive(Clone, Debug)]
pub(super) enum Then {
    Nothing,
    Settle {
        owner: u64,
        debt: Debt,
    },
    StartChild {
        owner: u64,
        debt: Debt,
    },
    FirstStart {
        owner: u64,
        debt: Debt,
    },
    Saved {
        owner: u64,
        saga: SagaAddress,
        applied: JournalSeq,
    },
    Removed {
        owner: u64,
        saga: SagaAddress,
    },
    SavedCheckpoint {
        owner: u64,
        checkpoint: JournalSeq,
    },
    TakeOver {
        owner: u64,
    },
    Snapshots {
        owner: u64,
    },
    JournalEnd {
        owner: u64,
    },
    Beat,
    Lease {
        partition: PartitionId,
        lease: crate::partition::Lease,
        begins: bool,
    },
    Routed {
        event: u64,
    },
    Replied {
        command: u64,
    },
}

impl Then {
    /// Whether the request is repeated until it is answered: all publishing is.
    fn is_patient(&self) -> bool {
        matches!(
            self,
            Self::Nothing
                | Self::Settle { .. }
                | Self::StartChild { .. }
                | Self::Routed { .. }
                | Self::Replied { .. }
        )
    }
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a run has a few hundred in its queue"
)]
pub(super) enum Event {
    /// A request reaches the broker.
    Arrive {
        node: Node,
        life: u32,
        call: u64,
        op: Op,
    },
    /// An answer reaches who asked.
    Answer {
        call: u64,
        answer: Answer,
    },
    /// No answer came in time.
    Timeout {
        call: u64,
    },
    /// A request that was not answered is made again.
    Again {
        node: Node,
        life: u32,
        op: Op,
        then: Then,
        tries: u32,
    },
    /// An entry of a journal reaches the owner of this number.
    Entry {
        at: usize,
        life: u32,
        owner: u64,
        seq: u64,
    },
    /// A consumer's message reaches a member.
    Handed {
        node: Node,
        life: u32,
        message: Stored,
    },
    /// A member's beat or a lease is seen.
    Change {
        at: usize,
        life: u32,
        change: Stored,
    },
    Beat {
        at: usize,
        life: u32,
    },
    Look {
        at: usize,
        life: u32,
    },
    Wake {
        at: usize,
        life: u32,
        owner: u64,
    },
    /// A worker has done what a command asks.
    Work {
        at: usize,
        life: u32,
        seq: u64,
        command: Box<Command>,
    },
    /// Deliveries may be overdue.
    Overdue {
        stream: StreamName,
    },
    Fault(usize),
    /// A fault is over.
    Restart {
        at: usize,
    },
    RestartWorker {
        at: usize,
    },
    LeaderBack {
        stream: StreamName,
        skew: i64,
    },
    /// A saga's trigger event is published; the event that it may await; its cancellation.
    Trigger(usize),
    Paid(usize),
    Cancel(usize),
}

/// A request that is not answered yet.
struct Call {
    node: Node,
    life: u32,
    op: Op,
    then: Then,
    tries: u32,
}

pub(super) struct World {
    pub(super) now: i64,
    queue: BTreeMap<(i64, u64), Event>,
    queued: u64,
    pub(super) rng: fastrand::Rng,
    pub(super) schedule: Schedule,
    pub(super) flaw: Option<Flaw>,
    pub(super) streams: BTreeMap<StreamName, Stream>,
    /// Streams without a leader.
    pub(super) leaderless: BTreeSet<StreamName>,
    /// How far a leader's clock is off.
    pub(super) skews: BTreeMap<StreamName, i64>,
    pub(super) coordinators: Vec<Coordinator>,
    pub(super) workers: Vec<Worker>,
    pub(super) ledger: Ledger,
    calls: BTreeMap<u64, Call>,
    numbers: u64,
    /// When the last request of a node arrives: a connection keeps the order.
    last_arrival: BTreeMap<Node, i64>,
    /// What a dead process had not sent by then is lost.
    cuts: BTreeMap<(Node, u32), i64>,
    pub(super) audit: Audit,
    /// The last things that happened, for people.
    pub(super) log: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(schedule: Schedule, flaw: Option<Flaw>, is_logged: bool) -> Self {
        let streams = STREAMS.map(|name| (name, Stream::new(120 * SECOND, false)));
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            rng: fastrand::Rng::with_seed(schedule.seed ^ 0x5eed),
            flaw,
            streams: BTreeMap::from(streams),
            leaderless: BTreeSet::new(),
            skews: BTreeMap::new(),
            coordinators: (0..COORDINATORS).map(Coordinator::new).collect(),
            workers: vec![Worker::default(); WORKERS],
            ledger: Ledger::new(schedule.seed),
            calls: BTreeMap::new(),
            numbers: 0,
            last_arrival: BTreeMap::new(),
            cuts: BTreeMap::new(),
            audit: Audit::default(),
            log: is_logged.then(Vec::new),
            schedule,
        };
        world.prepare_consumers();
        for at in 0..COORDINATORS {
            world.start_coordinator(at);
        }
        for n in 0..world.schedule.faults.len() {
            let at = world.schedule.faults[n].at();
            world.at(at, Event::Fault(n));
        }
        for n in 0..world.schedule.plans.len() {
            let Plan {
                at,
                paid_at,
                canceled_at,
                ..
            } = world.schedule.plans[n].clone();
            world.at(at, Event::Trigger(n));
            world.at(paid_at, Event::Paid(n));
            if let Some(canceled_at) = canceled_at {
                world.at(canceled_at, Event::Cancel(n));
            }
        }
        world
    }

    /// Runs to the end. The first thing that is wrong, if anything is.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let mut quiet_since = None;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            if self.log.is_some() {
                self.note(&event);
            }
            self.happen(event);
            self.audit.verdict()?;
            if at > CALM && self.is_quiet() {
                // What is written behind gets its time.
                if at > *quiet_since.get_or_insert(at) + 4 * SECOND {
                    return self.judge();
                }
            } else {
                quiet_since = None;
            }
            if at > END {
                return Err(self.audit.why_not_ended());
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn is_quiet(&self) -> bool {
        self.audit.is_over()
            && self.streams[&StreamName::Events].is_done(super::broker::CONSUMER)
            && self.streams[&StreamName::Commands].is_done(super::broker::CONSUMER)
    }

    /// What must hold when all is over.
    fn judge(&mut self) -> Result<(), String> {
        let expected = self.schedule.plans.iter().map(Plan::address);
        self.audit.judge(expected, &self.ledger)?;
        self.judge_what_is_left()
    }

    pub(super) fn at(&mut self, at: i64, event: Event) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), event);
    }

    pub(super) fn after(&mut self, wait: i64, event: Event) {
        self.at(self.now + wait, event);
    }

    pub(super) fn latency(&mut self) -> i64 {
        self.rng.i64(50..LATENCY)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The time by a stream's leader.
    pub(super) fn broker_time(&self, stream: StreamName) -> Timestamp {
        Timestamp(BASE + self.now + self.skews.get(&stream).copied().unwrap_or(0))
    }

    /// The chances in a thousand, at this moment, of a kind of noise.
    pub(super) fn is_unlucky(&mut self, kind: fn(&Noise) -> u32) -> bool {
        let now = self.now;
        let noise = self.schedule.faults.iter().filter_map(|fault| match fault {
            Fault::Noise(noise) if (noise.at..noise.until).contains(&now) => Some(kind(noise)),
            _ => None,
        });
        noise
            .max()
            .is_some_and(|chances| self.rng.u32(..1_000) < chances)
    }

    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            log.push(format!("{:>10.4}  {}", now as f64 / 1e6, text()));
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Fault(n) => {
                let fault = self.schedule.faults[*n].clone();
                self.say(|| format!("fault: {fault:?}"));
            }
            Event::Arrive {
                node,
                op: Op::Publish(stream, draft),
                ..
            } if !draft.subject.starts_with("partitions.member.") => {
                let text = format!("{node:?} -> {stream:?} {} {:?}", draft.subject, draft.id);
                self.say(|| text);
            }
            Event::Restart { .. } | Event::RestartWorker { .. } | Event::LeaderBack { .. } => {
                let text = format!("{event:?}");
                self.say(|| text);
            }
            _ => {}
        }
    }

    fn life(&self, node: Node) -> u32 {
        match node {
            Node::Coordinator(at) => self.coordinators[at].life,
            Node::Worker(at) => self.workers[at].life,
            Node::Client => 0,
        }
    }

    fn is_up(&self, node: Node) -> bool {
        match node {
            Node::Coordinator(at) => self.coordinators[at].is_up,
            Node::Worker(at) => !self.workers[at].is_down,
            Node::Client => true,
        }
    }

    /// Until when a node cannot reach the broker.
    pub(super) fn apart_until(&self, node: Node) -> i64 {
        match node {
            Node::Coordinator(at) => self.coordinators[at].apart_until,
            _ => 0,
        }
    }

    /// A process ends here and now; its requests on the wire may still arrive.
    pub(super) fn kill(&mut self, node: Node) {
        let life = self.life(node);
        let cut = self.now + self.rng.i64(0..LATENCY);
        self.cuts.insert((node, life), cut);
        self.calls.retain(|_, call| call.node != node);
    }

    pub(super) fn call(&mut self, node: Node, op: Op, then: Then) {
        self.try_call(node, op, then, 0);
    }

    /// Publishes a message, again and again until it is answered.
    pub(super) fn publish(&mut self, node: Node, message: &Outgoing, then: Then) {
        let draft = self.draft(message);
        let op = Op::Publish(StreamName::of(&draft.subject), draft);
        self.call(node, op, then);
    }

    fn try_call(&mut self, node: Node, op: Op, then: Then, tries: u32) {
        let call = self.number();
        let life = self.life(node);
        let sent = Call {
            node,
            life,
            op: op.clone(),
            then,
            tries,
        };
        self.calls.insert(call, sent);
        self.after(TIMEOUT, Event::Timeout { call });
        if self.is_unlucky(|noise| noise.lost) || self.apart_until(node) > self.now {
            return;
        }
        let mut arrives = self.now + self.latency();
        if self.is_unlucky(|noise| noise.late) {
            arrives += self.rng.i64(0..5 * SECOND);
        } else {
            let last = self.last_arrival.entry(node).or_default();
            arrives = arrives.max(*last);
            *last = arrives;
        }
        self.at(
            arrives,
            Event::Arrive {
                node,
                life,
                call,
                op,
            },
        );
    }

    fn happen(&mut self, event: Event) {
        // Whoever stands still, or is dead, does nothing now.
        let concerned = match &event {
            Event::Entry { at, life, .. }
            | Event::Change { at, life, .. }
            | Event::Beat { at, life }
            | Event::Look { at, life }
            | Event::Wake { at, life, .. } => Some((Node::Coordinator(*at), *life)),
            Event::Handed { node, life, .. } | Event::Again { node, life, .. } => {
                Some((*node, *life))
            }
            Event::Work { at, life, .. } => Some((Node::Worker(*at), *life)),
            Event::Answer { call, .. } | Event::Timeout { call } => match self.calls.get(call) {
                Some(call) => Some((call.node, call.life)),
                None => return,
            },
            _ => None,
        };
        if let Some((node, life)) = concerned {
            if life != self.life(node) || !self.is_up(node) {
                return;
            }
            let mut until = match node {
                Node::Coordinator(at) => self.coordinators[at].still_until,
                _ => 0,
            };
            if matches!(
                &event,
                Event::Entry { .. }
                    | Event::Change { .. }
                    | Event::Handed { .. }
                    | Event::Answer { .. }
            ) {
                until = until.max(self.apart_until(node));
            }
            if until > self.now {
                self.at(until, event);
                return;
            }
        }
        match event {
            Event::Arrive {
                node,
                life,
                call,
                op,
            } => {
                let is_cut = self
                    .cuts
                    .get(&(node, life))
                    .is_some_and(|cut| self.now > *cut);
                if !is_cut && self.apart_until(node) <= self.now {
                    self.arrive(node, call, op);
                }
            }
            Event::Answer { call, answer } => {
                if let Some(Call { node, then, op, .. }) = self.calls.remove(&call) {
                    self.answered(node, then, Some(answer), op);
                }
            }
            Event::Timeout { call } => {
                let Some(Call {
                    node,
                    life,
                    op,
                    then,
                    tries,
                }) = self.calls.remove(&call)
                else {
                    return;
                };
                if then.is_patient() {
                    let wait = (50_000 << tries.min(5)).min(2 * SECOND);
                    self.after(
                        wait,
                        Event::Again {
                            node,
                            life,
                            op,
                            then,
                            tries: tries + 1,
                        },
                    );
                } else {
                    self.answered(node, then, None, op);
                }
            }
            Event::Again {
                node,
                op,
                then,
                tries,
                ..
            } => self.try_call(node, op, then, tries),
            Event::Entry { at, owner, seq, .. } => self.entry(at, owner, seq),
            Event::Handed { node, message, .. } => match node {
                Node::Coordinator(at) => self.route(at, &message),
                Node::Worker(at) => self.begin_work(at, &message),
                Node::Client => {}
            },
            Event::Change { at, change, .. } => self.see(at, &change),
            Event::Beat { at, .. } => self.beat(at),
            Event::Look { at, .. } => self.look(at),
            Event::Wake { at, owner, .. } => self.wake(at, owner),
            Event::Work {
                at, seq, command, ..
            } => self.end_work(at, seq, &command),
            Event::Overdue { stream } => self.dispatch(stream),
            Event::Fault(n) => self.strike(n),
            Event::Restart { at } => self.start_coordinator(at),
            Event::RestartWorker { at } => {
                self.workers[at].is_down = false;
                self.dispatch(StreamName::Commands);
            }
            Event::LeaderBack { stream, skew } => {
                self.leaderless.remove(&stream);
                self.skews.insert(stream, skew);
            }
            Event::Trigger(n) => self.trigger(n),
            Event::Paid(n) => self.paid(n),
            Event::Cancel(n) => self.cancel(n),
        }
    }

    fn answered(&mut self, node: Node, then: Then, answer: Option<Answer>, op: Op) {
        match node {
            Node::Coordinator(at) => self.coordinator_answered(at, then, answer, op),
            Node::Worker(at) => self.worker_answered(at, &then),
            Node::Client => {}
        }
    }

    fn strike(&mut self, n: usize) {
        match self.schedule.faults[n].clone() {
            Fault::Noise(_) => {}
            Fault::Crash {
                coordinator, down, ..
            } => {
                if self.coordinators[coordinator].is_up {
                    self.kill(Node::Coordinator(coordinator));
                    self.coordinators[coordinator].die();
                    self.after(down, Event::Restart { at: coordinator });
                }
            }
            Fault::Pause {
                coordinator, still, ..
            } => {
                let until = self.now + still;
                let coordinator = &mut self.coordinators[coordinator];
                coordinator.still_until = coordinator.still_until.max(until);
            }
            Fault::CutOff {
                coordinator, apart, ..
            } => {
                let until = self.now + apart;
                let coordinator = &mut self.coordinators[coordinator];
                coordinator.apart_until = coordinator.apart_until.max(until);
            }
            Fault::Skew {
                coordinator, by, ..
            } => self.coordinators[coordinator].skew = by,
            Fault::ForgetIds { stream, .. } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.forget_ids();
                }
            }
            Fault::LoseLeader {
                stream, down, skew, ..
            } => {
                if self.leaderless.insert(stream) {
                    self.after(down, Event::LeaderBack { stream, skew });
                }
            }
            Fault::CrashWorker { worker, down, .. } => {
                if !self.workers[worker].is_down {
                    self.kill(Node::Worker(worker));
                    self.workers[worker].is_down = true;
                    self.workers[worker].life += 1;
                    self.after(down, Event::RestartWorker { at: worker });
                }
            }
        }
    }

    fn draft(&self, message: &Outgoing) -> Draft {
        let header = |name| message.header(name);
        let is_start = header(dirigent_contracts::header::EXPECTED_LAST_SUBJECT_SEQUENCE);
        let trusts_window = self.flaw == Some(Flaw::DedupeByWindowOnly);
        Draft {
            subject: message.subject().to_owned(),
            id: header(dirigent_contracts::header::MESSAGE_ID).map(str::to_owned),
            expected_last: is_start
                .filter(|_| !trusts_window)
                .and_then(|seq| seq.parse().ok()),
            body: message.body().to_vec(),
            expected_subject: None,
        }
    }
}
