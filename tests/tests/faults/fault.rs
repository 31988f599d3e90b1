//! What can go wrong, and in which order it does: chance decides, from a seed.

use std::fmt;

/// Something that goes wrong for a while, and is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A server is killed, and starts on its data.
    KillServer,
    /// All servers are killed at once.
    KillAllServers,
    /// A server stands still, its connections open.
    FreezeServer,
    /// A journal gets another leader.
    StepDownStream,
    /// The consumer of a task gets another leader.
    StepDownConsumer,
    /// The cluster gets another leader.
    StepDownMeta,
    /// A server is cut off from everybody.
    CutOff,
    /// A server is cut off from the other servers, and its clients are not.
    CutFromPeers,
    /// A server is cut off from its clients alone.
    CutFromClients,
    /// Each write of a server to its disk takes long.
    SlowDisk,
    /// The disk of a server is full; there is room again, and it is started anew.
    FullDisk,
    /// A coordinator is killed.
    KillCoordinator,
    /// A coordinator stands still for longer than it counts as alive.
    FreezeCoordinator,
    /// The clock of a coordinator jumps hours ahead, and back to the truth.
    ClockAhead,
    /// The clock of a coordinator jumps hours back, and to the truth again.
    ClockBehind,
    /// A worker is killed.
    KillWorker,
    /// A worker stands still.
    FreezeWorker,
    /// Every server, coordinator and worker is stopped and started, one after the other.
    RollingRestart,
}

impl Fault {
    /// What befalls the cluster.
    pub(crate) const OF_SERVERS: [Self; 11] = [
        Self::KillServer,
        Self::KillAllServers,
        Self::FreezeServer,
        Self::StepDownStream,
        Self::StepDownConsumer,
        Self::StepDownMeta,
        Self::CutOff,
        Self::CutFromPeers,
        Self::CutFromClients,
        Self::SlowDisk,
        Self::FullDisk,
    ];

    /// What befalls coordinators and workers meanwhile.
    pub(crate) const OF_MEMBERS: [Self; 6] = [
        Self::KillCoordinator,
        Self::FreezeCoordinator,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::KillWorker,
        Self::FreezeWorker,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillServer => "a server killed",
            Self::KillAllServers => "all servers killed at once",
            Self::FreezeServer => "a server stopped (SIGSTOP)",
            Self::StepDownStream => "a journal's leader stepped down",
            Self::StepDownConsumer => "a consumer's leader stepped down",
            Self::StepDownMeta => "the cluster's leader stepped down",
            Self::CutOff => "a server cut off from everybody",
            Self::CutFromPeers => "a server cut off from its peers",
            Self::CutFromClients => "a server cut off from its clients",
            Self::SlowDisk => "a slow disk",
            Self::FullDisk => "a full disk",
            Self::KillCoordinator => "a coordinator killed",
            Self::FreezeCoordinator => "a coordinator stopped (SIGSTOP)",
            Self::ClockAhead => "a coordinator's clock hours ahead",
            Self::ClockBehind => "a coordinator's clock hours behind",
            Self::KillWorker => "a worker killed",
            Self::FreezeWorker => "a worker stopped (SIGSTOP)",
            Self::RollingRestart => "a rolling restart of everything",
        })
    }
}

/// Gives the faults in random order, all of them before any comes again.
pub(crate) struct Schedule {
    kinds: Vec<Fault>,
    next: usize,
    /// How often all of them have been given.
    pub(crate) rounds: usize,
}

impl Schedule {
    pub(crate) fn of(kinds: Vec<Fault>) -> Self {
        Self {
            next: kinds.len(),
            kinds,
            rounds: 0,
        }
    }

    /// The next fault. There must be one.
    pub(crate) fn next(&mut self, chance: &mut fastrand::Rng) -> Fault {
        if self.next == self.kinds.len() {
            chance.shuffle(&mut self.kinds);
            self.next = 0;
        }
        let fault = self.kinds[self.next];
        self.next += 1;
        self.rounds += self.next / self.kinds.len();
        fault
    }
}
