//! Connections that end when they were idle or open for too long. The connections of one worker are checked together, each
//! once in a while, so that moving bytes costs nothing for it; for a pool without these timeouts nothing is kept at all.
//!
//! Whether a connection is idle, which it mostly is not, is checked in ticks. The end of a lifetime has a time of its own: in
//! ticks as coarse, ends that are spread would come together again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use trestle_engine::spread;
use trestle_model::PoolSpec;

use crate::observe::close_reason::CloseReason;

/// Time between two checks for idle connections.
const TICK: Duration = Duration::from_millis(250);

/// Least time between two looks, so that thousands that end within a second are some for each look.
const PAUSE: Duration = Duration::from_millis(5);

/// Shortest and longest time between two looks at one connection. In between it is a twentieth of the idle timeout: with
/// the ticks, a connection is closed within a second of its time or a tenth, whichever is more, and never too early. The
/// longest bounds how long an entry outlives its connection.
const LOOKS: (Duration, Duration) = (TICK, Duration::from_secs(5));

/// A connection that is bounded.
#[derive(Debug)]
pub(crate) struct TimedConnection {
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

impl TimedConnection {
    /// Connection number `id` at place `slot`, opened at `opened`, that relays from `now` on. Its number says where in the last
    /// part of the longest lifetime it ends, so that those that came together do not go together, and come again together.
    pub(crate) fn new(slot: u32, id: u64, spec: &PoolSpec, opened: Instant, now: Instant) -> Self {
        let whole = Some(spec.max_lifetime).filter(|lifetime| !lifetime.is_zero());
        let lifetime = whole.map(|whole| {
            spread::moment(id, whole - spread::last_part(whole, spec.close_spread_percent), whole)
        });
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

/// The bounded connections of one worker, by when they are looked at next and by their numbers.
#[derive(Debug)]
pub(crate) struct TimeoutQueue {
    queue: BTreeMap<(Instant, u64), TimedConnection>,
    /// From when ticks are counted.
    origin: Instant,
    /// Whether somebody looks.
    running: bool,
}

impl TimeoutQueue {
    pub(crate) fn new(origin: Instant) -> Self {
        Self { queue: BTreeMap::new(), origin, running: false }
    }

    /// Adds the connection with this number; true when somebody has to begin to look.
    pub(crate) fn add(&mut self, id: u64, timed: TimedConnection, now: Instant) -> bool {
        self.look_again(id, timed, now);
        !std::mem::replace(&mut self.running, true)
    }

    /// As [`TimeoutQueue::add`], for one that was looked at just now.
    pub(crate) fn look_again(&mut self, id: u64, timed: TimedConnection, now: Instant) {
        let next = timed.next(now);
        let next = if timed.end == Some(next) { next } else { self.tick(next) };
        self.queue.insert((next, id), timed);
    }

    /// The first tick that is not before `at`.
    fn tick(&self, at: Instant) -> Instant {
        let past = at.saturating_duration_since(self.origin).as_nanos() % TICK.as_nanos();
        let rest = TICK.as_nanos().saturating_sub(past) % TICK.as_nanos();
        at + Duration::from_nanos(u64::try_from(rest).unwrap_or(0))
    }

    /// The next connection that is due by `now`, with its number.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(u64, TimedConnection)> {
        let first = self.queue.first_entry().filter(|first| first.key().0 <= now)?;
        let id = first.key().1;
        Some((id, first.remove()))
    }

    /// When to look next, if there is anything left to look at: within a tick, since others may be added until then.
    pub(crate) fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let first = self.queue.first_key_value().map(|((at, _), _)| (*at).max(now + PAUSE).min(now + TICK));
        self.running = first.is_some();
        first
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn timed(idle_timeout: Duration, max_lifetime: Duration, now: Instant) -> TimedConnection {
        let spec = PoolSpec { idle_timeout, max_lifetime, close_spread_percent: 0, ..PoolSpec::default() };
        TimedConnection::new(0, 1, &spec, now, now)
    }

    /// When a connection that moves a byte at each of `moves` is closed, and why, if each look is made when it is due.
    fn closed(timed: TimedConnection, moves: &[Duration], begin: Instant) -> (Duration, CloseReason) {
        // Connections are opened anywhere between two ticks.
        let mut timeouts = TimeoutQueue::new(begin - TICK / 3);
        timeouts.add(1, timed, begin);
        let mut now = begin;
        loop {
            now = timeouts.next_look(now).unwrap();
            let Some((id, mut timed)) = timeouts.due(now) else { continue };
            let moved = moves.iter().filter(|at| begin + **at <= now).count() as u64;
            match timed.look(moved, now) {
                Some(reason) => return (now - begin, reason),
                None => timeouts.look_again(id, timed, now),
            }
        }
    }

    #[test]
    fn idle_connections_are_closed_within_a_second_or_a_tenth_and_not_early() {
        let begin = Instant::now();
        for timeout in [1, 2, 10, 60, 600, 86_400].map(Duration::from_secs) {
            for last in [Duration::ZERO, timeout / 3, timeout - TICK] {
                let moves: Vec<_> = (0..=10).map(|n| last * n / 10).collect();
                let open = timed(timeout, Duration::ZERO, begin);
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
                let (at, reason) = closed(timed(idle, lifetime, begin), &moves, begin);
                assert_eq!(reason, CloseReason::Expired);
                assert!(at >= lifetime && at <= lifetime + PAUSE, "{lifetime:?} {at:?}");
            }
        }
    }

    #[test]
    fn those_that_came_together_end_over_the_last_part_of_their_time() {
        let (begin, lifetime) = (Instant::now(), Duration::from_secs(8));
        let spec = PoolSpec { max_lifetime: lifetime, ..PoolSpec::default() };
        let mut ends: Vec<Duration> = (1..=300)
            .map(|id| closed(TimedConnection::new(0, id, &spec, begin, begin), &[], begin).0)
            .collect();
        ends.sort();
        assert!(ends[0] >= lifetime * 9 / 10 && ends[299] <= lifetime + PAUSE, "{ends:?}");
        // Evenly, 94 of 300 end in a quarter of a second.
        let busiest = ends
            .iter()
            .map(|first| ends.iter().filter(|end| **end >= *first && **end < *first + TICK).count());
        assert!(busiest.max() < Some(120), "{ends:?}");
    }

    #[test]
    fn looking_ends_with_the_last_and_begins_with_the_next() {
        let now = Instant::now();
        let mut timeouts = TimeoutQueue::new(now);
        assert!(timeouts.add(1, timed(SECOND, Duration::ZERO, now), now));
        assert!(!timeouts.add(2, timed(SECOND, Duration::ZERO, now), now));
        assert!(timeouts.due(now).is_none());
        assert_eq!(timeouts.next_look(now), Some(now + TICK));
        let later = now + SECOND;
        assert_eq!(timeouts.due(later).map(|(id, _)| id), Some(1));
        assert_eq!(timeouts.due(later).map(|(id, _)| id), Some(2));
        assert_eq!(timeouts.next_look(later), None);
        assert!(timeouts.add(3, timed(SECOND, Duration::ZERO, now), now));
    }

    #[test]
    fn the_end_of_a_lifetime_is_looked_at_when_it_comes() {
        let now = Instant::now();
        let mut timeouts = TimeoutQueue::new(now);
        let end = SECOND + Duration::from_millis(7);
        timeouts.add(1, timed(Duration::ZERO, end, now), now);
        assert_eq!(timeouts.next_look(now + SECOND), Some(now + end));
        assert_eq!(timeouts.next_look(now + end), Some(now + end + PAUSE), "not again at once");
    }
}
