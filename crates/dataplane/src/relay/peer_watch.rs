//! Telling a peer that is dead from one that only does not read.
//!
//! TCP_USER_TIMEOUT (tcp(7)) does not: it counts the time for which a window was closed, however often the peer's system
//! answers the probes of it. Keepalive (RFC 9293 §3.8.4) finds peers that vanish while nothing is under way, but Linux sends
//! none while something is. So a socket that was written to is looked at once in a while until all of that was acknowledged.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Parts of the timeout between two looks, but 1 to 5 s. A dead peer is found within two of them, of which the timeout is
/// made shorter, so that it bounds the whole.
const LOOKS: u16 = 24;
const INTERVAL: (u16, u16) = (1, 5);

/// A look is to be taken.
const DUE: u8 = u8::MAX;

/// How a socket stands whose bytes, or whose end, the peer has not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Since the peer's system sent anything.
    pub(crate) silent: Duration,
    /// It owes an answer, to bytes or to a probe of its window.
    pub(crate) is_owed: bool,
    /// When the kernel asks again, after it has last asked.
    pub(crate) retry: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Nothing is known to be under way.
    #[default]
    Idle,
    /// Something is.
    Pending,
    /// And the peer was silent for so long at the last look that it is dead if it is at the next.
    Silent,
}

/// What is kept of a socket's peer: 6 bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerWatch {
    /// Seconds; 0 while nobody wants to know.
    timeout: u16,
    /// Second on [`now`] since which something is under way. After 18 hours it is taken for a new one.
    since: u16,
    /// Beats, of a second each, until the next look: 0 for none.
    beats: u8,
    state: State,
}

/// Seconds on this process's clock.
pub(crate) fn now() -> u16 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    (ORIGIN.elapsed().as_secs() & u64::from(u16::MAX)) as u16
}

impl PeerWatch {
    /// With a timeout of whole seconds.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout: u16::try_from(timeout.as_secs()).unwrap_or(u16::MAX), ..Self::default() }
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    fn interval(&self) -> u16 {
        let (least, most) = INTERVAL;
        (self.timeout / LOOKS).clamp(least, most)
    }

    /// The socket is written to.
    pub(crate) fn wrote(&mut self) {
        if self.beats == 0 && self.timeout > 0 {
            self.beats = self.interval() as u8;
        }
    }

    /// A second has passed; says whether that brings a look.
    pub(crate) fn beat(&mut self) -> bool {
        match self.beats {
            0 | DUE => return false,
            1 => self.beats = DUE,
            _ => self.beats -= 1,
        }
        self.beats == DUE
    }

    /// Whether a look is to be taken; says so once.
    pub(crate) fn take_due(&mut self) -> bool {
        let due = self.beats == DUE;
        if due {
            self.beats = 0;
        }
        due
    }

    /// Takes note of a look at `now`, which is `None` when nothing is under way; says whether the peer is dead.
    pub(crate) fn look(&mut self, pending: Option<Pending>, now: u16) -> bool {
        let Some(pending) = pending else {
            self.state = State::Idle;
            return false;
        };
        if self.state == State::Idle {
            (self.state, self.since) = (State::Pending, now);
        }
        let waited = Duration::from_secs(now.wrapping_sub(self.since).into());
        let limit = Duration::from_secs(self.timeout.saturating_sub(2 * self.interval()).into());
        // However long it was silent, it was asked only as often as the kernel does.
        let was_asked = pending.is_owed && pending.silent >= pending.retry * 5 / 4;
        let silent = was_asked && waited.min(pending.silent) >= limit;
        let dead = silent && self.state == State::Silent;
        self.state = if silent { State::Silent } else { State::Pending };
        // What it may just have been asked is answered by the next beat.
        self.beats = if silent { 1 } else { self.interval() as u8 };
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When a peer is given up, of which `seen` says how it stands at each second.
    fn given_up(timeout: u64, seen: impl Fn(u16) -> Option<Pending>) -> Option<u16> {
        let mut watch = PeerWatch::new(Duration::from_secs(timeout));
        watch.wrote();
        (1..40_000).find(|now| {
            watch.beat();
            watch.take_due() && watch.look(seen(*now), *now)
        })
    }

    fn silent_since(start: u16, is_owed: bool, retry: Duration) -> impl Fn(u16) -> Option<Pending> {
        move |now| Some(Pending { silent: SECOND * u32::from(now.saturating_sub(start)), is_owed, retry })
    }

    #[test]
    fn a_dead_peer_is_given_up_within_the_timeout_and_not_much_earlier() {
        for timeout in [5_u16, 6, 30, 120, 900] {
            for retry in [SECOND, SECOND * u32::from(timeout) / 4] {
                let at = given_up(timeout.into(), silent_since(0, true, retry)).unwrap_or(0);
                assert!(at <= timeout && at >= timeout / 2, "{timeout}: {at}");
                // One that answered for an hour before.
                let late = given_up(timeout.into(), silent_since(3600, true, retry)).unwrap_or(0);
                assert!(late > 3600 + timeout / 2 && late <= 3600 + timeout, "{timeout}: {late}");
            }
        }
    }

    #[test]
    fn one_that_answers_stays_whatever_it_does_not_read() {
        for timeout in [5, 120, 900] {
            // Probes a minute and two apart, each of which is answered.
            for pause in [60, 120] {
                let seen = |now: u16| {
                    let silent = SECOND * u32::from(now % pause);
                    Some(Pending { silent, is_owed: now.is_multiple_of(pause), retry: SECOND })
                };
                assert_eq!(given_up(timeout, seen), None);
            }
            assert_eq!(given_up(timeout, silent_since(0, false, SECOND)), None);
            assert_eq!(given_up(timeout, |_| None), None);
        }
    }

    #[test]
    fn one_that_was_not_asked_yet_is_not_silent() {
        assert_eq!(given_up(30, silent_since(0, true, SECOND * 40_000)), None);
    }

    #[test]
    fn nobody_is_looked_at_without_a_timeout_or_before_a_write() {
        let mut watch = PeerWatch::default();
        watch.wrote();
        assert!(!(0..100).any(|_| watch.beat()));
        let mut watch = PeerWatch::new(SECOND * 5);
        assert!(!(0..100).any(|_| watch.beat()));
        watch.wrote();
        assert!(watch.beat() && watch.take_due() && !watch.take_due());
    }
}
