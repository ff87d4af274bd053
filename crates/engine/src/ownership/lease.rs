//! How long a member may go on serving, and how long its successor waits. README.md beside this file has the figures.

use std::time::Duration;

/// What two members' clocks may drift apart, in millionths of the time that passes: 500 for each of them, the bound that
/// the kernel itself sets to the rate at which it disciplines a clock (`MAXFREQ` in Linux' include/linux/timex.h).
const DRIFT_PPM: u32 = 1000;

/// How long after its deadline a fence of nftables may still be open: the time in which a renewal may be under way, which the
/// kernel limits. README.md has the argument. Measured spread: 5 ms.
pub const FENCE_ERROR: Duration = Duration::from_millis(12);

/// The same without nftables: lifetimes of addresses are rounded down, and the kernel looks for ended ones as late as
/// 1.25 s after.
pub const DEGRADED_FENCE_ERROR: Duration = Duration::from_millis(1250);

/// How long a holder may serve after a quorum last heard it, and what its kernel may add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTiming {
    /// Time after the sending of the last heartbeat that a quorum answered for which a VIP may be served.
    pub length: Duration,
    /// Time by which the kernel may end a fence later than it was told to.
    pub fence_error: Duration,
    /// Time for which a voter that heard a leader refuses to vote for another one (`election_max`).
    pub vote_refusal: Duration,
}

impl Default for LeaseTiming {
    /// For heartbeats of 50 ms and elections of 150 to 300 ms.
    fn default() -> Self {
        Self::from_millis(280, 300)
    }
}

impl LeaseTiming {
    const fn from_millis(length: u64, vote_refusal: u64) -> Self {
        Self {
            length: Duration::from_millis(length),
            fence_error: FENCE_ERROR,
            vote_refusal: Duration::from_millis(vote_refusal),
        }
    }

    /// For heartbeats of 25 ms and elections of 75 to 125 ms.
    pub const fn fast() -> Self {
        Self::from_millis(110, 125)
    }

    /// For heartbeats of 250 ms and elections of 1 to 2 s.
    pub const fn wide() -> Self {
        Self::from_millis(1900, 2000)
    }

    /// The same cluster, on a member whose kernel has no nftables and fences by the lifetime of the address alone: whole
    /// seconds, checked at least a second apart and rounded up by less than 250 ms (Linux' net/ipv4/devinet.c,
    /// `check_lifetime`; measured 3.03 to 3.21 s for 3 s, and a second more beside another address). It outlives the time
    /// in which votes are refused, so a successor waits for the difference.
    #[must_use]
    pub const fn degraded(self) -> Self {
        Self { length: Duration::from_secs(3), fence_error: DEGRADED_FENCE_ERROR, ..self }
    }

    /// How long after the sending of the last heartbeat that a quorum answered this member's kernel may let a VIP be
    /// served, on this member's clock.
    pub const fn reach(&self) -> Duration {
        self.length.saturating_add(self.fence_error)
    }

    /// How long a leader elected like this waits from its election until a tenure with this reach has run out.
    ///
    /// No quorum answers the old leader once a quorum has voted for the new one, so its last heartbeat that counts was
    /// sent before the election. After an election by time-out it was sent a whole vote refusal before: every voter that
    /// answered it kept silent for that long. After a transfer votes are given at once, and nothing is known.
    pub fn wait(&self, reach: Duration, elected: Elected) -> Duration {
        let drifted = reach.saturating_add(reach.saturating_mul(DRIFT_PPM) / 1_000_000);
        match elected {
            Elected::ByTimeout => drifted.saturating_sub(self.vote_refusal),
            Elected::ByTransfer | Elected::Alone => drifted,
        }
    }
}

/// How a leader came to its votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Elected {
    /// No voter had heard a leader for the whole time in which it refuses to vote, as far as its lease was in force.
    ByTimeout,
    /// The election was started by the old leader, whose lease voters then disregard; also when it is not known.
    ByTransfer,
    /// It needed no other vote: it founded the cluster, or is its only voter. It waits as after a transfer.
    Alone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_election_by_timeout_nobody_waits() {
        for lease in [LeaseTiming::default(), LeaseTiming::fast(), LeaseTiming::wide()] {
            assert_eq!(lease.wait(lease.reach(), Elected::ByTimeout), Duration::ZERO);
            for elected in [Elected::ByTransfer, Elected::Alone] {
                assert!(lease.wait(lease.reach(), elected) > lease.reach());
            }
        }
    }

    #[test]
    fn the_successor_of_a_degraded_member_waits_for_the_address_to_go() {
        let lease = LeaseTiming::default();
        let wait = lease.wait(lease.degraded().reach(), Elected::ByTimeout);
        assert_eq!(wait, Duration::from_micros(4_250_000 + 4_250 - 300_000));
    }
}
