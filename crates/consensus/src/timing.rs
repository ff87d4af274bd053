//! Raft's clock: how often a leader is heard, and how long voters wait before they elect another.

use std::time::Duration;

/// How often the leader sends a heartbeat, and how long a silent leader is trusted. The same on all members: a voter
/// keeps faith with a leader for its own `election_max`, and the leader counts on that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Shortest random wait of a voter before it stands for election, on top of `election_max`.
    pub election_min: Duration,
    /// Longest such wait, and the time for which a voter refuses to vote after it heard the leader.
    pub election_max: Duration,
}

impl Default for Timing {
    /// Heartbeat 50 ms, election 150 to 300 ms: a new leader within 700 ms.
    fn default() -> Self {
        Self::from_millis(50, 150, 300)
    }
}

impl Timing {
    const fn from_millis(heartbeat: u64, election_min: u64, election_max: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
        }
    }

    /// Heartbeat 25 ms, election 75 to 125 ms: for a quiet network of idle machines.
    pub const fn fast() -> Self {
        Self::from_millis(25, 75, 125)
    }

    /// Heartbeat 250 ms, election 1 to 2 s: for noisy virtual machines and wide-area links.
    pub const fn wide() -> Self {
        Self::from_millis(250, 1000, 2000)
    }

    /// How long after its last sign of life a leader may count on not being replaced.
    pub const fn lease(&self) -> Duration {
        self.election_max
    }

    /// The same in milliseconds, as members tell it to one another.
    pub fn vote_refusal_ms(&self) -> u32 {
        u32::try_from(self.lease().as_millis()).unwrap_or(u32::MAX)
    }

    /// Age up to which a quorum's last acknowledgement lets the leader answer reads without asking again: the lease less
    /// a tenth, far more than two clocks drift apart in that time (500 ppm).
    pub fn read_lease(&self) -> Duration {
        self.lease() * 9 / 10
    }

    /// How long a voter stays out of Raft after its process started. A restarted voter has forgotten when it last heard
    /// a leader (tikv #15035 is the same fault), so it waits until any promise that it may have given has run out.
    pub fn startup_vote_delay(&self) -> Duration {
        self.lease() * 11 / 10
    }

    /// Silence after which a member counts as not answering, and a leader as lost.
    pub(crate) fn patience(&self) -> Duration {
        self.lease() + self.election_min
    }

    /// Longest wait for a TCP connection to a peer.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.election_max.max(Duration::from_millis(200))
    }

    /// Silence on a connection after which it is probed. Without probes a connection that lived through a partition
    /// stays dead although the network has healed.
    pub(crate) fn keep_alive_interval(&self) -> Duration {
        self.election_max
    }

    /// How long a probe may go unanswered before the connection is given up.
    pub(crate) fn keep_alive_timeout(&self) -> Duration {
        self.election_min
    }

    /// How long an acknowledged append may take on a follower, disk included, before it is sent again. Votes and the
    /// lease do not depend on it: a dead connection is found by its probes.
    pub(crate) fn append_timeout(&self) -> Duration {
        self.election_max.max(Duration::from_secs(2))
    }
}
