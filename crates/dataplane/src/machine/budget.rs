//! How many file descriptors the data plane may use, so that what is left is there for the API, peers, checks and Raft.

use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

use tokio::sync::Notify;

/// Descriptors of one connection: its two sockets.
pub(crate) const PER_CONNECTION: usize = 2;

/// Accepting goes on once this part of the budget is free again, and at least one connection's. Were it one connection
/// always, then each that ends would wake every listener only to let one of them accept.
const RESUME: usize = 64;

/// Part of the budget that listening sockets may have, so that connections have the rest whatever is configured.
const LISTENING: usize = 2;

/// Part of that which is kept for listeners with few ports, so that one with thousands does not leave the next one nothing.
const FEW_PORTS: usize = 8;

/// Why there are no descriptors for listening sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Listening sockets have all that they may have, which are as many as this.
    Listening(usize),
    /// Connections have what is left.
    Connections,
}

/// The use of a [`Budget`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse {
    /// Descriptors that listening sockets and connections have.
    pub used: usize,
    /// Most that they may have; `None` for no bound.
    pub limit: Option<usize>,
    /// How often accepting has paused because there was no room for a connection.
    pub pauses: u64,
}

/// Descriptors that may be used, and those that are. A connection takes its descriptors in any case; but while there is no room
/// for one more connection, none is accepted. Workers that look at the same moment may each find room for the same one, and
/// then use one more than there is; there is a reserve for that.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    /// Use up to which a pause ends.
    resume: usize,
    used: AtomicUsize,
    /// Those of listening sockets among them.
    listening: AtomicUsize,
    paused: AtomicBool,
    pauses: AtomicU64,
    free: Notify,
}

impl Budget {
    /// A budget of `limit` descriptors, at least one connection's; `None` for no bound.
    pub(crate) fn new(limit: Option<usize>) -> Self {
        let limit = limit.unwrap_or(usize::MAX).max(PER_CONNECTION);
        Self {
            limit,
            resume: limit.saturating_sub((limit / RESUME).max(PER_CONNECTION)),
            used: AtomicUsize::new(0),
            listening: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            pauses: AtomicU64::new(0),
            free: Notify::new(),
        }
    }

    /// Whether one more connection may be accepted. If not, that begins a pause, which lasts until enough is free.
    pub(crate) fn has_room(&self) -> bool {
        if self.paused.load(SeqCst) {
            return false;
        }
        if self.used.load(SeqCst).saturating_add(PER_CONNECTION) <= self.limit {
            return true;
        }
        if !self.paused.swap(true, SeqCst) {
            let pauses = self.pauses.fetch_add(1, Relaxed) + 1;
            // Rarer from time to time, since it may happen thousands of times a second.
            if pauses.is_power_of_two() {
                let (used, limit) = (self.used.load(Relaxed), self.limit);
                tracing::warn!(
                    used,
                    limit,
                    pauses,
                    "out of file descriptors: connections wait to be accepted"
                );
            }
        }
        // Descriptors that were given back before the pause had begun would not end it.
        self.end_pause(self.used.load(SeqCst));
        !self.paused.load(SeqCst)
    }

    /// Connections that still find room.
    pub(crate) fn free(&self) -> usize {
        self.limit.saturating_sub(self.used.load(Relaxed)) / PER_CONNECTION
    }

    /// Waits until one more connection may be accepted.
    pub(crate) async fn room(&self) {
        loop {
            let free = self.free.notified();
            tokio::pin!(free);
            free.as_mut().enable();
            if self.has_room() {
                return;
            }
            free.await;
        }
    }

    /// Uses descriptors, whether there is room for them or not.
    pub(crate) fn take(&self, count: usize) {
        self.used.fetch_add(count, SeqCst);
    }

