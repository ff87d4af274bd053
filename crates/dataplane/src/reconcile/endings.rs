//! Connections that end one after another before a deadline: that of their backend's drain, or of this member's grace time.

use std::sync::Weak;
use std::time::Duration;

use trestle_engine::spread;

use crate::forwarder::{Connections, OpenConnection};
use crate::observe::close_reason::CloseReason;

/// Least time between two rounds of endings, so that thousands that end within a second are some for each round.
const PAUSE: Duration = Duration::from_millis(5);

/// The time in which a member that stops, or is drained, lets connections finish, on the clock of the reconciler.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grace {
    pub(super) since: Duration,
    pub(super) time: Duration,
    /// The reason with which the others are closed.
    pub(super) reason: CloseReason,
}

impl Grace {
    /// How connections end whose pool spreads ends over this part of a time.
    pub(super) fn ending(self, spread_percent: u32) -> Ending {
        let from = self.deadline().saturating_sub(spread::last_part(self.time, spread_percent));
        Ending::new(self.reason, from, self.deadline())
    }

    /// When no connection may be left.
    pub(super) fn deadline(self) -> Duration {
        self.since.saturating_add(self.time)
    }
}

/// How the connections of one backend end: each at a time of its own, which its number determines, so that it stays the same
/// when this is made anew. Connections that are left at the deadline are closed in another way.
#[derive(Debug)]
pub(super) struct Ending {
    reason: CloseReason,
    from: Duration,
    deadline: Duration,
    /// The connections that are left, the next one to end last; `None` before the first is due.
    left: Option<Vec<(Duration, Weak<dyn OpenConnection>)>>,
    next: Duration,
}

impl Ending {
    /// Ends between two moments.
    pub(super) fn new(reason: CloseReason, from: Duration, deadline: Duration) -> Self {
        Self { reason, from, deadline, left: None, next: from }
    }

    /// When no connection may be left.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Duration {
        self.next
    }

    /// Whether there is time to end connections one after another after `now`, and they are not known yet.
    pub(super) fn is_blank(&self, now: Duration) -> bool {
        self.left.is_none() && self.deadline > now
    }

    /// Takes the backend's connections. A drained backend and a member that stops get no new ones; connections that are being
    /// made at this time are closed at the deadline.
    pub(super) fn fill(&mut self, connections: Connections) {
        let moment = |(id, entry)| (spread::moment(id, self.from, self.deadline), entry);
        let mut all: Vec<_> = connections.into_iter().map(moment).collect();
        all.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        self.left = Some(all);
    }

    /// Ends the connections that are due.
    pub(super) fn end_due(&mut self, now: Duration) {
        let left = self.left.get_or_insert_default();
        while let Some((_, entry)) = left.pop_if(|(at, _)| *at <= now) {
            if let Some(entry) = entry.upgrade() {
                entry.end(self.reason);
            }
        }
        let next = left.last().map_or(self.deadline, |(at, _)| (*at).max(now + PAUSE));
        self.next = next.min(self.deadline);
    }
}
