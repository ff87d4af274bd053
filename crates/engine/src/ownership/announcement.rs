//! When a holder tells the network where its address is.

use std::time::Duration;

use super::RetryTimer;

/// Announcements close together at first, because a switch or a neighbour that missed the first one sends a client's
/// packets to the old holder, and a lost SYN costs that client a second (RFC 6298 §2.1).
const EARLY_MS: [u64; 7] = [0, 50, 150, 400, 1000, 2000, 5000];

/// Time between two announcements after those: repairs what a neighbour learned from a packet that came late.
const STEADY: Duration = Duration::from_secs(10);

/// Least time between two announcements that answer another host's claim (RFC 5227, section 2.4).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// How long after a claim the announcement with this number is due, counted from 0: 0, 50, 150, 400 ms, 1, 2, 5 s, then
/// every 10 s.
fn announcement(number: u32) -> Duration {
    let last = EARLY_MS.len() - 1;
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let early = Duration::from_millis(EARLY_MS[number.min(last)]);
    let steady = u32::try_from(number.saturating_sub(last)).unwrap_or(u32::MAX);
    early.saturating_add(STEADY.saturating_mul(steady))
}

/// The number of the first announcement that is due later than `since_claim` after a claim.
fn announced_by(since_claim: Duration) -> u32 {
    let last = EARLY_MS.len() - 1;
    let early = EARLY_MS.iter().filter(|ms| Duration::from_millis(**ms) <= since_claim).count();
    let beyond = since_claim.saturating_sub(Duration::from_millis(EARLY_MS[last]));
    let steady = beyond.as_secs() / STEADY.as_secs();
    u32::try_from(steady.saturating_add(early as u64)).unwrap_or(u32::MAX)
}

/// When one VIP is announced next. Announcements that were missed are not made up for.
#[derive(Debug, Clone)]
pub(super) struct AnnouncementSchedule {
    since: Duration,
    /// The number of the next one.
    next: u32,
    /// One is due at once, outside of the schedule.
    answers: bool,
    last: Option<Duration>,
    answered: RetryTimer,
}

impl AnnouncementSchedule {
    /// Begins at `now`.
    pub(super) fn new(now: Duration) -> Self {
        Self { since: now, next: 0, answers: false, last: None, answered: RetryTimer::default() }
    }

    /// Begins anew at `now`.
    pub(super) fn restart(&mut self, now: Duration) {
        (self.since, self.next) = (now, 0);
    }

    /// Another host claims the VIP: it is answered by a single announcement, unless one was answered a short while ago.
    pub(super) fn answer(&mut self, now: Duration) {
        self.answers |= self.answered.due(now, DEFEND_INTERVAL);
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Duration {
        if self.answers { Duration::ZERO } else { self.since.saturating_add(announcement(self.next)) }
    }

    /// Notes that one is sent at `now`.
    pub(super) fn sent(&mut self, now: Duration) {
        self.next = announced_by(now.saturating_sub(self.since));
        (self.answers, self.last) = (false, Some(now));
    }

    /// When the last one was sent.
    pub(super) fn last(&self) -> Option<Duration> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_schedule_is_the_documented_one() {
        let ms: Vec<u128> = (0..10).map(|n| announcement(n).as_millis()).collect();
        assert_eq!(ms, [0, 50, 150, 400, 1000, 2000, 5000, 15_000, 25_000, 35_000]);
    }

    proptest! {
        #[test]
        fn the_next_announcement_is_the_first_that_is_still_due(ms in 0u64..1_000_000) {
            let since = Duration::from_millis(ms);
            let next = announced_by(since);
            prop_assert!(announcement(next) > since);
            prop_assert!(announcement(next - 1) <= since);
        }

        #[test]
        fn no_number_is_too_large(number in any::<u32>()) {
            prop_assert!(announcement(number) <= announcement(number.saturating_add(1)));
        }
    }
}
