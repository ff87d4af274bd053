//! A leader whose log is not written gives leadership away.
//!
//! While its disk, or the thread that writes to it, hangs, its heartbeats go on, so no other member would ever lead. But each write
//! then needs the disks of a quorum of the others, and the leader answers no other candidate, because a vote is written before it is
//! given. Its virtual IPs are served until it hands over, and released when the transfer begins, as with any transfer. The release
//! is not recorded, so the successor waits for the old lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};
use trestle_consensus::Consensus;
use trestle_engine::ownership::Fault;

use super::shared::Shared;
use super::stall::POLL_INTERVAL;
use super::succession::Succession;
use crate::supervise::Supervisor;

/// An idle writer is asked for a sign of life once in this many looks.
const ASK_EVERY: u32 = 4;

/// Time to the next attempt at giving leadership away.
const AGAIN: Duration = Duration::from_secs(1);

/// How long an attempt may take. Raft itself hangs when it must write a vote.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Watches the log for ever.
pub(super) async fn watch(
    consensus: Consensus,
    shared: Arc<Shared>,
    supervisor: Supervisor,
    succession: Succession,
) {
    let mut looks = interval(POLL_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    let mut attempt: Option<JoinHandle<()>> = None;
    for round in (0..ASK_EVERY).cycle() {
        looks.tick().await;
        let work = consensus.log_work();
        if work.is_some_and(|work| work.ended) {
            supervisor.fail("trestle-log", "it has ended; see the log");
        }
        shared.stall.look(work);
        if round == 0 && work.is_some_and(|work| work.given == work.done) {
            consensus.touch_log();
        }
        let hangs = shared.log_hangs();
        tell(&mut told, hangs);
        let leads = consensus.leadership().borrow().leads.is_some_and(|leads| !leads.transferring);
        if hangs.is_some() && leads && attempt.as_ref().is_none_or(JoinHandle::is_finished) {
            attempt = Some(tokio::spawn(give_leadership_away(
                consensus.clone(),
                shared.clone(),
                succession.clone(),
            )));
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
async fn give_leadership_away(consensus: Consensus, shared: Arc<Shared>, succession: Succession) {
    let Some(to) = succession.targets_without_own_vote().await.first().copied() else {
        return sleep(AGAIN).await;
    };
    warn!(%to, "this member's log is not written, so it gives leadership away");
    shared.status().back_off.left(Fault::Log, shared.now());
    match timeout(ATTEMPT, consensus.transfer(Some(to))).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn!(%error, "leadership was not handed over"),
        Err(_) => warn!("whether leadership was handed over is not known yet"),
    }
    sleep(AGAIN).await;
}
