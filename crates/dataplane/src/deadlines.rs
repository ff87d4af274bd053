//! Connections that end when they were idle or open for too long. Those of one worker are looked at together, each once
//! in a while, so that moving bytes costs nothing for it; where a pool bounds neither, nothing is kept at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use trestle_model::PoolSpec;

use crate::connections::Roll;
use crate::reason::CloseReason;

/// Time between two looks at what is due.
const TICK: Duration = Duration::from_millis(250);

/// Shortest and longest time between two looks at one connection. In between it is a twentieth of the idle timeout: with
/// the ticks, a connection is closed within a second of its time or a tenth, whichever is more, and never too early. The
/// longest bounds how long an entry outlives its connection.
const LOOKS: (Duration, Duration) = (TICK, Duration::from_secs(5));

/// A connection that is bounded.
#[derive(Debug)]
pub(crate) struct Bounded {
    /// Its place in the worker's slab.
    slot: u32,
    /// Zero for no bound.
    idle_timeout: Duration,
    /// When it expires, if it does.
    end: Option<Instant>,
    /// Bytes that it had moved at the last look.
    moved: u64,
    /// When they were seen to have grown.
    since: Instant,
}

impl Bounded {
    /// A connection at place `slot`, opened at `opened`, that relays from `now` on. `random` is any number: it ends the
    /// connection up to a tenth of the longest lifetime early, so that those that came together do not go together, and
    /// come again together.
    pub(crate) fn new(slot: u32, spec: &PoolSpec, opened: Instant, now: Instant, random: u64) -> Self {
        let lifetime = Some(spec.max_lifetime).filter(|lifetime| !lifetime.is_zero());
        let lifetime = lifetime.map(|lifetime| lifetime - early(lifetime, random));
        Self {
            slot,
            idle_timeout: spec.idle_timeout,
            end: lifetime.and_then(|lifetime| opened.checked_add(lifetime)),
            moved: 0,
            since: now,
        }
    }

    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    /// Looks at the connection, which has moved so many bytes by `now`: why it is to be closed, if it is.
    pub(crate) fn look(&mut self, moved: u64, now: Instant) -> Option<CloseReason> {
        if self.end.is_some_and(|end| end <= now) {
            return Some(CloseReason::Expired);
        }
        if self.moved != moved {
            (self.moved, self.since) = (moved, now);
        }
        let idle = now.saturating_duration_since(self.since);
        (!self.idle_timeout.is_zero() && idle >= self.idle_timeout).then_some(CloseReason::IdleTimeout)
    }

    /// When to look at it next.
    fn next(&self, now: Instant) -> Instant {
        let (least, most) = LOOKS;
        let pause =
            if self.idle_timeout.is_zero() { most } else { (self.idle_timeout / 20).clamp(least, most) };
        let idle = Some(self.idle_timeout).filter(|timeout| !timeout.is_zero());
        let idle_end = idle.and_then(|timeout| self.since.checked_add(timeout));
        [self.end, idle_end].into_iter().flatten().fold(now + pause, Instant::min)
    }
}

/// How much earlier than after `whole` one of many ends, up to a tenth; `random` is any number.
fn early(whole: Duration, random: u64) -> Duration {
    (whole / 10).mul_f64(random as f64 / u64::MAX as f64)
}

/// The bounded connections of one worker, by when they are looked at next and by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    queue: BTreeMap<(Instant, u64), Bounded>,
    /// Whether somebody looks.
    running: bool,
}

impl Deadlines {
    /// Adds the connection with this number; true when somebody has to begin to look.
    pub(crate) fn add(&mut self, id: u64, bounded: Bounded, now: Instant) -> bool {
        self.look_again(id, bounded, now);
        !std::mem::replace(&mut self.running, true)
    }

    /// As [`Deadlines::add`], for one that was looked at just now.
    pub(crate) fn look_again(&mut self, id: u64, bounded: Bounded, now: Instant) {
        self.queue.insert((bounded.next(now), id), bounded);
    }

