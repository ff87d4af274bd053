//! A leader whose log is not written gives leadership away.
//!
//! Its heartbeats go on while its disk, or the thread that writes to it, hangs, so that nobody else would ever lead; but each write
//! needs the disks of a quorum of the others then, and it answers no other candidate: a vote is written before it is given. Its
//! virtual IPs are well served until it hands over, and released when it begins to, as with any transfer. No release is on record:
//! the successor waits for the old lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};
use trestle_consensus::LogWork;
use trestle_engine::SILENT_MAX;
use trestle_engine::ownership::Fault;

use super::fitness;
use super::handle::Vips;
use crate::member::Member;
use crate::supervise::Lifetime;

/// Time between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Every how many of them the writer is asked for a sign of life, if it has nothing to do.
const ASK_EVERY: u32 = 4;

/// Added to the lease, for a disk that is slow once in a while.
const MARGIN: Duration = Duration::from_secs(1);

/// Time to the next attempt at giving leadership away.
const AGAIN: Duration = Duration::from_secs(1);

/// How long an attempt may take. Raft itself hangs when it has to write another vote.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The watchdog's patience with it. A disk that hangs comes back or does not, and a restart mends neither: what is served here goes
/// on meanwhile. A thread that hangs by a mistake is worth one.
const HOPELESS: Duration = Duration::from_secs(60);

/// Watches the log, on Raft's runtime: nothing of the API may delay it.
pub(super) fn follow(member: &Arc<Member>) {
    let runtime = member.consensus.runtime();
    member.supervisor.spawn(&runtime, "log watch", Lifetime::UntilStop, watch(member.clone()));
}

/// What is seen of the log's writer from one look to the next. Time is counted in looks: a process that was stopped as a whole made
/// none.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// What it had done at the last look.
    done: AtomicU64,
    /// Looks in a row that found it at the same piece of work.
    looks: AtomicU32,
}

impl Stall {
    fn look(&self, work: Option<LogWork>) {
        let stands = work
            .is_some_and(|work| self.done.swap(work.done, Relaxed) == work.done && work.given > work.done);
        self.looks.store(if stands { self.looks.load(Relaxed).saturating_add(1) } else { 0 }, Relaxed);
    }

    fn lasts(&self) -> Duration {
        POLL_INTERVAL * self.looks.load(Relaxed)
    }

    fn over(&self, patience: Duration) -> Option<Duration> {
        Some(self.lasts()).filter(|lasts| *lasts > patience)
    }
}

/// A stall in words.
pub(super) fn words(stall: Duration) -> String {
    format!("the thread that writes its log, or the disk, has hung for {} s", stall.as_secs())
}

impl Vips {
    /// For how long the log has not been written, if that is a reason for another member to lead.
    pub(super) fn log_hangs(&self) -> Option<Duration> {
        self.shared.stall.over(self.shared.lease.length + MARGIN)
    }

    /// That the thread which writes the log hangs, in words.
    pub(crate) fn log_silence(&self) -> Option<String> {
        let silence = self.shared.stall.over(SILENT_MAX)?;
        Some(format!("trestle-log has given no sign of life for {} s", silence.as_secs()))
    }

    /// Whether nothing but a restart may help the thread that writes the log.
    pub(super) fn log_is_lost(&self) -> bool {
        self.shared.stall.over(HOPELESS).is_some()
    }
}

async fn watch(member: Arc<Member>) {
    let mut looks = interval(POLL_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    let mut attempt: Option<JoinHandle<()>> = None;
    for round in (0..ASK_EVERY).cycle() {
        looks.tick().await;
        let work = member.consensus.log_work();
        if work.is_some_and(|work| work.ended) {
            member.supervisor.fail("trestle-log", "it has ended; see the log");
        }
        member.vips.shared.stall.look(work);
        if round == 0 && work.is_some_and(|work| work.given == work.done) {
            member.consensus.touch_log();
        }
        let hangs = member.vips.log_hangs();
        tell(&mut told, hangs);
        let leads = member.consensus.leadership().borrow().leads.is_some_and(|leads| !leads.transferring);
        if hangs.is_some() && leads && attempt.as_ref().is_none_or(JoinHandle::is_finished) {
            attempt = Some(tokio::spawn(give_leadership_away(member.clone())));
        }
    }
}

/// Logs a stall once, and its end.
fn tell(told: &mut Option<Duration>, stall: Option<Duration>) {
    match (&told, stall) {
        (None, Some(_)) => warn!("the thread that writes the log, or the disk, hangs"),
        (Some(lasted), None) => info!(seconds = lasted.as_secs(), "the log is written again"),
        _ => {}
    }
    *told = stall;
}

/// Gives leadership to a member that can serve and write, where the others can elect it.
async fn give_leadership_away(member: Arc<Member>) {
    let Some(to) = fitness::targets_without_own_vote(&member).await.first().copied() else {
        return sleep(AGAIN).await;
    };
    warn!(%to, "this member's log is not written, so it gives leadership away");
    let shared = &member.vips.shared;
    shared.status().back_off.left(Fault::Log, shared.now());
    match timeout(ATTEMPT, member.consensus.transfer(Some(to))).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn!(%error, "leadership was not handed over"),
        Err(_) => warn!("whether leadership was handed over is not known yet"),
    }
    sleep(AGAIN).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_hangs_that_is_at_the_same_work_for_longer_than_the_patience() {
        let stall = Stall::default();
        let patience = 3 * POLL_INTERVAL;
        let look = |given, done| {
            stall.look(Some(LogWork { given, done, ended: false }));
            stall.over(patience).is_some()
        };
        // Nothing to do, however long.
        assert!((0..9).all(|_| !look(7, 7)));
        assert!((0..3).all(|_| !look(8, 7)) && look(9, 7));
        assert_eq!(stall.lasts(), 4 * POLL_INTERVAL);
        // It goes on, though there is always something to do.
        assert!((8..99).all(|done| !look(100, done)));
        assert!((0..3).all(|_| !look(101, 98)) && look(101, 98));
        stall.look(None);
        assert_eq!(stall.lasts(), Duration::ZERO);
    }
}
