//! A leader whose owner hangs gives leadership away.
//!
//! Nobody extends the leases of what such a member holds, so its kernel drops them in time; but while it leads, nobody else may
//! serve. The successor waits for the old lease, because no release is committed: an owner that goes on in between finds out like one
//! whose whole process was stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;
use trestle_engine::SignOfLife;

use super::fitness;
use super::handle::Vips;
use crate::member::Member;
use crate::supervise::Lifetime;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Looks in a row that must find it silent.
const LOOKS: u32 = 3;

/// Added to the lease, for a machine that does other things: a leader's owner hears of every heartbeat, and looks around each second
/// besides.
const MARGIN: Duration = Duration::from_secs(1);

/// Time to the next attempt at giving leadership away.
const AGAIN: Duration = Duration::from_secs(1);

/// Watches the owner, on Raft's runtime: nothing of the API may delay it.
pub(super) fn follow(member: &Arc<Member>) {
    let runtime = member.consensus.runtime();
    member.supervisor.spawn(&runtime, "owner watch", Lifetime::UntilStop, watch(member.clone()));
}

/// A silence as a fault.
pub(super) fn words(silence: Duration) -> String {
    format!("the thread that holds them has given no sign of life for {} s", silence.as_secs())
}

/// What is seen of the owner from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// On the machine's clock.
    sign: SignOfLife,
    /// Looks in a row that found no sign of life.
    looks: AtomicU32,
    /// The owner has ended because it was told to.
    ended: AtomicBool,
}

impl Silence {
    /// Notes a sign of life.
    pub(super) fn end(&self, now: Duration) {
        self.sign.give(now);
    }

    /// Notes that there will be none any more.
    pub(super) fn is_no_fault(&self) {
        self.ended.store(true, Relaxed);
    }

    /// How long there has been none, if that is more than `patience`.
    fn over(&self, patience: Duration, now: Duration) -> Option<Duration> {
        let silence = self.sign.silence(now);
        (silence > patience && !self.ended.load(Relaxed)).then_some(silence)
    }

    fn look(&self, patience: Duration, now: Duration) {
        let looks = if self.over(patience, now).is_some() { self.looks.load(Relaxed) + 1 } else { 0 };
        self.looks.store(looks, Relaxed);
    }

    /// The silence of an owner that hangs: one that was stopped together with the whole process goes on when the looks do.
    fn of_hung(&self, patience: Duration, now: Duration) -> Option<Duration> {
        self.over(patience, now).filter(|_| self.looks.load(Relaxed) >= LOOKS)
    }
}

impl Vips {
    fn patience(&self) -> Duration {
        self.shared.lease.length + MARGIN
    }

    /// How long the owner has given no sign of life, if it hangs: what it held is silent by then.
    pub(super) fn owner_hangs(&self) -> Option<Duration> {
        self.shared.silence.of_hung(self.patience(), self.shared.now())
    }
}

async fn watch(member: Arc<Member>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let vips = &member.vips;
        vips.shared.silence.look(vips.patience(), vips.shared.now());
        let leads = member.consensus.leadership().borrow().leads.is_some_and(|leads| !leads.transferring);
        let serves = !member.consensus.view().borrow().state.vips.is_empty();
        if let Some(silence) = vips.owner_hangs().filter(|_| leads && serves) {
            give_leadership_away(&member, silence).await;
            sleep(AGAIN).await;
        }
    }
}

async fn give_leadership_away(member: &Member, silence: Duration) {
    warn!(
        silence_s = silence.as_secs(),
        "the thread that holds virtual IPs gives no sign of life; this member gives leadership away"
    );
    // To one that can serve, if any says so.
    let to = fitness::targets(member).await.first().copied();
    if let Err(error) = member.consensus.transfer(to).await {
        warn!(%error, "leadership was not handed over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_hangs_once_several_looks_in_a_row_found_it_silent() {
        let (patience, late) = (Duration::from_secs(1), Duration::from_secs(9));
        let silence = Silence::default();
        let hangs_after = |looks: u32, now| {
            (0..looks).for_each(|_| silence.look(patience, now));
            silence.of_hung(patience, now).is_some()
        };
        assert!(!hangs_after(LOOKS, patience));
        assert!(!hangs_after(LOOKS - 1, late) && hangs_after(1, late));
        silence.end(late);
        assert!(!hangs_after(LOOKS, late));
        // The process was stopped: the first look comes before the owner can run.
        assert!(!hangs_after(1, late + late));
        silence.is_no_fault();
        assert!(!hangs_after(LOOKS, late + late));
    }
}