    /// The next connection that is due by `now`, with its number.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(u64, Bounded)> {
        let first = self.queue.first_entry().filter(|first| first.key().0 <= now)?;
        let id = first.key().1;
        Some((id, first.remove()))
    }

    /// Whether to go on looking.
    pub(crate) fn go_on(&mut self) -> bool {
        self.running = !self.queue.is_empty();
        self.running
    }
}

/// Looks at a worker's bounded connections as long as there are any.
pub(crate) async fn run(roll: Arc<Roll>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !roll.close_due(Instant::now()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bounded(idle_timeout: Duration, max_lifetime: Duration, now: Instant) -> Bounded {
        Bounded::new(0, &PoolSpec { idle_timeout, max_lifetime, ..PoolSpec::default() }, now, now, 0)
    }

    /// When a connection that moves a byte at each of `moves` is closed, and why, if looks are as late as ticks can be.
    fn closed(mut bounded: Bounded, moves: &[Duration], begin: Instant) -> (Duration, CloseReason) {
        let mut now = begin;
        loop {
            now = bounded.next(now).max(now) + TICK;
            let moved = moves.iter().filter(|at| begin + **at <= now).count() as u64;
            if let Some(reason) = bounded.look(moved, now) {
                return (now - begin, reason);
            }
        }
    }

    #[test]
    fn idle_connections_are_closed_within_a_second_or_a_tenth_and_not_early() {
        let begin = Instant::now();
        for timeout in [1, 2, 10, 60, 600, 86_400].map(Duration::from_secs) {
            for last in [Duration::ZERO, timeout / 3, timeout - TICK] {
                let moves: Vec<_> = (0..=10).map(|n| last * n / 10).collect();
                let open = bounded(timeout, Duration::ZERO, begin);
                let (at, reason) = closed(open, &moves, begin);
                assert_eq!(reason, CloseReason::IdleTimeout);
                let late = (timeout / 10).max(SECOND);
                assert!(at >= last + timeout && at <= last + timeout + late, "{timeout:?} {last:?} {at:?}");
            }
        }
    }

    #[test]
    fn expired_ones_are_closed_whatever_they_do() {
        let begin = Instant::now();
        for lifetime in [1, 30, 86_400].map(Duration::from_secs) {
            let moves: Vec<_> = (0..1000).map(|n| lifetime * n / 500).collect();
            for idle in [Duration::ZERO, lifetime] {
                let (at, reason) = closed(bounded(idle, lifetime, begin), &moves, begin);
                assert_eq!(reason, CloseReason::Expired);
                assert!(at >= lifetime && at <= lifetime + SECOND, "{lifetime:?} {at:?}");
            }
        }
    }

    #[test]
    fn those_that_came_together_end_over_a_tenth_of_their_time() {
        let (begin, lifetime) = (Instant::now(), Duration::from_secs(100));
        let spec = PoolSpec { max_lifetime: lifetime, ..PoolSpec::default() };
        let end = |random| closed(Bounded::new(0, &spec, begin, begin, random), &[], begin).0;
        let ends: Vec<Duration> = (0..=10).map(|tenth| end(u64::MAX / 10 * tenth)).collect();
        assert!(ends.is_sorted_by(|one, other| one > other), "{ends:?}");
        assert!(ends.iter().all(|end| (lifetime * 9 / 10..=lifetime + SECOND).contains(end)), "{ends:?}");
        assert!(ends[0] - ends[10] > SECOND * 9, "{ends:?}");
    }

    #[test]
    fn looking_ends_with_the_last_and_begins_with_the_next() {
        let now = Instant::now();
        let mut deadlines = Deadlines::default();
        assert!(deadlines.add(1, bounded(SECOND, Duration::ZERO, now), now));
        assert!(!deadlines.add(2, bounded(SECOND, Duration::ZERO, now), now));
        assert!(deadlines.due(now).is_none() && deadlines.go_on());
        let later = now + SECOND;
        assert_eq!(deadlines.due(later).map(|(id, _)| id), Some(1));
        assert_eq!(deadlines.due(later).map(|(id, _)| id), Some(2));
        assert!(!deadlines.go_on());
        assert!(deadlines.add(3, bounded(SECOND, Duration::ZERO, now), now));
    }
}