    /// Uses descriptors if there is room for them; for optional uses.
    pub(crate) fn try_take(&self, count: usize) -> bool {
        let more = |used: usize| used.checked_add(count).filter(|used| *used <= self.limit);
        self.used.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Uses descriptors for listening sockets, of a listener with `many` ports or with few.
    ///
    /// # Errors
    /// Why there is no room for them; then none is used.
    pub(crate) fn listen(&self, count: usize, many: bool) -> Result<(), NoRoom> {
        let all = (self.limit / LISTENING).max(1);
        let most = if many { all - all / FEW_PORTS } else { all };
        let more = |listening: usize| listening.checked_add(count).filter(|listening| *listening <= most);
        self.listening.fetch_update(SeqCst, SeqCst, more).map_err(|_| NoRoom::Listening(most))?;
        if self.try_take(count) {
            return Ok(());
        }
        self.listening.fetch_sub(count, SeqCst);
        Err(NoRoom::Connections)
    }

    /// Gives the descriptors of listening sockets back.
    pub(crate) fn unlisten(&self, count: usize) {
        self.listening.fetch_sub(count, SeqCst);
        self.give(count);
    }

    /// Gives descriptors back that were taken.
    pub(crate) fn give(&self, count: usize) {
        let before = self.used.fetch_sub(count, SeqCst);
        if self.paused.load(SeqCst) {
            self.end_pause(before.saturating_sub(count));
        }
    }

    fn end_pause(&self, used: usize) {
        if used <= self.resume && self.paused.swap(false, SeqCst) {
            self.free.notify_waiters();
        }
    }

    /// What is used now.
    pub(crate) fn read(&self) -> BudgetUse {
        BudgetUse {
            used: self.used.load(Relaxed),
            limit: (self.limit != usize::MAX).then_some(self.limit),
            pauses: self.pauses.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_pause_lasts_until_a_64th_is_free() {
        let budget = Budget::new(Some(640));
        for _ in 0..320 {
            assert!(budget.has_room());
            budget.take(PER_CONNECTION);
        }
        for _ in 0..4 {
            assert!(!budget.has_room());
            budget.give(PER_CONNECTION);
        }
        assert!(!budget.has_room(), "8 of 640 are free, and 10 have to be");
        budget.give(PER_CONNECTION);
        assert!(budget.has_room());
        assert_eq!(budget.read(), BudgetUse { used: 630, limit: Some(640), pauses: 1 });
    }

    #[test]
    fn what_can_be_done_without_takes_no_more_than_there_is() {
        let budget = Budget::new(Some(5));
        assert!(budget.try_take(2) && budget.try_take(2) && !budget.try_take(2));
        assert_eq!(budget.read(), BudgetUse { used: 4, limit: Some(5), pauses: 0 });
        budget.give(2);
        assert!(budget.try_take(2));
    }

    #[test]
    fn the_smallest_budgets_work() {
        let budget = Budget::new(Some(3));
        assert!(budget.has_room());
        budget.take(PER_CONNECTION);
        assert!(!budget.has_room());
        budget.give(PER_CONNECTION);
        assert!(budget.has_room());
        let none = Budget::new(Some(0));
        assert!(none.has_room(), "a budget for nothing would be a member that never accepts");
        none.take(PER_CONNECTION);
        assert!(!none.has_room() && !none.has_room());
        assert_eq!(none.read().pauses, 1);
    }

    #[test]
    fn what_was_taken_too_much_ends_no_pause() {
        let budget = Budget::new(Some(4));
        budget.take(10);
        assert!(!budget.has_room());
        budget.give(8);
        assert!(budget.has_room());
        let endless = Budget::new(None);
        endless.take(1 << 40);
        assert!(endless.has_room());
        assert_eq!(endless.read().limit, None);
    }

    #[test]
    fn listening_sockets_have_half_of_it_at_most_and_nothing_that_connections_have() {
        let budget = Budget::new(Some(20));
        assert_eq!(budget.listen(8, true), Ok(()));
        // An eighth of what listening sockets may have is for listeners with few ports.
        assert_eq!(budget.listen(2, true), Err(NoRoom::Listening(9)));
        assert_eq!(budget.listen(3, false), Err(NoRoom::Listening(10)));
        assert_eq!(budget.read().used, 8, "what was refused takes nothing");
        budget.take(11);
        assert_eq!(budget.listen(2, false), Err(NoRoom::Connections));
        assert_eq!(budget.listen(1, false), Ok(()));
        budget.give(11);
        budget.unlisten(4);
        assert_eq!(budget.listen(5, false), Ok(()));
        assert_eq!(budget.read().used, 10);
        assert!(budget.has_room());
        // However little there is, one address can be listened at.
        assert_eq!(Budget::new(Some(0)).listen(1, true), Ok(()));
        assert_eq!(Budget::new(None).listen(1 << 40, true), Ok(()));
    }

    #[test]
    fn who_waits_is_told_once_there_is_room() {
        let budget = Arc::new(Budget::new(Some(2)));
        budget.take(PER_CONNECTION);
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits = [(); 2].map(|()| Box::pin(budget.room()));
        assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut cx).is_pending()));
        budget.give(PER_CONNECTION);
        assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut cx) == Poll::Ready(())));
    }

    #[test]
    fn no_pause_outlives_what_it_waits_for() {
        // Threads that take and give at the bound; each pause must end, or this does not.
        let budget = Arc::new(Budget::new(Some(4)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let budget = budget.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        for _ in 0..20_000 {
                            budget.room().await;
                            budget.take(PER_CONNECTION);
                            budget.give(PER_CONNECTION);
                        }
                    });
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(budget.read().used, 0);
    }
}
